//! `PolicySpec`: everything about a policy that trainer and runtime must agree on.
//!
//! Export writes it *into* the policy bundle and the runtime reads it only from there, so weights, normaliser and
//! horizons cannot be parted. Symbols follow the DPPO paper: To, Tp, Ta, K, K'.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::diffusion::{Clips, DenoisingStep, NoiseSchedule, StepNoise};
use crate::network::VisionSpec;
use crate::normalizer::Normalizer;
use crate::pictures::{PicturesSeen, Quality};

/// Version of the `PolicySpec` layout. A bundle with another version is refused.
pub const SPEC_VERSION: u32 = 1;

/// One block of the observation vector. The blocks, in order, make up the policy's state input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObservationField {
    /// Commanded x, y of the tool point in the robot base frame, m (2). D3IL Avoid.
    CommandedPosition2,
    /// Measured x, y of the tool point in the robot base frame, m (2). D3IL Avoid.
    TcpPosition2,
    /// Tool point position in the robot base frame, m (3).
    TcpPosition,
    /// First two rows of the tool rotation matrix (6).
    TcpRotation6d,
    /// Linear velocity of the tool point, base axes, m/s (3).
    TcpLinearVelocity,
    /// Angular velocity of the tool, base axes, rad/s (3).
    TcpAngularVelocity,
    /// Opening between the fingers, m (1).
    GripperWidth,
    /// Poses of the `n` parts of the task's furniture, in its order: x, y, z in m and quaternion x, y, z, w each, april frame of
    /// the training layout (7 · n; spec robot_control.md §3.2). [`crate::fusion::PartBoard`] writes them.
    PartPoses(u16),
    /// `n` values that only the simulation knows by name (Gym states, object vectors).
    Task(u16),
}

/// Values of one part in [`ObservationField::PartPoses`].
pub const PART_NUMBERS: usize = 7;

impl ObservationField {
    /// Number of values of this block.
    pub fn dim(self) -> usize {
        match self {
            Self::CommandedPosition2 | Self::TcpPosition2 => 2,
            Self::TcpPosition | Self::TcpLinearVelocity | Self::TcpAngularVelocity => 3,
            Self::TcpRotation6d => 6,
            Self::GripperWidth => 1,
            Self::PartPoses(n) => PART_NUMBERS * usize::from(n),
            Self::Task(n) => usize::from(n),
        }
    }
}

/// One block of the action vector of one step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionField {
    /// Increment of the commanded x, y, m (2); height and orientation stay at the given values. D3IL Avoid.
    PlanarIncrement { z_m: f64, quat_wxyz: [f64; 4] },
    /// Absolute tool point position in the robot base frame, m (3).
    TcpPosition,
    /// First two rows of the tool rotation matrix (6).
    TcpRotation6d,
    /// −1 open, +1 close (1).
    Gripper,
    /// `n` values that only the simulation understands (Gym torques, OSC increments).
    Task(u16),
}

impl ActionField {
    /// Number of values of this block.
    pub fn dim(self) -> usize {
        match self {
            Self::PlanarIncrement { .. } => 2,
            Self::TcpPosition => 3,
            Self::TcpRotation6d => 6,
            Self::Gripper => 1,
            Self::Task(n) => usize::from(n),
        }
    }
}

/// How the chain from noise to action chunk is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Sampler {
    /// All K steps (paper Eq. 1; spec dppo.md §1.2).
    Ddpm,
    /// `steps` of the K steps, η = 0 at deployment (Song et al. 2021; spec dppo.md §1.5).
    Ddim { steps: usize },
}

/// What a denoising network predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise ε: all experiments of the paper.
    #[default]
    Noise,
    /// The clean chunk x_0; not with DDIM (spec dppo.md §1.2).
    Sample,
}

impl Prediction {
    /// Whether it is the usual one.
    pub fn is_noise(&self) -> bool {
        *self == Self::Noise
    }
}

/// The denoising part of a policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denoising {
    /// K, the steps that the network was trained with.
    pub denoising_steps: usize,
    /// K', how many of the last executed steps use the fine-tuned network (0 = pre-trained policy only).
    pub finetuned_steps: usize,
    pub sampler: Sampler,
    /// Clamp of the predicted x_0 in every step.
    pub denoised_clip: f32,
    /// Clamp of the standard normal draws of every step.
    pub noise_clip: f32,
    /// Clamp of the finished, normalised chunk; absent in all settings of the paper.
    pub final_action_clip: Option<f32>,
    #[serde(default, skip_serializing_if = "Prediction::is_noise")]
    pub prediction: Prediction,
    /// Fewer steps that chunks may be sampled in where the time is short, ascending: DDIM with η = 0, whatever the usual sampler is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub step_counts: Vec<usize>,
}

fn positive(name: &'static str, value: f64) -> Result<(), SpecError> {
    if value.is_finite() && value > 0.0 { Ok(()) } else { Err(SpecError::NotPositive { name, value }) }
}

impl Denoising {
    fn check(&self) -> Result<(), SpecError> {
        let executed = self.executed_steps();
        for (name, value) in
            [("denoising.denoising_steps", self.denoising_steps), ("denoising.sampler.steps", executed)]
        {
            if value == 0 {
                return Err(SpecError::Zero { name });
            }
        }
        if self.denoising_steps > MAX_DENOISING_STEPS {
            return Err(SpecError::TooManySteps { found: self.denoising_steps });
        }
        if executed > self.denoising_steps {
            return Err(SpecError::Sampler { steps: executed, denoising_steps: self.denoising_steps });
        }
        if self.finetuned_steps > executed {
            return Err(SpecError::Finetuned { finetuned: self.finetuned_steps, executed });
        }
        if self.prediction == Prediction::Sample && matches!(self.sampler, Sampler::Ddim { .. }) {
            return Err(SpecError::Prediction);
        }
        if !self.step_counts.is_empty() {
            let ascending = self.step_counts.windows(2).all(|pair| pair[0] < pair[1]);
            let within = self.step_counts.iter().all(|&count| (2..executed).contains(&count));
            if !ascending || !within || self.prediction == Prediction::Sample {
                return Err(SpecError::StepCounts { found: self.step_counts.clone(), executed });
            }
        }
        positive("denoising.denoised_clip", f64::from(self.denoised_clip))?;
        positive("denoising.noise_clip", f64::from(self.noise_clip))?;
        positive("denoising.final_action_clip", f64::from(self.final_action_clip.unwrap_or(1.0)))
    }

    /// Number of network evaluations per chunk.
    pub fn executed_steps(&self) -> usize {
        match self.sampler {
            Sampler::Ddpm => self.denoising_steps,
            Sampler::Ddim { steps } => steps,
        }
    }

    /// The steps in execution order (noisiest first) with the standard deviations of the given mode.
    pub fn steps(&self, noise: StepNoise) -> Vec<DenoisingStep> {
        let schedule = NoiseSchedule::cosine(self.denoising_steps);
        let mut steps = match self.sampler {
            Sampler::Ddpm => schedule.ddpm_steps(noise),
            Sampler::Ddim { steps } => schedule.ddim_steps(steps, noise),
        };
        let executed = steps.len();
        for (i, step) in steps.iter_mut().enumerate() {
            // DDPM: t < K'; DDIM: position ≥ S − K'. Both are "the last K' executed steps".
            step.finetuned = i + self.finetuned_steps >= executed;
            if self.prediction == Prediction::Sample {
                // x̂_0 = 0·x − (−1)·output.
                (step.x0_from_x, step.x0_from_noise) = (0.0, -1.0);
            }
        }
        steps
    }

    /// How many steps a chunk may be sampled in, ascending; the last is the usual number.
    pub fn counts(&self) -> Vec<usize> {
        self.step_counts.iter().copied().chain([self.executed_steps()]).collect()
    }

    /// The steps of deployment where a chunk is sampled in `count` of [`Denoising::counts`]; `None` for any other number.
    ///
    /// With fewer steps a network makes those times that it was fine-tuned for, and those between them.
    pub fn steps_in(&self, count: usize) -> Option<Vec<DenoisingStep>> {
        let usual = self.steps(StepNoise::Evaluation);
        if count == usual.len() {
            return Some(usual);
        }
        if !self.step_counts.contains(&count) {
            return None;
        }
        let finetuned_from = usual.iter().find(|step| step.finetuned).map(|step| step.t);
        let mut steps = NoiseSchedule::cosine(self.denoising_steps).ddim_steps(count, StepNoise::Evaluation);
        for step in &mut steps {
            step.finetuned = finetuned_from.is_some_and(|t| step.t <= t);
        }
        Some(steps)
    }

    /// The clamps of the sampling loop.
    pub fn clips(&self) -> Clips {
        Clips { denoised: self.denoised_clip, noise: self.noise_clip, final_action: self.final_action_clip }
    }
}

/// Largest K: a damaged manifest must not make the schedule fill the memory.
pub const MAX_DENOISING_STEPS: usize = 100_000;

/// The definition of a policy, shared by trainer, bundle and runtime.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySpec {
    pub spec_version: u32,
    /// Task that the policy was made for, e.g. `avoid_m1`.
    pub task: String,
    pub observation: Vec<ObservationField>,
    pub action: Vec<ActionField>,
    /// To: observations the network sees, newest last.
    pub observation_horizon: usize,
    /// Tp: predicted steps of a chunk.
    pub prediction_horizon: usize,
    /// Ta: executed steps of a chunk.
    pub action_horizon: usize,
    /// Time between two actions, s.
    pub period_s: f64,
    /// How many periods old the observation is that a chunk is computed from. Avoid trains with 1: the observation
    /// returned by a step describes the state before that step's action.
    pub observation_delay_steps: usize,
    /// Absent for a policy that is no diffusion: its network gives the chunk at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denoising: Option<Denoising>,
    pub normalizer: Normalizer,
    /// What a policy that sees pictures saw in training. Absent for one that sees none, and where nobody recorded it: exact
    /// pictures are assumed then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pictures: Option<PicturesSeen>,
}

/// What is wrong with a `PolicySpec`.
#[derive(Debug, Error, PartialEq)]
pub enum SpecError {
    #[error("spec version {found} is not {SPEC_VERSION}: export the policy again with this release")]
    Version { found: u32 },
    #[error("{name} must be at least 1")]
    Zero { name: &'static str },
    #[error("action horizon {action_horizon} exceeds prediction horizon {prediction_horizon}")]
    Horizon { action_horizon: usize, prediction_horizon: usize },
    #[error("the policy does not denoise: it is a Gaussian policy, which this part cannot run")]
    NotDiffusion,
    #[error("DDIM needs a network that predicts the noise, this one predicts the clean chunk")]
    Prediction,
    #[error("the fields of {part} add up to {fields} values, the normalizer has {limits}")]
    Width { part: &'static str, fields: usize, limits: usize },
    #[error("{found} denoising steps: at most {MAX_DENOISING_STEPS}")]
    TooManySteps { found: usize },
    #[error("{steps} sampled steps do not fit into {denoising_steps} denoising steps")]
    Sampler { steps: usize, denoising_steps: usize },
    #[error(
        "step_counts {found:?}: ascending, each at least 2 and less than the usual {executed}, of a policy that predicts the noise"
    )]
    StepCounts { found: Vec<usize>, executed: usize },
    #[error("{finetuned} fine-tuned steps exceed the {executed} executed steps")]
    Finetuned { finetuned: usize, executed: usize },
    #[error("{name} = {value}: must be finite and positive")]
    NotPositive { name: &'static str, value: f64 },
    #[error("normalizer of {part}: {detail}")]
    Normalizer { part: &'static str, detail: String },
    #[error("pictures.quality = {quality}, but the policy's network sees no pictures: `pictures` does not belong here")]
    SeesNoPictures { quality: Quality },
    #[error("pictures.cameras = {cameras:?}: the policy's network sees through {seen}, each by a name of its own")]
    Cameras { cameras: Vec<String>, seen: usize },
}

impl PolicySpec {
    /// Do: values of one observation.
    pub fn observation_dim(&self) -> usize {
        self.observation.iter().map(|f| f.dim()).sum()
    }

    /// Da: values of one action.
    pub fn action_dim(&self) -> usize {
        self.action.iter().map(|f| f.dim()).sum()
    }

    /// Values of one chunk, Tp · Da, row-major with time outer.
    pub fn chunk_len(&self) -> usize {
        self.prediction_horizon * self.action_dim()
    }

    /// Values of the network's state input, To · Do.
    pub fn state_len(&self) -> usize {
        self.observation_horizon * self.observation_dim()
    }

    /// How chunks are denoised; an error for a policy that is no diffusion.
    pub fn diffusion(&self) -> Result<&Denoising, SpecError> {
        self.denoising.as_ref().ok_or(SpecError::NotDiffusion)
    }

    /// Checks everything that the types do not say.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.spec_version != SPEC_VERSION {
            return Err(SpecError::Version { found: self.spec_version });
        }
        for (name, value) in [
            ("observation_horizon", self.observation_horizon),
            ("prediction_horizon", self.prediction_horizon),
            ("action_horizon", self.action_horizon),
            ("observation", self.observation_dim()),
            ("action", self.action_dim()),
        ] {
            if value == 0 {
                return Err(SpecError::Zero { name });
            }
        }
        if self.action_horizon > self.prediction_horizon {
            return Err(SpecError::Horizon {
                action_horizon: self.action_horizon,
                prediction_horizon: self.prediction_horizon,
            });
        }
        positive("period_s", self.period_s)?;
        if let Some(denoising) = &self.denoising {
            denoising.check()?;
        }
        for (part, limits, fields) in [
            ("observation", &self.normalizer.observation, self.observation_dim()),
            ("action", &self.normalizer.action, self.action_dim()),
        ] {
            if limits.min.len() != fields || limits.max.len() != fields {
                return Err(SpecError::Width { part, fields, limits: limits.min.len().min(limits.max.len()) });
            }
            limits.check().map_err(|detail| SpecError::Normalizer { part, detail })?;
        }
        Ok(())
    }

    /// Checks what is said of pictures against the policy's network. `vision`: how that sees; none where it does not.
    pub fn check_pictures(&self, vision: Option<&VisionSpec>) -> Result<(), SpecError> {
        let Some(PicturesSeen { quality, cameras }) = &self.pictures else { return Ok(()) };
        let seen = vision.ok_or(SpecError::SeesNoPictures { quality: *quality })?.cameras;
        let named = cameras.iter().enumerate().all(|(i, name)| !name.is_empty() && !cameras[..i].contains(name));
        if cameras.len() != seen || !named {
            return Err(SpecError::Cameras { cameras: cameras.clone(), seen });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ddpm(step_counts: &[usize]) -> Denoising {
        Denoising {
            denoising_steps: 20,
            finetuned_steps: 10,
            sampler: Sampler::Ddpm,
            denoised_clip: 1.0,
            noise_clip: 3.0,
            final_action_clip: None,
            prediction: Prediction::Noise,
            step_counts: step_counts.to_vec(),
        }
    }

    #[test]
    fn fewer_steps_use_each_network_at_the_times_that_it_was_made_for() {
        let denoising = ddpm(&[5, 10]);
        denoising.check().unwrap();
        assert_eq!(denoising.counts(), [5, 10, 20]);
        assert_eq!(denoising.steps_in(20), Some(denoising.steps(StepNoise::Evaluation)));
        let five = denoising.steps_in(5).unwrap();
        let of = |finetuned| five.iter().filter(|s| s.finetuned == finetuned).map(|s| s.t).collect::<Vec<_>>();
        assert_eq!((of(false), of(true)), (vec![16, 12], vec![8, 4, 0]));
        assert!(five.iter().all(|step| step.std == 0.0), "nothing is drawn on the way");
        assert_eq!(denoising.steps_in(7), None);
    }

    fn spec(pictures: Option<PicturesSeen>) -> PolicySpec {
        let task = crate::task::TaskName::LiftPixels;
        let limits = |dim| crate::normalizer::Limits::symmetric(1.0, dim);
        PolicySpec {
            spec_version: SPEC_VERSION,
            task: task.to_string(),
            observation: task.observation(),
            action: task.action(),
            observation_horizon: 1,
            prediction_horizon: 4,
            action_horizon: 4,
            period_s: task.period_s(),
            observation_delay_steps: 0,
            denoising: Some(ddpm(&[])),
            normalizer: Normalizer::new(limits(task.observation_dim()), limits(task.action_dim())),
            pictures,
        }
    }

    fn seen(quality: Quality, cameras: &[&str]) -> Option<PicturesSeen> {
        Some(PicturesSeen { quality, cameras: cameras.iter().map(ToString::to_string).collect() })
    }

    #[test]
    fn what_a_policy_saw_is_written_and_read_and_may_be_missing() {
        for (pictures, word) in [(seen(Quality::Fast, &["front"]), true), (None, false)] {
            let text = toml::to_string(&spec(pictures.clone())).unwrap();
            assert_eq!(text.contains("pictures"), word, "{text}");
            assert_eq!(toml::from_str::<PolicySpec>(&text).unwrap(), spec(pictures));
        }
        let text = toml::to_string(&spec(seen(Quality::Fast, &["front"]))).unwrap();
        let error = toml::from_str::<PolicySpec>(&text.replace("\"fast\"", "\"medium\"")).unwrap_err().to_string();
        assert!(error.contains("medium") && error.contains("exact") && error.contains("fast"), "{error}");
    }

    #[test]
    fn pictures_are_those_of_the_network_or_refused() {
        let vision = |cameras| VisionSpec {
            cameras,
            image_px: 96,
            embed_dim: 128,
            heads: 4,
            depth: 1,
            patch_embedding: crate::network::PatchEmbedding::Two,
            patch_norm: false,
            compression: crate::network::Compression::Spatial { dim: 128 },
        };
        let check = |pictures, vision: Option<VisionSpec>| spec(pictures).check_pictures(vision.as_ref());
        assert_eq!(check(None, None), Ok(()));
        assert_eq!(check(None, Some(vision(2))), Ok(()));
        assert_eq!(check(seen(Quality::Exact, &["left", "right"]), Some(vision(2))), Ok(()));
        let blind = check(seen(Quality::Fast, &["front"]), None);
        assert_eq!(blind, Err(SpecError::SeesNoPictures { quality: Quality::Fast }));
        for wrong in [&["left"][..], &[], &["left", "left"], &["left", ""], &["left", "right", "top"]] {
            let refused = check(seen(Quality::Fast, wrong), Some(vision(2)));
            assert!(matches!(refused, Err(SpecError::Cameras { seen: 2, .. })), "{wrong:?}");
        }
    }

    #[test]
    fn step_counts_that_make_no_sense_are_refused() {
        for wrong in [&[1][..], &[10, 5], &[5, 5], &[20], &[21]] {
            let refused = ddpm(wrong).check();
            assert_eq!(refused, Err(SpecError::StepCounts { found: wrong.to_vec(), executed: 20 }));
        }
        assert!(Denoising { prediction: Prediction::Sample, ..ddpm(&[5]) }.check().is_err());
    }

    #[test]
    fn a_policy_without_step_counts_is_written_as_before() {
        let text = toml::to_string(&ddpm(&[])).unwrap();
        assert!(!text.contains("step_counts"), "{text}");
        assert_eq!(toml::from_str::<Denoising>(&text).unwrap(), ddpm(&[]));
    }
}
