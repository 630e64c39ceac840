//! Actions without a policy, to see what a task looks like.

use rand::Rng;
use tenon_core::noise::SeededNoise;
use tenon_core::normalizer::Limits;
use tenon_core::spec::{PolicySpec, SPEC_VERSION};
use tenon_core::task::{TaskFamily, TaskName};
use tenon_sim::gym::CHUNK_STEPS;

use crate::error::TrainError;
use crate::evaluate::ChunkSource;
use crate::network::Observations;

/// Declared bound of Avoid's increments, m (spec sim_tasks.md §4).
const AVOID_INCREMENT_M: f32 = 0.01;

/// Draws every action evenly within its limits.
#[derive(Debug, Clone, Copy)]
pub struct RandomChunks;

impl ChunkSource for RandomChunks {
    fn sample(&mut self, seen: Observations, noise: &mut [SeededNoise], chunks: &mut [f32]) -> Result<(), TrainError> {
        let _ = seen;
        let len = chunks.len() / noise.len().max(1);
        for (chunk, noise) in chunks.chunks_exact_mut(len.max(1)).zip(noise) {
            chunk.fill_with(|| noise.rng().random_range(-1.0..=1.0));
        }
        Ok(())
    }
}

/// What stands in for a policy's definition: chunks as the paper's, actions within ± what the task declares.
///
/// # Errors
/// [`TrainError::Config`] for a task whose actions are poses: random ones mean nothing there.
pub fn random_spec(task: TaskName) -> Result<PolicySpec, TrainError> {
    let bound = match task.family() {
        TaskFamily::Avoid => AVOID_INCREMENT_M,
        TaskFamily::Gym | TaskFamily::Robomimic => 1.0,
        TaskFamily::Furniture => {
            let detail = format!("the actions of {task} are poses in space: random ones mean nothing");
            return Err(TrainError::Config { key: "task", detail });
        }
    };
    let limits = Limits::symmetric(1.0, task.observation_dim());
    Ok(PolicySpec {
        spec_version: SPEC_VERSION,
        task: task.to_string(),
        observation: task.observation(),
        action: task.action(),
        observation_horizon: 1,
        prediction_horizon: CHUNK_STEPS,
        action_horizon: CHUNK_STEPS,
        period_s: task.period_s(),
        observation_delay_steps: task.observation_delay_steps(),
        denoising: None,
        normalizer: task.normalizer(limits, Limits::symmetric(bound, task.action_dim())),
        pictures: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds::Stream;

    #[test]
    fn random_actions_stay_within_what_the_task_declares_and_follow_from_the_seed() {
        let spec = random_spec(TaskName::AvoidM1).unwrap();
        let draw = |seed| {
            let mut chunks = vec![0.0; 2 * spec.chunk_len()];
            let mut noise = [0, 1].map(|episode| Stream::Evaluation(episode).of(seed));
            RandomChunks.sample(Observations { states: &[], images: None }, &mut noise, &mut chunks).unwrap();
            spec.normalizer.denormalize_action(&mut chunks);
            chunks
        };
        let actions = draw(3);
        assert!(actions.iter().all(|a| a.abs() <= 0.0101), "{actions:?}");
        assert!(actions.iter().any(|a| a.abs() > 0.004), "{actions:?}");
        assert_ne!(actions[..8], actions[8..], "two episodes");
        assert_eq!(actions, draw(3));
        assert_ne!(actions, draw(4));
    }

    #[test]
    fn tasks_with_poses_as_actions_are_refused_by_name() {
        let message = random_spec(TaskName::LampLow).unwrap_err().to_string();
        assert!(message.contains("lamp_low"), "{message}");
    }
}
