//! The metrics of a run as columns of numbers.
//!
//! A record is whatever a loop serialises; its keys become the names of the series. Numbers and truth values are taken
//! as they are, a list under `name` becomes `name/00`, `name/01`, …, an object `name/key`; texts are left out. A value
//! that is no number (JSON has no NaN) leaves a gap.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::error::TrainError;
use crate::run_dir::METRICS_FILE;

/// Key under which a record says when it was written: seconds since 1970 UTC.
pub const TIME_KEY: &str = "unix_seconds";

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub step: u64,
    /// NaN in a record that does not say.
    pub unix_seconds: f64,
    /// In the order of the record; none is NaN.
    pub values: Vec<(String, f64)>,
}

/// All records of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// Key of a record that counts the steps: `epoch`, `iteration`.
    pub counter: String,
    /// Growing.
    pub steps: Vec<u64>,
    /// When each step was recorded, NaN where unknown.
    pub unix_seconds: Vec<f64>,
    pub series: Vec<Series>,
}

/// One quantity, with as many values as the history has steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub name: String,
    /// NaN where a record has none.
    pub values: Vec<f64>,
}

impl Series {
    /// The newest value that there is.
    pub fn last(&self) -> Option<f64> {
        self.values.iter().rev().copied().find(|v| !v.is_nan())
    }

    /// Mean of what is there of the last tenth of the steps, at least one step.
    pub fn last_tenth(&self) -> Option<f64> {
        let n = self.values.len().div_ceil(10);
        let there: Vec<f64> = self.values[self.values.len() - n..].iter().copied().filter(|v| !v.is_nan()).collect();
        if there.is_empty() { self.last() } else { Some(there.iter().sum::<f64>() / there.len() as f64) }
    }

    /// The part of the name before its first `/`: components of one vector share it.
    pub fn family(&self) -> &str {
        self.name.split('/').next().unwrap_or(&self.name)
    }
}

impl Row {
    /// Reads one line of the metrics. The error says what is wrong with it.
    pub fn parse(line: &str, counter: &str) -> Result<Self, String> {
        let Record(pairs) = serde_json::from_str(line).map_err(|e| format!("no whole JSON object: {e}"))?;
        let (mut step, mut unix_seconds, mut values) = (None, f64::NAN, Vec::with_capacity(pairs.len()));
        for (key, value) in &pairs {
            if key == counter {
                step = value.as_u64();
            } else if key == TIME_KEY {
                unix_seconds = value.as_f64().unwrap_or(f64::NAN);
            } else {
                flatten(key, value, &mut values);
            }
        }
        let step = step.ok_or_else(|| format!("`{counter}` is missing or is no whole number"))?;
        Ok(Self { step, unix_seconds, values })
    }
}

impl History {
    /// One without records.
    pub fn new(counter: &str) -> Self {
        Self { counter: counter.into(), steps: Vec::new(), unix_seconds: Vec::new(), series: Vec::new() }
    }

    /// Reads `metrics.jsonl` of a folder. A last line without its end is still being written and is left out; a folder
    /// without the file has no records yet.
    pub fn read(folder: &Path, counter: &str) -> Result<Self, TrainError> {
        let path = folder.join(METRICS_FILE);
        let text = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(TrainError::file(path, e)),
        };
        let mut history = Self::new(counter);
        let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        for (i, line) in text[..whole].split(|&b| b == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            std::str::from_utf8(line)
                .map_err(|e| e.to_string())
                .and_then(|line| Row::parse(line, counter))
                .and_then(|row| history.push(row))
                .map_err(|e| {
                    let advice = "remove the line, or continue the run with the command that began it, which drops it";
                    TrainError::file(&path, format!("line {}: {e}; {advice}", i + 1))
                })?;
        }
        Ok(history)
    }

    /// Adds a record. The error says why it does not follow the last one.
    pub fn push(&mut self, row: Row) -> Result<(), String> {
        if let Some(&last) = self.steps.last()
            && row.step <= last
        {
            return Err(format!("{} {} follows {} {last}", self.counter, row.step, self.counter));
        }
        let before = self.steps.len();
        self.steps.push(row.step);
        self.unix_seconds.push(row.unix_seconds);
        for (i, (name, value)) in row.values.into_iter().enumerate() {
            // Records of a run look alike: the i-th value nearly always belongs to the i-th series.
            let at = match self.series.get(i) {
                Some(series) if series.name == name => Some(i),
                _ => self.series.iter().position(|s| s.name == name),
            };
            match at {
                Some(at) => self.series[at].values.push(value),
                None => {
                    let mut values = vec![f64::NAN; before];
                    values.push(value);
                    self.series.push(Series { name, values });
                }
            }
        }
        for series in &mut self.series {
            series.values.resize(before + 1, f64::NAN);
        }
        Ok(())
    }

    /// Record `i` as it was pushed.
    pub fn row(&self, i: usize) -> Row {
        let values = self.series.iter().filter(|s| !s.values[i].is_nan()).map(|s| (s.name.clone(), s.values[i]));
        Row { step: self.steps[i], unix_seconds: self.unix_seconds[i], values: values.collect() }
    }

    /// The last step, 0 before the first.
    pub fn done(&self) -> u64 {
        self.steps.last().copied().unwrap_or(0)
    }

    /// When the last record was written.
    pub fn last_update(&self) -> Option<f64> {
        self.unix_seconds.last().copied().filter(|t| !t.is_nan())
    }

    /// The series of this name.
    pub fn series(&self, name: &str) -> Option<&Series> {
        self.series.iter().find(|s| s.name == name)
    }

    /// The names of all families, in the order of the record.
    pub fn families(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for series in &self.series {
            if !names.contains(&series.family()) {
                names.push(series.family());
            }
        }
        names
    }

    /// The series of a family: one, or the components of a vector.
    pub fn family(&self, name: &str) -> Vec<&Series> {
        self.series.iter().filter(|s| s.family() == name).collect()
    }

    /// Median time from one record to the next, seconds: pauses of an interrupted run do not count.
    pub fn seconds_per_step(&self) -> Option<f64> {
        let mut each: Vec<f64> = self
            .steps
            .windows(2)
            .zip(self.unix_seconds.windows(2))
            .map(|(steps, times)| (times[1] - times[0]) / (steps[1] - steps[0]) as f64)
            .filter(|seconds| !seconds.is_nan())
            .collect();
        each.sort_by(f64::total_cmp);
        each.get(each.len() / 2).copied()
    }
}

/// A JSON object with the order of its keys, which `serde_json::Value` does not keep.
struct Record(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Record;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Record, M::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Record(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

fn flatten(name: &str, value: &Value, into: &mut Vec<(String, f64)>) {
    match value {
        Value::Number(number) => into.extend(number.as_f64().map(|v| (name.to_string(), v))),
        Value::Bool(truth) => into.push((name.to_string(), f64::from(u8::from(*truth)))),
        Value::Array(values) => {
            let width = values.len().saturating_sub(1).to_string().len().max(2);
            for (i, value) in values.iter().enumerate() {
                flatten(&format!("{name}/{i:0width$}"), value, into);
            }
        }
        Value::Object(map) => map.iter().for_each(|(key, value)| flatten(&format!("{name}/{key}"), value, into)),
        Value::Null | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<History, TrainError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(METRICS_FILE), text).unwrap();
        History::read(folder.path(), "epoch")
    }

    #[test]
    fn keys_become_series_in_their_order_and_missing_values_gaps() {
        let history = read(concat!(
            "{\"epoch\":1,\"loss\":2.5,\"stopped\":true,\"per_step\":[0.5,null],\"note\":\"x\",\"unix_seconds\":10.5}\n",
            "{\"epoch\":3,\"loss\":null,\"stopped\":false,\"per_step\":[1,2],\"late\":{\"a\":7},\"unix_seconds\":20.5}\n",
            "{\"epoch\":4,\"lo",
        ))
        .unwrap();
        let names: Vec<&str> = history.series.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["loss", "stopped", "per_step/00", "per_step/01", "late/a"]);
        assert_eq!(history.families(), ["loss", "stopped", "per_step", "late"]);
        assert_eq!((history.done(), history.last_update()), (3, Some(20.5)));
        assert_eq!(history.series("loss").unwrap().last(), Some(2.5));
        assert!(history.series("loss").unwrap().values[1].is_nan());
        assert!(history.series("late/a").unwrap().values[0].is_nan());
        assert_eq!(history.seconds_per_step(), Some(5.0));
        assert_eq!(history.row(1).values.len(), 4);
    }

    #[test]
    fn a_damaged_line_is_named() {
        for (text, line, what) in [
            ("{\"epoch\":1}\n{\"epoch\":\n{\"epoch\":3}\n", "line 2", "JSON"),
            ("{\"epoch\":1}\n{\"loss\":1.0}\n", "line 2", "`epoch`"),
            ("{\"epoch\":1}\n{\"epoch\":1}\n", "line 2", "follows"),
            ("[1]\n", "line 1", "object"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(METRICS_FILE) && error.contains(line) && error.contains(what), "{error}");
        }
        assert_eq!(read("").unwrap().done(), 0);
    }
}
