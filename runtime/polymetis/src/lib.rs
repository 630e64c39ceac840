//! The Polymetis wire protocol and its TorchScript archives: bytes in, bytes out.
//!
//! A Polymetis controller server runs the robot's control loop. A client never sends torques: it
//! uploads a *controller* (a TorchScript archive) once, then small *parameter archives* that move the
//! controller's target. Source of all facts: spec `polymetis.md`.
//!
//! * [`proto`]: messages, clients and servers generated from `proto/polymetis.proto`.
//! * [`archive`]: writes and reads the archives, byte for byte, without PyTorch.
//! * [`script`]: runs the text in an archive: what a server does with it, without PyTorch.
//! * [`waypoints`]: Tenon's own controller, fed by timed waypoints: its text, the same law in Rust, its updates.
//! * [`chunks`]: cuts an archive into the messages of an upload.
//! * [`status`]: says what a server's error means; nearly all of them arrive as `CANCELLED`.
//! * [`client`]: thin clients with a deadline on every call and the checks the servers lack.

pub mod archive;
mod chunks;
pub mod client;
pub mod proto;
pub mod script;
pub mod status;
pub mod waypoints;

pub use chunks::{CHUNK_BYTES, MAX_UPLOAD_BYTES, chunks, collect_chunks};
