//! A gripper server with a simulated Franka Hand: on a real robot a process and a port of its own, so here too.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tenon_polymetis::proto::GripperMetadata;
use tenon_polymetis::proto::gripper_server_server::GripperServerServer;
use tonic::transport::server::TcpIncoming;

use super::gripper::GripperMailbox;
use super::hand::{Hand, MAX_WIDTH_M};
use super::realtime::{monotonic_time, wall_clock};
use super::{ServerError, listen};

/// Rate at which the hand's client reports, Hz.
const RATE_HZ: i32 = 30;
const PERIOD: Duration = Duration::from_millis(33);

/// What to serve, and where.
#[derive(Debug, Clone)]
pub struct GripperOptions {
    /// Port 0 takes a free one.
    pub address: SocketAddr,
    /// Width of what stands between the fingers, m; 0 for nothing.
    pub object_m: f64,
    /// The hand's client registers after it has homed the hand, which takes this long; 0 skips it.
    pub homing: Duration,
}

impl GripperOptions {
    /// A hand with nothing between its fingers, homed already, at a free local port.
    pub fn local() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 0)), object_m: 0.0, homing: Duration::ZERO }
    }
}

#[derive(Debug)]
struct Shared {
    hand: Mutex<Hand>,
    frozen: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    /// The hand, also after a panic of another thread: its fields are plain values, valid after every statement.
    fn hand(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running gripper server. Dropping it ends it like a killed process: connections break at once.
#[derive(Debug)]
pub struct SimGripper {
    local_address: SocketAddr,
    shared: Arc<Shared>,
    client: Option<JoinHandle<()>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl SimGripper {
    /// Starts the hand and serves.
    ///
    /// # Errors
    /// [`ServerError`]
    pub fn start(options: &GripperOptions) -> Result<Self, ServerError> {
        let (listener, local_address) = listen(options.address)?;
        let threads = |error| ServerError::Thread { what: "the gripper server's threads", error };
        let mailbox = GripperMailbox::default();
        // As many workers as the real one has.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("gripper-rpc")
            .enable_all()
            .build()
            .map_err(threads)?;
        let listener = {
            let _in_runtime = runtime.enter();
            tokio::net::TcpListener::from_std(listener)
                .map_err(|error| ServerError::Listen { address: local_address, error })?
        };
        let service = GripperServerServer::new(mailbox.clone());
        runtime.spawn(async move {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            if let Err(error) = tonic::transport::Server::builder().serve_with_incoming(service, incoming).await {
                tracing::error!("the gripper server ended: {error}");
            }
        });
        let shared = Arc::new(Shared {
            hand: Mutex::new(Hand::new(options.object_m as f32)),
            frozen: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let client = std::thread::Builder::new().name("gripper-client".to_owned()).spawn({
            let (shared, homing) = (Arc::clone(&shared), options.homing);
            move || run_client(&shared, &mailbox, homing)
        });
        let client = Some(client.map_err(threads)?);
        Ok(Self { local_address, shared, client, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Opening between the fingers, m.
    pub fn width_m(&self) -> f64 {
        f64::from(self.shared.hand().width_m())
    }

    /// Motions that the hand began.
    pub fn motions(&self) -> u64 {
        self.shared.hand().motions()
    }

    /// Puts an object of that width between the fingers, m; 0 takes it away.
    pub fn put_object(&self, width_m: f64) {
        self.shared.hand().put_object(width_m as f32);
    }

    /// Motions get nowhere until it is taken back.
    pub fn hang(&self, hangs: bool) {
        self.shared.hand().hang(hangs);
    }

    /// The hand's client reports nothing until it is taken back; the server repeats the last state.
    pub fn freeze(&self, frozen: bool) {
        self.shared.frozen.store(frozen, Ordering::Relaxed);
    }
}

impl Drop for SimGripper {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(client) = self.client.take() {
            // A panic there has been printed.
            let _ = client.join();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn run_client(shared: &Shared, mailbox: &GripperMailbox, homing: Duration) {
    let begin = monotonic_time();
    let mut last = begin;
    let mut registered = false;
    while !shared.stop.load(Ordering::Relaxed) {
        std::thread::sleep(PERIOD);
        let now = monotonic_time();
        let time = now.since(last);
        last = now;
        if now.since(begin) < homing || shared.frozen.load(Ordering::Relaxed) {
            continue;
        }
        if !registered {
            registered = true;
            mailbox.register(GripperMetadata {
                polymetis_version: concat!("tenon-sim ", env!("CARGO_PKG_VERSION")).to_owned(),
                hz: RATE_HZ,
                max_width: MAX_WIDTH_M,
            });
        }
        let mut hand = shared.hand();
        hand.step(time);
        let command = mailbox.exchange(hand.state(wall_clock()));
        if let Err(died) = hand.fetch(&command) {
            tracing::error!("{died}; the server repeats its last state from now on");
            return;
        }
    }
}
