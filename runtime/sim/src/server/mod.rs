//! A Polymetis controller server whose robot is the MuJoCo Panda, stepped at 1 kHz in real time.
//!
//! Same services, same state machine, same answers as the real server (spec `polymetis.md` §4), so that the bridge
//! needs no mode for simulation. An uploaded controller is run from its TorchScript text (`tenon_polymetis::script`), the
//! robot client's default controller too. A call that kills the real server kills this one. Three parts, as on the real
//! thing:
//!
//! - [`ControlPlane`]: the server proper. No clock, no physics, no network: it steps when its robot calls it.
//! - the arm: the "robot client", a thread of its own that reads MuJoCo, calls the plane and applies the torque;
//! - the gRPC services, which change the plane between two steps.
//!
//! [`SimGripper`] is the gripper server beside it: a mailbox, and a simulated Franka Hand that reads it.
//!
//! Terms: the *custom controller* is what a client uploaded; the *default controller* holds the arm in every other
//! state. A *log index* counts recorded control steps since the process started.

mod arm;
mod delay;
mod dispatch;
mod gripper;
mod gripper_server;
mod hand;
mod law;
mod log;
#[cfg(test)]
mod observed;
mod plane;
mod realtime;
mod robot_client;
mod service;
#[cfg(test)]
mod tests;
mod truth;
mod urdf;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tonic::transport::server::TcpIncoming;

pub use arm::{ServerScene, SimulatedArm};
pub use delay::UpdateDelay;
pub use gripper_server::{GripperOptions, SimGripper};
pub use law::{Law, LawInput};
pub use log::StateRecord;
pub use plane::{ControlPlane, PlaneError, Reading};
pub use realtime::monotonic_nanos;
pub use robot_client::ArmStatistics;
pub use truth::TruthLine;
pub use urdf::panda_urdf;

use delay::DelaySource;
use dispatch::Services;
use gripper::GripperMailbox;
use robot_client::RobotClient;
use service::ControllerService;
use truth::TruthWriter;

use crate::error::SimError;

/// Time that open calls get to end when the server stops.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(300);

/// What to serve, and where.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Port 0 takes a free one.
    pub address: SocketAddr,
    pub scene: ServerScene,
    /// Largest distance of each start joint from the scene's, rad; drawn with `seed`.
    pub start_spread_rad: f64,
    pub seed: u64,
    /// Where the true tool point and contacts go, one JSON object a line.
    pub truth: Option<PathBuf>,
    /// How long UpdateController takes; without it as long as this server needs, which is less than the real one.
    pub update_delay: Option<UpdateDelay>,
    /// Begin with a robot client that has not called yet; [`SimServer::pause_robot`] lets it register.
    pub robot_paused: bool,
}

impl ServerOptions {
    /// A server of `scene` on a free local port.
    pub fn local(scene: ServerScene) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { address, scene, start_spread_rad: 0.0, seed: 0, truth: None, update_delay: None, robot_paused: false }
    }
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(
        "port in use: cannot listen at {address}: another server has it; stop that one (`ss -ltnp` names it) or choose \
         another --port (--gripper-port for the gripper server)"
    )]
    PortInUse { address: SocketAddr },
    #[error("cannot listen at {address}: {error}")]
    Listen { address: SocketAddr, error: std::io::Error },
    #[error("truth file {}: {error}", path.display())]
    Truth { path: PathBuf, error: std::io::Error },
    #[error("cannot start {what}: {error}")]
    Thread { what: &'static str, error: std::io::Error },
    #[error(transparent)]
    Simulation(#[from] SimError),
}

/// Taken by who ends the server first: its owner, or the death that some calls are.
type SharedRuntime = Arc<Mutex<Option<tokio::runtime::Runtime>>>;

/// A running server. Dropping it stops it: the arm first, then the open calls.
#[derive(Debug)]
pub struct SimServer {
    local_address: SocketAddr,
    client: RobotClient,
    runtime: SharedRuntime,
    shutdown: Option<tokio::sync::oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<()>>,
}

impl SimServer {
    /// Starts the arm and serves.
    ///
    /// # Errors
    /// [`ServerError`]
    pub fn start(options: &ServerOptions) -> Result<Self, ServerError> {
        let (listener, local_address) = listen(options.address)?;
        let arm = SimulatedArm::new(options.scene, options.start_spread_rad, options.seed)?;
        let truth = match &options.truth {
            None => None,
            Some(path) => {
                let truth =
                    TruthWriter::create(path).map_err(|error| ServerError::Truth { path: path.clone(), error })?;
                Some(truth)
            }
        };
        let plane = Arc::new(Mutex::new(ControlPlane::new()));
        let client = RobotClient::start(arm, Arc::clone(&plane), truth, options.robot_paused)
            .map_err(|error| ServerError::Thread { what: "the arm's thread", error })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("polymetis-rpc")
            .enable_all()
            .build()
            .map_err(|error| ServerError::Thread { what: "the server's threads", error })?;
        let (shutdown, stop) = tokio::sync::oneshot::channel::<()>();
        let listener = {
            let _in_runtime = runtime.enter();
            tokio::net::TcpListener::from_std(listener)
                .map_err(|error| ServerError::Listen { address: local_address, error })?
        };
        // The real gripper server is a process of its own, and `SimGripper` the one with a hand; a client that is given
        // this port for both finds a server without hardware.
        let delays = options.update_delay.and_then(|delay| DelaySource::new(delay, options.seed));
        let (death, died) = std::sync::mpsc::channel();
        let services = Services::new(ControllerService::new(plane, death, delays), GripperMailbox::default());
        let served = runtime.spawn(async move {
            // Set on the sockets: the builder's own switch is ignored for a listener that is passed in, and Nagle's
            // algorithm with delayed acknowledgements would hold small replies back for 40 ms.
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let result = tonic::transport::Server::builder()
                .serve_with_incoming_shutdown(services, incoming, async {
                    // A dropped sender means the same as a sent message: stop.
                    let _ = stop.await;
                })
                .await;
            if let Err(error) = result {
                tracing::error!("the server ended: {error}");
            }
        });
        let runtime: SharedRuntime = Arc::new(Mutex::new(Some(runtime)));
        let (mourned, stop_arm) = (Arc::clone(&runtime), client.stopper());
        std::thread::Builder::new()
            .name("polymetis-death".to_owned())
            .spawn(move || {
                // The senders go with the services.
                if died.recv().is_ok() {
                    stop_arm();
                    if let Some(runtime) = take(&mourned) {
                        runtime.shutdown_background();
                    }
                }
            })
            .map_err(|error| ServerError::Thread { what: "the server's threads", error })?;
        Ok(Self { local_address, client, runtime, shutdown: Some(shutdown), served: Some(served) })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// How the 1 kHz loop keeps up.
    pub fn statistics(&self) -> ArmStatistics {
        self.client.statistics()
    }

    /// Stops or resumes the calls of the robot client, as a reflex or a dead client process does. The physics stands
    /// still meanwhile.
    pub fn pause_robot(&self, paused: bool) {
        self.client.pause(paused);
    }

    /// Whether the serving task has ended by itself, or died of a call.
    pub fn has_ended(&self) -> bool {
        self.served.as_ref().is_none_or(tokio::task::JoinHandle::is_finished)
    }

    /// Ends like a killed process: connections break at once.
    pub fn kill(mut self) {
        self.client.stop();
        if let Some(runtime) = take(&self.runtime) {
            runtime.shutdown_background();
        }
    }
}

fn take(runtime: &SharedRuntime) -> Option<tokio::runtime::Runtime> {
    runtime.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
}

impl Drop for SimServer {
    fn drop(&mut self) {
        self.client.stop();
        drop(self.shutdown.take());
        let Some(runtime) = take(&self.runtime) else { return };
        if let Some(served) = self.served.take() {
            // Streams that clients keep open do not end by themselves; they are cut after the grace. Polled, because a
            // server may be dropped inside somebody else's runtime, where blocking on a task panics.
            let end = std::time::Instant::now() + SHUTDOWN_GRACE;
            while !served.is_finished() && std::time::Instant::now() < end {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        runtime.shutdown_background();
    }
}

fn listen(address: SocketAddr) -> Result<(std::net::TcpListener, SocketAddr), ServerError> {
    let listen = || -> std::io::Result<_> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?;
        Ok((listener, local))
    };
    listen().map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => ServerError::PortInUse { address },
        _ => ServerError::Listen { address, error },
    })
}
