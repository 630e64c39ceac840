//! What cameras see of a batch of environments, for policies that see pictures (spec sim_tasks.md §3.8).

use std::time::Duration;

use tenon_core::pictures::PicturesSeen;
use tenon_core::task::TaskName;
use tenon_sim::batch::{BatchEnv, BatchPictures};
use tenon_sim::render::{Quality, RenderOptions};

use super::{TaskEnv, simulation};
use crate::checkpoint::RunInfo;
use crate::error::TrainError;

/// Key of a run's provenance: the quality of the pictures that its policy saw, `exact` or `fast`.
pub const PICTURES_KEY: &str = "pictures";

/// Names of the cameras that a task's policies see through, in the order of their pictures.
pub fn cameras(task: TaskName) -> &'static [&'static str] {
    match task {
        TaskName::LiftPixels | TaskName::CanPixels => &["robot0_eye_in_hand"],
        TaskName::SquarePixels => &["agentview"],
        TaskName::TransportPixels => &["shouldercamera0", "shouldercamera1"],
        _ => &[],
    }
}

/// The quality that a run recorded; those that recorded none saw exact pictures.
///
/// # Errors
/// [`TrainError::Config`] for a quality that this release does not know.
pub fn quality_of(run: &RunInfo) -> Result<Quality, TrainError> {
    Ok(recorded_quality(run)?.unwrap_or_default())
}

fn recorded_quality(run: &RunInfo) -> Result<Option<Quality>, TrainError> {
    let parse = |name: &String| name.parse().map_err(|detail| TrainError::Config { key: PICTURES_KEY, detail });
    run.provenance.get(PICTURES_KEY).map(parse).transpose()
}

/// What a run recorded of the pictures that its policy saw, as the policy's definition has it; none where it recorded
/// nothing.
///
/// # Errors
/// [`TrainError::Config`] for a quality that this release does not know, or a task without cameras.
pub fn pictures_seen(run: &RunInfo) -> Result<Option<PicturesSeen>, TrainError> {
    let Some(quality) = recorded_quality(run)? else { return Ok(None) };
    let names = TaskName::from_name(&run.policy.task).map_or(&[][..], cameras);
    if names.is_empty() {
        let detail = format!("the run records {quality} ones, but policies of {} see none", run.policy.task);
        return Err(TrainError::Config { key: PICTURES_KEY, detail });
    }
    Ok(Some(PicturesSeen { quality, cameras: names.iter().map(ToString::to_string).collect() }))
}

/// What the policies of a task see; `None` where they see no pictures.
pub fn look_of(task: TaskName, quality: Quality) -> Option<RenderOptions> {
    match cameras(task) {
        [] => None,
        cameras => Some(RenderOptions::of_policies(cameras, quality)),
    }
}

/// The same for a policy that says through which cameras it saw.
pub fn look_of_policy(task: TaskName, seen: Option<&PicturesSeen>, quality: Quality) -> Option<RenderOptions> {
    match seen {
        Some(seen) => Some(RenderOptions::of_policies(&seen.cameras, quality)),
        None => look_of(task, quality),
    }
}

/// The pictures of a batch.
#[derive(Debug)]
pub(super) struct Pictures {
    drawing: BatchPictures,
    /// `[environments, views · 3, height, width]`: what is seen next, and what was seen last of ended episodes.
    now: Vec<u8>,
    last: Vec<u8>,
    /// What went wrong where nobody could be told.
    failure: Option<TrainError>,
}

impl Pictures {
    pub fn new(look: RenderOptions, environments: usize, threads: usize) -> Result<Self, TrainError> {
        let drawing = BatchPictures::new(look, threads).map_err(simulation)?;
        let len = environments * drawing.len_of_one();
        Ok(Self { drawing, now: vec![0; len], last: vec![0; len], failure: None })
    }

    /// Draws all environments.
    pub fn draw(&mut self, batch: &mut BatchEnv<TaskEnv>) {
        if let Err(error) = batch.render(&self.drawing, &mut self.now) {
            self.failure.get_or_insert(simulation(error));
        }
    }

    /// Tells what went wrong before.
    pub fn check(&mut self) -> Result<(), TrainError> {
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Steps the environments and draws them.
    pub fn step(&mut self, batch: &mut BatchEnv<TaskEnv>, actions: &[f64]) -> Result<(), TrainError> {
        batch.step_chunk_seen(actions, &self.drawing, &mut self.now, &mut self.last).map_err(simulation)
    }

    pub fn time_drawing(&self) -> Duration {
        self.drawing.time_drawing()
    }

    pub fn now(&self) -> &[u8] {
        &self.now
    }

    pub fn last(&self, environment: usize) -> &[u8] {
        let len = self.drawing.len_of_one();
        &self.last[environment * len..][..len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_that_is_seen_by_cameras_has_as_many_as_its_networks_expect() {
        for task in TaskName::ALL {
            assert_eq!(cameras(task).len(), task.cameras(), "{task}");
            assert_eq!(look_of(task, Quality::Fast).is_some(), task.cameras() > 0, "{task}");
        }
    }

    #[test]
    fn a_policy_is_shown_what_it_says_that_it_saw() {
        let seen = PicturesSeen { quality: Quality::Fast, cameras: vec!["frontview".into()] };
        let look = look_of_policy(TaskName::LiftPixels, Some(&seen), seen.quality).unwrap();
        assert_eq!(look, RenderOptions::of_policies(&["frontview"], Quality::Fast));
        let usual = look_of_policy(TaskName::LiftPixels, None, Quality::Exact);
        assert_eq!(usual, look_of(TaskName::LiftPixels, Quality::Exact));
        assert_eq!(look_of_policy(TaskName::Lift, None, Quality::Exact), None);
    }
}
