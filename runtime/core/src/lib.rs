//! The pure core of Tenon: values in, values out.
//!
//! Nothing in this crate opens a file, a socket or a thread, reads a clock or logs. Trainer, simulator and robot
//! runtime share it, so that there is one definition of a policy ([`spec::PolicySpec`]), one normaliser, one denoising
//! schedule, one arm and one safety stage.
//!
//! Notation: `T_a_b` is the pose of frame b in frame a (`p_a = T_a_b * p_b`), lengths in metres, angles in radians,
//! twists `[v; ω]` (linear first).

pub mod action;
pub mod arm;
pub mod avoid;
pub mod calendar;
pub mod config;
pub mod diffusion;
pub mod fusion;
pub mod geometry;
pub mod gripper;
pub mod ik;
pub mod message;
pub mod network;
pub mod noise;
pub mod normalizer;
pub mod observation;
pub mod pictures;
pub mod randomisation;
pub mod safety;
pub mod spec;
pub mod step_budget;
pub mod task;
pub mod time;
pub mod timeline;
