//! Bytes to records. Never panics, whatever the bytes.

use std::time::Duration;

use tenon_core::action::{ActionChunk, MAX_CHUNK_VALUES};
use tenon_core::fusion::{Furniture, NotReady, PartsBlock, PartsView};
use tenon_core::noise::NoiseState;
use tenon_core::safety::JointMotion;
use tenon_core::time::{MonotonicTime, Stamped};
use tenon_link::codec;

use super::{
    CHUNK, ChunkRecord, Given, OBSERVATION_VALUES, ORDER, Observation, PARTS, PartsRecord, RECORD_VERSION, Record,
    RecordError, TICK, TickRecord, WHYS, Words, block,
};

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
