//! D4RL's flat HDF5 files (spec sim_tasks.md §2): all frames in one array a field, episodes where a flag says so.

use std::path::Path;

use crate::Steps;
use crate::array::Array;
use crate::error::DataError;
use crate::hdf5::{Hdf5, Hdf5Error, Object};
use crate::model::{ACTIONS, Episode, Found, LeftOut, REWARDS, TERMINATED, TRUNCATED};
use crate::verify::{Defect, Kind};

/// Names in the file and here.
const FIELDS: [(&str, &str); 6] = [
    ("observations", "obs/state"),
    ("next_observations", "next_obs/state"),
    ("actions", ACTIONS),
    ("rewards", REWARDS),
    ("terminals", TERMINATED),
    ("timeouts", TRUNCATED),
];

/// Whether the file has the layout.
pub fn is_d4rl(root: &Object) -> bool {
    root.has("observations") && root.has("actions")
}

/// Reads every episode. Frames behind the last end belong to an episode that does not end; they are left out.
///
/// # Errors
/// Where the file as a whole cannot be read.
pub fn read(path: &Path, steps: &mut Steps) -> Result<Found, DataError> {
    let fail = |e: Hdf5Error| DataError::file(path, e);
    let h5 = Hdf5::open(path).map_err(fail)?;
    let root = h5.root().map_err(fail)?;
    let mut found = Found::default();
    let mut arrays: Vec<(&str, Array)> = Vec::new();
    for (name, field) in FIELDS {
        let Some(member) = h5.member(&root, name).map_err(fail)? else { continue };
        let array = h5.array(&member).map_err(|e| DataError::file(path, format!("`{name}`: {e}")))?;
        arrays.push((field, array));
    }
    for name in root.names().filter(|n| !FIELDS.iter().any(|(known, _)| known == n)) {
        let reason = "is not one of D4RL's fields of a frame".to_string();
        found.demonstrations.left_out.push(LeftOut { field: name.into(), reason });
    }
    let frames = arrays.iter().map(|(_, a)| a.frames()).min().unwrap_or(0);
    for (field, array) in &arrays {
        if array.frames() != frames {
            let detail = format!("has {} frames, others have {frames}: the file is incomplete", array.frames());
            let defect = Defect::of_file(path, Kind::Shape, detail);
            found.defects.push(Defect { field: Some((*field).into()), ..defect });
        }
    }
    let flag = |name: &str| arrays.iter().find(|(field, _)| *field == name).map(|(_, a)| a);
    let ends: Vec<usize> = (0..frames)
        .filter(|&t| {
            [TERMINATED, TRUNCATED].iter().any(|f| flag(f).is_some_and(|a| a.width() == 1 && a.value(t) != 0.0))
        })
        .collect();
    let mut start = 0;
    for (i, &end) in ends.iter().enumerate() {
        steps.at(i, ends.len())?;
        let fields = arrays.iter().map(|(name, array)| ((*name).to_string(), array.slice(start..end + 1))).collect();
        found.demonstrations.episodes.push(Episode { name: i.to_string(), fields, ..Episode::default() });
        start = end + 1;
    }
    steps.at(ends.len(), ends.len())?;
    if start < frames {
        let reason = format!("its last {} frames belong to an episode that does not end", frames - start);
        found.demonstrations.left_out.push(LeftOut { field: "(all)".into(), reason });
    }
    if ends.is_empty() && frames > 0 {
        let detail = format!("none of its {frames} frames ends an episode: `terminals` and `timeouts` say where");
        found.defects.push(Defect::of_file(path, Kind::Missing, detail));
    }
    found.demonstrations.environment = h5
        .attributes(&root)
        .ok()
        .and_then(|a| ["env_name", "env"].iter().find_map(|n| a.get(*n)?.text().map(String::from)));
    Ok(found)
}
