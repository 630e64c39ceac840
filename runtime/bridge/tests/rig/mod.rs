//! A simulated server, a bridge, and the controller's end of a link in memory.

#![allow(dead_code)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tenon_bridge::{Bridge, BridgeOptions, Wake, monotonic_clock, monotonic_time};
use tenon_core::arm::Joints;
use tenon_core::config::{RobotConfig, parse};
use tenon_core::message::{BridgeFault, BridgeState, BridgeStatus, JointTarget, Request, RobotState};
use tenon_link::{MemoryLink, RobotLink, memory_link};
use tenon_polymetis::client::{ControllerClient, Deadlines};
use tenon_polymetis::proto::LogInterval;
use tenon_sim::server::{ServerOptions, ServerScene, SimServer};

/// Long enough for a machine that compiles something else meanwhile.
pub const PATIENCE: Duration = Duration::from_secs(20);
const PERIOD: Duration = Duration::from_millis(5);

pub fn robot_config() -> RobotConfig {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/robot.toml");
    parse("robot.toml", &std::fs::read_to_string(path).unwrap()).unwrap()
}

pub fn options(server: SocketAddr) -> BridgeOptions {
    let mut options = BridgeOptions::new(&robot_config());
    options.server = server.to_string();
    // The configured 0.3 s is for a machine that does nothing else.
    options.heartbeat_timeout = Duration::from_secs(1);
    options
}

pub fn start_server() -> SimServer {
    SimServer::start(&ServerOptions::local(ServerScene::None)).unwrap()
}

/// A server at an address that was in use a moment ago.
pub fn start_server_at(address: SocketAddr) -> SimServer {
    let options = ServerOptions { address, ..ServerOptions::local(ServerScene::None) };
    let end = Instant::now() + PATIENCE;
    loop {
        match SimServer::start(&options) {
            Ok(server) => return server,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        std::thread::sleep(PERIOD);
    }
}

/// The controller: sends heartbeats and the same target again and again, as long as it is asked to wait.
pub struct Controller<L> {
    pub link: L,
    pub session: u64,
    pub sequence: u64,
    /// Joints where the next target starts; none sends heartbeats only.
    pub target_rad: Option<Joints>,
    pub silent: bool,
}

impl<L: RobotLink> Controller<L> {
    pub fn new(link: L, session: u64) -> Self {
        Self { link, session, sequence: 0, target_rad: None, silent: false }
    }

    pub fn send(&mut self) {
        if self.silent {
            return;
        }
        let session = self.session;
        self.link.send_request(Request::Heartbeat { session }).unwrap();
        if let Some(joint_positions_rad) = self.target_rad {
            self.sequence += 1;
            let target = JointTarget::still(session, self.sequence, monotonic_time(), joint_positions_rad);
            self.link.send_target(&target).unwrap();
        }
    }

    /// Goes on until `done` says so.
    pub fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            self.send();
            if let Some(found) = done(self) {
                return found;
            }
            let status = self.link.latest_status();
            assert!(Instant::now() < end, "no {what} within {PATIENCE:?}; status {status:?}");
            std::thread::sleep(PERIOD);
        }
    }

    pub fn for_a_while(&mut self, time: Duration) {
        let end = Instant::now() + time;
        self.until("end", |_| (Instant::now() >= end).then_some(()));
    }

    pub fn until_state(&mut self, state: BridgeState) -> BridgeStatus {
        self.until(&format!("{state:?}"), |c| c.status().filter(|status| status.state == state))
    }

    pub fn until_fault(&mut self) -> BridgeFault {
        self.until_state(BridgeState::Fault).fault
    }

    pub fn status(&mut self) -> Option<BridgeStatus> {
        self.link.latest_status().map(|status| status.value)
    }

    pub fn state(&mut self) -> RobotState {
        self.until("robot state", |c| c.link.latest_state()).value
    }

    /// Arms and waits for it, repeating the request as a controller has to.
    pub fn arm(&mut self) -> BridgeStatus {
        let session = self.session;
        self.until("Running", |c| {
            let running = c.status().filter(|s| s.state == BridgeState::Running && s.session == session);
            if running.is_none() {
                c.link.send_request(Request::Arm { session }).unwrap();
            }
            running
        })
    }

    pub fn release(&mut self) {
        let session = self.session;
        self.link.send_request(Request::Release { session }).unwrap();
    }

    /// Moves one joint of the target at 1 rad/s, from where the arm stands.
    pub fn ramp(&mut self, joint: usize, change_rad: f64) -> Joints {
        let mut joints = self.target_rad.unwrap_or(self.state().joint_positions_rad);
        let goal = joints[joint] + change_rad;
        while joints[joint] != goal {
            joints[joint] += (goal - joints[joint]).clamp(-0.005, 0.005);
            self.target_rad = Some(joints);
            self.send();
            std::thread::sleep(PERIOD);
        }
        joints
    }
}

pub struct Rig {
    pub server: Option<SimServer>,
    pub address: SocketAddr,
    pub bridge: Bridge,
    pub controller: Controller<MemoryLink>,
}

pub fn rig() -> Rig {
    rig_with(|_| {})
}

pub fn rig_with(change: impl FnOnce(&mut BridgeOptions)) -> Rig {
    let server = start_server();
    let address = server.local_address();
    let mut options = options(address);
    change(&mut options);
    let wake = Wake::default();
    let (link, sender, inbox) = memory_link(monotonic_clock(), wake.caller(), |_| true);
    let bridge = Bridge::start(options, sender, inbox, &wake).unwrap();
    Rig { server: Some(server), address, bridge, controller: Controller::new(link, 1) }
}

/// Another client of the server, as somebody else's script.
pub struct OtherClient {
    runtime: tokio::runtime::Runtime,
    client: ControllerClient,
}

impl OtherClient {
    pub fn new(server: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _in_runtime = runtime.enter();
        let patient = Duration::from_secs(10);
        let deadlines =
            Deadlines { set: patient, update: patient, get: patient, terminate: patient, metadata: patient };
        let client = ControllerClient::new(&server.to_string(), deadlines).unwrap();
        drop(_in_runtime);
        Self { runtime, client }
    }

    pub fn episode(&mut self) -> LogInterval {
        self.runtime.block_on(self.client.episode_interval()).unwrap()
    }

    pub fn positions(&mut self) -> Vec<f32> {
        self.runtime.block_on(self.client.robot_state()).unwrap().joint_positions
    }

    pub fn set(&mut self, archive: &[u8]) -> i32 {
        self.runtime.block_on(self.client.set_controller(archive)).unwrap()
    }

    pub fn terminate(&mut self) {
        self.runtime.block_on(self.client.terminate()).unwrap();
    }
}
