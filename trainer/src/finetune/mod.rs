//! Fine-tuning, and training from scratch: rollouts, updates, evaluations, in the order of specification dppo.md §2.
//!
//! A checkpoint between two iterations holds weights, optimisers, schedules, reward scaler, random streams, the states
//! of the environments and the episodes under way: all that a run needs to continue exactly.

mod build;
mod collect;
mod episodes;
mod record;

use std::time::Instant;

use tenon_core::config::{OnNumericalError, TaskConfig};
use tenon_core::randomisation::Randomisation;
use tenon_core::task::{Success, TaskName};

pub use build::Source;
pub use collect::{CollectTimes, Collector};
pub use episodes::{EpisodeStats, EpisodeTally};
pub use record::{EvaluationRecord, Evaluations, Goal, IterationRecord, Judgement, NoisePair, TrainingRecord};

use crate::checkpoint::{Checkpoint, RunInfo, Stage};
use crate::environments::{TaskBatch, look_of, quality_of};
use crate::error::TrainError;
use crate::evaluate::{Evaluation, EvaluationOptions, PolicyChunks, evaluate};
use crate::learner::Learner;
use crate::sampling::{ChunkMode, PolicyRef};
use crate::workers::Workers;

/// Counters of the checkpoint: control steps of all environments so far, iterations that were undone, and the iteration
/// after which the policy was last judged (none where it never was).
const ENVIRONMENT_STEPS: &str = "environment_steps";
const UNDONE: &str = "undone";
const JUDGED_AT: &str = "judged_at";
/// Judging costs as much as several iterations: at least so many lie between two.
const ITERATIONS_BETWEEN_JUDGEMENTS: u64 = 3;
/// Of the checkpoint: the environments, in the simulation's own form.
const ENVIRONMENTS: &str = "environments";
/// So many iterations in a row that come to nothing stop a run in any case.
const MOST_UNDONE_IN_A_ROW: u32 = 5;
/// Success rate that a task with success should reach under both noises.
const SUCCESS_GOAL: f64 = 0.95;

/// A run of fine-tuning or of training from scratch.
#[derive(Debug)]
pub struct FinetuneRun {
    run: RunInfo,
    task: TaskName,
    plan: Plan,
    learner: Learner,
    workers: Workers,
    environments: TaskBatch,
    collector: Collector,
    episodes: EpisodeTally,
    environment_steps: u64,
    undone: u64,
    judged_at: u64,
}

/// Which iterations do what.
#[derive(Debug, Clone, Copy)]
struct Plan {
    reset_every_iteration: bool,
    evaluate_every: u64,
    no_reset_after_evaluation: bool,
    on_numerical_error: OnNumericalError,
}

impl Plan {
    fn of(config: &TaskConfig) -> Result<Self, TrainError> {
        let c = config.finetune()?;
        Ok(Self {
            reset_every_iteration: c.reset_every_iteration,
            evaluate_every: c.evaluate_every as u64,
            no_reset_after_evaluation: config.compat.no_reset_after_evaluation,
            on_numerical_error: c.on_numerical_error,
        })
    }

    /// Whether an iteration, counted from 0, evaluates.
    fn evaluates(&self, iteration: u64) -> bool {
        self.evaluate_every > 0 && iteration.is_multiple_of(self.evaluate_every)
    }

    /// Whether the environments start anew before an iteration.
    fn resets(&self, iteration: u64) -> bool {
        let after_evaluation = iteration > 0 && self.evaluates(iteration - 1) && !self.no_reset_after_evaluation;
        iteration == 0 || self.reset_every_iteration || self.evaluates(iteration) || after_evaluation
    }
}

/// What a rollout that went to its end brought.
struct Collected {
    episodes: EpisodeStats,
    times: CollectTimes,
}

impl FinetuneRun {
    /// Everything that continues this run, between two iterations.
    pub fn checkpoint(&self) -> Checkpoint {
        let mut checkpoint = Checkpoint::new(Stage::Finetune, self.run.clone());
        self.learner.store(&mut checkpoint);
        self.collector.store(&mut checkpoint);
        self.episodes.store(&mut checkpoint);
        checkpoint.put_bytes(ENVIRONMENTS, self.environments.save_state());
        self.environments.store_noise(&mut checkpoint);
        checkpoint.header.counters.insert(ENVIRONMENT_STEPS.into(), self.environment_steps);
        checkpoint.header.counters.insert(UNDONE.into(), self.undone);
        if self.judged_at > 0 {
            checkpoint.header.counters.insert(JUDGED_AT.into(), self.judged_at);
        }
        checkpoint
    }

    /// Iterations done.
    pub fn iterations_done(&self) -> u64 {
        self.learner.iteration()
    }

    /// What the run is about.
    pub fn run_info(&self) -> &RunInfo {
        &self.run
    }

    /// The policy as it is now.
    pub fn policy(&self) -> PolicyRef<'_> {
        self.learner.policy()
    }

    /// What the run should reach: its own return, or the success of a task that has one.
    pub fn goal(&self, config: &TaskConfig) -> Option<Goal> {
        let own = config.finetune.as_ref().and_then(|c| c.stop_at_return).map(Goal::Return);
        own.or(match self.task.success() {
            Success::None => None,
            Success::ChunkReward(_) | Success::EpisodeReturn(_) => Some(Goal::SuccessRate(SUCCESS_GOAL)),
        })
    }

    /// Notes, of an iteration that has just ended, that the policy is to be judged, where it seems to have reached `goal`
    /// and was not judged a short while ago. A checkpoint that is written from here on knows it.
    pub fn plan_judgement(&mut self, goal: Goal, record: &IterationRecord) {
        let due = record.iteration >= self.judged_at + ITERATIONS_BETWEEN_JUDGEMENTS;
        if due && goal.seems_reached(record) {
            self.judged_at = record.iteration;
        }
    }

    /// Whether the policy is to be judged before the next iteration. A run that was killed while it judged, or before, is
    /// told so again once it is resumed, so that it ends after the same iteration as one that nobody disturbed.
    pub fn judges_now(&self) -> bool {
        self.judged_at > 0 && self.judged_at == self.iterations_done()
    }

    /// One iteration: collect, then update or only judge, step the schedules. `None` where `stop` asked to end before
    /// its end; the run must then not be saved, for its environments and random streams have moved on.
    ///
    /// `on_undone` is told of iterations that were undone, where the configuration lets the run go on.
    ///
    /// # Errors
    /// Where something is not finite, with everything that learns as it was before the iteration.
    pub fn iterate(
        &mut self,
        stop: &dyn Fn() -> bool,
        on_undone: &mut dyn FnMut(&TrainError),
    ) -> Result<Option<IterationRecord>, TrainError> {
        let mut undone_in_a_row = 0;
        let mut forced_reset = false;
        loop {
            match self.try_iteration(forced_reset, stop) {
                Err(error @ TrainError::Numerical { .. })
                    if self.plan.on_numerical_error == OnNumericalError::Continue
                        && undone_in_a_row < MOST_UNDONE_IN_A_ROW =>
                {
                    // The learner stands as before; the episodes it was learning from are given up.
                    on_undone(&error);
                    undone_in_a_row += 1;
                    self.undone += 1;
                    forced_reset = true;
                }
                other => return other,
            }
        }
    }

    fn try_iteration(
        &mut self,
        forced_reset: bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<IterationRecord>, TrainError> {
        let (begun, iteration) = (Instant::now(), self.learner.iteration());
        let evaluates = self.plan.evaluates(iteration);
        self.environments.show_noise(!evaluates || self.evaluation_noise().is_some());
        if forced_reset || self.plan.resets(iteration) {
            self.environments.reset();
            self.collector.episodes_begin();
            self.episodes.begin_anew();
            self.episodes.take();
        }
        let mode = if evaluates { self.learner.evaluation_mode() } else { self.learner.training_mode() };
        let steps_before = self.environment_steps;
        let Some(collected) = self.collect(mode, !evaluates, stop)? else { return Ok(None) };
        let (mut training, mut evaluation) = (None, None);
        if evaluates {
            // A policy of NaN would only show as faults of the simulation.
            self.collector.rollout().check_finite()?;
            evaluation = Some(EvaluationRecord::new(collected.episodes));
        } else {
            let update_begun = Instant::now();
            let update = self.learner.update(&self.workers, self.collector.rollout());
            let stats = update.inspect_err(|_| self.environment_steps = steps_before)?;
            training = Some(TrainingRecord::new(collected.episodes, stats, update_begun.elapsed().as_secs_f64()));
        }
        self.learner.end_iteration();
        let rate =
            (self.environment_steps - steps_before) as f64 / begun.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        Ok(Some(IterationRecord {
            iteration: self.learner.iteration(),
            environment_steps: self.environment_steps,
            training,
            evaluation,
            faults: self.environments.fault_counts().total(),
            undone: self.undone,
            seconds_sampling: collected.times.sampling.wall.as_secs_f64(),
            seconds_environment: collected.times.environment.wall.as_secs_f64(),
            seconds_pictures: collected.times.pictures.map(|time| time.as_secs_f64()),
            environment_steps_per_second: rate,
        }))
    }

    /// 3., 4. of the iteration: a rollout of all environments from where they stand, and its episodes.
    fn collect(
        &mut self,
        mode: ChunkMode,
        counts: bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Collected>, TrainError> {
        let (episodes, mut steps) = (&mut self.episodes, 0);
        let policy = self.learner.policy();
        let times = self.collector.collect(
            &self.workers,
            policy,
            mode,
            &mut self.environments,
            stop,
            &mut |environment, outcome| {
                episodes.add(environment, outcome);
                steps += outcome.steps as u64;
            },
        )?;
        if counts {
            self.environment_steps += steps;
        }
        Ok(times.map(|times| Collected { episodes: self.episodes.take(), times }))
    }

    /// Randomisation of evaluations, where they have it.
    fn evaluation_noise(&self) -> Option<&Randomisation> {
        self.environments.randomisation().filter(|noise| noise.evaluation)
    }

    /// Judges the policy under both noises; `None` where `stop` asked to end. `on_episodes(name, done, evaluation so far)`.
    pub fn judge(
        &self,
        config: &TaskConfig,
        stop: &dyn Fn() -> bool,
        on_episodes: &mut dyn FnMut(&str, usize, &Evaluation),
    ) -> Result<Option<NoisePair>, TrainError> {
        let environments = config.finetune()?.environments;
        let look = look_of(self.task, quality_of(&self.run)?);
        let mut judge_under = |name: &str, mode| -> Result<Option<Evaluation>, TrainError> {
            let options = EvaluationOptions {
                task: self.task,
                episodes: config.evaluate.episodes,
                seed: config.evaluate.seed,
                environments,
                threads: self.workers.threads(),
                randomisation: self.evaluation_noise(),
                pictures: look.as_ref(),
            };
            let mut source = PolicyChunks::new(self.policy(), &self.workers, mode, options.environments);
            let on_episodes = &mut |done, so_far: &Evaluation| on_episodes(name, done, so_far);
            evaluate(&mut source, &self.run.policy, options, stop, on_episodes)
        };
        let evaluation = judge_under("evaluation noise", self.learner.evaluation_mode())?;
        let Some(evaluation_noise) = evaluation else { return Ok(None) };
        let Some(training_noise) = judge_under("training noise", self.learner.training_mode())? else {
            return Ok(None);
        };
        Ok(Some(NoisePair { evaluation_noise, training_noise }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GYM: Plan = Plan {
        reset_every_iteration: false,
        evaluate_every: 10,
        no_reset_after_evaluation: false,
        on_numerical_error: OnNumericalError::Stop,
    };

    #[test]
    fn every_tenth_iteration_evaluates_and_training_does_not_go_on_with_its_episodes() {
        let of =
            |n: u64, test: fn(&Plan, u64) -> bool, plan: Plan| (0..n).filter(|&i| test(&plan, i)).collect::<Vec<_>>();
        assert_eq!(of(22, Plan::evaluates, GYM), [0, 10, 20]);
        assert_eq!(of(22, Plan::resets, GYM), [0, 1, 10, 11, 20, 21]);
        let compat = Plan { no_reset_after_evaluation: true, ..GYM };
        assert_eq!(of(22, Plan::resets, compat), [0, 10, 20]);
        let none = Plan { evaluate_every: 0, ..GYM };
        assert_eq!(of(22, Plan::evaluates, none), [0u64; 0]);
        assert_eq!(of(22, Plan::resets, none), [0]);
        assert_eq!(of(3, Plan::resets, Plan { reset_every_iteration: true, ..none }), [0, 1, 2]);
    }
}
