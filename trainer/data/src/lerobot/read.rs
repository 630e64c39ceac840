//! Reading.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::columns::{self, Column, Values};
use super::{INDICES, SUCCESS, VERSION, field_of, video};
use crate::Steps;
use crate::array::{Array, Data};
use crate::error::DataError;
use crate::model::{Episode, Found, LeftOut};
use crate::verify::{Defect, Kind};

/// What `meta/info.json` says of a feature.
pub struct Feature {
    pub name: String,
    pub kind: String,
    pub shape: Vec<usize>,
}

/// What `meta/episodes` says of an episode.
pub struct Listed {
    pub index: i64,
    pub length: i64,
    pub tasks: Vec<String>,
    /// Chunk, file and first second in it, by camera.
    pub videos: BTreeMap<String, (i64, i64, f64)>,
}

/// Reads every whole episode.
///
/// # Errors
/// Where the data set as a whole cannot be read.
pub fn read(path: &Path, steps: &mut Steps) -> Result<Found, DataError> {
    let file = path.join("meta/info.json");
    let text = std::fs::read(&file).map_err(|e| DataError::file(&file, e))?;
    let info: Value = serde_json::from_slice(&text).map_err(|e| DataError::file(&file, format!("is no JSON: {e}")))?;
    let version = info.get("codebase_version").and_then(Value::as_str).unwrap_or("none");
    if !version.starts_with("v3") {
        let detail = format!(
            "LeRobotDataset of version {version}, {VERSION} is read; convert it with \
             `python -m lerobot.datasets.v30.convert_dataset_v21_to_v30`"
        );
        return Err(DataError::file(&file, detail));
    }
    let features = features_of(&info).map_err(|e| DataError::file(&file, e))?;
    let mut found = Found::default();
    found.demonstrations.rate_hz = info.get("fps").and_then(Value::as_f64);
    let listed = episodes_of(path, &features, &mut found)?;
    let tables = tables_in(&path.join("data"))?;
    if tables.is_empty() {
        return Err(DataError::file(&path.join("data"), "has no table of frames (chunk-*/file-*.parquet)"));
    }
    let in_table = |name: &str| {
        INDICES.contains(&name) || features.iter().any(|f| f.name == name && f.kind != "video" && f.kind != "image")
    };
    let mut frames: BTreeMap<i64, Vec<Part>> = BTreeMap::new();
    for (i, table) in tables.iter().enumerate() {
        steps.at(i, tables.len() + 1)?;
        let fail = |e: String| Defect::of_file(table, Kind::Unreadable, e);
        match columns::read(table, &in_table).and_then(|columns| split(columns, &features)) {
            Ok(parts) => parts.into_iter().for_each(|(index, part)| frames.entry(index).or_default().push(part)),
            Err(e) => found.defects.push(fail(e)),
        }
    }
    let total = listed.len();
    for (i, episode) in listed.iter().enumerate() {
        steps.at(i, total)?;
        let name = episode.index.to_string();
        let mut unreadable = |field: Option<String>, detail: String| {
            let defect = Defect::of_episode(path, &name, Kind::Unreadable, detail);
            found.defects.push(Defect { field, ..defect });
        };
        let Some(parts) = frames.remove(&episode.index) else {
            unreadable(None, "is listed in meta/episodes, none of its frames is there".into());
            continue;
        };
        match joined(parts) {
            Err(e) => unreadable(None, e),
            Ok(mut whole) => {
                let order = std::mem::take(&mut whole.order);
                if whole.frames() as i64 != episode.length {
                    unreadable(
                        None,
                        format!("has {} frames of the {} that meta/episodes lists", whole.frames(), episode.length),
                    );
                    continue;
                }
                if let Some(t) = order.iter().enumerate().position(|(t, &i)| t as i64 != i) {
                    let detail =
                        format!("frame_index is {} in place {t}: frames are out of order or missing", order[t]);
                    let defect = Defect::of_episode(path, &name, Kind::Order, detail);
                    found.defects.push(Defect { frame: Some(t), ..defect });
                }
                found.demonstrations.episodes.push(whole.into_episode(episode));
            }
        }
    }
    for (index, parts) in frames {
        let count: usize = parts.iter().map(|p| p.order.len()).sum();
        let detail = format!("{count} frames belong to episode {index}, which meta/episodes does not list");
        found.defects.push(Defect::of_file(path, Kind::Count, detail));
    }
    pictures(path, &info, &features, &listed, steps, &mut found)?;
    check_totals(path, &info, &mut found);
    let tasks: Vec<&str> = listed.iter().flat_map(|e| &e.tasks).map(String::as_str).collect();
    found.demonstrations.environment = tasks.first().map(|t| (*t).to_owned());
    found.demonstrations.attributes.insert("info".into(), info);
    steps.at(total, total)?;
    Ok(found)
}

fn features_of(info: &Value) -> Result<Vec<Feature>, String> {
    let features = info.get("features").and_then(Value::as_object).ok_or("names no features")?;
    let feature = |(name, value): (&String, &Value)| -> Result<Feature, String> {
        let wrong = || format!("feature `{name}` has no dtype or shape");
        let kind = value.get("dtype").and_then(Value::as_str).ok_or_else(wrong)?;
        let shape = value.get("shape").and_then(Value::as_array).ok_or_else(wrong)?;
        let shape = shape.iter().map(|d| d.as_u64().and_then(|d| usize::try_from(d).ok()));
        let shape = shape.collect::<Option<_>>().ok_or_else(wrong)?;
        Ok(Feature { name: name.clone(), kind: kind.to_owned(), shape })
    };
    features.iter().map(feature).collect()
}

/// Tables `chunk-*/file-*.parquet` below a folder, sorted.
fn tables_in(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut tables = Vec::new();
    for chunk in std::fs::read_dir(folder).map_err(|e| DataError::file(folder, e))? {
        let chunk = chunk.map_err(|e| DataError::file(folder, e))?.path();
        if !chunk.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&chunk).map_err(|e| DataError::file(&chunk, e))? {
            let file = file.map_err(|e| DataError::file(&chunk, e))?.path();
            if file.extension().is_some_and(|e| e == "parquet") {
                tables.push(file);
            }
        }
    }
    tables.sort();
    Ok(tables)
}

fn episodes_of(path: &Path, features: &[Feature], found: &mut Found) -> Result<Vec<Listed>, DataError> {
    let folder = path.join("meta/episodes");
    let cameras: Vec<&str> = features.iter().filter(|f| f.kind == "video").map(|f| f.name.as_str()).collect();
    let wanted = |name: &str| ["episode_index", "length", "tasks"].contains(&name) || name.starts_with("videos/");
    let mut episodes = Vec::new();
    for table in tables_in(&folder)? {
        let columns = match columns::read(&table, &wanted) {
            Ok(columns) => columns,
            Err(e) => {
                found.defects.push(Defect::of_file(&table, Kind::Unreadable, e));
                continue;
            }
        };
        let fail = |e: String| DataError::file(&table, e);
        let index = integers(&columns, "episode_index").map_err(fail)?;
        let length = integers(&columns, "length").map_err(fail)?;
        let tasks = columns.iter().find(|c| c.name == "tasks");
        let mut task_at = 0;
        for (row, (&index, &length)) in index.iter().zip(&length).enumerate() {
            let mut listed = Listed { index, length, tasks: Vec::new(), videos: BTreeMap::new() };
            if let Some(Column { values: Values::Texts(texts), lengths: Some(lengths), .. }) = tasks {
                let count = lengths.get(row).copied().unwrap_or(0);
                listed.tasks = texts.get(task_at..task_at + count).unwrap_or_default().to_vec();
                task_at += count;
            }
            for camera in &cameras {
                let number = |what: &str| number(&columns, &format!("videos/{camera}/{what}"), row);
                if let (Some(chunk), Some(file), Some(from)) =
                    (number("chunk_index"), number("file_index"), number("from_timestamp"))
                {
                    listed.videos.insert((*camera).to_owned(), (chunk as i64, file as i64, from));
                }
            }
            episodes.push(listed);
        }
    }
    Ok(episodes)
}

fn integers(columns: &[Column], name: &str) -> Result<Vec<i64>, String> {
    match columns.iter().find(|c| c.name == name) {
        Some(Column { values: Values::Numbers(Data::I64(values)), lengths: None, .. }) => Ok(values.clone()),
        Some(_) => Err(format!("column `{name}` holds no single integers")),
        None => Err(format!("column `{name}` is not there")),
    }
}

fn number(columns: &[Column], name: &str, row: usize) -> Option<f64> {
    match columns.iter().find(|c| c.name == name)? {
        Column { values: Values::Numbers(data), lengths: None, .. } if row < data.len() => {
            Some(Array::column(data.clone()).value(row))
        }
        _ => None,
    }
}

/// Frames of one episode in one table.
struct Part {
    /// `frame_index`.
    order: Vec<i64>,
    fields: BTreeMap<String, Array>,
}

impl Part {
    fn frames(&self) -> usize {
        self.fields.values().next().map_or(0, Array::frames)
    }

    fn into_episode(self, listed: &Listed) -> Episode {
        let mut episode = Episode { name: listed.index.to_string(), fields: self.fields, ..Episode::default() };
        episode.success = match episode.fields.get(SUCCESS) {
            Some(array) => Some(array.values().any(|v| v != 0.0)),
            None => episode.success_by_reward(),
        };
        if let Some(task) = listed.tasks.first() {
            episode.attributes.insert("task".into(), task.as_str().into());
        }
        episode
    }
}

/// The rows of a table by episode; those of one stand together.
fn split(columns: Vec<Column>, features: &[Feature]) -> Result<Vec<(i64, Part)>, String> {
    let episodes = integers(&columns, "episode_index")?;
    let order = integers(&columns, "frame_index")?;
    let mut arrays = Vec::new();
    for column in columns {
        if INDICES.contains(&column.name.as_str()) && column.name != "timestamp" {
            continue;
        }
        let name = column.name.clone();
        let array = array_of(column, features.iter().find(|f| f.name == name), episodes.len());
        if let Some(array) = array.map_err(|e| format!("column `{name}`: {e}"))? {
            arrays.push((field_of(&name), array));
        }
    }
    let mut parts = Vec::new();
    let mut start = 0;
    for end in 1..=episodes.len() {
        if end == episodes.len() || episodes[end] != episodes[start] {
            let fields = arrays.iter().map(|(n, a)| (n.clone(), a.slice(start..end))).collect();
            parts.push((episodes[start], Part { order: order[start..end].to_vec(), fields }));
            start = end;
        }
    }
    Ok(parts)
}

/// `None`: a column of texts.
fn array_of(column: Column, feature: Option<&Feature>, rows: usize) -> Result<Option<Array>, String> {
    let Values::Numbers(data) = column.values else { return Ok(None) };
    let data = match (&data, feature.map(|f| f.kind.as_str())) {
        (Data::I64(v), Some("uint8")) => match v.iter().map(|&v| u8::try_from(v)).collect() {
            Ok(bytes) => Data::U8(bytes),
            Err(_) => return Err("a value beyond uint8".into()),
        },
        _ => data,
    };
    let width: usize = feature.map_or(1, |f| f.shape.iter().product());
    if let Some(lengths) = &column.lengths
        && let Some(row) = lengths.iter().position(|&l| l != width)
    {
        return Err(format!("row {row} has {} values, meta/info.json says {width}", lengths[row]));
    }
    let shape = match (&column.lengths, feature) {
        (Some(_), Some(f)) => [&[rows][..], &f.shape].concat(),
        _ => vec![rows],
    };
    Array::new(shape, data).map(Some)
}

fn joined(parts: Vec<Part>) -> Result<Part, String> {
    let mut parts = parts.into_iter();
    let mut whole = parts.next().ok_or("there is no frame")?;
    for part in parts {
        whole.order.extend(part.order);
        for (name, more) in part.fields {
            let before = whole.fields.get_mut(&name).ok_or_else(|| format!("`{name}` is in one of its tables only"))?;
            let mut shape = before.shape().to_vec();
            shape[0] += more.frames();
            let mut data = before.data().clone();
            columns::append(&mut data, more.data().clone()).map_err(|e| format!("`{name}` {e}"))?;
            *before = Array::new(shape, data).map_err(|e| format!("`{name}`: {e}"))?;
        }
    }
    Ok(whole)
}

fn pictures(
    path: &Path,
    info: &Value,
    features: &[Feature],
    listed: &[Listed],
    steps: &mut Steps,
    found: &mut Found,
) -> Result<(), DataError> {
    for feature in features.iter().filter(|f| f.kind == "video" || f.kind == "image") {
        let field = field_of(&feature.name);
        let reason = if feature.kind == "image" {
            "pictures inside the table are not read".to_string()
        } else if !steps.pictures {
            format!("video {:?} was not asked for", feature.shape)
        } else if let Err(e) = video::decoder() {
            e
        } else {
            for (i, episode) in found.demonstrations.episodes.iter_mut().enumerate() {
                steps.at(i, listed.len())?;
                let listed = listed.iter().find(|l| l.index.to_string() == episode.name);
                let place = listed.and_then(|l| l.videos.get(&feature.name));
                match video::decode(path, info, feature, place, episode.frames(), found.demonstrations.rate_hz) {
                    Ok(array) => {
                        episode.fields.insert(field.clone(), array);
                    }
                    Err(e) => found.defects.push(Defect::of_field(path, &episode.name, &field, Kind::Unreadable, e)),
                }
            }
            continue;
        };
        found.demonstrations.left_out.push(LeftOut { field, reason });
    }
    Ok(())
}

fn check_totals(path: &Path, info: &Value, found: &mut Found) {
    if !found.defects.is_empty() {
        return;
    }
    let (episodes, frames) = (found.demonstrations.episodes.len(), found.demonstrations.frames());
    for (key, there) in [("total_episodes", episodes), ("total_frames", frames)] {
        if let Some(said) = info.get(key).and_then(Value::as_u64).filter(|&n| n != there as u64) {
            let detail = format!("meta/info.json says {key} = {said}, there are {there}");
            found.defects.push(Defect::of_file(path, Kind::Count, detail));
        }
    }
}
