//! Episodes as they finish: return, best chunk, success (spec dppo.md §2.4).

use tenon_core::task::{Success, TaskName};
use tenon_sim::batch::ChunkOutcome;

use crate::checkpoint::Checkpoint;
use crate::error::TrainError;

/// What the episodes that finished in one iteration came to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EpisodeStats {
    pub episodes: usize,
    /// None where the task has no success, or no episode finished.
    pub success_rate: Option<f64>,
    /// Mean of the summed rewards; none where no episode finished.
    pub mean_return: Option<f64>,
    /// Mean of each episode's best reward a step over a chunk.
    pub mean_best_reward: Option<f64>,
    /// Control steps.
    pub mean_steps: Option<f64>,
}

/// The running episode of an environment.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Running {
    sum: f64,
    /// Best mean reward a step of a chunk.
    best: f64,
    steps: f64,
}

const BEGUN: Running = Running { sum: 0.0, best: f64::NEG_INFINITY, steps: 0.0 };

/// Follows the episodes of all environments, across iterations.
///
/// The reference counts only episodes that begin and end within one iteration. Here an episode counts where it ends, so
/// none is lost and none is cut.
#[derive(Debug)]
pub struct EpisodeTally {
    success: Success,
    action_horizon: usize,
    running: Vec<Running>,
    finished: Vec<Running>,
}

/// Of the checkpoint: sum, best and steps of each running episode.
const STORED: &str = "running_episodes";

impl EpisodeTally {
    /// For so many environments; `action_horizon` = Ta.
    pub fn new(task: TaskName, action_horizon: usize, environments: usize) -> Self {
        Self { success: task.success(), action_horizon, running: vec![BEGUN; environments], finished: Vec::new() }
    }

    /// All environments begin new episodes; those under way are not counted.
    pub fn begin_anew(&mut self) {
        self.running.fill(BEGUN);
    }

    /// What a chunk brought in an environment.
    pub fn add(&mut self, environment: usize, outcome: &ChunkOutcome) {
        if outcome.steps == 0 {
            // It waits for a reset.
            return;
        }
        let episode = &mut self.running[environment];
        episode.sum += outcome.reward;
        // A chunk that was cut short cannot be one of success.
        episode.best = episode.best.max(outcome.reward / self.action_horizon as f64);
        episode.steps += outcome.steps as f64;
        if outcome.ended() {
            self.finished.push(std::mem::replace(episode, BEGUN));
        }
    }

    /// The episodes that have finished since this was last called.
    pub fn take(&mut self) -> EpisodeStats {
        let finished = std::mem::take(&mut self.finished);
        let n = finished.len();
        let mean = |of: &dyn Fn(&Running) -> f64| (n > 0).then(|| finished.iter().map(of).sum::<f64>() / n as f64);
        let succeeded: Option<Vec<bool>> = finished.iter().map(|e| self.success.holds(e.sum, e.best)).collect();
        EpisodeStats {
            episodes: n,
            success_rate: succeeded
                .filter(|s| !s.is_empty())
                .map(|s| s.iter().filter(|&&s| s).count() as f64 / n as f64),
            mean_return: mean(&|e| e.sum),
            mean_best_reward: mean(&|e| e.best),
            mean_steps: mean(&|e| e.steps),
        }
    }

    /// Adds the running episodes to a checkpoint.
    pub fn store(&self, checkpoint: &mut Checkpoint) {
        let values: Vec<f64> = self.running.iter().flat_map(|e| [e.sum, e.best, e.steps]).collect();
        checkpoint.put_f64(STORED, &values);
    }

    /// Restores what [`EpisodeTally::store`] stored.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let values = checkpoint.f64(STORED)?;
        let (episodes, rest) = values.as_chunks::<3>();
        if episodes.len() != self.running.len() || !rest.is_empty() {
            let detail = format!("{} values for {} environments", values.len(), self.running.len());
            return Err(TrainError::Parameter { name: STORED.into(), detail });
        }
        for (running, &[sum, best, steps]) in self.running.iter_mut().zip(episodes) {
            *running = Running { sum, best, steps };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(reward: f64, steps: usize, ended: bool) -> ChunkOutcome {
        ChunkOutcome { reward, steps, truncated: ended, ..ChunkOutcome::default() }
    }

    #[test]
    fn an_episode_counts_where_it_ends() {
        let mut tally = EpisodeTally::new(TaskName::Hopper, 4, 2);
        tally.add(0, &chunk(3.0, 4, false));
        tally.add(1, &chunk(8.0, 4, false));
        assert_eq!(tally.take(), EpisodeStats::default(), "nothing has finished");
        tally.add(0, &chunk(2.0, 1, true));
        tally.add(0, &chunk(1.0, 4, false));
        let stats = tally.take();
        assert_eq!((stats.episodes, stats.mean_return, stats.mean_steps), (1, Some(5.0), Some(5.0)));
        assert_eq!((stats.success_rate, stats.mean_best_reward), (None, Some(0.75)));
    }

    #[test]
    fn success_needs_a_whole_chunk_of_it() {
        let mut tally = EpisodeTally::new(TaskName::AvoidM1, 4, 2);
        tally.add(0, &chunk(8.0, 4, false));
        tally.add(0, &chunk(0.0, 4, true));
        tally.add(1, &chunk(7.0, 4, false));
        tally.add(1, &chunk(2.0, 1, true));
        tally.add(1, &chunk(0.0, 0, true));
        let stats = tally.take();
        assert_eq!((stats.episodes, stats.success_rate), (2, Some(0.5)));
    }

    #[test]
    fn furniture_counts_what_was_put_together() {
        let mut tally = EpisodeTally::new(TaskName::LampLow, 8, 2);
        for environment in 0..2 {
            tally.add(environment, &chunk(1.0, 8, false));
            tally.add(environment, &chunk(environment as f64, 8, true));
        }
        assert_eq!(tally.take().success_rate, Some(0.5));
    }
}
