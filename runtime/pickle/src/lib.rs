//! Files of Python's tensor libraries, read without Python: ZIP archives, pickles, PyTorch checkpoints, NumPy arrays.
//!
//! Bytes in, values out. **Nothing is executed**: a pickle is a program for a small machine with a stack, and the
//! machine here ([`machine`]) knows only the opcodes that build plain values, and only the globals on the list of its
//! [`Dialect`]; any other is refused with its name and its place. Every size is bounded by [`Limits`], and arbitrary
//! bytes end in a value or a [`FormatError`], never in a panic.
//!
//! * [`read_torch`]: what `torch.save` wrote since PyTorch 1.6 (dicts of dicts of tensors).
//! * [`read_pickle`]: a pickle by itself, with NumPy arrays in it (protocols 2 to 5).
//! * [`read_file`]: either, told apart by their first bytes.
//! * [`zip`]: the archives below, also written (TorchScript archives are, byte for byte, in `tenon-polymetis`).

mod error;
mod limits;
pub mod machine;
mod tensor;
mod torch;
mod value;
pub mod zip;

pub use error::FormatError;
pub use limits::{Limits, MAX_FILE_BYTES, MAX_NAME_BYTES, MAX_RANK};
pub use machine::{Dialect, NoStorages, Storages};
pub use tensor::{DataType, TensorData, TensorValue, c_strides};
pub use torch::{read_file, read_pickle, read_torch};
pub use value::{Dict, List, Object, Value};
