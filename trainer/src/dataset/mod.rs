//! Demonstrations: the `.npz` layout of spec dppo.md §7.1, and the samples of §7.2.
//!
//! `states` and `actions` are stored already normalised, with the limits beside them in `normalization.npz`; nothing is
//! scaled here. A file may hold `images` too. Files are checked once, when opened; a [`Dataset`] is whole.

mod npz;

use std::path::Path;

pub use npz::{read_normalization, write_normalization};

use crate::error::TrainError;

/// Episodes one behind the other, without padding.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Normalised observations, `[frames, state_dim]`.
    pub states: Vec<f32>,
    /// Normalised actions, `[frames, action_dim]`.
    pub actions: Vec<f32>,
    /// Reward of each frame.
    pub rewards: Vec<f32>,
    /// Whether the episode ended in a terminal state with this frame.
    pub terminals: Vec<bool>,
    /// Frames of each episode.
    pub lengths: Vec<usize>,
    /// Do.
    pub state_dim: usize,
    /// Da.
    pub action_dim: usize,
    /// Of policies that see.
    pub pictures: Option<Pictures>,
}

/// What the cameras saw in each frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pictures {
    /// 3 for each camera.
    pub channels: usize,
    /// Side, pixels.
    pub px: usize,
    /// `[frames, channels, px, px]`.
    pub bytes: Vec<u8>,
}

impl Pictures {
    /// Bytes of one frame.
    pub fn frame_len(&self) -> usize {
        self.channels * self.px * self.px
    }

    /// The pictures of a frame.
    pub fn frame(&self, frame: usize) -> &[u8] {
        &self.bytes[frame * self.frame_len()..][..self.frame_len()]
    }
}

/// A training sample: Tp actions from `frame` on, and the To states that end at `frame`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub frame: u32,
    /// First frame of its episode: history before it repeats it.
    pub episode_start: u32,
}

impl Dataset {
    /// Opens `train.npz` and checks everything: shapes, lengths, finite values.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let dataset = npz::read(path)?;
        dataset.check(path)?;
        Ok(dataset)
    }

    /// Writes `train.npz` beside `path` and renames it. The data set is checked first.
    pub fn write(&self, path: &Path) -> Result<(), TrainError> {
        self.check(path)?;
        npz::write(self, path)
    }

    /// Number of frames of all episodes.
    pub fn frames(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// State of a frame.
    pub fn state(&self, frame: usize) -> &[f32] {
        &self.states[frame * self.state_dim..][..self.state_dim]
    }

    /// Every sample of the first `max_episodes` episodes: frame i counts if i + Tp stays within its episode.
    pub fn samples(&self, prediction_horizon: usize, max_episodes: usize) -> Vec<Sample> {
        let mut samples = Vec::new();
        let mut start = 0;
        for &length in self.lengths.iter().take(max_episodes) {
            for offset in 0..(length + 1).saturating_sub(prediction_horizon) {
                samples.push(Sample { frame: (start + offset) as u32, episode_start: start as u32 });
            }
            start += length;
        }
        samples
    }

    /// The Tp actions of a sample, `[prediction_horizon, action_dim]`.
    pub fn chunk(&self, sample: Sample, prediction_horizon: usize) -> &[f32] {
        &self.actions[sample.frame as usize * self.action_dim..][..prediction_horizon * self.action_dim]
    }

    /// Puts the last To = `out.len() / state_dim` states, newest last, into `out`.
    pub fn history(&self, sample: Sample, out: &mut [f32]) {
        let horizon = out.len() / self.state_dim;
        for (i, out) in out.chunks_exact_mut(self.state_dim).enumerate() {
            let age = horizon - 1 - i;
            let frame = (sample.frame as usize).saturating_sub(age).max(sample.episode_start as usize);
            out.copy_from_slice(self.state(frame));
        }
    }

    fn check(&self, path: &Path) -> Result<(), TrainError> {
        let wrong = |array, detail: String| Err(TrainError::Array { path: path.to_owned(), array, detail });
        if self.lengths.is_empty() {
            return wrong("traj_lengths", "there is no episode".into());
        }
        if let Some(episode) = self.lengths.iter().position(|&l| l == 0) {
            return wrong("traj_lengths", format!("episode {episode} has no frame"));
        }
        if self.state_dim == 0 || self.action_dim == 0 {
            let array = if self.state_dim == 0 { "states" } else { "actions" };
            return wrong(array, "rows are empty".into());
        }
        let sum = self.lengths.iter().try_fold(0usize, |sum, &l| sum.checked_add(l));
        for (array, rows) in [
            ("states", self.states.len() / self.state_dim),
            ("actions", self.actions.len() / self.action_dim),
            ("rewards", self.rewards.len()),
            ("terminals", self.terminals.len()),
        ] {
            if Some(rows) != sum {
                let sum = sum.map_or_else(|| "more than memory holds".into(), |s| s.to_string());
                return wrong(array, format!("has {rows} rows, traj_lengths add up to {sum}"));
            }
        }
        if let Some(pictures) = &self.pictures {
            let len = pictures.frame_len();
            if len == 0 || Some(pictures.bytes.len()) != sum.and_then(|s| s.checked_mul(len)) {
                let rows = pictures.bytes.len() / len.max(1);
                let sum = sum.map_or_else(|| "more than memory holds".into(), |s| s.to_string());
                return wrong("images", format!("has {rows} rows of {len} bytes, traj_lengths add up to {sum}"));
            }
        }
        if sum.is_none_or(|s| s > u32::MAX as usize) {
            return wrong("traj_lengths", "more frames than 2³² − 1".into());
        }
        for (array, values, width) in [
            ("states", &self.states, self.state_dim),
            ("actions", &self.actions, self.action_dim),
            ("rewards", &self.rewards, 1),
        ] {
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                let (mut episode, mut frame) = (0, i / width);
                while frame >= self.lengths[episode] {
                    frame -= self.lengths[episode];
                    episode += 1;
                }
                let (path, value) = (path.to_owned(), values[i]);
                return Err(TrainError::NotFinite { path, array, episode, frame, column: i % width, value });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset() -> Dataset {
        let frames = 7;
        Dataset {
            states: (0..2 * frames).map(|i| i as f32).collect(),
            actions: (0..frames).map(|i| -(i as f32)).collect(),
            rewards: vec![0.5; frames],
            terminals: vec![false; frames],
            lengths: vec![4, 1, 2],
            state_dim: 2,
            action_dim: 1,
            pictures: None,
        }
    }

    #[test]
    fn samples_stay_within_their_episode() {
        let d = dataset();
        let frames = |horizon, episodes| -> Vec<u32> { d.samples(horizon, episodes).iter().map(|s| s.frame).collect() };
        assert_eq!(frames(2, 10), [0, 1, 2, 5]);
        assert_eq!(frames(1, 10), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(frames(2, 1), [0, 1, 2]);
        assert_eq!(frames(5, 10), [0u32; 0]);
        assert_eq!(d.chunk(Sample { frame: 5, episode_start: 5 }, 2), [-5.0, -6.0]);
    }

    #[test]
    fn short_history_repeats_the_first_state() {
        let d = dataset();
        let mut out = [0.0; 6];
        d.history(Sample { frame: 1, episode_start: 0 }, &mut out);
        assert_eq!(out, [0.0, 1.0, 0.0, 1.0, 2.0, 3.0]);
        d.history(Sample { frame: 6, episode_start: 5 }, &mut out);
        assert_eq!(out, [10.0, 11.0, 10.0, 11.0, 12.0, 13.0]);
    }

    #[test]
    fn a_written_data_set_reads_back_equal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.npz");
        dataset().write(&path).unwrap();
        assert_eq!(Dataset::open(&path).unwrap(), dataset());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn pictures_read_back_equal_and_must_be_as_many_as_frames() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.npz");
        let bytes: Vec<u8> = (0..7 * 3 * 4).map(|i| i as u8).collect();
        let d = Dataset { pictures: Some(Pictures { channels: 3, px: 2, bytes }), ..dataset() };
        d.write(&path).unwrap();
        let read = Dataset::open(&path).unwrap();
        assert_eq!(read, d);
        assert_eq!(read.pictures.unwrap().frame(1), (12..24).collect::<Vec<u8>>());
        let few = Pictures { channels: 3, px: 2, bytes: vec![0; 6 * 12] };
        let error = Dataset { pictures: Some(few), ..dataset() }.write(&path).unwrap_err().to_string();
        assert!(error.contains("`images`") && error.contains("6 rows"), "{error}");
    }

    #[test]
    fn what_is_wrong_with_a_data_set_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.npz");
        let refused = |d: Dataset| d.write(&path).unwrap_err().to_string();

        let mut d = dataset();
        d.actions[4] = f32::NAN;
        let error = refused(d);
        assert!(error.contains("`actions`, episode 1, frame 0"), "{error}");

        let error = refused(Dataset { lengths: vec![], ..dataset() });
        assert!(error.contains("no episode"), "{error}");

        let error = refused(Dataset { lengths: vec![4, 2], ..dataset() });
        assert!(error.contains("7 rows, traj_lengths add up to 6"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_truncated_file_is_an_error_naming_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.npz");
        dataset().write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for keep in [0, 10, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..keep]).unwrap();
            let error = Dataset::open(&path).unwrap_err().to_string();
            assert!(error.contains("train.npz"), "{error}");
        }
        // A damaged byte in the middle of the data fails its checksum.
        let mut damaged = bytes.clone();
        let middle = bytes.windows(6).position(|w| w == b"states").unwrap() + 200;
        damaged[middle] ^= 0x40;
        std::fs::write(&path, &damaged).unwrap();
        assert!(Dataset::open(&path).is_err());
    }

    #[test]
    fn a_missing_array_and_a_missing_file_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.npz");
        assert!(Dataset::open(&path).unwrap_err().to_string().contains("train.npz"));
        write_normalization(&path, &limits(), &limits()).unwrap();
        let error = Dataset::open(&path).unwrap_err().to_string();
        assert!(error.contains("`states`"), "{error}");
    }

    fn limits() -> tenon_core::normalizer::Limits {
        tenon_core::normalizer::Limits { min: vec![-1.0, 0.0], max: vec![1.0, 3.5] }
    }

    #[test]
    fn normalization_reads_back_equal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("normalization.npz");
        write_normalization(&path, &limits(), &limits()).unwrap();
        assert_eq!(read_normalization(&path).unwrap(), (limits(), limits()));
    }
}
