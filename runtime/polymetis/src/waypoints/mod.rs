//! Tenon's own controller: the joint-impedance law fed by a short buffer of timed waypoints.
//!
//! The stock laws know one target and no velocity for it, so a moving target is followed late by `Kd/Kp` seconds and every
//! jitter of the network reaches the motors. This law runs in the server's 1 kHz loop and interpolates there: one small
//! update ([`Plan`]) carries the next stretch of the way with its velocities, and the arm moves as smoothly as the way,
//! whatever the network does.
//!
//! * **Time base**: the loop's own step counter. Step 0 is the controller's first step, log index `start` of
//!   SetController's answer; UpdateController answers with the log index of the next step, from which [`StepClock`] tells
//!   the present step. A wall clock is never asked.
//! * **Interpolation**: a cubic (Hermite) between waypoints, so positions and velocities are continuous.
//! * **Joining**: a plan is joined from the present *commanded* position and velocity by a cubic to the first of its
//!   waypoints that this can be done to within the acceleration limits. Where a plan continues the last one, that cubic is
//!   the last one's remainder: nothing changes.
//! * **Lost, doubled, reordered, late**: a sequence number not above the last is ignored; a plan that is over is ignored; the
//!   session number keeps updates out that were meant for another controller. A plan begun late is joined where it is now.
//! * **End**: past the last waypoint, and past `patience_steps` without a plan (the dead-man), the arm brakes: the velocity
//!   follows a cubic from its present value and slope to zero and zero, and the arm then rests.
//! * **Refused**: a plan that is not finite, has another shape, or cannot be joined within the limits is not followed; the arm
//!   brakes and the server answers with an error.
//! * **Limits**, whatever the plan says: position range, velocity, acceleration of the command. They make up the last word
//!   of every step. Near a bound the velocity is at most what `acceleration` can still stop.
//! * **Begin**: the first step holds the measured joints. An arm that stands outside the range may stay there or come back.
//!
//! Terms: *commanded* is what the law tracks (q, v below), *measured* what the state says (q_m, v_m).
//!
//! ```text
//! x = min((n − t₀)/d, 1)                  T = d·dt          present piece of the way: cubic, or quartic while braking
//! q_d = c₀ + x(c₁ + x(c₂ + x(c₃ + x·c₄)))
//! v_d = (c₁ + x(2c₂ + x(3c₃ + x·4c₄)))/T
//! e   = q_d − (q + v_d·dt)
//! u   = v_d + sgn(e)·min(|e|/dt, √(2a|e|))                  back onto the way without overshoot
//! u   ← within u₋ ± a·dt, within −√(2a(q − lo)) … √(2a(hi − q)) and ±v_max
//! q  ← within lo … hi: q + u·dt,     v = v_d where q is q_d, else u + (u − u₋)/2
//! τ   = Kq(q − q_m) + Kqd(v − v_m) [ + Jᵀ(Kx·J(q − q_m) + Kxd·J(v − v_m)) + c(q_m, v_m) ]
//!
//! joining cubic:  c₀ = q, c₁ = T·v, c₂ = 3Δ − 2T·v − T·v₁, c₃ = T·v + T·v₁ − 2Δ    (Δ = q₁ − q)
//! braking:        T = max(1.5·max|v|/a_b, shortest),  a₀ = (u − u₋)/dt within ±3|v|/T
//!                 c₀ = q, c₁ = T·v, c₂ = T²a₀/2, c₃ = −T·v − 2T²a₀/3, c₄ = T·v/2 + T²a₀/4
//! ```

mod clock;
mod law;
mod plan;
mod text;

use crate::archive::ArchiveError;

pub use clock::StepClock;
pub use law::{Command, Measured, ModelTerms, Reception, Refusal, WaypointLaw};
pub use plan::{Plan, PlanError, Waypoint};
pub use text::waypoint_controller;

/// Name of the parameter that carries a plan.
pub const PLAN: &str = "plan";
/// Most waypoints of a plan.
pub const MAX_WAYPOINTS: usize = 256;
/// Numbers of a plan stay below this in size; the text of the same number is what the class text says.
const LIMIT_OF_NUMBERS: (f64, &str) = (1e12, "1000000000000.");

/// What the arm is allowed to do, fixed when the controller is uploaded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WaypointSettings {
    /// Range of the commanded joints, with whatever reserve is wanted.
    pub lower_rad: [f64; 7],
    pub upper_rad: [f64; 7],
    pub velocity_rad_s: [f64; 7],
    /// Bound of the command's acceleration, and of joining a plan.
    pub acceleration_rad_s2: [f64; 7],
    /// Mean of the deceleration's peak while braking; at most the acceleration.
    pub braking_rad_s2: [f64; 7],
    /// Rate of the robot client, Hz.
    pub rate_hz: u32,
    /// Steps without a plan after which the arm brakes.
    pub patience_steps: u32,
    /// A waypoint further ahead is not joined.
    pub longest_join_steps: u32,
    /// Braking takes at least this long, however slow the arm is.
    pub shortest_brake_steps: u32,
    /// Number of this upload; a plan says it too.
    pub session: u32,
}

impl WaypointSettings {
    /// Length of a step, s.
    pub fn period_s(&self) -> f64 {
        1.0 / f64::from(self.rate_hz.max(1))
    }

    /// Whether an arm can obey these.
    ///
    /// # Errors
    /// [`ArchiveError::Setting`]
    pub fn check(&self) -> Result<(), ArchiveError> {
        let wrong = |name, what: String| Err(ArchiveError::Setting { name, what });
        for joint in 0..7 {
            let (lower, upper) = (self.lower_rad[joint], self.upper_rad[joint]);
            if !(lower.is_finite() && upper.is_finite() && lower < upper) {
                return wrong("lower_rad", format!("joint {}: {lower} is not below {upper}", joint + 1));
            }
            let (most, braking) = (self.acceleration_rad_s2[joint], self.braking_rad_s2[joint]);
            for (name, value) in [
                ("velocity_rad_s", self.velocity_rad_s[joint]),
                ("acceleration_rad_s2", most),
                ("braking_rad_s2", braking),
            ] {
                if !(value.is_finite() && value > 0.0) {
                    return wrong(name, format!("joint {}: {value} is not positive", joint + 1));
                }
            }
            if braking > most {
                return wrong("braking_rad_s2", format!("joint {}: {braking} is above {most}", joint + 1));
            }
        }
        for (name, steps) in [
            ("rate_hz", self.rate_hz),
            ("patience_steps", self.patience_steps),
            ("longest_join_steps", self.longest_join_steps),
            ("shortest_brake_steps", self.shortest_brake_steps),
        ] {
            if steps == 0 {
                return wrong(name, "must be positive".to_owned());
            }
        }
        Ok(())
    }
}

/// Gains of the law, fixed when the controller is uploaded. Cartesian gains of zero leave the robot model out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gains {
    /// N·m/rad
    pub kq: [f32; 7],
    /// N·m·s/rad
    pub kqd: [f32; 7],
    /// Linear N/m, angular N·m/rad, at the flange
    pub kx: [f32; 6],
    /// Linear N·s/m, angular N·m·s/rad
    pub kxd: [f32; 6],
}

impl Gains {
    /// Whether the law asks the server's robot model, for the Cartesian part and the Coriolis term.
    pub fn uses_model(&self) -> bool {
        self.kx.iter().chain(&self.kxd).any(|&k| k != 0.0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub const Q: [f64; 7] = [0.0, 0.3, 0.1, -2.0, 0.0, 2.4, 0.5];

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
            session: 7,
        }
    }

    pub fn gains() -> Gains {
        Gains {
            kq: [150.0, 120.0, 160.0, 100.0, 110.0, 100.0, 40.0],
            kqd: [20.0, 20.0, 20.0, 20.0, 12.0, 12.0, 8.0],
            kx: [0.0; 6],
            kxd: [0.0; 6],
        }
    }

    /// A smooth way about `Q` with velocities up to 0.6 rad/s; starts at rest.
    pub fn sine(t: f64) -> ([f64; 7], [f64; 7]) {
        let size = |i: usize| 0.1 + 0.03 * i as f64;
        let rate = |i: usize| 1.0 + 0.2 * i as f64;
        (
            std::array::from_fn(|i| Q[i] + size(i) * (1.0 - (rate(i) * t).cos())),
            std::array::from_fn(|i| size(i) * rate(i) * (rate(i) * t).sin()),
        )
    }

    pub fn plan_along(
        way: impl Fn(f64) -> ([f64; 7], [f64; 7]),
        sequence: i64,
        first_step: i64,
        spacing_steps: u32,
        count: usize,
    ) -> Plan {
        let waypoints = (0..count)
            .map(|k| {
                let (positions_rad, velocities_rad_s) =
                    way((first_step + k as i64 * i64::from(spacing_steps)) as f64 * 1e-3);
                Waypoint { positions_rad, velocities_rad_s }
            })
            .collect();
        Plan { session: 7, sequence, first_step, spacing_steps, waypoints }
    }

    struct Run {
        law: WaypointLaw,
        /// Commanded positions and velocities of every step.
        way: Vec<Command>,
    }

    impl Run {
        /// Starts at rest at `Q` and runs one step.
        fn new() -> Self {
            let mut run = Self { law: WaypointLaw::new(&settings(), &gains()), way: Vec::new() };
            run.steps(1);
            run
        }

        fn steps(&mut self, count: usize) {
            for _ in 0..count {
                // A perfect arm: the law's command does not depend on it.
                let last = self.way.last();
                let measured = Measured {
                    positions_rad: last.map_or(Q, |c| c.positions_rad).map(|q| q as f32),
                    velocities_rad_s: last.map_or([0.0; 7], |c| c.velocities_rad_s).map(|v| v as f32),
                };
                self.way.push(self.law.step(&measured, None));
            }
        }

        fn last(&self) -> &Command {
            self.way.last().unwrap()
        }

        /// Largest velocity and acceleration of any joint, from the positions, as shares of the limits.
        fn largest(&self) -> (f64, f64) {
            let s = settings();
            let mut largest = (0.0_f64, 0.0_f64);
            for w in self.way.windows(3) {
                for i in 0..7 {
                    let [a, b, c] = [&w[0], &w[1], &w[2]].map(|c| c.positions_rad[i]);
                    largest.0 = largest.0.max((c - b).abs() / 1e-3 / s.velocity_rad_s[i]);
                    largest.1 = largest.1.max((c - 2.0 * b + a).abs() / 1e-6 / s.acceleration_rad_s2[i]);
                }
            }
            largest
        }
    }

    /// Sends a plan of 8 waypoints 20 ms apart every `every` steps, with what `change` does to it.
    fn follow(run: &mut Run, until: i64, every: i64, mut change: impl FnMut(&mut Plan) -> bool) {
        let mut sequence = 0;
        while run.law.next_step() < until {
            let n = run.law.next_step();
            if n % every == 0 || n == 1 {
                sequence += 1;
                let mut plan = plan_along(sine, sequence, n / 20 * 20, 20, 8);
                if change(&mut plan) {
                    let _ = run.law.update(&plan);
                }
            }
            run.steps(1);
        }
    }

    fn distance_to_sine(run: &Run, step: usize) -> f64 {
        let (q, _) = sine(step as f64 * 1e-3);
        (0..7).map(|i| (q[i] - run.way[step].positions_rad[i]).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn a_plan_is_followed_within_its_interpolation() {
        let mut run = Run::new();
        follow(&mut run, 4000, 20, |_| true);
        let worst = (100..4000).map(|n| distance_to_sine(&run, n)).fold(0.0, f64::max);
        assert!(worst < 2e-7, "{worst}");
        let (velocity, acceleration) = run.largest();
        assert!(velocity < 0.5 && acceleration < 0.2, "{velocity} {acceleration}");
    }

    #[test]
    fn an_update_that_continues_the_plan_changes_nothing() {
        let mut once = Run::new();
        once.law.update(&plan_along(sine, 1, 0, 20, 200)).unwrap();
        let mut often = once.law.clone();
        once.steps(140);
        let mut commands = Vec::new();
        for n in 1..141 {
            // At every possible phase between the waypoints.
            often.update(&plan_along(sine, n + 1, n / 20 * 20, 20, 8)).unwrap();
            let measured = Measured { positions_rad: [0.0; 7], velocities_rad_s: [0.0; 7] };
            commands.push(often.step(&measured, None));
        }
        for (a, b) in once.way[1..].iter().zip(&commands) {
            for i in 0..7 {
                assert!((a.positions_rad[i] - b.positions_rad[i]).abs() < 1e-7);
                assert!((a.velocities_rad_s[i] - b.velocities_rad_s[i]).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn doubled_reordered_and_lost_updates_are_harmless() {
        let mut run = Run::new();
        let mut last: Option<Plan> = None;
        let mut count = 0;
        let mut sequence = 0;
        while run.law.next_step() < 4000 {
            let n = run.law.next_step();
            if n % 20 == 1 {
                sequence += 1;
                count += 1;
                let plan = plan_along(sine, sequence, n / 20 * 20, 20, 8);
                if count % 3 != 0 {
                    run.law.update(&plan).unwrap();
                    assert_eq!(run.law.update(&plan), Ok(Reception::Old), "doubled");
                }
                if let Some(older) = last.replace(plan) {
                    assert_eq!(run.law.update(&older), Ok(Reception::Old), "reordered");
                }
            }
            run.steps(1);
            assert!(run.last().follows);
        }
        let worst = (100..4000).map(|n| distance_to_sine(&run, n)).fold(0.0, f64::max);
        assert!(worst < 2e-7, "{worst}");
    }

    #[test]
    fn silence_brakes_to_rest_within_the_limits_and_a_plan_from_there_goes_on() {
        let mut run = Run::new();
        // One long plan, then nothing: the dead-man ends it, not its last waypoint.
        run.law.update(&plan_along(sine, 1, 0, 20, 100)).unwrap();
        run.steps(151);
        assert!(run.last().follows);
        run.steps(1);
        assert!(!run.last().follows);
        let speed = |c: &Command| c.velocities_rad_s.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        assert!(speed(run.last()) > 0.05);
        run.steps(400);
        assert!(speed(run.last()) < 1e-9, "{}", speed(run.last()));
        let rest = *run.last();
        run.steps(1000);
        for i in 0..7 {
            assert!((run.last().positions_rad[i] - rest.positions_rad[i]).abs() < 1e-12);
        }
        assert_eq!(run.law.update(&plan_along(sine, 1, 1400, 20, 8)), Ok(Reception::Old));
        let n = run.law.next_step();
        let from = run.last().positions_rad;
        let on = |t: f64| {
            (
                from.map(|q| q + 0.05 * (1.0 - (3.0 * (t - n as f64 * 1e-3)).cos())),
                [0.15 * (3.0 * (t - n as f64 * 1e-3)).sin(); 7],
            )
        };
        assert_eq!(run.law.update(&plan_along(on, 2, n, 20, 8)), Ok(Reception::Joined));
        run.steps(100);
        let (q, _) = on((n + 99) as f64 * 1e-3);
        assert!((0..7).all(|i| (run.last().positions_rad[i] - q[i]).abs() < 1e-6));
        let (velocity, acceleration) = run.largest();
        assert!(velocity < 0.5 && acceleration < 0.6, "{velocity} {acceleration}");
    }

    #[test]
    fn braking_is_smooth() {
        let mut run = Run::new();
        run.law.update(&plan_along(sine, 1, 0, 20, 100)).unwrap();
        run.steps(600);
        // Jerk of the command, from third differences; a step of the acceleration by a would show as a/dt.
        let mut largest = 0.0_f64;
        for w in run.way.windows(4) {
            for i in 0..7 {
                let q: [f64; 4] = std::array::from_fn(|k| w[k].positions_rad[i]);
                largest = largest.max((q[3] - 3.0 * q[2] + 3.0 * q[1] - q[0]).abs() / 1e-9);
            }
        }
        assert!(largest < 500.0, "{largest} rad/s³ where the arm's limit is 3750");
    }

    #[test]
    fn a_plan_that_ends_moving_brakes_and_one_that_ends_at_rest_stays_there() {
        let mut run = Run::new();
        run.law.update(&plan_along(sine, 1, 0, 20, 6)).unwrap();
        run.steps(500);
        assert!(!run.last().follows && run.last().velocities_rad_s.iter().all(|v| v.abs() < 1e-9));
        // Minimum jerk from there, ending at rest.
        let (n, from) = (run.law.next_step(), run.last().positions_rad);
        let way = |t: f64| {
            let s = ((t - n as f64 * 1e-3) / 0.4).clamp(0.0, 1.0);
            let (p, v) = (s.powi(3) * (10.0 - 15.0 * s + 6.0 * s * s), 30.0 * s * s * (1.0 - s) * (1.0 - s) / 0.4);
            (from.map(|q| q + 0.1 * p), [0.1 * v; 7])
        };
        run.law.update(&plan_along(way, 2, n, 20, 5)).unwrap();
        for k in 1..5 {
            run.steps(80);
            run.law.update(&plan_along(way, 2 + k, n + 80 * k, 20, 5)).unwrap();
        }
        run.steps(500);
        for i in 0..7 {
            assert!((run.last().positions_rad[i] - from[i] - 0.1).abs() < 1e-6);
        }
    }

    #[test]
    fn what_is_not_finite_is_ignored_and_the_arm_brakes() {
        let mut run = Run::new();
        follow(&mut run, 500, 20, |_| true);
        let mut bad = plan_along(sine, 1000, 480, 20, 8);
        bad.waypoints[7].velocities_rad_s[3] = f64::NAN;
        assert_eq!(run.law.update(&bad), Err(Refusal::NotFinite));
        run.steps(1);
        assert!(!run.last().follows);
        run.steps(300);
        assert!(run.last().velocities_rad_s.iter().all(|v| v.abs() < 1e-9));
        let (_, acceleration) = run.largest();
        assert!(acceleration < 1.0, "{acceleration}");
        assert!(run.way.iter().all(|c| c.torques_nm.iter().all(|t| t.is_finite())));
    }

    #[test]
    fn plans_of_another_session_late_ones_and_far_ones_do_not_move_the_arm() {
        let mut run = Run::new();
        run.steps(300);
        let n = run.law.next_step();
        assert_eq!(run.law.update(&Plan { session: 8, ..plan_along(sine, 1, n, 20, 8) }), Err(Refusal::Session));
        assert_eq!(run.law.update(&plan_along(sine, 2, n - 200, 20, 8)), Ok(Reception::Over));
        assert_eq!(run.law.update(&plan_along(sine, 3, n + 5000, 20, 8)), Err(Refusal::CannotJoin));
        // 0.3 rad away within 160 ms: out of reach.
        let far = |_| (Q.map(|q| q + 0.3), [0.0; 7]);
        assert_eq!(run.law.update(&plan_along(far, 4, n, 20, 8)), Err(Refusal::CannotJoin));
        run.steps(500);
        assert!((0..7).all(|i| (run.last().positions_rad[i] - f64::from(Q[i] as f32)).abs() < 1e-12));
    }

    #[test]
    fn a_plan_beside_the_way_is_joined_gently() {
        let mut run = Run::new();
        follow(&mut run, 1000, 20, |_| true);
        // The next plans are 5 mrad beside: within 20 ms that would take 75 rad/s².
        follow(&mut run, 2000, 20, |plan| {
            plan.sequence += 1000;
            plan.waypoints.iter_mut().for_each(|w| w.positions_rad.iter_mut().for_each(|q| *q += 0.005));
            true
        });
        let (velocity, acceleration) = run.largest();
        assert!(velocity < 0.6 && acceleration <= 1.0 + 1e-6, "{velocity} {acceleration}");
        assert!(run.last().follows);
        assert!((distance_to_sine(&run, 1999) - 0.005).abs() < 1e-4);
    }

    /// Whatever arrives: range, velocity and acceleration of the command hold.
    #[test]
    fn no_plan_breaks_a_limit() {
        let mut seed = 1_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 11) as f64 / (1_u64 << 53) as f64
        };
        let s = settings();
        let mut joined = 0;
        for _ in 0..40 {
            let mut run = Run::new();
            for sequence in 1..200 {
                let n = run.law.next_step();
                let spread = 10_f64.powf(-4.0 * random());
                let q = run.last().positions_rad;
                let waypoints = (0..1 + (random() * 12.0) as usize)
                    .map(|_| Waypoint {
                        positions_rad: std::array::from_fn(|i| q[i] + 4.0 * spread * (random() - 0.5)),
                        velocities_rad_s: std::array::from_fn(|_| 8.0 * spread * (random() - 0.5)),
                    })
                    .collect();
                let plan = Plan {
                    session: 7,
                    sequence,
                    first_step: n + (random() * 100.0) as i64 - 50,
                    spacing_steps: 1 + (random() * 60.0) as u32,
                    waypoints,
                };
                joined += i32::from(run.law.update(&plan) == Ok(Reception::Joined));
                run.steps((random() * 80.0) as usize);
            }
            for c in &run.way {
                for i in 0..7 {
                    assert!(c.positions_rad[i] >= s.lower_rad[i] && c.positions_rad[i] <= s.upper_rad[i]);
                }
            }
            let (velocity, acceleration) = run.largest();
            assert!(velocity <= 1.0 + 1e-6, "{velocity}");
            // Just before a bound the stopping velocity falls a little faster than it can between two steps.
            assert!(acceleration <= 1.6, "{acceleration}");
        }
        assert!(joined > 1000, "{joined}");
    }

    #[test]
    fn an_arm_outside_its_range_may_stay_or_come_back() {
        let mut law = WaypointLaw::new(&settings(), &gains());
        let mut q = Q;
        q[3] = -0.1;
        let measured = Measured { positions_rad: q.map(|x| x as f32), velocities_rad_s: [0.0; 7] };
        let first = law.step(&measured, None);
        assert_eq!((first.torques_nm, first.positions_rad[3]), ([0.0; 7], f64::from(-0.1_f32)));
        let back = |t: f64| {
            let mut at = q;
            at[3] -= 0.5 * t * t;
            let mut v = [0.0; 7];
            v[3] = -t;
            (at, v)
        };
        assert_eq!(law.update(&plan_along(back, 1, 0, 20, 8)), Ok(Reception::Joined));
        for _ in 0..100 {
            law.step(&measured, None);
        }
        let command = law.step(&measured, None);
        assert!(command.positions_rad[3] < -0.104 && command.follows);
    }

    #[test]
    fn settings_that_no_arm_can_obey_are_named() {
        let wrong = |change: &dyn Fn(&mut WaypointSettings)| {
            let mut settings = settings();
            change(&mut settings);
            waypoint_controller(&settings, &gains(), "").unwrap_err().to_string()
        };
        assert!(wrong(&|s| s.lower_rad[2] = 3.0).contains("lower_rad: joint 3"));
        assert!(wrong(&|s| s.velocity_rad_s[0] = 0.0).contains("velocity_rad_s"));
        assert!(wrong(&|s| s.braking_rad_s2[1] = 9.0).contains("braking_rad_s2"));
        assert!(wrong(&|s| s.acceleration_rad_s2[1] = f64::NAN).contains("acceleration_rad_s2"));
        assert!(wrong(&|s| s.patience_steps = 0).contains("patience_steps"));
    }
}
