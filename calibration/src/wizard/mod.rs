//! The terminal wizard: a newcomer comes from cameras on tripods to a calibration with a proof.
//!
//! ```text
//! terminal ── answers ──► machine::Wizard ── Task ──► worker::Worker ──► steps, rig::Draft, report_page
//!     ▲                        │  ▲                        │
//!     └── lines, questions ────┘  └──────── Report ────────┤
//!                                                          └── pictures ◄── bench::Bench (simulated, sources)
//! ```
//!
//! [`machine`] decides and touches nothing else, so it is tested without a terminal; [`turn`] is what it hears and answers, [`words`]
//! and [`directions`] how it says so. [`worker`] does what it
//! asks for: takes pictures of a [`bench`], works out the steps and writes the draft. [`terminal`] carries lines between a person
//! (or a script) and the two.

pub mod bench;
pub mod directions;
pub mod machine;
pub mod simulated;
pub mod sources;
pub mod terminal;
pub mod turn;
pub mod words;
pub mod worker;
mod worker_intrinsics;
mod worker_place;

pub use bench::{Bench, BenchCamera, Shot, Subject};
pub use machine::Wizard;
pub use simulated::SimulatedBench;
pub use sources::{CameraChoice, SourceBench, SourceSettings};
pub use terminal::{Answers, talk};
pub use turn::{Arm, Ending, Input, Outlook, Plan, Question, Report, Task, Then, Turn};
pub use worker::{Worker, WorkerSettings};
