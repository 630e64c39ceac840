//! Simulation on MuJoCo: the binding in one place, the Panda, the tasks, and the batches that a trainer steps.
//!
//! - [`mujoco`]: compiled models and worlds; the only module that names the binding.
//! - [`panda`]: the arm as MJCF text, tool-point kinematics in closed form.
//! - [`batch`]: what a task offers ([`batch::Environment`]) and many of them in threads ([`batch::BatchEnv`]).
//! - [`avoid`]: the task D3IL Avoid; its definition without physics is `tenon_core::avoid`.
//! - [`render`]: pictures of a world, without a window.
//! - [`gym`]: Hopper, Walker2d and HalfCheetah.
//! - [`robomimic`]: Lift, Can, Square and Transport.
//!
//! Observations and actions are in physical units; normalising is the trainer's and the policy's business.

pub mod avoid;
pub mod batch;
mod error;
pub mod gym;
pub mod mujoco;
pub mod panda;
pub mod render;
pub mod robomimic;
pub mod saved_state;
pub mod server;
pub mod speed;

pub use error::SimError;
