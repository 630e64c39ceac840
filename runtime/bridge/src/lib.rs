//! The bridge: zenoh on one side, Polymetis' gRPC protocol on the other. It runs beside the controller server.
//!
//! Polymetis forgives nothing (spec `polymetis.md` §4, §10): it takes NaN, dies of an update before a controller was
//! set, hangs for ever where its robot is dead, and holds the last target when its client is gone. So the bridge
//!
//! - never updates unless its own SetController succeeded on this server run ([`tenon_polymetis::client`]),
//! - asks for a live robot, and sees its states move, before it sets or terminates a controller,
//! - checks every target once more ([`gate`]), makes the newest into a plan that ends at rest ([`playout`]), and sends only that,
//! - notices a controller that was dropped or replaced and a server that was restarted, stops the stream and asks to be
//!   armed again ([`watch`]),
//! - obeys one commander at a time ([`lease`]) and lets the default controller hold the arm when that one falls silent,
//!   releases, or the bridge itself is stopped.
//!
//! Tasks: *states* polls GetRobotState and publishes, *probe* asks for the robot and the episode, *status* publishes where
//! the bridge stands, *command* ([`supervisor`]) decides and is the only one that changes anything on the server. *gripper*
//! has a server of its own, polls the hand and passes on what the command task lets through.

mod clock;
mod config;
pub mod gate;
mod gripper;
pub mod lease;
pub mod playout;
pub mod refusals;
mod robot;
mod sources;
mod statistics;
pub mod supervisor;
pub mod watch;
mod watchdog;

use std::sync::Arc;
use std::time::Duration;

use tenon_link::{BridgeInbox, BridgeSender, LinkError, RobotKeys, open_bridge_link};
use tenon_polymetis::client::{ClientError, ControllerClient, Deadlines, GripperClient};
use tokio::sync::Notify;

pub use clock::{monotonic_clock, monotonic_time};
pub use config::BridgeOptions;
pub use statistics::{Answered, Statistics, Summary};
pub use watchdog::Watchdog;

/// SetController takes 15–95 ms; the server hangs where the robot died since it was asked for. Shorter than the
/// services' watchdog (2 s).
const SET_DEADLINE: Duration = Duration::from_millis(1200);

/// Why a bridge could not start.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("[bridge] server: {0}")]
    Server(#[from] ClientError),
    #[error("[gripper] server: {0}")]
    GripperServer(ClientError),
    #[error("cannot start the bridge's threads: {0}")]
    Threads(#[from] std::io::Error),
}

/// Wakes the command task when something arrived over the link.
#[derive(Debug, Clone, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// What a link calls after each message.
    pub fn caller(&self) -> impl Fn() + Send + Sync + 'static {
        let notify = Arc::clone(&self.0);
        move || notify.notify_one()
    }
}

/// A running bridge. Dropping it stops it: an armed robot is handed to the default controller first.
#[derive(Debug)]
pub struct Bridge {
    runtime: Option<tokio::runtime::Runtime>,
    stop: Arc<Notify>,
    command: Option<tokio::task::JoinHandle<()>>,
    statistics: Statistics,
}

impl Bridge {
    /// Listens for controllers over zenoh, as `options` say.
    ///
    /// # Errors
    /// [`BridgeError`]
    pub fn listen(options: BridgeOptions) -> Result<Self, BridgeError> {
        let keys = RobotKeys::new(&options.robot_name)?;
        let wake = Wake::default();
        let (sender, inbox) = open_bridge_link(&options.endpoint, &keys, monotonic_clock(), wake.caller())?;
        Self::start(options, sender, inbox, &wake)
    }

    /// Runs over a given link, whose arrivals call `wake`.
    ///
    /// # Errors
    /// [`BridgeError`]
    pub fn start(
        options: BridgeOptions,
        sender: BridgeSender,
        inbox: BridgeInbox,
        wake: &Wake,
    ) -> Result<Self, BridgeError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("tenon-bridge")
            .enable_all()
            .build()?;
        let statistics = Statistics::default();
        let stop = Arc::<Notify>::default();
        let _in_runtime = runtime.enter();
        let deadlines = Deadlines { set: SET_DEADLINE, ..Deadlines::default() };
        // A client of its own for each task: a slow answer to one must not hold up another.
        let client = || ControllerClient::new(&options.server, deadlines);
        let (orders, hand) = match &options.gripper {
            None => (None, gripper::none()),
            Some(config) => {
                let client = GripperClient::new(&config.server, gripper::DEADLINES);
                let client = client.map_err(BridgeError::GripperServer)?;
                let (orders, hand, task) = gripper::gripper(client, config, statistics.clone());
                runtime.spawn(task);
                (Some(orders), hand)
            }
        };
        let (health, states_task) = sources::states(client()?, &options, hand, sender.clone(), statistics.clone());
        let (probe, probe_task) = sources::probe(client()?);
        let (status, status_task) = sources::status(sender);
        let supervisor =
            supervisor::Supervisor::new(client()?, &options, inbox, health, probe, status, orders, statistics.clone());
        runtime.spawn(states_task);
        runtime.spawn(probe_task);
        let status_task = runtime.spawn(status_task);
        let command = runtime.spawn({
            let (wake, stop) = (Arc::clone(&wake.0), Arc::clone(&stop));
            async move {
                supervisor.run(&wake, &stop).await;
                // The supervisor's end closed its status; what it said last is still to be published.
                let _ = status_task.await;
            }
        });
        drop(_in_runtime);
        Ok(Self { runtime: Some(runtime), stop, command: Some(command), statistics })
    }

    /// Counts and latencies so far.
    pub fn summary(&self) -> Summary {
        self.statistics.summary()
    }

    /// Every update that the server acknowledges from now on.
    pub fn watch_updates(&self) -> std::sync::mpsc::Receiver<Answered> {
        self.statistics.watch()
    }

    /// Whether the command task has ended by itself, which it should not.
    pub fn has_ended(&self) -> bool {
        self.command.as_ref().is_none_or(tokio::task::JoinHandle::is_finished)
    }

    /// Lets the default controller hold the arm if this bridge commands it, and ends.
    pub fn stop(mut self) -> Summary {
        self.end();
        self.summary()
    }

    fn end(&mut self) {
        self.stop.notify_one();
        let Some(runtime) = self.runtime.take() else { return };
        if let Some(command) = self.command.take() {
            // Every call in there has a deadline; this one is for the sum of them. Polled, because a bridge may be
            // dropped inside somebody else's runtime.
            let end = std::time::Instant::now() + Duration::from_millis(1900);
            while !command.is_finished() && std::time::Instant::now() < end {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        runtime.shutdown_background();
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.end();
    }
}
