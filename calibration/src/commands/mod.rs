//! The commands of the steps: folders of pictures in, the rig's folder out, a text or JSON report on standard output.

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

use anyhow::Context;
use clap::Args;
use tenon_core::calendar::rfc3339;
use tenon_vision::{Detector, DetectorSettings, Pose, Rig, TagOnBody};

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
    /// A camera and its pictures: its name, its serial number (pictures do not know it) and a folder of PNG or JPEG files, taken in
    /// the order of their names. Once for each camera
    #[arg(long = "from-images", value_name = "NAME:SERIAL=DIR", required = true)]
    pub from_images: Vec<CameraArg>,
}

/// A tag in the gripper, and where the arm held it.
#[derive(Debug, Args)]
pub struct HandArgs {
    /// The arm's pose for each picture: lines picture,x_m,y_m,z_m,qw,qx,qy,qz
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

/// `front:822512060853=pictures/front`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraArg {
    pub name: String,
    pub serial: String,
    pub folder: PathBuf,
}

impl std::str::FromStr for CameraArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || "write NAME:SERIAL=DIR, e.g. front:822512060853=pictures/front".to_owned();
        let (camera, folder) = text.split_once('=').ok_or_else(wanted)?;
        let (name, serial) = camera.split_once(':').ok_or_else(wanted)?;
        let plain = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if !plain(name) || !plain(serial) || folder.is_empty() {
            return Err(wanted());
        }
        Ok(Self { name: name.to_owned(), serial: serial.to_owned(), folder: folder.into() })
    }
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

    #[test]
    fn cameras_are_named_with_their_serial() {
        let camera: CameraArg = "front:822512060853=pictures/a=b".parse().unwrap();
        assert_eq!((camera.name.as_str(), camera.serial.as_str()), ("front", "822512060853"));
        assert_eq!(camera.folder, Path::new("pictures/a=b"));
        for wrong in ["front=dir", "front:=dir", ":1=dir", "front:1=", "front", "fr ont:1=d", "a/b:1=d"] {
            let said = wrong.parse::<CameraArg>().unwrap_err();
            assert!(said.contains("NAME:SERIAL=DIR"), "{wrong}");
        }
    }
}
