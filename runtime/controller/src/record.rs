//! Between the controller and its flight recorder: everything that goes into a tick and comes out of it becomes a record here, and
//! a record becomes a tick's inputs again. No other place knows both sides.
//!
//! An order's bytes: kind u8, then 1 arm: session u64; 2 along way-points: speed f64, count u8, each x y z qx qy qz qw f64;
//! 3 to joints: speed f64, 7 × f64; 4 run: actions u64; 5 hold; 6 disarm.

use std::fmt::Debug;
use std::time::Duration;

use nalgebra::{Quaternion, Translation3, UnitQuaternion};
use tenon_core::action::ActionChunk;
use tenon_core::fusion::{GripperEvent, PartsView};
use tenon_core::geometry::Pose;
use tenon_core::noise::NoiseState;
use tenon_core::safety::JointMotion;
use tenon_core::time::MonotonicTime;
use tenon_recorder::record::{Given, OBSERVATION_VALUES, ORDER_BYTES};
use tenon_recorder::{
    ChunkRecord, Happening, Level, Observation, OrderRecord, PartsRecord, Recorder, Tap, TickRecord, Words,
};

use crate::machine::{ChunkGuide, Event, InferRequest, Inputs, MAX_OBSERVATION, Order, Outcome, Phase};
use crate::motion::{MAX_WAYPOINTS, Motion};

// A record has room for whatever the controller makes.
const _: () = assert!(MAX_OBSERVATION <= OBSERVATION_VALUES);
const _: () = assert!(1 + 8 + 1 + MAX_WAYPOINTS * 7 * 8 <= ORDER_BYTES);

/// The recorder of a run.
pub type RunRecorder = Recorder<Happened>;

/// What happened in a tick.
#[derive(Debug, Clone, Copy)]
pub struct Happened {
    pub event: Option<Event>,
    pub gripper: Option<GripperEvent>,
    pub phase: Phase,
}

impl Happening for Happened {
    fn words(&self) -> Words {
        Words {
            phase: exact(&self.phase),
            event: self.event.as_ref().map(exact),
            gripper: self.gripper.as_ref().map(exact),
        }
    }

    fn said(&self) -> Option<(Level, String)> {
        let text = |level, text: &str| Some((level, text.to_owned()));
        match self.event? {
            Event::Armed => text(Level::Info, "armed"),
            Event::MotionEnded => text(Level::Info, "the motion has ended"),
            Event::RunStarted => text(Level::Info, "an episode begins"),
            Event::RunEnded { actions } => Some((Level::Info, format!("an episode has ended after {actions} actions"))),
            Event::ChunkLate { chunk } => Some((Level::Warning, format!("the arm waits for chunk {chunk}"))),
            Event::Faulted(cause) => Some((Level::Error, format!("fault: {cause}"))),
            Event::PartAwaited(part) => Some((Level::Warning, format!("the arm holds: {part}"))),
            Event::RunRefused(part) => Some((Level::Warning, format!("an episode was not begun: {part}"))),
            Event::OrderIgnored => text(Level::Warning, "an order that does not fit was ignored"),
            Event::Disarmed => text(Level::Info, "disarmed"),
        }
    }

    fn fault(&self) -> Option<String> {
        match self.event? {
            Event::Faulted(cause) => Some(snake_case(&format!("{cause:?}"))),
            _ => None,
        }
    }
}

/// An enum's text from which it could be made again: floats are written so that they read back as the same number.
fn exact(value: &impl Debug) -> String {
    format!("{value:?}")
}

/// `StaleState { age_ms: 3 }` → `stale_state`.
fn snake_case(debug: &str) -> String {
    let mut name = String::new();
    for c in debug.chars().take_while(char::is_ascii_alphanumeric) {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

/// The control thread's end of the recorder. Takes no lock, allocates nothing, waits for nothing.
pub struct ControlTap {
    tap: Tap<Happened>,
    tick: u64,
    /// Look at the parts that was recorded last.
    parts: Option<MonotonicTime>,
}

impl ControlTap {
    pub fn new(tap: Tap<Happened>) -> Self {
        Self { tap, tick: 0, parts: None }
    }

    /// Records a tick with all that it saw, unless the controller is disarmed and nothing happens.
    pub fn tick(
        &mut self,
        now: MonotonicTime,
        inputs: &Inputs,
        wake_up: Duration,
        took: Duration,
        outcome: &Outcome,
        phase: Phase,
    ) {
        let Inputs { due, state, status, chunk, parts, order, late_ticks } = *inputs;
        let Outcome { target, request, infer, gripper, event } = *outcome;
        // A service may be disarmed for weeks. Such a tick decides nothing and leaves nothing behind that a later one depends on.
        let nothing = target.is_none() && request.is_none() && infer.is_none() && gripper.is_none() && event.is_none();
        if matches!(phase, Phase::Disarmed) && order.is_none() && nothing {
            return;
        }
        if let Some(order) = order {
            self.tap.order(&order_record(self.tick, &order));
        }
        if let Some(view) = parts.filter(|view| self.parts != Some(view.at)) {
            self.parts = Some(view.at);
            self.tap.parts(&PartsRecord(*view));
        }
        let record = TickRecord {
            tick: self.tick,
            due,
            now,
            wake_up,
            took,
            late_ticks: u32::try_from(late_ticks).unwrap_or(u32::MAX),
            state,
            status,
            chunk: chunk.map(|chunk| chunk.request),
            parts: parts.map(|view| view.at),
            ordered: order.is_some(),
            target,
            request,
            infer: infer.as_ref().map(observation),
        };
        self.tap.tick(&record, Happened { event, gripper, phase });
        self.tick += 1;
    }
}

/// The policy thread's end of the recorder.
pub struct ChunkTap {
    tap: Tap<Happened>,
    index: u64,
}

impl ChunkTap {
    pub fn new(tap: Tap<Happened>) -> Self {
        Self { tap, index: 0 }
    }

    /// Records a chunk. `noise`: where the noise stood before it was sampled; `denoising_steps`: in how many steps it was.
    pub fn chunk(
        &mut self,
        started: MonotonicTime,
        took: Duration,
        noise: NoiseState,
        denoising_steps: usize,
        chunk: &ActionChunk,
    ) {
        let denoising_steps = u32::try_from(denoising_steps).unwrap_or(u32::MAX);
        self.tap.chunk(&ChunkRecord { index: self.index, started, took, noise, denoising_steps, chunk: *chunk });
        self.index += 1;
    }
}

/// What a tick saw, from its record and what that refers to.
pub fn inputs<'a>(
    record: &TickRecord,
    order: Option<Order>,
    chunk: Option<&'a ActionChunk>,
    parts: Option<&'a PartsView>,
) -> Inputs<'a> {
    Inputs {
        due: record.due,
        state: record.state,
        status: record.status,
        chunk,
        parts,
        order,
        late_ticks: record.late_ticks as usize,
    }
}

/// Something that is not as it was recorded.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Difference {
    pub field: String,
    pub recorded: String,
    pub recomputed: String,
}

/// The first thing in which a tick is not bit for bit what its record says.
pub fn difference(record: &TickRecord, words: &Words, outcome: &Outcome, phase: Phase) -> Option<Difference> {
    let Outcome { target, request, infer, gripper, event } = outcome;
    target_difference(record.target.as_ref(), target.as_ref())
        .or_else(|| unequal("request", &record.request, request))
        .or_else(|| infer_difference(record.infer.as_ref(), infer.as_ref().map(observation).as_ref()))
        .or_else(|| unequal("event", &words.event, &event.as_ref().map(exact)))
        .or_else(|| unequal("gripper", &words.gripper, &gripper.as_ref().map(exact)))
        .or_else(|| unequal("phase", &words.phase, &exact(&phase)))
}

/// The first value of a chunk that is not bit for bit what its record says.
pub fn chunk_difference(recorded: &ActionChunk, recomputed: &ActionChunk) -> Option<Difference> {
    let shape = |chunk: &ActionChunk| (chunk.request, chunk.steps, chunk.action_dim);
    unequal("chunk", &shape(recorded), &shape(recomputed)).or_else(|| {
        let of = |chunk: &ActionChunk, step: usize| chunk.action(step).unwrap_or_default().to_vec();
        (0..recorded.steps)
            .find_map(|step| f32_difference(&format!("action {step}"), &of(recorded, step), &of(recomputed, step)))
    })
}

fn unequal<T: PartialEq + Debug>(field: &str, recorded: &T, recomputed: &T) -> Option<Difference> {
    (recorded != recomputed).then(|| Difference {
        field: field.to_owned(),
        recorded: exact(recorded),
        recomputed: exact(recomputed),
    })
}

fn target_difference(recorded: Option<&[JointMotion; 7]>, recomputed: Option<&[JointMotion; 7]>) -> Option<Difference> {
    let (Some(recorded), Some(recomputed)) = (recorded, recomputed) else {
        return unequal("target", &recorded, &recomputed);
    };
    let names = ["position_rad", "velocity_rad_s", "acceleration_rad_s2"];
    let values = |m: &JointMotion| [m.position_rad, m.velocity_rad_s, m.acceleration_rad_s2];
    (0..7).find_map(|joint| {
        let (recorded, recomputed) = (values(&recorded[joint]), values(&recomputed[joint]));
        let differs = (0..3).find(|&i| recorded[i].to_bits() != recomputed[i].to_bits())?;
        Some(Difference {
            field: format!("target, joint {}, {}", joint + 1, names[differs]),
            recorded: exact(&recorded[differs]),
            recomputed: exact(&recomputed[differs]),
        })
    })
}

fn infer_difference(recorded: Option<&Observation>, recomputed: Option<&Observation>) -> Option<Difference> {
    let id = |observation: Option<&Observation>| observation.map(|o| (o.id, o.len));
    unequal("request to the policy", &id(recorded), &id(recomputed)).or_else(|| {
        let (recorded, recomputed) = (recorded?, recomputed?);
        let of = |o: &Observation| (o.given.frozen, o.given.overlap, o.budget_s.to_bits());
        f32_difference("observation", recorded.values(), recomputed.values())
            .or_else(|| unequal("given actions and budget", &of(recorded), &of(recomputed)))
            .or_else(|| f32_difference("given chunk", recorded.given.values(), recomputed.given.values()))
    })
}

fn f32_difference(what: &str, recorded: &[f32], recomputed: &[f32]) -> Option<Difference> {
    let differs = |i: &usize| recorded.get(*i).map(|v| v.to_bits()) != recomputed.get(*i).map(|v| v.to_bits());
    (0..recorded.len().max(recomputed.len())).find(differs).map(|i| Difference {
        field: format!("{what}, value {i}"),
        recorded: exact(&recorded.get(i)),
        recomputed: exact(&recomputed.get(i)),
    })
}

fn observation(request: &InferRequest) -> Observation {
    let mut values = [0.0; OBSERVATION_VALUES];
    values[..MAX_OBSERVATION].copy_from_slice(&request.observation);
    let (guide, mut given) = (&request.guide, Given::NOTHING);
    (given.frozen, given.overlap) = (guide.frozen, guide.overlap);
    let said = guide.values();
    given.len = said.len();
    given.values[..said.len()].copy_from_slice(said);
    Observation { id: request.id, len: request.len, values, budget_s: request.budget_s, given }
}

/// What the policy was asked, as it was asked.
pub fn infer_request(observation: &Observation) -> Option<InferRequest> {
    let mut values = [0.0; MAX_OBSERVATION];
    values.get_mut(..observation.len)?.copy_from_slice(observation.values());
    let given = &observation.given;
    let guide = ChunkGuide::recorded(given.frozen, given.overlap, given.values());
    let (id, len, budget_s) = (observation.id, observation.len, observation.budget_s);
    Some(InferRequest { id, len, observation: values, budget_s, guide })
}

/// An order in bytes.
pub fn order_record(tick: u64, order: &Order) -> OrderRecord {
    let mut bytes = Bytes { bytes: [0; ORDER_BYTES], len: 0 };
    let name = match order {
        Order::Arm { session } => {
            bytes.put([1]);
            bytes.put(session.to_le_bytes());
            "arm"
        }
        Order::Move(Motion::Waypoints { poses, count, max_speed_m_s }) => {
            bytes.put([2]);
            bytes.put(max_speed_m_s.to_le_bytes());
            bytes.put([*count as u8]);
            for pose in &poses[..*count] {
                let (p, q) = (pose.translation.vector, pose.rotation.coords);
                for value in p.iter().chain(q.iter()) {
                    bytes.put(value.to_le_bytes());
                }
            }
            "move along way-points"
        }
        Order::Move(Motion::Joints { goal_rad, max_speed_rad_s }) => {
            bytes.put([3]);
            bytes.put(max_speed_rad_s.to_le_bytes());
            for value in goal_rad {
                bytes.put(value.to_le_bytes());
            }
            "move to joints"
        }
        Order::Run { actions } => {
            bytes.put([4]);
            bytes.put((*actions as u64).to_le_bytes());
            "run the policy"
        }
        Order::Hold => {
            bytes.put([5]);
            "hold"
        }
        Order::Disarm => {
            bytes.put([6]);
            "disarm"
        }
    };
    OrderRecord { tick, name, len: bytes.len, bytes: bytes.bytes }
}

/// An order from its bytes; `None` if they are none.
pub fn read_order(bytes: &[u8]) -> Option<Order> {
    let mut rest = bytes;
    let [kind] = take(&mut rest)?;
    let order = match kind {
        1 => Order::Arm { session: u64::from_le_bytes(take(&mut rest)?) },
        2 => {
            let max_speed_m_s = f64::from_le_bytes(take(&mut rest)?);
            let [count] = take(&mut rest)?;
            let mut poses = Vec::new();
            for _ in 0..count {
                let mut value = || take(&mut rest).map(f64::from_le_bytes);
                let translation = Translation3::new(value()?, value()?, value()?);
                let (x, y, z, w) = (value()?, value()?, value()?, value()?);
                // As it was, to the bit: it was of unit length when it was given.
                let rotation = UnitQuaternion::new_unchecked(Quaternion::new(w, x, y, z));
                poses.push(Pose::from_parts(translation, rotation));
            }
            Order::Move(Motion::waypoints(&poses, max_speed_m_s)?)
        }
        3 => {
            let max_speed_rad_s = f64::from_le_bytes(take(&mut rest)?);
            let mut goal_rad = [0.0; 7];
            for value in &mut goal_rad {
                *value = f64::from_le_bytes(take(&mut rest)?);
            }
            Order::Move(Motion::Joints { goal_rad, max_speed_rad_s })
        }
        4 => Order::Run { actions: usize::try_from(u64::from_le_bytes(take(&mut rest)?)).ok()? },
        5 => Order::Hold,
        6 => Order::Disarm,
        _ => return None,
    };
    rest.is_empty().then_some(order)
}

struct Bytes {
    bytes: [u8; ORDER_BYTES],
    len: usize,
}

impl Bytes {
    fn put<const N: usize>(&mut self, value: [u8; N]) {
        self.bytes[self.len..][..N].copy_from_slice(&value);
        self.len += N;
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use tenon_core::geometry::pose_from_wxyz;

    use super::*;
    use crate::machine::FaultCause;

    #[test]
    fn orders_come_back_to_the_bit() {
        let poses = [
            pose_from_wxyz([0.5, -0.1, 0.3], [0.1, 0.9, 0.2, 0.3]),
            pose_from_wxyz([1.0 / 3.0, 0.0, -0.0], [0.0, 1.0, 0.0, 0.0]),
        ];
        for order in [
            Order::Arm { session: u64::MAX },
            Order::Move(Motion::waypoints(&poses, 0.6).unwrap()),
            Order::Move(Motion::waypoints(&[poses[1]; MAX_WAYPOINTS], 0.1).unwrap()),
            Order::Move(Motion::Joints { goal_rad: [0.1, -0.2, 0.3, -2.0, 1e-300, 2.0, -0.0], max_speed_rad_s: 0.8 }),
            Order::Run { actions: 100 },
            Order::Hold,
            Order::Disarm,
        ] {
            let record = order_record(3, &order);
            let read = read_order(&record.bytes[..record.len]).unwrap();
            assert_eq!(exact(&read), exact(&order));
            assert!(read_order(&record.bytes[..record.len - 1]).is_none(), "{order:?}");
            assert!(read_order(&record.bytes[..record.len + 1]).is_none(), "{order:?}");
        }
    }

    #[test]
    fn a_fault_names_its_file_and_its_text_is_exact() {
        let cause = FaultCause::Singular(0.1 + 0.2);
        let happened = Happened { event: Some(Event::Faulted(cause)), gripper: None, phase: Phase::Fault(cause) };
        assert_eq!(happened.fault().as_deref(), Some("singular"));
        assert_eq!(happened.words().phase, "Fault(Singular(0.30000000000000004))");
        assert_eq!(snake_case("StaleState { age_ms: 3 }"), "stale_state");
    }

    #[test]
    fn one_bit_is_a_difference_and_is_named() {
        let mut target = [JointMotion { position_rad: 0.5, velocity_rad_s: 0.1, acceleration_rad_s2: 0.0 }; 7];
        let other = target;
        target[3].velocity_rad_s = f64::from_bits(0.1f64.to_bits() + 1);
        let found = target_difference(Some(&target), Some(&other)).unwrap();
        assert_eq!(found.field, "target, joint 4, velocity_rad_s");
        assert_ne!(found.recorded, found.recomputed);
        // −0 and 0 are equal numbers and other bits.
        assert!(f32_difference("x", &[0.0], &[-0.0]).is_some());
        assert!(f32_difference("x", &[f32::NAN], &[f32::NAN]).is_none());
    }
}
