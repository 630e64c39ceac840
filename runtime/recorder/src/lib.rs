//! The flight recorder: what a control thread saw, decided and took, in MCAP files that Foxglove opens.
//!
//! ```text
//! control thread ── ticks, orders, looks at the parts ──► queues ──► writing thread ──► run-000.mcap, run-001.mcap, …
//! policy thread ─── chunks ─────────────────────────────►                         └──► fault-TIME-CAUSE.mcap
//! ```
//!
//! [`Recorder`] writes and [`RunReader`] reads; [`record`] has the values and their bytes, [`topics`] what is shown to people.
//! What an event or an order means is the controller's business: it comes as words and as bytes.
//!
//! A run's record has everything that `Controller::tick` and the sampling of chunks depend on, so both can be computed again, bit
//! for bit. A process that is killed at any instant leaves all but the last fraction of a second ([`Limits::flush`]).

mod error;
mod reader;
pub mod record;
mod recorder;
mod segment;
pub mod topics;
mod writing;

pub use error::RecorderError;
pub use reader::{Ending, Item, RunReader};
pub use record::{ChunkRecord, Observation, OrderRecord, PartsRecord, Record, TickRecord, Words};
pub use recorder::{Happening, Limits, Recorded, Recorder, Settings, Tap};
pub use topics::Level;
