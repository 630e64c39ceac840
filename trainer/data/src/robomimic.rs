//! robomimic's HDF5 files, and robosuite's own without observations (spec sim_tasks.md §3.9).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use serde_json::{Value, json};

use crate::array::{Array, Data};
use crate::error::DataError;
use crate::hdf5::{Attribute, AttributeValue, Datatype, Hdf5, Hdf5Error, Object, Writer, Written};
use crate::model::{DONES, Demonstrations, Episode, Found, LeftOut, OBSERVATIONS, REWARDS, TERMINATED, TRUNCATED};
use crate::save;
use crate::verify::{Defect, Kind, number_of};
use crate::{Notes, Steps};

/// Groups of a demonstration whose members have a value for each frame.
const GROUPS: [&str; 3] = ["obs", "next_obs", "action_dict"];
/// Deepest group below a demonstration.
const MAX_DEPTH: usize = 8;

/// Whether the file has the layout.
pub fn is_robomimic(h5: &Hdf5, root: &Object) -> Result<bool, Hdf5Error> {
    let Some(data) = h5.member(root, "data")? else { return Ok(false) };
    Ok(data.is_group()
        && (data.names().any(|n| n.starts_with("demo_")) || h5.attributes(&data)?.contains_key("env_args")))
}

/// Reads every demonstration that is whole.
///
/// # Errors
/// Where the file as a whole cannot be read.
pub fn read(path: &Path, steps: &mut Steps) -> Result<Found, DataError> {
    let fail = |e: Hdf5Error| DataError::file(path, e);
    let h5 = Hdf5::open(path).map_err(fail)?;
    let root = h5.root().map_err(fail)?;
    let missing = || DataError::file(path, "has no group `data`: it is no file of robomimic");
    let data = h5.member(&root, "data").map_err(fail)?.ok_or_else(missing)?;
    let mut found = Found::default();
    let demonstrations = &mut found.demonstrations;
    for (name, value) in h5.attributes(&data).map_err(fail)? {
        demonstrations.attributes.insert(name, json_of(value));
    }
    read_environment(demonstrations);
    let mut names: Vec<&str> = data.names().collect();
    names.sort_by_key(|name| (number_of(name).unwrap_or(u64::MAX), *name));
    for (i, name) in names.iter().enumerate() {
        steps.at(i, names.len())?;
        match read_demo(&h5, &data, name, steps.pictures, path) {
            Ok((episode, left_out, mut defects)) => {
                for field in left_out {
                    if !demonstrations.left_out.contains(&field) {
                        demonstrations.left_out.push(field);
                    }
                }
                found.defects.append(&mut defects);
                demonstrations.episodes.push(episode);
            }
            Err((field, e)) => {
                let mut defect = Defect::of_episode(path, name, Kind::Unreadable, e.to_string());
                defect.field = field;
                found.defects.push(defect);
            }
        }
    }
    steps.at(names.len(), names.len())?;
    leave_records_out(demonstrations);
    if let Some(total) = demonstrations.attributes.get("total").and_then(Value::as_f64)
        && found.defects.is_empty()
        && total != demonstrations.frames() as f64
    {
        let detail = format!("its attribute `total` says {total} frames, there are {}", demonstrations.frames());
        found.defects.push(Defect::of_file(path, Kind::Count, detail));
    }
    match masks(&h5, &root) {
        Ok(masks) if masks.is_empty() => {}
        Ok(masks) => {
            demonstrations.attributes.insert("mask".into(), Value::Object(masks));
        }
        Err(e) => found.defects.push(Defect::of_file(path, Kind::Unreadable, format!("group `mask`: {e}"))),
    }
    Ok(found)
}

/// Leaves groups out that are not of the layout and are recorded at a rate of their own (robosuite's logs of what a
/// person's device did): they are no fields of a frame.
fn leave_records_out(demonstrations: &mut Demonstrations) {
    let group_of = |field: &str| field.split_once('/').map(|(group, _)| group.to_owned());
    let mut others: BTreeSet<String> = BTreeSet::new();
    for episode in &demonstrations.episodes {
        let frames = episode.frames();
        let apart = episode.fields.iter().filter(|(_, array)| array.frames() != frames);
        others.extend(apart.filter_map(|(field, _)| group_of(field)).filter(|g| !GROUPS.contains(&g.as_str())));
    }
    for episode in &mut demonstrations.episodes {
        episode.fields.retain(|field, _| group_of(field).is_none_or(|g| !others.contains(&g)));
    }
    for group in others {
        let reason = "is recorded at a rate of its own, not once a frame".to_string();
        demonstrations.left_out.push(LeftOut { field: group, reason });
    }
}

fn masks(h5: &Hdf5, root: &Object) -> Result<serde_json::Map<String, Value>, Hdf5Error> {
    let mut masks = serde_json::Map::new();
    let Some(group) = h5.member(root, "mask")? else { return Ok(masks) };
    for name in group.names() {
        if let Some(list) = h5.member(&group, name)? {
            masks.insert(name.to_owned(), json!(h5.texts(&list)?));
        }
    }
    Ok(masks)
}

/// Name and rate of the environment, where the attributes say.
fn read_environment(demonstrations: &mut Demonstrations) {
    let text = |name: &str| demonstrations.attributes.get(name).and_then(Value::as_str);
    let args: Option<Value> = text("env_args").or_else(|| text("env_info")).and_then(|t| serde_json::from_str(t).ok());
    let find = |names: &[&str]| {
        let args = args.as_ref()?;
        names.iter().find_map(|name| args.get(name).or_else(|| args.get("env_kwargs")?.get(name)).cloned())
    };
    let environment = text("env").map(String::from);
    demonstrations.rate_hz = find(&["control_freq"]).and_then(|v| v.as_f64());
    demonstrations.environment = find(&["env_name"]).and_then(|v| v.as_str().map(String::from)).or(environment);
}

type Demo = (Episode, Vec<LeftOut>, Vec<Defect>);

fn read_demo(
    h5: &Hdf5,
    data: &Object,
    name: &str,
    pictures: bool,
    path: &Path,
) -> Result<Demo, (Option<String>, Hdf5Error)> {
    let whole = |e| (None, e);
    let Some(demo) = h5.member(data, name).map_err(whole)? else {
        return Ok((Episode { name: name.into(), ..Episode::default() }, vec![], vec![]));
    };
    let mut episode = Episode { name: name.into(), ..Episode::default() };
    let mut left_out = Vec::new();
    read_group(h5, &demo, "", pictures, &mut episode, &mut left_out, 0)?;
    for (attribute, value) in h5.attributes(&demo).map_err(whole)? {
        episode.attributes.insert(attribute, json_of(value));
    }
    episode.success = episode.success_by_reward();
    let mut defects = Vec::new();
    if let Some(samples) = episode.attributes.get("num_samples").and_then(Value::as_f64)
        && samples != episode.frames() as f64
    {
        let detail = format!("its attribute `num_samples` says {samples} frames, there are {}", episode.frames());
        defects.push(Defect::of_episode(path, name, Kind::Shape, detail));
    }
    Ok((episode, left_out, defects))
}

fn read_group(
    h5: &Hdf5,
    group: &Object,
    prefix: &str,
    pictures: bool,
    episode: &mut Episode,
    left_out: &mut Vec<LeftOut>,
    depth: usize,
) -> Result<(), (Option<String>, Hdf5Error)> {
    for name in group.names() {
        let field = format!("{prefix}{name}");
        let here = |e| (Some(field.clone()), e);
        let Some(member) = h5.member(group, name).map_err(here)? else { continue };
        if member.is_group() {
            if depth < MAX_DEPTH {
                read_group(h5, &member, &format!("{field}/"), pictures, episode, left_out, depth + 1)?;
            }
            continue;
        }
        let shape = member.shape().map_err(here)?;
        let datatype = member.datatype().map_err(here)?;
        let bytes = matches!(datatype, Datatype::Integer { size: 1, signed: false, .. });
        let reason = match datatype {
            _ if shape.is_empty() => Some("is a single value, none for each frame".to_string()),
            _ if shape.len() >= 3 && bytes && !pictures => {
                Some(format!("pictures {:?} were not asked for", &shape[1..]))
            }
            Datatype::Other { what, .. } => Some(format!("its elements are {what}")),
            Datatype::Text { .. } | Datatype::VariableText => Some("holds texts".into()),
            _ => None,
        };
        match reason {
            Some(reason) => left_out.push(LeftOut { field, reason }),
            None => {
                let array = h5.array(&member).map_err(here)?;
                episode.fields.insert(field, array);
            }
        }
    }
    Ok(())
}

fn json_of(value: Attribute) -> Value {
    match value {
        Attribute::Text(text) => Value::String(text),
        Attribute::Texts(texts) => json!(texts),
        Attribute::Numbers(array) => match (array.data().len(), array.data()) {
            (1, Data::I64(v)) => json!(v[0]),
            (1, Data::Bool(v)) => json!(v[0]),
            (1, _) => json!(array.value(0)),
            _ => json!(array.values().collect::<Vec<_>>()),
        },
        Attribute::Other(what) => Value::String(format!("({what})")),
    }
}

/// Writes the layout that robomimic's own loader opens.
///
/// # Errors
/// Where the file cannot be written.
pub fn write(
    path: &Path,
    demonstrations: &Demonstrations,
    steps: &mut Steps,
    notes: &mut Notes,
) -> Result<(), DataError> {
    let count = demonstrations.episodes.len();
    // Names that are robomimic's already are kept: lists in `mask` speak of them.
    let kept = demonstrations.episodes.iter().all(|e| e.name.starts_with("demo_") && number_of(&e.name).is_some());
    let mut interrupted = None;
    let written = save::file(path, |file| {
        let mut w = Writer::new(file)?;
        let mut demos = Vec::new();
        for (i, episode) in demonstrations.episodes.iter().enumerate() {
            if let Err(e) = steps.at(i, count) {
                interrupted = Some(e);
                return Err(std::io::Error::other("interrupted"));
            }
            let name = if kept { episode.name.clone() } else { format!("demo_{i}") };
            let demo = write_demo(&mut w, episode)?;
            demos.push((name, demo));
        }
        let total = AttributeValue::Integer(demonstrations.frames() as i64);
        let arguments = environment_arguments(demonstrations);
        let mut attributes = vec![("total", total), ("env_args", AttributeValue::Text(&arguments))];
        attributes.extend(kept_attributes(&demonstrations.attributes, &["total", "env_args"]));
        let data = w.group(&demos, &attributes)?;
        let mut members = vec![("data".to_string(), data)];
        if let Some(mask) = write_mask(&mut w, demonstrations, &demos)? {
            members.push(("mask".into(), mask));
        }
        let root = w.group(&members, &[])?;
        w.finish(root).map(drop)
    });
    if let Some(e) = interrupted {
        return Err(e);
    }
    written?;
    steps.at(count, count)?;
    let lacks = |field: &str| demonstrations.episodes.iter().any(|e| !e.fields.contains_key(field));
    if lacks(REWARDS) {
        notes.say("there are no rewards: set train.dataset_keys = [\"actions\"] in robomimic's configuration");
    }
    if demonstrations.episodes.iter().any(|e| e.observation_keys().next().is_none()) {
        notes.say("there are no observations: make them with robomimic's dataset_states_to_obs.py before training");
    }
    Ok(())
}

fn write_demo(w: &mut Writer<&mut File>, episode: &Episode) -> std::io::Result<Written> {
    let dones = dones(episode);
    let mut fields: Vec<(&str, &Array)> = episode.fields.iter().map(|(name, array)| (name.as_str(), array)).collect();
    if !episode.fields.contains_key(DONES) {
        fields.push((DONES, &dones));
    }
    let members = write_members(w, &fields)?;
    let mut attributes = vec![("num_samples", AttributeValue::Integer(episode.frames() as i64))];
    attributes.extend(kept_attributes(&episode.attributes, &["num_samples"]));
    w.group(&members, &attributes)
}

/// Data sets, and groups where a name has parts.
fn write_members(w: &mut Writer<&mut File>, fields: &[(&str, &Array)]) -> std::io::Result<Vec<(String, Written)>> {
    let mut members = Vec::new();
    let mut groups: BTreeMap<&str, Vec<(&str, &Array)>> = BTreeMap::new();
    for (name, array) in fields {
        match name.split_once('/') {
            None => members.push(((*name).to_string(), w.array(array)?)),
            Some((group, rest)) => groups.entry(group).or_default().push((rest, array)),
        }
    }
    for (name, fields) in groups {
        let inner = write_members(w, &fields)?;
        members.push((name.to_string(), w.group(&inner, &[])?));
    }
    Ok(members)
}

/// Attributes that HDF5 holds as they are, but for some.
fn kept_attributes<'a>(
    attributes: &'a BTreeMap<String, Value>,
    but: &'a [&str],
) -> impl Iterator<Item = (&'a str, AttributeValue<'a>)> {
    attributes.iter().filter(|(name, _)| !but.contains(&name.as_str())).filter_map(|(name, value)| {
        let value = match value {
            Value::String(text) => AttributeValue::Text(text),
            Value::Number(n) => n.as_i64().map_or(AttributeValue::Float(n.as_f64()?), AttributeValue::Integer),
            _ => return None,
        };
        Some((name.as_str(), value))
    })
}

/// An episode is over where it says so, and behind its last frame.
fn dones(episode: &Episode) -> Array {
    let mut dones = vec![0; episode.frames()];
    for field in [TERMINATED, TRUNCATED] {
        if let Some(array) = episode.fields.get(field) {
            for (done, value) in dones.iter_mut().zip(array.values()) {
                *done |= i64::from(value != 0.0);
            }
        }
    }
    if let Some(last) = dones.last_mut() {
        *last = 1;
    }
    Array::column(Data::I64(dones))
}

fn environment_arguments(demonstrations: &Demonstrations) -> String {
    if let Some(text) = demonstrations.attributes.get("env_args").and_then(Value::as_str) {
        return text.to_owned();
    }
    let mut arguments = serde_json::Map::new();
    if let Some(rate) = demonstrations.rate_hz {
        arguments.insert("control_freq".into(), json!(rate));
    }
    // Type 1: robosuite, which robomimic takes as its default.
    json!({
        "env_name": demonstrations.environment.as_deref().unwrap_or("unknown"),
        "type": 1,
        "env_kwargs": arguments,
    })
    .to_string()
}

fn write_mask(
    w: &mut Writer<&mut File>,
    demonstrations: &Demonstrations,
    demos: &[(String, Written)],
) -> std::io::Result<Option<Written>> {
    let Some(masks) = demonstrations.attributes.get("mask").and_then(Value::as_object) else { return Ok(None) };
    let mut members = Vec::new();
    for (name, list) in masks {
        let names = list.as_array().into_iter().flatten().filter_map(Value::as_str);
        let there = |n: &&str| demos.iter().any(|(demo, _)| demo == n);
        let names: Vec<String> = names.filter(there).map(String::from).collect();
        if !names.is_empty() {
            members.push((name.clone(), w.texts(&names)?));
        }
    }
    if members.is_empty() { Ok(None) } else { w.group(&members, &[]).map(Some) }
}

/// Observations that a policy of robomimic sees, in the order of its state (spec sim_tasks.md §3.5).
pub fn state_keys(episode: &Episode) -> Vec<String> {
    let mut keys = Vec::new();
    for robot in 0..4 {
        for part in ["eef_pos", "eef_quat", "gripper_qpos"] {
            keys.push(format!("robot{robot}_{part}"));
        }
    }
    keys.push("object".into());
    keys.retain(|key| episode.fields.contains_key(&format!("{OBSERVATIONS}{key}")));
    keys
}
