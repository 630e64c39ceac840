//! Zarr, format 2: a folder or a ZIP archive of chunks (diffusion_policy and UMI; FurnitureBench, spec robot_control.md
//! §8.3).
//!
//! Arrays are concatenated over episodes; `episode_ends` says where each ends. Chunks may be raw or packed by zlib, gzip,
//! zstd, lz4 or Blosc (with any of its codecs but Snappy); another codec is named, and its array left out.

mod blosc;
mod codec;
mod lz;
mod store;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use crate::Steps;
use crate::array::Array;
use crate::error::DataError;
use crate::model::{ACTIONS, DONES, Demonstrations, Episode, Found, LeftOut, OBSERVATIONS, REWARDS, TIME};
use crate::verify::{Defect, Kind};
use store::{ArrayMeta, Store};

/// Name of the array that says where episodes end.
const ENDS: &str = "episode_ends";

/// How an array of frames is called here.
fn field_of(name: &str, names: &[&str]) -> String {
    match name {
        "action" | "actions" => ACTIONS.into(),
        // FurnitureBench keeps both; policies are trained on absolute ones.
        "action/pos" if !names.contains(&"action") => ACTIONS.into(),
        "reward" | "rewards" => REWARDS.into(),
        "done" | "dones" => DONES.into(),
        "timestamp" => TIME.into(),
        "action/delta" | "action/pos" | "skill" | "skills" | "augment_states" => name.into(),
        _ => format!("{OBSERVATIONS}{name}"),
    }
}

/// Reads every episode.
///
/// # Errors
/// Where the store as a whole cannot be read.
pub fn read(path: &Path, steps: &mut Steps) -> Result<Found, DataError> {
    let mut store = Store::open(path)?;
    let metas = store.arrays()?;
    let mut found = Found::default();
    let ends_name = metas.keys().find(|name| name.rsplit('/').next() == Some(ENDS));
    let ends_name = ends_name.ok_or_else(|| {
        let names: Vec<&str> = metas.keys().map(String::as_str).collect();
        DataError::file(
            path,
            format!("has no array `{ENDS}`, only {}: where episodes end is not known", names.join(", ")),
        )
    })?;
    let (ends, _) = load(&mut store, ends_name, &metas[ends_name], path)?;
    let ends: Vec<f64> = ends.values().collect();
    let plain =
        |name: &str| -> String { name.strip_prefix("data/").or(name.strip_prefix("meta/")).unwrap_or(name).into() };
    let names: Vec<String> = metas.keys().map(|n| plain(n)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let frames = ends.last().copied().unwrap_or(0.0);
    let mut arrays: Vec<(String, Array)> = Vec::new();
    let mut per_episode: BTreeMap<String, Array> = BTreeMap::new();
    let total = metas.len();
    for (i, (name, meta)) in metas.iter().enumerate().filter(|(_, (name, _))| *name != ends_name) {
        steps.at(i, total)?;
        let short = plain(name);
        let of_frames = meta.shape.first().is_some_and(|&n| n as f64 == frames);
        let of_episodes = !of_frames && meta.shape == [ends.len()];
        let mut leave = |reason: String| {
            found.demonstrations.left_out.push(LeftOut { field: short.clone(), reason });
        };
        if !steps.pictures && meta.shape.len() >= 4 {
            leave(format!("pictures {:?} were not asked for", &meta.shape[1..]));
            continue;
        }
        if !of_frames && !of_episodes {
            let rows = meta.shape.first().copied().unwrap_or(0);
            // What is a field of frames by its name but has other rows is incomplete, not something else.
            if meta.shape.len() >= 2 || field_of(&short, &names) == ACTIONS {
                let detail = format!("has {rows} rows, {ENDS} add up to {frames}: the store is incomplete");
                let defect = Defect::of_file(path, Kind::Shape, detail);
                found.defects.push(Defect { field: Some(short), ..defect });
            } else {
                leave(format!("has {rows} rows, neither frames ({frames}) nor episodes ({})", ends.len()));
            }
            continue;
        }
        if let Err(reason) = meta.readable() {
            leave(reason);
            continue;
        }
        match load(&mut store, name, meta, path) {
            Ok((array, absent)) => {
                if let Some(key) = absent {
                    let detail = format!(
                        "chunk {key} is not there and counts as zeros; where it should hold others, the copy is incomplete"
                    );
                    let defect = Defect::of_file(path, Kind::Count, detail);
                    found.defects.push(Defect { field: Some(short.clone()), ..defect });
                }
                if of_frames {
                    arrays.push((field_of(&short, &names), array));
                } else {
                    per_episode.insert(short, array);
                }
            }
            Err(e) => {
                let detail = e.to_string();
                let detail = detail.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&detail);
                let defect = Defect::of_file(path, Kind::Unreadable, detail);
                found.defects.push(Defect { field: Some(short), ..defect });
            }
        }
    }
    steps.at(total, total)?;
    cut(path, &ends, &arrays, &per_episode, &mut found);
    describe(&mut found.demonstrations, store.attributes());
    Ok(found)
}

fn load(store: &mut Store, name: &str, meta: &ArrayMeta, path: &Path) -> Result<(Array, Option<String>), DataError> {
    store.read(name, meta).map_err(|e| DataError::file(path, format!("array `{name}`: {e}")))
}

/// Cuts the arrays into episodes.
fn cut(
    path: &Path,
    ends: &[f64],
    arrays: &[(String, Array)],
    per_episode: &BTreeMap<String, Array>,
    found: &mut Found,
) {
    let rows = arrays.iter().map(|(_, a)| a.frames()).min().unwrap_or(0);
    let mut start = 0usize;
    for (i, &end) in ends.iter().enumerate() {
        let name = i.to_string();
        let whole = (end.fract() == 0.0 && end >= start as f64 && end <= rows as f64).then_some(end as usize);
        let Some(end) = whole else {
            let detail = format!("ends at {end}, it begins at {start} and there are {rows} rows: `{ENDS}` is damaged");
            found.defects.push(Defect::of_episode(path, &name, Kind::Order, detail));
            continue;
        };
        let fields = arrays.iter().map(|(field, array)| (field.clone(), array.slice(start..end))).collect();
        let mut episode = Episode { name, fields, ..Episode::default() };
        for (field, array) in per_episode {
            if field == "success" {
                episode.success = Some(array.value(i) != 0.0);
            } else {
                episode.attributes.insert(field.clone(), json!(array.value(i)));
            }
        }
        if episode.success.is_none() {
            episode.success = episode.success_by_reward();
        }
        found.demonstrations.episodes.push(episode);
        start = end;
    }
}

fn describe(demonstrations: &mut Demonstrations, attributes: serde_json::Map<String, serde_json::Value>) {
    let number = |key: &str| attributes.get(key).and_then(serde_json::Value::as_f64);
    demonstrations.rate_hz = ["fps", "rate_hz", "control_freq"].iter().find_map(|key| number(key));
    let text = |key: &str| attributes.get(key).and_then(|v| v.as_str()).map(String::from);
    demonstrations.environment = ["furniture", "env_name", "task"].iter().find_map(|key| text(key));
    demonstrations.attributes.extend(attributes);
}
