//! DPPO fine-tuning on Avoid: rollouts, updates, evaluations, in the order of specification dppo.md §2.
//!
//! All environments start anew with every iteration, and every iteration trains (the reference's `force_train`), so no
//! state of the simulation outlives an iteration: weights, optimisers, scaler and random streams are all that a
//! checkpoint needs for a run to continue exactly.

mod record;

use std::time::Instant;

use tenon_core::avoid::chunk_succeeds;
use tenon_core::config::TaskConfig;
use tenon_core::diffusion::StepNoise;
use tenon_core::noise::SeededNoise;

pub use record::{Evaluations, IterationRecord, Judgement, NoisePair};

use crate::checkpoint::{Checkpoint, RunInfo, Stage};
use crate::dppo::{ChainSampler, Policy, Rollout, Updater};
use crate::environments::AvoidBatch;
use crate::error::TrainError;
use crate::evaluate::{Evaluation, EvaluationOptions, PolicyChunks, evaluate};
use crate::network::{Critic, NoiseNetwork};
use crate::seeds::Stream;
use crate::settings::{critic_spec, finetune_config};
use crate::workers::Workers;

/// Counter of the checkpoint: control steps of all environments so far.
const ENVIRONMENT_STEPS: &str = "environment_steps";

/// A fine-tuning run.
#[derive(Debug)]
pub struct FinetuneRun {
    run: RunInfo,
    updater: Updater,
    workers: Workers,
    environments: AvoidBatch,
    sampler: ChainSampler,
    rollout: Rollout,
    /// Noise of each environment's chains.
    streams: Vec<SeededNoise>,
    environment_steps: u64,
    threads: usize,
}

impl FinetuneRun {
    /// A fresh run from a pre-trained checkpoint, whose moving average becomes both networks.
    ///
    /// `provenance` is added to what the pre-training recorded about itself.
    pub fn new(
        config: &TaskConfig,
        pretrained: &Checkpoint,
        provenance: impl IntoIterator<Item = (String, String)>,
        threads: usize,
    ) -> Result<Self, TrainError> {
        if pretrained.header.stage != Stage::Pretrain {
            let detail = "fine-tuning starts from a checkpoint of pre-training".into();
            return Err(TrainError::Config { key: "from", detail });
        }
        let mut run = pretrained.header.run.clone();
        if run.network != config.policy.network {
            let detail = "the configuration's network is not the one that was pre-trained".into();
            return Err(TrainError::Config { key: "policy.network", detail });
        }
        run.policy.denoising = config.policy.denoising(config.policy.finetuned_steps);
        run.critic = Some(critic_spec(config));
        for (key, value) in std::mem::take(&mut run.provenance) {
            run.provenance.insert(format!("pretrain.{key}"), value);
        }
        run.provenance.extend(provenance);
        let network = network_of(&run)?;
        let parameters = pretrained.parameters("ema.", network.table())?;
        let streams =
            (0..config.finetune.environments).map(|i| Stream::Policy(i as u32).of(config.finetune.seed)).collect();
        Self::assemble(config, run, network, parameters, streams, threads)
    }

    /// Continues the run of a checkpoint exactly.
    pub fn resume(config: &TaskConfig, checkpoint: &Checkpoint, threads: usize) -> Result<Self, TrainError> {
        let run = checkpoint.header.run.clone();
        let network = network_of(&run)?;
        let parameters = checkpoint.parameters("actor.", network.table())?;
        let streams = (0..config.finetune.environments)
            .map(|i| Ok(SeededNoise::restore(checkpoint.stream(&stream_name(i))?)))
            .collect::<Result<_, TrainError>>()?;
        let mut this = Self::assemble(config, run, network, parameters, streams, threads)?;
        this.updater.restore(checkpoint)?;
        this.environment_steps = checkpoint.counter(ENVIRONMENT_STEPS)?;
        Ok(this)
    }

    fn assemble(
        config: &TaskConfig,
        run: RunInfo,
        network: NoiseNetwork,
        parameters: Vec<f32>,
        streams: Vec<SeededNoise>,
        threads: usize,
    ) -> Result<Self, TrainError> {
        let spec = &run.policy;
        let Some(critic) = &run.critic else {
            return Err(TrainError::Config { key: "critic", detail: "the checkpoint describes no critic".into() });
        };
        let critic = Critic::new(critic, spec.state_len())?;
        let workers = Workers::new(threads)?;
        let count = config.finetune.environments;
        let policy = Policy::from_pretrained(network, parameters, spec.denoising.clone());
        let sampler = ChainSampler::new(&policy, &workers, count);
        let chain_len = (policy.finetuned_steps() + 1) * spec.chunk_len();
        let executed_len = spec.action_horizon * spec.action_dim();
        let settings = finetune_config(config);
        let updater = Updater::new(settings, policy, critic, executed_len, count, config.finetune.seed, &workers)?;
        Ok(Self {
            environments: AvoidBatch::new(spec, count, threads)?,
            rollout: Rollout::new(config.finetune.chunk_steps, count, spec.state_len(), chain_len),
            run,
            updater,
            workers,
            sampler,
            streams,
            environment_steps: 0,
            threads,
        })
    }

    /// Everything that continues this run, between two iterations.
    pub fn checkpoint(&self) -> Checkpoint {
        let mut checkpoint = Checkpoint::new(Stage::Finetune, self.run.clone());
        self.updater.store(&mut checkpoint);
        checkpoint.header.counters.insert(ENVIRONMENT_STEPS.into(), self.environment_steps);
        for (i, stream) in self.streams.iter().enumerate() {
            checkpoint.header.streams.insert(stream_name(i), stream.state());
        }
        checkpoint
    }

    /// Iterations done.
    pub fn iterations_done(&self) -> u64 {
        self.updater.iteration()
    }

    /// What the run is about.
    pub fn run_info(&self) -> &RunInfo {
        &self.run
    }

    /// The policy as it is now.
    pub fn policy(&self) -> &Policy {
        &self.updater.policy
    }

    /// One iteration: reset, collect, update, step the schedules. `None` where `stop` asked to end before the update;
    /// the run then stands as before the iteration, but for its random streams, so it must not be saved.
    pub fn iterate(&mut self, stop: &dyn Fn() -> bool) -> Result<Option<IterationRecord>, TrainError> {
        let (iteration_begun, steps_before) = (Instant::now(), self.environment_steps);
        let Some(collected) = self.collect(stop)? else { return Ok(None) };
        let begun = Instant::now();
        let stats = self.updater.update(&self.workers, &self.rollout)?;
        self.updater.end_iteration();
        Ok(Some(IterationRecord {
            iteration: self.updater.iteration(),
            environment_steps: self.environment_steps,
            success_rate: collected.success_rate,
            mean_reward: collected.mean_reward,
            approx_kl: stats.approx_kl,
            clip_fraction: stats.clip_fraction,
            clip_fraction_per_step: stats.clip_fraction_of_step,
            explained_variance: stats.explained_variance,
            eta: self.updater.config.eta,
            policy_loss: stats.policy_loss,
            value_loss: stats.value_loss,
            actor_learning_rate: stats.actor_lr,
            critic_learning_rate: stats.critic_lr,
            gradient_norm_actor: stats.actor_gradient_norm,
            gradient_norm_critic: stats.critic_gradient_norm,
            minibatches: stats.minibatches,
            stopped_early: stats.stopped_early,
            faults: self.environments.fault_counts().total(),
            seconds_sampling: collected.seconds_sampling,
            seconds_environment: collected.seconds_environment,
            seconds_update: begun.elapsed().as_secs_f64(),
            environment_steps_per_second: (self.environment_steps - steps_before) as f64
                / iteration_begun.elapsed().as_secs_f64().max(f64::MIN_POSITIVE),
        }))
    }

    /// 2., 3., 4. of the iteration: rollouts of all environments from their start, and their statistics.
    fn collect(&mut self, stop: &dyn Fn() -> bool) -> Result<Option<Collected>, TrainError> {
        let (steps, count) = (self.rollout.steps, self.rollout.envs);
        let (state_len, chunk_len) = (self.updater.policy.network.state_len(), self.updater.policy.network.chunk_len());
        let chain_len = self.rollout.chains.len() / (steps * count);
        let mode = self.updater.exploration();
        let mut chunks = vec![0.0; count * chunk_len];
        let (mut success, mut reward_sum) = (vec![false; count], 0.0);
        let (mut seconds_sampling, mut seconds_environment) = (0.0, 0.0);

        self.environments.reset();
        self.rollout.final_states.clear();
        self.rollout.first[..count].fill(true);
        for step in 0..steps {
            if stop() {
                return Ok(None);
            }
            let samples = step * count..(step + 1) * count;
            let states = &mut self.rollout.states[samples.start * state_len..samples.end * state_len];
            states.copy_from_slice(self.environments.states());
            let chains = &mut self.rollout.chains[samples.start * chain_len..samples.end * chain_len];
            let begun = Instant::now();
            let policy = &self.updater.policy;
            self.sampler.sample(&self.workers, policy, mode, &*states, &mut self.streams, chains);
            seconds_sampling += begun.elapsed().as_secs_f64();
            for (chunk, chain) in chunks.chunks_exact_mut(chunk_len).zip(chains.chunks_exact(chain_len)) {
                chunk.copy_from_slice(&chain[chain_len - chunk_len..]);
            }
            let begun = Instant::now();
            self.environments.step(&chunks)?;
            seconds_environment += begun.elapsed().as_secs_f64();
            for (i, outcome) in self.environments.outcomes().iter().enumerate() {
                let sample = samples.start + i;
                self.rollout.rewards[sample] = outcome.reward;
                self.rollout.terminated[sample] = outcome.terminated;
                self.rollout.truncated[sample] = outcome.truncated;
                self.rollout.first[sample + count] = outcome.ended();
                if outcome.truncated && outcome.steps > 0 {
                    let state = self.environments.final_state(i).to_vec();
                    self.rollout.final_states.push((sample, state));
                }
                success[i] |= chunk_succeeds(outcome.reward, outcome.steps);
                reward_sum += outcome.reward;
                self.environment_steps += outcome.steps as u64;
            }
        }
        self.rollout.last_states.copy_from_slice(self.environments.states());
        Ok(Some(Collected {
            success_rate: success.iter().filter(|&&s| s).count() as f64 / count as f64,
            mean_reward: reward_sum / count as f64,
            seconds_sampling,
            seconds_environment,
        }))
    }

    /// Judges the policy under both noises; `None` where `stop` asked to end. `on_episodes(name, done, successes)`.
    pub fn judge(
        &self,
        config: &TaskConfig,
        stop: &dyn Fn() -> bool,
        on_episodes: &mut dyn FnMut(&str, usize, usize),
    ) -> Result<Option<NoisePair>, TrainError> {
        let mut judge_under = |name: &str, noise| -> Result<Option<Evaluation>, TrainError> {
            let options = EvaluationOptions {
                episodes: config.evaluate.episodes,
                seed: config.evaluate.seed,
                environments: config.finetune.environments,
                threads: self.threads,
            };
            let mut source = PolicyChunks::new(self.policy(), &self.workers, noise, options.environments);
            let on_episodes = &mut |done, successes| on_episodes(name, done, successes);
            evaluate(&mut source, &self.run.policy, options, stop, on_episodes)
        };
        let Some(evaluation_noise) = judge_under("evaluation noise", StepNoise::Evaluation)? else { return Ok(None) };
        let training = self.updater.exploration().noise;
        let Some(training_noise) = judge_under("training noise", training)? else { return Ok(None) };
        Ok(Some(NoisePair { evaluation_noise, training_noise }))
    }
}

struct Collected {
    success_rate: f64,
    mean_reward: f64,
    seconds_sampling: f64,
    seconds_environment: f64,
}

fn stream_name(environment: usize) -> String {
    format!("policy.{environment}")
}

fn network_of(run: &RunInfo) -> Result<NoiseNetwork, TrainError> {
    let policy = &run.policy;
    policy.check().map_err(|e| TrainError::Config { key: "policy", detail: e.to_string() })?;
    NoiseNetwork::new(&run.network, policy.state_len(), policy.prediction_horizon, policy.action_dim())
}
