//! The simulated robot client: a thread that steps the arm at 1 kHz in real time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tenon_polymetis::archive::default_controller;
use tenon_polymetis::proto::RobotClientMetadata;

use super::arm::{REST_POSE_RAD, SimulatedArm};
use super::plane::ControlPlane;
use super::realtime::{ask_for_fifo, monotonic_time, sleep_until, wall_clock};
use super::truth::{TruthLine, TruthWriter};
use super::urdf::panda_urdf;

/// Control rate, Hz.
pub const RATE_HZ: i32 = 1000;
const PERIOD: Duration = Duration::from_millis(1);
/// Lateness that is caught up by steps without a pause: physics, unlike a controller, owes every step. Beyond it the
/// simulated time stands still for a while.
const MAX_CATCH_UP: Duration = Duration::from_millis(50);
/// Below the controller's own priority, above everything that is not real time.
const FIFO_PRIORITY: i32 = 50;
/// After an exception of its control loop the hardware client waits a second before it recovers (spec `polymetis.md`
/// §8), a little longer than the server waits for it.
const RECOVERY: Duration = Duration::from_millis(1050);
/// Physics steps in one line of the truth file.
const STEPS_PER_TRUTH_LINE: u32 = 5;

/// Default gains of the hardware configuration (spec `polymetis.md` §5.1).
const DEFAULT_KQ: [f32; 7] = [40.0, 30.0, 50.0, 25.0, 35.0, 25.0, 10.0];
const DEFAULT_KQD: [f32; 7] = [4.0, 6.0, 5.0, 5.0, 3.0, 2.0, 1.0];
const DEFAULT_KX: [f32; 6] = [750.0, 750.0, 750.0, 15.0, 15.0, 15.0];
const DEFAULT_KXD: [f32; 6] = [37.0, 37.0, 37.0, 2.0, 2.0, 2.0];

/// How the loop keeps up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArmStatistics {
    pub steps: u64,
    /// Steps that began more than a period after their time.
    pub late_steps: u64,
    /// Steps given up because the loop was behind by more than it may catch up.
    pub skipped_steps: u64,
    /// Whether SCHED_FIFO was granted.
    pub realtime: bool,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    paused: AtomicBool,
    realtime: AtomicBool,
    steps: AtomicU64,
    late: AtomicU64,
    skipped: AtomicU64,
}

/// Handle of the thread.
#[derive(Debug)]
pub struct RobotClient {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl RobotClient {
    /// Registers at the plane and starts stepping; where it begins `paused`, when that ends.
    ///
    /// # Errors
    /// As starting a thread.
    pub fn start(
        arm: SimulatedArm,
        plane: Arc<Mutex<ControlPlane>>,
        truth: Option<TruthWriter>,
        paused: bool,
    ) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        shared.paused.store(paused, Ordering::Relaxed);
        if !paused {
            lock(&plane).init_robot(monotonic_time(), metadata()).map_err(std::io::Error::other)?;
        }
        let thread = std::thread::Builder::new().name("robot-client".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                shared.realtime.store(ask_for_fifo(FIFO_PRIORITY), Ordering::Relaxed);
                Loop { arm, plane, truth, shared, registered: !paused }.run();
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub fn pause(&self, paused: bool) {
        self.shared.paused.store(paused, Ordering::Relaxed);
    }

    /// Ends the thread without waiting for it.
    pub fn stopper(&self) -> impl FnOnce() + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.stop.store(true, Ordering::Relaxed)
    }

    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; the server is ending anyway.
            let _ = thread.join();
        }
    }

    pub fn statistics(&self) -> ArmStatistics {
        let shared = &self.shared;
        ArmStatistics {
            steps: shared.steps.load(Ordering::Relaxed),
            late_steps: shared.late.load(Ordering::Relaxed),
            skipped_steps: shared.skipped.load(Ordering::Relaxed),
            realtime: shared.realtime.load(Ordering::Relaxed),
        }
    }
}

impl Drop for RobotClient {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Loop {
    arm: SimulatedArm,
    plane: Arc<Mutex<ControlPlane>>,
    truth: Option<TruthWriter>,
    shared: Arc<Shared>,
    registered: bool,
}

impl Loop {
    fn run(mut self) {
        let mut deadline = monotonic_time();
        let mut latency_ms = 0.0;
        let (mut touched, mut since_line) = (false, 0);
        while !self.shared.stop.load(Ordering::Relaxed) {
            deadline = deadline + PERIOD;
            sleep_until(deadline);
            let begin = monotonic_time();
            let late = begin.since(deadline);
            if late > MAX_CATCH_UP {
                let skipped = late.as_millis() as u64;
                self.shared.skipped.fetch_add(skipped, Ordering::Relaxed);
                deadline = begin;
            }
            if late > PERIOD {
                self.shared.late.fetch_add(1, Ordering::Relaxed);
            }
            if self.shared.paused.load(Ordering::Relaxed) {
                continue;
            }
            if !self.registered {
                if let Err(error) = lock(&self.plane).init_robot(monotonic_time(), metadata()) {
                    tracing::error!("{error}");
                    return;
                }
                self.registered = true;
            }
            let reading = self.arm.observe(wall_clock(), latency_ms);
            let asked = monotonic_time();
            let answer = lock(&self.plane).control_update(asked, &reading);
            let torque = match answer {
                Ok(torque) => torque,
                Err(error) => {
                    // libfranka's loop throws and the arm stands; so does the physics.
                    tracing::error!("{error}; the robot client recovers");
                    deadline = deadline + RECOVERY;
                    continue;
                }
            };
            latency_ms = monotonic_time().seconds_since(asked) as f32 * 1e3;
            touched |= self.arm.rod_touches_obstacle();
            since_line += 1;
            if since_line == STEPS_PER_TRUTH_LINE {
                if let Some(truth) = &mut self.truth {
                    let (q, dq) = self.arm.joints();
                    let law_dq = lock(&self.plane).commanded_velocities_rad_s();
                    let (t_ns, tcp) = (begin.as_nanos(), self.arm.tcp_m());
                    truth.write(TruthLine { t_ns, tcp, q, dq, law_dq, contact: touched });
                }
                (touched, since_line) = (false, 0);
            }
            self.arm.apply(&torque);
            self.shared.steps.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The plane, also after a panic of another thread: its fields are plain values, valid after every statement.
pub fn lock(plane: &Mutex<ControlPlane>) -> std::sync::MutexGuard<'_, ControlPlane> {
    plane.lock().unwrap_or_else(PoisonError::into_inner)
}

fn metadata() -> RobotClientMetadata {
    let rest = REST_POSE_RAD.map(|q| q as f32);
    let default_controller =
        default_controller(&DEFAULT_KQ, &DEFAULT_KQD).expect("finite constants make a short archive");
    RobotClientMetadata {
        urdf_file: panda_urdf(),
        hz: RATE_HZ,
        default_kq: DEFAULT_KQ.to_vec(),
        default_kqd: DEFAULT_KQD.to_vec(),
        default_controller,
        dof: 7,
        ee_link_name: "panda_link8".to_owned(),
        ee_link_idx: 7,
        rest_pose: rest.to_vec(),
        polymetis_version: concat!("tenon-sim ", env!("CARGO_PKG_VERSION")).to_owned(),
        default_kx: DEFAULT_KX.to_vec(),
        default_kxd: DEFAULT_KXD.to_vec(),
    }
}
