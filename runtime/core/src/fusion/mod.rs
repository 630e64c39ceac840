//! From what the cameras saw of a part to a pose one can act on, with its age, its uncertainty and its state.
//!
//! Terms (spec perception.md): the `april` frame is the centre of the base board, z down into the table. A *measurement*
//! is the pose of one part at one instant, solved by vision from all tags of the part in all cameras. A *minimum* is one
//! of the two poses that explain a small planar tag almost equally well; the wrong one is a *flip*. *NIS* and *NEES* are
//! the squared innovation and estimation error in units of their covariance.
//!
//! - [`PartFilter`], the default: an error-state Kalman filter on SE(3) with gates, re-acquisition and states (§6.5).
//! - [`MajorityFilter`], [`GateWithMovingAverage`] and [`MovingAverage`]: what the benchmark and the authors ran, by
//!   name, for comparison (§6.1, §6.2, §6.5.2).
//! - [`PartBoard`]: the parts of a task in the policy's order, written as one observation block (robot_control.md §3.2).
//!
//! Errors of a pose are `[v; ω]` about the part's origin in april axes: p + v, exp(ω) R. Everything here is values in,
//! values out; nothing allocates after construction.

mod average;
mod board;
mod confidence;
mod config;
mod config_check;
mod furniture;
mod gate;
mod held;
mod kalman;
mod low_pass;
mod majority;
mod measurement;
mod minima;
mod part_filter;
mod quaternion;
mod reference;
mod ring;
mod symmetry;
mod systematic;
#[cfg(test)]
mod tests;
mod view;

pub use average::{average_poses, weighted_average_poses};
pub use board::{BoardError, NotReady, PartBoard, PartsBlock};
pub use config::{
    AgeLimits, BoardCorrection, ConstantVelocityConfig, FrozenPart, FusionConfig, FusionMode, GateConfig, GripConfig,
    HeightCorrection, MajorityConfig, MotionConfig, MovingAverageConfig, PartFilterConfig, RandomWalkConfig, SignRule,
    SymmetryReference,
};
pub use furniture::{Furniture, PART_NUMBERS, RESET_JOINTS_RAD, T_robot_april_training};
pub use gate::{GateRefusal, GateWithMovingAverage, TagSighting};
pub use held::{GripperEvent, GripperOutcome};
pub use low_pass::MovingAverage;
pub use majority::MajorityFilter;
pub use measurement::{
    CameraPose, FusionCounts, Missing, Outcome, PartEstimate, PartMeasurement, PartState, Refusal, Why,
};
pub use part_filter::PartFilter;
pub use quaternion::{QuaternionSign, quat_xyzw, quat_xyzw_of_matrix};
pub use reference::ReferencePart;
pub use symmetry::{Branch, Symmetry};
pub use systematic::{MAX_SOURCES, SystematicError};
pub use view::PartsView;
