//! Whole runs of diffusion policies on small problems.

mod bandit;
mod clean_chunks;
mod finetuning;
#[path = "../fixtures/mod.rs"]
mod fixtures;
mod pretraining;
mod rolling_back;
