//! `tenon-calibrate proof`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use image::RgbImage;
use tenon_core::config::rig::RigCalibration;
use tenon_vision::{Detector, DetectorSettings, Rig, StillImage, VisionError, body_pose};

use super::{CameraArg, HandArgs, PicturesArgs, RigArgs, finish, now, print_findings, program, search_all};
use crate::rig::{Ended, Step};
use crate::run::Outcome;
use crate::steps::overlay::{ErrorLine, Now, overlay, published_front_camera};
use crate::steps::pictures::list;
use crate::steps::place::camera_of;
use crate::steps::proof::{ProofInput, prove};
use crate::steps::{Limits, StepError};

const HELP: &str = "\
Examples:
  tenon-calibrate proof --rig bench --from-images front:822512060853=held/front --from-images side:817612070315=held/side --yes
  tenon-calibrate proof --rig bench --from-images front:822512060853=held/front --arm-poses poses.csv --hand-tag 100 \\
    --hand-tag-size-m 0.048 --robot configs/robot.toml --yes
  tenon-calibrate proof --rig bench --from-images front:822512060853=now --overlay-only --reference demo.png --furniture lamp

Pictures that took no part in the calibration: of a tag in the gripper with the arm's poses, or of parts that two cameras see at once
(pictures of several cameras belong together by their order). 95 % of the views must be within the limits of [calibration.proof] in
robot.toml.

The overlay shows the first camera's last picture over the reference photograph, and how far the camera is from where the benchmark's
front camera stood for that furniture: green within 4 mm or 1 degree, else red.

Exit code: 0 passed; 1 failed, and nothing was taken into use; 2 something cannot be read.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct ProofArgs {
    #[command(flatten)]
    pub rig: RigArgs,

    #[command(flatten)]
    pub pictures: PicturesArgs,

    #[command(flatten)]
    pub hand: HandArgs,

    /// The robot's configuration with the limits; without it configs/robot.toml where there is one, else those that Tenon ships
    #[arg(long, value_name = "FILE")]
    pub robot: Option<PathBuf>,

    /// Photograph to blend under the overlay picture
    #[arg(long, value_name = "PICTURE")]
    pub reference: Option<PathBuf>,

    /// Whose published front camera the overlay compares with (set "main"; write mixed/NAME for the other); without it the place
    /// that the reference photograph itself was taken from, or without one that of one_leg
    #[arg(long, value_name = "NAME")]
    pub furniture: Option<String>,

    /// File for the overlay picture; an existing one is kept
    #[arg(long, value_name = "FILE", default_value = "overlay.png")]
    pub overlay: PathBuf,

    /// Make the overlay picture only: to put a camera where the reference stood
    #[arg(long)]
    pub overlay_only: bool,

    /// Take a result that passes into use without asking
    #[arg(long)]
    pub yes: bool,
}

/// Runs the step.
pub fn proof(args: &ProofArgs, out: &mut impl Write) -> anyhow::Result<Outcome> {
    let folders = args.pictures.cameras()?;
    let layout = args.rig.layout()?;
    let folder = args.rig.folder()?;
    let limits = Limits::load(args.robot.as_deref())?;
    let date = now();
    let wanted = args.overlay_only || args.reference.is_some() || args.furniture.is_some();
    let current = folder.current()?;
    let drawn = wanted.then(|| draw(args, &folders[0], &layout, &current.calibration)).transpose()?;
    if let Some((picture, _)) = &drawn {
        super::board::write_new(&args.overlay, &png(picture)?)?;
    }
    let lines = drawn.as_ref().map_or(&[][..], |(_, lines)| &lines[..]);
    if args.overlay_only {
        if args.rig.json {
            let report = serde_json::json!({ "schema": "tenon.overlay/1", "file": args.overlay, "lines": lines });
            writeln!(out, "{report}")?;
        } else {
            print_lines(out, lines)?;
        }
        let placed = !lines.is_empty() && lines.iter().all(|line| line.within);
        return Ok(if placed { Outcome::Done } else { Outcome::NothingFound });
    }
    let (arm_poses, hand) = (args.hand.arm_poses()?, args.hand.tags());
    let cameras = search_all(&folders, &layout)?;
    let mut draft = folder.draft(&program(), &date)?;
    let input = ProofInput { cameras: &cameras, parts: &layout.parts, hand: &hand, arm_poses: &arm_poses };
    let proved = prove(draft.calibration(), &input, &limits.proof(), &date)?;
    let report = proved.report(&limits.origin);
    if args.rig.json {
        let mut value = serde_json::to_value(&report)?;
        value["overlay"] = serde_json::to_value(lines)?;
        writeln!(out, "{value}")?;
    } else {
        print_findings(out, &proved.findings)?;
        for view in proved.proof.views.iter().take(5) {
            let (mm, deg) = (1e3 * view.position_m, view.rotation_rad.to_degrees());
            writeln!(out, "     {}: {mm:.2} mm, {deg:.2} degrees", view.name)?;
        }
        writeln!(out, "limits of {}", limits.origin)?;
        print_lines(out, lines)?;
    }
    draft.write_file("proof.json", &serde_json::to_vec_pretty(&report)?)?;
    if let Some((picture, _)) = &drawn {
        draft.write_file("pictures/overlay.png", &png(picture)?)?;
    }
    if !proved.proof.passed {
        writeln!(std::io::stderr(), "tenon-calibrate: the proof failed: nothing was taken into use")?;
        return Ok(Outcome::NothingFound);
    }
    draft.change(|calibration| calibration.proof = Some(proved.record.clone()))?;
    draft.end_step(Step::Proof, Ended::Done { date: date.clone() })?;
    finish(&folder, draft, &date, args.yes)
}

fn print_lines(out: &mut impl Write, lines: &[ErrorLine]) -> std::io::Result<()> {
    lines.iter().try_for_each(|line| writeln!(out, "{} {}", if line.within { "ok  " } else { "off " }, line.text))
}

/// The overlay of the first camera's last picture.
fn draw(
    args: &ProofArgs,
    camera: &CameraArg,
    layout: &Rig,
    known: &RigCalibration,
) -> anyhow::Result<(RgbImage, Vec<ErrorLine>)> {
    let record =
        known.camera(&camera.serial).ok_or_else(|| StepError::NoIntrinsics { serial: camera.serial.clone() })?;
    let optics = camera_of(&record.intrinsics)?;
    let files = list(&camera.folder)?;
    let present = StillImage::load(files.last().expect("a listed folder has a picture"))?;
    let settings = DetectorSettings { family: layout.family, max_hamming: layout.max_hamming, ..Default::default() };
    let mut detector = Detector::new(settings)?;
    let mut look = |image: &StillImage| -> anyhow::Result<Option<Now>> {
        let detections = detector.detect(image.grey.view())?;
        match body_pose("base board", &optics, &layout.base_tags, &detections) {
            Ok(pose) => {
                let T_april_camera = pose.T_body_camera();
                Ok(Some(Now { camera: optics, T_april_camera, rms_px: pose.best.rms_px }))
            }
            Err(VisionError::NoTagOfBody { .. } | VisionError::NoBodyPose { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    let now = look(&present)?;
    let reference = args.reference.as_ref().map(|path| StillImage::load(path)).transpose()?;
    let wanted = match (&args.furniture, &reference) {
        (Some(furniture), _) => published_front_camera(furniture)?,
        (None, Some(image)) => {
            let seen = look(image)?.map(|seen| seen.T_april_camera);
            seen.context("the reference photograph shows no base board: say --furniture NAME")?
        }
        (None, None) => published_front_camera("one_leg")?,
    };
    Ok(overlay(reference.as_ref().map(|image| &image.rgb), &present.rgb, &wanted, now.as_ref())?)
}

fn png(picture: &RgbImage) -> anyhow::Result<Vec<u8>> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png)?;
    Ok(bytes.into_inner())
}
