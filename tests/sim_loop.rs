//! The real controller with a manual clock, once on the MuJoCo arm under joint impedance and once on an in-memory arm that
//! is where it was sent. One suite for both; two runs with one seed are identical to the bit.

use std::convert::Infallible;
use std::time::Duration;

use tenon_controller::inference::ChunkSampler;
use tenon_controller::machine::{Controller, Event, Inputs, Order, Phase, Settings};
use tenon_controller::perfect_arm::PerfectArm;
use tenon_core::action::ActionChunk;
use tenon_core::arm::Joints;
use tenon_core::avoid;
use tenon_core::config::{RobotConfig, TaskConfig, Values, parse};
use tenon_core::diffusion::{Denoiser, DenoisingStep};
use tenon_core::normalizer::{Limits, Normalizer};
use tenon_core::spec::PolicySpec;
use tenon_core::time::MonotonicTime;
use tenon_polymetis::archive::{ParameterArchive, hybrid_controller, read_parameters};
use tenon_sim::server::{Law, LawInput, ServerScene, SimulatedArm, panda_urdf};

/// A "network" whose noise depends on the observation, the step and the chunk, so that any difference shows.
struct Wobble {
    state: Vec<f32>,
}

impl Denoiser for Wobble {
    type Error = Infallible;

    fn condition(&mut self, state: &[f32]) -> Result<(), Infallible> {
        self.state = state.to_vec();
        Ok(())
    }

    fn predict_noise(&mut self, step: &DenoisingStep, x: &[f32], noise: &mut [f32]) -> Result<(), Infallible> {
        let drive: f32 = self.state.iter().sum();
        for (i, (n, x)) in noise.iter_mut().zip(x).enumerate() {
            *n = (x + 0.1 * drive + 0.01 * (step.t + i) as f32).sin();
        }
        Ok(())
    }
}

fn spec() -> PolicySpec {
    let task = TaskConfig::parse("avoid_m1.toml", include_str!("../configs/tasks/avoid_m1.toml"), Values::Latest)
        .expect("the shipped file");
    let observation = Limits { min: [0.2, -0.3].repeat(2), max: [0.8, 0.5].repeat(2) };
    // Small and mostly forward, so that the arm stays clear of the first obstacle for the length of the test.
    let action = Limits { min: vec![-0.002, 0.0], max: vec![0.004, 0.004] };
    task.policy_spec(Normalizer::new(observation, action), task.policy.finetuned_steps())
}

/// The physics and the law of the simulated server, without its clock.
struct MujocoArm {
    arm: SimulatedArm,
    law: Law,
    update: ParameterArchive,
    left_over: Duration,
}

impl MujocoArm {
    fn new(config: &RobotConfig) -> Self {
        let f32s = |v: &[f64; 7]| v.map(|x| x as f32);
        let bridge = &config.bridge;
        let archive = hybrid_controller(
            &f32s(&avoid::START_JOINTS_RAD),
            &f32s(&bridge.joint_stiffness_nm_rad),
            &f32s(&bridge.joint_damping_nms_rad),
            &bridge.cartesian_stiffness.map(|x| x as f32),
            &bridge.cartesian_damping.map(|x| x as f32),
            &panda_urdf(),
        )
        .expect("the shipped gains are finite");
        Self {
            arm: SimulatedArm::new(ServerScene::Avoid, 0.0, 0).expect("the Avoid scene compiles"),
            law: Law::load(&archive).expect("our own controller loads"),
            update: ParameterArchive::joint_pos_desired(),
            left_over: Duration::ZERO,
        }
    }

    /// Advances by `dt` toward the target and returns the measured joints and velocities.
    fn advance(&mut self, target: Option<Joints>, dt: Duration) -> (Joints, Joints) {
        if let Some(target) = target {
            let parameters = read_parameters(self.update.patch(&target.map(|q| q as f32))).expect("our own archive");
            self.law.update(&parameters).expect("seven values");
        }
        self.left_over += dt;
        loop {
            let reading = self.arm.observe((0, 0), 0.0);
            let (q, dq) = (reading.record.joint_positions, reading.record.joint_velocities);
            if self.left_over < Duration::from_millis(1) {
                return (q.map(f64::from), dq.map(f64::from));
            }
            self.left_over -= Duration::from_millis(1);
            let torque = self.law.torque(&LawInput { q, dq, coriolis_nm: reading.coriolis_nm });
            self.arm.apply(&torque);
        }
    }
}

/// What the arm was told and where it was, tick by tick; without MuJoCo's it is where it was sent.
fn run(
    mut mujoco: Option<MujocoArm>,
    config: &RobotConfig,
    seed: u64,
    actions: usize,
) -> Vec<(Option<Joints>, Joints)> {
    let settings = Settings {
        max_state_age: Duration::from_millis(100),
        max_late_ticks: 5,
        max_missing: Duration::from_secs(1),
        ..tenon_controller::run::settings(config)
    };
    let mut controller = Controller::new(settings, &spec()).expect("the policy fits the robot");
    let mut sampler =
        ChunkSampler::new(spec(), spec().diffusion().expect("Avoid denoises"), Wobble { state: Vec::new() }, seed);
    let mut arm = PerfectArm::at(avoid::START_JOINTS_RAD);
    let mut chunk: Option<ActionChunk> = None;
    let mut now = MonotonicTime::from_nanos(0);
    let mut order = Some(Order::Arm { session: 1 });
    let mut target = None;
    let mut history = Vec::new();
    loop {
        if let Some(mujoco) = &mut mujoco {
            (arm.joint_positions_rad, arm.joint_velocities_rad_s) = mujoco.advance(target, controller.tick_period());
        }
        now = now + controller.tick_period();
        let measured = arm.joint_positions_rad;
        let inputs = Inputs {
            due: now,
            state: Some(arm.state(now)),
            status: Some(arm.status(now)),
            chunk: chunk.as_ref(),
            parts: None,
            order: order.take(),
            late_ticks: 0,
        };
        let outcome = controller.tick(now, &inputs);
        arm.follow(&outcome);
        if let Some(request) = outcome.infer {
            let Ok(sampled) = sampler.sample(&request, usize::MAX);
            chunk = Some(sampled);
        }
        target = outcome.target.map(|motion| motion.map(|m| m.position_rad));
        history.push((target, measured));
        match outcome.event {
            Some(Event::Armed) => order = Some(Order::Run { actions }),
            Some(Event::RunEnded { .. }) => return history,
            Some(Event::Faulted(cause)) => panic!("{cause}"),
            _ => assert!(history.len() < 5000, "the run never ended: {:?}", controller.phase()),
        }
        assert!(!matches!(controller.phase(), Phase::Disarmed));
    }
}

fn robot() -> RobotConfig {
    parse("configs/robot.toml", include_str!("../configs/robot.toml")).expect("the shipped file is valid")
}

/// The two arms of the suite.
fn arms(config: &RobotConfig) -> [Option<MujocoArm>; 2] {
    [Some(MujocoArm::new(config)), None]
}

#[test]
fn two_runs_with_one_seed_are_identical_to_the_bit() {
    let config = robot();
    let runs: Vec<Vec<_>> =
        (0..2).map(|_| arms(&config).into_iter().map(|arm| run(arm, &config, 3, 24)).collect()).collect();
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].iter().all(|history| history.len() >= 24 * config.control.targets_per_action));
}

#[test]
fn another_seed_moves_the_arm_differently() {
    let config = robot();
    for (a, b) in arms(&config).into_iter().zip(arms(&config)) {
        assert_ne!(run(a, &config, 3, 8), run(b, &config, 4, 8));
    }
}

#[test]
fn the_arm_follows_and_never_exceeds_the_speed_limit() {
    let config = robot();
    let arm = config.arm();
    for mujoco in arms(&config) {
        let history = run(mujoco, &config, 5, 40);
        let limit = config.safety.max_joint_velocity_rad_s * 0.007 + 1e-9;
        let targets: Vec<Joints> = history.iter().filter_map(|(t, _)| *t).collect();
        for pair in targets.windows(2) {
            for i in 0..7 {
                assert!((pair[1][i] - pair[0][i]).abs() <= limit);
            }
        }
        let (Some(last), Some((_, q))) = (targets.last(), history.last()) else { panic!("the run was not empty") };
        let commanded = arm.tcp(last).translation.vector;
        let measured = arm.tcp(q).translation.vector;
        let start = arm.tcp(&avoid::START_JOINTS_RAD).translation.vector;
        assert!((measured - start).norm() > 0.02, "the arm has moved");
        assert!((commanded - measured).norm() < 0.03, "lag {:.4} m", (commanded - measured).norm());
    }
}
