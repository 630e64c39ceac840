//! Tenon's controller on the simulated arm beside the stock one: how late each is, and how smooth. Both run as the texts
//! that a server would be sent.

use tenon_core::arm::{Joints, POLYMETIS_LOWER_RAD, POLYMETIS_UPPER_RAD};
use tenon_polymetis::archive::{JOINT_POS_DESIRED, TensorValue, hybrid_controller, pd_controller};
use tenon_polymetis::script::evaluate_parameters;
use tenon_polymetis::waypoints::{Gains, Plan, Waypoint, WaypointSettings, waypoint_controller};
use tenon_sim::server::{Law, ServerScene, SimulatedArm, panda_urdf};

/// The authors' gains (spec `robot_control.md` §5.2).
const GAINS: Gains = Gains {
    kq: [150.0, 120.0, 160.0, 100.0, 110.0, 100.0, 40.0],
    kqd: [20.0, 20.0, 20.0, 20.0, 12.0, 12.0, 8.0],
    kx: [750.0, 750.0, 750.0, 15.0, 15.0, 15.0],
    kxd: [37.0, 37.0, 37.0, 2.0, 2.0, 2.0],
};
const STEPS: usize = 4000;
/// The stock controller gets a target every 7 ms, as the control loop sends them.
const TARGET_STEPS: usize = 7;
/// Tenon's gets a plan every 35 ms.
const PLAN_STEPS: usize = 35;

fn settings() -> WaypointSettings {
    WaypointSettings {
        lower_rad: POLYMETIS_LOWER_RAD.map(|q| q + 0.05),
        upper_rad: POLYMETIS_UPPER_RAD.map(|q| q - 0.05),
        velocity_rad_s: [1.5; 7],
        acceleration_rad_s2: [7.5; 7],
        braking_rad_s2: [5.0; 7],
        rate_hz: 1000,
        patience_steps: 150,
        longest_join_steps: 500,
        shortest_brake_steps: 20,
        session: 1,
    }
}

/// All joints to and fro, at rest in the beginning.
fn way(start: &Joints, t: f64) -> (Joints, Joints) {
    let (size, rate) = (|i: usize| 0.06 + 0.01 * i as f64, |i: usize| 2.0 + 0.25 * i as f64);
    (
        std::array::from_fn(|i| start[i] + size(i) * (1.0 - (rate(i) * t).cos())),
        std::array::from_fn(|i| size(i) * rate(i) * (rate(i) * t).sin()),
    )
}

fn plan(start: &Joints, sequence: i64, first_step: i64) -> Plan {
    let waypoint = |k: i64| {
        let (positions_rad, velocities_rad_s) = way(start, (first_step + 20 * k) as f64 * 1e-3);
        Waypoint { positions_rad, velocities_rad_s }
    };
    let plan = Plan { session: 1, sequence, first_step, spacing_steps: 20, waypoints: (0..8).map(waypoint).collect() };
    plan.check(&settings()).unwrap();
    plan
}

/// Where the courses begin. At the scene's own start joint 2 is near zero and the axes of joints 1 and 3 are parallel:
/// turned against each other they have next to no inertia (the model has no rotors), and gains as stiff as these swing.
const BEGIN_RAD: Joints = [-0.1, 0.5, 0.0, -2.1, 0.0, 2.4, -0.8];

/// An arm at rest there.
fn positioned() -> SimulatedArm {
    let mut arm = SimulatedArm::new(ServerScene::None, 0.0, 0).unwrap();
    let home = arm.observe((0, 0), 0.0).record.joint_positions;
    let archive = pd_controller(&home, &[60.0; 7], &[6.0; 7]).unwrap();
    let mut law = Law::load(&archive).unwrap();
    for step in 0..4000 {
        let reading = arm.observe((0, 0), 0.0);
        let share = (step as f32 / 2500.0).min(1.0);
        let share = share * share * (3.0 - 2.0 * share);
        let target: [f32; 7] = std::array::from_fn(|i| home[i] + share * (BEGIN_RAD[i] as f32 - home[i]));
        law.update(&[(JOINT_POS_DESIRED.to_owned(), TensorValue::f32_vector(&target))]).unwrap();
        arm.apply(&law.forward(&reading).unwrap());
    }
    arm
}

fn start() -> Joints {
    positioned().observe((0, 0), 0.0).record.joint_positions.map(f64::from)
}

/// The arm's joints at every step.
fn run(archive: &[u8], mut update: impl FnMut(&mut Law, usize)) -> Vec<Joints> {
    let mut arm = positioned();
    let mut law = Law::load(archive).unwrap();
    let mut measured = Vec::new();
    for step in 0..STEPS {
        let reading = arm.observe((0, 0), 0.0);
        measured.push(reading.record.joint_positions.map(f64::from));
        if step > 0 {
            update(&mut law, step);
        }
        arm.apply(&law.forward(&reading).unwrap());
    }
    measured
}

/// By how much each joint comes late (s), and the largest error (rad), after the first half second.
fn lateness(start: &Joints, measured: &[Joints]) -> ([f64; 7], f64) {
    let (mut lags, mut worst) = ([0.0; 7], 0.0_f64);
    for joint in 0..7 {
        let (mut error_by_v, mut v_by_v) = (0.0, 0.0);
        for (step, q) in measured.iter().enumerate().skip(500) {
            let (wanted, v) = way(start, step as f64 * 1e-3);
            error_by_v += (wanted[joint] - q[joint]) * v[joint];
            v_by_v += v[joint] * v[joint];
            worst = worst.max((wanted[joint] - q[joint]).abs());
        }
        lags[joint] = error_by_v / v_by_v;
    }
    (lags, worst)
}

/// Largest jerk of any joint, rad/s³, from positions 5 ms apart.
fn jerk(measured: &[Joints]) -> f64 {
    let mut largest = 0.0_f64;
    for step in (520..measured.len()).step_by(1) {
        for joint in 0..7 {
            let q: [f64; 4] = std::array::from_fn(|k| measured[step - 5 * k][joint]);
            largest = largest.max((q[0] - 3.0 * q[1] + 3.0 * q[2] - q[3]).abs() / 0.005_f64.powi(3));
        }
    }
    largest
}

#[test]
fn tenons_law_is_five_times_less_late_than_the_stock_one() {
    let start = start();
    let urdf = panda_urdf();
    let held = start.map(|q| q as f32);
    let stock = hybrid_controller(&held, &GAINS.kq, &GAINS.kqd, &GAINS.kx, &GAINS.kxd, &urdf).unwrap();
    let stock = run(&stock, |law, step| {
        if step % TARGET_STEPS == 0 {
            let (target, _) = way(&start, step as f64 * 1e-3);
            let target = TensorValue::f32_vector(&target.map(|q| q as f32));
            law.update(&[(JOINT_POS_DESIRED.to_owned(), target)]).unwrap();
        }
    });
    let ours = waypoint_controller(&settings(), &GAINS, &urdf).unwrap();
    let ours = run(&ours, |law, step| {
        if step == 1 || step % PLAN_STEPS == 0 {
            let plan = plan(&start, step as i64, (step / 20 * 20) as i64);
            law.update(&evaluate_parameters(&plan.to_archive().unwrap()).unwrap()).unwrap();
        }
    });
    let ((stock_lag, stock_worst), (our_lag, our_worst)) = (lateness(&start, &stock), lateness(&start, &ours));
    println!(
        "stock: late by {:.1?} ms, {stock_worst:.4} rad, jerk {:.0} rad/s³",
        stock_lag.map(|s| s * 1e3),
        jerk(&stock)
    );
    println!("ours:  late by {:.1?} ms, {our_worst:.4} rad, jerk {:.0} rad/s³", our_lag.map(|s| s * 1e3), jerk(&ours));
    let mean = |lags: [f64; 7]| lags.iter().map(|lag| lag.abs()).sum::<f64>() / 7.0;
    println!(
        "mean: {:.1} ms and {:.1} ms, a factor of {:.0}",
        mean(stock_lag) * 1e3,
        mean(our_lag) * 1e3,
        mean(stock_lag) / mean(our_lag)
    );
    assert!(mean(stock_lag) > 5.0 * mean(our_lag));
    assert!(stock_worst > 5.0 * our_worst);
    assert!(jerk(&ours) < jerk(&stock));
}

#[test]
fn plans_that_stop_coming_bring_the_arm_to_rest() {
    let start = start();
    let archive = waypoint_controller(&settings(), &GAINS, &panda_urdf()).unwrap();
    let measured = run(&archive, |law, step| {
        if step < 1500 && (step == 1 || step % PLAN_STEPS == 0) {
            let plan = plan(&start, step as i64, (step / 20 * 20) as i64);
            law.update(&evaluate_parameters(&plan.to_archive().unwrap()).unwrap()).unwrap();
        }
    });
    let moved =
        |from: usize, to: usize| (0..7).map(|i| (measured[to][i] - measured[from][i]).abs()).fold(0.0, f64::max);
    assert!(moved(1400, 1500) > 0.01, "it moves");
    assert!(moved(2500, 3999) < 2e-3, "it rests: {}", moved(2500, 3999));
}
