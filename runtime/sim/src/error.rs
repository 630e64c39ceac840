//! Errors of the simulation library.

use std::path::PathBuf;

/// What can go wrong while a simulation is built, driven or restored.
///
/// Trouble *inside* a running episode (a NaN action, an unstable state) is no error of this kind: it ends that
/// environment's episode with an [`EnvironmentFault`](crate::batch::EnvironmentFault).
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    #[error(
        "the libmujoco.so that was loaded is version {found}, this program needs {needed}: run `make setup` again and \
         look for another libmujoco.so in LD_LIBRARY_PATH"
    )]
    WrongMujocoVersion { found: i32, needed: u32 },
    #[error("MuJoCo cannot compile the model: {message}")]
    ModelCompile { message: String },
    #[error("the model has no {kind} named \"{name}\"")]
    UnknownName { kind: &'static str, name: String },
    #[error(
        "a batch of {environments} environments needs {expected} action values \
         ([environments, chunk {chunk_steps}, action {action_dim}]), got {found}"
    )]
    ActionShape { environments: usize, chunk_steps: usize, action_dim: usize, expected: usize, found: usize },
    #[error("bad batch options: {message}")]
    BatchOptions { message: String },
    #[error("cannot start {threads} simulation threads: {message}")]
    Threads { threads: usize, message: String },
    #[error(
        "unknown Gym task \"{name}\": say hopper, walker2d or halfcheetah, where wanted with a version (-v2, -v4 or -v5)"
    )]
    UnknownGymTask { name: String },
    #[error("{file} is not in {places}: run `make setup`, or name the folder of the Gym models with {variable}")]
    GymModelMissing { file: &'static str, places: String, variable: &'static str },
    #[error("{}: {message}: run `make setup`, or name another folder with {variable}", path.display())]
    GymModel { path: PathBuf, message: String, variable: &'static str },
    #[error("the saved state of {what} does not fit: {message}; it was written by another task, version or batch size")]
    SavedState { what: &'static str, message: String },
}
