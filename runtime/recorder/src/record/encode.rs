//! Records to bytes.

use std::time::Duration;

use tenon_core::safety::JointMotion;
use tenon_core::time::MonotonicTime;
use tenon_link::codec;

use super::{
    CHUNK, ChunkRecord, ORDER, OrderRecord, PARTS, PartsRecord, RECORD_VERSION, TICK, TickRecord, Words, block,
    why_byte,
};

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
