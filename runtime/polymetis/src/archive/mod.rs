//! TorchScript archives without PyTorch: what the controller server loads and what clients send
//! (spec `polymetis.md` §6).
//!
//! An archive is a ZIP with one top folder that holds a pickle of a module object, the raw bytes of
//! its tensors and the TorchScript text of its class. [`ParameterArchive`], [`write_parameters`],
//! [`pd_controller`] and [`hybrid_controller`] write them byte for byte in the minimal layout of
//! §6.3; [`read_parameters`] and [`read_controller`] read those and the archives written by PyTorch, and
//! [`script`](crate::script) runs them.
//!
//! The reader executes nothing: ZIP and pickle are `tenon-pickle`'s, which knows the opcodes and globals of §6 only,
//! bounds every size ([`LIMITS`]), and answers arbitrary bytes with an error. It also refuses what the real loader accepts but
//! should not (a storage entry shorter than its tensor, a wrong CRC), because both mean a faulty writer.

pub mod class_text;
mod controllers;
mod error;
mod parameters;
mod pickle;
mod read;

pub(crate) use controllers::ControllerArchiveBuilder;
pub use controllers::{
    PANDA_LINK8_FRAME, controller_of_text, default_controller, hybrid_controller, joint_impedance_controller,
    pd_controller,
};
pub use error::ArchiveError;
pub use parameters::{JOINT_POS_DESIRED, ParameterArchive, write_parameters};
pub use read::{Archive, ControllerArchive, read_controller, read_parameters};
pub use tenon_pickle::{DataType, Dict, FormatError, Limits, List, Object, TensorData, TensorValue, Value, zip};

/// Largest archive that is read or written. The server reserves 1 MiB and gRPC's default message
/// limit is 4 MiB; a minute of a genuine trajectory controller is just below 4 MiB.
pub const MAX_ARCHIVE_BYTES: usize = 16 << 20;

/// Bounds of an archive. Genuine controllers nest fewer than ten deep and have about six classes.
pub const LIMITS: Limits = Limits {
    archive_bytes: MAX_ARCHIVE_BYTES,
    unpacked_bytes: 64 << 20,
    entries: 4096,
    opcodes: 1_000_000,
    depth: 64,
    classes: 256,
};
