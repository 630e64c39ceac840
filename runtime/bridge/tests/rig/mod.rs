//! A simulated server, a bridge, and the controller's end of a link in memory.

#![allow(dead_code)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tenon_bridge::{Bridge, BridgeOptions, Wake, monotonic_clock, monotonic_time};
use tenon_core::arm::Joints;
use tenon_core::config::{RobotConfig, parse};
use tenon_core::message::{BridgeFault, BridgeState, BridgeStatus, JointTarget, Request, RobotState};
use tenon_core::safety::{FollowGains, JointMotion, follow};
use tenon_core::time::MonotonicTime;
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
    let mut options = BridgeOptions::new(&robot_config()).unwrap();
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
    /// The motion that is sent; none sends heartbeats only.
    pub motion: Option<[JointMotion; 7]>,
    pub silent: bool,
}

impl<L: RobotLink> Controller<L> {
    pub fn new(link: L, session: u64) -> Self {
        Self { link, session, sequence: 0, motion: None, silent: false }
    }

    pub fn send(&mut self) {
        if self.silent {
            return;
        }
        let session = self.session;
        self.link.send_request(Request::Heartbeat { session }).unwrap();
        if self.motion.is_some() {
            self.send_motion(monotonic_time());
        }
    }

    fn send_motion(&mut self, due: MonotonicTime) {
        let motion = self.motion.unwrap();
        self.sequence += 1;
        let target = JointTarget {
            session: self.session,
            sequence: self.sequence,
            due,
            joint_positions_rad: motion.map(|m| m.position_rad),
            joint_velocities_rad_s: motion.map(|m| m.velocity_rad_s),
            joint_accelerations_rad_s2: motion.map(|m| m.acceleration_rad_s2),
        };
        self.link.send_target(&target).unwrap();
    }

    /// From here on these joints are sent, at rest.
    pub fn hold(&mut self, joints: Joints) {
        self.motion = Some(joints.map(JointMotion::at_rest));
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

    /// Moves one joint as the safety stage would, from where the arm stands, and holds it there.
    pub fn ramp(&mut self, joint: usize, change_rad: f64) -> Joints {
        self.ramp_until(joint, change_rad, |_| false);
        let joints = self.motion.unwrap().map(|m| m.position_rad);
        self.hold(joints);
        joints
    }

    /// The same until `enough` says so. Returns the goal.
    pub fn ramp_until(&mut self, joint: usize, change_rad: f64, enough: impl Fn(&Self) -> bool) -> f64 {
        if self.motion.is_none() {
            let measured = self.state().joint_positions_rad;
            self.hold(measured);
        }
        // The bridge has to learn the step that the server is at before anything moves.
        self.for_a_while(Duration::from_millis(100));
        let bounds = options("127.0.0.1:1".parse().unwrap()).bounds[joint];
        let gains = FollowGains::of_period(PERIOD.as_secs_f64());
        let goal = self.motion.unwrap()[joint].position_rad + change_rad;
        let mut last = monotonic_time();
        let motion = |c: &Self| c.motion.unwrap()[joint];
        let arrived = |m: JointMotion| (m.position_rad - goal).abs() < 1e-4 && m.velocity_rad_s.abs() < 1e-3;
        while !arrived(motion(self)) && !enough(self) {
            std::thread::sleep(PERIOD);
            let now = monotonic_time();
            let mut left_s = now.seconds_since(last);
            while left_s > 0.0 {
                let dt_s = left_s.min(PERIOD.as_secs_f64());
                let moved = &mut self.motion.as_mut().unwrap()[joint];
                *moved = follow(moved, &JointMotion::at_rest(goal), dt_s, &gains, &bounds).motion;
                left_s -= dt_s;
            }
            last = now;
            self.link.send_request(Request::Heartbeat { session: self.session }).unwrap();
            self.send_motion(now);
        }
        goal
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

    /// Speed of the fastest joint, rad/s.
    pub fn fastest(&mut self) -> f32 {
        let state = self.runtime.block_on(self.client.robot_state()).unwrap();
        state.joint_velocities.iter().fold(0.0, |fastest, speed| fastest.max(speed.abs()))
    }

    pub fn set(&mut self, archive: &[u8]) -> i32 {
        self.runtime.block_on(self.client.set_controller(archive)).unwrap()
    }

    pub fn terminate(&mut self) {
        self.runtime.block_on(self.client.terminate()).unwrap();
    }
}
