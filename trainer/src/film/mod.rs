//! Films of episodes: a policy is rolled out as `evaluate` does it, and every episode becomes a video.
//!
//! With the same seed, episode k of a film is episode k of an evaluation: same start, same noise. A frame is taken after
//! each control step, or after every second or third where that would be more than 50 frames a second, so films run as
//! fast as the task does.
//!
//! ```text
//! episode-000.png    animated PNG, always
//! episode-000.mp4    where an ffmpeg program is there
//! index.html         all of them, with what they came to
//! ```

mod apng;
mod mp4;
mod page;
mod random;
mod reel;

use std::path::{Path, PathBuf};

use serde::Serialize;
use tenon_core::randomisation::Randomisation;
use tenon_core::spec::PolicySpec;
use tenon_core::task::TaskName;
use tenon_sim::SimError;
use tenon_sim::render::{Quality, RenderOptions};

pub use apng::{ApngWriter, FrameTime};
pub use mp4::{FFMPEG_VARIABLE, is_available as ffmpeg_is_available};
pub use page::INDEX_FILE;
pub use random::{RandomChunks, random_spec};

use crate::environments::{BatchSettings, TaskBatch};
use crate::error::TrainError;
use crate::evaluate::{ChunkSource, Episode};
use crate::run_dir::{create_folder, write_text};
use crate::seeds::Stream;
pub(crate) use reel::{Camera, Reel};

/// Shortest time from one frame to the next, milliseconds: browsers show films slower that ask for less.
const SHORTEST_FRAME_MS: f64 = 20.0;

/// What to film.
#[derive(Debug, Clone, Copy)]
pub struct FilmOptions<'a> {
    pub task: TaskName,
    pub episodes: usize,
    pub seed: u64,
    pub folder: &'a Path,
    /// Whose episodes they are, for the page.
    pub who: &'a str,
    /// Pixels; even where there is to be an MP4.
    pub width: u32,
    pub height: u32,
    pub quality: Quality,
    /// A camera of the scene instead of the usual one.
    pub camera: Option<&'a str>,
    /// Whether to make an MP4 too.
    pub mp4: bool,
    /// Noise on what is seen and executed.
    pub randomisation: Option<&'a Randomisation>,
    /// What a policy that sees pictures sees; the film is another one.
    pub pictures: Option<&'a RenderOptions>,
}

/// One film.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FilmedEpisode {
    pub episode: usize,
    /// Sum of the rewards.
    pub episode_return: f64,
    pub control_steps: usize,
    /// None where the task has no success.
    pub success: Option<bool>,
    pub frames: u32,
    /// Names in the folder.
    pub png: String,
    pub mp4: Option<String>,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FilmReport {
    pub task: TaskName,
    pub index: PathBuf,
    /// Platform and renderer of OpenGL.
    pub backend: String,
    pub quality: Quality,
    pub width: u32,
    pub height: u32,
    pub frame_ms: u16,
    pub seed: u64,
    pub episodes: Vec<FilmedEpisode>,
}

/// The simulator's complaints about pictures keep their words.
fn drawing(e: SimError) -> TrainError {
    TrainError::Config { key: "pictures", detail: e.to_string() }
}

/// Control steps from one frame to the next, and the time that takes, milliseconds.
pub(crate) fn pace(task: TaskName) -> (usize, u16) {
    let period_ms = 1000.0 * task.period_s();
    let every = (SHORTEST_FRAME_MS / period_ms).ceil().max(1.0);
    (every as usize, (every * period_ms).round().min(f64::from(u16::MAX)) as u16)
}

/// Films episodes number 0, 1, … `None` where `stop` asked to end; `on_steps` is told (episode, control steps so far).
pub fn film(
    source: &mut dyn ChunkSource,
    spec: &PolicySpec,
    options: FilmOptions<'_>,
    stop: &dyn Fn() -> bool,
    on_steps: &mut dyn FnMut(usize, usize),
) -> Result<Option<FilmReport>, TrainError> {
    let settings = BatchSettings { environments: 1, threads: 1, seed: options.seed, auto_reset: false };
    let mut batch = TaskBatch::new(options.task, spec, settings)?;
    if let Some(noise) = options.randomisation {
        batch = batch.randomised(noise.clone());
    }
    if let Some(look) = options.pictures {
        batch = batch.seen_by(look.clone())?;
    }
    create_folder(options.folder)?;
    let every = pace(options.task).0;
    let mut camera = Camera::new(batch.environment_mut(0), &options)?;
    let mut chunks = vec![0.0; spec.chunk_len()];
    let mut episodes = Vec::with_capacity(options.episodes);
    for number in 0..options.episodes {
        batch.begin_episodes(number);
        let mut noise = [Stream::Evaluation(number as u32).of(options.seed)];
        let mut judged = Episode::new();
        let mut reel = Reel::new(&options, number)?;
        reel.add(camera.shoot(batch.environment_mut(0))?)?;
        let mut steps = 0;
        for _ in 0..options.task.episode_steps().div_ceil(spec.action_horizon.max(1)) {
            if stop() {
                return Ok(None);
            }
            source.sample(batch.seen(), &mut noise, &mut chunks)?;
            let mut shot = Ok(());
            batch.step_watched(&chunks, &mut |_, environment, outcome| {
                steps += 1;
                if shot.is_ok() && (steps % every == 0 || outcome.ended()) {
                    shot = camera.shoot(environment).and_then(|picture| reel.add(picture));
                }
            })?;
            shot?;
            let outcome = batch.outcomes()[0];
            judged.add(&outcome, spec.action_horizon);
            on_steps(number, steps);
            if outcome.ended() {
                break;
            }
        }
        let (png, mp4, frames) = reel.finish()?;
        let (episode_return, control_steps) = (judged.sum, judged.steps);
        let success = options.task.success().holds(judged.sum, judged.best);
        episodes.push(FilmedEpisode { episode: number, episode_return, control_steps, success, frames, png, mp4 });
    }
    let report = FilmReport::new(&options, camera.backend(), episodes);
    report.write_index(options.who)?;
    Ok(Some(report))
}

impl FilmReport {
    pub(crate) fn new(options: &FilmOptions, backend: &str, episodes: Vec<FilmedEpisode>) -> Self {
        Self {
            task: options.task,
            index: options.folder.join(INDEX_FILE),
            backend: backend.to_owned(),
            quality: options.quality,
            width: options.width,
            height: options.height,
            frame_ms: pace(options.task).1,
            seed: options.seed,
            episodes,
        }
    }

    /// Writes the page. `who`: whose episodes they are.
    pub(crate) fn write_index(&self, who: &str) -> Result<(), TrainError> {
        write_text(&self.index, &page::index(self, who))
    }

    /// In words.
    pub fn describe(&self) -> String {
        let n = self.episodes.len();
        let mean = self.episodes.iter().map(|e| e.episode_return).sum::<f64>() / n.max(1) as f64;
        let successes = self.episodes.iter().filter(|e| e.success == Some(true)).count();
        let success = match self.episodes.first().and_then(|e| e.success) {
            Some(_) => format!("{successes} of {n} succeeded, "),
            None => String::new(),
        };
        let mut text = format!(
            "{n} episodes of {}: {success}mean return {mean:.1}; drawn by {} ({})",
            self.task, self.backend, self.quality
        );
        for episode in &self.episodes {
            let files = episode.mp4.iter().fold(episode.png.clone(), |files, mp4| format!("{files}, {mp4}"));
            text += &format!(
                "\n  {files}: return {:.1}, {} steps, {} frames",
                episode.episode_return, episode.control_steps, episode.frames
            );
        }
        text + &format!("\nopen {} in a browser", self.index.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn films_run_as_fast_as_the_task_and_no_faster_than_a_browser_plays() {
        assert_eq!(pace(TaskName::AvoidM1), (1, 35));
        assert_eq!(pace(TaskName::Hopper), (3, 24));
        assert_eq!(pace(TaskName::HalfCheetah), (1, 50));
        assert_eq!(pace(TaskName::Lift), (1, 50));
        assert_eq!(pace(TaskName::OneLegLow), (1, 100));
    }
}
