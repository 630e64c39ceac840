//! The control thread: waits for deadlines, feeds the tick, acts on its outcome, keeps times.
//!
//! It meets other threads through two shapes only: latest-value slots (robot state, status, chunk, request, [`View`]) and bounded
//! queues with one writer and one reader (orders in, events out). Both are wait-free at this end: it never waits for the other one,
//! not even while that is preempted in the middle of an access. Once it has begun it allocates nothing and calls nothing of the
//! operating system but the clock, the wait, and the waking of a thread that was handed something; `tenon bench tick` proves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rtrb::{Consumer, Producer, RingBuffer};
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

/// Orders that may wait for their ticks; one is taken in each.
const ORDER_QUEUE: usize = 16;

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
    pub events: Consumer<(MonotonicTime, Event)>,
    pub dropped_events: Arc<AtomicU64>,
    /// What the policy was asked, for the record.
    pub requests: Consumer<InferRequest>,
    pub view: triple_buffer::Output<View>,
    /// Ticks done; a watchdog is fed while this moves.
    pub ticks: Arc<AtomicU64>,
    pub stop: Arc<AtomicBool>,
}

/// The control thread's own ends.
pub struct Ends {
    orders: Consumer<Order>,
    events: Producer<(MonotonicTime, Event)>,
    dropped_events: Arc<AtomicU64>,
    requests: Producer<InferRequest>,
    view: triple_buffer::Input<View>,
    ticks: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    recorder: Option<ControlTap>,
    watch: Option<Box<dyn Watch>>,
}

/// Where the time of one tick went.
#[derive(Debug, Clone, Copy)]
pub struct TickTimes {
    /// From the deadline to the wake-up.
    pub wake_up: Duration,
    /// Of [`Controller::tick`]: inverse kinematics, limits, stops.
    pub work: Duration,
    /// From the wake-up until everything was handed over and recorded.
    pub all: Duration,
}

/// Who looks at the control thread from within, to prove or to measure something. Called on that thread, between a tick's work and
/// its next wait.
pub trait Watch: Send {
    /// The arm is armed: from here on the thread keeps its promises.
    fn armed(&mut self);

    fn tick(&mut self, times: TickTimes, phase: Phase);

    /// The loop has ended; what the thread owns has not been dropped yet.
    fn ended(&mut self);
}

impl Ends {
    /// Every tick goes to the flight recorder too.
    pub fn record_to(&mut self, recorder: ControlTap) {
        self.recorder = Some(recorder);
    }

    /// The loop is looked at from within.
    pub fn watch_with(&mut self, watch: impl Watch + 'static) {
        self.watch = Some(Box::new(watch));
    }
}

/// Makes both ends, and the way of orders.
pub fn handles() -> (Producer<Order>, Handles, Ends) {
    let first = View {
        phase: Phase::Disarmed,
        commanded_pose: Pose::identity(),
        measured_pose: None,
        state_at: None,
        status: None,
        session: 0,
    };
    let (input, output) = triple_buffer::triple_buffer(&first);
    let (orders_in, orders) = RingBuffer::new(ORDER_QUEUE);
    let (events, events_out) = RingBuffer::new(EVENT_QUEUE);
    let dropped_events = Arc::new(AtomicU64::new(0));
    let (requests, requests_out) = RingBuffer::new(EVENT_QUEUE);
    let ticks = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let handles = Handles {
        events: events_out,
        dropped_events: dropped_events.clone(),
        requests: requests_out,
        view: output,
        ticks: ticks.clone(),
        stop: stop.clone(),
    };
    let ends = Ends { orders, events, dropped_events, requests, view: input, ticks, stop, recorder: None, watch: None };
    (orders_in, handles, ends)
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
/// `seeing`: where the policy observes parts. `arm`: for the measured pose in the [`View`] and for parts in the gripper. `state_delay`: how
/// old the arm's state is when it arrives (`LatencyRecord::link`).
pub fn run(
    mut controller: Controller,
    mut link: impl RobotLink,
    mut inference: InferenceHandle,
    mut seeing: Option<SeeingEnds>,
    mut ends: Ends,
    arm: tenon_core::arm::Arm,
    state_delay: Duration,
) -> (Timing, Controller) {
    let period = controller.tick_period();
    let mut timing = Timing::default();
    let mut deadline = clock::now() + period;
    let mut late_in_a_row = 0;
    let mut sequence = 0;
    let mut acknowledged = 0;
    // Told once: what a watch puts on this thread may be there for good.
    let mut armed = false;
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

        // Stamped at its arrival; sensed before.
        let state = link.latest_state().map(|s| Stamped { time: s.time.before(state_delay), ..s });
        let status = link.latest_status();
        if let Some(s) = &state {
            timing.state_age.record(s.age(now));
        }
        if let Some(s) = status.filter(|s| s.value.acknowledged != acknowledged) {
            acknowledged = s.value.acknowledged;
            timing.bridge_update.record(Duration::from_micros(u64::from(s.value.update_us)));
        }
        if inference.chunks.update()
            && let Some(sampled) = inference.chunks.output_buffer()
        {
            timing.infer.record(sampled.took);
        }
        let order = ends.orders.pop().ok();
        let chunk = inference.chunks.output_buffer().as_ref().map(|sampled| &sampled.chunk);
        let measured = state.map(|s| Stamped { time: s.time, value: arm.tcp(&s.value.joint_positions_rad) });
        let (parts, grips) = match &mut seeing {
            Some(seeing) => {
                seeing.tool.write(measured);
                (seeing.parts.read().as_ref(), Some(&mut seeing.gripper))
            }
            None => (None, None),
        };
        let inputs = Inputs { due: deadline, state, status, chunk, parts, order, late_ticks: late_in_a_row };
        let started = clock::now();
        let outcome: Outcome = controller.tick(now, &inputs);
        let took = clock::elapsed(started);
        timing.tick.record(took);

        if let Some(request) = outcome.infer {
            // A policy's thread that has stopped answering is named by the tick's time-out.
            inference.requests.ask(request);
            timing.observe.record(clock::elapsed(now));
            // A record that falls behind loses this entry; the loop does not wait for it.
            let _ = ends.requests.push(request);
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
        if let (Some(event), Some(grips)) = (outcome.gripper, grips) {
            // Full only if the thread that follows the parts has stopped; stale parts name that.
            let _ = grips.push((now, event));
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
        if let Some(watch) = &mut ends.watch {
            watch.tick(TickTimes { wake_up, work: took, all: clock::elapsed(now) }, controller.phase());
            if !armed && outcome.event == Some(Event::Armed) {
                armed = true;
                watch.armed();
            }
        }
        deadline = deadline + period;
    }
    if let Some(watch) = &mut ends.watch {
        watch.ended();
    }
    (timing, controller)
}
