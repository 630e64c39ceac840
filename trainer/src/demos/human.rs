//! The recorded human demonstrations: `lengths`, `des_xyz`, `c_xyz` in one `.npz`.

use std::path::Path;

use ndarray_npz::ndarray::{Ix1, Ix2};
use tenon_core::avoid::{DEMONSTRATION_WINDOW_M, path_mode_bits};

use super::files::NpzFile;
use super::{Episode, Source};
use crate::error::TrainError;

/// Reads and checks a file of recorded demonstrations.
///
/// `lengths` (E): rows of each; `des_xyz`, `c_xyz` (rows, 3): commanded and measured tool point, metres, robot base
/// frame, one row every 35 ms. An episode of T rows has T − 1 steps.
pub fn read_human(path: &Path) -> Result<Vec<Episode>, TrainError> {
    let wrong = |array, detail: String| TrainError::Array { path: path.to_owned(), array, detail };
    let mut file = NpzFile::open(path)?;
    let (_, lengths) = file.integers::<Ix1>("lengths")?;
    if lengths.is_empty() {
        return Err(wrong("lengths", "there is no episode; record or choose another file".into()));
    }
    let mut rows = 0usize;
    for (episode, &length) in lengths.iter().enumerate() {
        if !(2..=1_000_000).contains(&length) {
            let detail = format!("episode {episode} has {length} rows; at least 2 are needed for one step");
            return Err(wrong("lengths", detail));
        }
        rows += length as usize;
    }
    let mut positions = |array| {
        let (shape, values) = file.floats::<Ix2>(array)?;
        if shape[1] != 3 {
            return Err(wrong(array, format!("rows have {} values, x, y, z are needed", shape[1])));
        }
        if shape[0] != rows {
            let detail = format!("has {} rows, lengths add up to {rows}; the file is incomplete", shape[0]);
            return Err(wrong(array, detail));
        }
        Ok(values)
    };
    let (commanded, measured) = (positions("des_xyz")?, positions("c_xyz")?);
    let mut start = 0;
    let mut episodes = Vec::with_capacity(lengths.len());
    for (number, &length) in lengths.iter().enumerate() {
        let length = length as usize;
        for (array, values) in [("des_xyz", &commanded), ("c_xyz", &measured)] {
            let own = &values[3 * start..3 * (start + length)];
            if let Some(i) = own.iter().position(|v| !v.is_finite()) {
                let (path, value) = (path.to_owned(), own[i]);
                return Err(TrainError::NotFinite { path, array, episode: number, frame: i / 3, column: i % 3, value });
            }
        }
        let xy = |values: &[f32], t: usize| [values[3 * (start + t)], values[3 * (start + t) + 1]];
        let commanded_xy_m: Vec<[f64; 2]> = (0..length).map(|t| xy(&commanded, t).map(f64::from)).collect();
        episodes.push(Episode {
            observations: (0..length - 1)
                .map(|t| {
                    let ([dx, dy], [cx, cy]) = (xy(&commanded, t), xy(&measured, t));
                    [dx, dy, cx, cy]
                })
                .collect(),
            actions: (0..length - 1)
                .map(|t| {
                    let (now, next) = (xy(&commanded, t), xy(&commanded, t + 1));
                    [next[0] - now[0], next[1] - now[1]]
                })
                .collect(),
            mode: path_mode_bits(commanded_xy_m.iter().copied(), DEMONSTRATION_WINDOW_M).mode(),
            commanded_xy_m,
            source: Source::Human,
        });
        start += length;
    }
    Ok(episodes)
}
