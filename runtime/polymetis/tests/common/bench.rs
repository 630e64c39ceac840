//! Laws, a robot model and a random course to run controllers along.
#![allow(dead_code)] // each test binary uses a part of this

use tenon_polymetis::script::{ControllerState, RobotModel};
use tenon_polymetis::waypoints::{Gains, Plan, Waypoint, WaypointSettings};

/// SplitMix64: a fixed sequence without a dependency.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From −1 to 1.
    pub fn around(&mut self) -> f64 {
        2.0 * self.share() - 1.0
    }
}

/// A robot model of formulas that `tests/interop/torchscript.py` has too: what matters here is the law around it.
pub struct FormulaModel;

impl RobotModel for FormulaModel {
    fn jacobian(&mut self, q: &[f64; 7], frame: i64) -> Result<[[f64; 7]; 6], String> {
        Ok(std::array::from_fn(|row| {
            std::array::from_fn(|i| 0.5 * (q[i] + 0.7 * row as f64 + 0.3 * i as f64 + 0.01 * frame as f64).sin())
        }))
    }

    fn inverse_dynamics(&mut self, q: &[f64; 7], v: &[f64; 7], a: &[f64; 7]) -> Result<[f64; 7], String> {
        Ok(std::array::from_fn(|i| 10.0 * q[i].sin() + 0.4 * v[i] * v[(i + 1) % 7] * q[i].cos() + a[i]))
    }
}

pub fn coriolis(q: &[f64; 7], v: &[f64; 7]) -> [f64; 7] {
    let mut model = FormulaModel;
    let moving = model.inverse_dynamics(q, v, &[0.0; 7]).unwrap();
    let resting = model.inverse_dynamics(q, &[0.0; 7], &[0.0; 7]).unwrap();
    std::array::from_fn(|i| moving[i] - resting[i])
}

/// A state about which the random ones lie.
pub const Q: [f64; 7] = [0.0, 0.3, 0.1, -2.0, 0.0, 2.4, 0.5];

pub fn random_state(random: &mut Random) -> ControllerState {
    ControllerState {
        timestamp: [1_700_000_000, (random.share() * 1e9) as i32],
        joint_positions: Q.map(|q| (q + 0.1 * random.around()) as f32),
        joint_velocities: Q.map(|_| (0.5 * random.around()) as f32),
        motor_torques_measured: Q.map(|_| (20.0 * random.around()) as f32),
        motor_torques_external: Q.map(|_| random.around() as f32),
    }
}

pub fn settings() -> WaypointSettings {
    WaypointSettings {
        lower_rad: [-2.75, -1.6, -2.75, -2.9, -2.75, 0.13, -2.75],
        upper_rad: [2.75, 1.6, 2.75, -0.22, 2.75, 3.6, 2.75],
        velocity_rad_s: [1.5; 7],
        acceleration_rad_s2: [10.0, 7.5, 10.0, 10.0, 10.0, 10.0, 10.0],
        braking_rad_s2: [5.0; 7],
        rate_hz: 1000,
        patience_steps: 150,
        longest_join_steps: 500,
        shortest_brake_steps: 20,
        session: 4_000_000_007,
    }
}

pub fn gains(cartesian: bool) -> Gains {
    let share = f32::from(u8::from(cartesian));
    Gains {
        kq: [150.0, 120.0, 160.0, 100.0, 110.0, 100.0, 40.0],
        kqd: [20.0, 20.0, 20.0, 20.0, 12.0, 12.0, 8.0],
        kx: [750.0, 750.0, 750.0, 15.0, 15.0, 15.0].map(|k| k * share),
        kxd: [37.0, 37.0, 37.0, 2.0, 2.0, 2.0].map(|k| k * share),
    }
}

/// A smooth way about `from`, at rest at `start_s`.
pub fn way(from: &[f64; 7], start_s: f64, t: f64) -> Waypoint {
    let (size, rate) = (|i: usize| 0.05 + 0.02 * i as f64, |i: usize| 1.5 + 0.3 * i as f64);
    let t = t - start_s;
    Waypoint {
        positions_rad: std::array::from_fn(|i| from[i] + size(i) * (1.0 - (rate(i) * t).cos())),
        velocities_rad_s: std::array::from_fn(|i| size(i) * rate(i) * (rate(i) * t).sin()),
    }
}

pub fn plan_along(
    from: &[f64; 7],
    start_s: f64,
    sequence: i64,
    first_step: i64,
    spacing_steps: u32,
    count: usize,
) -> Plan {
    let at = |k: usize| (first_step + k as i64 * i64::from(spacing_steps)) as f64 * 1e-3;
    Plan {
        session: settings().session,
        sequence,
        first_step,
        spacing_steps,
        waypoints: (0..count).map(|k| way(from, start_s, at(k))).collect(),
    }
}
