//! `play.json` in a recording's folder: how the recording is played in real time. It may be written anew while it plays, so that a run
//! on recorded frames can be shown a camera that fails.
//!
//! ```text
//! {"camera":"frozen","repeat":true,"clock_ms":0}
//! ```
//!
//! Every key may be left out; without the file a recording is played once, as it was taken. Played as fast as possible it is not heeded:
//! what a calibration is made from is what was recorded.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::error::SourceError;

const FILE_NAME: &str = "play.json";
/// Longest file that is read, bytes.
const MAX_BYTES: u64 = 4 << 10;

/// What `play.json` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Playback {
    /// How the camera does [default: works].
    pub camera: Condition,
    /// After the last frame comes the first again, its number and its stamps going on [default: false].
    pub repeat: bool,
    /// Added to the stamps of the camera's own clock, ms. Exposures are found from those then, as those of a live camera are; frames
    /// recorded without them know nothing of it [default: 0].
    pub clock_ms: i64,
}

/// How a camera does whose frames are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    #[default]
    Works,
    /// It is gone, and cannot be opened.
    Unplugged,
    /// Its last picture comes again and again, with new stamps.
    Frozen,
    /// Nothing comes. What was not taken meanwhile does not come later either.
    Hangs,
    /// As at the end of the recording: nothing will come any more.
    Ended,
}

impl Playback {
    /// Writes `play.json` into the recording `folder`, in the place of the one that is there.
    ///
    /// # Errors
    /// As writing a file.
    pub fn write(&self, folder: &Path) -> Result<(), SourceError> {
        let (path, partial) = (folder.join(FILE_NAME), folder.join("play.json.partial"));
        let text = serde_json::to_string(self).map_err(|error| SourceError::file(&path, "write", error))?;
        // Who plays it must not read half of it.
        std::fs::write(&partial, text + "\n").map_err(|error| SourceError::file(&partial, "write", error))?;
        std::fs::rename(&partial, &path).map_err(|error| SourceError::file(&path, "write", error))
    }
}

/// Reads `play.json` again whenever it has changed.
#[derive(Debug)]
pub(super) struct Following {
    path: PathBuf,
    /// Which file was read last: inode, time of its last change, length.
    seen: Option<(u64, i64, i64, u64)>,
    said: Option<Playback>,
}

impl Following {
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join(FILE_NAME), seen: None, said: None }
    }

    /// What the file says now; `None` where there is none.
    pub fn look(&mut self) -> Result<Option<Playback>, SourceError> {
        let which = |found: Metadata| (found.ino(), found.mtime(), found.mtime_nsec(), found.len());
        let found = match std::fs::metadata(&self.path) {
            Ok(found) => Some(which(found)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(SourceError::file(&self.path, "read", error)),
        };
        if found != self.seen {
            self.said = found.map(|_| self.read()).transpose()?;
            self.seen = found;
        }
        Ok(self.said)
    }

    fn read(&self) -> Result<Playback, SourceError> {
        let mut text = String::new();
        let file = File::open(&self.path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
        file.map_err(|error| SourceError::file(&self.path, "read", error))?;
        serde_json::from_str(&text).map_err(|error| {
            let message = format!("{error}; write for example {{\"camera\":\"works\",\"repeat\":true}}");
            SourceError::damaged(self.path.display(), message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_again_when_it_changes_and_missed_when_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut following = Following::new(folder.path());
        assert_eq!(following.look().unwrap(), None);
        for camera in [Condition::Works, Condition::Unplugged, Condition::Frozen, Condition::Hangs, Condition::Ended] {
            for clock_ms in [0, -700] {
                let written = Playback { camera, repeat: true, clock_ms };
                written.write(folder.path()).unwrap();
                assert_eq!(following.look().unwrap(), Some(written));
                assert_eq!(following.look().unwrap(), Some(written), "and still");
            }
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing partial is left");
        std::fs::remove_file(folder.path().join("play.json")).unwrap();
        assert_eq!(following.look().unwrap(), None);
    }

    #[test]
    fn what_is_not_understood_names_the_file_and_shows_an_example() {
        let folder = tempfile::tempdir().unwrap();
        let says = |text: &str| {
            std::fs::write(folder.path().join("play.json"), text).unwrap();
            Following::new(folder.path()).look().map_err(|error| error.to_string())
        };
        assert_eq!(says("{}").unwrap(), Some(Playback::default()));
        for wrong in ["", "{\"camera\":\"asleep\"}", "{\"repeet\":true}", "{\"clock_ms\":0.5}", "[]\0"] {
            let message = says(wrong).unwrap_err();
            assert!(message.contains("play.json: ") && message.contains("\"repeat\":true"), "{message}");
        }
        assert!(says(&format!("{{\"repeat\":true}}{}x", " ".repeat(5000))).is_ok(), "what is beyond 4 kB is not read");
    }
}
