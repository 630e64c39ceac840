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
    #[error("the model has no camera named \"{name}\": {known}")]
    UnknownCamera { name: String, known: String },
    #[error(
        "this machine cannot draw pictures without a window ({tried}): install the Debian packages libegl1 libegl-mesa0 \
         libgl1-mesa-dri, or libosmesa6"
    )]
    NoGl { tried: String },
    #[error("drawing by {name}: {message}")]
    Gl { name: String, message: String },
    #[error("a picture of {width}×{height} pixels: give 1 to {largest} pixels a side")]
    PictureSize { width: u32, height: u32, largest: u32 },
    #[error("a buffer of {found} bytes for pictures that have {expected}")]
    PictureBuffer { expected: usize, found: usize },
    #[error("view {view} of {views}: the renderer was made for fewer")]
    UnknownView { view: usize, views: usize },
    #[error(
        "the renderer was made for another model (other meshes, textures or cameras) than that of the world: make one for \
         each of them"
    )]
    OtherModel,
    #[error("the task has no world that can be drawn")]
    NothingToDraw,
    #[error("the memory does not suffice for a copy of the model to draw from")]
    ModelCopy,
    #[error("unknown Robomimic task \"{name}\": say lift, can, square or transport")]
    UnknownRobomimicTask { name: String },
    #[error("{file} is not in {places}: run `make assets-robomimic`, or name the folder of the scenes with {variable}")]
    RobomimicSceneMissing { file: &'static str, places: String, variable: &'static str },
    #[error("{}: {message}: run `make assets-robomimic`, or name another folder with {variable}", path.display())]
    RobomimicScene { path: PathBuf, message: String, variable: &'static str },
    #[error("the saved state of {what} does not fit: {message}; it was written by another task, version or batch size")]
    SavedState { what: &'static str, message: String },
}
