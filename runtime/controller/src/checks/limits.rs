//! `tenon test limits`: whatever is asked of the safety stage, what it commands keeps every limit.
//!
//! Streams of commands as nobody should send them go into the stage that is the last before every command: smooth ways, jumps,
//! ends of the range at full speed, into the table, into itself, values that are no numbers, time that stands still, runs back,
//! skips, or is no number, doubled and late commands. What comes out is judged by this file alone, which knows the limits but nothing
//! of how the stage keeps them; and again and again nothing more is wanted, and the arm has to come to rest inside them in time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tenon_core::arm::{Arm, Joints};
use tenon_core::config::RobotConfig;
use tenon_core::safety::{Collision, JointMotion, SafetyLimits, SafetyStage, Verdict, Wanted, collision};

/// Sums of floating point numbers may be off by this part of a limit.
const ROUNDING: f64 = 1e-6;
/// The same for distances, m.
const ROUNDING_M: f64 = 1e-6;
/// A place that is near to nothing: what is nearer than allowed is nearer than here.
const FREE_RAD: Joints = [0.0, -0.3, 0.0, -2.2, 0.0, 2.0, 0.8];
/// From full speed on the FER (the requirement); other models take what their limits allow.
pub const LONGEST_STOP_S: f64 = 0.35;

/// What was generated, and what was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub commands: u64,
    pub passed: u64,
    pub limited: u64,
    pub refused: u64,
    pub braked: u64,
    pub not_finite: u64,
    pub odd_times: u64,
    pub stops: u64,
    /// Largest part of each limit that was used; at most 1 where it holds.
    pub position: f64,
    pub velocity: f64,
    pub acceleration: f64,
    pub jerk: f64,
    /// Farthest that the tool point was commanded outside the box (or outside where it began), m.
    pub outside_m: f64,
    /// Nearest that bodies came to each other or to the table, below the clearance, m.
    pub too_near_m: f64,
    pub longest_stop_s: f64,
    /// The first violations, in words.
    pub violations: Vec<String>,
    pub violated: u64,
    pub seconds: f64,
}

impl Report {
    fn add(&mut self, other: Self) {
        for (mine, theirs) in [
            (&mut self.commands, other.commands),
            (&mut self.passed, other.passed),
            (&mut self.limited, other.limited),
            (&mut self.refused, other.refused),
            (&mut self.braked, other.braked),
            (&mut self.not_finite, other.not_finite),
            (&mut self.odd_times, other.odd_times),
            (&mut self.stops, other.stops),
            (&mut self.violated, other.violated),
        ] {
            *mine += theirs;
        }
        for (mine, theirs) in [
            (&mut self.position, other.position),
            (&mut self.velocity, other.velocity),
            (&mut self.acceleration, other.acceleration),
            (&mut self.jerk, other.jerk),
            (&mut self.outside_m, other.outside_m),
            (&mut self.too_near_m, other.too_near_m),
            (&mut self.longest_stop_s, other.longest_stop_s),
        ] {
            *mine = mine.max(theirs);
        }
        self.violations.extend(other.violations);
        self.violations.truncate(MOST_TOLD);
    }

    fn violate(&mut self, what: impl FnOnce() -> String) {
        self.violated += 1;
        if self.violations.len() < MOST_TOLD {
            self.violations.push(what());
        }
    }

    /// As text for a person.
    pub fn text(&self) -> String {
        let percent = |part: f64| part * 100.0;
        let mut text = format!(
            "{} commands in {:.0} s: {} passed, {} limited, {} refused, {} braked; {} with values that are no numbers, {} with odd times\n\
             largest part of a limit: position {:.2} %, velocity {:.2} %, acceleration {:.2} %, jerk {:.2} %\n\
             tool point outside the box by at most {:.3} mm; bodies nearer than allowed by at most {:.3} mm\n\
             {} stops, the longest {:.3} s\n",
            self.commands,
            self.seconds,
            self.passed,
            self.limited,
            self.refused,
            self.braked,
            self.not_finite,
            self.odd_times,
            percent(self.position),
            percent(self.velocity),
            percent(self.acceleration),
            percent(self.jerk),
            self.outside_m * 1e3,
            self.too_near_m * 1e3,
            self.stops,
            self.longest_stop_s,
        );
        for violation in &self.violations {
            text.push_str(&format!("VIOLATED: {violation}\n"));
        }
        text.push_str(&match self.violated {
            0 => "every limit was kept\n".to_owned(),
            n => format!("{n} limits were not kept\n"),
        });
        text
    }
}

const MOST_TOLD: usize = 10;
/// Commands of one stage before a new one begins elsewhere.
const EPISODE: u64 = 20_000;

/// Runs `commands` commands on `threads` threads. `progress` is called with what has been done, now and then.
pub fn run(config: &RobotConfig, commands: u64, seed: u64, threads: usize, progress: impl Fn(u64) + Sync) -> Report {
    let begin = Instant::now();
    let next = AtomicU64::new(0);
    let done = AtomicU64::new(0);
    let episodes = commands.div_ceil(EPISODE);
    let mut report = Report::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1))
            .map(|_| {
                scope.spawn(|| {
                    let mut report = Report::default();
                    loop {
                        let episode = next.fetch_add(1, Ordering::Relaxed);
                        if episode >= episodes {
                            return report;
                        }
                        // Each has its own stream, so the number of threads changes nothing.
                        let count = EPISODE.min(commands - episode * EPISODE);
                        report.add(Trial::new(config, seed, episode).run(count));
                        progress(done.fetch_add(count, Ordering::Relaxed) + count);
                    }
                })
            })
            .collect();
        for worker in workers {
            match worker.join() {
                Ok(found) => report.add(found),
                Err(_) => report.violate(|| "the stage panicked; its message stands above".to_owned()),
            }
        }
    });
    report.seconds = begin.elapsed().as_secs_f64();
    report
}

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

struct Trial {
    arm: Arm,
    limits: SafetyLimits,
    period_s: f64,
    longest_stop_s: f64,
    random: ChaCha8Rng,
    stage: SafetyStage,
    start: Joints,
    /// How far outside the box the tool point was at the start, m.
    outside_at_start_m: f64,
    asked: Asked,
    left: u32,
    time_s: f64,
    last: Wanted,
    report: Report,
}

impl Trial {
    fn new(config: &RobotConfig, seed: u64, episode: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(episode);
        let (arm, limits) = (config.arm(), config.safety_limits());
        let period_s = *[0.001, 0.005, 0.007, 0.02].get(random.random_range(0..4)).unwrap_or(&0.007);
        let start = Self::start(&arm, &limits, &mut random);
        let stage = SafetyStage::new(arm, limits, period_s, start);
        let outside_at_start_m = outside_m(&limits, &arm, &start);
        let longest_stop_s = limits.longest_stop_s();
        Self {
            arm,
            limits,
            period_s,
            longest_stop_s,
            random,
            stage,
            start,
            outside_at_start_m,
            asked: Asked::Nothing,
            left: 0,
            time_s: 0.0,
            last: Wanted::still(start),
            report: Report::default(),
        }
    }

    /// A place in the box that touches nothing; now and then one that is outside.
    fn start(arm: &Arm, limits: &SafetyLimits, random: &mut ChaCha8Rng) -> Joints {
        let anywhere = random.random_bool(0.05);
        for _ in 0..2000 {
            let q: Joints =
                std::array::from_fn(|i| random.random_range(limits.joints.lower_rad[i]..limits.joints.upper_rad[i]));
            if collision(arm, &q, &FREE_RAD, &limits.collision).is_none()
                && (anywhere || outside_m(limits, arm, &q) == 0.0)
            {
                return q;
            }
        }
        FREE_RAD
    }

    fn run(mut self, commands: u64) -> Report {
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
                let up: [bool; 7] = std::array::from_fn(|i| (i + self.left as usize / 200) % 2 == 0);
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
        self.judge(&before, dt_s);
    }

    fn judge_verdict(&mut self, verdict: &Verdict) {
        let commanded = self.stage.commanded_rad();
        if *verdict.joints() != commanded {
            self.report.violate(|| format!("the verdict says {:?}, the stage {commanded:?}", verdict.joints()));
        }
    }

    /// What is commanded now, after `before`, `dt_s` later.
    fn judge(&mut self, before: &[JointMotion; 7], dt_s: f64) {
        let now = *self.stage.motion();
        let passed_s = if dt_s.is_finite() { dt_s.max(0.0) } else { 0.0 };
        let report = &mut self.report;
        for i in 0..7 {
            let (b, n) = (&before[i], &now[i]);
            if !n.is_finite() {
                report.violate(|| format!("joint {}: {n:?} is not finite", i + 1));
                continue;
            }
            let bounds = self.limits.bounds(i);
            let (low, high) = (bounds.lower_rad.min(self.start[i]), bounds.upper_rad.max(self.start[i]));
            let (middle, half) = (0.5 * (low + high), 0.5 * (high - low));
            let part = |name: &str, largest: &mut f64, part: f64, rounding: f64| {
                *largest = largest.max(part);
                (part > 1.0 + rounding).then(|| format!("joint {}: {name} at {:.6} of its limit", i + 1, part))
            };
            let found = [
                part("position", &mut report.position, (n.position_rad - middle).abs() / half, 1e-9),
                part("velocity", &mut report.velocity, n.velocity_rad_s.abs() / bounds.velocity_rad_s, ROUNDING),
                part(
                    "acceleration",
                    &mut report.acceleration,
                    n.acceleration_rad_s2.abs() / bounds.acceleration_rad_s2,
                    ROUNDING,
                ),
                (passed_s > 1e-9)
                    .then(|| {
                        let jerk = (n.acceleration_rad_s2 - b.acceleration_rad_s2).abs() / passed_s;
                        part("jerk", &mut report.jerk, jerk / bounds.jerk_rad_s3, 1e-4)
                    })
                    .flatten(),
                // The positions themselves must not move faster than their velocities say.
                (passed_s > 1e-9)
                    .then(|| {
                        let mean = (n.position_rad - b.position_rad).abs() / passed_s;
                        part("mean velocity", &mut 0.0, mean / bounds.velocity_rad_s, ROUNDING)
                    })
                    .flatten(),
                (passed_s == 0.0 && n != b).then(|| format!("joint {} moved in no time", i + 1)),
            ];
            for what in found.into_iter().flatten() {
                report.violate(|| what);
            }
        }
        let q = now.map(|m| m.position_rad);
        let outside = outside_m(&self.limits, &self.arm, &q) - self.outside_at_start_m;
        report.outside_m = report.outside_m.max(outside);
        if outside > ROUNDING_M {
            report.violate(|| format!("the tool point is {:.4} mm outside the box", outside * 1e3));
        }
        if let Some(found) = collision(&self.arm, &q, &FREE_RAD, &self.limits.collision) {
            let (Collision::Table { distance_m, limit_m, .. } | Collision::Bodies { distance_m, limit_m, .. }) = found;
            report.too_near_m = report.too_near_m.max(limit_m - distance_m);
            if limit_m - distance_m > ROUNDING_M {
                report.violate(|| found.to_string());
            }
        }
    }

    /// Nothing more is wanted: the arm has to come to rest, in time, and stay.
    fn stop(&mut self) {
        let expected_s = self.stage.time_to_rest_s();
        let mut stopped_s = 0.0;
        while !self.stage.is_at_rest() && stopped_s < 10.0 {
            let before = *self.stage.motion();
            self.stage.brake(self.period_s);
            self.judge(&before, self.period_s);
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

/// How far the tool point is outside the box, m.
fn outside_m(limits: &SafetyLimits, arm: &Arm, q: &Joints) -> f64 {
    let p = arm.tcp(q).translation.vector;
    let (low, high) = (limits.workspace.min_m, limits.workspace.max_m);
    (0..3).map(|axis| (low[axis] - p[axis]).max(p[axis] - high[axis])).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> RobotConfig {
        tenon_core::config::parse("robot.toml", include_str!("../../../../configs/robot.toml")).unwrap()
    }

    #[test]
    fn no_limit_is_exceeded_and_threads_change_nothing() {
        let report = run(&config(), 400_000, 1, 2, |_| {});
        assert!(report.violated == 0, "{}", report.text());
        assert!(report.longest_stop_s <= LONGEST_STOP_S, "{}", report.text());
        assert!(report.velocity > 0.99 && report.acceleration > 0.99 && report.position > 0.99, "{}", report.text());
        assert!(report.refused > 1000 && report.limited > 1000 && report.passed > 1000, "{}", report.text());
        let again = run(&config(), 400_000, 1, 1, |_| {});
        assert_eq!((again.passed, again.refused, again.stops), (report.passed, report.refused, report.stops));
    }

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
                trial.stage = SafetyStage::new(trial.arm, wider, trial.period_s, trial.start);
                report.add(trial.run(EPISODE));
            }
            assert!(report.violated > 0, "{name}: {}", report.text());
        }
    }
}
