//! Demonstrations of robots in the formats that people have them in, and back.
//!
//! One type, [`Demonstrations`], holds episodes with named fields; each format is one module that reads it, and some
//! write it. [`read`] tells the format by what is in a file, never by its name alone. Nothing that a file holds is
//! executed, and damaged files end in a [`Defect`] or a [`DataError`], never in a panic.
//!
//! * [`model`], [`array`](Array): the type.
//! * [`verify()`], [`summary`], [`edit`]: what is wrong with it, what is in it, mending it.
//! * [`npz`]: the trainer's own. [`robomimic`], [`d4rl`]: HDF5. [`lerobot`]: LeRobotDataset v3. [`zarr`]: diffusion_policy,
//!   UMI and FurnitureBench. [`pickles`]: FurnitureBench and D3IL Avoid, one file an episode.
//! * [`hdf5`], [`npy`], [`archive`]: what the files are made of.

pub mod archive;
mod array;
pub mod d4rl;
pub mod edit;
mod error;
mod format;
pub mod hdf5;
pub mod lerobot;
pub mod model;
pub mod npy;
pub mod npz;
pub mod pickles;
mod quiet;
pub mod robomimic;
pub mod save;
pub mod summary;
mod verify;
pub mod zarr;

pub use array::{Array, Data};
pub use error::DataError;
pub use format::{Format, Output, default_states, detect, read, write};
pub use model::{Demonstrations, Episode, Found, LeftOut};
pub use verify::{Bounds, Defect, Kind, fingerprint, number_of, verify};

/// How a long reading or writing goes on: what is wanted, and somebody to ask whether to.
pub struct Steps<'a> {
    /// Whether pictures are read.
    pub pictures: bool,
    tell: &'a mut dyn FnMut(usize, usize) -> bool,
}

impl<'a> Steps<'a> {
    /// `tell(done, total)` is called for each episode; `false` ends the work.
    pub fn new(pictures: bool, tell: &'a mut dyn FnMut(usize, usize) -> bool) -> Self {
        Self { pictures, tell }
    }

    /// `done` of `total` are done.
    fn at(&mut self, done: usize, total: usize) -> Result<(), DataError> {
        if (self.tell)(done, total) { Ok(()) } else { Err(DataError::Interrupted) }
    }
}

/// What a person should know about what was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes(Vec<String>);

impl Notes {
    /// Adds a sentence, once.
    pub fn say(&mut self, note: &str) {
        if !self.0.iter().any(|n| n == note) {
            self.0.push(note.to_owned());
        }
    }

    /// The sentences.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}
