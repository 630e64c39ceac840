//! The numbered checkpoints of a run, the link to the last one, and the lock of the folder.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{METRICS_FILE, create_folder, writing};
use crate::checkpoint::Checkpoint;
use crate::error::TrainError;

/// Constant name of the newest checkpoint: a link to [`LAST_LINK`].
pub const CHECKPOINT_FILE: &str = "checkpoint.safetensors";
/// Link to the newest checkpoint; replaced in one step once the file it names is on the disk.
pub const LAST_LINK: &str = "last";
const CHECKPOINTS: &str = "checkpoints";
const EXTENSION: &str = "safetensors";
const LOCK_FILE: &str = ".lock";
/// `tenon-train list` holds the lock for microseconds to see whether a run is alive; longer is another trainer.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// Which checkpoints stay on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepCheckpoints {
    /// So many of the newest; at least 1 is kept.
    pub last: usize,
    /// And those whose number is a multiple of this, the 0th only as long as it is among the newest; 0: none.
    pub every: u64,
}

impl KeepCheckpoints {
    fn is_kept(&self, number: u64) -> bool {
        self.every > 0 && number > 0 && number.is_multiple_of(self.every)
    }
}

/// A run's folder, held by one program at a time.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    keep: KeepCheckpoints,
    /// The system gives the lock back when the program ends, however it ends.
    _lock: File,
}

impl RunDir {
    /// Makes the folder and holds it. Refused while another program trains in it.
    pub fn hold(path: &Path, keep: KeepCheckpoints) -> Result<Self, TrainError> {
        create_folder(path)?;
        let lock_path = path.join(LOCK_FILE);
        let fail = |e: &dyn std::fmt::Display| {
            TrainError::file(&lock_path, format!("cannot be locked: {e}; choose another --out"))
        };
        let lock = File::create(&lock_path).map_err(|e| fail(&e))?;
        let mut waited = Duration::ZERO;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if waited < LOCK_PATIENCE => {
                    let pause = Duration::from_millis(10);
                    std::thread::sleep(pause);
                    waited += pause;
                }
                Err(TryLockError::WouldBlock) => {
                    let detail = "another tenon-train is writing to this folder; wait for it, or choose another --out";
                    return Err(TrainError::file(path, detail));
                }
                Err(TryLockError::Error(e)) => return Err(fail(&e)),
            }
        }
        Ok(Self { path: path.to_owned(), keep, _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the checkpoint of step `number` would stay for good.
    pub fn is_kept(&self, number: u64) -> bool {
        self.keep.is_kept(number)
    }

    /// Removes the metrics and checkpoints of an earlier run.
    pub fn begin_anew(&self) -> Result<(), TrainError> {
        let _writing = writing();
        // The links first: what they name must not go while they stand.
        for name in [CHECKPOINT_FILE, LAST_LINK, METRICS_FILE] {
            remove(&self.path.join(name))?;
        }
        for (_, path) in numbered(&self.path)? {
            remove(&path)?;
        }
        Ok(())
    }

    /// Writes the checkpoint of step `number`, points the link to it and removes what is not to be kept.
    pub fn save(&self, number: u64, checkpoint: &Checkpoint) -> Result<PathBuf, TrainError> {
        create_folder(&self.path.join(CHECKPOINTS))?;
        let name = format!("{CHECKPOINTS}/{number:06}.{EXTENSION}");
        let path = self.path.join(&name);
        let _writing = writing();
        checkpoint.write(&path)?;
        // The file's name must be on the disk before a link relies on it and before older files go.
        File::open(self.path.join(CHECKPOINTS))
            .and_then(|folder| folder.sync_all())
            .map_err(|e| TrainError::file(&path, format!("cannot be flushed to the disk: {e}")))?;
        link(Path::new(&name), &self.path.join(LAST_LINK))?;
        let alias = self.path.join(CHECKPOINT_FILE);
        if std::fs::read_link(&alias).is_ok_and(|target| target == Path::new(LAST_LINK)) {
            return self.prune(number).map(|()| path);
        }
        link(Path::new(LAST_LINK), &alias)?;
        self.prune(number).map(|()| path)
    }

    /// Removes older checkpoints. Those with a higher number stay: somebody went back to an earlier one by hand, and
    /// what lies ahead is written over when it is reached.
    fn prune(&self, newest: u64) -> Result<(), TrainError> {
        let mut older: Vec<_> = numbered(&self.path)?.into_iter().filter(|(number, _)| *number < newest).collect();
        older.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        for (number, path) in older.iter().skip(self.keep.last.max(1) - 1) {
            if !self.keep.is_kept(*number) {
                remove(path)?;
            }
        }
        Ok(())
    }
}

/// Whether a folder has a checkpoint, be it one that cannot be read.
pub fn holds_checkpoint(folder: &Path) -> bool {
    [LAST_LINK, CHECKPOINT_FILE].iter().any(|name| folder.join(name).symlink_metadata().is_ok())
}

/// Path of the last checkpoint in a run's folder.
pub fn last_checkpoint(folder: &Path) -> Result<PathBuf, TrainError> {
    for name in [LAST_LINK, CHECKPOINT_FILE] {
        let path = folder.join(name);
        if path.exists() {
            return Ok(path);
        }
        if path.is_symlink() {
            let detail = format!(
                "the link leads nowhere; point it to a file that is there: ln -sfn {CHECKPOINTS}/NUMBER.{EXTENSION} {name}"
            );
            return Err(TrainError::file(path, detail));
        }
    }
    let detail = if folder.is_dir() {
        "holds no checkpoint yet; name a folder that `tenon-train pretrain` or `finetune` wrote with --out"
    } else {
        "there is no such folder; `tenon-train list` shows the runs"
    };
    Err(TrainError::file(folder, detail))
}

/// Whether a program is training in the folder at this moment.
pub fn is_held(folder: &Path) -> bool {
    let Ok(file) = File::open(folder.join(LOCK_FILE)) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// The numbered checkpoints, in no order.
fn numbered(folder: &Path) -> Result<Vec<(u64, PathBuf)>, TrainError> {
    let folder = folder.join(CHECKPOINTS);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(TrainError::file(folder, e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| TrainError::file(&folder, e))?.path();
        let stem = path.file_stem().and_then(|s| s.to_str()).filter(|s| s.bytes().all(|b| b.is_ascii_digit()));
        if let (Some(Ok(number)), Some(EXTENSION)) = (stem.map(str::parse), path.extension().and_then(|e| e.to_str())) {
            found.push((number, path));
        }
    }
    Ok(found)
}

/// Makes `path` a link to `target` (relative to it), in one step.
fn link(target: &Path, path: &Path) -> Result<(), TrainError> {
    let beside = path.with_file_name(".link.new");
    remove(&beside)?;
    std::os::unix::fs::symlink(target, &beside).and_then(|()| std::fs::rename(&beside, path)).map_err(|e| {
        let detail = format!(
            "cannot be made a link to {}: {e}; choose an --out on a file system that knows links",
            target.display()
        );
        TrainError::file(path, detail)
    })
}

fn remove(path: &Path) -> Result<(), TrainError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(TrainError::file(path, format!("cannot be removed: {e}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{RunInfo, Stage};
    use std::collections::BTreeMap;
    use tenon_core::config::{TaskConfig, Values};
    use tenon_core::normalizer::{Limits, Normalizer};

    fn checkpoint(iteration: u64) -> Checkpoint {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/tasks/avoid_m1.toml");
        let text = std::fs::read_to_string(config).unwrap();
        let config = TaskConfig::parse("avoid_m1.toml", &text, Values::Latest).unwrap();
        let run = RunInfo {
            network: config.policy.model.network(),
            policy: config.policy_spec(Normalizer::new(Limits::symmetric(1.0, 4), Limits::symmetric(1.0, 2)), 0),
            critic: None,
            config: String::new(),
            provenance: BTreeMap::new(),
        };
        let mut checkpoint = Checkpoint::new(Stage::Finetune, run);
        checkpoint.header.counters.insert("iteration".into(), iteration);
        checkpoint
    }

    fn names(folder: &Path) -> Vec<u64> {
        let mut numbers: Vec<u64> = numbered(folder).unwrap().into_iter().map(|(n, _)| n).collect();
        numbers.sort_unstable();
        numbers
    }

    const KEEP: KeepCheckpoints = KeepCheckpoints { last: 2, every: 4 };

    #[test]
    fn the_newest_and_every_mth_stay_and_both_names_lead_to_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        // What an earlier release left under this name was a file.
        std::fs::write(folder.join(CHECKPOINT_FILE), "old").unwrap();
        let run_dir = RunDir::hold(folder, KEEP).unwrap();
        for iteration in 0..=11 {
            run_dir.save(iteration, &checkpoint(iteration)).unwrap();
            for path in [last_checkpoint(folder).unwrap(), folder.join(CHECKPOINT_FILE)] {
                assert_eq!(Checkpoint::read(&path).unwrap().counter("iteration").unwrap(), iteration);
            }
        }
        assert_eq!(names(folder), [4, 8, 10, 11]);
        assert_eq!(std::fs::read_link(folder.join(LAST_LINK)).unwrap(), Path::new("checkpoints/000011.safetensors"));
        // Links are relative: a run can be moved.
        let moved = folder.with_extension("moved");
        std::fs::rename(folder, &moved).unwrap();
        Checkpoint::read(&moved.join(CHECKPOINT_FILE)).unwrap();
        std::fs::rename(&moved, folder).unwrap();
    }

    #[test]
    fn somebody_who_goes_back_keeps_what_lies_ahead() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = RunDir::hold(folder.path(), KeepCheckpoints { last: 3, every: 0 }).unwrap();
        (1..=3).for_each(|i| drop(run_dir.save(i, &checkpoint(i)).unwrap()));
        link(Path::new("checkpoints/000001.safetensors"), &folder.path().join(LAST_LINK)).unwrap();
        run_dir.save(2, &checkpoint(2)).unwrap();
        assert_eq!(names(folder.path()), [1, 2, 3]);
        let last = Checkpoint::read(&last_checkpoint(folder.path()).unwrap()).unwrap();
        assert_eq!(last.counter("iteration").unwrap(), 2);
    }

    #[test]
    fn beginning_anew_leaves_no_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = RunDir::hold(folder.path(), KEEP).unwrap();
        (1..=5).for_each(|i| drop(run_dir.save(i, &checkpoint(i)).unwrap()));
        run_dir.begin_anew().unwrap();
        assert!(names(folder.path()).is_empty() && !holds_checkpoint(folder.path()));
        let error = last_checkpoint(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no checkpoint yet"), "{error}");
    }

    #[test]
    fn a_link_that_leads_nowhere_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = RunDir::hold(folder.path(), KEEP).unwrap();
        let path = run_dir.save(1, &checkpoint(1)).unwrap();
        std::fs::remove_file(path).unwrap();
        assert!(holds_checkpoint(folder.path()));
        let error = last_checkpoint(folder.path()).unwrap_err().to_string();
        assert!(error.contains("last: the link leads nowhere") && error.contains("ln -sfn"), "{error}");
    }

    #[test]
    fn a_folder_is_held_by_one_program_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_held(folder.path()));
        let run_dir = RunDir::hold(folder.path(), KEEP).unwrap();
        assert!(is_held(folder.path()));
        let error = RunDir::hold(folder.path(), KEEP).unwrap_err().to_string();
        assert!(error.contains("another tenon-train"), "{error}");
        drop(run_dir);
        assert!(!is_held(folder.path()));
        RunDir::hold(folder.path(), KEEP).unwrap();
    }
}
