//! A task's scene: read, given its drawn sizes, compiled, checked, and what is where in it.

use std::sync::{Arc, OnceLock};

use rand::Rng;
use tenon_core::noise::SeededNoise;

use super::arm::Arm;
use super::assets::{FOLDER_VARIABLE, scene_path};
use super::observation::{Fields, put_arm};
use super::task::RobomimicTask;
use super::{can, lift, square, transport};
use crate::batch::episode_seed;
use crate::error::SimError;
use crate::mujoco::{Model, ObjectKind, SceneFile, Simulation};

/// What the reference draws whenever it builds a scene (section 3.3), metres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SceneSizes {
    /// Can and Square have nothing drawn.
    Fixed,
    /// Half sizes of Lift's cube.
    Cube { half_sizes_m: [f64; 3] },
    /// Half size of the head of Transport's hammer; its other parts follow.
    HammerHead { half_size_m: f64 },
}

impl SceneSizes {
    /// The sizes of the reference data.
    pub fn reference(task: RobomimicTask) -> Self {
        match task {
            RobomimicTask::Lift => Self::Cube { half_sizes_m: lift::REFERENCE_HALF_SIZES_M },
            RobomimicTask::Can | RobomimicTask::Square => Self::Fixed,
            RobomimicTask::Transport => Self::HammerHead { half_size_m: transport::REFERENCE_HEAD_HALF_SIZE_M },
        }
    }

    /// Sizes drawn as the reference draws them.
    pub fn drawn(task: RobomimicTask, seed: u64) -> Self {
        let mut noise = SeededNoise::new(seed, 0);
        match task {
            RobomimicTask::Lift => Self::Cube { half_sizes_m: lift::draw_half_sizes_m(noise.rng()) },
            RobomimicTask::Can | RobomimicTask::Square => Self::Fixed,
            RobomimicTask::Transport => Self::HammerHead { half_size_m: transport::draw_head_half_size_m(noise.rng()) },
        }
    }

    /// The sizes as a vector of fixed length, for saved states.
    pub(super) fn values(&self) -> [f64; 3] {
        match *self {
            Self::Fixed => [0.0; 3],
            Self::Cube { half_sizes_m } => half_sizes_m,
            Self::HammerHead { half_size_m } => [half_size_m, 0.0, 0.0],
        }
    }
}

/// Whether a scene holds what is only seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Visuals {
    /// Collision geometry alone: the same physics, and much smaller.
    #[default]
    Without,
    /// Everything, for pictures: meshes and textures are read (a second or two, 100 MB).
    With,
}

/// The compiled scene of a task with the places of its parts; clones share the model.
#[derive(Debug, Clone)]
pub struct RobomimicScene {
    task: RobomimicTask,
    sizes: SceneSizes,
    model: Model,
    pub(super) arms: Vec<Arm>,
    objects: Objects,
    /// The scene with its visuals, compiled when somebody wants to see it; the scenes of a batch share it, with the reference's sizes.
    drawn: Arc<OnceLock<Option<Model>>>,
}

/// The things of each task.
#[derive(Debug, Clone)]
enum Objects {
    Lift(lift::Lift),
    Can(can::Can),
    Square(square::Square),
    Transport(transport::Transport),
}

/// Number of bodies, positions, velocities and actuators of a task's scene.
fn expected_counts(task: RobomimicTask) -> [usize; 4] {
    match task {
        RobomimicTask::Lift => [24, 16, 15, 9],
        RobomimicTask::Can => [32, 37, 33, 9],
        RobomimicTask::Square => [27, 23, 21, 9],
        RobomimicTask::Transport => [51, 60, 54, 18],
    }
}

/// Physics step of the scenes, seconds.
const TIMESTEP_S: f64 = 0.002;

impl RobomimicScene {
    /// Finds and compiles a task's scene; see [`scene_path`].
    ///
    /// # Errors
    /// [`SimError::RobomimicSceneMissing`], [`SimError::RobomimicScene`] where the file cannot be read, does not compile
    /// or is another scene, [`SimError::WrongMujocoVersion`].
    pub fn new(task: RobomimicTask, sizes: SceneSizes, visuals: Visuals) -> Result<Self, SimError> {
        let path = scene_path(task)?;
        let build = || {
            let mut file = SceneFile::read(&path)?;
            if visuals == Visuals::Without {
                file.remove_visuals()?;
            }
            Self::compile(&mut file, task, sizes)
        };
        build().map_err(|error| match error {
            SimError::WrongMujocoVersion { .. } => error,
            SimError::ModelCompile { message } => {
                SimError::RobomimicScene { path: path.clone(), message, variable: FOLDER_VARIABLE }
            }
            other => {
                SimError::RobomimicScene { path: path.clone(), message: other.to_string(), variable: FOLDER_VARIABLE }
            }
        })
    }

    /// The scenes of so many environments. The reference builds one for each, with sizes of its own; where nothing is
    /// drawn they share one. Scene number i follows from `seed` and i alone.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_environments(task: RobomimicTask, count: usize, seed: u64) -> Result<Vec<Self>, SimError> {
        if matches!(SceneSizes::reference(task), SceneSizes::Fixed) {
            return Ok(vec![Self::new(task, SceneSizes::Fixed, Visuals::Without)?; count]);
        }
        let drawn = Arc::<OnceLock<Option<Model>>>::default();
        let scene = |index| {
            let scene = Self::new(task, SceneSizes::drawn(task, episode_seed(seed, index, 0)), Visuals::Without)?;
            Ok(Self { drawn: Arc::clone(&drawn), ..scene })
        };
        (0..count as u64).map(scene).collect()
    }

    fn compile(file: &mut SceneFile, task: RobomimicTask, sizes: SceneSizes) -> Result<Self, SimError> {
        match (task, &sizes) {
            (RobomimicTask::Lift, SceneSizes::Cube { half_sizes_m }) => lift::set_half_sizes(file, half_sizes_m)?,
            (RobomimicTask::Transport, SceneSizes::HammerHead { half_size_m }) => {
                transport::set_head_half_size(file, *half_size_m)?;
            }
            (RobomimicTask::Can, SceneSizes::Fixed) => can::place_targets(file)?,
            (RobomimicTask::Square, SceneSizes::Fixed) => {}
            _ => return Err(SimError::ModelCompile { message: format!("{sizes:?} are not the sizes of {task}") }),
        }
        let model = file.compile()?;
        check(&model, task)?;
        let arms = (0..task.arms()).map(|index| Arm::find(&model, index)).collect::<Result<Vec<_>, _>>()?;
        let objects = match (task, &sizes) {
            (_, SceneSizes::Cube { half_sizes_m }) => Objects::Lift(lift::Lift::find(&model, half_sizes_m)?),
            (RobomimicTask::Square, _) => Objects::Square(square::Square::find(&model)?),
            (RobomimicTask::Can, _) => Objects::Can(can::Can::find(&model)?),
            _ => Objects::Transport(transport::Transport::find(&model)?),
        };
        Ok(Self { task, sizes, model, arms, objects, drawn: Arc::default() })
    }

    /// Which task it is.
    pub fn task(&self) -> RobomimicTask {
        self.task
    }

    /// What was drawn for it.
    pub fn sizes(&self) -> SceneSizes {
        self.sizes
    }

    /// The compiled model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// A world of this scene to be drawn, in the model's initial state; `None` where the scene's file is gone. Its things have the sizes of
    /// this scene, but for the hammer's head, which is drawn up to 1.8 mm larger or smaller.
    pub(super) fn drawn_world(&self) -> Option<Simulation> {
        let compile = || Self::new(self.task, SceneSizes::reference(self.task), Visuals::With).ok();
        let model = self.drawn.get_or_init(|| compile().map(|scene| scene.model)).as_ref()?;
        let mut world = Simulation::new(model);
        if let SceneSizes::Cube { half_sizes_m } = self.sizes {
            world.draw_as(model.geom(lift::VISIBLE_CUBE).ok()?, half_sizes_m);
        }
        Some(world)
    }

    /// Places everything but the arms.
    pub(super) fn place_objects(&self, simulation: &mut Simulation, rng: &mut impl Rng) {
        match &self.objects {
            Objects::Lift(lift) => lift.place(simulation, rng),
            Objects::Can(can) => can.place(simulation, rng),
            Objects::Square(square) => square.place(simulation, rng),
            Objects::Transport(transport) => transport.place(simulation, rng),
        }
    }

    /// Writes the observation: the arms, then the objects.
    pub(super) fn observe(&self, simulation: &Simulation, observation: &mut [f64]) {
        let mut fields = Fields::new(observation);
        for arm in &self.arms {
            put_arm(&mut fields, simulation, arm);
        }
        match &self.objects {
            Objects::Lift(lift) => lift.observe(&mut fields, simulation, &self.arms[0]),
            Objects::Can(can) => can.observe(&mut fields, simulation, &self.arms[0]),
            Objects::Square(square) => square.observe(&mut fields, simulation, &self.arms[0]),
            Objects::Transport(transport) => {
                transport.observe(&mut fields, simulation, [&self.arms[0], &self.arms[1]]);
            }
        }
        debug_assert_eq!(fields.left(), 0);
    }

    /// Whether the task is done in the state that positions and contacts were last derived from (section 3.6).
    pub(super) fn succeeded(&self, simulation: &Simulation) -> bool {
        match &self.objects {
            Objects::Lift(lift) => lift.succeeded(simulation),
            Objects::Can(can) => can.succeeded(simulation, &self.arms[0]),
            Objects::Square(square) => square.succeeded(simulation, &self.arms[0]),
            Objects::Transport(transport) => transport.succeeded(simulation),
        }
    }
}

/// Whether a compiled model can be the task's: names are checked where they are looked up.
fn check(model: &Model, task: RobomimicTask) -> Result<(), SimError> {
    let found = [model.count(ObjectKind::Body), model.position_dim(), model.velocity_dim(), model.control_dim()];
    let expected = expected_counts(task);
    if found != expected {
        return Err(SimError::ModelCompile {
            message: format!(
                "{found:?} bodies, positions, velocities and actuators, the scene of {task} has {expected:?}"
            ),
        });
    }
    if model.timestep_s() != TIMESTEP_S {
        return Err(SimError::ModelCompile {
            message: format!("a physics step of {} s, the scene of {task} has {TIMESTEP_S} s", model.timestep_s()),
        });
    }
    Ok(())
}
