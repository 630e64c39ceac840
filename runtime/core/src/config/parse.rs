//! From text to a checked value, with errors that say where.

use serde::de::DeserializeOwned;
use thiserror::Error;

/// `file:line: what is wrong`.
#[derive(Debug, Error, PartialEq)]
#[error("{file}:{line}: {message}")]
pub struct ConfigError {
    pub file: String,
    pub line: usize,
    pub message: String,
}

/// A configuration that can say what the types do not.
pub trait Check {
    /// Every problem as (key path, what is wrong).
    fn problems(&self) -> Vec<(&'static str, String)>;
}

/// Parses and checks. `file` is only used in messages.
pub fn parse<T: DeserializeOwned + Check>(file: &str, text: &str) -> Result<T, ConfigError> {
    let value: T = toml::from_str(text).map_err(|e| {
        let start = e.span().map_or(0, |s| s.start);
        ConfigError { file: file.to_string(), line: line_of(text, start), message: explain(e.message()) }
    })?;
    let problems = value.problems();
    let Some((first, _)) = problems.first() else { return Ok(value) };
    let line = find_key(text, first);
    let message = problems.iter().map(|(key, what)| format!("{key}: {what}")).collect::<Vec<_>>().join("; ");
    Err(ConfigError { file: file.to_string(), line, message })
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|&&b| b == b'\n').count() + 1
}

/// Adds the nearest known key to serde's list of expected ones.
fn explain(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown field") && !message.starts_with("unknown variant") {
        return message.to_string();
    }
    let Some(unknown) = quoted.next() else { return message.to_string() };
    let nearest = quoted.min_by_key(|known| edit_distance(unknown, known));
    match nearest {
        Some(known) => format!("unknown key `{unknown}`: did you mean `{known}`? ({message})"),
        None => message.to_string(),
    }
}

/// Levenshtein distance.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Line of `table.key`: the key's assignment after its table's header; 1 if it is not written there.
fn find_key(text: &str, path: &str) -> usize {
    let (table, key) = path.rsplit_once('.').unwrap_or(("", path));
    let mut current = String::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            // A comment may follow.
            current = header.split(']').next().unwrap_or_default().trim().to_string();
        } else if current == table && line.split('=').next().is_some_and(|k| k.trim() == key) {
            return i + 1;
        }
    }
    1
}

/// Shared checks of the configuration structs.
pub(super) struct Problems(pub Vec<(&'static str, String)>);

impl Problems {
    pub fn add(&mut self, key: &'static str, what: impl Into<String>) {
        self.0.push((key, what.into()));
    }

    pub fn positive(&mut self, key: &'static str, value: f64) {
        if !(value.is_finite() && value > 0.0) {
            self.0.push((key, format!("{value} must be positive")));
        }
    }

    pub fn within(&mut self, key: &'static str, value: f64, lo: f64, hi: f64) {
        if !(value >= lo && value <= hi) {
            self.0.push((key, format!("{value} must be between {lo} and {hi}")));
        }
    }

    pub fn at_least_one(&mut self, key: &'static str, value: usize) {
        if value == 0 {
            self.0.push((key, "must be at least 1".to_string()));
        }
    }
}
