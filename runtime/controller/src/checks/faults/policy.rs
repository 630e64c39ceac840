//! The policies of the runs: round and round an ellipse, quick enough that every stop is one; one beside the obstacles of Avoid, and one
//! above the bench of one_leg, which observes its parts.
//!
//! Its network is linear and predicts the clean chunk at once, so what it wants is known: from the commanded position p the way of the
//! chunk's action j is (R(α (j + 2)) − R(α (j + 1))) (p − c), where R turns along the ellipse and α is the angle of one period. The
//! position that it observes is one action old, as in training.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tenon_core::arm::Arm;
use tenon_core::avoid::START_COMMAND_M;
use tenon_core::fusion::{Furniture, RESET_JOINTS_RAD};
use tenon_core::network::{Activation, NetworkSpec};
use tenon_core::normalizer::{Limits, Normalizer};
use tenon_core::spec::{ActionField, Denoising, ObservationField, PolicySpec, Prediction, SPEC_VERSION, Sampler};
use tenon_core::task::TaskName;
use tenon_policy::bundle::Provenance;
use tenon_policy::graph::{Dims, random_parameters};
use tenon_policy::{BundleContent, BundleWriter};

/// Half axes in Avoid, m: along x, where there is room, and along y, away from the obstacles.
const AVOID_HALF_AXES_M: [f64; 2] = [0.11, 0.04];
/// The same above the bench: 0.05 m farther inwards the fourth joint would come to its end.
const ONE_LEG_HALF_AXES_M: [f64; 2] = [0.08, 0.04];
/// Along the long sides the tool point moves at 0.11 m · 4 rad/s = 0.44 m/s, above the bench at 0.32 m/s; at the start, which is at an
/// end, at 0.16 m/s.
const RATE_RAD_S: f64 = 4.0;
/// Actions of a chunk.
const HORIZON: usize = 4;
const TIME_DIM: usize = 4;
/// What an action of 1 means, m.
const LARGEST_ACTION_M: f32 = 0.03;

/// A policy that goes round and round.
#[derive(Debug, Clone)]
pub struct Round {
    pub spec: PolicySpec,
    half_axes_m: [f64; 2],
    /// Middle of the ellipse, whose point farthest from the robot is the start: there it is slow, m.
    middle_m: [f64; 2],
}

impl Round {
    /// Beside the obstacles.
    pub fn of_avoid() -> Result<Self> {
        let task = TaskName::from_name("avoid_m1").context("Avoid is a task of this release")?;
        let half_axes_m = AVOID_HALF_AXES_M;
        let middle_m = [START_COMMAND_M[0] - half_axes_m[0], START_COMMAND_M[1]];
        Ok(Self { spec: spec(task, task.observation(), task.action())?, half_axes_m, middle_m })
    }

    /// Above the bench of one_leg, at the height of the start. It runs only while all parts are seen, and moves as the other one does,
    /// wherever they are.
    pub fn of_one_leg(arm: &Arm) -> Result<Self> {
        let task = TaskName::OneLegLow;
        let furniture = Furniture::of_task(task).context("one_leg has furniture")?;
        let parts = u16::try_from(furniture.part_names().len()).context("a few parts")?;
        let mut observation = TaskName::AvoidM1.observation();
        observation.push(ObservationField::PartPoses(parts));
        let start = arm.tcp(&RESET_JOINTS_RAD);
        let (p, q) = (start.translation.vector, start.rotation);
        let action = vec![ActionField::PlanarIncrement { z_m: p.z, quat_wxyz: [q.w, q.i, q.j, q.k] }];
        let half_axes_m = ONE_LEG_HALF_AXES_M;
        Ok(Self { spec: spec(task, observation, action)?, half_axes_m, middle_m: [p.x - half_axes_m[0], p.y] })
    }
}

/// A policy's definition; time goes as in Avoid.
fn spec(task: TaskName, observation: Vec<ObservationField>, action: Vec<ActionField>) -> Result<PolicySpec> {
    let observed = observation.iter().map(|field| field.dim()).sum();
    let spec = PolicySpec {
        spec_version: SPEC_VERSION,
        task: task.as_str().to_owned(),
        observation,
        action,
        observation_horizon: 1,
        prediction_horizon: HORIZON,
        action_horizon: HORIZON,
        period_s: TaskName::AvoidM1.period_s(),
        observation_delay_steps: TaskName::AvoidM1.observation_delay_steps(),
        denoising: Some(Denoising {
            denoising_steps: 1,
            finetuned_steps: 0,
            sampler: Sampler::Ddpm,
            denoised_clip: 1.0,
            noise_clip: 3.0,
            final_action_clip: None,
            prediction: Prediction::Sample,
            step_counts: Vec::new(),
        }),
        normalizer: Normalizer::new(Limits::symmetric(1.0, observed), Limits::symmetric(LARGEST_ACTION_M, 2)),
        pictures: None,
    };
    spec.check().context("the policy of the fault runs")?;
    Ok(spec)
}

/// `(R(α (step + 1)) − R(α step))`, rows x, y, for positions about the ellipse's middle; `period_s` between two actions.
fn increment(step: usize, period_s: f64, [a, b]: [f64; 2]) -> [[f64; 2]; 2] {
    let turned = |step: usize| {
        let (sin, cos) = (RATE_RAD_S * period_s * step as f64).sin_cos();
        [[cos, -a / b * sin], [b / a * sin, cos]]
    };
    let (from, to) = (turned(step), turned(step + 1));
    std::array::from_fn(|i| std::array::from_fn(|j| to[i][j] - from[i][j]))
}

/// Writes the bundle into `folder`.
///
/// # Errors
/// As writing a bundle.
pub fn write(round: &Round, folder: &Path) -> Result<PathBuf> {
    let spec = &round.spec;
    let network = NetworkSpec::DiffusionMlp {
        time_dim: TIME_DIM,
        mlp_dims: vec![2],
        cond_mlp_dims: Vec::new(),
        activation: Activation::ReLU,
        residual: true,
        layer_norm: false,
    };
    let mut parameters = random_parameters(&network, &Dims::of(spec), 1);
    for tensor in parameters.values_mut() {
        tensor.data.fill(0.0);
    }
    let state = spec.chunk_len() + TIME_DIM;
    let columns = state + spec.state_len();
    let mut put = |name: &str, index: usize, value: f64| -> Result<()> {
        let data = &mut parameters.get_mut(name).with_context(|| format!("the network has no {name}"))?.data;
        *data.get_mut(index).with_context(|| format!("{name} has no value {index}"))? = value as f32;
        Ok(())
    };
    for (axis, middle_m) in round.middle_m.into_iter().enumerate() {
        put("mlp_mean.layers.0.weight", axis * columns + state + axis, 1.0)?;
        put("mlp_mean.layers.0.bias", axis, -middle_m)?;
    }
    for step in 0..HORIZON {
        for (axis, row) in increment(step + 1, spec.period_s, round.half_axes_m).into_iter().enumerate() {
            for (from, value) in row.into_iter().enumerate() {
                let index = (2 * step + axis) * 2 + from;
                put("mlp_mean.layers.1.weight", index, value / f64::from(LARGEST_ACTION_M))?;
            }
        }
    }
    let made_here = || "made by `tenon test faults`".to_owned();
    let provenance = Provenance::new(1, made_here(), made_here(), made_here(), made_here(), made_here());
    let content =
        BundleContent { spec, network: &network, base: Some(&parameters), finetuned: None, provenance: &provenance };
    let path = folder.join("bundle");
    let writer = BundleWriter::create(&path, false, &content).context("writing the policy of the runs")?;
    Ok(writer.commit()?)
}
