//! The authors' PyTorch checkpoints and statistics become ours (spec dppo.md §1.7, §7.1, §7.4).
//!
//! Three steps: [`Contents`] reads a file without executing anything (`tenon-pickle`), [`TorchCheckpoint`] finds the
//! state dicts in it, and [`import`] fits them to the networks of a configuration, name by name and shape by shape.
//! [`read_normalizer`] reads the limits of the data from `.npz`, `.pth` and `.pkl` files.

mod checkpoint;
mod contents;
mod mapping;
mod statistics;

pub use checkpoint::{Kind, Progress, StateDict, TorchCheckpoint, Weights};
pub use contents::{Contents, Entry, Number};
pub use mapping::{Imported, Part, StdBounds, import};
pub use statistics::read_normalizer;
