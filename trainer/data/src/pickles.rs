//! Pickles, one file an episode: FurnitureBench's (spec robot_control.md §8.2) and D3IL Avoid's (spec sim_tasks.md §4).
//!
//! They are read without executing anything (`tenon-pickle`): a pickle that names anything but plain values and NumPy
//! arrays is refused.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tenon_pickle::{Dict, MAX_FILE_BYTES, TensorData, TensorValue, Value, read_pickle};

use crate::Steps;
use crate::array::{Array, Data};
use crate::error::DataError;
use crate::format::Format;
use crate::model::{ACTIONS, Episode, Found, LeftOut, OBSERVATIONS, REWARDS, TIME};
use crate::npy::half;
use crate::verify::{Defect, Kind};

mod rotation;

/// Seconds between two control steps of Avoid, and its rate (spec sim_tasks.md §4).
const AVOID_PERIOD_S: f64 = 0.035;
/// Control rate of FurnitureBench (spec robot_control.md §2).
const FURNITURE_RATE_HZ: f64 = 10.0;
/// Attribute with which a reader tells what it left out.
const SKIPPED: &str = "(skipped)";
/// Limits of one step of an action (spec robot_control.md §8.3).
const MAX_STEP_M: f64 = 0.025;
const MAX_TURN_RAD: f64 = 0.35;

/// The pickles of a path: itself, or those in a folder and the folders in it, sorted by name.
///
/// # Errors
/// Where the folder cannot be read.
pub fn files_of(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    let mut folders = vec![(path.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|e| DataError::file(&folder, e))? {
            let entry = entry.map_err(|e| DataError::file(&folder, e))?.path();
            if entry.is_dir() && depth < 2 {
                folders.push((entry, depth + 1));
            } else if entry.extension().is_some_and(|e| e == "pkl" || e == "pickle") {
                files.push(entry);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn load(path: &Path) -> Result<Value, DataError> {
    let length = std::fs::metadata(path).map_err(|e| DataError::file(path, e))?.len();
    if length > MAX_FILE_BYTES as u64 {
        return Err(DataError::file(path, format!("{length} bytes; episodes of at most {MAX_FILE_BYTES} are read")));
    }
    let bytes = std::fs::read(path).map_err(|e| DataError::file(path, e))?;
    read_pickle(&bytes).map_err(|e| DataError::file(path, e))
}

/// Which of the two formats a file has.
///
/// # Errors
/// Where it is no pickle that is read.
pub fn detect(path: &Path) -> Result<Option<Format>, DataError> {
    let value = load(path)?;
    let Some(dict) = value.as_dict() else { return Ok(None) };
    if dict.get("robot").is_some_and(|r| r.as_dict().is_some_and(|r| r.get("des_c_pos").is_some())) {
        return Ok(Some(Format::Avoid));
    }
    let furniture = dict.get("observations").is_some() && dict.get("actions").is_some();
    Ok(furniture.then_some(Format::Furniture))
}

/// Reads every file with one of the readers below.
///
/// # Errors
/// Where there is no file, or the work is interrupted.
pub fn read(
    path: &Path,
    reader: fn(&Path, &Value, bool) -> Result<Episode, DataError>,
    steps: &mut Steps,
) -> Result<Found, DataError> {
    let files = files_of(path)?;
    let mut found = Found::default();
    for (i, file) in files.iter().enumerate() {
        steps.at(i, files.len())?;
        let name = file.strip_prefix(path).ok().filter(|p| !p.as_os_str().is_empty()).unwrap_or(file);
        let name = name.with_extension("").to_string_lossy().into_owned();
        match load(file).and_then(|value| reader(file, &value, steps.pictures)) {
            Ok(mut episode) => {
                episode.name = name;
                episode.file = Some(file.clone());
                let demonstrations = &mut found.demonstrations;
                for name in episode.attributes.remove(SKIPPED).iter().flat_map(|s| s.as_array()).flatten() {
                    let field = format!("{OBSERVATIONS}{}", name.as_str().unwrap_or_default());
                    let left_out = LeftOut { field, reason: "pictures were not asked for".into() };
                    if !demonstrations.left_out.contains(&left_out) {
                        demonstrations.left_out.push(left_out);
                    }
                }
                if let Some(furniture) = episode.attributes.get("furniture").and_then(|f| f.as_str()) {
                    demonstrations.environment.get_or_insert_with(|| furniture.to_owned());
                }
                found.demonstrations.episodes.push(episode);
            }
            Err(e) => {
                let detail = e.to_string();
                // The file is named by the defect.
                let detail = detail.strip_prefix(&format!("{}: ", file.display())).unwrap_or(&detail);
                found.defects.push(Defect::of_episode(file, &name, Kind::Unreadable, detail));
            }
        }
    }
    steps.at(files.len(), files.len())?;
    let avoid = found.demonstrations.episodes.first().is_some_and(|e| e.fields.contains_key("obs/c_pos"));
    if avoid {
        found.demonstrations.environment = Some("avoid".into());
    }
    found.demonstrations.rate_hz = Some(if avoid { 1.0 / AVOID_PERIOD_S } else { FURNITURE_RATE_HZ });
    Ok(found)
}

/// An episode of D3IL Avoid: commanded and measured x, y (4), and the increments of the commanded ones (2). The last row
/// has no action and is left out.
///
/// # Errors
/// Where a field is missing or of another shape.
pub fn avoid(path: &Path, value: &Value, _pictures: bool) -> Result<Episode, DataError> {
    let robot = value.as_dict().and_then(|d| d.get("robot")).and_then(Value::as_dict);
    let robot = robot.ok_or_else(|| DataError::file(path, "has no dict `robot`: it is no episode of Avoid"))?;
    let rows = |name: &str, width: usize| -> Result<Array, DataError> {
        let fail = |detail: String| DataError::file(path, format!("`robot.{name}`: {detail}"));
        let tensor = robot.get(name).and_then(Value::as_tensor).ok_or_else(|| fail("is no array".into()))?;
        let array = array_of(tensor).map_err(fail)?;
        if array.shape().len() != 2 || array.width() < width {
            return Err(fail(format!("shape {:?}, rows of {width} values are needed", array.shape())));
        }
        Ok(array)
    };
    let (commanded, measured) = (rows("des_c_pos", 3)?, rows("c_pos", 3)?);
    let frames = commanded.frames();
    if measured.frames() != frames || frames < 2 {
        let detail =
            format!("{frames} commanded and {} measured positions; at least 2 of each are needed", measured.frames());
        return Err(DataError::file(path, detail));
    }
    let xy = |a: &Array, t: usize| [a.value(t * a.width()), a.value(t * a.width() + 1)];
    let mut episode = Episode::default();
    let states = (0..frames - 1).flat_map(|t| [xy(&commanded, t), xy(&measured, t)].concat()).collect();
    let actions = (0..frames - 1).flat_map(|t| {
        let (now, next) = (xy(&commanded, t), xy(&commanded, t + 1));
        [next[0] - now[0], next[1] - now[1]]
    });
    let mut put = |name: &str, array: Result<Array, String>| -> Result<(), DataError> {
        let array = array.map_err(|e| DataError::file(path, format!("`{name}`: {e}")))?;
        episode.fields.insert(name.to_owned(), array);
        Ok(())
    };
    put("obs/state", Array::rows_of(4, Data::F64(states)))?;
    put(ACTIONS, Array::rows_of(2, Data::F64(actions.collect())))?;
    for (key, value) in &robot.entries {
        let (Some(key), Some(tensor)) = (key.as_str(), value.as_tensor()) else { continue };
        let Ok(array) = array_of(tensor) else { continue };
        if array.frames() != frames {
            continue;
        }
        let array = array.slice(0..frames - 1);
        if key == "time_stamp" && array.width() == 1 {
            put(TIME, Ok(array))?;
        } else {
            put(&format!("obs/{key}"), Ok(array))?;
        }
    }
    Ok(episode)
}

/// An episode of FurnitureBench. `actions` are made absolute (10 values, spec robot_control.md §8.3): the position of the
/// tool point, the first two rows of its rotation, the gripper; the recorded increments stay as `action/delta`.
///
/// # Errors
/// Where a field is missing or of another shape.
pub fn furniture(path: &Path, value: &Value, pictures: bool) -> Result<Episode, DataError> {
    let wrong = |detail: String| DataError::file(path, detail);
    let dict = value.as_dict().ok_or_else(|| wrong("holds no dict: it is no episode of FurnitureBench".into()))?;
    let list = |name: &str| list_of(dict, name).map_err(wrong);
    let (observations, actions) = (list("observations")?, list("actions")?);
    let frames = actions.len();
    // In simulation there is one observation more than actions.
    if frames == 0 || !(frames..=frames + 1).contains(&observations.len()) {
        let detail =
            format!("{} observations and {frames} actions; as many, or one more, are needed", observations.len());
        return Err(wrong(detail));
    }
    let mut episode = Episode::default();
    let mut put = |name: &str, array: Result<Array, String>| -> Result<(), DataError> {
        let array = array.map_err(|e| DataError::file(path, format!("`{name}`: {e}")))?;
        episode.fields.insert(name.to_owned(), array);
        Ok(())
    };
    let deltas = stacked(&actions).map_err(|e| wrong(format!("`actions`: {e}")))?;
    let mut columns = Columns::default();
    for (t, observation) in observations[..frames].iter().enumerate() {
        let observation =
            observation.as_dict().ok_or_else(|| wrong(format!("frame {t}: the observation is no dict")))?;
        columns.add("", observation, pictures).map_err(|e| wrong(format!("frame {t}, {e}")))?;
    }
    let skipped = std::mem::take(&mut columns.skipped);
    let columns = columns.finish(frames).map_err(wrong)?;
    let part = |name: &str| columns.iter().find(|(n, _)| n == &format!("robot_state/{name}")).map(|(_, a)| a);
    if let (Some(position), Some(quaternion)) = (part("ee_pos"), part("ee_quat"))
        && position.width() == 3
        && quaternion.width() == 4
    {
        if deltas.width() == 8 && deltas.shape().len() == 2 {
            let absolute = rotation::absolute_actions(position, quaternion, &deltas, MAX_STEP_M, MAX_TURN_RAD);
            put(ACTIONS, absolute)?;
            put("action/delta", Ok(deltas))?;
        } else {
            put(ACTIONS, Ok(deltas))?;
        }
        let parts = ["ee_pos_vel", "ee_ori_vel", "gripper_width"].map(part);
        if let [Some(linear), Some(angular), Some(width)] = parts {
            put("obs/robot_state", rotation::robot_state(position, quaternion, linear, angular, width))?;
        }
    } else {
        put(ACTIONS, Ok(deltas))?;
    }
    for (name, array) in columns {
        let name = name.strip_prefix("robot_state/").unwrap_or(&name).to_owned();
        put(&format!("obs/{name}"), Ok(array))?;
    }
    for (name, field) in [("rewards", REWARDS), ("skills", "skills")] {
        if let Some(Ok(values)) =
            dict.get(name).map(|_| list(name)).filter(|l| l.as_ref().is_ok_and(|l| l.len() == frames))
        {
            put(field, stacked(&values))?;
        }
    }
    episode.attributes.insert(SKIPPED.into(), skipped.into_iter().collect());
    episode.success = match dict.get("success") {
        Some(Value::Bool(b)) => Some(*b),
        Some(Value::Int(i)) => Some(*i != 0),
        _ => None,
    };
    for name in ["furniture", "error_description"] {
        if let Some(text) = dict.get(name).and_then(Value::as_str) {
            episode.attributes.insert(name.into(), text.into());
        }
    }
    Ok(episode)
}

fn list_of(dict: &Dict, name: &str) -> Result<Vec<Value>, String> {
    match dict.get(name) {
        Some(Value::List(list)) => Ok(list.items.clone()),
        Some(Value::Tuple(items)) => Ok(items.to_vec()),
        Some(Value::Tensor(tensor)) => rows_of(tensor),
        Some(other) => Err(format!("`{name}` is {}, a list is needed", other.kind())),
        None => Err(format!("`{name}` is not there: it is no episode of FurnitureBench")),
    }
}

/// The rows of an array, each by itself.
fn rows_of(tensor: &TensorValue) -> Result<Vec<Value>, String> {
    let array = array_of(tensor)?;
    let row = |t: usize| {
        let data = match array.slice(t..t + 1).data().clone() {
            Data::F32(v) => TensorData::F32(v),
            Data::F64(v) => TensorData::F64(v),
            Data::I64(v) => TensorData::I64(v),
            Data::U8(v) => TensorData::U8(v),
            Data::Bool(v) => TensorData::Bool(v),
        };
        TensorValue::new(array.shape()[1..].to_vec(), data).map(|t| Value::Tensor(t.into())).map_err(|e| e.to_string())
    };
    (0..array.frames()).map(row).collect()
}

fn array_of(tensor: &TensorValue) -> Result<Array, String> {
    let data = match tensor.data() {
        TensorData::F16(v) => Data::F32(v.iter().map(|&b| half(b)).collect()),
        TensorData::BF16(v) => Data::F32(v.iter().map(|&b| f32::from_bits(u32::from(b) << 16)).collect()),
        TensorData::F32(v) => Data::F32(v.clone()),
        TensorData::F64(v) => Data::F64(v.clone()),
        TensorData::I8(v) => Data::I64(v.iter().map(|&x| x.into()).collect()),
        TensorData::U8(v) => Data::U8(v.clone()),
        TensorData::I16(v) => Data::I64(v.iter().map(|&x| x.into()).collect()),
        TensorData::I32(v) => Data::I64(v.iter().map(|&x| x.into()).collect()),
        TensorData::I64(v) => Data::I64(v.clone()),
        TensorData::Bool(v) => Data::Bool(v.clone()),
    };
    let shape = if tensor.shape().is_empty() { vec![1] } else { tensor.shape().to_vec() };
    Array::new(shape, data)
}

/// The value of one frame: shape and elements.
fn frame_of(value: &Value) -> Result<(Vec<usize>, Data), String> {
    match value {
        Value::Tensor(tensor) => Ok((tensor.shape().to_vec(), array_of(tensor)?.data().clone())),
        Value::Int(i) => Ok((vec![], Data::I64(vec![*i]))),
        Value::Float(f) => Ok((vec![], Data::F64(vec![*f]))),
        Value::Bool(b) => Ok((vec![], Data::Bool(vec![*b]))),
        Value::List(list) => numbers_of(&list.items),
        Value::Tuple(items) => numbers_of(items),
        other => Err(format!("is {}, numbers are needed", other.kind())),
    }
}

fn numbers_of(items: &[Value]) -> Result<(Vec<usize>, Data), String> {
    let number = |v: &Value| match v {
        Value::Float(f) => Ok(*f),
        Value::Int(i) => Ok(*i as f64),
        Value::Bool(b) => Ok(f64::from(u8::from(*b))),
        other => Err(format!("holds {}, numbers are needed", other.kind())),
    };
    Ok((vec![items.len()], Data::F64(items.iter().map(number).collect::<Result<_, String>>()?)))
}

/// Frames one behind the other.
fn stacked(values: &[Value]) -> Result<Array, String> {
    let mut column = Column::default();
    for (t, value) in values.iter().enumerate() {
        column.add(frame_of(value).map_err(|e| format!("frame {t} {e}"))?).map_err(|e| format!("frame {t} {e}"))?;
    }
    column.finish()
}

/// A field while its frames come in.
#[derive(Default)]
struct Column {
    shape: Vec<usize>,
    data: Option<Data>,
    frames: usize,
}

impl Column {
    fn add(&mut self, (shape, data): (Vec<usize>, Data)) -> Result<(), String> {
        let Some(before) = &mut self.data else {
            (self.shape, self.data, self.frames) = (shape, Some(data), 1);
            return Ok(());
        };
        if shape != self.shape {
            return Err(format!("has shape {shape:?}, the frames before have {:?}", self.shape));
        }
        match (&mut *before, data) {
            (Data::F32(a), Data::F32(b)) => a.extend(b),
            (Data::F64(a), Data::F64(b)) => a.extend(b),
            (Data::I64(a), Data::I64(b)) => a.extend(b),
            (Data::U8(a), Data::U8(b)) => a.extend(b),
            (Data::Bool(a), Data::Bool(b)) => a.extend(b),
            // Rewards are recorded as ints in one frame and as floats in the next.
            (a, b) => {
                let mut all: Vec<f64> = Array::column(a.clone()).values().collect();
                all.extend(Array::column(b).values());
                *a = Data::F64(all);
            }
        }
        self.frames += 1;
        Ok(())
    }

    fn finish(self) -> Result<Array, String> {
        let data = self.data.ok_or("there is no frame")?;
        Array::new([vec![self.frames], self.shape].concat(), data)
    }
}

/// The fields of observations while their frames come in.
#[derive(Default)]
struct Columns {
    columns: Vec<(String, Column)>,
    /// Pictures that were not asked for.
    skipped: BTreeSet<String>,
}

impl Columns {
    fn add(&mut self, prefix: &str, dict: &Dict, pictures: bool) -> Result<(), String> {
        for (key, value) in &dict.entries {
            let Some(key) = key.as_str() else { continue };
            let name = format!("{prefix}{key}");
            if let Some(inner) = value.as_dict() {
                self.add(&format!("{name}/"), inner, pictures)?;
                continue;
            }
            if matches!(value, Value::None | Value::Str(_)) {
                continue;
            }
            let frame = frame_of(value).map_err(|e| format!("`{name}` {e}"))?;
            if !pictures && frame.0.len() >= 2 && matches!(frame.1, Data::U8(_)) {
                self.skipped.insert(name);
                continue;
            }
            let at = self.columns.iter().position(|(n, _)| *n == name).unwrap_or_else(|| {
                self.columns.push((name.clone(), Column::default()));
                self.columns.len() - 1
            });
            self.columns[at].1.add(frame).map_err(|e| format!("`{name}` {e}"))?;
        }
        Ok(())
    }

    fn finish(self, frames: usize) -> Result<Vec<(String, Array)>, String> {
        let whole = |(name, column): (String, Column)| {
            let array = column.finish().map_err(|e| format!("`{name}`: {e}"))?;
            if array.frames() != frames {
                return Err(format!("`{name}` is in {} of {frames} frames", array.frames()));
            }
            Ok((name, array))
        };
        self.columns.into_iter().map(whole).collect()
    }
}
