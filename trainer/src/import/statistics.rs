//! Limits of observations and actions, from the files in which the authors keep them (spec dppo.md §7.1).

use std::path::Path;
use std::sync::Arc;

use tenon_core::normalizer::{Limits, Normalizer, ZeroRange};
use tenon_pickle::TensorValue;

use super::contents::{Contents, Tensors};
use crate::dataset::read_normalization;
use crate::error::TrainError;

/// Clamp of normalised observations in the furniture tasks.
const FURNITURE_CLIP: f32 = 5.0;

/// Last parts of the paths under which limits are found: observation minimum, maximum, action minimum, maximum.
const FLAT: [&str; 4] = ["obs_min", "obs_max", "action_min", "action_max"];
const PER_KEY: [&str; 4] = ["observations.min", "observations.max", "actions.min", "actions.max"];

/// Reads the normaliser of a data set.
///
/// `.npz`, and pickles or weights files with `obs_min`, `obs_max`, `action_min`, `action_max`: Gym, Robomimic and Avoid,
/// 1e-6 added to every range. Files with `min` and `max` below `observations` and `actions`: furniture, constant values
/// widened and observations clamped to ±5.
///
/// # Errors
/// [`TrainError::File`] or [`TrainError::Array`] with the file and the limit in question.
pub fn read_normalizer(path: &Path) -> Result<Normalizer, TrainError> {
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz")) {
        let (observation, action) = read_normalization(path)?;
        return Ok(Normalizer::new(observation, action));
    }
    let contents = Contents::open(path)?;
    let (tensors, _) = contents.flatten(contents.root())?;
    let fail = |detail: String| TrainError::file(path, detail);
    let mut found = None;
    for names in [FLAT, PER_KEY] {
        let limits = names.map(|name| find(&tensors, name));
        if limits.iter().any(Option::is_some) {
            found = Some((names, limits));
            break;
        }
    }
    let Some((names, limits)) = found else {
        let known: Vec<&str> = tensors.iter().take(20).map(|(name, _)| name.as_str()).collect();
        let wanted = [FLAT, PER_KEY].map(|names| names.join(", ")).join("; or ");
        return Err(fail(format!("holds no limits: wanted are {wanted}; found are [{}]", known.join(", "))));
    };
    let vector = |i: usize| match &limits[i] {
        Some(tensor) => vector(tensor).map_err(|detail| fail(format!("`{}`: {detail}", names[i]))),
        None => Err(fail(format!("`{}` is missing or there twice", names[i]))),
    };
    let pair = |low: usize, high: usize| {
        let limits = Limits { min: vector(low)?, max: vector(high)? };
        if limits.min.len() != limits.max.len() {
            let (a, b) = (limits.min.len(), limits.max.len());
            return Err(fail(format!("`{}` has {a} values, `{}` has {b}", names[low], names[high])));
        }
        limits.check().map_err(|detail| fail(format!("`{}`: {detail}", names[low])))?;
        Ok(limits)
    };
    let (observation, action) = (pair(0, 1)?, pair(2, 3)?);
    Ok(if names == FLAT {
        Normalizer::new(observation, action)
    } else {
        Normalizer { observation, action, zero_range: ZeroRange::Widen, observation_clip: Some(FURNITURE_CLIP) }
    })
}

/// The one tensor whose path is `name` or ends with it.
fn find(tensors: &Tensors, name: &str) -> Option<Arc<TensorValue>> {
    let fits = |path: &str| path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let mut fitting = tensors.iter().filter(|(path, _)| fits(path));
    let (_, tensor) = fitting.next()?;
    fitting.next().is_none().then(|| tensor.clone())
}

/// A vector `[n]`, or a row `[1, n]`.
fn vector(tensor: &TensorValue) -> Result<Vec<f32>, String> {
    match tensor.shape() {
        [n] | [1, n] if *n > 0 => Ok(tensor.to_f32_vec()),
        shape => Err(format!("has shape {shape:?}, one value for each dimension is wanted")),
    }
}
