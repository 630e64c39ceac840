//! Networks with forward and backward passes in f32 (spec dppo.md §3).
//!
//! A network is defined in `tenon_core::network`; [`plan::Plan`] is its executable form. It holds sizes and offsets only:
//! parameters are a flat slice laid out by a [`ParameterTable`], so that optimiser, moving average, gradient and
//! checkpoint are plain slices of one length. Buffers are workspaces that are allocated once and reused; a batch is
//! walked in blocks of rows that fit the cache.

mod batch;
mod critic;
mod gaussian;
mod noise;
mod parameters;
pub mod plan;

pub use batch::{CriticBatch, GaussianBatch, NoiseBatch};
pub use critic::{Critic, CriticRow};
pub use gaussian::{GaussianNetwork, GaussianPrepared, GaussianRow, GaussianRowGradient, GaussianWorkspace};
pub use noise::{NoiseNetwork, NoiseRow, Observations};
pub use parameters::ParameterTable;
pub use plan::{PlanGradient, Prepared, Workspace};

/// Whether a workspace also keeps what the backward pass needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Inference,
    Training,
}
