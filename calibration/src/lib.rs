//! Camera calibration and looking at pictures: the library behind `tenon-calibrate`.
//!
//! [`cli`] says what may be asked, [`photo`] measures one picture (values in, a [`report::PhotoReport`] out), [`text`]
//! prints it for people, [`draw`] draws it onto the picture, [`run`] ties them to files and the terminal.
//!
//! A calibration: [`boards`] and [`intrinsics`] for the lens, [`extrinsics`] for the places of the cameras, [`arm`] for where the arm
//! stands (typed, from a file, or read from the robot's link), [`measure`] for proof, noise,
//! latency and drift; [`steps`] make entries of the rig's file ([`rig`]) of them, [`wizard`] leads through them, [`report_page`] writes
//! what came out.

pub mod arm;
pub mod boards;
pub mod cli;
pub mod commands;
pub mod diagnose;
pub mod draw;
mod error;
pub mod extrinsics;
pub mod font;
pub mod intrinsics;
pub mod measure;
pub mod photo;
pub mod report;
pub mod report_page;
pub mod rig;
pub mod run;
pub mod steps;
pub mod text;
pub mod wizard;

pub use error::CalibrateError;
