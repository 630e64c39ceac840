//! The topics of a record: one in bytes for the replay, the others in JSON for people (Foxglove plots and shows them as they are).
//!
//! | topic | schema | when |
//! |---|---|---|
//! | `/replay` | [`crate::record`] | every record |
//! | `/arm/measured`, `/tool/measured` | tenon.MeasuredArm, foxglove.PoseInFrame | every new robot state |
//! | `/arm/target`, `/tool/target` | tenon.ArmTarget, foxglove.PoseInFrame | every command |
//! | `/timing` | tenon.Timing | every tick |
//! | `/bridge` | tenon.BridgeStatus | every new status |
//! | `/controller` | tenon.Phase | every change |
//! | `/policy/observation`, `/policy/chunk` | tenon.Observation, tenon.Chunk | every chunk |
//! | `/parts` | tenon.Parts | ten times a second |
//! | `/events` | foxglove.Log | whenever something happens |
//!
//! Times of messages are wall time, so that a record can be laid beside other ones; inside the bytes they stay monotonic.

use std::fmt::Write;

use tenon_core::arm::{Arm, Joints};
use tenon_core::geometry::Pose;
use tenon_core::message::{BridgeStatus, RobotState};
use tenon_core::safety::JointMotion;
use tenon_core::time::{MonotonicTime, Stamped};

use crate::error::RecorderError;
use crate::record::{self, ChunkRecord, Observation, OrderRecord, PartsRecord, TickRecord, Words};
use crate::segment::{Channel, Schema, Segment};

/// Topic of the bytes.
pub const REPLAY_TOPIC: &str = "/replay";
/// Topic of what happened.
pub const EVENTS_TOPIC: &str = "/events";

/// Encoding of the bytes; no other program knows it.
const REPLAY_ENCODING: &str = "tenon";

/// Least time between two looks at the parts in JSON.
const PARTS_PERIOD_NS: i64 = 100_000_000;

/// How bad something is; the values are those of foxglove.Log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    Info = 2,
    Warning = 3,
    Error = 4,
}

macro_rules! schema {
    ($name:literal, $file:literal) => {
        Schema { name: $name, text: include_str!(concat!("schemas/", $file, ".json")) }
    };
}

#[derive(Debug, Clone, Copy)]
struct Channels {
    replay: Channel,
    measured: Channel,
    target: Channel,
    tool_measured: Channel,
    tool_target: Channel,
    timing: Channel,
    bridge: Channel,
    controller: Channel,
    observation: Channel,
    chunk: Channel,
    parts: Channel,
    events: Channel,
}

/// Writes records of one segment onto its topics.
pub(crate) struct Topics {
    channels: Channels,
    arm: Arm,
    /// Added to monotonic time.
    wall_offset_ns: i64,
    /// What was written last, so that only news are written.
    state: Option<MonotonicTime>,
    status: Option<MonotonicTime>,
    phase: String,
    parts: Option<MonotonicTime>,
    bytes: Vec<u8>,
    json: String,
}

impl Topics {
    /// Announces all topics.
    pub fn announce(segment: &mut Segment, arm: Arm, wall_offset_ns: i64) -> Result<Self, RecorderError> {
        let pose = schema!("foxglove.PoseInFrame", "pose_in_frame");
        let mut json = |topic: &str, schema: &Schema| segment.channel(topic, "json", schema);
        let channels = Channels {
            measured: json("/arm/measured", &schema!("tenon.MeasuredArm", "measured"))?,
            target: json("/arm/target", &schema!("tenon.ArmTarget", "target"))?,
            tool_measured: json("/tool/measured", &pose)?,
            tool_target: json("/tool/target", &pose)?,
            timing: json("/timing", &schema!("tenon.Timing", "timing"))?,
            bridge: json("/bridge", &schema!("tenon.BridgeStatus", "bridge"))?,
            controller: json("/controller", &schema!("tenon.Phase", "phase"))?,
            observation: json("/policy/observation", &schema!("tenon.Observation", "observation"))?,
            chunk: json("/policy/chunk", &schema!("tenon.Chunk", "chunk"))?,
            parts: json("/parts", &schema!("tenon.Parts", "parts"))?,
            events: json(EVENTS_TOPIC, &schema!("foxglove.Log", "log"))?,
            replay: segment.channel(REPLAY_TOPIC, REPLAY_ENCODING, &Schema { name: "", text: "" })?,
        };
        Ok(Self {
            channels,
            arm,
            wall_offset_ns,
            state: None,
            status: None,
            phase: String::new(),
            parts: None,
            bytes: Vec::with_capacity(4096),
            json: String::with_capacity(4096),
        })
    }

    pub fn tick(&mut self, segment: &mut Segment, r: &TickRecord, words: &Words) -> Result<(), RecorderError> {
        record::encode_tick(r, words, &mut self.bytes);
        self.put_bytes(segment, r.now)?;
        if let Some(state) = r.state.filter(|state| self.state != Some(state.time)) {
            self.state = Some(state.time);
            self.measured(segment, r.now, &state)?;
        }
        if let Some(status) = r.status.filter(|status| self.status != Some(status.time)) {
            self.status = Some(status.time);
            self.bridge(segment, r.now, &status)?;
        }
        if let Some(target) = &r.target {
            self.target(segment, r, target)?;
        }
        if let Some(observation) = &r.infer {
            self.observation(segment, r.now, observation)?;
        }
        if self.phase != words.phase {
            self.phase.clone_from(&words.phase);
            self.begin(r.now);
            let _ = write!(self.json, ",\"phase\":{}", quoted(&words.phase));
            self.end(segment, self.channels.controller, r.now)?;
        }
        self.begin(r.now);
        let (wake_up, took) = (r.wake_up.as_secs_f64() * 1e6, r.took.as_secs_f64() * 1e6);
        let _ = write!(
            self.json,
            ",\"tick\":{},\"wake_up_us\":{wake_up:.1},\"tick_us\":{took:.1},\"late_ticks\":{},\"state_age_ms\":",
            r.tick, r.late_ticks
        );
        self.number(r.state.map_or(f64::NAN, |state| state.age(r.now).as_secs_f64() * 1e3), 3);
        self.end(segment, self.channels.timing, r.now)
    }

    pub fn chunk(&mut self, segment: &mut Segment, r: &ChunkRecord) -> Result<(), RecorderError> {
        let at = r.started + r.took;
        record::encode_chunk(r, &mut self.bytes);
        self.put_bytes(segment, at)?;
        self.begin(at);
        let took_ms = r.took.as_secs_f64() * 1e3;
        let _ = write!(
            self.json,
            ",\"request\":{},\"infer_ms\":{took_ms:.3},\"denoising_steps\":{},\"actions\":[",
            r.chunk.request, r.denoising_steps
        );
        for (i, action) in (0..r.chunk.steps).filter_map(|i| r.chunk.action(i)).enumerate() {
            self.json.push_str(if i == 0 { "" } else { "," });
            self.numbers(action.iter().map(|&v| f64::from(v)));
        }
        self.json.push(']');
        self.end(segment, self.channels.chunk, at)
    }

    pub fn order(&mut self, segment: &mut Segment, r: &OrderRecord, at: MonotonicTime) -> Result<(), RecorderError> {
        record::encode_order(r, &mut self.bytes);
        self.put_bytes(segment, at)?;
        self.event(segment, at, Level::Info, &format!("order: {}", r.name))
    }

    pub fn parts(&mut self, segment: &mut Segment, r: &PartsRecord) -> Result<(), RecorderError> {
        let view = &r.0;
        record::encode_parts(r, &mut self.bytes);
        self.put_bytes(segment, view.at)?;
        if self.parts.is_some_and(|last| view.at.as_nanos() - last.as_nanos() < PARTS_PERIOD_NS) {
            return Ok(());
        }
        self.parts = Some(view.at);
        self.begin(view.at);
        match view.block {
            Ok(block) => {
                let age_ms = block.oldest_age.as_secs_f64() * 1e3;
                let _ = write!(self.json, ",\"ready\":true,\"missing\":null,\"oldest_age_ms\":{age_ms:.3}");
                self.json.push_str(",\"least_confidence\":");
                self.number(block.least_confidence, 4);
            }
            Err(missing) => {
                let _ = write!(self.json, ",\"ready\":false,\"missing\":{}", quoted(&missing.to_string()));
                self.json.push_str(",\"oldest_age_ms\":null,\"least_confidence\":null");
            }
        }
        self.json.push_str(",\"numbers\":");
        self.numbers(view.numbers().unwrap_or_default().iter().map(|&v| f64::from(v)));
        self.end(segment, self.channels.parts, view.at)
    }

    pub fn event(
        &mut self,
        segment: &mut Segment,
        at: MonotonicTime,
        level: Level,
        text: &str,
    ) -> Result<(), RecorderError> {
        self.begin(at);
        let (level, text) = (level as u8, quoted(text));
        let _ = write!(self.json, ",\"level\":{level},\"message\":{text},\"name\":\"tenon\",\"file\":\"\",\"line\":0");
        self.end(segment, self.channels.events, at)
    }

    fn measured(
        &mut self,
        segment: &mut Segment,
        at: MonotonicTime,
        state: &Stamped<RobotState>,
    ) -> Result<(), RecorderError> {
        let s = &state.value;
        self.begin(at);
        let _ = write!(self.json, ",\"sequence\":{},\"position_rad\":", s.sequence);
        self.numbers(s.joint_positions_rad);
        self.json.push_str(",\"velocity_rad_s\":");
        self.numbers(s.joint_velocities_rad_s);
        self.json.push_str(",\"torque_external_nm\":");
        self.numbers(s.joint_torques_external_nm);
        self.json.push_str(",\"gripper_width_m\":");
        self.number(s.gripper_width_m, 5);
        let age_ms = state.age(at).as_secs_f64() * 1e3;
        let (gripper, error) = (s.gripper, s.error_code);
        let _ = write!(self.json, ",\"gripper\":\"{gripper:?}\",\"error_code\":{error},\"age_ms\":{age_ms:.3}");
        self.end(segment, self.channels.measured, at)?;
        self.pose(segment, self.channels.tool_measured, at, &s.joint_positions_rad)
    }

    fn target(
        &mut self,
        segment: &mut Segment,
        r: &TickRecord,
        target: &[JointMotion; 7],
    ) -> Result<(), RecorderError> {
        self.begin(r.now);
        let _ = write!(self.json, ",\"due\":{},\"position_rad\":", r.due.as_nanos());
        self.numbers(target.map(|m| m.position_rad));
        self.json.push_str(",\"velocity_rad_s\":");
        self.numbers(target.map(|m| m.velocity_rad_s));
        self.json.push_str(",\"acceleration_rad_s2\":");
        self.numbers(target.map(|m| m.acceleration_rad_s2));
        self.end(segment, self.channels.target, r.now)?;
        self.pose(segment, self.channels.tool_target, r.now, &target.map(|m| m.position_rad))
    }

    fn bridge(
        &mut self,
        segment: &mut Segment,
        at: MonotonicTime,
        status: &Stamped<BridgeStatus>,
    ) -> Result<(), RecorderError> {
        let s = &status.value;
        self.begin(at);
        let (update_ms, age_ms) = (f64::from(s.update_us) * 1e-3, status.age(at).as_secs_f64() * 1e3);
        let _ = write!(
            self.json,
            ",\"state\":\"{:?}\",\"fault\":\"{:?}\",\"session\":\"{:016x}\",\"epoch\":{},\"acknowledged\":{},\
             \"update_ms\":{update_ms:.3},\"robot_hz\":{},\"age_ms\":{age_ms:.3}",
            s.state, s.fault, s.session, s.epoch, s.acknowledged, s.robot_hz
        );
        self.end(segment, self.channels.bridge, at)
    }

    fn observation(&mut self, segment: &mut Segment, at: MonotonicTime, o: &Observation) -> Result<(), RecorderError> {
        self.begin(at);
        let _ = write!(self.json, ",\"request\":{},\"values\":", o.id);
        self.numbers(o.values().iter().map(|&v| f64::from(v)));
        self.end(segment, self.channels.observation, at)
    }

    fn pose(
        &mut self,
        segment: &mut Segment,
        channel: Channel,
        at: MonotonicTime,
        joints: &Joints,
    ) -> Result<(), RecorderError> {
        let T_base_tcp: Pose = self.arm.tcp(joints);
        let (p, q) = (T_base_tcp.translation.vector, T_base_tcp.rotation.coords);
        self.begin(at);
        self.json.push_str(",\"frame_id\":\"base\",\"pose\":{\"position\":{");
        self.members(["x", "y", "z"].into_iter().zip(p.iter().copied()));
        self.json.push_str("},\"orientation\":{");
        self.members(["x", "y", "z", "w"].into_iter().zip(q.iter().copied()));
        self.json.push_str("}}");
        self.end(segment, channel, at)
    }

    /// Opens an object with its time.
    fn begin(&mut self, at: MonotonicTime) {
        let ns = self.wall_ns(at);
        self.json.clear();
        let _ = write!(self.json, "{{\"timestamp\":{{\"sec\":{},\"nsec\":{}}}", ns / 1_000_000_000, ns % 1_000_000_000);
    }

    fn end(&mut self, segment: &mut Segment, channel: Channel, at: MonotonicTime) -> Result<(), RecorderError> {
        self.json.push('}');
        segment.message(channel, self.wall_ns(at), self.json.as_bytes())
    }

    fn put_bytes(&mut self, segment: &mut Segment, at: MonotonicTime) -> Result<(), RecorderError> {
        segment.message(self.channels.replay, self.wall_ns(at), &self.bytes)
    }

    fn wall_ns(&self, at: MonotonicTime) -> u64 {
        u64::try_from(at.as_nanos().saturating_add(self.wall_offset_ns)).unwrap_or(0)
    }

    fn number(&mut self, value: f64, digits: usize) {
        let _ = if value.is_finite() { write!(self.json, "{value:.digits$}") } else { write!(self.json, "null") };
    }

    fn numbers(&mut self, values: impl IntoIterator<Item = f64>) {
        self.json.push('[');
        for (i, value) in values.into_iter().enumerate() {
            self.json.push_str(if i == 0 { "" } else { "," });
            self.number(value, 6);
        }
        self.json.push(']');
    }

    fn members<'a>(&mut self, members: impl IntoIterator<Item = (&'a str, f64)>) {
        for (i, (name, value)) in members.into_iter().enumerate() {
            let _ = write!(self.json, "{}\"{name}\":", if i == 0 { "" } else { "," });
            self.number(value, 6);
        }
    }
}

/// A JSON string.
fn quoted(text: &str) -> serde_json::Value {
    serde_json::Value::from(text)
}
