//! Reading and writing the `.npz` files.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use ndarray_npz::ndarray::{ArrayView1, ArrayView2, ArrayView4, Dimension, Ix1, Ix2, Ix4, OwnedRepr};
use ndarray_npz::ndarray_npy::{ReadNpyError, ReadableElement};
use ndarray_npz::{NpzReader, NpzWriter, ReadNpzError, WriteNpzError};
use tenon_core::normalizer::Limits;

use super::{Dataset, Pictures};
use crate::error::TrainError;

type Reader = NpzReader<BufReader<File>>;

/// Shape and values.
type Found<T> = (Vec<usize>, Vec<T>);

fn open(path: &Path) -> Result<Reader, TrainError> {
    let file = File::open(path).map_err(|e| TrainError::file(path, e))?;
    NpzReader::new(BufReader::new(file)).map_err(|e| TrainError::file(path, format!("not a whole .npz file: {e}")))
}

/// Shape and values of an array of one element type; `None` if it has another type.
fn typed<T: ReadableElement + Clone, D: Dimension>(
    npz: &mut Reader,
    array: &str,
) -> Result<Option<Found<T>>, ReadNpzError> {
    match npz.by_name::<OwnedRepr<T>, D>(&format!("{array}.npy")) {
        Ok(a) => Ok(Some((a.shape().to_vec(), a.iter().cloned().collect()))),
        Err(ReadNpzError::Npy(ReadNpyError::WrongDescriptor(_))) => Ok(None),
        Err(ReadNpzError::Npy(ReadNpyError::ParseData(_))) => Ok(None),
        Err(e) => Err(e),
    }
}

fn wrong(path: &Path, array: &'static str, detail: impl std::fmt::Display) -> TrainError {
    TrainError::Array { path: path.to_owned(), array, detail: detail.to_string() }
}

/// An array of floats, single or double.
fn floats<D: Dimension>(npz: &mut Reader, path: &Path, array: &'static str) -> Result<Found<f32>, TrainError> {
    let fail = |e: ReadNpzError| wrong(path, array, e);
    if let Some(found) = typed::<f32, D>(npz, array).map_err(fail)? {
        return Ok(found);
    }
    match typed::<f64, D>(npz, array).map_err(fail)? {
        Some((shape, values)) => Ok((shape, values.into_iter().map(|v| v as f32).collect())),
        None => Err(wrong(path, array, "its elements must be float32 or float64")),
    }
}

fn terminals(npz: &mut Reader, path: &Path) -> Result<Vec<bool>, TrainError> {
    match typed::<bool, Ix1>(npz, "terminals").map_err(|e| wrong(path, "terminals", e))? {
        Some((_, values)) => Ok(values),
        // Some data sets keep them as 0 and 1.
        None => Ok(floats::<Ix1>(npz, path, "terminals")?.1.into_iter().map(|v| v != 0.0).collect()),
    }
}

fn lengths(npz: &mut Reader, path: &Path) -> Result<Vec<usize>, TrainError> {
    let array = "traj_lengths";
    let fail = |e: ReadNpzError| wrong(path, array, e);
    let values = if let Some((_, v)) = typed::<i64, Ix1>(npz, array).map_err(fail)? {
        v
    } else if let Some((_, v)) = typed::<i32, Ix1>(npz, array).map_err(fail)? {
        v.into_iter().map(i64::from).collect()
    } else {
        return Err(wrong(path, array, "its elements must be int64 or int32"));
    };
    values
        .iter()
        .enumerate()
        .map(|(i, &v)| usize::try_from(v).map_err(|_| wrong(path, array, format!("episode {i} has length {v}"))))
        .collect()
}

/// Pictures `[frames, channels, px, px]`, where the file has some.
fn pictures(npz: &mut Reader, path: &Path) -> Result<Option<Pictures>, TrainError> {
    let array = "images";
    let names = npz.names().map_err(|e| wrong(path, array, e))?;
    if !names.iter().any(|name| name.strip_suffix(".npy").unwrap_or(name) == array) {
        return Ok(None);
    }
    let Some((shape, bytes)) = typed::<u8, Ix4>(npz, array).map_err(|e| wrong(path, array, e))? else {
        return Err(wrong(path, array, "its elements must be uint8"));
    };
    if shape[2] != shape[3] || !shape[1].is_multiple_of(3) {
        return Err(wrong(path, array, format!("{shape:?} is not [frames, 3 · cameras, side, side]")));
    }
    Ok(Some(Pictures { channels: shape[1], px: shape[2], bytes }))
}

/// Reads the arrays; shapes and values are the caller's to check.
pub(super) fn read(path: &Path) -> Result<Dataset, TrainError> {
    let mut npz = open(path)?;
    let (state_shape, states) = floats::<Ix2>(&mut npz, path, "states")?;
    let (action_shape, actions) = floats::<Ix2>(&mut npz, path, "actions")?;
    Ok(Dataset {
        states,
        actions,
        rewards: floats::<Ix1>(&mut npz, path, "rewards")?.1,
        terminals: terminals(&mut npz, path)?,
        lengths: lengths(&mut npz, path)?,
        state_dim: state_shape[1],
        action_dim: action_shape[1],
        pictures: pictures(&mut npz, path)?,
    })
}

/// Writes a file beside `path`, flushes it to the disk and renames it.
fn write_npz(
    path: &Path,
    content: impl FnOnce(&mut NpzWriter<BufWriter<&mut File>>) -> Result<(), WriteNpzError>,
) -> Result<(), TrainError> {
    let fail = |e: &dyn std::fmt::Display| TrainError::file(path, format!("cannot be written: {e}"));
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = crate::run_dir::new_file_in(folder).map_err(|e| fail(&e))?;
    let mut npz = NpzWriter::new(BufWriter::new(file.as_file_mut()));
    content(&mut npz).map_err(|e| fail(&e))?;
    npz.finish().map_err(|e| fail(&e))?.flush().map_err(|e| fail(&e))?;
    file.as_file().sync_all().map_err(|e| fail(&e))?;
    file.persist(path).map_err(|e| fail(&e.error))?;
    Ok(())
}

pub(super) fn write(dataset: &Dataset, path: &Path) -> Result<(), TrainError> {
    let frames = dataset.frames();
    let matrix =
        |array, values, width| ArrayView2::from_shape((frames, width), values).map_err(|e| wrong(path, array, e));
    let states = matrix("states", &dataset.states, dataset.state_dim)?;
    let actions = matrix("actions", &dataset.actions, dataset.action_dim)?;
    let pictures = dataset.pictures.as_ref().map(|p| {
        ArrayView4::from_shape((frames, p.channels, p.px, p.px), &p.bytes).map_err(|e| wrong(path, "images", e))
    });
    let pictures = pictures.transpose()?;
    let lengths: Vec<i64> = dataset.lengths.iter().map(|&l| l as i64).collect();
    write_npz(path, |npz| {
        npz.add_array("states.npy", &states)?;
        npz.add_array("actions.npy", &actions)?;
        npz.add_array("rewards.npy", &ArrayView1::from(&dataset.rewards[..]))?;
        npz.add_array("terminals.npy", &ArrayView1::from(&dataset.terminals[..]))?;
        if let Some(pictures) = &pictures {
            npz.add_array("images.npy", pictures)?;
        }
        npz.add_array("traj_lengths.npy", &ArrayView1::from(&lengths[..]))
    })
}

/// Reads the limits of observations and actions from `normalization.npz`.
pub fn read_normalization(path: &Path) -> Result<(Limits, Limits), TrainError> {
    let mut npz = open(path)?;
    let mut limits = |lo: &'static str, hi: &'static str| {
        let (min, max) = (floats::<Ix1>(&mut npz, path, lo)?.1, floats::<Ix1>(&mut npz, path, hi)?.1);
        if min.len() != max.len() {
            return Err(wrong(path, hi, format!("has {} values, {lo} has {}", max.len(), min.len())));
        }
        let limits = Limits { min, max };
        limits.check().map_err(|detail| wrong(path, lo, detail))?;
        Ok(limits)
    };
    Ok((limits("obs_min", "obs_max")?, limits("action_min", "action_max")?))
}

/// Writes `normalization.npz`.
pub fn write_normalization(path: &Path, observation: &Limits, action: &Limits) -> Result<(), TrainError> {
    write_npz(path, |npz| {
        npz.add_array("obs_min.npy", &ArrayView1::from(&observation.min[..]))?;
        npz.add_array("obs_max.npy", &ArrayView1::from(&observation.max[..]))?;
        npz.add_array("action_min.npy", &ArrayView1::from(&action.min[..]))?;
        npz.add_array("action_max.npy", &ArrayView1::from(&action.max[..]))
    })
}
