//! Where the cameras stand, from the base board and, where the arm may move, from tags in the gripper (eye to hand).
//!
//! Frames: `base` is the robot's base as soon as a view shows the gripper's tags with the arm's pose; without any it is the
//! base board itself (`april`), because then nothing ties the board to the robot. One problem holds all cameras at once:
//!
//! ```text
//! board view   u = π_c( T_base_camera⁻¹ · T_base_board · s_b p )
//! hand view    u = π_c( T_base_camera⁻¹ · T_base_hand(k) · T_hand_tag · s_h p )
//! ```
//!
//! Closed forms ([`hand_eye`]) start it (`start`), [`bundle`] refines all poses and the tags' true size on pixels, and the residuals
//! give the noise, from which every number has its standard deviation. [`board`] names swapped and turned tags,
//! [`observability`] says which pose of the arm to add next.

pub mod board;
pub mod bundle;
pub mod hand_eye;
pub mod observability;
mod problem;
mod solve;
mod start;

pub use problem::{Body, Layout, Problem, View};
pub use solve::{
    BadView, CameraPlace, ExtrinsicsError, Scale, Solution, SolveSettings, TooFew, ViewResidual, calibrate,
};
