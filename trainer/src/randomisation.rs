//! The noise of training as a configuration asks for it: a rig's table is read, and checked against what the policy sees.

use std::path::Path;

use tenon_core::config::rig::RigCalibration;
use tenon_core::config::{TaskConfig, parse};
use tenon_core::randomisation::{Randomisation, parts_of};

use crate::error::TrainError;
use crate::run_dir::sha256_of;

/// Puts the table that `randomisation.noise` names in its place, so that the configuration holds the numbers themselves. A
/// configuration that names none stays as it is.
///
/// # Errors
/// A file that cannot be read, that has no noise at rest, or that has it only of parts that the policy does not see.
pub fn read_table(config: &mut TaskConfig) -> Result<(), TrainError> {
    let task = config.task;
    let Some(randomisation) = &mut config.randomisation else { return Ok(()) };
    randomisation.take_default(task);
    let Some(file) = randomisation.file().map(str::to_owned) else { return Ok(()) };
    let path = Path::new(&file);
    let text = std::fs::read_to_string(path).map_err(|e| {
        TrainError::file(path, format!("{e}; randomisation.noise is \"default\" or a rig's calibration.toml"))
    })?;
    let mut rig: RigCalibration =
        parse(&file, &text).map_err(|e| TrainError::file(path, format!("line {}: {}", e.line, e.message)))?;
    // A rig serves several furnitures; one of whose parts none is in the table is a mistake that the check names.
    let shown = parts_of(task);
    if rig.noise.iter().any(|noise| shown.contains(&noise.part.as_str())) {
        rig.noise.retain(|noise| shown.contains(&noise.part.as_str()));
    }
    randomisation.take_measured(&rig, sha256_of(path)?).map_err(|e| TrainError::file(path, e))?;
    randomisation.check(task).map_err(|e| TrainError::file(path, e))
}

/// The noise of a configuration, [`read_table`] done; none where it has no `[randomisation]`.
pub fn randomisation(config: &TaskConfig) -> Result<Option<Randomisation>, TrainError> {
    let Some(randomisation) = &config.randomisation else { return Ok(None) };
    Randomisation::new(randomisation, &config.task.observation(), parts_of(config.task))
        .map(Some)
        .map_err(|e| TrainError::Config { key: e.key(), detail: e.to_string() })
}

/// The noise of a configuration's rollouts; none where they are as they would be without it.
pub fn of_rollouts(config: &TaskConfig) -> Result<Option<Randomisation>, TrainError> {
    Ok(randomisation(config)?.filter(|noise| !noise.leaves_rollouts()))
}

/// The noise of a configuration's evaluations.
pub fn of_evaluation(config: &TaskConfig) -> Result<Option<Randomisation>, TrainError> {
    Ok(of_rollouts(config)?.filter(|noise| noise.evaluation))
}

/// The noise of a configuration's pre-training.
pub fn of_cloning(config: &TaskConfig) -> Result<Option<Randomisation>, TrainError> {
    Ok(randomisation(config)?.filter(|noise| !noise.leaves_cloning()))
}

/// In words: which parts have noise and which have none; nothing where there is no table.
pub fn describe(config: &TaskConfig) -> Option<String> {
    let randomisation = config.randomisation.as_ref().filter(|r| !r.part.is_empty())?;
    let origin = randomisation.origin.as_ref().map_or("the configuration", |origin| &origin.noise);
    let has_noise = |part: &str| randomisation.part.iter().any(|noise| noise.part == part);
    let (noisy, exact): (Vec<&str>, Vec<&str>) = parts_of(config.task).iter().partition(|part| has_noise(part));
    let exact = if exact.is_empty() { String::new() } else { format!("; exact: {}", exact.join(", ")) };
    Some(format!("noise of {} from {origin}{exact}", noisy.join(", ")))
}
