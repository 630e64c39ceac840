//! Policies at run time: ONNX graphs of the denoising networks, the engines that run them, and the policy bundle.
//!
//! This is the only crate that runs ONNX.

pub mod bench;
pub mod bundle;
mod denoiser;
pub mod engine;
mod error;
pub mod graph;
pub mod onnx;
pub mod parity;

pub use bundle::{Bundle, BundleContent, BundleWriter};
pub use denoiser::OnnxDenoiser;
pub use engine::Engine;
pub use error::PolicyError;
