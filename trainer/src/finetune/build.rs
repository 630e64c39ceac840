//! A run from a pre-trained policy, from scratch, or from a checkpoint of its own.

use std::collections::BTreeMap;

use tenon_core::config::TaskConfig;
use tenon_core::network::{GaussianSpec, PolicyNetwork, StdSpec};
use tenon_core::noise::SeededNoise;
use tenon_core::pictures::Quality;
use tenon_core::spec::PolicySpec;

use super::{Collector, ENVIRONMENT_STEPS, ENVIRONMENTS, EpisodeTally, FinetuneRun, JUDGED_AT, Plan, UNDONE};
use crate::checkpoint::{Checkpoint, RunInfo, Stage};
use crate::dppo::{self, Policy};
use crate::environments::{BatchSettings, PICTURES_KEY, TaskBatch, auto_resets, cameras, look_of, quality_of};
use crate::error::TrainError;
use crate::learner::Learner;
use crate::network::{Critic, GaussianNetwork, NoiseNetwork};
use crate::ppo::{GaussianPolicy, PpoUpdater};
use crate::randomisation::of_rollouts;
use crate::sampling::PretrainedWeights;
use crate::seeds::Stream;
use crate::settings::{dppo_config, ppo_config};
use crate::workers::{Compute, Workers};

/// Bounds that the reference's pre-trained Gaussian policies carry where their deviation is fixed (spec dppo.md §4).
const PRETRAINED_STD_BOUNDS: [f64; 2] = [0.01, 1.0];

/// Where a policy's first weights come from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// [`PretrainedWeights::of_finetuning`] says which of its weights.
    Pretrained(&'a Checkpoint),
    /// Fresh weights; the configuration has the limits of observations and actions.
    Scratch,
}

fn wrong(key: &'static str, detail: impl Into<String>) -> TrainError {
    TrainError::Config { key, detail: detail.into() }
}

impl FinetuneRun {
    /// A fresh run.
    ///
    /// `provenance` is added to what a pre-training recorded about itself; `config_text` is kept in checkpoints.
    pub fn new(
        config: &TaskConfig,
        config_text: String,
        source: Source,
        provenance: impl IntoIterator<Item = (String, String)>,
        compute: impl Into<Compute>,
    ) -> Result<Self, TrainError> {
        let finetune = config.finetune()?;
        let mut network = config.policy.model.network();
        let (normalizer, mut known) = match source {
            Source::Pretrained(checkpoint) => {
                let before = pretrained(checkpoint, config, &network)?;
                if config.compat.std_bounds_of_pretraining {
                    take_std_bounds(&mut network, &before.network);
                }
                let mut known: BTreeMap<String, String> =
                    before.provenance.iter().map(|(key, value)| (format!("pretrain.{key}"), value.clone())).collect();
                known.insert("pretrain.config".into(), before.config.clone());
                // It goes on seeing what it saw, unless somebody wants otherwise.
                known.extend(before.provenance.get(PICTURES_KEY).map(|seen| (PICTURES_KEY.to_string(), seen.clone())));
                (before.policy.normalizer.clone(), known)
            }
            Source::Scratch => {
                let Some(limits) = &config.policy.limits else {
                    return Err(wrong(
                        "policy.limits",
                        "training from scratch has no data to take them from: give them",
                    ));
                };
                (config.task.normalizer(limits.observation.clone(), limits.action.clone()), BTreeMap::new())
            }
        };
        known.extend(provenance);
        if !cameras(config.task).is_empty() {
            // What it is shown where nobody says anything is worth recording too.
            known.entry(PICTURES_KEY.into()).or_insert_with(|| Quality::default().to_string());
        }
        let run = RunInfo {
            policy: config.policy_spec(normalizer, config.policy.finetuned_steps()),
            network,
            critic: Some(finetune.critic.clone()),
            config: config_text,
            provenance: known,
        };
        let workers = Workers::new(compute)?;
        let learner = fresh_learner(config, &run, source, &workers)?;
        let mut this = Self::assemble(config, run, learner, workers)?;
        // What happens in an environment follows from its own streams only.
        this.environments.reset();
        Ok(this)
    }

    /// Continues the run of a checkpoint exactly.
    pub fn resume(
        config: &TaskConfig,
        checkpoint: &Checkpoint,
        compute: impl Into<Compute>,
    ) -> Result<Self, TrainError> {
        let run = checkpoint.header.run.clone();
        let workers = Workers::new(compute)?;
        let mut learner = learner_of(config, &run, &workers)?;
        learner.restore(checkpoint)?;
        let mut this = Self::assemble(config, run, learner, workers)?;
        this.collector.restore(checkpoint)?;
        this.episodes.restore(checkpoint)?;
        this.environments.restore_state(checkpoint.bytes(ENVIRONMENTS)?)?;
        this.environments.restore_noise(checkpoint)?;
        this.environment_steps = checkpoint.counter(ENVIRONMENT_STEPS)?;
        this.undone = checkpoint.counter(UNDONE)?;
        this.judged_at = checkpoint.header.counters.get(JUDGED_AT).copied().unwrap_or(0);
        Ok(this)
    }

    fn assemble(config: &TaskConfig, run: RunInfo, learner: Learner, workers: Workers) -> Result<Self, TrainError> {
        let finetune = config.finetune()?;
        let settings = BatchSettings {
            environments: finetune.environments,
            threads: workers.threads(),
            seed: finetune.seed,
            auto_reset: auto_resets(config.task),
        };
        let streams: Vec<SeededNoise> =
            (0..finetune.environments).map(|i| Stream::Policy(i as u32).of(finetune.seed)).collect();
        let mut environments = TaskBatch::new(config.task, &run.policy, settings)?;
        if let Some(noise) = of_rollouts(config)? {
            environments = environments.randomised(noise);
        }
        if let Some(look) = look_of(config.task, quality_of(&run)?) {
            environments = environments.seen_by(look)?;
        }
        Ok(Self {
            task: config.task,
            plan: Plan::of(config)?,
            environments,
            collector: Collector::new(learner.policy(), &workers, finetune.chunk_steps, streams),
            episodes: EpisodeTally::new(config.task, run.policy.action_horizon, finetune.environments),
            run,
            learner,
            workers,
            environment_steps: 0,
            undone: 0,
            judged_at: 0,
        })
    }
}

/// The reference keeps the bounds of a deviation among the weights, so those of the pre-trained policy come with them.
fn take_std_bounds(network: &mut PolicyNetwork, before: &PolicyNetwork) {
    if let PolicyNetwork::Gaussian(GaussianSpec { std: StdSpec::Learned { min, max, .. }, .. }) = network
        && let PolicyNetwork::Gaussian(GaussianSpec { std: before, .. }) = before
    {
        [*min, *max] = match *before {
            StdSpec::Learned { min, max, .. } | StdSpec::PerState { min, max } => [min, max],
            StdSpec::Fixed { .. } => PRETRAINED_STD_BOUNDS,
        };
    }
}

/// What a pre-trained checkpoint says about itself, if it can be what this run begins with.
fn pretrained<'a>(
    checkpoint: &'a Checkpoint,
    config: &TaskConfig,
    network: &PolicyNetwork,
) -> Result<&'a RunInfo, TrainError> {
    let before = &checkpoint.header.run;
    if checkpoint.header.stage != Stage::Pretrain {
        return Err(wrong("from", "fine-tuning starts from a checkpoint of pre-training"));
    }
    if !network.continues(&before.network) {
        return Err(wrong("policy.model", "the configuration's network is not the one that was pre-trained"));
    }
    if before.policy.prediction_horizon != config.policy.prediction_horizon {
        let detail = format!("{} was pre-trained", before.policy.prediction_horizon);
        return Err(wrong("policy.prediction_horizon", detail));
    }
    Ok(before)
}

fn sizes(policy: &PolicySpec) -> [usize; 3] {
    [policy.state_len(), policy.prediction_horizon, policy.action_dim()]
}

/// The critic of a run.
fn critic_of(run: &RunInfo) -> Result<Critic, TrainError> {
    let Some(critic) = &run.critic else { return Err(wrong("critic", "the checkpoint describes no critic")) };
    Critic::new(critic, run.policy.state_len())
}

fn fresh_learner(config: &TaskConfig, run: &RunInfo, source: Source, workers: &Workers) -> Result<Learner, TrainError> {
    run.policy.check().map_err(|e| wrong("policy", e.to_string()))?;
    let seed = config.finetune()?.seed;
    let [state_len, horizon, action_dim] = sizes(&run.policy);
    let (mut fresh, prefix) = (Stream::ActorWeights.of(seed), PretrainedWeights::of_finetuning(config).prefix());
    match &run.network {
        PolicyNetwork::Diffusion(spec) => {
            let network = NoiseNetwork::new(spec, state_len, horizon, action_dim)?;
            let parameters = match source {
                Source::Pretrained(checkpoint) => checkpoint.parameters(prefix, network.table())?,
                Source::Scratch => network.table().initialise(&mut fresh),
            };
            dppo_learner(config, run, network, parameters, workers)
        }
        PolicyNetwork::Gaussian(spec) => {
            let network = GaussianNetwork::new(spec, state_len, horizon, action_dim)?;
            let clip = config.policy.noise_clip;
            let policy = match source {
                Source::Pretrained(checkpoint) => GaussianPolicy::from_checkpoint(network, checkpoint, prefix, clip)?,
                Source::Scratch => GaussianPolicy::fresh(network, &mut fresh, clip),
            };
            ppo_learner(config, run, policy, workers)
        }
    }
}

/// A learner of the right shape, to be restored into.
fn learner_of(config: &TaskConfig, run: &RunInfo, workers: &Workers) -> Result<Learner, TrainError> {
    let [state_len, horizon, action_dim] = sizes(&run.policy);
    match &run.network {
        PolicyNetwork::Diffusion(spec) => {
            let network = NoiseNetwork::new(spec, state_len, horizon, action_dim)?;
            let parameters = vec![0.0; network.table().len()];
            dppo_learner(config, run, network, parameters, workers)
        }
        PolicyNetwork::Gaussian(spec) => {
            let network = GaussianNetwork::new(spec, state_len, horizon, action_dim)?;
            let parameters = vec![0.0; network.table().len()];
            let policy = GaussianPolicy::from_parameters(network, parameters, config.policy.noise_clip);
            ppo_learner(config, run, policy, workers)
        }
    }
}

fn dppo_learner(
    config: &TaskConfig,
    run: &RunInfo,
    network: NoiseNetwork,
    parameters: Vec<f32>,
    workers: &Workers,
) -> Result<Learner, TrainError> {
    let denoising = run.policy.diffusion().map_err(|e| wrong("policy", e.to_string()))?.clone();
    let policy = Policy::from_pretrained(network, parameters, denoising);
    let executed_len = run.policy.action_horizon * run.policy.action_dim();
    let (settings, finetune) = (dppo_config(config)?, config.finetune()?);
    let (envs, seed) = (finetune.environments, finetune.seed);
    let updater = dppo::Updater::new(settings, policy, critic_of(run)?, executed_len, envs, seed, workers)?;
    Ok(Learner::Dppo(Box::new(updater)))
}

fn ppo_learner(
    config: &TaskConfig,
    run: &RunInfo,
    policy: GaussianPolicy,
    workers: &Workers,
) -> Result<Learner, TrainError> {
    if run.policy.action_horizon != run.policy.prediction_horizon {
        return Err(wrong("policy.action_horizon", "a Gaussian policy executes its whole chunk: Ta = Tp"));
    }
    let finetune = config.finetune()?;
    let (envs, seed) = (finetune.environments, finetune.seed);
    let updater = PpoUpdater::new(ppo_config(config)?, policy, critic_of(run)?, envs, seed, workers)?;
    Ok(Learner::Ppo(Box::new(updater)))
}
