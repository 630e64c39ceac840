//! The authors' `.npz`, which `tenon-train pretrain` reads (spec dppo.md §7.1).
//!
//! `train.npz` holds the episodes one behind the other, normalised to [−1, 1]; `normalization.npz` beside it holds the
//! limits: `n = 2 (x − min)/(max − min + 1e-6) − 1`. For furniture nothing is added and a constant value gets the
//! limits min − 1, max + 1 (spec robot_control.md §3.3). `summary.json` says which of the two it was.

use std::collections::BTreeMap;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tenon_core::normalizer::{Limits, Normalizer, ZeroRange};

use crate::archive::Archive;
use crate::array::{Array, Data};
use crate::error::DataError;
use crate::model::{ACTIONS, Demonstrations, Episode, Found, LeftOut, REWARDS, TERMINATED};
use crate::verify::{Defect, Kind};
use crate::{Notes, Steps, npy, save};

/// Name of the episodes' file in a folder.
pub const TRAIN: &str = "train.npz";
/// Name of the limits' file.
pub const NORMALIZATION: &str = "normalization.npz";
/// Name of the file that says where the data are from.
pub const SUMMARY: &str = "summary.json";

/// Names in the file and here.
const FIELDS: [(&str, &str); 5] = [
    ("states", "obs/state"),
    ("actions", ACTIONS),
    ("rewards", REWARDS),
    ("terminals", TERMINATED),
    ("images", "obs/images"),
];
const LENGTHS: &str = "traj_lengths";

/// Whether an archive with these entries has the layout.
pub fn is_npz(names: &[String]) -> bool {
    names.iter().any(|n| n == "traj_lengths.npy")
}

/// The episodes' file: the path itself, or the one in a folder.
pub fn train_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(TRAIN) } else { path.to_owned() }
}

/// Reads every whole episode. Values stay normalised; [`Demonstrations::normalizer`] says by what.
///
/// # Errors
/// Where the file as a whole cannot be read.
pub fn read(path: &Path, steps: &mut Steps) -> Result<Found, DataError> {
    let file = train_file(path);
    let path = file.as_path();
    let mut archive = Archive::open(path)?;
    let mut array = |name: &str| -> Result<Option<Array>, DataError> {
        let fail = |e: String| DataError::file(path, format!("array `{name}`: {e}"));
        let bytes = archive.entry(&format!("{name}.npy")).map_err(fail)?;
        bytes.map(|b| npy::read(&b)).transpose().map_err(fail)
    };
    let missing = |name: &str| DataError::file(path, format!("array `{name}` is not there"));
    let lengths = array(LENGTHS)?.ok_or_else(|| missing(LENGTHS))?;
    let mut found = Found::default();
    let mut arrays = Vec::new();
    for (name, field) in FIELDS {
        if name == "images" && !steps.pictures {
            continue;
        }
        match array(name)? {
            Some(array) => arrays.push((field, array)),
            None if name == "states" || name == "actions" => return Err(missing(name)),
            None => {}
        }
    }
    for entry in archive.names() {
        let name = entry.trim_end_matches(".npy");
        if name == "images" && !steps.pictures {
            found
                .demonstrations
                .left_out
                .push(LeftOut { field: "obs/images".into(), reason: "pictures were not asked for".into() });
        } else if name != LENGTHS && !FIELDS.iter().any(|(known, _)| *known == name) {
            found
                .demonstrations
                .left_out
                .push(LeftOut { field: name.into(), reason: "is not one of the layout's arrays".into() });
        }
    }
    let rows = arrays.iter().map(|(_, a)| a.frames()).min().unwrap_or(0);
    let mut start = 0usize;
    for i in 0..lengths.data().len() {
        steps.at(i, lengths.data().len())?;
        let length = lengths.value(i);
        let name = i.to_string();
        let whole = (length >= 0.0 && length.fract() == 0.0).then_some(length as usize);
        let end = whole.and_then(|l| start.checked_add(l)).filter(|&end| end <= rows);
        let Some(end) = end else {
            let detail =
                format!("should have {length} frames from row {start} on, the arrays have {rows} rows: cut off");
            found.defects.push(Defect::of_episode(path, &name, Kind::Unreadable, detail));
            // Where the next one would begin is not known.
            for later in i + 1..lengths.data().len() {
                let detail = "stands behind one that is cut off";
                found.defects.push(Defect::of_episode(path, &later.to_string(), Kind::Unreadable, detail));
            }
            start = rows;
            break;
        };
        let fields: BTreeMap<String, Array> =
            arrays.iter().map(|(field, array)| ((*field).to_string(), array.slice(start..end))).collect();
        found.demonstrations.episodes.push(Episode { name, fields, ..Episode::default() });
        start = end;
    }
    for (field, array) in arrays.iter().filter(|(_, a)| a.frames() != start) {
        let detail = format!("`{field}` has {} rows, {LENGTHS} add up to {start}", array.frames());
        found.defects.push(Defect::of_file(path, Kind::Count, detail));
    }
    read_beside(path, &mut found)?;
    Ok(found)
}

/// The limits and the summary beside the file, where they are.
fn read_beside(path: &Path, found: &mut Found) -> Result<(), DataError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let demonstrations = &mut found.demonstrations;
    if let Ok(text) = std::fs::read_to_string(folder.join(SUMMARY))
        && let Ok(Value::Object(summary)) = serde_json::from_str(&text)
    {
        let text = |key: &str| summary.get(key).and_then(Value::as_str).map(String::from);
        demonstrations.environment = text("environment").or_else(|| text("task"));
        demonstrations.rate_hz = summary.get("rate_hz").and_then(Value::as_f64);
        demonstrations.attributes.insert("summary".into(), Value::Object(summary));
    }
    let beside = folder.join(NORMALIZATION);
    if !beside.is_file() {
        return Ok(());
    }
    let mut archive = Archive::open(&beside)?;
    let mut limit = |name: &str| -> Result<Vec<f32>, DataError> {
        let fail = |e: String| DataError::file(&beside, format!("array `{name}`: {e}"));
        let bytes = archive.entry(&format!("{name}.npy")).map_err(fail)?.ok_or_else(|| fail("is not there".into()))?;
        npy::read(&bytes).map(|a| a.to_f32()).map_err(fail)
    };
    let mut limits = |of: &str| -> Result<Limits, DataError> {
        let limits = Limits { min: limit(&format!("{of}_min"))?, max: limit(&format!("{of}_max"))? };
        let fail = |e: String| DataError::file(&beside, format!("`{of}`: {e}"));
        if limits.min.len() != limits.max.len() {
            return Err(fail(format!("{} lower and {} upper limits", limits.min.len(), limits.max.len())));
        }
        limits.check().map_err(fail)?;
        Ok(limits)
    };
    let mut normalizer = Normalizer::new(limits("obs")?, limits("action")?);
    let widened = demonstrations.attributes.get("summary").and_then(|s| s.get("zero_range")) == Some(&json!("widen"));
    if widened {
        normalizer.zero_range = ZeroRange::Widen;
    }
    for (field, limits) in [("obs/state", &normalizer.observation), (ACTIONS, &normalizer.action)] {
        let width = demonstrations.episodes.first().and_then(|e| e.fields.get(field)).map(Array::width);
        if let Some(width) = width.filter(|&w| w != limits.min.len()) {
            let detail = format!("has {} limits, rows of `{field}` have {width} values", limits.min.len());
            found.defects.push(Defect::of_file(&beside, Kind::Shape, detail));
        }
    }
    demonstrations.normalizer = Some(normalizer);
    Ok(())
}

/// What goes into the arrays.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Observations that make `states`, in this order, without their prefix; or fields of other names.
    pub states: Vec<String>,
    /// Pictures that make `images`, in this order.
    pub pictures: Vec<String>,
    /// How a range of zero width is treated.
    pub zero_range: ZeroRange,
    /// Leaves episodes out whose rewards sum to nothing or less, the limits being those of all (Gym; spec dppo.md §7.3).
    pub skip_unrewarded: bool,
}

/// Writes `train.npz`, `normalization.npz` and `summary.json`: into a folder, or, where `path` ends in `.npz`, that
/// file with the others beside it.
///
/// Data that are normalised already keep their limits.
///
/// # Errors
/// Where a field is not there, is not finite, or a file cannot be written.
pub fn write(
    path: &Path,
    demonstrations: &Demonstrations,
    choice: &Choice,
    steps: &mut Steps,
    notes: &mut Notes,
) -> Result<(), DataError> {
    let named = path.extension().is_some_and(|e| e == "npz");
    let begun = if named { None } else { Some(save::Folder::begin(path)?) };
    let folder = begun.as_ref().map_or(path.parent().unwrap_or(Path::new(".")), save::Folder::path).to_owned();
    let train = if named { path.to_owned() } else { folder.join(TRAIN) };
    let mut states = Joined::new("states", choice.states.iter().map(|k| k.as_str()));
    let mut actions = Joined::new("actions", [ACTIONS].into_iter());
    let count = demonstrations.episodes.len();
    for (i, episode) in demonstrations.episodes.iter().enumerate() {
        steps.at(i, count)?;
        states.add(path, episode)?;
        actions.add(path, episode)?;
    }
    if states.values.is_empty() || actions.values.is_empty() {
        return Err(DataError::Request("there is no frame to write".into()));
    }
    let normalizer = match &demonstrations.normalizer {
        Some(kept) => kept.clone(),
        None => {
            let limits = |joined: &Joined| Limits::of_rows(&joined.values, joined.width.max(1));
            let normalizer = Normalizer::new(limits(&states), limits(&actions));
            let normalizer = Normalizer { zero_range: choice.zero_range, ..normalizer };
            normalizer.normalize_observation(&mut states.values);
            normalizer.normalize_action(&mut actions.values);
            normalizer
        }
    };
    let kept: Vec<bool> = demonstrations
        .episodes
        .iter()
        .map(|e| !choice.skip_unrewarded || e.total_reward().is_none_or(|r| r > 0.0))
        .collect();
    let skipped = kept.iter().filter(|k| !**k).count();
    if skipped > 0 {
        notes.say(&format!("{skipped} episodes without positive reward are left out; the limits are those of all"));
    }
    if skipped == count {
        return Err(DataError::Request("no episode has a positive reward; go without --skip-unrewarded".into()));
    }
    let episodes: Vec<(&Episode, std::ops::Range<usize>)> = {
        let mut start = 0;
        let all = demonstrations.episodes.iter().map(|e| {
            start += e.frames();
            (e, start - e.frames()..start)
        });
        all.zip(&kept).filter(|(_, kept)| **kept).map(|(e, _)| e).collect()
    };
    let rows = |joined: &Joined| -> Result<Array, DataError> {
        let width = joined.width;
        let values =
            episodes.iter().flat_map(|(_, r)| &joined.values[r.start * width..r.end * width]).copied().collect();
        Array::rows_of(width, Data::F32(values)).map_err(|e| DataError::file(path, e))
    };
    let flags = |field: &str, f: &dyn Fn(Option<&Array>, usize) -> Vec<f32>| -> Vec<f32> {
        episodes.iter().flat_map(|(e, _)| f(e.fields.get(field).filter(|a| a.width() == 1), e.frames())).collect()
    };
    let or_zeros = |array: Option<&Array>, frames: usize| array.map_or_else(|| vec![0.0; frames], Array::to_f32);
    let rewards = flags(REWARDS, &or_zeros);
    let terminals = flags(TERMINATED, &or_zeros).into_iter().map(|v| v != 0.0).collect();
    if episodes.iter().any(|(e, _)| !e.fields.contains_key(REWARDS)) {
        notes.say("there are no rewards: zeros stand in their place, which cloning does not look at");
    }
    let mut arrays = vec![
        ("states", rows(&states)?),
        ("actions", rows(&actions)?),
        ("rewards", Array::column(Data::F32(rewards))),
        ("terminals", Array::column(Data::Bool(terminals))),
    ];
    if choice.pictures.is_empty() {
        if episodes.iter().any(|(e, _)| e.fields.values().any(Array::is_picture)) {
            notes.say("pictures are left out; name them with --images KEYS");
        }
    } else {
        arrays.push(("images", pictures(path, &episodes, &choice.pictures)?));
    }
    let lengths = episodes.iter().map(|(e, _)| e.frames() as i64).collect();
    arrays.push((LENGTHS, Array::column(Data::I64(lengths))));
    write_arrays(&train, &arrays)?;
    let column = |values: &[f32]| Array::column(Data::F32(values.to_vec()));
    write_arrays(
        &folder.join(NORMALIZATION),
        &[
            ("obs_min", column(&normalizer.observation.min)),
            ("obs_max", column(&normalizer.observation.max)),
            ("action_min", column(&normalizer.action.min)),
            ("action_max", column(&normalizer.action.max)),
        ],
    )?;
    let summary = json!({
        "environment": demonstrations.environment,
        "rate_hz": demonstrations.rate_hz,
        "episodes": episodes.len(),
        "steps": episodes.iter().map(|(e, _)| e.frames()).sum::<usize>(),
        "states": states.parts(),
        "images": choice.pictures,
        "zero_range": normalizer.zero_range,
    });
    let text = serde_json::to_string_pretty(&summary).map_err(|e| DataError::file(path, e))? + "\n";
    save::file(&folder.join(SUMMARY), |file| file.write_all(text.as_bytes()))?;
    steps.at(count, count)?;
    begun.map_or(Ok(()), save::Folder::finish)
}

/// Fields of all episodes, joined value behind value.
struct Joined<'a> {
    array: &'static str,
    keys: Vec<&'a str>,
    widths: Vec<usize>,
    width: usize,
    values: Vec<f32>,
}

impl<'a> Joined<'a> {
    fn new(array: &'static str, keys: impl Iterator<Item = &'a str>) -> Self {
        Self { array, keys: keys.collect(), widths: Vec::new(), width: 0, values: Vec::new() }
    }

    fn add(&mut self, path: &Path, episode: &Episode) -> Result<(), DataError> {
        let mut parts = Vec::new();
        for key in &self.keys {
            let array = field_of(episode, key).ok_or_else(|| {
                let there: Vec<&str> = episode.fields.keys().map(String::as_str).collect();
                DataError::field(path, &episode.name, key, format!("is not there; there are {}", there.join(", ")))
            })?;
            let wrong = |detail: String| DataError::field(path, &episode.name, key, detail);
            if array.frames() != episode.frames() {
                return Err(wrong(format!("has {} frames of {}", array.frames(), episode.frames())));
            }
            if array.is_picture() {
                return Err(wrong(format!("is a picture, which `{}` cannot hold; name it with --images", self.array)));
            }
            let values = array.to_f32();
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                let detail = format!(
                    "frame {}: value {} is {}; drop the episode with `tenon-train data repair`",
                    i / array.width().max(1),
                    i % array.width().max(1),
                    values[i]
                );
                return Err(wrong(detail));
            }
            parts.push((array.width(), values));
        }
        let widths: Vec<usize> = parts.iter().map(|(w, _)| *w).collect();
        if self.widths.is_empty() {
            self.width = widths.iter().sum();
            self.widths = widths;
        } else if self.widths != widths {
            let detail = format!("frames have {widths:?} values, in the episodes before {:?}", self.widths);
            return Err(DataError::field(path, &episode.name, &self.keys.join(" + "), detail));
        }
        for t in 0..episode.frames() {
            for (width, values) in &parts {
                self.values.extend_from_slice(&values[t * width..(t + 1) * width]);
            }
        }
        Ok(())
    }

    /// Which key stands where, for the summary.
    fn parts(&self) -> Vec<Value> {
        self.keys.iter().zip(&self.widths).map(|(key, width)| json!({"key": key, "width": width})).collect()
    }
}

/// A field by its name, or by its name without `obs/`.
pub fn field_of<'a>(episode: &'a Episode, key: &str) -> Option<&'a Array> {
    episode.fields.get(&format!("{}{key}", crate::model::OBSERVATIONS)).or_else(|| episode.fields.get(key))
}

/// Pictures of all cameras, `[frames, 3 · cameras, side, side]`.
fn pictures(path: &Path, episodes: &[(&Episode, std::ops::Range<usize>)], keys: &[String]) -> Result<Array, DataError> {
    let mut bytes = Vec::new();
    let mut side = None;
    for (episode, _) in episodes {
        let mut cameras = Vec::new();
        for key in keys {
            let wrong = |detail: String| DataError::field(path, &episode.name, key, detail);
            let array = field_of(episode, key).ok_or_else(|| wrong("is not there".into()))?;
            let (shape, Data::U8(values)) = (array.shape(), array.data()) else {
                return Err(wrong("is no picture: its values are no bytes".into()));
            };
            // Colour last, as cameras and robomimic have it, or first, as the layout.
            let (height, width, channels, last) = match *shape {
                [_, h, w, c] if c == 3 => (h, w, c, true),
                [_, c, h, w] if c % 3 == 0 => (h, w, c, false),
                _ => return Err(wrong(format!("pictures of {:?}; height, width, 3 is needed", &shape[1..]))),
            };
            if height != width || side.is_some_and(|s| s != height) {
                let detail = format!("pictures of {height} × {width}; squares of one size are needed");
                return Err(wrong(detail));
            }
            if array.frames() != episode.frames() {
                return Err(wrong(format!("has {} frames of {}", array.frames(), episode.frames())));
            }
            side = Some(height);
            cameras.push((values, channels, last));
        }
        let area = side.unwrap_or(0) * side.unwrap_or(0);
        for t in 0..episode.frames() {
            for (values, channels, last) in &cameras {
                let frame = &values[t * area * channels..(t + 1) * area * channels];
                if *last {
                    (0..*channels).for_each(|c| bytes.extend(frame.iter().skip(c).step_by(*channels)));
                } else {
                    bytes.extend_from_slice(frame);
                }
            }
        }
    }
    let (side, frames) = (side.unwrap_or(0), episodes.iter().map(|(e, _)| e.frames()).sum::<usize>());
    let channels = (bytes.len()).checked_div(frames * side * side).unwrap_or(0);
    Array::new(vec![frames, channels, side, side], Data::U8(bytes)).map_err(|e| DataError::file(path, e))
}

fn write_arrays(path: &Path, arrays: &[(&str, Array)]) -> Result<(), DataError> {
    fn add<W: Write + Seek>(out: W, arrays: &[(&str, Array)]) -> std::io::Result<()> {
        // Stored, as NumPy's own `savez` does.
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        let mut zip = zip::ZipWriter::new(out);
        for (name, array) in arrays {
            let bytes = npy::write(array);
            zip.start_file(format!("{name}.npy"), options.large_file(bytes.len() as u64 >= u64::from(u32::MAX)))?;
            zip.write_all(&bytes)?;
        }
        zip.finish()?.flush()
    }
    save::file(path, |file| add(std::io::BufWriter::new(file), arrays))
}
