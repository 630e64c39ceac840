//! The folder of a run: files that are whole at any moment, a growing list of metrics, checkpoints, hashes and origin.
//!
//! ```text
//! config.toml                       settings as used
//! training.json                     what the run is and what came out of it
//! metrics.jsonl                     one record a step
//! events.out.tfevents.*             the same for TensorBoard
//! report.html                       the same as a page
//! checkpoints/000100.safetensors    numbered by the step after which they were written
//! last                              link to the newest of them
//! checkpoint.safetensors            link to `last`
//! .lock                             held while a program writes here
//! ```
//!
//! Every file is written beside its target and renamed. [`writing`] marks the moments in which a file is being
//! written, so that a program that must end at once can wait for them.

mod checkpoints;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use sha2::{Digest, Sha256};

pub use checkpoints::{
    CHECKPOINT_FILE, KeepCheckpoints, LAST_LINK, RunDir, holds_checkpoint, is_held, last_checkpoint,
};

use crate::error::TrainError;

/// Name of the list of metrics, one JSON object a line.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// Name of the settings as used.
pub const CONFIG_FILE: &str = "config.toml";

static WRITING: Mutex<()> = Mutex::new(());

/// Held while a file of a run is written; whoever holds it keeps other writers waiting.
pub fn writing() -> MutexGuard<'static, ()> {
    WRITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a folder and those above it.
pub fn create_folder(folder: &Path) -> Result<(), TrainError> {
    std::fs::create_dir_all(folder)
        .map_err(|e| TrainError::file(folder, format!("the folder cannot be made: {e}; choose another --out")))
}

/// Writes `text` beside `path`, flushes it to the disk and renames it.
pub fn write_text(path: &Path, text: &str) -> Result<(), TrainError> {
    write(path, text, true)
}

/// Writes `text` beside `path` and renames it, for what can be made anew: a power cut may cost it.
pub fn replace_text(path: &Path, text: &str) -> Result<(), TrainError> {
    write(path, text, false)
}

fn write(path: &Path, text: &str, flush: bool) -> Result<(), TrainError> {
    let _writing = writing();
    let fail = |e: &dyn std::fmt::Display| TrainError::file(path, format!("cannot be written: {e}"));
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = new_file_in(folder).map_err(|e| fail(&e))?;
    file.write_all(text.as_bytes()).map_err(|e| fail(&e))?;
    if flush {
        file.as_file().sync_all().map_err(|e| fail(&e))?;
    }
    file.persist(path).map_err(|e| fail(&e.error))?;
    Ok(())
}

/// A file without a name yet, to be renamed into place; it may be read by whom the user's umask lets read.
pub fn new_file_in(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let readable = std::fs::Permissions::from_mode(0o666);
    tempfile::Builder::new().permissions(readable).tempfile_in(folder)
}

/// Writes a value as indented JSON.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| TrainError::file(path, format!("cannot be expressed as JSON: {e}")))?;
    write_text(path, &(text + "\n"))
}

/// SHA-256 of a file, in hexadecimal.
pub fn sha256_of(path: &Path) -> Result<String, TrainError> {
    let mut file = File::open(path).map_err(|e| TrainError::file(path, e))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(|e| TrainError::file(path, e))? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// The commit this program is run from, or `unknown` outside a checkout (an installed program).
pub fn commit() -> String {
    let git = std::process::Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    match git {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_string(),
        _ => "unknown".to_string(),
    }
}

/// A list of metrics that grows by whole lines.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Opens the list in a run's folder and keeps its lines up to `counter` = `done`: what an interrupted run wrote
    /// after its last checkpoint is made anew.
    pub fn open(folder: &Path, counter: &str, done: u64) -> Result<Self, TrainError> {
        let path = folder.join(METRICS_FILE);
        let kept: String = match std::fs::read_to_string(&path) {
            Ok(text) => text
                .lines()
                .filter(|line| {
                    serde_json::from_str::<serde_json::Value>(line)
                        .ok()
                        .and_then(|v| v.get(counter)?.as_u64())
                        .is_some_and(|n| n <= done)
                })
                .map(|line| format!("{line}\n"))
                .collect(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(TrainError::file(path, e)),
        };
        write_text(&path, &kept)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(|e| TrainError::file(&path, e))?;
        Ok(Self { path, file })
    }

    /// Appends one object; gives the line back, without its end.
    pub fn append(&mut self, value: &impl Serialize) -> Result<String, TrainError> {
        let mut line = serde_json::to_string(value).map_err(|e| TrainError::file(&self.path, e))? + "\n";
        let _writing = writing();
        self.file.write_all(line.as_bytes()).map_err(|e| TrainError::file(&self.path, format!("cannot grow: {e}")))?;
        line.pop();
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Line {
        epoch: u64,
    }

    #[test]
    fn lines_after_the_checkpoint_and_half_lines_are_dropped_on_resume() {
        let folder = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::open(folder.path(), "epoch", 0).unwrap();
        for epoch in 1..=4 {
            metrics.append(&Line { epoch }).unwrap();
        }
        metrics.file.write_all(b"{\"epoch\":5").unwrap();
        let mut metrics = Metrics::open(folder.path(), "epoch", 3).unwrap();
        metrics.append(&Line { epoch: 4 }).unwrap();
        let text = std::fs::read_to_string(folder.path().join(METRICS_FILE)).unwrap();
        let expected: String = (1..=4).map(|epoch| format!("{{\"epoch\":{epoch}}}\n")).collect();
        assert_eq!(text, expected);
    }

    #[test]
    fn hash_of_a_known_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        write_text(&path, "abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_of(&path).unwrap(), expected);
    }
}
