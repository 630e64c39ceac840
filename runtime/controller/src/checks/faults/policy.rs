//! The policy of the runs: round and round an ellipse beside the obstacles, quick enough that every stop is one.
//!
//! Its network is linear and predicts the clean chunk at once, so what it wants is known: from the commanded position p the way of the
//! chunk's action j is (R(α (j + 2)) − R(α (j + 1))) (p − c), where R turns along the ellipse and α is the angle of one period. The
//! position that it observes is one action old, as in training.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tenon_core::avoid::START_COMMAND_M;
use tenon_core::network::{Activation, NetworkSpec};
use tenon_core::normalizer::{Limits, Normalizer};
use tenon_core::spec::{Denoising, PolicySpec, Prediction, SPEC_VERSION, Sampler};
use tenon_core::task::TaskName;
use tenon_policy::bundle::Provenance;
use tenon_policy::graph::{Dims, random_parameters};
use tenon_policy::{BundleContent, BundleWriter};

/// Half axes, m: along x, where there is room, and along y, away from the obstacles.
const HALF_AXES_M: [f64; 2] = [0.11, 0.04];
/// Along the long sides the tool point moves at 0.11 m · 4 rad/s = 0.44 m/s; at the start, which is at an end, at 0.16 m/s.
const RATE_RAD_S: f64 = 4.0;
/// Actions of a chunk.
const HORIZON: usize = 4;
const TIME_DIM: usize = 4;
/// What an action of 1 means, m.
const LARGEST_ACTION_M: f32 = 0.03;

/// The policy's definition.
pub fn spec() -> Result<PolicySpec> {
    let task = TaskName::from_name("avoid_m1").context("Avoid is a task of this release")?;
    let spec = PolicySpec {
        spec_version: SPEC_VERSION,
        task: task.as_str().to_owned(),
        observation: task.observation(),
        action: task.action(),
        observation_horizon: 1,
        prediction_horizon: HORIZON,
        action_horizon: HORIZON,
        period_s: task.period_s(),
        observation_delay_steps: task.observation_delay_steps(),
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
        normalizer: Normalizer::new(Limits::symmetric(1.0, 4), Limits::symmetric(LARGEST_ACTION_M, 2)),
    };
    spec.check().context("the policy of the fault runs")?;
    Ok(spec)
}

/// `(R(α (step + 1)) − R(α step))`, rows x, y, for positions about the ellipse's middle; `period_s` between two actions.
pub fn increment(step: usize, period_s: f64) -> [[f64; 2]; 2] {
    let [a, b] = HALF_AXES_M;
    let turned = |step: usize| {
        let (sin, cos) = (RATE_RAD_S * period_s * step as f64).sin_cos();
        [[cos, -a / b * sin], [b / a * sin, cos]]
    };
    let (from, to) = (turned(step), turned(step + 1));
    std::array::from_fn(|i| std::array::from_fn(|j| to[i][j] - from[i][j]))
}

/// Middle of the ellipse, whose point farthest from the robot is the start: there it is slow, m.
pub fn middle_m() -> [f64; 2] {
    [START_COMMAND_M[0] - HALF_AXES_M[0], START_COMMAND_M[1]]
}

/// Writes the bundle into `folder`.
///
/// # Errors
/// As writing a bundle.
pub fn write(folder: &Path) -> Result<PathBuf> {
    let spec = spec()?;
    let network = NetworkSpec::DiffusionMlp {
        time_dim: TIME_DIM,
        mlp_dims: vec![2],
        cond_mlp_dims: Vec::new(),
        activation: Activation::ReLU,
        residual: true,
        layer_norm: false,
    };
    let mut parameters = random_parameters(&network, &Dims::of(&spec), 1);
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
    for (axis, middle_m) in middle_m().into_iter().enumerate() {
        put("mlp_mean.layers.0.weight", axis * columns + state + axis, 1.0)?;
        put("mlp_mean.layers.0.bias", axis, -middle_m)?;
    }
    for step in 0..HORIZON {
        for (axis, row) in increment(step + 1, spec.period_s).into_iter().enumerate() {
            for (from, value) in row.into_iter().enumerate() {
                let index = (2 * step + axis) * 2 + from;
                put("mlp_mean.layers.1.weight", index, value / f64::from(LARGEST_ACTION_M))?;
            }
        }
    }
    let made_here = || "made by `tenon test faults`".to_owned();
    let provenance = Provenance::new(1, made_here(), made_here(), made_here(), made_here(), made_here());
    let content = BundleContent {
        spec: &spec,
        network: &network,
        base: Some(&parameters),
        finetuned: None,
        provenance: &provenance,
    };
    let path = folder.join("bundle");
    let writer = BundleWriter::create(&path, false, &content).context("writing the policy of the runs")?;
    Ok(writer.commit()?)
}
