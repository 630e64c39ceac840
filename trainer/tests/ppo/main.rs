//! Gaussian policies and mixtures on small problems.

mod cloning;
mod common;
mod policies;
mod updating;
