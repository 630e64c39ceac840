//! What is in demonstrations, in numbers.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::array::Array;
use crate::format::Format;
use crate::model::{Demonstrations, LeftOut};

/// A field over all episodes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldSummary {
    /// Its name.
    pub field: String,
    /// Element type.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Shape of a frame; that of the first episode.
    pub shape: Vec<usize>,
    /// Least value of each component, where they are few; NaN is passed over.
    pub min: Vec<f64>,
    /// Greatest value of each component.
    pub max: Vec<f64>,
    /// Episodes that have it.
    pub episodes: usize,
}

/// What is in a data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Format.
    pub format: Format,
    /// Environment or task.
    pub environment: Option<String>,
    /// Frames a second.
    pub rate_hz: Option<f64>,
    /// Number of episodes.
    pub episodes: usize,
    /// Frames of all of them.
    pub frames: usize,
    /// Shortest, mean and longest episode, frames; zeros where there is none.
    pub frames_per_episode: [f64; 3],
    /// Episodes that succeeded, of those of which it is known.
    pub succeeded: Option<[usize; 2]>,
    /// Mean sum of rewards, where there are rewards.
    pub mean_return: Option<f64>,
    /// Whether values are stored normalised.
    pub normalised: bool,
    /// Fields.
    pub fields: Vec<FieldSummary>,
    /// Fields that were not read.
    pub left_out: Vec<LeftOut>,
}

/// Most components of which each is summarised; pictures are not looked into.
const MAX_COMPONENTS: usize = 4096;

impl Summary {
    /// Of demonstrations that were read in a format.
    pub fn of(demonstrations: &Demonstrations, format: Format) -> Self {
        let lengths: Vec<usize> = demonstrations.episodes.iter().map(|e| e.frames()).collect();
        let frames: usize = lengths.iter().sum();
        let count = lengths.len();
        let of = |n: Option<&usize>| n.map_or(0.0, |&n| n as f64);
        let known: Vec<bool> = demonstrations.episodes.iter().filter_map(|e| e.success).collect();
        let returns: Vec<f64> = demonstrations.episodes.iter().filter_map(|e| e.total_reward()).collect();
        let mut fields: BTreeMap<&str, FieldSummary> = BTreeMap::new();
        for episode in &demonstrations.episodes {
            for (name, array) in &episode.fields {
                let field = fields.entry(name).or_insert_with(|| FieldSummary::new(name, array));
                field.add(array);
            }
        }
        Self {
            format,
            environment: demonstrations.environment.clone(),
            rate_hz: demonstrations.rate_hz,
            episodes: count,
            frames,
            frames_per_episode: [
                of(lengths.iter().min()),
                if count > 0 { frames as f64 / count as f64 } else { 0.0 },
                of(lengths.iter().max()),
            ],
            succeeded: (!known.is_empty()).then(|| [known.iter().filter(|s| **s).count(), known.len()]),
            mean_return: (!returns.is_empty()).then(|| returns.iter().sum::<f64>() / returns.len() as f64),
            normalised: demonstrations.normalizer.is_some(),
            fields: fields.into_values().collect(),
            left_out: demonstrations.left_out.clone(),
        }
    }
}

impl FieldSummary {
    fn new(name: &str, array: &Array) -> Self {
        let few = !array.is_picture() && array.width() <= MAX_COMPONENTS;
        let width = if few { array.width() } else { 0 };
        Self {
            field: name.to_owned(),
            kind: array.data().type_name(),
            shape: array.shape()[1..].to_vec(),
            min: vec![f64::INFINITY; width],
            max: vec![f64::NEG_INFINITY; width],
            episodes: 0,
        }
    }

    fn add(&mut self, array: &Array) {
        self.episodes += 1;
        if array.shape()[1..] != self.shape[..] || self.min.is_empty() {
            return;
        }
        for (i, value) in array.values().enumerate() {
            let column = i % self.min.len();
            self.min[column] = self.min[column].min(value);
            self.max[column] = self.max[column].max(value);
        }
    }

    /// Least and greatest value of all components, where there are some.
    pub fn range(&self) -> Option<[f64; 2]> {
        let least = self.min.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.max.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (least <= most).then_some([least, most])
    }
}
