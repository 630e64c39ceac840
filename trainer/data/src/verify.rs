//! What is wrong with demonstrations, each with its file, episode and frame.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::array::Array;
use crate::model::{ACTIONS, Demonstrations, Episode, Found, OBSERVATIONS, TIME};

/// Kind of a defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Part of the file is missing or damaged.
    Unreadable,
    /// An episode without frames, or a data set without episodes.
    Empty,
    /// A field has other frames, another width or type than it should.
    Shape,
    /// A field or an episode is not there.
    Missing,
    /// NaN or infinite.
    NotFinite,
    /// Beyond what its place allows.
    OutOfRange,
    /// Frames or episodes stand in the wrong order.
    Order,
    /// An episode that is there twice.
    Duplicate,
    /// What the file says of itself is not what it holds.
    Count,
}

impl Kind {
    /// Whether the episode of such a defect cannot be used. The others are about the file as a whole.
    pub fn spoils_episode(self) -> bool {
        !matches!(self, Self::Count)
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Defect {
    /// File or folder.
    pub file: PathBuf,
    /// Name of the episode, where it is one episode's.
    pub episode: Option<String>,
    /// First frame it concerns.
    pub frame: Option<usize>,
    /// Field.
    pub field: Option<String>,
    /// What it is.
    pub kind: Kind,
    /// In words.
    pub detail: String,
}

impl Defect {
    /// About a file as a whole.
    pub fn of_file(file: &Path, kind: Kind, detail: impl Into<String>) -> Self {
        Self { file: file.to_owned(), episode: None, frame: None, field: None, kind, detail: detail.into() }
    }

    /// About an episode as a whole.
    pub fn of_episode(file: &Path, episode: &str, kind: Kind, detail: impl Into<String>) -> Self {
        Self { episode: Some(episode.to_owned()), ..Self::of_file(file, kind, detail) }
    }

    /// About a field of an episode.
    pub fn of_field(file: &Path, episode: &str, field: &str, kind: Kind, detail: impl Into<String>) -> Self {
        Self { field: Some(field.to_owned()), ..Self::of_episode(file, episode, kind, detail) }
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file.display())?;
        if let Some(episode) = &self.episode {
            write!(f, "episode {episode}, ")?;
        }
        if let Some(frame) = self.frame {
            write!(f, "frame {frame}, ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "`{field}`: ")?;
        }
        f.write_str(&self.detail)
    }
}

/// What values may be.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bounds {
    /// Largest magnitude of an action.
    pub action: Option<f64>,
    /// Largest magnitude of an observation (data that are stored normalised).
    pub observation: Option<f64>,
}

/// Every defect: those that the reader found, and those of the values.
pub fn verify(path: &Path, found: &Found, bounds: Bounds) -> Vec<Defect> {
    let demonstrations = &found.demonstrations;
    let mut defects = found.defects.clone();
    if demonstrations.episodes.is_empty() && defects.is_empty() {
        defects.push(Defect::of_file(path, Kind::Empty, "there is no episode"));
    }
    shapes(path, demonstrations, &mut defects);
    for episode in &demonstrations.episodes {
        let file = episode.file.as_deref().unwrap_or(path);
        values(file, episode, bounds, &mut defects);
    }
    numbering(path, demonstrations, &mut defects);
    duplicates(path, demonstrations, &mut defects);
    defects
}

/// Width and element type of a field.
type Form<'a> = (&'a [usize], &'static str);

/// Fields that differ from what most episodes have.
fn shapes(path: &Path, demonstrations: &Demonstrations, defects: &mut Vec<Defect>) {
    let mut forms: BTreeMap<&str, HashMap<Form, usize>> = BTreeMap::new();
    for episode in &demonstrations.episodes {
        for (name, array) in &episode.fields {
            let form = (&array.shape()[1..], array.data().type_name());
            *forms.entry(name).or_default().entry(form).or_default() += 1;
        }
    }
    // A tie goes to the larger form, whatever the order of the map.
    let usual = |forms: &HashMap<Form<'_>, usize>| forms.iter().map(|(f, &n)| (n, f.0.to_vec(), f.1)).max();
    for episode in &demonstrations.episodes {
        let file = episode.file.as_deref().unwrap_or(path);
        let mut note = |field: &str, kind, detail| {
            defects.push(Defect::of_field(file, &episode.name, field, kind, detail));
        };
        let frames = episode.frames();
        for (name, counts) in &forms {
            let Some((times, width, kind)) = usual(counts) else { continue };
            match episode.fields.get(*name) {
                None if 2 * counts.values().sum::<usize>() > demonstrations.episodes.len() => {
                    note(name, Kind::Missing, "is not there, most episodes have it".to_string());
                }
                None => {}
                Some(array) => {
                    if array.frames() != frames {
                        let detail = format!("has {} frames, the actions have {frames}", array.frames());
                        note(name, Kind::Shape, detail);
                    }
                    if array.shape()[1..] != width[..] || array.data().type_name() != kind {
                        let own = &array.shape()[1..];
                        let detail = format!(
                            "frames are {own:?} of {}, in {times} episodes they are {width:?} of {kind}",
                            array.data().type_name()
                        );
                        note(name, Kind::Shape, detail);
                    }
                }
            }
        }
    }
}

fn values(file: &Path, episode: &Episode, bounds: Bounds, defects: &mut Vec<Defect>) {
    let name = &episode.name;
    if episode.frames() == 0 {
        defects.push(Defect::of_episode(file, name, Kind::Empty, "has no frame"));
        return;
    }
    if !episode.fields.contains_key(ACTIONS) {
        defects.push(Defect::of_field(
            file,
            name,
            ACTIONS,
            Kind::Missing,
            "is not there: nothing can be learnt from it",
        ));
    }
    for (field, array) in &episode.fields {
        if let Some((i, count)) = first(array, |v| !v.is_finite()) {
            let (frame, column, value) = place(array, i);
            let detail = format!("value {column} is {value}{}", in_all(count));
            let defect = Defect::of_field(file, name, field, Kind::NotFinite, detail);
            defects.push(Defect { frame: Some(frame), ..defect });
        }
        let bound = match field.as_str() {
            ACTIONS => bounds.action,
            f if f.starts_with(OBSERVATIONS) && !array.is_picture() => bounds.observation,
            _ => None,
        };
        // Single floats that were limited as doubles lie beyond by their rounding.
        if let Some(bound) = bound
            && let Some((i, count)) = first(array, |v| v.abs() > bound + 1e-5 * bound.max(1.0))
        {
            let (frame, column, value) = place(array, i);
            let detail = format!("value {column} is {value}, allowed are −{bound} to {bound}{}", in_all(count));
            let defect = Defect::of_field(file, name, field, Kind::OutOfRange, detail);
            defects.push(Defect { frame: Some(frame), ..defect });
        }
    }
    if let Some(time) = episode.fields.get(TIME).filter(|t| t.width() == 1) {
        let times: Vec<f64> = time.values().collect();
        if let Some(i) = times.windows(2).position(|w| w[1] <= w[0]) {
            let detail = format!("{} s follows {} s: frames are out of order or doubled", times[i + 1], times[i]);
            let defect = Defect::of_field(file, name, TIME, Kind::Order, detail);
            defects.push(Defect { frame: Some(i + 1), ..defect });
        }
    }
}

/// The first value of which something is true, and of how many it is.
fn first(array: &Array, wrong: impl Fn(f64) -> bool) -> Option<(usize, usize)> {
    if array.is_picture() {
        return None;
    }
    let mut places = array.values().enumerate().filter(|(_, v)| wrong(*v));
    let (i, _) = places.next()?;
    Some((i, 1 + places.count()))
}

fn place(array: &Array, i: usize) -> (usize, usize, f64) {
    let width = array.width().max(1);
    (i / width, i % width, array.value(i))
}

fn in_all(count: usize) -> String {
    if count > 1 { format!(" ({count} such values in all)") } else { String::new() }
}

/// Numbers at the ends of names that leave some out or go back.
fn numbering(path: &Path, demonstrations: &Demonstrations, defects: &mut Vec<Defect>) {
    let numbers: Option<Vec<u64>> = demonstrations.episodes.iter().map(|e| number_of(&e.name)).collect();
    let Some(numbers) = numbers else { return };
    // What could not be read is named already.
    let unread: Vec<u64> =
        defects.iter().filter(|d| d.kind == Kind::Unreadable).filter_map(|d| number_of(d.episode.as_ref()?)).collect();
    let prefix = |name: &str| name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
    for (pair, episode) in numbers.windows(2).zip(demonstrations.episodes.iter().skip(1)) {
        if pair[1] <= pair[0] {
            let detail = format!("stands behind number {}: episodes are out of order or doubled", pair[0]);
            defects.push(Defect::of_episode(path, &episode.name, Kind::Order, detail));
        }
        let prefix = prefix(&episode.name);
        let gone: Vec<u64> = (pair[0] + 1..pair[1].min(pair[0] + 10_000)).filter(|n| !unread.contains(n)).collect();
        if let (Some(first), Some(last)) = (gone.first(), gone.last()) {
            let names =
                if first == last { format!("{prefix}{first}") } else { format!("{prefix}{first} to {prefix}{last}") };
            // Nothing of the episodes that are there is wrong.
            defects.push(Defect::of_file(path, Kind::Missing, format!("{names}: not there, its neighbours are")));
        }
    }
}

/// The number of `demo_12`, `episode_12` or `12`.
pub fn number_of(name: &str) -> Option<u64> {
    let digits = ["demo_", "episode_", ""].iter().find_map(|p| name.strip_prefix(p))?;
    digits.parse().ok()
}

fn duplicates(path: &Path, demonstrations: &Demonstrations, defects: &mut Vec<Defect>) {
    let mut seen: HashMap<[u8; 32], &str> = HashMap::new();
    for episode in &demonstrations.episodes {
        if episode.frames() == 0 {
            continue;
        }
        let file = episode.file.as_deref().unwrap_or(path);
        if let Some(before) = seen.insert(fingerprint(episode), &episode.name) {
            let detail = format!("is the same as episode {before}, value for value");
            defects.push(Defect::of_episode(file, &episode.name, Kind::Duplicate, detail));
        }
    }
}

/// SHA-256 of everything that is recorded of an episode.
pub fn fingerprint(episode: &Episode) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (name, array) in &episode.fields {
        hash.update(name.as_bytes());
        hash.update(array.data().type_name());
        array.shape().iter().for_each(|d| hash.update(d.to_le_bytes()));
        hash.update(array.data().to_le_bytes());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::Data;
    use crate::model::REWARDS;

    fn episode(name: &str, start: f32) -> Episode {
        let values = |width: usize| (0..4 * width).map(|i| start + i as f32 * 0.01).collect();
        let fields = [
            (ACTIONS.to_string(), Array::rows_of(2, Data::F32(values(2))).unwrap()),
            ("obs/state".to_string(), Array::rows_of(3, Data::F32(values(3))).unwrap()),
            (REWARDS.to_string(), Array::column(Data::F32(vec![0.0; 4]))),
            (TIME.to_string(), Array::column(Data::F64(vec![0.0, 0.1, 0.2, 0.3]))),
        ];
        Episode { name: name.into(), fields: fields.into(), ..Episode::default() }
    }

    fn check(episodes: Vec<Episode>) -> Vec<(Option<String>, Option<usize>, Kind, String)> {
        let demonstrations = Demonstrations { episodes, ..Demonstrations::default() };
        let found = Found { demonstrations, defects: vec![] };
        let bounds = Bounds { action: Some(1.0), observation: None };
        let defects = verify(Path::new("x.hdf5"), &found, bounds);
        defects.into_iter().map(|d| (d.episode.clone(), d.frame, d.kind, d.to_string())).collect()
    }

    fn three() -> Vec<Episode> {
        vec![episode("demo_0", 0.0), episode("demo_1", 0.1), episode("demo_2", 0.2)]
    }

    #[test]
    fn whole_demonstrations_have_no_defect() {
        assert_eq!(check(three()), []);
    }

    #[test]
    fn nan_and_range_are_named_with_episode_and_frame() {
        let mut episodes = three();
        let mut values = episodes[1].fields[ACTIONS].to_f32();
        (values[5], values[6]) = (f32::NAN, 3.75);
        episodes[1].fields.insert(ACTIONS.into(), Array::rows_of(2, Data::F32(values)).unwrap());
        let defects = check(episodes);
        assert_eq!(defects.len(), 2, "{defects:?}");
        assert_eq!((defects[0].1, defects[0].2), (Some(2), Kind::NotFinite));
        assert_eq!((defects[1].1, defects[1].2), (Some(3), Kind::OutOfRange));
        assert!(defects[0].3.contains("x.hdf5: episode demo_1, frame 2, `actions`: value 1 is NaN"), "{defects:?}");
    }

    #[test]
    fn a_field_of_other_width_or_length_is_named_and_so_is_a_missing_one() {
        let mut episodes = three();
        episodes[2].fields.insert("obs/state".into(), Array::rows_of(4, Data::F32(vec![0.0; 16])).unwrap());
        episodes[0].fields.insert(REWARDS.into(), Array::column(Data::F32(vec![0.0; 3])));
        episodes[1].fields.remove(REWARDS);
        let defects = check(episodes);
        let kinds: Vec<_> = defects.iter().map(|d| (d.0.as_deref().unwrap(), d.2)).collect();
        assert_eq!(kinds, [("demo_0", Kind::Shape), ("demo_1", Kind::Missing), ("demo_2", Kind::Shape)], "{defects:?}");
    }

    #[test]
    fn doubled_missing_and_unsorted_episodes_are_named() {
        let mut again = episode("demo_5", 0.1);
        again.name = "demo_5".into();
        let defects = check(vec![episode("demo_0", 0.0), episode("demo_1", 0.1), again, episode("demo_4", 0.3)]);
        let kinds: Vec<_> = defects.iter().map(|d| d.2).collect();
        assert_eq!(kinds, [Kind::Missing, Kind::Order, Kind::Duplicate], "{defects:?}");
        assert!(defects[0].3.contains("demo_2 to demo_4"), "{defects:?}");
        assert!(defects[2].3.contains("same as episode demo_1"), "{defects:?}");
    }

    #[test]
    fn time_that_runs_back_and_empty_episodes_are_named() {
        let mut episodes = three();
        episodes[0].fields.insert(TIME.into(), Array::column(Data::F64(vec![0.0, 0.2, 0.1, 0.3])));
        episodes[2] = episodes[2].cut(0..0);
        let defects = check(episodes);
        assert_eq!((defects[0].1, defects[0].2), (Some(2), Kind::Order));
        assert_eq!((defects[1].0.as_deref(), defects[1].2), (Some("demo_2"), Kind::Empty));
        assert_eq!(check(vec![])[0].2, Kind::Empty);
    }
}
