//! The tasks around the command task: what they see goes into latest-value slots.

use std::time::Duration;

use tenon_core::message::{BridgeFault, BridgeState, BridgeStatus, RobotState};
use tenon_core::time::MonotonicTime;
use tenon_link::BridgeSender;
use tenon_polymetis::client::ControllerClient;
use tenon_polymetis::status::ServerError;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::clock::monotonic_time;
use crate::config::BridgeOptions;
use crate::gripper::GripperView;
use crate::robot::robot_state;
use crate::statistics::Statistics;
use crate::watch::StampWatch;

/// Pause before a server that does not answer is asked again.
const RETRY: Duration = Duration::from_millis(100);
/// How often the episode is looked at.
const PROBE_PERIOD: Duration = Duration::from_millis(50);
/// The metadata are large (16 kB); they are fetched at every so many probes.
const METADATA_EVERY: u32 = 10;
/// Period of the status message.
const STATUS_PERIOD: Duration = Duration::from_millis(50);
/// Answers that may be missed in a row before the server is taken for gone.
const MISSED_ANSWERS: u32 = 2;

/// Who is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// The server answers.
    pub server: bool,
    /// Its states' stamps move.
    pub robot: bool,
    /// Counts losses of the server, so that a short one is not missed by who looks rarely.
    pub losses: u64,
    /// Counts servers that had lost their memory: no state recorded, after there had been some.
    pub restarts: u64,
}

/// Polls the robot state and publishes every new one, with what `hand` shows then.
pub fn states(
    client: ControllerClient,
    options: &BridgeOptions,
    hand: watch::Receiver<GripperView>,
    sender: BridgeSender,
    statistics: Statistics,
) -> (watch::Receiver<Health>, impl Future<Output = ()> + Send + 'static) {
    let (health, receiver) = watch::channel(Health::default());
    let period = options.state_period;
    (receiver, poll_states(client, period, hand, sender, statistics, health))
}

async fn poll_states(
    mut client: ControllerClient,
    period: Duration,
    hand: watch::Receiver<GripperView>,
    sender: BridgeSender,
    statistics: Statistics,
    health: watch::Sender<Health>,
) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut stamps = StampWatch::default();
    let (mut sequence, mut missed) = (0, 0);
    let (mut complained, mut recorded) = (false, false);
    loop {
        ticks.tick().await;
        let answer = client.robot_state().await;
        let now = monotonic_time();
        let mut restarted = false;
        let (server, robot) = match answer {
            Ok(message) => {
                (missed, recorded) = (0, true);
                match robot_state(&message, sequence + 1) {
                    Ok(state) => {
                        // A repeated state is not published: at the controller its age has to grow.
                        if stamps.observe(state.robot_time, now) {
                            sequence += 1;
                            let GripperView { width_m: gripper_width_m, phase: gripper } = *hand.borrow();
                            match sender.publish_state(&RobotState { gripper_width_m, gripper, ..state }) {
                                Ok(()) => statistics.count(|c| c.states_published += 1),
                                Err(error) => tracing::debug!("{error}"),
                            }
                        }
                        complained = false;
                        (true, stamps.is_alive(now))
                    }
                    Err(error) => {
                        statistics.count(|c| c.states_refused += 1);
                        if !complained {
                            tracing::warn!("robot state refused: {error}");
                            complained = true;
                        }
                        (true, false)
                    }
                }
            }
            Err(error) => match error.server_error() {
                Some(ServerError::DeadlineExceeded) => {
                    missed += 1;
                    (missed < MISSED_ANSWERS, stamps.is_alive(now))
                }
                Some(ServerError::EmptyBuffer) => {
                    restarted = std::mem::take(&mut recorded);
                    stamps.forget();
                    (true, false)
                }
                // Unavailable, or one of the many texts of a connection that breaks within a call: a server knows no
                // other errors of this one.
                _ => (false, false),
            },
        };
        health.send_if_modified(|health| {
            let before = *health;
            health.losses += u64::from(before.server && !server);
            health.restarts += u64::from(restarted);
            (health.server, health.robot) = (server, robot);
            *health != before
        });
        if !server {
            stamps.forget();
            tokio::time::sleep(RETRY).await;
        }
        if health.is_closed() {
            return;
        }
    }
}

/// What the server says about robot and episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// When it was asked: an answer to an older question says nothing about a controller set meanwhile.
    pub asked: MonotonicTime,
    pub start: i32,
    pub end: i32,
    /// Rate that the robot client registered with, Hz; 0 while unknown.
    pub robot_hz: u32,
}

/// Asks for episode and metadata again and again.
pub fn probe(client: ControllerClient) -> (watch::Receiver<Option<Probe>>, impl Future<Output = ()> + Send + 'static) {
    let (sender, receiver) = watch::channel(None);
    (receiver, poll_probe(client, sender))
}

async fn poll_probe(mut client: ControllerClient, sender: watch::Sender<Option<Probe>>) {
    let mut ticks = tokio::time::interval(PROBE_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut robot_hz, mut count) = (0, 0_u32);
    while !sender.is_closed() {
        ticks.tick().await;
        if count.is_multiple_of(METADATA_EVERY) || robot_hz == 0 {
            robot_hz = client.metadata().await.map_or(0, |metadata| u32::try_from(metadata.hz).unwrap_or(0));
        }
        count = count.wrapping_add(1);
        let asked = monotonic_time();
        match client.episode_interval().await {
            Ok(interval) => {
                sender.send_replace(Some(Probe { asked, start: interval.start, end: interval.end, robot_hz }));
            }
            Err(_) => {
                sender.send_replace(None);
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Where the bridge stands, without the message's sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub state: BridgeState,
    pub fault: BridgeFault,
    pub session: u64,
    pub epoch: u32,
    pub acknowledged: u64,
    pub update_us: u32,
    pub robot_hz: u32,
}

impl Standing {
    /// Nothing is known yet.
    pub const START: Self = Self {
        state: BridgeState::NoServer,
        fault: BridgeFault::None,
        session: 0,
        epoch: 0,
        acknowledged: 0,
        update_us: 0,
        robot_hz: 0,
    };
}

/// Publishes the standing at 20 Hz, and at once when its sender says so. Ends, after publishing once more, when the
/// sender is dropped.
pub fn status(sender: BridgeSender) -> (watch::Sender<Standing>, impl Future<Output = ()> + Send + 'static) {
    let (standing, receiver) = watch::channel(Standing::START);
    (standing, publish_status(sender, receiver))
}

async fn publish_status(sender: BridgeSender, mut standing: watch::Receiver<Standing>) {
    let mut ticks = tokio::time::interval(STATUS_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sequence = 0;
    let mut open = true;
    while open {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = standing.changed() => open = changed.is_ok(),
        }
        let Standing { state, fault, session, epoch, acknowledged, update_us, robot_hz } =
            *standing.borrow_and_update();
        sequence += 1;
        let status = BridgeStatus { sequence, state, fault, session, epoch, acknowledged, update_us, robot_hz };
        if let Err(error) = sender.publish_status(&status) {
            tracing::debug!("{error}");
        }
    }
}
