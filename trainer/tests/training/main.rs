//! Whole runs of diffusion policies on small problems.

mod annealing;
mod bandit;
mod clean_chunks;
mod eta;
mod finetuning;
#[path = "../fixtures/mod.rs"]
mod fixtures;
mod pictures;
mod pretraining;
mod rolling_back;
