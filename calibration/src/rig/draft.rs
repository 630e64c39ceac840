//! A calibration under way: every step is written as it ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tenon_core::config::rig::RigCalibration;

use super::error::StoreError;
use super::store::{CALIBRATION, read_calibration, write};

/// Steps that have ended, by name.
const PROGRESS: &str = "progress.json";
/// The process at work; it goes with the draft's end.
const LOCK: &str = ".lock";

/// Steps of the wizard, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Intrinsics,
    Place,
    Proof,
    Latency,
    Noise,
}

impl Step {
    pub const ALL: [Self; 5] = [Self::Intrinsics, Self::Place, Self::Proof, Self::Latency, Self::Noise];

    pub fn title(self) -> &'static str {
        match self {
            Self::Intrinsics => "intrinsics",
            Self::Place => "camera to base",
            Self::Proof => "proof on held-out views",
            Self::Latency => "latency",
            Self::Noise => "noise at rest",
        }
    }
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Ended {
    Done {
        date: String,
    },
    /// On purpose, with the reason.
    Skipped {
        date: String,
        reason: String,
    },
}

/// The calibration under way. Dropping it keeps it on the disk.
#[derive(Debug)]
pub struct Draft {
    folder: PathBuf,
    calibration: RigCalibration,
    steps: BTreeMap<Step, Ended>,
    /// Held while this process writes.
    _lock: std::fs::File,
}

impl Draft {
    /// Goes on with the draft in `folder`, or begins one with what is known.
    pub(super) fn open(folder: &Path, begin: RigCalibration) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder).map_err(StoreError::io("cannot make", folder))?;
        let lock = lock(folder)?;
        let (calibration, progress) = (folder.join(CALIBRATION), folder.join(PROGRESS));
        let mut steps = BTreeMap::new();
        let calibration = if calibration.is_file() {
            if progress.is_file() {
                let text = std::fs::read_to_string(&progress).map_err(StoreError::io("cannot read", &progress))?;
                steps = serde_json::from_str(&text).map_err(|e| {
                    let reason = format!("damaged ({e}); delete the folder to begin anew");
                    StoreError::Manifest { path: progress, reason }
                })?;
            }
            read_calibration(&calibration)?
        } else {
            begin
        };
        let draft = Self { folder: folder.to_owned(), calibration, steps, _lock: lock };
        draft.save()?;
        Ok(draft)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn calibration(&self) -> &RigCalibration {
        &self.calibration
    }

    /// Steps that have ended.
    pub fn steps(&self) -> &BTreeMap<Step, Ended> {
        &self.steps
    }

    /// The first step that has not ended.
    pub fn next_step(&self) -> Option<Step> {
        Step::ALL.into_iter().find(|step| !self.steps.contains_key(step))
    }

    /// Changes what is known and writes it.
    pub fn change(&mut self, change: impl FnOnce(&mut RigCalibration)) -> Result<(), StoreError> {
        change(&mut self.calibration);
        self.save()
    }

    /// A step has ended; the steps after it, which rest on it, are to be done again.
    pub fn end_step(&mut self, step: Step, how: Ended) -> Result<(), StoreError> {
        self.steps.retain(|other, _| *other < step);
        self.steps.insert(step, how);
        self.save()
    }

    /// Keeps a file of a step: pictures, residuals. `name`: its path in the folder.
    pub fn write_file(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        write(&self.folder.join(name), bytes)
    }

    fn save(&self) -> Result<(), StoreError> {
        let path = self.folder.join(CALIBRATION);
        let text = toml::to_string_pretty(&self.calibration)
            .map_err(|e| StoreError::Manifest { path: path.clone(), reason: e.to_string() })?;
        write(&path, text.as_bytes())?;
        let path = self.folder.join(PROGRESS);
        let steps = serde_json::to_string_pretty(&self.steps)
            .map_err(|e| StoreError::Manifest { path: path.clone(), reason: e.to_string() })?;
        write(&path, (steps + "\n").as_bytes())
    }

    /// Everything is on the disk and nobody writes any more.
    pub(super) fn finish(self) -> Result<PathBuf, StoreError> {
        self.save()?;
        let lock = self.folder.join(LOCK);
        std::fs::remove_file(&lock).map_err(StoreError::io("cannot remove", &lock))?;
        Ok(self.folder)
    }
}

/// One process at a time. The lock goes with the process, however it ends.
fn lock(folder: &Path) -> Result<std::fs::File, StoreError> {
    use std::io::{Read, Seek, Write};
    let path = folder.join(LOCK);
    let fail = || StoreError::io("cannot lock", &path);
    let open = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(fail())?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(fail())?;
            return Err(StoreError::UnderWay { folder: folder.to_owned(), process: text.trim().parse().unwrap_or(0) });
        }
        Err(std::fs::TryLockError::Error(source)) => return Err(fail()(source)),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(fail())?;
    writeln!(file, "{}", std::process::id()).map_err(fail())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin() -> RigCalibration {
        RigCalibration::empty("bench", "0.1.0", "2026-01-31T12:00:00Z".into())
    }

    fn done() -> Ended {
        Ended::Done { date: "2026-01-31T12:00:00Z".into() }
    }

    #[test]
    fn a_draft_goes_on_where_it_was_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("draft");
        let mut draft = Draft::open(&path, begin()).unwrap();
        assert_eq!(draft.next_step(), Some(Step::Intrinsics));
        draft.change(|rig| rig.written_by = "changed".into()).unwrap();
        draft.end_step(Step::Intrinsics, done()).unwrap();
        draft.end_step(Step::Place, Ended::Skipped { date: "today".into(), reason: "no board".into() }).unwrap();
        drop(draft);
        let mut draft = Draft::open(&path, begin()).unwrap();
        assert_eq!((draft.next_step(), draft.calibration().written_by.as_str()), (Some(Step::Proof), "changed"));
        assert!(matches!(&draft.steps()[&Step::Place], Ended::Skipped { reason, .. } if reason == "no board"));
        // An earlier step done anew undoes what rests on it.
        draft.end_step(Step::Intrinsics, done()).unwrap();
        assert_eq!(draft.next_step(), Some(Step::Place));
    }

    #[test]
    fn two_processes_do_not_write_one_draft() {
        let folder = tempfile::tempdir().unwrap();
        let first = Draft::open(folder.path(), begin()).unwrap();
        let said = Draft::open(folder.path(), begin()).unwrap_err();
        assert!(matches!(said, StoreError::UnderWay { process, .. } if process == std::process::id()), "{said}");
        drop(first);
        Draft::open(folder.path(), begin()).unwrap();
    }

    #[test]
    fn a_damaged_draft_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        drop(Draft::open(folder.path(), begin()).unwrap());
        std::fs::write(folder.path().join(PROGRESS), "{").unwrap();
        let said = Draft::open(folder.path(), begin()).unwrap_err().to_string();
        assert!(said.contains("progress.json") && said.contains("delete the folder"), "{said}");
    }
}
