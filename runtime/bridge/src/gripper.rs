//! The gripper task: polls the hand at 30 Hz and passes commands on (spec robot_control.md §7, polymetis.md §7).
//!
//! It has a client of its own, takes orders from one slot and says what it sees in another: the command task never waits
//! for a hand, whose motions nothing can interrupt. What becomes of a command is [`GripperMonitor`]'s business. Nobody opens
//! the hand by himself: after a fault, a release or the bridge's end it holds what it holds.

use std::time::Duration;

use tenon_core::config::GripperConfig;
use tenon_core::gripper::{Admission, GripperMonitor, GripperReading};
use tenon_core::message::{GripperCommand, GripperPhase};
use tenon_core::time::RobotTime;
use tenon_polymetis::client::{Deadlines, GripperClient};
use tenon_polymetis::proto;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::clock::monotonic_time;
use crate::statistics::Statistics;

/// As often as a hand reports.
const POLL_PERIOD: Duration = Duration::from_millis(33);
/// Pause before a server that does not answer is asked again.
const RETRY: Duration = Duration::from_millis(100);
/// The server only stores and hands out; it has two threads for that.
pub(crate) const DEADLINES: Deadlines = Deadlines {
    set: Duration::ZERO,
    update: Duration::from_millis(300),
    get: Duration::from_millis(200),
    terminate: Duration::ZERO,
    metadata: Duration::from_millis(200),
};

/// What the robot state says of the gripper.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GripperView {
    /// Clamped to what policies saw, m; NaN where there is no hand.
    pub width_m: f64,
    pub phase: GripperPhase,
}

impl GripperView {
    pub const ABSENT: Self = Self { width_m: f64::NAN, phase: GripperPhase::Absent };
}

/// The newest order; an older one that was not taken up yet is forgotten, as it would be by the server.
pub(crate) type GripperOrders = watch::Sender<Option<GripperCommand>>;

/// The view of an arm without a gripper.
pub(crate) fn none() -> watch::Receiver<GripperView> {
    watch::channel(GripperView::ABSENT).1
}

/// The task, its orders and its view. It ends when the orders are dropped.
pub(crate) fn gripper(
    client: GripperClient,
    config: &GripperConfig,
    statistics: Statistics,
) -> (GripperOrders, watch::Receiver<GripperView>, impl Future<Output = ()> + Send + 'static) {
    let (orders, ordered) = watch::channel(None);
    let (view, seen) = watch::channel(GripperView::ABSENT);
    let monitor = GripperMonitor::new(config.monitor());
    let task = GripperTask { client, config: config.clone(), monitor, view, statistics, complained: false };
    (orders, seen, task.run(ordered))
}

struct GripperTask {
    client: GripperClient,
    config: GripperConfig,
    monitor: GripperMonitor,
    view: watch::Sender<GripperView>,
    statistics: Statistics,
    /// It was said that commands are refused; a controller repeats them at its own rate.
    complained: bool,
}

impl GripperTask {
    async fn run(mut self, mut ordered: watch::Receiver<Option<GripperCommand>>) {
        let mut ticks = tokio::time::interval(POLL_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                changed = ordered.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let order = *ordered.borrow_and_update();
                    if let Some(command) = order {
                        self.command(command).await;
                    }
                }
                _ = ticks.tick() => {
                    if !self.poll().await {
                        ticks.reset_after(RETRY);
                    }
                }
            }
        }
    }

    async fn command(&mut self, command: GripperCommand) {
        match self.monitor.command(monotonic_time(), command) {
            Admission::Repeated => return,
            Admission::NoHand => {
                self.statistics.count(|c| c.gripper_ignored += 1);
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!("gripper: {command:?} is refused: no hand reports to {}", self.config.server);
                }
                return;
            }
            Admission::Send => self.statistics.count(|c| c.gripper_commands += 1),
        }
        self.complained = false;
        // Said before the call: whoever repeats himself sees at once that it is under way.
        self.publish();
        let config = &self.config;
        let result = match command {
            GripperCommand::Open => self.client.goto(config.open_width_m as f32, config.open_speed_m_s as f32).await,
            // A move into an object would block the hand for minutes.
            GripperCommand::Close => {
                self.client.grasp(0.0, config.close_speed_m_s as f32, config.close_force_n as f32).await
            }
        };
        if let Err(error) = result {
            // It may have been stored all the same; the hand or the time-out tells.
            tracing::error!("gripper: {error}");
        }
    }

    /// Asks for the state. Returns whether there was an answer.
    async fn poll(&mut self) -> bool {
        let answer = self.client.state().await;
        if let Err(error) = &answer {
            tracing::debug!("gripper: {error}");
        }
        let reading = answer.as_ref().ok().and_then(reading);
        self.monitor.observe(monotonic_time(), reading);
        self.publish();
        answer.is_ok()
    }

    fn publish(&self) {
        let view = GripperView { width_m: self.monitor.width_m(), phase: self.monitor.phase() };
        // Counted first: who sees a time-out finds it counted.
        self.statistics.count(|c| c.gripper_time_outs = self.monitor.time_outs());
        let before = self.view.send_replace(view).phase;
        if before == view.phase {
            return;
        }
        match view.phase {
            GripperPhase::TimedOut => tracing::warn!("gripper: {before:?}, then no end of it; it needs a new command"),
            GripperPhase::Absent => {
                tracing::warn!("gripper: the hand or its server at {} is silent", self.config.server)
            }
            phase => tracing::info!("gripper: {phase:?}, {:.4} m", view.width_m),
        }
    }
}

/// None for a state without a stamp (no hand ever registered), with an error, or with a width that is none.
fn reading(state: &proto::GripperState) -> Option<GripperReading> {
    let stamp = state.timestamp.as_ref()?;
    let nanos = stamp.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(stamp.nanos));
    (state.error_code == 0 && state.width.is_finite()).then(|| GripperReading {
        width_m: f64::from(state.width),
        is_moving: state.is_moving,
        is_grasped: state.is_grasped,
        stamp: RobotTime::from_nanos(nanos),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_needs_a_stamp_and_a_width_and_no_error() {
        let whole = proto::GripperState {
            timestamp: Some(prost_types::Timestamp { seconds: 2, nanos: 5 }),
            width: 0.5,
            is_grasped: true,
            ..Default::default()
        };
        let read = reading(&whole).unwrap();
        assert_eq!((read.width_m, read.is_grasped, read.is_moving), (0.5, true, false));
        assert_eq!(read.stamp.as_nanos(), 2_000_000_005);
        assert_eq!(reading(&proto::GripperState::default()), None);
        assert_eq!(reading(&proto::GripperState { width: f32::NAN, ..whole }), None);
        assert_eq!(reading(&proto::GripperState { error_code: 1, ..whole }), None);
    }
}
