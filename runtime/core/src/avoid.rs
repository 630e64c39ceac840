//! The task D3IL Avoid: a Panda moves a rod past three rows of fixed cylinders.
//!
//! Everything that defines the task and needs no physics: scene and start in numbers, which way a path took
//! ([`ModeBits`]), the reward, what counts as success, and which demonstrations belong to M1, M2, M3.
//! Trainer, simulator, report and the deployed evaluation all judge with these functions.
//!
//! Frame: the robot base, which is also the world. Metres, radians. Source: specification of the simulation
//! tasks, section 4 (which re-states Jia et al. 2024, "Towards diverse behaviors", task Avoiding, and the variant
//! that Ren et al. 2024, "Diffusion policy policy optimization", train on).
//!
//! Rows, in the order in which a path meets them (y grows): L1 one cylinder, L2 two, L3 three. A *gap* is a way
//! through a row: 2 × 3 × 4 gaps make the 24 modes.

/// One control step lasts this long, milliseconds (28.6 Hz).
pub const CONTROL_PERIOD_MS: u64 = 35;
/// Physics steps of [`PHYSICS_STEP_S`] in one control step.
pub const PHYSICS_STEPS_PER_CONTROL_STEP: usize = 35;
/// Length of one physics step, seconds.
pub const PHYSICS_STEP_S: f64 = 0.001;
/// Control steps in an episode; it ends by truncation, never by termination.
pub const EPISODE_STEPS: usize = 100;
/// Control steps that a policy plans and executes at a time.
pub const CHUNK_STEPS: usize = 4;
/// Observation: commanded x, y, then measured x, y of the tool point, metres.
pub const OBSERVATION_DIM: usize = 4;
/// Action: increment of the commanded x, y, metres.
pub const ACTION_DIM: usize = 2;

/// Height at which the tool point is commanded, metres; constant.
pub const COMMANDED_HEIGHT_M: f64 = 0.12;
/// Orientation at which the tool point is commanded (wxyz): straight down.
pub const COMMANDED_QUAT_WXYZ: [f64; 4] = [0.0, 1.0, 0.0, 0.0];
/// Where the reset sends the tool point, metres.
pub const START_COMMAND_M: [f64; 3] = [0.525, -0.28, 0.12];
/// Where the tool point is measured after the reset (5 digits), metres.
pub const START_TCP_M: [f64; 3] = [0.52493, -0.27974, 0.12236];
/// Joint positions after the reset, radians.
pub const START_JOINTS_RAD: [f64; 7] = [-0.357465, 0.429419, -0.133806, -2.054596, 0.09265, 2.480722, 0.233332];
/// Joint positions that the controller's null space tends to, radians.
pub const REST_JOINTS_RAD: [f64; 7] = [0.0, 0.174, 0.0, -0.872, 0.0, 1.222, 0.785];

/// A fixed vertical cylinder with its middle at z = 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Obstacle {
    /// Row 1, 2 or 3.
    pub row: u8,
    /// Axis in the base frame, metres.
    pub center_xy_m: [f64; 2],
    pub radius_m: f64,
    pub half_height_m: f64,
}

const fn cylinder(row: u8, x: f64, y: f64, radius_m: f64, half_height_m: f64) -> Obstacle {
    Obstacle { row, center_xy_m: [x, y], radius_m, half_height_m }
}

/// The six cylinders, row by row, x growing within a row.
pub const OBSTACLES: [Obstacle; 6] = [
    cylinder(1, 0.5, -0.1, 0.03, 0.07),
    cylinder(2, 0.425, 0.08, 0.025, 0.1),
    cylinder(2, 0.575, 0.08, 0.025, 0.1),
    cylinder(3, 0.35, 0.26, 0.025, 0.1),
    cylinder(3, 0.5, 0.26, 0.025, 0.1),
    cylinder(3, 0.65, 0.26, 0.025, 0.1),
];

/// Radius of the rod, metres.
pub const ROD_RADIUS_M: f64 = 0.01;
/// Half the rod's length, metres.
pub const ROD_HALF_LENGTH_M: f64 = 0.15;
/// Middle of the rod along the hand's z axis, from the hand body, metres.
pub const ROD_CENTER_FROM_HAND_M: f64 = 0.075;
/// Tool point along the hand's z axis, from the hand body, metres.
pub const TCP_FROM_HAND_M: f64 = 0.105;

/// Table box: centre, metres.
pub const TABLE_CENTER_M: [f64; 3] = [0.4, 0.0, -0.02];
/// Table box: half sizes, metres. Its top is at z = −0.019.
pub const TABLE_HALF_SIZE_M: [f64; 3] = [0.49, 0.98, 0.001];

/// y of the drawn finish line (it has no effect), metres.
pub const FINISH_LINE_Y_M: f64 = 0.35;
/// Beyond this y a step earns the reward for arriving, metres.
pub const GOAL_Y_M: f64 = 0.4;
/// Outside this range of x a step earns [`PENALTY`], metres.
pub const FREE_X_RANGE_M: [f64; 2] = [0.2, 0.8];
/// Reward of a step out of range, and of every step once the rod has touched an obstacle.
pub const PENALTY: f64 = -0.1;
/// Average reward a step that a whole chunk has to reach: bit 5 and y above [`GOAL_Y_M`] in each of its steps.
pub const SUCCESS_THRESHOLD: f64 = 2.0;

/// y of the rows L1, L2, L3, metres.
pub const ROW_Y_M: [f64; 3] = [-0.1, 0.08, 0.26];
/// Half width in y of the window in which the way through L1 and L2 is judged in simulation, metres.
pub const MODE_WINDOW_M: f64 = 0.03;
/// The same for recorded demonstrations, metres.
pub const DEMONSTRATION_WINDOW_M: f64 = 0.01;

/// Number of ways through the three rows together.
pub const MODE_COUNT: usize = 24;

/// The first bit of each row; row r owns bits `ROW_FIRST_BIT[r] .. ROW_FIRST_BIT[r + 1]`.
const ROW_FIRST_BIT: [usize; 4] = [0, 2, 5, 9];

/// Which way a path took through each row: nine bits, latched, at most one a row.
///
/// | row | judged | bits, x growing |
/// |---|---|---|
/// | L1 | first time \|y + 0.1\| ≤ window | 0: x < 0.5, 1: x > 0.5 |
/// | L2 | first time \|y − 0.08\| ≤ window | 2: x < 0.425, 3: between, 4: x > 0.575 |
/// | L3 | first time y ≥ 0.26 | 5: x < 0.35, 6: to 0.5, 7: to 0.65, 8: beyond |
///
/// A point exactly above an obstacle's axis belongs to no gap and leaves the row undecided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModeBits(u16);

impl ModeBits {
    /// Restores bits saved with [`bits`](Self::bits).
    ///
    /// Returns `None` where a row would have two ways or an unknown bit is set.
    pub fn from_bits(bits: u16) -> Option<Self> {
        let known = Self(bits);
        let one_way_each = (0..3).all(|row| known.row_bits(row).count_ones() <= 1);
        (bits < 1 << ROW_FIRST_BIT[3] && one_way_each).then_some(known)
    }

    /// The nine bits, bit 0 lowest.
    pub fn bits(self) -> u16 {
        self.0
    }

    /// Whether bit `index` (0 … 8) is set.
    pub fn is_set(self, index: usize) -> bool {
        index < ROW_FIRST_BIT[3] && self.0 >> index & 1 == 1
    }

    /// Judges a measured tool-point position after the physics of a control step.
    pub fn update(&mut self, x_m: f64, y_m: f64) {
        self.update_with_window(x_m, y_m, MODE_WINDOW_M);
    }

    /// As [`update`](Self::update), with another window (metres) for L1 and L2.
    pub fn update_with_window(&mut self, x_m: f64, y_m: f64, window_m: f64) {
        let reached = [(y_m - ROW_Y_M[0]).abs() <= window_m, (y_m - ROW_Y_M[1]).abs() <= window_m, y_m >= ROW_Y_M[2]];
        for row in 0..3 {
            if reached[row]
                && self.row_bits(row) == 0
                && let Some(gap) = gap_at(row, x_m)
            {
                self.0 |= 1 << (ROW_FIRST_BIT[row] + gap);
            }
        }
    }

    /// The mode, once all three rows are decided.
    pub fn mode(self) -> Option<Mode> {
        let gap = |row| {
            let bits = self.row_bits(row);
            (bits != 0).then(|| bits.trailing_zeros() as u8)
        };
        Some(Mode { gap_l1: gap(0)?, gap_l2: gap(1)?, gap_l3: gap(2)? })
    }

    fn row_bits(self, row: usize) -> u16 {
        let width = ROW_FIRST_BIT[row + 1] - ROW_FIRST_BIT[row];
        self.0 >> ROW_FIRST_BIT[row] & ((1 << width) - 1)
    }
}

/// The gap of a row (0, 1, 2) at `x_m`, counted with growing x; none exactly above an axis or for NaN.
fn gap_at(row: usize, x_m: f64) -> Option<usize> {
    let mut gap = 0;
    for obstacle in OBSTACLES.iter().filter(|o| usize::from(o.row) == row + 1) {
        let axis_x_m = obstacle.center_xy_m[0];
        if x_m > axis_x_m {
            gap += 1;
        } else if x_m < axis_x_m {
            return Some(gap);
        } else {
            return None;
        }
    }
    Some(gap)
}

/// One of the 24 ways through the rows; gaps are counted with growing x.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mode {
    /// 0 or 1: x below or above the cylinder (bits 0, 1).
    pub gap_l1: u8,
    /// 0, 1, 2 (bits 2, 3, 4).
    pub gap_l2: u8,
    /// 0 … 3 (bits 5 … 8).
    pub gap_l3: u8,
}

impl Mode {
    /// The mode with this index, or `None` from [`MODE_COUNT`] on. Index = 12·L1 + 4·L2 + L3.
    pub fn from_index(index: usize) -> Option<Self> {
        (index < MODE_COUNT).then_some(Self {
            gap_l1: (index / 12) as u8,
            gap_l2: (index / 4 % 3) as u8,
            gap_l3: (index % 4) as u8,
        })
    }

    /// 0 … 23.
    pub fn index(self) -> usize {
        12 * usize::from(self.gap_l1) + 4 * usize::from(self.gap_l2) + usize::from(self.gap_l3)
    }

    /// All 24 modes by growing index.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..MODE_COUNT).filter_map(Self::from_index)
    }

    /// The bits that a path of this mode sets.
    pub fn bits(self) -> ModeBits {
        ModeBits(
            1 << self.gap_l1
                | 1 << (ROW_FIRST_BIT[1] as u8 + self.gap_l2)
                | 1 << (ROW_FIRST_BIT[2] as u8 + self.gap_l3),
        )
    }

    /// Range of x (metres) between the surfaces of the cylinders that border the gap of row 1, 2 or 3.
    ///
    /// An outer gap is open: it ends where [`FREE_X_RANGE_M`] does. `None` for another row number.
    pub fn gap_x_range_m(self, row: u8) -> Option<[f64; 2]> {
        let gap = match row {
            1 => self.gap_l1,
            2 => self.gap_l2,
            3 => self.gap_l3,
            _ => return None,
        };
        let mut range_m = FREE_X_RANGE_M;
        for (index, obstacle) in OBSTACLES.iter().filter(|o| o.row == row).enumerate() {
            let axis_x_m = obstacle.center_xy_m[0];
            if index < usize::from(gap) {
                range_m[0] = axis_x_m + obstacle.radius_m;
            } else {
                range_m[1] = range_m[1].min(axis_x_m - obstacle.radius_m);
            }
        }
        Some(range_m)
    }
}

/// The mode of a path of tool-point positions, judged with a window (metres) in y for L1 and L2.
pub fn path_mode_bits(path_xy_m: impl IntoIterator<Item = [f64; 2]>, window_m: f64) -> ModeBits {
    let mut bits = ModeBits::default();
    for [x_m, y_m] in path_xy_m {
        bits.update_with_window(x_m, y_m, window_m);
    }
    bits
}

/// Reward of one control step (variant "m5", used for M1, M2 and M3), of the state before its action.
///
/// `tcp_xy_m`: measured tool point; `touched`: the rod has touched an obstacle at some time in the episode.
pub fn reward(touched: bool, mode_bits: ModeBits, tcp_xy_m: [f64; 2]) -> f64 {
    let [x_m, y_m] = tcp_xy_m;
    let [low_m, high_m] = FREE_X_RANGE_M;
    if touched || !(low_m..=high_m).contains(&x_m) {
        return PENALTY;
    }
    f64::from(u8::from(mode_bits.is_set(5))) + f64::from(u8::from(y_m > GOAL_Y_M))
}

/// Whether a chunk is one of success: every one of its steps earned the full reward of 2.
///
/// An episode succeeds if one of its chunks does. `reward_sum`: over the chunk; `steps`: executed in it.
pub fn chunk_succeeds(reward_sum: f64, steps: usize) -> bool {
    steps > 0 && reward_sum / steps as f64 >= SUCCESS_THRESHOLD
}

/// The three training sets of the paper: L1 on the right, L2 on the left, then two ways through L3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DemonstrationSet {
    /// Ends in bit 5 or 6.
    M1,
    /// Ends in bit 5 or 7.
    M2,
    /// Ends in bit 5 or 8.
    M3,
}

impl DemonstrationSet {
    /// All three.
    pub const ALL: [Self; 3] = [Self::M1, Self::M2, Self::M3];

    /// The two bits of L3 that belong to the set.
    pub fn final_bits(self) -> [usize; 2] {
        match self {
            Self::M1 => [5, 6],
            Self::M2 => [5, 7],
            Self::M3 => [5, 8],
        }
    }

    /// Whether a mode belongs to the set.
    pub fn contains_mode(self, mode: Mode) -> bool {
        let bits = mode.bits();
        bits.is_set(1) && bits.is_set(2) && self.final_bits().iter().any(|&bit| bits.is_set(bit))
    }

    /// Whether a demonstration with this commanded path belongs to the set.
    ///
    /// It is judged on the *commanded* position with [`DEMONSTRATION_WINDOW_M`].
    pub fn contains_path(self, commanded_xy_m: impl IntoIterator<Item = [f64; 2]>) -> bool {
        path_mode_bits(commanded_xy_m, DEMONSTRATION_WINDOW_M).mode().is_some_and(|mode| self.contains_mode(mode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Straight lines through the middle of each gap, one point every millimetre of y.
    fn path_through(mode: Mode) -> Vec<[f64; 2]> {
        (0..700)
            .map(|step| {
                let y_m = -0.28 + 0.001 * f64::from(step);
                let row = if y_m < -0.02 {
                    1
                } else if y_m < 0.17 {
                    2
                } else {
                    3
                };
                let [low, high] = mode.gap_x_range_m(row).unwrap();
                [0.5 * (low + high), y_m]
            })
            .collect()
    }

    #[test]
    fn every_mode_is_recognised_from_a_path_through_its_gaps() {
        let mut seen = std::collections::HashSet::new();
        for mode in Mode::all() {
            let bits = path_mode_bits(path_through(mode), MODE_WINDOW_M);
            assert_eq!(bits, mode.bits());
            assert_eq!(bits.mode(), Some(mode));
            assert_eq!(Mode::from_index(mode.index()), Some(mode));
            assert!(seen.insert(mode));
        }
        assert_eq!(seen.len(), MODE_COUNT);
        assert_eq!(Mode::from_index(MODE_COUNT), None);
    }

    #[test]
    fn first_crossing_of_a_row_decides() {
        let mut bits = ModeBits::default();
        bits.update(0.6, -0.1);
        bits.update(0.4, -0.1);
        assert!(bits.is_set(1) && !bits.is_set(0));
        bits.update(0.3, 0.27);
        bits.update(0.7, 0.27);
        assert!(bits.is_set(5) && !bits.is_set(8));
        assert_eq!(bits.mode(), None, "L2 was never crossed in its window");
    }

    #[test]
    fn windows_are_inclusive_and_rows_independent() {
        let mut bits = ModeBits::default();
        bits.update(0.4, -0.1 - MODE_WINDOW_M - 1e-9);
        assert_eq!(bits.bits(), 0);
        bits.update(0.5, -0.1);
        assert_eq!(bits.bits(), 0, "exactly above the axis is no way through");
        bits.update(f64::NAN, f64::NAN);
        assert_eq!(bits.bits(), 0);
        bits.update(0.5, 0.08);
        assert!(bits.is_set(3));
        bits.update(0.45, 0.26);
        assert!(bits.is_set(6));
        bits.update(0.4, -0.13 + 1e-12);
        assert!(bits.is_set(0), "a path may return to a row it missed");
    }

    #[test]
    fn bits_survive_a_round_trip_and_nonsense_is_refused() {
        for mode in Mode::all() {
            assert_eq!(ModeBits::from_bits(mode.bits().bits()), Some(mode.bits()));
        }
        assert_eq!(ModeBits::from_bits(0b11), None);
        assert_eq!(ModeBits::from_bits(1 << 9), None);
        assert!(!ModeBits::default().is_set(usize::MAX));
    }

    #[test]
    fn reward_follows_the_variant_m5() {
        let mut left = ModeBits::default();
        left.update(0.3, 0.27);
        let none = ModeBits::default();
        assert_eq!(reward(false, none, [0.5, 0.0]), 0.0);
        assert_eq!(reward(false, none, [0.5, 0.41]), 1.0);
        assert_eq!(reward(false, left, [0.3, 0.3]), 1.0);
        assert_eq!(reward(false, left, [0.3, 0.4]), 1.0, "the goal line itself does not count");
        assert_eq!(reward(false, left, [0.3, 0.401]), 2.0);
        assert_eq!(reward(true, left, [0.3, 0.401]), PENALTY);
        assert_eq!(reward(false, left, [0.19, 0.401]), PENALTY);
        assert_eq!(reward(false, left, [0.81, 0.401]), PENALTY);
    }

    #[test]
    fn chunk_succeeds_only_with_full_reward_in_each_step() {
        assert!(chunk_succeeds(8.0, 4));
        assert!(!chunk_succeeds(7.0, 4));
        assert!(chunk_succeeds(2.0, 1));
        assert!(!chunk_succeeds(0.0, 0));
    }

    #[test]
    fn demonstration_sets_hold_two_modes_each() {
        for set in DemonstrationSet::ALL {
            let modes: Vec<_> = Mode::all().filter(|&mode| set.contains_mode(mode)).collect();
            assert_eq!(modes.len(), 2);
            for mode in modes {
                assert!(set.contains_path(path_through(mode)));
                assert_eq!((mode.gap_l1, mode.gap_l2), (1, 0));
            }
        }
        assert!(!DemonstrationSet::M1.contains_path([[0.6, -0.1], [0.4, 0.08]]));
    }

    #[test]
    fn gaps_are_wide_enough_for_the_rod() {
        for mode in Mode::all() {
            for row in 1..=3 {
                let [low, high] = mode.gap_x_range_m(row).unwrap();
                assert!(high - low > 2.0 * ROD_RADIUS_M);
            }
            assert_eq!(mode.gap_x_range_m(4), None);
        }
    }
}
