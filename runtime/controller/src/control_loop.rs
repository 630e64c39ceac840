//! The control thread: waits for deadlines, feeds the tick, acts on its outcome, keeps times.
//!
//! It meets other threads through two shapes only: latest-value slots (robot state, status, chunk, [`View`]) and bounded
//! queues (orders in, events out). It never waits for any of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use tenon_core::geometry::Pose;
use tenon_core::message::{BridgeStatus, JointTarget};
use tenon_core::safety::JointMotion;
use tenon_core::time::{MonotonicTime, Stamped};
use tenon_link::RobotLink;

use crate::clock;
use crate::inference::InferenceHandle;
use crate::machine::{Controller, Event, InferRequest, Inputs, Order, Outcome, Phase};
use crate::record::ControlTap;
use crate::seeing::SeeingEnds;
use crate::timing::Timing;

/// Events the log may lag behind before new ones are dropped (and counted).
const EVENT_QUEUE: usize = 256;

/// What the rest of the process may know of the controller at any time.
#[derive(Debug, Clone, Copy)]
pub struct View {
    pub phase: Phase,
    pub commanded_pose: Pose,
    pub measured_pose: Option<Pose>,
    /// When the newest robot state arrived.
    pub state_at: Option<MonotonicTime>,
    pub status: Option<Stamped<BridgeStatus>>,
    /// The lease under which targets are sent; 0 for none.
    pub session: u64,
}

/// The other threads' ends of the control thread.
pub struct Handles {
    pub orders: Arc<ArrayQueue<Order>>,
    pub events: Arc<ArrayQueue<(MonotonicTime, Event)>>,
    pub dropped_events: Arc<AtomicU64>,
    /// What the policy was asked, for the record.
    pub requests: Arc<ArrayQueue<InferRequest>>,
    pub view: triple_buffer::Output<View>,
    /// Ticks done; a watchdog is fed while this moves.
    pub ticks: Arc<AtomicU64>,
    pub stop: Arc<AtomicBool>,
}

/// The control thread's own ends.
pub struct Ends {
    orders: Arc<ArrayQueue<Order>>,
    events: Arc<ArrayQueue<(MonotonicTime, Event)>>,
    dropped_events: Arc<AtomicU64>,
    requests: Arc<ArrayQueue<InferRequest>>,
    view: triple_buffer::Input<View>,
    ticks: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    recorder: Option<ControlTap>,
}

impl Ends {
    /// Every tick goes to the flight recorder too.
    pub fn record_to(&mut self, recorder: ControlTap) {
        self.recorder = Some(recorder);
    }
}

/// Makes both ends.
pub fn handles() -> (Handles, Ends) {
    let first = View {
        phase: Phase::Disarmed,
        commanded_pose: Pose::identity(),
        measured_pose: None,
        state_at: None,
        status: None,
        session: 0,
    };
    let (input, output) = triple_buffer::triple_buffer(&first);
    let orders = Arc::new(ArrayQueue::new(8));
    let events = Arc::new(ArrayQueue::new(EVENT_QUEUE));
    let dropped_events = Arc::new(AtomicU64::new(0));
    let requests = Arc::new(ArrayQueue::new(EVENT_QUEUE));
    let ticks = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let handles = Handles {
        orders: orders.clone(),
        events: events.clone(),
        dropped_events: dropped_events.clone(),
        requests: requests.clone(),
        view: output,
        ticks: ticks.clone(),
        stop: stop.clone(),
    };
    (handles, Ends { orders, events, dropped_events, requests, view: input, ticks, stop, recorder: None })
}

/// The motion commanded last as a message.
fn joint_target(session: u64, sequence: u64, due: MonotonicTime, motion: &[JointMotion; 7]) -> JointTarget {
    JointTarget {
        session,
        sequence,
        due,
        joint_positions_rad: motion.map(|m| m.position_rad),
        joint_velocities_rad_s: motion.map(|m| m.velocity_rad_s),
        joint_accelerations_rad_s2: motion.map(|m| m.acceleration_rad_s2),
    }
}

/// Runs until `stop` is set; returns the times it kept and the controller.
///
/// `seeing`: where the policy observes parts. `arm`: for the measured pose in the [`View`] and for parts in the gripper.
pub fn run(
    mut controller: Controller,
    mut link: impl RobotLink,
    mut inference: InferenceHandle,
    mut seeing: Option<SeeingEnds>,
    mut ends: Ends,
    arm: tenon_core::arm::Arm,
) -> (Timing, Controller) {
    let period = controller.tick_period();
    let grips = seeing.as_ref().map(|seeing| seeing.gripper.clone());
    let mut timing = Timing::default();
    let mut deadline = clock::now() + period;
    let mut late_in_a_row = 0;
    let mut sequence = 0;
    let mut acknowledged = 0;
    while !ends.stop.load(Ordering::Acquire) {
        clock::sleep_until(deadline);
        let now = clock::now();
        let wake_up = now.since(deadline);
        timing.wake_up.record(wake_up);
        timing.ticks += 1;
        // Lateness does not accumulate: the missed periods are skipped and counted.
        let missed = (wake_up.as_nanos() / period.as_nanos()) as u32;
        if missed > 0 {
            timing.late += 1;
            late_in_a_row += missed as usize;
            deadline = deadline + period * missed;
        } else {
            late_in_a_row = 0;
        }

        let state = link.latest_state();
        let status = link.latest_status();
        if let Some(s) = &state {
            timing.state_age.record(s.age(now));
        }
        if let Some(s) = status.filter(|s| s.value.acknowledged != acknowledged) {
            acknowledged = s.value.acknowledged;
            timing.bridge_update.record(std::time::Duration::from_micros(u64::from(s.value.update_us)));
        }
        while let Ok(d) = inference.durations.try_recv() {
            timing.infer.record(d);
        }
        let order = ends.orders.pop();
        let chunk = inference.chunks.read();
        let measured = state.map(|s| Stamped { time: s.time, value: arm.tcp(&s.value.joint_positions_rad) });
        let parts = seeing.as_mut().and_then(|seeing| {
            seeing.tool.write(measured);
            seeing.parts.read().as_ref()
        });
        let inputs =
            Inputs { due: deadline, state, status, chunk: chunk.as_ref(), parts, order, late_ticks: late_in_a_row };
        let started = clock::now();
        let outcome: Outcome = controller.tick(now, &inputs);
        let took = clock::elapsed(started);
        timing.tick.record(took);

        if let Some(request) = outcome.infer {
            // Full only if the policy's thread has stopped answering; the tick's time-out names that.
            let _ = inference.requests.try_send(request);
            timing.observe.record(clock::elapsed(now));
            // A record that falls behind loses its oldest entry; the loop does not wait for it.
            ends.requests.force_push(request);
        }
        let publish = clock::now();
        if let Some(motion) = outcome.target {
            sequence += 1;
            // Due at the deadline, not at the instant of sending: lateness of this thread is not to reach the arm.
            let target = joint_target(controller.session(), sequence, deadline, &motion);
            // A failed send is seen as silence by both ends' time-outs; the loop does not stop for it.
            let _ = link.send_target(&target);
            timing.publish.record(clock::elapsed(publish));
        }
        if let Some(request) = outcome.request {
            let _ = link.send_request(request);
        }
        if let (Some(event), Some(grips)) = (outcome.gripper, &grips) {
            // Full only if the thread that follows the parts has stopped; stale parts name that.
            grips.force_push((now, event));
        }
        if let Some(event) = outcome.event
            && ends.events.push((now, event)).is_err()
        {
            ends.dropped_events.fetch_add(1, Ordering::Relaxed);
        }
        // Last, so that nothing waits for it.
        if let Some(recorder) = &mut ends.recorder {
            recorder.tick(now, &inputs, wake_up, took, &outcome, controller.phase());
        }
        ends.view.write(View {
            phase: controller.phase(),
            commanded_pose: *controller.commanded_pose(),
            measured_pose: measured.map(|measured| measured.value),
            state_at: state.map(|state| state.time),
            status,
            session: controller.session(),
        });
        ends.ticks.fetch_add(1, Ordering::Release);
        deadline = deadline + period;
    }
    (timing, controller)
}
