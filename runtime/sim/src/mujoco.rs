//! MuJoCo, in one place: the only module of the project that names the binding.
//!
//! A [`Model`] is compiled once from MJCF text and shared by all threads; each environment owns one [`Simulation`]
//! (MuJoCo's data object). Nothing here allocates after construction. `drawing` has MuJoCo's drawing functions, for
//! [`crate::render`].

mod chain;
pub(crate) mod drawing;
mod scene_file;
mod tables;

pub use chain::HingeChain;
pub use scene_file::SceneFile;
pub use tables::{ModelTables, ObjectKind};

use std::ffi::CStr;
use std::path::Path;
use std::sync::{Arc, Once};

use mujoco_rs::mujoco_c;
use mujoco_rs::wrappers::mj_data::MjtState;
use mujoco_rs::wrappers::mj_model::MjtObj;
use mujoco_rs::wrappers::{MjData, MjModel};

use crate::error::SimError;

/// Everything that a continued simulation needs: time, positions, velocities, activations, warm start and all inputs.
const SAVED_STATE: u32 = MjtState::mjSTATE_INTEGRATION as u32;

/// Beyond this magnitude MuJoCo itself calls a position or velocity bad (its constant mjMAXVAL).
const BAD_VALUE: f64 = 1e10;

/// MuJoCo's default handler appends to a file MUJOCO_LOG.TXT in the working directory, from whatever thread warns.
/// Unstable states are found by [`Simulation::is_stable`] and counted by their environment, so a warning says nothing new.
fn silence_warnings() {
    unsafe extern "C" fn ignore(_message: *const std::ffi::c_char) {}
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: written once, before any model of this process exists, to a handler that keeps no reference.
        unsafe { mujoco_c::mju_user_warning = Some(ignore) };
    });
}

/// Checks the version of the library that was loaded; comes before anything else of it.
fn prepare_library() -> Result<(), SimError> {
    // SAFETY: takes no argument and reads a constant.
    let found = unsafe { mujoco_c::mj_version() };
    let needed = mujoco_c::mjVERSION_HEADER;
    if found != needed as i32 {
        return Err(SimError::WrongMujocoVersion { found, needed });
    }
    silence_warnings();
    Ok(())
}

/// A compiled model; clones share it.
#[derive(Debug, Clone)]
pub struct Model(Arc<MjModel>);

/// Index of a geom in its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GeomId(usize);

/// Index of a body in its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BodyId(usize);

/// Index of a site in its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SiteId(usize);

/// Index of a camera in its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CameraId(usize);

/// A joint with one degree of freedom: where its values stand in `qpos` and in `qvel`, `qfrc_…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JointAddress {
    pub qpos: usize,
    pub dof: usize,
}

/// A position with an orientation, both in the world frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WorldPose {
    pub position_m: [f64; 3],
    /// Row-major rotation matrix, columns are the frame's axes.
    pub rotation: [f64; 9],
}

impl Model {
    /// Compiles MJCF text. A world of this model that becomes unstable stays so, see [`Simulation::is_stable`].
    ///
    /// # Errors
    /// [`SimError::WrongMujocoVersion`] where another libmujoco.so was loaded, [`SimError::ModelCompile`] with
    /// MuJoCo's message (the line is that of the text).
    pub fn from_mjcf(mjcf: &str) -> Result<Self, SimError> {
        Self::compile(mjcf, 0)
    }

    /// The same, and the solver takes all constraints together instead of looking for groups of bodies that don't
    /// touch one another. Faster where there is one body only; elsewhere it may change the last bits.
    ///
    /// # Errors
    /// As [`from_mjcf`](Self::from_mjcf).
    pub fn from_mjcf_without_islands(mjcf: &str) -> Result<Self, SimError> {
        Self::compile(mjcf, mujoco_c::mjtDisableBit::mjDSBL_ISLAND as i32)
    }

    fn compile(mjcf: &str, disabled: i32) -> Result<Self, SimError> {
        prepare_library()?;
        let model =
            MjModel::from_xml_string(mjcf).map_err(|error| SimError::ModelCompile { message: error.to_string() })?;
        Ok(Self::finish(model, disabled))
    }

    /// Sets the flags that every model has, and those asked for.
    fn finish(mut model: MjModel, disabled: i32) -> Self {
        // Left alone, MuJoCo would silently put an unstable world back to its start; we want to see it and say so.
        let disabled = disabled | mujoco_c::mjtDisableBit::mjDSBL_AUTORESET as i32;
        // SAFETY: the model is not shared yet, and flags only take effect in later steps.
        unsafe { model.ffi_mut() }.opt.disableflags |= disabled;
        Self(Arc::new(model))
    }

    /// The compiled model in MuJoCo's own binary format (MJB), which programs with the same version of MuJoCo read.
    pub fn to_mjb(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.0.size() as usize];
        self.0.save(None, Some(&mut bytes));
        bytes
    }

    /// Length of one physics step, seconds.
    pub fn timestep_s(&self) -> f64 {
        self.0.ffi().opt.timestep
    }

    /// Number of position coordinates.
    pub fn position_dim(&self) -> usize {
        self.0.ffi().nq as usize
    }

    /// Number of degrees of freedom.
    pub fn velocity_dim(&self) -> usize {
        self.0.ffi().nv as usize
    }

    /// Number of actuators.
    pub fn control_dim(&self) -> usize {
        self.0.ffi().nu as usize
    }

    /// Mass of everything in the model, kg.
    pub fn total_mass_kg(&self) -> f64 {
        self.0.get_totalmass()
    }

    /// The body of this name.
    ///
    /// # Errors
    /// [`SimError::UnknownName`].
    pub fn body(&self, name: &str) -> Result<BodyId, SimError> {
        self.id(MjtObj::mjOBJ_BODY, "body", name).map(BodyId)
    }

    /// The geom of this name.
    ///
    /// # Errors
    /// [`SimError::UnknownName`].
    pub fn geom(&self, name: &str) -> Result<GeomId, SimError> {
        self.id(MjtObj::mjOBJ_GEOM, "geom", name).map(GeomId)
    }

    /// The site of this name.
    ///
    /// # Errors
    /// [`SimError::UnknownName`].
    pub fn site(&self, name: &str) -> Result<SiteId, SimError> {
        self.id(MjtObj::mjOBJ_SITE, "site", name).map(SiteId)
    }

    /// Compiles an MJCF file; what it names (meshes, textures) is looked for beside it.
    ///
    /// # Errors
    /// As [`from_mjcf`](Self::from_mjcf), the file's name in the message.
    pub fn from_mjcf_file(path: &Path) -> Result<Self, SimError> {
        let bad = |message: String| SimError::ModelCompile { message: format!("{}: {message}", path.display()) };
        prepare_library()?;
        // The binding wants names that are text, and says less about a file that is not there.
        if path.to_str().is_none_or(|name| name.contains('\0')) {
            return Err(bad("its name is no text".into()));
        }
        std::fs::metadata(path).map_err(|error| bad(error.to_string()))?;
        let model = MjModel::from_xml(path).map_err(|error| bad(error.to_string()))?;
        Ok(Self::finish(model, 0))
    }

    /// The camera of this name.
    ///
    /// # Errors
    /// [`SimError::UnknownCamera`] with the names that there are.
    pub fn camera(&self, name: &str) -> Result<CameraId, SimError> {
        self.id(MjtObj::mjOBJ_CAMERA, "camera", name).map(CameraId).map_err(|_| SimError::UnknownCamera {
            name: name.to_owned(),
            known: match self.camera_names() {
                names if names.is_empty() => "it has none".into(),
                names => format!("it has {}", names.join(", ")),
            },
        })
    }

    /// Names of all cameras that have one.
    pub fn camera_names(&self) -> Vec<String> {
        let name_of = |id| {
            // SAFETY: the model is whole; the name, if there is one, lives in it and ends with a zero.
            unsafe {
                let name = mujoco_c::mj_id2name(self.0.ffi(), MjtObj::mjOBJ_CAMERA as i32, id);
                (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
            }
        };
        (0..self.0.ffi().ncam).filter_map(name_of).filter(|name| !name.is_empty()).collect()
    }

    /// Whether both are clones of one compiled model.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The actuator of this name: its place in the control vector.
    ///
    /// # Errors
    /// [`SimError::UnknownName`].
    pub fn actuator(&self, name: &str) -> Result<usize, SimError> {
        self.id(MjtObj::mjOBJ_ACTUATOR, "actuator", name)
    }

    /// The hinge or slide joint of this name.
    ///
    /// # Errors
    /// [`SimError::UnknownName`].
    pub fn joint(&self, name: &str) -> Result<JointAddress, SimError> {
        let id = self.id(MjtObj::mjOBJ_JOINT, "joint", name)?;
        Ok(JointAddress { qpos: self.0.jnt_qposadr()[id] as usize, dof: self.0.jnt_dofadr()[id] as usize })
    }

    /// Lower and upper bound of an actuator's input; see [`actuator`](Self::actuator).
    pub fn control_range(&self, actuator: usize) -> [f64; 2] {
        self.0.actuator_ctrlrange()[actuator]
    }

    /// Where the position of a body's free joint begins in `qpos`: position 3, quaternion wxyz 4.
    ///
    /// # Errors
    /// [`SimError::UnknownName`] where there is no joint of this name that is free.
    pub fn free_joint(&self, name: &str) -> Result<usize, SimError> {
        let id = self.id(MjtObj::mjOBJ_JOINT, "joint", name)?;
        match self.0.jnt_type()[id] {
            mujoco_c::mjtJoint::mjJNT_FREE => Ok(self.0.jnt_qposadr()[id] as usize),
            _ => Err(SimError::UnknownName { kind: "free joint", name: name.to_owned() }),
        }
    }

    fn id(&self, kind: MjtObj, kind_name: &'static str, name: &str) -> Result<usize, SimError> {
        let unknown = || SimError::UnknownName { kind: kind_name, name: name.to_owned() };
        if name.contains('\0') {
            return Err(unknown());
        }
        usize::try_from(self.0.name_to_id(kind, name)).map_err(|_| unknown())
    }
}

/// The changing state of one simulated world.
///
/// Beside MuJoCo's data: what it is a world of, and half sizes with which geoms are drawn in this world alone.
pub struct Simulation(MjData<Arc<MjModel>>, Model, Vec<(GeomId, [f32; 3])>);

impl std::fmt::Debug for Simulation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Simulation").field("time_s", &self.time_s()).finish_non_exhaustive()
    }
}

impl Simulation {
    /// A world in the model's initial state.
    pub fn new(model: &Model) -> Self {
        Self(MjData::new(Arc::clone(&model.0)), model.clone(), Vec::new())
    }

    /// What it is a world of.
    pub fn model(&self) -> &Model {
        &self.1
    }

    /// Has a geom of another size drawn in this world: many worlds can share one model of what is seen, though things in
    /// them differ in size. The physics keeps the model's. Half sizes (metres) as MJCF has them for the geom's type; no
    /// meshes.
    pub fn draw_as(&mut self, geom: GeomId, half_sizes_m: [f64; 3]) {
        self.2.retain(|(known, _)| *known != geom);
        self.2.push((geom, half_sizes_m.map(|size| size as f32)));
    }

    /// Recomputes where bodies, geoms, sites, cameras and lights are, from the positions alone. Forces, contacts and
    /// warm start stay as they are, so a later step does the same as without.
    pub fn place(&mut self) {
        let model: *const mujoco_c::mjModel = self.1.0.ffi();
        // SAFETY: the world belongs to this model, and both outlive the calls.
        unsafe {
            let data: *mut mujoco_c::mjData = self.0.ffi_mut();
            mujoco_c::mj_kinematics(model, data);
            mujoco_c::mj_comPos(model, data);
            mujoco_c::mj_camlight(model, data);
        }
    }

    /// Back to the model's initial state; inputs and warm start become zero.
    pub fn reset(&mut self) {
        self.0.reset();
    }

    /// First half of a physics step: everything that depends on position and velocity.
    ///
    /// Afterwards poses, contacts and [`bias_force`](Self::bias_force) belong to the present positions.
    pub fn step1(&mut self) {
        self.0.step1();
    }

    /// Second half: forces, constraint solver, integration. Poses and contacts stay those of before.
    pub fn step2(&mut self) {
        self.0.step2();
    }

    /// A whole physics step.
    pub fn step(&mut self) {
        self.0.step();
    }

    /// Recomputes everything without moving on in time.
    pub fn forward(&mut self) {
        self.0.forward();
    }

    /// Simulated time, seconds.
    pub fn time_s(&self) -> f64 {
        self.0.time()
    }

    /// Position coordinates `[position_dim]`.
    pub fn qpos(&self) -> &[f64] {
        self.0.qpos()
    }

    /// Position coordinates, to be set between steps.
    pub fn qpos_mut(&mut self) -> &mut [f64] {
        self.0.qpos_mut()
    }

    /// Velocities `[velocity_dim]`.
    pub fn qvel(&self) -> &[f64] {
        self.0.qvel()
    }

    /// Velocities, to be set between steps.
    pub fn qvel_mut(&mut self) -> &mut [f64] {
        self.0.qvel_mut()
    }

    /// Accelerations of the last step `[velocity_dim]`.
    pub fn qacc(&self) -> &[f64] {
        self.0.qacc()
    }

    /// Actuator inputs `[control_dim]`.
    pub fn ctrl_mut(&mut self) -> &mut [f64] {
        self.0.ctrl_mut()
    }

    /// Actuator inputs `[control_dim]`.
    pub fn ctrl(&self) -> &[f64] {
        self.0.ctrl()
    }

    /// Generalised forces applied from outside `[velocity_dim]`.
    pub fn applied_force_mut(&mut self) -> &mut [f64] {
        self.0.qfrc_applied_mut()
    }

    /// Gravity, Coriolis and centrifugal generalised forces `[velocity_dim]`.
    pub fn bias_force(&self) -> &[f64] {
        self.0.qfrc_bias()
    }

    /// Generalised forces of the actuators `[velocity_dim]`.
    pub fn actuator_force(&self) -> &[f64] {
        self.0.qfrc_actuator()
    }

    /// Generalised forces of contacts, limits and other constraints `[velocity_dim]`.
    pub fn constraint_force(&self) -> &[f64] {
        self.0.qfrc_constraint()
    }

    /// Pose of a body frame.
    pub fn body_pose(&self, body: BodyId) -> WorldPose {
        WorldPose { position_m: self.0.xpos()[body.0], rotation: self.0.xmat()[body.0] }
    }

    /// Orientation of a body frame as MuJoCo holds it, wxyz.
    pub fn body_quat_wxyz(&self, body: BodyId) -> [f64; 4] {
        self.0.xquat()[body.0]
    }

    /// Pose of a site.
    pub fn site_pose(&self, site: SiteId) -> WorldPose {
        WorldPose { position_m: self.0.site_xpos()[site.0], rotation: self.0.site_xmat()[site.0] }
    }

    /// Pose of a geom.
    pub fn geom_pose(&self, geom: GeomId) -> WorldPose {
        WorldPose { position_m: self.0.geom_xpos()[geom.0], rotation: self.0.geom_xmat()[geom.0] }
    }

    /// Number of contacts in the present state.
    pub fn contact_count(&self) -> usize {
        self.0.ncon() as usize
    }

    /// Whether one geom of `first` is in contact with one of `second`.
    ///
    /// A contact within a geom's margin counts as MuJoCo counts it; margins are zero in our scenes.
    pub fn in_contact(&self, first: &[GeomId], second: &[GeomId]) -> bool {
        let holds = |set: &[GeomId], geom: i32| set.iter().any(|id| id.0 as i32 == geom);
        self.0.contacts().iter().any(|contact| {
            let [a, b] = contact.geom;
            holds(first, a) && holds(second, b) || holds(first, b) && holds(second, a)
        })
    }

    /// Whether every position and velocity is a number that MuJoCo accepts.
    pub fn is_stable(&self) -> bool {
        let fine = |values: &[f64]| values.iter().all(|value| value.abs() < BAD_VALUE);
        fine(self.0.qpos()) && fine(self.0.qvel())
    }

    /// Number of values of a saved state.
    pub fn state_len(&self) -> usize {
        self.0.model().state_size(SAVED_STATE) as usize
    }

    /// Writes the state into the first [`state_len`](Self::state_len) values of `state`.
    ///
    /// # Panics
    /// Where `state` is shorter.
    pub fn save_state(&self, state: &mut [f64]) {
        self.0.read_state_into(SAVED_STATE, state);
    }

    /// Takes over a state saved from a world of the same model. What follows from positions and velocities (poses,
    /// contacts) is stale until the next step or [`forward`](Self::forward).
    ///
    /// # Errors
    /// [`SimError::SavedState`] where the length is another one.
    pub fn restore_state(&mut self, state: &[f64]) -> Result<(), SimError> {
        if state.len() != self.state_len() {
            return Err(SimError::SavedState {
                what: "a MuJoCo world",
                message: format!("{} values instead of {}", state.len(), self.state_len()),
            });
        }
        self.0.set_state(state, SAVED_STATE);
        Ok(())
    }
}
