//! Gaussian policies and mixtures on small problems.

mod cloning;
mod common;
#[path = "../fixtures/mod.rs"]
mod fixtures;
mod policies;
mod randomising;
mod updating;
