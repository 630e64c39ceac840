//! Writing.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::columns::{Column, Values, append};
use super::stats::{self, Stats};
use super::{SUCCESS, VERSION, feature_of, table_writer};
use crate::array::{Array, Data};
use crate::error::DataError;
use crate::format::Output;
use crate::model::{ACTIONS, DONES, Demonstrations, Episode, OBSERVATIONS, TERMINATED, TIME, TRUNCATED};
use crate::npz::field_of;
use crate::{Notes, Steps, save};

/// Bytes of values in one table, and tables in one folder.
const TABLE_BYTES: usize = 100 << 20;
const TABLES_OF_CHUNK: i64 = 1000;
/// The observation that policies of LeRobot see.
const STATE: &str = "obs/state";

/// Writes the layout that LeRobot's own loader opens, without pictures.
///
/// # Errors
/// Where episodes differ in their fields, the rate is not known, or the disk says no.
pub fn write(
    path: &Path,
    demonstrations: &Demonstrations,
    output: &Output,
    steps: &mut Steps,
    notes: &mut Notes,
) -> Result<(), DataError> {
    let rate_hz = demonstrations.rate_hz.filter(|r| *r > 0.0 && r.is_finite()).ok_or_else(|| {
        DataError::Request("how many frames a second there are is not known; say it with --rate HZ".into())
    })?;
    let episodes = features(path, demonstrations, &output.choice.states, notes)?;
    let Some(first) = episodes.first() else {
        return Err(DataError::Request("there is no episode to write".into()));
    };
    let task = output.task.clone().or_else(|| demonstrations.environment.clone()).unwrap_or_else(|| "unknown".into());
    let own: Vec<String> = demonstrations
        .episodes
        .iter()
        .map(|e| e.attributes.get("task").and_then(Value::as_str).map_or_else(|| task.clone(), String::from))
        .collect();
    let own = if output.task.is_some() { vec![task; own.len()] } else { own };
    let mut tasks: Vec<String> = Vec::new();
    for task in &own {
        if !tasks.contains(task) {
            tasks.push(task.clone());
        }
    }
    let task_of: Vec<i64> = own.iter().map(|t| tasks.iter().position(|o| o == t).unwrap_or(0) as i64).collect();

    let folder = save::Folder::begin(path)?;
    let root = folder.path();
    let mut described = Map::new();
    for (name, array) in first {
        described.insert(name.clone(), description(name, array));
    }
    for (name, kind) in [
        ("timestamp", "float32"),
        ("frame_index", "int64"),
        ("episode_index", "int64"),
        ("index", "int64"),
        ("task_index", "int64"),
    ] {
        described.insert(name.into(), json!({"dtype": kind, "shape": [1], "names": null}));
    }
    let places = write_frames(root, &episodes, rate_hz, &task_of, steps)?;
    let lengths: Vec<usize> = episodes.iter().map(frames_of).collect();
    write_episodes(root, &episodes, &lengths, &places, &own)?;
    let names = Column::texts("__index_level_0__", tasks.clone());
    let numbers = Column::numbers("task_index", Data::I64((0..tasks.len() as i64).collect()));
    table(&root.join("meta/tasks.parquet"), &[numbers, names], Some(("pandas", index_by_task())))?;
    let mut statistics = Map::new();
    for (name, array) in first {
        let arrays = episodes.iter().filter_map(|e| e.get(name));
        statistics.insert(name.clone(), stats::entry(arrays, array.width().max(1)));
    }
    write_json(&root.join("meta/stats.json"), &Value::Object(statistics))?;
    let whole = rate_hz.round();
    let info = json!({
        "codebase_version": VERSION,
        "robot_type": demonstrations.attributes.get("info").and_then(|i| i.get("robot_type")).cloned().unwrap_or(Value::Null),
        "total_episodes": episodes.len(),
        "total_frames": lengths.iter().sum::<usize>(),
        "total_tasks": tasks.len(),
        "chunks_size": TABLES_OF_CHUNK,
        "data_files_size_in_mb": TABLE_BYTES >> 20,
        "video_files_size_in_mb": 500,
        "fps": whole as i64,
        "splits": {"train": format!("0:{}", episodes.len())},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": null,
        "features": described,
    });
    if (whole - rate_hz).abs() > 1e-9 {
        notes.say(&format!("LeRobot wants a whole rate: {rate_hz:.3} Hz is written as {whole} Hz"));
    }
    write_json(&root.join("meta/info.json"), &info)?;
    folder.finish()
}

/// Fields of each episode under LeRobot's names; all episodes have the same.
fn features(
    path: &Path,
    demonstrations: &Demonstrations,
    states: &[String],
    notes: &mut Notes,
) -> Result<Vec<BTreeMap<String, Array>>, DataError> {
    let mut all: Vec<BTreeMap<String, Array>> = Vec::new();
    for episode in &demonstrations.episodes {
        let mut fields = BTreeMap::new();
        let joined = !episode.fields.contains_key(STATE) && !states.is_empty();
        if joined {
            fields.insert(feature_of(STATE), state(path, episode, states)?);
        }
        for (name, array) in &episode.fields {
            let taken = joined && states.iter().any(|k| *name == format!("{OBSERVATIONS}{k}") || name == k);
            if taken || [TIME, SUCCESS].contains(&name.as_str()) {
                continue;
            }
            if array.is_picture() {
                notes.say("pictures are left out: LeRobot keeps them as video, which is not written");
                continue;
            }
            let array = single(array).map_err(|e| DataError::field(path, &episode.name, name, e))?;
            fields.insert(feature_of(name), array);
        }
        let frames = episode.frames();
        if !episode.fields.contains_key(DONES) {
            fields.insert("next.done".into(), Array::column(Data::Bool(dones(episode))));
        } else if let Some(done) = fields.get_mut("next.done") {
            *done = Array::column(Data::Bool(done.values().map(|v| v != 0.0).collect()));
        }
        if demonstrations.episodes.iter().all(|e| e.success.is_some()) {
            let last = frames.saturating_sub(1);
            let success = (0..frames).map(|t| t == last && episode.success == Some(true)).collect();
            fields.insert(SUCCESS.into(), Array::column(Data::Bool(success)));
        }
        if let Some((name, array)) = fields.iter().find(|(_, a)| a.frames() != frames) {
            let detail = format!("has {} frames of {frames}; mend it with `tenon-train data repair`", array.frames());
            return Err(DataError::field(path, &episode.name, name, detail));
        }
        if let Some(before) = all.first() {
            let form = |fields: &BTreeMap<String, Array>| -> Vec<(String, Vec<usize>)> {
                fields.iter().map(|(n, a)| (n.clone(), a.shape()[1..].to_vec())).collect()
            };
            let (own, usual) = (form(&fields), form(before));
            if own != usual {
                let other = own.iter().find(|f| !usual.contains(f)).or(usual.iter().find(|f| !own.contains(f)));
                let name = other.map_or("", |f| f.0.as_str());
                let detail = "is not as in the first episode; mend it with `tenon-train data repair`";
                return Err(DataError::field(path, &episode.name, name, detail));
            }
        }
        all.push(fields);
    }
    if demonstrations.episodes.iter().any(|e| !e.fields.contains_key(ACTIONS)) {
        return Err(DataError::Request("there are no actions to write".into()));
    }
    Ok(all)
}

/// Observations joined into one vector.
fn state(path: &Path, episode: &Episode, keys: &[String]) -> Result<Array, DataError> {
    let mut parts = Vec::new();
    for key in keys {
        let missing = || DataError::field(path, &episode.name, key, "is not there");
        let array = field_of(episode, key).ok_or_else(missing)?;
        if array.is_picture() || array.frames() != episode.frames() {
            return Err(DataError::field(path, &episode.name, key, "is no vector for each frame"));
        }
        parts.push((array.width(), array.to_f32()));
    }
    let width: usize = parts.iter().map(|p| p.0).sum();
    let mut values = Vec::with_capacity(width * episode.frames());
    for t in 0..episode.frames() {
        parts.iter().for_each(|(w, v)| values.extend_from_slice(&v[t * w..(t + 1) * w]));
    }
    Array::rows_of(width, Data::F32(values)).map_err(|e| DataError::field(path, &episode.name, "observation.state", e))
}

/// Floats become single ones, as LeRobot has them; frames of several dimensions become vectors.
fn single(array: &Array) -> Result<Array, String> {
    let data = match array.data() {
        Data::F64(_) => Data::F32(array.to_f32()),
        Data::U8(v) => Data::I64(v.iter().map(|&b| b.into()).collect()),
        other => other.clone(),
    };
    match array.width() {
        0 => Err("has frames without values".into()),
        1 => Ok(Array::column(data)),
        width => Array::rows_of(width, data),
    }
}

fn dones(episode: &Episode) -> Vec<bool> {
    let frames = episode.frames();
    let is = |field: &str, t: usize| {
        episode.fields.get(field).is_some_and(|a| a.width() == 1 && a.frames() == frames && a.value(t) != 0.0)
    };
    (0..frames).map(|t| t + 1 == frames || is(TERMINATED, t) || is(TRUNCATED, t)).collect()
}

fn frames_of(fields: &BTreeMap<String, Array>) -> usize {
    fields.values().next().map_or(0, Array::frames)
}

fn description(name: &str, array: &Array) -> Value {
    let width = array.width().max(1);
    let names: Vec<String> = (0..width).map(|i| format!("{}_{i}", name.rsplit('.').next().unwrap_or(name))).collect();
    json!({
        "dtype": array.data().type_name(),
        "shape": [width],
        "names": if width > 1 { json!(names) } else { Value::Null },
    })
}

/// Where an episode stands: folder, table, first and last frame of all.
struct Place {
    chunk: i64,
    file: i64,
    from: i64,
    to: i64,
}

fn write_frames(
    root: &Path,
    episodes: &[BTreeMap<String, Array>],
    rate_hz: f64,
    tasks: &[i64],
    steps: &mut Steps,
) -> Result<Vec<Place>, DataError> {
    let mut places: Vec<Place> = Vec::new();
    let (mut number, mut start, mut from) = (0i64, 0usize, 0i64);
    let bytes = |fields: &BTreeMap<String, Array>| fields.values().map(|a| a.data().len() * 8).sum::<usize>();
    while start < episodes.len() {
        let mut end = start;
        let mut size = 0;
        while end < episodes.len() && (end == start || size + bytes(&episodes[end]) <= TABLE_BYTES) {
            size += bytes(&episodes[end]);
            end += 1;
        }
        steps.at(start, episodes.len())?;
        let (chunk, file) = (number / TABLES_OF_CHUNK, number % TABLES_OF_CHUNK);
        let mut columns: Vec<Column> = Vec::new();
        let mut time = Vec::new();
        let mut numbers: [Vec<i64>; 4] = Default::default();
        for (i, fields) in episodes.iter().enumerate().take(end).skip(start) {
            let frames = frames_of(fields);
            for (name, array) in fields {
                let column = Column::numbers(name, array.data().clone());
                let column = if array.width() > 1 { column.in_lists(array.width()) } else { column };
                match columns.iter_mut().find(|c| c.name == *name) {
                    None => columns.push(column),
                    Some(before) => {
                        if let (Values::Numbers(a), Values::Numbers(b)) = (&mut before.values, column.values) {
                            append(a, b).map_err(|e| DataError::field(root, &i.to_string(), name, e))?;
                        }
                        if let (Some(a), Some(b)) = (&mut before.lengths, column.lengths) {
                            a.extend(b);
                        }
                    }
                }
            }
            time.extend((0..frames).map(|t| (t as f64 / rate_hz.round()) as f32));
            numbers[0].extend(0..frames as i64);
            numbers[1].extend(std::iter::repeat_n(i as i64, frames));
            numbers[2].extend(from..from + frames as i64);
            numbers[3].extend(std::iter::repeat_n(tasks[i], frames));
            places.push(Place { chunk, file, from, to: from + frames as i64 });
            from += frames as i64;
        }
        columns.push(Column::numbers("timestamp", Data::F32(time)));
        for (name, values) in ["frame_index", "episode_index", "index", "task_index"].into_iter().zip(numbers) {
            columns.push(Column::numbers(name, Data::I64(values)));
        }
        table(&root.join(format!("data/chunk-{chunk:03}/file-{file:03}.parquet")), &columns, None)?;
        number += 1;
        start = end;
    }
    steps.at(episodes.len(), episodes.len())?;
    Ok(places)
}

fn write_episodes(
    root: &Path,
    episodes: &[BTreeMap<String, Array>],
    lengths: &[usize],
    places: &[Place],
    tasks: &[String],
) -> Result<(), DataError> {
    let integers = |name: &str, values: Vec<i64>| Column::numbers(name, Data::I64(values));
    let zeros = || vec![0; episodes.len()];
    let mut columns = vec![
        integers("episode_index", (0..episodes.len() as i64).collect()),
        Column::texts("tasks", tasks.to_vec()).in_lists(1),
        integers("length", lengths.iter().map(|&l| l as i64).collect()),
        integers("data/chunk_index", places.iter().map(|p| p.chunk).collect()),
        integers("data/file_index", places.iter().map(|p| p.file).collect()),
        integers("dataset_from_index", places.iter().map(|p| p.from).collect()),
        integers("dataset_to_index", places.iter().map(|p| p.to).collect()),
    ];
    for (name, array) in episodes.first().into_iter().flatten() {
        let width = array.width().max(1);
        let of_each: Vec<Stats> =
            episodes.iter().filter_map(|e| e.get(name)).map(|a| Stats::of(std::iter::once(a), width)).collect();
        for i in 0..4 {
            let key = of_each.first().map_or("", |s| s.columns()[i].0);
            let values = of_each.iter().flat_map(|s| s.columns()[i].1.to_vec()).collect();
            columns.push(Column::numbers(format!("stats/{name}/{key}"), Data::F64(values)).in_lists(width));
        }
        let counts = of_each.iter().map(|s| s.count as i64).collect();
        columns.push(integers(&format!("stats/{name}/count"), counts).in_lists(1));
    }
    columns.push(integers("meta/episodes/chunk_index", zeros()));
    columns.push(integers("meta/episodes/file_index", zeros()));
    table(&root.join("meta/episodes/chunk-000/file-000.parquet"), &columns, None)
}

/// What pandas keeps beside a table whose rows are found by their task.
fn index_by_task() -> String {
    let column = |name: Value, field: &str, kind: &str, numpy: &str| json!({"name": name, "field_name": field, "pandas_type": kind, "numpy_type": numpy, "metadata": null});
    json!({
        "index_columns": ["__index_level_0__"],
        "column_indexes": [
            {"name": null, "field_name": null, "pandas_type": "unicode", "numpy_type": "object", "metadata": {"encoding": "UTF-8"}}
        ],
        "columns": [
            column(json!("task_index"), "task_index", "int64", "int64"),
            column(Value::Null, "__index_level_0__", "unicode", "object"),
        ],
        "creator": {"library": "tenon", "version": env!("CARGO_PKG_VERSION")},
        "pandas_version": "2.2.0",
    })
    .to_string()
}

fn table(path: &Path, columns: &[Column], metadata: Option<(&str, String)>) -> Result<(), DataError> {
    save::file(path, |file| table_writer::write(std::io::BufWriter::new(file), columns, metadata))
}

fn write_json(path: &Path, value: &Value) -> Result<(), DataError> {
    let text = serde_json::to_string_pretty(value).map_err(|e| DataError::file(path, e))? + "\n";
    save::file(path, |file| file.write_all(text.as_bytes()))
}
