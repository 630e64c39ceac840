//! The safety stage by itself, asked for everything that nobody should ask for.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tenon_core::arm::Joints;
use tenon_core::config::RobotConfig;
use tenon_core::safety::{SafetyLimits, SafetyStage, Verdict, Wanted};

use super::judge::{Judge, place};
use super::report::Report;

/// What is asked for a while.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// A smooth way about a place, of some size and quickness.
    Smooth {
        about: Joints,
        size_rad: f64,
        rate_hz: f64,
        phase: f64,
    },
    /// Steps from where the arm is.
    Walk {
        step_rad: f64,
    },
    /// One far place after another.
    Jumps,
    /// The ends of the range, at full speed and beyond.
    Ends {
        speed: f64,
    },
    /// The tool point down, whatever is there.
    Down,
    /// Folded onto itself.
    Folded,
    Nothing,
}

/// Commands that go into a stage.
pub struct Trial {
    limits: SafetyLimits,
    period_s: f64,
    longest_stop_s: f64,
    random: ChaCha8Rng,
    stage: SafetyStage,
    judge: Judge,
    asked: Asked,
    left: u32,
    time_s: f64,
    last: Wanted,
    report: Report,
}

impl Trial {
    pub fn new(config: &RobotConfig, seed: u64, episode: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(episode);
        let (arm, limits) = (config.arm(), config.safety_limits());
        let period_s = *[0.001, 0.005, 0.007, 0.02].get(random.random_range(0..4)).unwrap_or(&0.007);
        let anywhere = random.random_bool(0.05);
        let start = place(&arm, &limits, anywhere, |low, high| random.random_range(low..high));
        let stage = SafetyStage::new(arm, limits, period_s, start);
        let longest_stop_s = limits.longest_stop_s();
        Self {
            limits,
            period_s,
            longest_stop_s,
            random,
            stage,
            judge: Judge::new(arm, limits, start),
            asked: Asked::Nothing,
            left: 0,
            time_s: 0.0,
            last: Wanted::still(start),
            report: Report::default(),
        }
    }

    pub fn run(mut self, commands: u64) -> Report {
        for _ in 0..commands {
            self.command();
        }
        self.stop();
        let counts = self.stage.counts;
        let mut report = self.report;
        (report.passed, report.limited, report.refused, report.braked) =
            (counts.passed, counts.limited, counts.refused, counts.braked);
        report
    }

    fn choose(&mut self) {
        let r = &mut self.random;
        let q = self.stage.commanded_rad();
        self.asked = match r.random_range(0..10) {
            0..3 => Asked::Smooth {
                about: std::array::from_fn(|i| q[i] + r.random_range(-0.3..0.3)),
                size_rad: 10f64.powf(r.random_range(-3.0..0.3)),
                rate_hz: 10f64.powf(r.random_range(-1.0..1.0)),
                phase: r.random_range(0.0..6.3),
            },
            3..5 => Asked::Walk { step_rad: 10f64.powf(r.random_range(-4.0..0.0)) },
            5 => Asked::Jumps,
            6 => Asked::Ends { speed: 10f64.powf(r.random_range(-1.0..1.0)) },
            7 => Asked::Down,
            8 => Asked::Folded,
            _ => Asked::Nothing,
        };
        self.left = r.random_range(1..400);
    }

    fn wanted(&mut self) -> Wanted {
        let q = self.stage.commanded_rad();
        let (lower, upper) = (self.limits.joints.lower_rad, self.limits.joints.upper_rad);
        let r = &mut self.random;
        match self.asked {
            Asked::Smooth { about, size_rad, rate_hz, phase } => {
                let way = |i: usize, t: f64| size_rad * (std::f64::consts::TAU * rate_hz * t + phase + i as f64).sin();
                let t = self.time_s;
                let v = |i: usize, t: f64| (way(i, t + 1e-6) - way(i, t - 1e-6)) / 2e-6;
                Wanted {
                    position_rad: std::array::from_fn(|i| about[i] + way(i, t)),
                    velocity_rad_s: std::array::from_fn(|i| v(i, t)),
                    acceleration_rad_s2: std::array::from_fn(|i| (v(i, t + 1e-4) - v(i, t - 1e-4)) / 2e-4),
                }
            }
            Asked::Walk { step_rad } => {
                let speed = step_rad / self.period_s;
                Wanted {
                    position_rad: std::array::from_fn(|i| q[i] + r.random_range(-step_rad..step_rad)),
                    velocity_rad_s: std::array::from_fn(|_| r.random_range(-speed..speed)),
                    acceleration_rad_s2: std::array::from_fn(|_| r.random_range(-speed..speed) * 100.0),
                }
            }
            Asked::Jumps => {
                Wanted::still(std::array::from_fn(|i| r.random_range(2.0 * lower[i]..2.0 * upper[i] + 1e-3)))
            }
            Asked::Ends { speed } => {
                // Toward an end in steps that are no jumps, pushing as hard as it can.
                let up: [bool; 7] = std::array::from_fn(|i| (i + self.left as usize / 200).is_multiple_of(2));
                let sign = |i: usize| if up[i] { 1.0 } else { -1.0 };
                Wanted {
                    position_rad: std::array::from_fn(|i| q[i] + sign(i) * 0.02 * speed),
                    velocity_rad_s: std::array::from_fn(|i| sign(i) * speed),
                    acceleration_rad_s2: std::array::from_fn(|i| sign(i) * 100.0),
                }
            }
            Asked::Down => {
                let mut down = q;
                (down[1], down[3]) = (down[1] + 0.03, down[3] + 0.01);
                Wanted::moving(down, [0.0, 1.5, 0.0, 0.5, 0.0, 0.0, 0.0])
            }
            Asked::Folded => {
                let mut folded = q;
                (folded[3], folded[5]) = (folded[3] - 0.03, folded[5] - 0.02);
                Wanted::moving(folded, [0.0, 0.0, 0.0, -1.5, 0.0, -1.0, 0.0])
            }
            Asked::Nothing => Wanted::still(q),
        }
    }

    fn time(&mut self) -> f64 {
        let r = &mut self.random;
        if r.random_bool(0.97) {
            return self.period_s;
        }
        self.report.odd_times += 1;
        let odd = [
            0.0,
            -self.period_s,
            -1e9,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            1e-12,
            0.3 * self.period_s,
            3.0 * self.period_s,
            7.0 * self.period_s,
        ];
        odd[r.random_range(0..odd.len())]
    }

    fn command(&mut self) {
        if self.left == 0 {
            if self.random.random_bool(0.05) {
                self.stop();
            }
            self.choose();
        }
        self.left -= 1;
        let mut wanted = if self.random.random_bool(0.02) { self.last } else { self.wanted() };
        self.last = wanted;
        if self.random.random_bool(0.01) {
            self.report.not_finite += 1;
            let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN];
            let bad = bad[self.random.random_range(0..bad.len())];
            let joint = self.random.random_range(0..7);
            match self.random.random_range(0..3) {
                0 => wanted.position_rad[joint] = bad,
                1 => wanted.velocity_rad_s[joint] = bad,
                _ => wanted.acceleration_rad_s2[joint] = bad,
            }
        }
        let dt_s = self.time();
        let before = *self.stage.motion();
        let nothing = matches!(self.asked, Asked::Nothing);
        let verdict = if nothing && self.random.random_bool(0.5) {
            self.stage.brake(dt_s);
            None
        } else {
            Some(self.stage.check(&wanted, dt_s))
        };
        self.time_s += self.period_s;
        self.report.commands += 1;
        if let Some(verdict) = verdict {
            self.judge_verdict(&verdict);
        }
        self.judge.motion(&mut self.report, &before, self.stage.motion(), dt_s);
    }

    fn judge_verdict(&mut self, verdict: &Verdict) {
        let commanded = self.stage.commanded_rad();
        if *verdict.joints() != commanded {
            self.report.violate(|| format!("the verdict says {:?}, the stage {commanded:?}", verdict.joints()));
        }
    }

    /// Nothing more is wanted: the arm has to come to rest, in time, and stay.
    fn stop(&mut self) {
        let expected_s = self.stage.time_to_rest_s();
        let mut stopped_s = 0.0;
        while !self.stage.is_at_rest() && stopped_s < 10.0 {
            let before = *self.stage.motion();
            self.stage.brake(self.period_s);
            self.judge.motion(&mut self.report, &before, self.stage.motion(), self.period_s);
            stopped_s += self.period_s;
        }
        let report = &mut self.report;
        report.stops += 1;
        report.longest_stop_s = report.longest_stop_s.max(stopped_s);
        // Whole periods, and a few in which a joint's last bits of velocity are taken away.
        let room_s = 5.0 * self.period_s;
        let limit_s = self.longest_stop_s + room_s;
        if stopped_s > limit_s || stopped_s > expected_s + room_s {
            report.violate(|| {
                format!("{stopped_s:.3} s to rest, {expected_s:.3} s were said, {limit_s:.3} s are allowed")
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::limits::{EPISODE, tests::config};

    /// The judge sees what the stage would do wrong.
    #[test]
    fn a_stage_with_wider_limits_is_found_out() {
        for (widen, name) in [
            (
                Box::new(|l: &mut SafetyLimits| l.max_joint_velocity_rad_s = 2.0) as Box<dyn Fn(&mut SafetyLimits)>,
                "velocity",
            ),
            (Box::new(|l: &mut SafetyLimits| l.joint_reserve_rad = 0.0), "position"),
            (Box::new(|l: &mut SafetyLimits| l.jerk_fraction = 0.9), "jerk"),
            (Box::new(|l: &mut SafetyLimits| l.workspace.max_m[2] = 0.9), "outside"),
            (Box::new(|l: &mut SafetyLimits| l.collision.clearance_m = -0.05), "clearance"),
        ] {
            let mut report = Report::default();
            for episode in 0..12 {
                let mut trial = Trial::new(&config(), 3, episode);
                let mut wider = trial.limits;
                widen(&mut wider);
                trial.stage = SafetyStage::new(config().arm(), wider, trial.period_s, trial.stage.commanded_rad());
                report.add(trial.run(EPISODE));
            }
            assert!(report.violated > 0, "{name}: {}", report.text());
        }
    }
}
