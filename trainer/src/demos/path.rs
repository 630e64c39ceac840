//! Random smooth paths through the gaps of a mode, with the speed, wobble and tremor of a hand.
//!
//! A path is x over y: monotone cubic pieces (Fritsch & Carlson 1980) through one point a row, plus a slow wobble. The
//! spread of the points and the speeds are those seen in the human demonstrations: a row is crossed within about
//! 2 cm, the commanded point starts after a short rest, reaches its cruising speed within ten steps and slows down at
//! the end.

use rand::Rng;
use tenon_core::avoid::{Mode, ROW_Y_M, START_TCP_M};
use tenon_core::noise::{NoiseSource, SeededNoise};

/// Largest increment of the commanded position in one step and axis, metres (that of the human demonstrations).
pub const MAX_INCREMENT_M: f64 = 0.0125;

/// Middle and standard deviation of x (metres) where a gap is crossed, by bit.
const CROSSING_X_M: [(f64, f64); 9] = [
    (0.431, 0.012),
    (0.585, 0.012),
    (0.352, 0.011),
    (0.500, 0.009),
    (0.654, 0.012),
    (0.290, 0.011),
    (0.425, 0.009),
    (0.575, 0.009),
    (0.712, 0.013),
];
/// First bit of each row.
const ROW_FIRST_BIT: [usize; 3] = [0, 2, 5];
/// Crossings are drawn within this many standard deviations.
const CROSSING_SPREAD: f64 = 2.0;
/// How much a crossing leans towards the next gap, as a share of the way there: whoever knows where to go next does not
/// aim at the middle. So the way a path takes next shows before it has to be decided.
const LEAN: f64 = 0.2;
/// Most that a crossing leans, metres.
const MOST_LEAN_M: f64 = 0.012;
/// Crossings farther apart than this (metres) are joined by a move across in the free band between their rows.
const FAR_ACROSS_M: f64 = 0.12;
/// Distance of that band from the middle of either row, metres.
const CLEAR_OF_ROW_M: f64 = 0.05;
/// Share of the way across that lies outside the band, on either side.
const FAR_SHARE: f64 = 0.1;
/// y at which a path ends, metres: a whole chunk lies beyond the goal line, and fine-tuning has room around it.
const END_Y_M: [f64; 2] = [0.490, 0.520];
/// Cruising speed along the path, metres a step.
const SPEED_M: [f64; 2] = [0.0135, 0.0175];
/// Steps of rest at the start.
const REST_STEPS: [usize; 2] = [0, 1];
/// Steps until the cruising speed is reached.
const RAMP_STEPS: [f64; 2] = [3.0, 8.0];
/// Length of the final braking, metres.
const BRAKE_M: f64 = 0.03;
/// Slowest motion while braking, as a share of the cruising speed.
const BRAKE_FLOOR: f64 = 0.25;
/// Steps at rest at the end.
const HOLD_STEPS: [usize; 2] = [1, 3];
/// Amplitude of each wave of the wobble, metres.
const WOBBLE_M: f64 = 0.0025;
/// Standard deviation of the tremor of the commanded point, metres.
const TREMOR_M: [f64; 2] = [0.0001, 0.0005];

/// A path that one demonstration follows.
#[derive(Debug, Clone)]
pub struct ScriptedPath {
    curve: MonotoneCubic,
    wobble: [Wave; 3],
    speed_wave: Wave,
    speed_m: f64,
    rest_steps: usize,
    ramp_steps: f64,
    hold_steps: usize,
    tremor_m: f64,
    end_y_m: f64,
}

/// amplitude · sin(rate · y + phase)
#[derive(Debug, Clone, Copy)]
struct Wave {
    amplitude: f64,
    rate: f64,
    phase: f64,
}

impl Wave {
    fn draw(noise: &mut SeededNoise, amplitude: f64, wavelength_m: [f64; 2]) -> Self {
        let rng = noise.rng();
        Self {
            amplitude: amplitude * rng.random_range(0.3..1.0),
            rate: std::f64::consts::TAU / rng.random_range(wavelength_m[0]..wavelength_m[1]),
            phase: rng.random_range(0.0..std::f64::consts::TAU),
        }
    }

    fn at(&self, y: f64) -> f64 {
        self.amplitude * (self.rate * y + self.phase).sin()
    }
}

impl ScriptedPath {
    /// Draws a path of the given mode.
    pub fn draw(mode: Mode, noise: &mut SeededNoise) -> Self {
        let gaps = [mode.gap_l1, mode.gap_l2, mode.gap_l3];
        let mut knots = vec![[START_TCP_M[1], START_TCP_M[0]]];
        let crossing = |row: usize| CROSSING_X_M[ROW_FIRST_BIT[row] + usize::from(gaps[row])];
        for row in 0..3 {
            let (middle_m, deviation_m) = crossing(row);
            // Beside the open side of the second row only: elsewhere there is no room for it.
            let leans = row == 1 && gaps[1] != 1;
            let lean_m = if leans { LEAN * (crossing(2).0 - middle_m) } else { 0.0 };
            let lean_m = lean_m.clamp(-MOST_LEAN_M, MOST_LEAN_M);
            let x_m = middle_m + lean_m + bounded_normal(noise, deviation_m);
            let before_m = knots[knots.len() - 1][1];
            let across_m = x_m - before_m;
            if row > 0 && across_m.abs() > FAR_ACROSS_M {
                knots.push([ROW_Y_M[row - 1] + CLEAR_OF_ROW_M, before_m + FAR_SHARE * across_m]);
                knots.push([ROW_Y_M[row] - CLEAR_OF_ROW_M, x_m - FAR_SHARE * across_m]);
            }
            knots.push([ROW_Y_M[row], x_m]);
        }
        let last_x_m = knots[knots.len() - 1][1];
        let end_y_m = noise.rng().random_range(END_Y_M[0]..END_Y_M[1]);
        knots.push([0.36, last_x_m + bounded_normal(noise, 0.008)]);
        knots.push([end_y_m + 0.02, last_x_m + bounded_normal(noise, 0.012)]);
        let wobble = std::array::from_fn(|_| Wave::draw(noise, WOBBLE_M, [0.12, 0.5]));
        let speed_wave = Wave::draw(noise, 0.12, [0.2, 0.6]);
        let rng = noise.rng();
        Self {
            curve: MonotoneCubic::through(knots),
            wobble,
            speed_wave,
            speed_m: rng.random_range(SPEED_M[0]..SPEED_M[1]),
            rest_steps: rng.random_range(REST_STEPS[0]..=REST_STEPS[1]),
            ramp_steps: rng.random_range(RAMP_STEPS[0]..RAMP_STEPS[1]),
            hold_steps: rng.random_range(HOLD_STEPS[0]..=HOLD_STEPS[1]),
            tremor_m: rng.random_range(TREMOR_M[0]..TREMOR_M[1]),
            end_y_m,
        }
    }

    /// Commanded points to aim at, one a step, from the first step on; at most `most` of them.
    pub fn targets(&self, most: usize, noise: &mut SeededNoise) -> Vec<[f64; 2]> {
        let mut targets = Vec::with_capacity(most);
        let mut y_m = START_TCP_M[1];
        let mut held = 0;
        while targets.len() < most && held <= self.hold_steps {
            let steps_moving = targets.len().saturating_sub(self.rest_steps) as f64;
            let moves = targets.len() >= self.rest_steps;
            let left_m = self.end_y_m - y_m;
            if moves && left_m > 0.002 {
                let ramp = smooth(((steps_moving + 1.0) / self.ramp_steps).min(1.0));
                let brake = (left_m / BRAKE_M).clamp(BRAKE_FLOOR, 1.0);
                let slope = self.slope(y_m);
                let norm = slope.hypot(1.0);
                let wanted = self.speed_m * ramp * brake * (1.0 + self.speed_wave.at(y_m));
                let allowed = MAX_INCREMENT_M * norm / slope.abs().max(1.0);
                y_m += wanted.min(allowed) / norm;
            } else if moves {
                held += 1;
            }
            let mut tremor = [0.0; 2];
            if moves {
                noise.fill_standard_normal(&mut tremor);
            }
            targets
                .push([self.x(y_m) + self.tremor_m * f64::from(tremor[0]), y_m + self.tremor_m * f64::from(tremor[1])]);
        }
        targets
    }

    fn x(&self, y_m: f64) -> f64 {
        // The wobble fades in, so that every path begins where the arm stands.
        let fade = smooth(((y_m - START_TCP_M[1]) / 0.08).clamp(0.0, 1.0));
        self.curve.at(y_m) + fade * self.wobble.iter().map(|wave| wave.at(y_m)).sum::<f64>()
    }

    fn slope(&self, y_m: f64) -> f64 {
        const H: f64 = 1e-4;
        (self.x(y_m + H) - self.x(y_m)) / H
    }
}

fn smooth(share: f64) -> f64 {
    share * share * (3.0 - 2.0 * share)
}

fn bounded_normal(noise: &mut SeededNoise, deviation: f64) -> f64 {
    let mut z = [0.0];
    noise.fill_standard_normal(&mut z);
    deviation * f64::from(z[0]).clamp(-CROSSING_SPREAD, CROSSING_SPREAD)
}

/// Cubic Hermite pieces whose slopes never overshoot the knots (harmonic mean of neighbouring secants).
#[derive(Debug, Clone)]
struct MonotoneCubic {
    /// (abscissa, value), growing.
    knots: Vec<[f64; 2]>,
    slopes: Vec<f64>,
}

impl MonotoneCubic {
    fn through(knots: Vec<[f64; 2]>) -> Self {
        let secants: Vec<f64> = knots.windows(2).map(|k| (k[1][1] - k[0][1]) / (k[1][0] - k[0][0])).collect();
        let last = secants.len() - 1;
        let slopes = (0..knots.len())
            .map(|i| match i {
                0 => 0.5 * secants[0],
                i if i > last => secants[last],
                i if secants[i - 1] * secants[i] <= 0.0 => 0.0,
                i => 2.0 * secants[i - 1] * secants[i] / (secants[i - 1] + secants[i]),
            })
            .collect();
        Self { knots, slopes }
    }

    fn at(&self, t: f64) -> f64 {
        let piece = self.knots[1..self.knots.len() - 1].iter().take_while(|knot| knot[0] <= t).count();
        let ([t0, v0], [t1, v1]) = (self.knots[piece], self.knots[piece + 1]);
        let (width, u) = (t1 - t0, (t - t0) / (t1 - t0));
        let (u2, u3) = (u * u, u * u * u);
        (2.0 * u3 - 3.0 * u2 + 1.0) * v0
            + (u3 - 2.0 * u2 + u) * width * self.slopes[piece]
            + (3.0 * u2 - 2.0 * u3) * v1
            + (u3 - u2) * width * self.slopes[piece + 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_meets_its_knots_and_never_overshoots_them() {
        let knots = vec![[0.0, 1.0], [0.3, 2.0], [0.5, 2.1], [1.0, -1.0]];
        let curve = MonotoneCubic::through(knots.clone());
        for [t, v] in knots {
            assert!((curve.at(t) - v).abs() < 1e-12);
        }
        for i in 0..=1000 {
            let t = f64::from(i) / 1000.0;
            assert!((-1.0 - 1e-12..=2.1 + 1e-12).contains(&curve.at(t)));
        }
    }

    #[test]
    fn paths_start_at_the_arm_and_end_beyond_the_goal() {
        for mode in Mode::all() {
            let mut noise = SeededNoise::new(1, mode.index() as u64);
            let path = ScriptedPath::draw(mode, &mut noise);
            let targets = path.targets(200, &mut noise);
            let (first, last) = (targets[0], targets[targets.len() - 1]);
            assert!(
                (first[0] - START_TCP_M[0]).abs() < 0.005 && (first[1] - START_TCP_M[1]).abs() < 0.005,
                "{first:?}"
            );
            assert!(last[1] > 0.45 && targets.len() < 200, "{mode:?}: {} steps to {last:?}", targets.len());
        }
    }
}
