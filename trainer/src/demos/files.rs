//! The folder of demonstrations, and the `.npz` reading and writing that it needs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use ndarray_npz::ndarray::{ArrayView1, ArrayView2, Dimension, OwnedRepr};
use ndarray_npz::ndarray_npy::{ReadNpyError, ReadableElement};
use ndarray_npz::{NpzReader, NpzWriter, ReadNpzError};
use serde::{Deserialize, Serialize};
use tenon_core::avoid::{ACTION_DIM, OBSERVATION_DIM};
use tenon_core::config::TaskName;
use tenon_core::normalizer::{Limits, Normalizer};

use super::{Alignment, Episode, Source, select, selection_of};
use crate::dataset::{Dataset, write_normalization};
use crate::error::TrainError;
use crate::run_dir::{create_folder, sha256_of, write_json};

/// `summary.json` of a folder of demonstrations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub task: String,
    pub source: Source,
    /// Which observation `train.npz` pairs with an action.
    pub alignment: Alignment,
    pub episodes: usize,
    pub steps: usize,
    /// Episodes by mode index; `undecided` for those that do not pass all three rows.
    pub modes: BTreeMap<String, usize>,
    /// Of the task's selection.
    pub selected_episodes: usize,
    pub selected_steps: usize,
    /// Drawn paths that were thrown away because the rod touched an obstacle.
    pub rejected_collisions: usize,
    /// Drawn paths of another mode or length.
    pub rejected_others: usize,
    /// Shortest, mean and longest episode, steps.
    pub steps_per_episode: [f64; 3],
    pub seed: Option<u64>,
    pub seconds: f64,
    /// Of `train.npz`.
    pub sha256: String,
}

/// What the summary says beyond the episodes.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    pub source: Source,
    pub alignment: Alignment,
    pub seed: Option<u64>,
    pub rejected_collisions: usize,
    pub rejected_others: usize,
    pub seconds: f64,
}

/// Writes `all.npz`, `train.npz`, `normalization.npz` and `summary.json` into `folder`.
pub fn write(folder: &Path, task: TaskName, episodes: &[Episode], origin: Origin) -> Result<Summary, TrainError> {
    create_folder(folder)?;
    let selected = select(episodes, selection_of(task)?);
    if selected.is_empty() {
        let detail = format!("none of {} episodes belongs to {}; nothing to train on", episodes.len(), task.as_str());
        return Err(TrainError::Config { key: "demos", detail });
    }
    write_all(&folder.join("all.npz"), episodes)?;

    let mut states: Vec<f32> =
        selected.iter().flat_map(|e| e.training_observations(origin.alignment).into_flattened()).collect();
    let mut actions: Vec<f32> = selected.iter().flat_map(|e| e.actions.iter().flatten().copied()).collect();
    let normalizer = Normalizer::new(Limits::of_rows(&states, OBSERVATION_DIM), Limits::of_rows(&actions, ACTION_DIM));
    normalizer.normalize_observation(&mut states);
    normalizer.normalize_action(&mut actions);
    let frames = selected.iter().map(|e| e.steps()).sum();
    let train = Dataset {
        states,
        actions,
        rewards: selected.iter().flat_map(|e| e.rewards()).collect(),
        terminals: vec![false; frames],
        lengths: selected.iter().map(|e| e.steps()).collect(),
        state_dim: OBSERVATION_DIM,
        action_dim: ACTION_DIM,
        pictures: None,
    };
    let train_path = folder.join("train.npz");
    train.write(&train_path)?;
    write_normalization(&folder.join("normalization.npz"), &normalizer.observation, &normalizer.action)?;

    let mut modes = BTreeMap::new();
    for episode in episodes {
        // Two digits, so that the keys sort as the modes do.
        let key = episode.mode.map_or_else(|| "undecided".to_string(), |m| format!("{:02}", m.index()));
        *modes.entry(key).or_insert(0) += 1;
    }
    let steps: usize = episodes.iter().map(Episode::steps).sum();
    let extreme =
        |pick: fn(usize, usize) -> usize| episodes.iter().map(Episode::steps).reduce(pick).unwrap_or(0) as f64;
    let summary = Summary {
        task: task.as_str().to_string(),
        source: origin.source,
        alignment: origin.alignment,
        episodes: episodes.len(),
        steps,
        modes,
        selected_episodes: selected.len(),
        selected_steps: frames,
        rejected_collisions: origin.rejected_collisions,
        rejected_others: origin.rejected_others,
        steps_per_episode: [extreme(usize::min), steps as f64 / episodes.len().max(1) as f64, extreme(usize::max)],
        seed: origin.seed,
        seconds: origin.seconds,
        sha256: sha256_of(&train_path)?,
    };
    write_json(&folder.join("summary.json"), &summary)?;
    Ok(summary)
}

/// Every episode in physical units: `states`, `actions`, `traj_lengths`, `modes` (−1 where undecided).
fn write_all(path: &Path, episodes: &[Episode]) -> Result<(), TrainError> {
    let states: Vec<f32> = episodes.iter().flat_map(|e| e.observations.iter().flatten().copied()).collect();
    let actions: Vec<f32> = episodes.iter().flat_map(|e| e.actions.iter().flatten().copied()).collect();
    let lengths: Vec<i64> = episodes.iter().map(|e| e.steps() as i64).collect();
    let modes: Vec<i64> = episodes.iter().map(|e| e.mode.map_or(-1, |m| m.index() as i64)).collect();
    let frames = actions.len() / ACTION_DIM;
    let fail = |e: &dyn std::fmt::Display| TrainError::file(path, format!("cannot be written: {e}"));
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|e| fail(&e))?;
    let mut npz = NpzWriter::new(BufWriter::new(file.as_file_mut()));
    let states = ArrayView2::from_shape((frames, OBSERVATION_DIM), &states).map_err(|e| fail(&e))?;
    let actions = ArrayView2::from_shape((frames, ACTION_DIM), &actions).map_err(|e| fail(&e))?;
    npz.add_array("states.npy", &states).map_err(|e| fail(&e))?;
    npz.add_array("actions.npy", &actions).map_err(|e| fail(&e))?;
    npz.add_array("traj_lengths.npy", &ArrayView1::from(&lengths[..])).map_err(|e| fail(&e))?;
    npz.add_array("modes.npy", &ArrayView1::from(&modes[..])).map_err(|e| fail(&e))?;
    npz.finish().map_err(|e| fail(&e))?.flush().map_err(|e| fail(&e))?;
    file.persist(path).map_err(|e| fail(&e.error))?;
    Ok(())
}

/// Shape and values of an array.
type Found<T> = (Vec<usize>, Vec<T>);

/// An `.npz` that is being read; errors name file and array.
pub(super) struct NpzFile<'a> {
    path: &'a Path,
    reader: NpzReader<BufReader<File>>,
}

impl<'a> NpzFile<'a> {
    pub fn open(path: &'a Path) -> Result<Self, TrainError> {
        let file = File::open(path).map_err(|e| TrainError::file(path, e))?;
        let reader = NpzReader::new(BufReader::new(file))
            .map_err(|e| TrainError::file(path, format!("not a whole .npz file: {e}; copy or record it again")))?;
        Ok(Self { path, reader })
    }

    /// Shape and values; `None` where the elements have another type.
    fn typed<T: ReadableElement + Clone, D: Dimension>(
        &mut self,
        array: &'static str,
    ) -> Result<Option<Found<T>>, TrainError> {
        match self.reader.by_name::<OwnedRepr<T>, D>(&format!("{array}.npy")) {
            Ok(a) => Ok(Some((a.shape().to_vec(), a.iter().cloned().collect()))),
            Err(ReadNpzError::Npy(ReadNpyError::WrongDescriptor(_))) => Ok(None),
            Err(e) => Err(TrainError::Array { path: self.path.to_owned(), array, detail: e.to_string() }),
        }
    }

    pub fn floats<D: Dimension>(&mut self, array: &'static str) -> Result<Found<f32>, TrainError> {
        if let Some(found) = self.typed::<f32, D>(array)? {
            return Ok(found);
        }
        match self.typed::<f64, D>(array)? {
            Some((shape, values)) => Ok((shape, values.into_iter().map(|v| v as f32).collect())),
            None => Err(self.wrong_type(array, "float32 or float64")),
        }
    }

    pub fn integers<D: Dimension>(&mut self, array: &'static str) -> Result<Found<i64>, TrainError> {
        if let Some(found) = self.typed::<i64, D>(array)? {
            return Ok(found);
        }
        match self.typed::<i32, D>(array)? {
            Some((shape, values)) => Ok((shape, values.into_iter().map(i64::from).collect())),
            None => Err(self.wrong_type(array, "int64 or int32")),
        }
    }

    fn wrong_type(&self, array: &'static str, wanted: &str) -> TrainError {
        TrainError::Array { path: self.path.to_owned(), array, detail: format!("its elements must be {wanted}") }
    }
}
