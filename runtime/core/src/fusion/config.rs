//! `[fusion]`: which filter, its numbers, and how the block is written. Everything has a default, the sources' where they
//! have one; a rig's own numbers (frozen parts, height corrections) are none by default.

use serde::{Deserialize, Serialize};

/// Which filter stands between measurements and estimates.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum FusionMode {
    /// [`super::PartFilter`], the default.
    PartFilter(PartFilterConfig),
    /// [`super::MajorityFilter`]: the benchmark (spec perception.md §6.2).
    Majority(MajorityConfig),
    /// [`super::GateWithMovingAverage`] on tags, then the majority filter: the authors' last code (§6.1).
    GateWithMovingAverage(GateConfig),
    /// [`super::MovingAverage`]: the paper's exponential moving average as a low-pass.
    MovingAverage(MovingAverageConfig),
}

impl Default for FusionMode {
    fn default() -> Self {
        Self::PartFilter(PartFilterConfig::default())
    }
}

/// The whole of `[fusion]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FusionConfig {
    pub filter: FusionMode,
    pub ages: AgeLimits,
    pub grip: GripConfig,
    /// A pose older than this is no observation, though it may still be tracked [default: 0.5].
    pub max_age_s: f64,
    /// [default: recalibrated]
    pub board: BoardCorrection,
    /// [default: w_non_negative]
    pub quaternion_sign: SignRule,
    /// Parts whose pose is a constant. The fixture's front bar is always one; an entry here replaces its nominal pose.
    pub frozen: Vec<FrozenPart>,
    /// Parts turned to the branch of their symmetry that is nearest to a reference.
    pub symmetry: Vec<SymmetryReference>,
    /// Parts whose measured height is corrected.
    pub heights: Vec<HeightCorrection>,
}

impl Default for FusionConfig {
    fn default() -> Self {
        Self {
            filter: FusionMode::default(),
            ages: AgeLimits::default(),
            grip: GripConfig::default(),
            max_age_s: 0.5,
            board: BoardCorrection::default(),
            quaternion_sign: SignRule::default(),
            frozen: Vec::new(),
            symmetry: Vec::new(),
            heights: Vec::new(),
        }
    }
}

/// How long a part may go unseen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgeLimits {
    /// From `Tracking` to `Coasting` [default: 0.1, three frames at 30 Hz].
    pub coasting_after_s: f64,
    /// From `Coasting` to `Lost`; nothing is predicted beyond it [default: 0.5].
    pub lost_after_s: f64,
}

impl Default for AgeLimits {
    fn default() -> Self {
        Self { coasting_after_s: 0.1, lost_after_s: 0.5 }
    }
}

/// Parts in the gripper (spec perception.md §6.4).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GripConfig {
    /// A gripped part follows the tool point, its measurements are not used [default: true].
    pub follow: bool,
    /// Fingers closed on a part stay further apart than this (a leg reads 0.0286, a table top's edge 0.0057, nothing 0)
    /// [default: 0.02].
    pub min_width_m: f64,
    /// Furthest that the origin of a gripped part can be from the tool point [default: 0.1].
    pub max_distance_m: f64,
}

impl Default for GripConfig {
    fn default() -> Self {
        Self { follow: true, min_width_m: 0.02, max_distance_m: 0.1 }
    }
}

/// [`super::PartFilter`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PartFilterConfig {
    pub motion: MotionConfig,
    /// Measurements further than this from the prediction are refused [default: 0.05, spec perception.md §6.5].
    pub max_jump_m: f64,
    /// As are those turned by more than this [default: 20° = 0.349].
    pub max_jump_rad: f64,
    /// So many unambiguous raw poses that agree with each other replace the state, wherever they are [default: 5].
    pub reacquire_count: usize,
    /// Distance within which two of them agree [default: 0.01].
    pub reacquire_distance_m: f64,
    /// Angle within which two of them agree [default: 8° = 0.140].
    pub reacquire_rotation_rad: f64,
    /// Gate on the squared Mahalanobis distance of a measurement (χ² with 6 degrees of freedom; no unit)
    /// [default: 27.9, which keeps 99.99 % of the good ones].
    pub max_squared_mahalanobis: f64,
    /// Memory of the mean whitened innovation by which motion is noticed [default: 0.2].
    pub motion_memory_s: f64,
    /// Its squared length, in units of its variance, from which a part moves (χ² with 6 degrees of freedom; no unit)
    /// [default: 40, exceeded at rest about once in two million frames].
    pub motion_threshold: f64,
    /// Every covariance of a measurement is multiplied by this (no unit); more than 1 where views have errors of their own
    /// that no covariance tells, which would pass for motion when other tags come into view [default: 1].
    pub covariance_scale: f64,
    /// Tolerances that `confidence` speaks of [default: 0.005].
    pub confidence_distance_m: f64,
    /// [default: 5° = 0.0873]
    pub confidence_rotation_rad: f64,
}

impl Default for PartFilterConfig {
    fn default() -> Self {
        Self {
            motion: MotionConfig::default(),
            max_jump_m: 0.05,
            max_jump_rad: 20f64.to_radians(),
            reacquire_count: 5,
            reacquire_distance_m: 0.01,
            reacquire_rotation_rad: 8f64.to_radians(),
            max_squared_mahalanobis: 27.9,
            motion_memory_s: 0.2,
            motion_threshold: 40.0,
            covariance_scale: 1.0,
            confidence_distance_m: 0.005,
            confidence_rotation_rad: 5f64.to_radians(),
        }
    }
}

/// How parts move between measurements. Each model has its noise for a part at rest and for one that moves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model", rename_all = "snake_case")]
pub enum MotionConfig {
    /// The pose wanders; nothing is extrapolated. The default.
    RandomWalk(RandomWalkConfig),
    /// The twist is estimated too, and fades; poses are extrapolated to now.
    ConstantVelocity(ConstantVelocityConfig),
}

impl Default for MotionConfig {
    fn default() -> Self {
        Self::RandomWalk(RandomWalkConfig::default())
    }
}

/// Standard deviation gathered in one second, growing with the square root of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomWalkConfig {
    /// [default: 0.0002]
    pub rest_m_per_sqrt_s: f64,
    /// [default: 0.002]
    pub rest_rad_per_sqrt_s: f64,
    /// [default: 0.05: 9 mm in a frame of 33 ms]
    pub moving_m_per_sqrt_s: f64,
    /// [default: 0.5: 5° in a frame of 33 ms]
    pub moving_rad_per_sqrt_s: f64,
}

impl Default for RandomWalkConfig {
    fn default() -> Self {
        Self {
            rest_m_per_sqrt_s: 0.0002,
            rest_rad_per_sqrt_s: 0.002,
            moving_m_per_sqrt_s: 0.05,
            moving_rad_per_sqrt_s: 0.5,
        }
    }
}

/// White acceleration (square root of its spectral density) on a twist that fades exponentially.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConstantVelocityConfig {
    /// [default: 0.0004]
    pub rest_m_s2_per_sqrt_hz: f64,
    /// [default: 0.004]
    pub rest_rad_s2_per_sqrt_hz: f64,
    /// [default: 0.5: speeds of about 0.25 m/s]
    pub moving_m_s2_per_sqrt_hz: f64,
    /// [default: 3: about 1.5 rad/s]
    pub moving_rad_s2_per_sqrt_hz: f64,
    /// Time in which an unobserved twist falls to 37 % [default: 0.5].
    pub velocity_memory_s: f64,
}

impl Default for ConstantVelocityConfig {
    fn default() -> Self {
        Self {
            rest_m_s2_per_sqrt_hz: 0.0004,
            rest_rad_s2_per_sqrt_hz: 0.004,
            moving_m_s2_per_sqrt_hz: 0.5,
            moving_rad_s2_per_sqrt_hz: 3.0,
            velocity_memory_s: 0.5,
        }
    }
}

/// [`super::MajorityFilter`], the benchmark's values (spec perception.md §6.2).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MajorityConfig {
    /// Raw poses kept for each camera [default: 5].
    pub queue_length: usize,
    /// Two poses are dissimilar if a column of their rotation matrices has a smaller cosine (no unit) [default: 0.6].
    pub min_column_cosine: f64,
    /// Or if a coordinate differs by more [default: 0.05].
    pub max_axis_distance_m: f64,
}

impl Default for MajorityConfig {
    fn default() -> Self {
        Self { queue_length: 5, min_column_cosine: 0.6, max_axis_distance_m: 0.05 }
    }
}

/// [`super::GateWithMovingAverage`], the authors' values (spec perception.md §6.1).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GateConfig {
    /// Weight of a new detection in the reference (no unit) [default: 0.25].
    pub alpha: f64,
    /// Calls of the detector, all cameras together, before the gate acts [default: 20].
    pub calls_before_gating: u64,
    /// [default: 0.05]
    pub max_jump_m: f64,
    /// [default: 20° = 0.349]
    pub max_jump_rad: f64,
    /// Bit errors up to which a detection is used [default: 1].
    pub max_hamming: u32,
    /// The filter behind the gate.
    pub majority: MajorityConfig,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            alpha: 0.25,
            calls_before_gating: 20,
            max_jump_m: 0.05,
            max_jump_rad: 20f64.to_radians(),
            max_hamming: 1,
            majority: MajorityConfig::default(),
        }
    }
}

/// [`super::MovingAverage`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MovingAverageConfig {
    /// Weight of a new pose in the average, whatever the time since the last (no unit) [default: 0.25].
    pub alpha: f64,
    /// Where given, the weight is 1 − exp(−Δt/τ) instead, so that the rate does not alter the smoothing [default: none;
    /// 0.1 is about 0.25 at 30 Hz].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_constant_s: Option<f64>,
}

impl Default for MovingAverageConfig {
    fn default() -> Self {
        Self { alpha: 0.25, time_constant_s: None }
    }
}

/// What happens to poses on the board before the policy sees them (spec perception.md §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoardCorrection {
    /// Nothing: the board is taken to lie where it lay in training.
    RawApril,
    /// Moved by the difference between the calibrated board and that of the training layout.
    #[default]
    Recalibrated,
}

/// Which of the two quaternions of a rotation is written (spec robot_control.md §3.3).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "rule", deny_unknown_fields)]
pub enum SignRule {
    /// As in training.
    #[default]
    WNonNegative,
    /// As in training, but near w = 0 the sign stays until |w| exceeds `min_abs_w` (no unit).
    Hysteresis { min_abs_w: f64 },
}

/// A part that is not tracked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrozenPart {
    /// Its name, as in [`super::Furniture::part_names`].
    pub part: String,
    /// In the april frame of the *training* layout: such constants come from training data, so the board's correction does
    /// not apply to them and the quaternion's sign is kept as it is given.
    pub position_m: [f64; 3],
    pub quat_xyzw: [f64; 4],
}

/// The rotation that a symmetric part's branch is chosen by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SymmetryReference {
    pub part: String,
    /// Rotation of the part in the april frame of the training layout, e.g. the mean of the training data.
    pub quat_xyzw: [f64; 4],
    /// A branch is left only for one that is nearer by this much [default: 10° = 0.175].
    #[serde(default = "default_branch_margin_rad")]
    pub margin_rad: f64,
}

fn default_branch_margin_rad() -> f64 {
    10f64.to_radians()
}

/// What is added to the measured height of a part, once, before anything else is done with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeightCorrection {
    pub part: String,
    /// Along april z, which points *down*: the authors' bench had 0.0028 for table top and leg 4 (spec perception.md §6.4).
    pub april_z_m: f64,
}
