//! The commands of the steps: folders of pictures in, the rig's folder out, a text or JSON report on standard output.

mod arm;
mod board;
mod check;
mod intrinsics;
mod latency;
mod noise;
mod place;
mod proof;
mod show;
mod touch_off;
mod wizard;

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use clap::Args;
use tenon_core::calendar::rfc3339;
use tenon_vision::{Detector, DetectorSettings, Pose, Rig, TagOnBody};

pub use arm::{ArmPoseArgs, ArmSwingArgs, arm_pose, arm_swing};
pub use board::{BoardArgs, board};
pub use check::{CheckArgs, check};
pub use intrinsics::{ExportArgs, ImportArgs, IntrinsicsArgs, export_intrinsics, import_intrinsics, intrinsics};
pub use latency::{LatencyArgs, latency};
pub use noise::{NoiseArgs, noise};
pub use place::{PlaceArgs, place};
pub use proof::{ProofArgs, proof};
pub use show::{ShowArgs, show};
pub use touch_off::{TouchOffArgs, touch_off};
pub use wizard::{WizardArgs, wizard};

use crate::report_page;
use crate::rig::{Draft, RigFolder, state_folder};
use crate::run::Outcome;
use crate::steps::pictures::{Pictures, search};
use crate::steps::{Finding, StepError, arm_poses};
use crate::wizard::worker::finding_lines;

/// What every step needs to know.
#[derive(Debug, Args)]
pub struct RigArgs {
    /// Name of the rig; its files are in $TENON_STATE/rigs/<NAME> (without TENON_STATE: ./state in a clone, /var/lib/tenon
    /// where it exists, else ~/.local/state/tenon)
    #[arg(long, value_name = "NAME")]
    pub rig: String,

    /// Tag layout of your own (see configs/vision/tags.toml); without it the FurnitureBench rig
    #[arg(long, value_name = "FILE")]
    pub tags: Option<PathBuf>,

    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// Pictures of cameras from folders.
#[derive(Debug, Args)]
pub struct PicturesArgs {
    /// A camera and its pictures: its name and a folder of PNG or JPEG files, taken in the order of their names. Its serial number
    /// (pictures do not know it) stands here or in --serial. Once for each camera
    #[arg(long = "from-images", value_name = "NAME[:SERIAL]=DIR", required = true)]
    pub from_images: Vec<FolderArg>,

    /// Serial number of the camera of that name. Once for each camera whose --from-images does not say it
    #[arg(long = "serial", value_name = "NAME=SERIAL")]
    pub serials: Vec<SerialArg>,
}

impl PicturesArgs {
    /// Every camera with its serial number.
    fn cameras(&self) -> anyhow::Result<Vec<CameraArg>> {
        cameras(&self.from_images, &self.serials)
    }
}

/// A tag in the gripper, and where the arm held it.
#[derive(Debug, Args)]
pub struct HandArgs {
    /// The arm's pose for each picture: lines picture,x_m,y_m,z_m,qw,qx,qy,qz, as `tenon-calibrate arm-pose` writes them while the
    /// pictures are taken
    #[arg(long, value_name = "FILE", requires = "hand_tag")]
    pub arm_poses: Option<PathBuf>,

    /// Id of the tag in the gripper
    #[arg(long, value_name = "ID", requires = "hand_tag_size_m")]
    pub hand_tag: Option<u32>,

    /// Edge of its black border, as measured on the print
    #[arg(long, value_name = "M")]
    pub hand_tag_size_m: Option<f64>,
}

impl HandArgs {
    /// By the picture's name; none where the arm did not move.
    fn arm_poses(&self) -> Result<BTreeMap<String, Pose>, StepError> {
        self.arm_poses.as_deref().map_or_else(|| Ok(BTreeMap::new()), arm_poses::read)
    }

    /// In the frame of the tag itself.
    fn tags(&self) -> Vec<TagOnBody> {
        let tag = self.hand_tag.zip(self.hand_tag_size_m);
        tag.map(|(id, size_m)| TagOnBody { id, size_m, T_body_tag: Pose::identity() }).into_iter().collect()
    }
}

/// `front=pictures/front` or `front:822512060853=pictures/front`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderArg {
    pub name: String,
    pub serial: Option<String>,
    pub folder: PathBuf,
}

/// `front=822512060853`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialArg {
    pub name: String,
    pub serial: String,
}

/// A camera, whose it is, and its pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraArg {
    pub name: String,
    pub serial: String,
    pub folder: PathBuf,
}

/// A name or a serial number.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

impl std::str::FromStr for FolderArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted =
            || "write NAME=DIR, e.g. front=pictures/front, or NAME:SERIAL=DIR, e.g. front:822512060853=pictures/front";
        let (camera, folder) = text.split_once('=').ok_or_else(wanted)?;
        let (name, serial) = match camera.split_once(':') {
            Some((name, serial)) => (name, Some(serial)),
            None => (camera, None),
        };
        if !is_plain(name) || !serial.is_none_or(is_plain) || folder.is_empty() {
            return Err(wanted().to_owned());
        }
        Ok(Self { name: name.to_owned(), serial: serial.map(str::to_owned), folder: folder.into() })
    }
}

impl std::str::FromStr for SerialArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The colon of --from-images is what a hand types here too.
        match text.split_once(['=', ':']) {
            Some((name, serial)) if is_plain(name) && is_plain(serial) => {
                Ok(Self { name: name.to_owned(), serial: serial.to_owned() })
            }
            _ => Err("write NAME=SERIAL, e.g. front=822512060853".to_owned()),
        }
    }
}

/// Brings folders and serial numbers together. Nothing is guessed: a calibration belongs to one piece of hardware.
fn cameras(folders: &[FolderArg], serials: &[SerialArg]) -> anyhow::Result<Vec<CameraArg>> {
    for (i, SerialArg { name, serial }) in serials.iter().enumerate() {
        let named = |folder: &FolderArg| folder.name == *name;
        ensure!(folders.iter().any(named), "--serial {name}={serial}: there is no --from-images {name}=DIR");
        let another = serials[..i].iter().find(|other| other.name == *name && other.serial != *serial);
        if let Some(another) = another {
            bail!("--serial {name}: both {} and {serial} are given, say which one it is", another.serial);
        }
    }
    let mut found: Vec<CameraArg> = Vec::with_capacity(folders.len());
    for FolderArg { name, serial, folder } in folders {
        let flag = serials.iter().find(|flag| flag.name == *name).map(|flag| &flag.serial);
        let serial = match (serial, flag) {
            (Some(own), Some(flag)) if own != flag => {
                bail!(
                    "camera {name}: --from-images says serial number {own}, --serial says {flag}: say which one it is"
                )
            }
            (Some(serial), _) | (None, Some(serial)) => serial.clone(),
            (None, None) => bail!(
                "camera {name}: its serial number is not given: add --serial {name}=SERIAL (it is printed on the camera)"
            ),
        };
        if let Some(twice) = found.iter().find(|other| other.name == *name || other.serial == serial) {
            bail!("cameras {} ({}) and {name} ({serial}) share a name or a serial number", twice.name, twice.serial);
        }
        found.push(CameraArg { name: name.clone(), serial, folder: folder.clone() });
    }
    Ok(found)
}

impl RigArgs {
    fn folder(&self) -> anyhow::Result<RigFolder> {
        Ok(RigFolder::new(&state_folder()?, &self.rig)?)
    }

    fn layout(&self) -> anyhow::Result<Rig> {
        Ok(match &self.tags {
            Some(path) => Rig::load(path)?,
            None => Rig::built_in()?,
        })
    }
}

/// All pictures, searched for the layout's tags. Progress goes to standard error.
fn search_all(cameras: &[CameraArg], layout: &Rig) -> anyhow::Result<Vec<Pictures>> {
    let settings = DetectorSettings { family: layout.family, max_hamming: layout.max_hamming, ..Default::default() };
    let mut detector = Detector::new(settings)?;
    let mut found = Vec::with_capacity(cameras.len());
    for camera in cameras {
        let on_terminal = std::io::stderr().is_terminal();
        let pictures = search(&camera.serial, &camera.name, &camera.folder, &mut detector, |done, all| {
            if on_terminal {
                eprint!("\r{}: picture {done} of {all} ", camera.name);
            }
        });
        if on_terminal {
            eprintln!();
        }
        found.push(pictures.with_context(|| format!("camera {}", camera.name))?);
    }
    Ok(found)
}

fn now() -> String {
    rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64()))
}

fn program() -> String {
    format!("tenon-calibrate {}", env!("CARGO_PKG_VERSION"))
}

fn print_findings(out: &mut impl Write, findings: &[Finding]) -> std::io::Result<()> {
    finding_lines(findings).iter().try_for_each(|line| writeln!(out, "{line}"))
}

/// Takes a draft into use, if that is wanted.
fn finish(folder: &RigFolder, mut draft: Draft, date: &str, yes: bool) -> anyhow::Result<Outcome> {
    if yes || ask("Take it into use?")? {
        report_page::write(&mut draft, date)?;
        let version = folder.publish(draft, date, true)?;
        writeln!(std::io::stderr(), "in use: {}", version.path.display())?;
    } else {
        writeln!(std::io::stderr(), "kept as a draft: {}", draft.folder().display())?;
    }
    Ok(Outcome::Done)
}

/// Asks on the terminal; without one the answer is no.
fn ask(question: &str) -> std::io::Result<bool> {
    let (input, mut errors) = (std::io::stdin(), std::io::stderr());
    if !input.is_terminal() {
        return Ok(false);
    }
    write!(errors, "{question} [y/N] ")?;
    errors.flush()?;
    let mut answer = String::new();
    input.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn paired(folders: &[&str], serials: &[&str]) -> Result<Vec<CameraArg>, String> {
        let folders: Vec<FolderArg> = folders.iter().map(|text| text.parse().unwrap()).collect();
        let serials: Vec<SerialArg> = serials.iter().map(|text| text.parse().unwrap()).collect();
        cameras(&folders, &serials).map_err(|error| error.to_string())
    }

    #[test]
    fn cameras_are_named_with_their_serial() {
        let camera: FolderArg = "front:822512060853=pictures/a=b".parse().unwrap();
        assert_eq!((camera.name.as_str(), camera.serial.as_deref()), ("front", Some("822512060853")));
        assert_eq!(camera.folder, Path::new("pictures/a=b"));
        assert_eq!("front=dir".parse::<FolderArg>().unwrap().serial, None);
        for wrong in ["front:=dir", ":1=dir", "front:1=", "front", "fr ont:1=d", "a/b:1=d", "=d"] {
            let said = wrong.parse::<FolderArg>().unwrap_err();
            assert!(said.contains("NAME:SERIAL=DIR"), "{wrong}");
        }
        for wrong in ["front", "front=", "=1", "front=1=2", "fr ont=1"] {
            assert!(wrong.parse::<SerialArg>().unwrap_err().contains("NAME=SERIAL"), "{wrong}");
        }
    }

    #[test]
    fn a_serial_number_stands_beside_the_folder_or_in_its_own_flag() {
        let both = paired(&["front=a", "side:2=b"], &["front=1", "side=2"]).unwrap();
        assert_eq!(both.iter().map(|c| c.serial.as_str()).collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(paired(&["front=a"], &["front:1"]).unwrap()[0].serial, "1");
    }

    #[test]
    fn serial_numbers_that_are_missing_or_contradict_are_said_with_their_flag() {
        let said = |folders: &[&str], serials: &[&str]| paired(folders, serials).unwrap_err();
        assert!(said(&["front=a"], &[]).contains("add --serial front=SERIAL"));
        assert!(said(&["front:1=a"], &["front=2"]).contains("--from-images says serial number 1, --serial says 2"));
        assert!(said(&["front=a"], &["front=1", "front=2"]).contains("both 1 and 2"));
        assert!(said(&["front:1=a"], &["site=2"]).contains("no --from-images site=DIR"));
        assert!(said(&["front:1=a", "side=b"], &["side=1"]).contains("share a name or a serial number"));
        assert!(said(&["front:1=a", "front:2=b"], &[]).contains("share a name"));
    }
}
