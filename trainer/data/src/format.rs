//! The formats, and how one is told from another.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Serialize;
use tenon_core::normalizer::ZeroRange;

use crate::archive::Archive;
use crate::error::DataError;
use crate::hdf5::{self, Hdf5};
use crate::model::{Demonstrations, Episode, Found};
use crate::npz::Choice;
use crate::verify::Bounds;
use crate::{Notes, Steps, d4rl, lerobot, npz, pickles, robomimic, zarr};

/// A format of demonstrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `train.npz` and `normalization.npz`: what the trainer reads.
    Npz,
    /// HDF5 of robomimic and robosuite.
    Robomimic,
    /// HDF5 of D4RL.
    D4rl,
    /// LeRobotDataset v3: a folder with `meta/info.json`.
    Lerobot,
    /// Zarr of diffusion_policy, UMI and FurnitureBench.
    Zarr,
    /// Pickles of FurnitureBench.
    Furniture,
    /// Pickles of D3IL Avoid.
    Avoid,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 7] =
        [Self::Npz, Self::Robomimic, Self::D4rl, Self::Lerobot, Self::Zarr, Self::Furniture, Self::Avoid];
    /// Those that are written.
    pub const WRITTEN: [Self; 3] = [Self::Npz, Self::Robomimic, Self::Lerobot];

    /// As it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Npz => "npz",
            Self::Robomimic => "robomimic",
            Self::D4rl => "d4rl",
            Self::Lerobot => "lerobot",
            Self::Zarr => "zarr",
            Self::Furniture => "furniture",
            Self::Avoid => "avoid",
        }
    }

    /// What values may be, where the format says so: actions of these environments are ±1, and the trainer's own data are
    /// normalised.
    pub fn bounds(self) -> Bounds {
        match self {
            Self::Npz => Bounds { action: Some(1.0), observation: Some(1.0) },
            Self::Robomimic | Self::D4rl => Bounds { action: Some(1.0), observation: None },
            Self::Lerobot | Self::Zarr | Self::Furniture | Self::Avoid => Bounds::default(),
        }
    }

    /// How a constant value is normalised (spec robot_control.md §3.3, dppo.md §7.1).
    pub fn zero_range(self) -> ZeroRange {
        if self == Self::Furniture { ZeroRange::Widen } else { ZeroRange::AddEpsilon }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|f| f.name() == text).ok_or_else(|| format!("{text} is none of {}", known()))
    }
}

/// Tells the format by what is there.
///
/// # Errors
/// Where it is none that is known; the message says what was seen.
pub fn detect(path: &Path) -> Result<Format, DataError> {
    let unknown = |found: String| {
        let known = Format::ALL.map(Format::name).join(", ");
        DataError::UnknownFormat { path: path.to_owned(), found, known }
    };
    let metadata = std::fs::metadata(path).map_err(|e| DataError::file(path, e))?;
    if metadata.is_dir() {
        return folder(path).ok_or_else(|| {
            unknown(
                "a folder without meta/info.json (LeRobot), .zgroup (Zarr), train.npz or pickles; name a file in it, or \
                 the folder that holds them"
                    .into(),
            )
        });
    }
    let mut start = [0; 8];
    let mut file = File::open(path).map_err(|e| DataError::file(path, e))?;
    let read = file.read(&mut start).map_err(|e| DataError::file(path, e))?;
    let start = &start[..read];
    if hdf5::is_hdf5(start) {
        let fail = |e: hdf5::Hdf5Error| DataError::file(path, e);
        let h5 = Hdf5::open(path).map_err(fail)?;
        let root = h5.root().map_err(fail)?;
        if robomimic::is_robomimic(&h5, &root).map_err(fail)? {
            return Ok(Format::Robomimic);
        }
        if d4rl::is_d4rl(&root) {
            return Ok(Format::D4rl);
        }
        let members: Vec<&str> = root.names().take(8).collect();
        return Err(unknown(format!(
            "an HDF5 file with {} at its root, which is neither robomimic's nor D4RL's",
            members.join(", ")
        )));
    }
    if start.starts_with(b"PK\x03\x04") {
        let names = Archive::open(path)?.names();
        if npz::is_npz(&names) {
            return Ok(Format::Npz);
        }
        if names.iter().any(|n| n.ends_with(".zgroup") || n.ends_with(".zarray")) {
            return Ok(Format::Zarr);
        }
        let some: Vec<&str> = names.iter().map(String::as_str).take(8).collect();
        return Err(unknown(format!("a ZIP archive with {}, which is neither .npz data nor Zarr", some.join(", "))));
    }
    if start.starts_with(b"\xfd7zXZ\0") {
        return Err(unknown("packed by xz: unpack it with `unxz FILE` first".into()));
    }
    if start.first() == Some(&0x80) {
        return pickles::detect(path)?
            .ok_or_else(|| unknown("a pickle that holds no episode of FurnitureBench or Avoid".into()));
    }
    let found =
        if start.is_empty() { "an empty file".to_string() } else { format!("a file that begins with {start:02x?}") };
    Err(unknown(found))
}

fn folder(path: &Path) -> Option<Format> {
    if path.join("meta/info.json").is_file() {
        return Some(Format::Lerobot);
    }
    if path.join(".zgroup").is_file() || path.join("zarr.json").is_file() {
        return Some(Format::Zarr);
    }
    if path.join(npz::TRAIN).is_file() {
        return Some(Format::Npz);
    }
    let files = pickles::files_of(path).ok()?;
    files.iter().find_map(|file| pickles::detect(file).ok().flatten())
}

/// Reads demonstrations.
///
/// # Errors
/// Where nothing can be read at all; what is wrong with single episodes is in [`Found::defects`].
pub fn read(path: &Path, format: Format, steps: &mut Steps) -> Result<Found, DataError> {
    match format {
        Format::Npz => npz::read(path, steps),
        Format::Robomimic => robomimic::read(path, steps),
        Format::D4rl => d4rl::read(path, steps),
        Format::Lerobot => lerobot::read(path, steps),
        Format::Zarr => zarr::read(path, steps),
        Format::Furniture => pickles::read(path, pickles::furniture, steps),
        Format::Avoid => pickles::read(path, pickles::avoid, steps),
    }
}

/// What is to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The format.
    pub format: Format,
    /// Fields, for the formats that join them.
    pub choice: Choice,
    /// What is done in the episodes, for LeRobot.
    pub task: Option<String>,
}

/// Writes demonstrations, beside the place and then renamed.
///
/// # Errors
/// Where the format is only read, a field is missing, or the disk says no.
pub fn write(
    path: &Path,
    demonstrations: Demonstrations,
    output: &Output,
    steps: &mut Steps,
    notes: &mut Notes,
) -> Result<(), DataError> {
    match output.format {
        Format::Npz => npz::write(path, &demonstrations, &output.choice, steps, notes),
        Format::Robomimic => robomimic::write(path, &demonstrations.into_physical(), steps, notes),
        Format::Lerobot => lerobot::write(path, &demonstrations.into_physical(), output, steps, notes),
        other => {
            let written = Format::WRITTEN.map(Format::name).join(", ");
            Err(DataError::Request(format!("{other} is read, not written; written are {written}")))
        }
    }
}

/// The observations that make a state, where nobody says.
pub fn default_states(episode: &Episode) -> Vec<String> {
    let of = |keys: &[&str]| -> Vec<String> {
        keys.iter().filter(|k| episode.fields.contains_key(&format!("obs/{k}"))).map(|k| (*k).to_string()).collect()
    };
    let known = [
        of(&["state", "environment_state"]),
        robomimic::state_keys(episode),
        // Before the parts' poses, as spec robot_control.md §3.2 has them.
        of(&["robot_state", "parts_poses"]),
    ];
    if let Some(keys) = known.into_iter().find(|keys| !keys.is_empty()) {
        return keys;
    }
    let plain = |key: &&str| episode.fields.get(&format!("obs/{key}")).is_some_and(|a| !a.is_picture());
    episode.observation_keys().filter(plain).map(String::from).collect()
}
