//! Scripted experts: they see what a policy sees and act as a person at a teleoperation device would, roughly.
//!
//! Each episode has a manner of its own ([`Manner`]): speed, unsteadiness, pauses, how exactly things are gripped, and on
//! which of the ways that a task leaves open it is done. An expert that loses a thing tries again, as people do; one that
//! does not succeed within the episode is a failure, and what becomes of those is the caller's choice.

mod can;
mod errand;
mod hand;
mod lift;
mod square;
mod transport;

use tenon_core::noise::SeededNoise;

use super::RobomimicTask;
pub use hand::Manner;

/// The expert of one task.
#[derive(Debug)]
pub struct Expert {
    task: RobomimicTask,
    noise: SeededNoise,
    plan: Plan,
}

#[derive(Debug)]
enum Plan {
    Lift(errand::PickAndPlace<lift::Lift>),
    Can(errand::PickAndPlace<can::Can>),
    Square(errand::PickAndPlace<square::Square>),
    Transport(transport::Transport),
}

impl Expert {
    /// An expert for one episode. Everything random about it follows from `seed` and `stream`.
    ///
    /// `observation`: the episode's first.
    pub fn new(task: RobomimicTask, seed: u64, stream: u64, observation: &[f64]) -> Self {
        let mut noise = SeededNoise::new(seed, stream);
        let rng = noise.rng();
        let manner = Manner::draw(rng);
        let plan = match task {
            RobomimicTask::Lift => Plan::Lift(errand::PickAndPlace::new(lift::Lift::draw(rng), manner, observation)),
            RobomimicTask::Can => Plan::Can(errand::PickAndPlace::new(can::Can::draw(rng), manner, observation)),
            RobomimicTask::Square => {
                Plan::Square(errand::PickAndPlace::new(square::Square::draw(rng), manner, observation))
            }
            RobomimicTask::Transport => Plan::Transport(transport::Transport::new(manner, observation, rng)),
        };
        Self { task, noise, plan }
    }

    /// What it is about, in a word or two for each arm.
    pub fn status(&self) -> String {
        match &self.plan {
            Plan::Lift(plan) => plan.status(),
            Plan::Can(plan) => plan.status(),
            Plan::Square(plan) => plan.status(),
            Plan::Transport(plan) => plan.status(),
        }
    }

    /// The action for what is observed now, within ±1.
    pub fn act(&mut self, observation: &[f64], action: &mut [f64]) {
        debug_assert_eq!(observation.len(), self.task.observation_dim());
        let rng = self.noise.rng();
        match &mut self.plan {
            Plan::Lift(plan) => action.copy_from_slice(&plan.act(observation, rng)),
            Plan::Can(plan) => action.copy_from_slice(&plan.act(observation, rng)),
            Plan::Square(plan) => action.copy_from_slice(&plan.act(observation, rng)),
            Plan::Transport(plan) => plan.act(observation, rng, action),
        }
        action.iter_mut().for_each(|value| *value = value.clamp(-1.0, 1.0));
    }
}
