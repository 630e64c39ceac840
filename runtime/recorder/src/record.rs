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

use std::time::Duration;

use tenon_core::action::{ActionChunk, MAX_CHUNK_VALUES};
use tenon_core::fusion::{Furniture, NotReady, PartsBlock, PartsView, Why};
use tenon_core::message::{BridgeStatus, Request, RobotState};
use tenon_core::noise::NoiseState;
use tenon_core::safety::JointMotion;
use tenon_core::time::{MonotonicTime, Stamped};
use tenon_link::codec;
use thiserror::Error;

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

/// Writes a tick over what `out` held.
pub fn encode_tick(r: &TickRecord, words: &Words, out: &mut Vec<u8>) {
    let mut w = Writer::begin(out, TICK);
    let bit = |bit: u16, set: bool| if set { bit } else { 0 };
    let blocks = bit(block::STATE, r.state.is_some())
        | bit(block::STATUS, r.status.is_some())
        | bit(block::CHUNK, r.chunk.is_some())
        | bit(block::PARTS, r.parts.is_some())
        | bit(block::ORDER, r.ordered)
        | bit(block::TARGET, r.target.is_some())
        | bit(block::REQUEST, r.request.is_some())
        | bit(block::INFER, r.infer.is_some())
        | bit(block::EVENT, words.event.is_some())
        | bit(block::GIVEN, r.infer.is_some_and(|request| request.given.overlap > 0))
        | bit(block::GRIPPER, words.gripper.is_some());
    w.put(&blocks.to_le_bytes());
    w.u64(r.tick);
    w.time(r.due);
    w.time(r.now);
    w.put(&nanos32(r.wake_up).to_le_bytes());
    w.put(&nanos32(r.took).to_le_bytes());
    w.put(&r.late_ticks.to_le_bytes());
    w.text(&words.phase);
    if let Some(state) = &r.state {
        w.time(state.time);
        w.put(&codec::encode_state(&state.value));
    }
    if let Some(status) = &r.status {
        w.time(status.time);
        w.put(&codec::encode_status(&status.value));
    }
    if let Some(request) = r.chunk {
        w.u64(request);
    }
    if let Some(at) = r.parts {
        w.time(at);
    }
    if let Some(target) = &r.target {
        let of: [fn(&JointMotion) -> f64; 3] = [|m| m.position_rad, |m| m.velocity_rad_s, |m| m.acceleration_rad_s2];
        for value in of.iter().flat_map(|of| target.iter().map(of)) {
            w.f64(value);
        }
    }
    if let Some(request) = &r.request {
        w.put(&codec::encode_request(request));
    }
    if let Some(observation) = &r.infer {
        w.u64(observation.id);
        w.f32s(observation.values().iter().copied());
        w.put(&observation.budget_s.to_le_bytes());
    }
    if let Some(event) = &words.event {
        w.text(event);
    }
    if let Some(given) = r.infer.as_ref().map(|request| &request.given).filter(|given| given.overlap > 0) {
        w.count(given.frozen);
        w.count(given.overlap);
        w.f32s(given.values().iter().copied());
    }
    if let Some(gripper) = &words.gripper {
        w.text(gripper);
    }
}

/// Writes a chunk over what `out` held.
pub fn encode_chunk(r: &ChunkRecord, out: &mut Vec<u8>) {
    let mut w = Writer::begin(out, CHUNK);
    w.u64(r.chunk.request);
    w.u64(r.index);
    w.time(r.started);
    w.u64(u64::try_from(r.took.as_nanos()).unwrap_or(u64::MAX));
    for word in [r.noise.seed, r.noise.stream, r.noise.word_pos_hi, r.noise.word_pos_lo] {
        w.u64(word);
    }
    w.put(&r.denoising_steps.to_le_bytes());
    w.count(r.chunk.steps);
    w.count(r.chunk.action_dim);
    for value in (0..r.chunk.steps).filter_map(|i| r.chunk.action(i)).flatten() {
        w.put(&value.to_le_bytes());
    }
}

/// Writes an order over what `out` held.
pub fn encode_order(r: &OrderRecord, out: &mut Vec<u8>) {
    let mut w = Writer::begin(out, ORDER);
    w.u64(r.tick);
    w.text(r.name);
    w.count(r.len);
    w.put(&r.bytes[..r.len]);
}

/// Writes a look at the parts over what `out` held.
pub fn encode_parts(PartsRecord(view): &PartsRecord, out: &mut Vec<u8>) {
    let mut w = Writer::begin(out, PARTS);
    w.time(view.at);
    match view.block {
        Ok(block) => {
            w.put(&[1]);
            w.u64(u64::try_from(block.oldest_age.as_nanos()).unwrap_or(u64::MAX));
            w.f64(block.least_confidence);
        }
        Err(missing) => {
            w.put(&[0]);
            w.time(missing.since);
            w.put(&[why_byte(missing.why)]);
            w.text(missing.part);
        }
    }
    w.f32s(view.numbers().unwrap_or_default().iter().copied());
}

/// Reads any record.
///
/// # Errors
/// [`RecordError`]
pub fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
    let mut r = Reader { rest: bytes };
    let [version] = r.take("version")?;
    if version != RECORD_VERSION {
        return Err(RecordError::Version { found: version });
    }
    let [kind] = r.take("kind")?;
    let record = match kind {
        TICK => {
            let (tick, words) = r.tick()?;
            Record::Tick(Box::new(tick), words)
        }
        CHUNK => Record::Chunk(Box::new(r.chunk()?)),
        ORDER => {
            let (tick, name) = (r.u64("order's tick")?, r.text("order's name")?);
            let len = r.count("order")?;
            Record::Order { tick, name, bytes: r.slice(len, "order")?.to_vec() }
        }
        PARTS => Record::Parts(Box::new(PartsRecord(r.parts()?))),
        found => return Err(RecordError::Kind { found }),
    };
    if r.rest.is_empty() { Ok(record) } else { Err(RecordError::Long { count: r.rest.len() }) }
}

fn nanos32(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos()).unwrap_or(u32::MAX)
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    fn begin(out: &'a mut Vec<u8>, kind: u8) -> Self {
        out.clear();
        out.extend([RECORD_VERSION, kind]);
        Self { out }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    fn f64(&mut self, value: f64) {
        self.put(&value.to_le_bytes());
    }

    fn time(&mut self, time: MonotonicTime) {
        self.put(&time.as_nanos().to_le_bytes());
    }

    fn count(&mut self, count: usize) {
        self.put(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
        self.count(bytes.len());
        self.put(bytes);
    }

    fn f32s(&mut self, values: impl ExactSizeIterator<Item = f32>) {
        self.count(values.len());
        for value in values {
            self.put(&value.to_le_bytes());
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn slice(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], RecordError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(RecordError::Short { field })?;
        self.rest = rest;
        Ok(head)
    }

    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], RecordError> {
        let mut value = [0; N];
        value.copy_from_slice(self.slice(N, field)?);
        Ok(value)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, RecordError> {
        Ok(u64::from_le_bytes(self.take(field)?))
    }

    fn f64(&mut self, field: &'static str) -> Result<f64, RecordError> {
        Ok(f64::from_le_bytes(self.take(field)?))
    }

    fn time(&mut self, field: &'static str) -> Result<MonotonicTime, RecordError> {
        Ok(MonotonicTime::from_nanos(i64::from_le_bytes(self.take(field)?)))
    }

    fn nanos32(&mut self, field: &'static str) -> Result<Duration, RecordError> {
        Ok(Duration::from_nanos(u64::from(u32::from_le_bytes(self.take(field)?))))
    }

    fn count(&mut self, field: &'static str) -> Result<usize, RecordError> {
        Ok(usize::from(u16::from_le_bytes(self.take(field)?)))
    }

    fn text(&mut self, field: &'static str) -> Result<String, RecordError> {
        let len = self.count(field)?;
        let text = std::str::from_utf8(self.slice(len, field)?);
        text.map(str::to_owned).map_err(|e| RecordError::Value { field, why: e.to_string() })
    }

    fn f32s(&mut self, count: usize, field: &'static str) -> Result<Vec<f32>, RecordError> {
        let bytes = self.slice(4 * count, field)?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    fn tick(&mut self) -> Result<(TickRecord, Words), RecordError> {
        let blocks = u16::from_le_bytes(self.take("blocks")?);
        if blocks & !block::ALL != 0 {
            return Err(RecordError::Value { field: "blocks", why: format!("bits {blocks:#x}") });
        }
        let has = |bit: u16| blocks & bit != 0;
        let mut tick = TickRecord {
            tick: self.u64("tick")?,
            due: self.time("due")?,
            now: self.time("now")?,
            wake_up: self.nanos32("wake-up")?,
            took: self.nanos32("duration")?,
            late_ticks: u32::from_le_bytes(self.take("late ticks")?),
            state: None,
            status: None,
            chunk: None,
            parts: None,
            ordered: has(block::ORDER),
            target: None,
            request: None,
            infer: None,
        };
        let mut words = Words { phase: self.text("phase")?, ..Words::default() };
        let wrong = |field| move |e: codec::DecodeError| RecordError::Value { field, why: e.to_string() };
        if has(block::STATE) {
            let time = self.time("state")?;
            let bytes = self.slice(codec::STATE_BYTES, "state")?;
            tick.state = Some(Stamped { time, value: codec::decode_state(bytes).map_err(wrong("state"))? });
        }
        if has(block::STATUS) {
            let time = self.time("status")?;
            let bytes = self.slice(codec::STATUS_BYTES, "status")?;
            tick.status = Some(Stamped { time, value: codec::decode_status(bytes).map_err(wrong("status"))? });
        }
        if has(block::CHUNK) {
            tick.chunk = Some(self.u64("chunk")?);
        }
        if has(block::PARTS) {
            tick.parts = Some(self.time("parts")?);
        }
        if has(block::TARGET) {
            let mut target = [JointMotion::default(); 7];
            let of: [fn(&mut JointMotion) -> &mut f64; 3] =
                [|m| &mut m.position_rad, |m| &mut m.velocity_rad_s, |m| &mut m.acceleration_rad_s2];
            for of in of {
                for motion in &mut target {
                    *of(motion) = self.f64("target")?;
                }
            }
            tick.target = Some(target);
        }
        if has(block::REQUEST) {
            let bytes = self.slice(codec::REQUEST_BYTES, "request")?;
            tick.request = Some(codec::decode_request(bytes).map_err(wrong("request"))?);
        }
        if has(block::INFER) {
            let (id, len) = (self.u64("observation")?, self.count("observation")?);
            let mut values = [0.0; OBSERVATION_VALUES];
            let out = values.get_mut(..len).ok_or_else(|| RecordError::Value {
                field: "observation",
                why: format!("{len} values, at most {OBSERVATION_VALUES}"),
            })?;
            out.copy_from_slice(&self.f32s(len, "observation")?);
            let budget_s = f32::from_le_bytes(self.take("budget")?);
            tick.infer = Some(Observation { id, len, values, budget_s, given: Given::NOTHING });
        }
        if has(block::EVENT) {
            words.event = Some(self.text("event")?);
        }
        if has(block::GIVEN) {
            let (frozen, overlap) = (self.count("given chunk")?, self.count("given chunk")?);
            let len = self.count("given chunk")?;
            let mut given = Given { frozen, overlap, len, ..Given::NOTHING };
            let wrong = |why| RecordError::Value { field: "given chunk", why };
            let out = given.values.get_mut(..len);
            let out = out.ok_or_else(|| wrong(format!("{len} values, at most {MAX_CHUNK_VALUES}")))?;
            out.copy_from_slice(&self.f32s(len, "given chunk")?);
            let request = tick.infer.as_mut().ok_or_else(|| wrong("without a request".to_owned()))?;
            request.given = given;
        }
        if has(block::GRIPPER) {
            words.gripper = Some(self.text("gripper")?);
        }
        Ok((tick, words))
    }

    fn chunk(&mut self) -> Result<ChunkRecord, RecordError> {
        let request = self.u64("chunk")?;
        let index = self.u64("chunk")?;
        let started = self.time("chunk")?;
        let took = Duration::from_nanos(self.u64("chunk")?);
        let noise = NoiseState {
            seed: self.u64("noise")?,
            stream: self.u64("noise")?,
            word_pos_hi: self.u64("noise")?,
            word_pos_lo: self.u64("noise")?,
        };
        let denoising_steps = u32::from_le_bytes(self.take("chunk")?);
        let (steps, action_dim) = (self.count("chunk")?, self.count("chunk")?);
        let values = self.f32s(steps * action_dim, "chunk")?;
        let chunk = ActionChunk::new(request, action_dim, &values).ok_or_else(|| RecordError::Value {
            field: "chunk",
            why: format!("{steps} actions of {action_dim} values"),
        })?;
        Ok(ChunkRecord { index, started, took, noise, denoising_steps, chunk })
    }

    fn parts(&mut self) -> Result<PartsView, RecordError> {
        let field = "parts";
        let at = self.time(field)?;
        let block = match self.take(field)? {
            [1] => Ok(PartsBlock {
                oldest_age: Duration::from_nanos(self.u64(field)?),
                least_confidence: self.f64(field)?,
            }),
            [0] => {
                let since = self.time(field)?;
                let [why] = self.take(field)?;
                let why = *WHYS
                    .get(usize::from(why))
                    .ok_or_else(|| RecordError::Value { field, why: format!("reason {why} is unknown") })?;
                let name = self.text(field)?;
                let part = Furniture::known_part(&name)
                    .ok_or_else(|| RecordError::Value { field, why: format!("no part is called {name}") })?;
                Err(NotReady { part, since, why })
            }
            [other] => return Err(RecordError::Value { field, why: format!("{other} where 0 or 1 belongs") }),
        };
        let count = self.count(field)?;
        let numbers = self.f32s(count, field)?;
        PartsView::recorded(at, block, &numbers)
            .ok_or_else(|| RecordError::Value { field, why: format!("{count} numbers") })
    }
}
