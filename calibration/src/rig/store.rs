//! Versions of a rig's calibration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tenon_core::config::parse;
use tenon_core::config::rig::RigCalibration;

use super::draft::Draft;
use super::error::StoreError;

pub(super) const CALIBRATION: &str = "calibration.toml";
pub(super) const MANIFEST: &str = "manifest.json";
const CURRENT: &str = "current";
pub(super) const DRAFT: &str = "draft";

/// Where rigs are kept: `$TENON_STATE`, `./state` in a clone of Tenon, `/var/lib/tenon` where Tenon is installed, else the user's
/// state folder.
pub fn state_folder() -> Result<PathBuf, StoreError> {
    choose_state_folder(|name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from), Path::new("."))
}

fn choose_state_folder(variable: impl Fn(&str) -> Option<PathBuf>, here: &Path) -> Result<PathBuf, StoreError> {
    if let Some(folder) = variable("TENON_STATE") {
        return Ok(folder);
    }
    if here.join("calibration/Cargo.toml").is_file() && here.join("configs/robot.toml").is_file() {
        return Ok(here.join("state"));
    }
    let installed = Path::new("/var/lib/tenon");
    if installed.is_dir() {
        return Ok(installed.to_owned());
    }
    let user = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
    user.map(|folder| folder.join("tenon")).ok_or(StoreError::NoStateFolder)
}

/// One rig's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RigFolder {
    name: String,
    path: PathBuf,
}

/// A finished calibration.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// Name of its folder, e.g. `0002-20260131T123456Z`.
    pub name: String,
    pub path: PathBuf,
    pub calibration: RigCalibration,
}

/// SHA-256 of every file of a version, by its path in the folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub version: u32,
    pub files: BTreeMap<String, String>,
}

impl RigFolder {
    /// The folder of rig `name` below a state folder. Nothing is made yet.
    pub fn new(state: &Path, name: &str) -> Result<Self, StoreError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) || [CURRENT, DRAFT].contains(&name) {
            return Err(StoreError::Name { name: name.to_owned() });
        }
        Ok(Self { name: name.to_owned(), path: state.join("rigs").join(name) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The calibration in use, checked against its manifest.
    ///
    /// # Errors
    /// [`StoreError::NoCalibration`] before the first one; [`StoreError::Changed`] where a file is not what was written.
    pub fn current(&self) -> Result<Version, StoreError> {
        let link = self.path.join(CURRENT);
        match std::fs::read_link(&link) {
            Ok(target) => self.open(&target.to_string_lossy()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(StoreError::NoCalibration { rig: self.name.clone(), folder: self.path.clone() })
            }
            Err(source) => Err(StoreError::Io { what: "cannot read the link", path: link, source }),
        }
    }

    /// A version by its folder's name.
    pub fn open(&self, version: &str) -> Result<Version, StoreError> {
        let path = self.path.join(version);
        check_manifest(&path)?;
        let calibration = read_calibration(&path.join(CALIBRATION))?;
        Ok(Version { name: version.to_owned(), path, calibration })
    }

    /// Names of all versions, the oldest first.
    pub fn versions(&self) -> Result<Vec<String>, StoreError> {
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(StoreError::Io { what: "cannot list", path: self.path.clone(), source }),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(StoreError::io("cannot list", &self.path))?.file_name();
            let name = name.to_string_lossy().into_owned();
            if number(&name).is_some() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The calibration under way, begun from the current one where there is none. `now`: RFC 3339, UTC.
    pub fn draft(&self, program: &str, now: &str) -> Result<Draft, StoreError> {
        let begin = match self.current() {
            Ok(version) => {
                RigCalibration { written_by: program.to_owned(), written: now.to_owned(), ..version.calibration }
            }
            Err(StoreError::NoCalibration { .. }) => RigCalibration::empty(&self.name, program, now.to_owned()),
            Err(error) => return Err(error),
        };
        Draft::open(&self.path.join(DRAFT), begin)
    }

    /// Makes a draft the next version, and the current one if `use_it`. Returns it as it was read back.
    pub fn publish(&self, draft: Draft, now: &str, use_it: bool) -> Result<Version, StoreError> {
        let next = self.versions()?.last().and_then(|name| number(name)).unwrap_or(0) + 1;
        let stamp: String = now.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
        let name = format!("{next:04}-{stamp}");
        let folder = draft.finish()?;
        write_manifest(&folder)?;
        let path = self.path.join(&name);
        std::fs::rename(&folder, &path).map_err(StoreError::io("cannot name", &path))?;
        sync(&self.path)?;
        let version = self.open(&name)?;
        if use_it {
            self.choose(&name)?;
        }
        Ok(version)
    }

    /// Makes an existing version the current one.
    pub fn choose(&self, version: &str) -> Result<(), StoreError> {
        self.open(version)?;
        let (link, beside) = (self.path.join(CURRENT), self.path.join(format!(".current-{}", std::process::id())));
        let made = std::os::unix::fs::symlink(version, &beside).and_then(|()| std::fs::rename(&beside, &link));
        made.map_err(StoreError::io("cannot set the link", &link))?;
        sync(&self.path)
    }
}

/// The number that a version's name begins with.
fn number(name: &str) -> Option<u32> {
    let (digits, _) = name.split_once('-')?;
    (digits.len() == 4).then(|| digits.parse().ok()).flatten()
}

pub(super) fn read_calibration(path: &Path) -> Result<RigCalibration, StoreError> {
    let text = std::fs::read_to_string(path).map_err(StoreError::io("cannot read", path))?;
    Ok(parse(&path.display().to_string(), &text)?)
}

/// Files below a folder by their path in it, without the manifest.
fn files(folder: &Path) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        let path = folder.join(&relative);
        for entry in std::fs::read_dir(&path).map_err(StoreError::io("cannot list", &path))? {
            let entry = entry.map_err(StoreError::io("cannot list", &path))?;
            let relative = relative.join(entry.file_name());
            if entry.file_type().map_err(StoreError::io("cannot list", &path))?.is_dir() {
                open.push(relative);
            } else if relative != Path::new(MANIFEST) {
                found.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn sha256(path: &Path) -> Result<String, StoreError> {
    let bytes = std::fs::read(path).map_err(StoreError::io("cannot read", path))?;
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

fn write_manifest(folder: &Path) -> Result<(), StoreError> {
    let files = files(folder)?.into_iter().map(|file| Ok((file.clone(), sha256(&folder.join(file))?)));
    let manifest = Manifest { version: 1, files: files.collect::<Result<_, StoreError>>()? };
    let path = folder.join(MANIFEST);
    let text = serde_json::to_string_pretty(&manifest)
        .map_err(|e| StoreError::Manifest { path: path.clone(), reason: e.to_string() })?;
    write(&path, (text + "\n").as_bytes())
}

fn check_manifest(folder: &Path) -> Result<(), StoreError> {
    let path = folder.join(MANIFEST);
    let text = std::fs::read_to_string(&path).map_err(StoreError::io("cannot read", &path))?;
    let manifest: Manifest = serde_json::from_str(&text)
        .map_err(|e| StoreError::Manifest { path: path.clone(), reason: format!("damaged or cut short ({e})") })?;
    if !manifest.files.contains_key(CALIBRATION) {
        return Err(StoreError::Manifest { path, reason: format!("names no {CALIBRATION}") });
    }
    for (file, wanted) in manifest.files {
        let found = sha256(&folder.join(&file))?;
        if found != wanted {
            return Err(StoreError::Changed { folder: folder.to_owned(), file, found, wanted });
        }
    }
    Ok(())
}

/// Writes beside the target, flushes and renames.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    use std::io::Write;
    let folder = path.parent().unwrap_or(Path::new("."));
    let fail = || StoreError::io("cannot write", path);
    std::fs::create_dir_all(folder).map_err(fail())?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fail())?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(fail())?;
    // A temporary file is its owner's alone; a calibration is read by the service's user.
    let readable = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o644);
    file.as_file().set_permissions(readable).map_err(fail())?;
    file.persist(path).map_err(|e| StoreError::io("cannot write", path)(e.error))?;
    sync(folder)
}

/// So that a rename survives a power cut.
fn sync(folder: &Path) -> Result<(), StoreError> {
    std::fs::File::open(folder).and_then(|f| f.sync_all()).map_err(StoreError::io("cannot flush", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_folder_is_the_one_that_is_named_first() {
        let none = |_: &str| None;
        let empty = tempfile::tempdir().unwrap();
        let chosen = choose_state_folder(|name| (name == "TENON_STATE").then(|| "/x".into()), empty.path()).unwrap();
        assert_eq!(chosen, Path::new("/x"));
        let clone = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert_eq!(choose_state_folder(none, clone).unwrap(), clone.join("state"));
        if !Path::new("/var/lib/tenon").is_dir() {
            let home = |name: &str| (name == "HOME").then(|| "/home/a".into());
            assert_eq!(choose_state_folder(home, empty.path()).unwrap(), Path::new("/home/a/.local/state/tenon"));
            assert!(matches!(choose_state_folder(none, empty.path()), Err(StoreError::NoStateFolder)));
        }
    }

    #[test]
    fn versions_follow_one_another_and_none_is_overwritten() {
        let state = tempfile::tempdir().unwrap();
        let rig = RigFolder::new(state.path(), "bench").unwrap();
        assert!(rig.current().unwrap_err().to_string().contains("tenon-calibrate wizard --rig bench"));
        let mut names = Vec::new();
        for round in 1..=3 {
            let now = format!("2026-01-31T12:00:0{round}Z");
            let mut draft = rig.draft("0.1.0", &now).unwrap();
            assert_eq!(draft.calibration().written, now);
            draft.write_file("pictures/front.png", format!("picture {round}").as_bytes()).unwrap();
            let version = rig.publish(draft, &now, round != 3).unwrap();
            names.push(version.name);
        }
        assert_eq!(names, ["0001-20260131T120001Z", "0002-20260131T120002Z", "0003-20260131T120003Z"]);
        assert_eq!(rig.versions().unwrap(), names);
        // The third was kept, but not taken into use.
        assert_eq!(rig.current().unwrap().name, names[1]);
        rig.choose(&names[0]).unwrap();
        assert_eq!(rig.current().unwrap().name, names[0]);
        let first = std::fs::read_to_string(rig.path().join(&names[0]).join("pictures/front.png")).unwrap();
        assert_eq!(first, "picture 1");
    }

    #[test]
    fn a_changed_or_cut_file_is_refused_by_name() {
        let state = tempfile::tempdir().unwrap();
        let rig = RigFolder::new(state.path(), "bench").unwrap();
        let draft = rig.draft("0.1.0", "2026-01-31T12:00:00Z").unwrap();
        let version = rig.publish(draft, "2026-01-31T12:00:00Z", true).unwrap();
        let file = version.path.join(CALIBRATION);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("bench", "bunch")).unwrap();
        let said = rig.current().unwrap_err().to_string();
        assert!(
            said.contains("calibration.toml is not what was written") && said.contains("earlier version"),
            "{said}"
        );
        std::fs::write(&file, &text).unwrap();
        rig.current().unwrap();
        let manifest = version.path.join(MANIFEST);
        let text = std::fs::read_to_string(&manifest).unwrap();
        std::fs::write(&manifest, &text[..text.len() / 2]).unwrap();
        assert!(rig.current().unwrap_err().to_string().contains("damaged or cut short"));
        std::fs::remove_file(&manifest).unwrap();
        assert!(rig.current().unwrap_err().to_string().contains("manifest.json"));
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in ["", "..", "a/b", "draft", "current", "bench 1", "ä"] {
            assert!(matches!(RigFolder::new(Path::new("/tmp"), name), Err(StoreError::Name { .. })), "{name}");
        }
    }
}
