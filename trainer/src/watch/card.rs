//! `training.json`: what a run is, and what came out of it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::run_dir::write_json;

/// Name of the file; a folder with it is a run.
pub const CARD_FILE: &str = "training.json";

/// The file's content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// What is being done: `pretrain`, `finetune`.
    pub kind: String,
    pub task: String,
    pub seed: u64,
    /// Key of a metrics record that counts the steps: `epoch`, `iteration`.
    pub counter: String,
    /// Steps of the whole run; one that ends early may do fewer.
    pub total: u64,
    /// Seed, commit, hash of the data and whatever else tells where the run came from.
    pub provenance: BTreeMap<String, String>,
    /// When the run began and when a program last continued it, seconds since 1970 UTC.
    pub begun_unix_seconds: f64,
    pub continued_unix_seconds: Option<f64>,
    /// Whether everything was done that was to be done.
    pub finished: bool,
    /// What came out, as text for people: name and value.
    pub results: Vec<(String, String)>,
}

impl Card {
    /// The card of a run that begins now.
    pub fn new(
        kind: &str,
        task: &str,
        seed: u64,
        (counter, total): (&str, u64),
        provenance: &BTreeMap<String, String>,
    ) -> Self {
        Self {
            kind: kind.into(),
            task: task.into(),
            seed,
            counter: counter.into(),
            total,
            provenance: provenance.clone(),
            begun_unix_seconds: crate::wall_clock::unix_seconds(),
            continued_unix_seconds: None,
            finished: false,
            results: Vec::new(),
        }
    }

    /// Reads the card of a run's folder. The error says what the folder is instead.
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(CARD_FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(_) if !folder.exists() => {
                let detail = "there is no such folder; `tenon-train list` shows the runs";
                return Err(TrainError::file(folder, detail));
            }
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                let detail = format!(
                    "is not the folder of a run (no {CARD_FILE} in it); name a folder that `tenon-train pretrain` or \
                     `finetune` wrote with --out"
                );
                return Err(TrainError::file(folder, detail));
            }
            Err(e) => return Err(TrainError::file(path, e)),
        };
        serde_json::from_str(&text).map_err(|e| {
            let detail = format!("is damaged or of another release: {e}; continue the run to write it anew");
            TrainError::file(path, detail)
        })
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), TrainError> {
        write_json(&folder.join(CARD_FILE), self)
    }
}
