//! Runs on the disk: one folder's, or all below one.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::card::{CARD_FILE, Card};
use super::history::History;
use crate::error::TrainError;
use crate::run_dir::{CONFIG_FILE, is_held};

/// Whether a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A program holds its folder.
    Running,
    Finished,
    /// Neither: it was stopped or it failed, and goes on when its command is given again.
    Interrupted,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A run as it stands.
#[derive(Debug, Clone)]
pub struct Run {
    pub folder: PathBuf,
    pub card: Card,
    pub history: History,
    pub state: State,
    /// The settings as used; empty where they are not to be had.
    pub config: String,
}

impl Run {
    /// Reads a run's folder. The error says what the folder is instead, or which file is damaged and where.
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        let card = Card::read(folder)?;
        let history = History::read(folder, &card.counter)?;
        let state = match card.finished {
            _ if is_held(folder) => State::Running,
            true => State::Finished,
            false => State::Interrupted,
        };
        Ok(Self { folder: folder.to_owned(), card, history, state, config: config_of(folder) })
    }

    /// When something last happened, seconds since 1970 UTC.
    pub fn last_update(&self) -> f64 {
        let begun = self.card.continued_unix_seconds.unwrap_or(self.card.begun_unix_seconds);
        self.history.last_update().unwrap_or(begun).max(begun)
    }

    /// `finetune of avoid_m1, seed 42`.
    pub fn title(&self) -> String {
        format!("{} of {}, seed {}", self.card.kind, self.card.task, self.card.seed)
    }
}

pub(super) fn config_of(folder: &Path) -> String {
    std::fs::read_to_string(folder.join(CONFIG_FILE)).unwrap_or_default()
}

/// Depth of folders in which runs are looked for: `runs/task/experiment/seed/stage`.
const DEPTH: usize = 5;

/// The folders of runs at or below `root`, sorted. Links are not followed.
pub fn find(root: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let mut found = Vec::new();
    search(root, DEPTH, &mut found).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            TrainError::file(root, "there is no such folder; give the one that holds your runs")
        }
        _ => TrainError::file(root, format!("cannot be searched for runs: {e}")),
    })?;
    found.sort();
    Ok(found)
}

fn search(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let entries = std::fs::read_dir(folder)?;
    if folder.join(CARD_FILE).is_file() {
        found.push(folder.to_owned());
        return Ok(());
    }
    for entry in entries.flatten() {
        if depth > 0 && entry.file_type().is_ok_and(|t| t.is_dir()) {
            // A folder that may not be entered holds no run of ours.
            let _ = search(&entry.path(), depth - 1, found);
        }
    }
    Ok(())
}
