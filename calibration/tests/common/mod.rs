//! A robot behind a link in memory, played by a clock.

#![allow(dead_code, reason = "each test program uses its part")]

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use tenon_calibrate::arm::RobotStates;
use tenon_core::arm::Joints;
use tenon_core::config::{RobotConfig, parse};
use tenon_core::message::{GripperPhase, RobotState};
use tenon_core::time::{MonotonicTime, RobotTime};
use tenon_link::{BridgeInbox, BridgeSender, memory_link};
use tenon_vision::source::Clock;

pub const SHIPPED: &str = include_str!("../../../configs/robot.toml");
pub const REST: Joints = [0.1, -0.5, 0.05, -2.1, -0.02, 1.7, 0.6];

pub fn robot() -> RobotConfig {
    parse("robot.toml", SHIPPED).unwrap()
}

pub fn state(sequence: u64, robot_ns: i64) -> RobotState {
    RobotState {
        sequence,
        robot_time: RobotTime::from_nanos(robot_ns),
        joint_positions_rad: REST,
        joint_velocities_rad_s: [5e-4; 7],
        joint_torques_external_nm: [0.0; 7],
        gripper_width_m: f64::NAN,
        gripper: GripperPhase::Absent,
        error_code: 0,
    }
}

/// A state of the robot at so many milliseconds; `None`: nothing is sent.
type Play = Box<dyn Fn(i64) -> Option<RobotState> + Send + Sync>;

/// Time goes on only while somebody sleeps, and the robot's states come meanwhile, every 5 ms.
pub struct PlayedClock {
    now_ns: Arc<AtomicI64>,
    robot: Mutex<(BridgeSender, Play)>,
}

impl Clock for PlayedClock {
    fn now(&self) -> MonotonicTime {
        MonotonicTime::from_nanos(self.now_ns.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, deadline: MonotonicTime) {
        let (sender, play) = &*self.robot.lock().unwrap();
        while self.now() < deadline {
            let ms = self.now_ns.fetch_add(5_000_000, Ordering::SeqCst) / 1_000_000 + 5;
            if let Some(state) = play(ms) {
                sender.publish_state(&state).unwrap();
            }
        }
    }
}

pub struct PlayedRobot {
    pub states: RobotStates,
    pub clock: Arc<PlayedClock>,
    pub sender: BridgeSender,
    pub inbox: BridgeInbox,
}

pub fn played_robot(play: impl Fn(i64) -> Option<RobotState> + Send + Sync + 'static) -> PlayedRobot {
    let now_ns = Arc::new(AtomicI64::new(0));
    let time = Arc::clone(&now_ns);
    let stamps: tenon_link::Clock = Arc::new(move || MonotonicTime::from_nanos(time.load(Ordering::SeqCst)));
    let (link, sender, inbox) = memory_link(stamps, || {}, |_| true);
    let clock = Arc::new(PlayedClock { now_ns, robot: Mutex::new((sender.clone(), Box::new(play))) });
    PlayedRobot { states: RobotStates::of(link, "tcp/127.0.0.1:7447"), clock, sender, inbox }
}
