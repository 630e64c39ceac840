//! What is recorded of a run, and its bytes: fixed little-endian layouts, version first, kind second.
//!
//! | tick | chunk | order | parts |
//! |---|---|---|---|
//! | 0: version u8, kind 1 | 0: version u8, kind 2 | 0: version u8, kind 3 | 0: version u8, kind 4 |
//! | 2: blocks u16 | 2: request u64 | 2: tick u64 | 2: looked at i64 ns |
//! | 4: tick u64 | 10: index u64 | 10: name u16 + text | 10: ready u8 |
//! | 12: due i64 ns | 18: started i64 ns | bytes u16 + them | if 1: oldest age u64 ns, confidence f64 |
//! | 20: now i64 ns | 26: took u64 ns | | if 0: since i64 ns, why u8, part u16 + text |
//! | 28: wake-up delay u32 ns | 34: noise: seed, stream, position high, low, 4×u64 | | numbers u16 + f32 each |
//! | 32: work u32 ns | 66: denoising steps u32 | | |
//! | 36: late ticks u32 | 70: actions u16, action dim u16, f32 each | | |
//! | 40: phase u16 + text | | | |
//!
//! Behind a tick's phase come the blocks of which `blocks` has the bit, in this order:
//!
//! | bit | block |
//! |---|---|
//! | 0 | robot state: arrival i64 ns, then the message (`tenon_link::codec`) |
//! | 1 | bridge status: arrival i64 ns, then the message |
//! | 2 | the chunk that was there: request u64 |
//! | 3 | the look at the parts that was there: i64 ns |
//! | 4 | an order was given; it is the record of kind 3 with this tick's number |
//! | 5 | target: q 7×f64 rad, dq 7×f64 rad/s, ddq 7×f64 rad/s² |
//! | 6 | request to the bridge: the message |
//! | 7 | request to the policy: id u64, u16 + f32 each, budget f32 s |
//! | 8 | event: u16 + text |
//! | 9 | what the chunk before said, for the request: frozen u16, overlap u16, u16 + f32 each |
//! | 10 | what the gripper did: u16 + text |
//!
//! Phase and event are the controller's own types as `{:?}` writes them: that text is exact (a float is written so that it reads
//! back as the same number), and no version of this layout has to follow them. Nothing here is ever moved or re-used: another
//! layout is another [`RECORD_VERSION`]. Decoding never panics, whatever the bytes.

mod decode;
mod encode;

use std::time::Duration;

use tenon_core::action::{ActionChunk, MAX_CHUNK_VALUES};
use tenon_core::fusion::{PartsView, Why};
use tenon_core::message::{BridgeStatus, Request, RobotState};
use tenon_core::noise::NoiseState;
use tenon_core::safety::JointMotion;
use tenon_core::time::{MonotonicTime, Stamped};
use thiserror::Error;

pub use decode::decode;
pub use encode::{encode_chunk, encode_order, encode_parts, encode_tick};

/// Version of every record; a file with another one is refused by name.
pub const RECORD_VERSION: u8 = 2;

/// Most values of one observation.
pub const OBSERVATION_VALUES: usize = 64;

/// Most bytes of an order.
pub const ORDER_BYTES: usize = 512;

/// A control tick: everything that went into it and what came out. `Copy`, so that it crosses threads without allocating.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TickRecord {
    /// Counts the ticks of a run, from 0; a number that is missing is a tick that was not recorded.
    pub tick: u64,
    pub due: MonotonicTime,
    pub now: MonotonicTime,
    /// Delay of the wake-up behind its deadline.
    pub wake_up: Duration,
    /// What the tick's work took.
    pub took: Duration,
    pub late_ticks: u32,
    pub state: Option<Stamped<RobotState>>,
    pub status: Option<Stamped<BridgeStatus>>,
    /// Request that the chunk answers which was there; its content is a [`ChunkRecord`].
    pub chunk: Option<u64>,
    /// When the parts had been looked at; what was seen is a [`PartsRecord`].
    pub parts: Option<MonotonicTime>,
    /// An [`OrderRecord`] belongs to this tick.
    pub ordered: bool,
    pub target: Option<[JointMotion; 7]>,
    pub request: Option<Request>,
    pub infer: Option<Observation>,
}

/// What the policy was asked to answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    pub id: u64,
    pub len: usize,
    pub values: [f32; OBSERVATION_VALUES],
    /// Time until the chunk was needed, s.
    pub budget_s: f32,
    /// What the chunk before had said about the same instants.
    pub given: Given,
}

/// Part of a chunk that was given to the one that was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Given {
    /// Actions that would have been executed.
    pub frozen: usize,
    /// Actions that were planned; 0 = nothing was given.
    pub overlap: usize,
    pub len: usize,
    pub values: [f32; MAX_CHUNK_VALUES],
}

impl Given {
    pub const NOTHING: Self = Self { frozen: 0, overlap: 0, len: 0, values: [0.0; MAX_CHUNK_VALUES] };

    /// The values that count.
    pub fn values(&self) -> &[f32] {
        &self.values[..self.len.min(MAX_CHUNK_VALUES)]
    }
}

impl Observation {
    /// The values that count.
    pub fn values(&self) -> &[f32] {
        &self.values[..self.len.min(OBSERVATION_VALUES)]
    }
}

/// Phase and event of a tick in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    pub phase: String,
    pub event: Option<String>,
    pub gripper: Option<String>,
}

/// A sampled chunk and where the noise stood before it: with both and the observation it can be made again.
#[derive(Debug, Clone, Copy)]
pub struct ChunkRecord {
    /// Counts the chunks of a run, from 0.
    pub index: u64,
    pub started: MonotonicTime,
    pub took: Duration,
    pub noise: NoiseState,
    /// Steps in which it was denoised.
    pub denoising_steps: u32,
    /// In physical units.
    pub chunk: ActionChunk,
}

/// An order given to the controller. Its bytes are the controller's business.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OrderRecord {
    /// The tick that it was given to.
    pub tick: u64,
    pub name: &'static str,
    pub len: usize,
    pub bytes: [u8; ORDER_BYTES],
}

/// A look at the parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartsRecord(pub PartsView);

/// A record that was read.
#[derive(Debug, Clone)]
pub enum Record {
    Tick(Box<TickRecord>, Words),
    Chunk(Box<ChunkRecord>),
    Order { tick: u64, name: String, bytes: Vec<u8> },
    Parts(Box<PartsRecord>),
}

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    #[error(
        "a record of version {found}, this program reads version {RECORD_VERSION}: replay it with the release that made it"
    )]
    Version { found: u8 },
    #[error("a record of kind {found} is unknown")]
    Kind { found: u8 },
    #[error("a record ends in its {field}")]
    Short { field: &'static str },
    #[error("{count} bytes too many behind a record")]
    Long { count: usize },
    #[error("{field} of a record is wrong: {why}")]
    Value { field: &'static str, why: String },
}

const TICK: u8 = 1;
const CHUNK: u8 = 2;
const ORDER: u8 = 3;
const PARTS: u8 = 4;

/// Bits of a tick's blocks.
mod block {
    pub const STATE: u16 = 1;
    pub const STATUS: u16 = 1 << 1;
    pub const CHUNK: u16 = 1 << 2;
    pub const PARTS: u16 = 1 << 3;
    pub const ORDER: u16 = 1 << 4;
    pub const TARGET: u16 = 1 << 5;
    pub const REQUEST: u16 = 1 << 6;
    pub const INFER: u16 = 1 << 7;
    pub const EVENT: u16 = 1 << 8;
    pub const GIVEN: u16 = 1 << 9;
    pub const GRIPPER: u16 = 1 << 10;
    pub const ALL: u16 = (1 << 11) - 1;
}

const WHYS: [Why; 6] = [Why::NeverSeen, Why::OnlyAmbiguous, Why::Lost, Why::TooOld, Why::NoToolPose, Why::NotFinite];

/// Its place in [`WHYS`], written out so that a new variant does not compile without one.
const fn why_byte(why: Why) -> u8 {
    match why {
        Why::NeverSeen => 0,
        Why::OnlyAmbiguous => 1,
        Why::Lost => 2,
        Why::TooOld => 3,
        Why::NoToolPose => 4,
        Why::NotFinite => 5,
    }
}
