//! TorchScript archives without PyTorch: what the controller server loads and what clients send
//! (spec `polymetis.md` §6).
//!
//! An archive is a ZIP with one top folder that holds a pickle of a module object, the raw bytes of
//! its tensors and the TorchScript text of its class. [`ParameterArchive`], [`write_parameters`],
//! [`pd_controller`] and [`hybrid_controller`] write them byte for byte in the minimal layout of
//! §6.3; [`read_parameters`] and [`read_controller`] read those and the archives written by PyTorch.
//!
//! The reader executes nothing. It knows the opcodes and globals of §6 only, bounds every size, and
//! answers arbitrary bytes with an [`ArchiveError`]. It also refuses what the real loader accepts but
//! should not (a storage entry shorter than its tensor, a wrong CRC), because both mean a faulty writer.

pub mod class_text;
mod controllers;
mod error;
mod parameters;
pub mod pickle;
mod read;
mod tensor;
mod value;
pub mod zip;

pub use controllers::{PANDA_LINK8_FRAME, hybrid_controller, pd_controller};
pub use error::ArchiveError;
pub use parameters::{JOINT_POS_DESIRED, ParameterArchive, write_parameters};
pub use read::{Archive, ControllerArchive, ControllerLaw, read_controller, read_parameters};
pub use tensor::{DataType, TensorData, TensorValue};
pub use value::{Dict, List, Object, Value};

/// Largest archive that is read or written. The server reserves 1 MiB and gRPC's default message
/// limit is 4 MiB; a minute of a genuine trajectory controller is just below 4 MiB.
pub const MAX_ARCHIVE_BYTES: usize = 16 << 20;

/// Largest sum of all entries after unpacking, and of all tensors after reading.
pub const MAX_UNPACKED_BYTES: usize = 64 << 20;

/// Deepest nesting of values in the pickle; genuine controllers stay below ten.
pub const MAX_DEPTH: usize = 64;

/// Most opcodes in one pickle.
pub const MAX_PICKLE_OPS: usize = 1_000_000;

/// Most entries in one ZIP.
pub const MAX_ENTRIES: usize = 4096;

/// Most dimensions of one tensor.
pub const MAX_TENSOR_RANK: usize = 8;

/// Most distinct classes in one pickle; genuine controllers have about six.
pub const MAX_CLASSES: usize = 256;
