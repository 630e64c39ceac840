//! `tenon-calibrate intrinsics`, `import-intrinsics` and `export-intrinsics`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use tenon_core::config::rig::{CameraRecord, IntrinsicsRecord, IntrinsicsSource};

use super::board::{board_of, write_new};
use super::{CameraArg, FolderArg, RigArgs, SerialArg, cameras, finish, now, print_findings, program};
use crate::boards::print::Paper;
use crate::intrinsics::exchange::Format;
use crate::intrinsics::{CameraInfo, Free, Intrinsics, Options, Progress, calibrate_images};
use crate::rig::{Draft, Ended, Step};
use crate::run::Outcome;
use crate::steps::pictures::list;
use crate::steps::place::camera_of;
use crate::steps::{Finding, Grade, intrinsics as step, worst};

const HELP: &str = "\
Example:
  tenon-calibrate intrinsics --rig bench --from-images front=views --serial front=822512060853 --board board.toml --yes

Pictures of the board of `tenon-calibrate board` from 10 to 30 places: near and far, in all corners of the picture, tilted to every side by
20 to 40 degrees. What is still missing is said. Views that do not fit the others are named and left out. k3 is kept at 0 unless
--all-distortion.

Exit code: 0 passed; 1 a limit was missed, and nothing was taken into use; 2 too few views, or something cannot be read.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct IntrinsicsArgs {
    #[command(flatten)]
    pub rig: RigArgs,

    /// The camera and its pictures of the board: its name, its serial number (here or in --serial) and a folder
    #[arg(long = "from-images", value_name = "NAME[:SERIAL]=DIR")]
    pub from_images: FolderArg,

    /// Serial number of the camera
    #[arg(long = "serial", value_name = "NAME=SERIAL")]
    pub serials: Vec<SerialArg>,

    /// Description of the board, as `tenon-calibrate board` wrote it; or april_grid, charuco, checkerboard for those of A4
    #[arg(long, value_name = "FILE|KIND")]
    pub board: String,

    /// Estimate k3 too: for wide lenses
    #[arg(long)]
    pub all_distortion: bool,

    /// Take a result that passes into use without asking
    #[arg(long)]
    pub yes: bool,
}

/// Runs the step.
pub fn intrinsics(args: &IntrinsicsArgs, out: &mut impl Write) -> anyhow::Result<Outcome> {
    let camera = &cameras(std::slice::from_ref(&args.from_images), &args.serials)?[0];
    let board = board_of(&args.board, Paper::A4)?;
    let folder = args.rig.folder()?;
    let files = list(&camera.folder)?;
    let date = now();
    let mut draft = folder.draft(&program(), &date)?;
    let options =
        if args.all_distortion { Options { free: Free::ALL, ..Default::default() } } else { Options::default() };
    let found = calibrate_images(&board, &files, &options, &mut say_progress)?;
    let findings = step::findings(&found);
    let passed = worst(&findings) != Grade::Fail;
    if args.rig.json {
        let mut report = serde_json::to_value(found.report())?;
        report["schema"] = "tenon.intrinsics/1".into();
        report["passed"] = passed.into();
        writeln!(out, "{report}")?;
    } else {
        print(&found, &findings, out)?;
    }
    let failed = if passed { "" } else { "-failed" };
    let name = format!("intrinsics-{}{failed}.json", camera.serial);
    draft.write_file(&name, serde_json::to_string_pretty(&found.report())?.as_bytes())?;
    if !passed {
        writeln!(std::io::stderr(), "tenon-calibrate: limits are missed: nothing was taken into use")?;
        return Ok(Outcome::NothingFound);
    }
    let record = step::record(&found, &date);
    put(&mut draft, camera, [found.width, found.height], record)?;
    draft.end_step(Step::Intrinsics, Ended::Done { date: date.clone() })?;
    finish(&folder, draft, &date, args.yes)
}

/// Enters intrinsics. A place that was found with others no longer holds.
fn put(draft: &mut Draft, camera: &CameraArg, size_px: [usize; 2], intrinsics: IntrinsicsRecord) -> anyhow::Result<()> {
    let known = draft.calibration().camera(&camera.serial);
    if known.is_some_and(|known| known.place.is_some()) {
        writeln!(std::io::stderr(), "{}: its place was found with other intrinsics: place it again", camera.name)?;
    }
    let record = CameraRecord {
        name: camera.name.clone(),
        serial: camera.serial.clone(),
        resolution_px: size_px.map(|n| n as u32),
        intrinsics,
        place: None,
    };
    Ok(draft.change(|calibration| {
        calibration.put_camera(record);
        // It rested on other intrinsics.
        calibration.proof = None;
    })?)
}

fn say_progress(progress: Progress) {
    match progress {
        Progress::Image { index, total, name, found } => match found {
            Ok(view) => eprintln!("{name}: {} points ({} of {total})", view.points.len(), index + 1),
            Err(reason) => eprintln!("{name}: left out: {reason}"),
        },
        Progress::Coverage(_) => {}
        Progress::Solving { views } => eprintln!("solving {views} views"),
        Progress::Dropped(view) => {
            eprintln!("{}: does not fit the others ({:.2} px), left out", view.name, view.held_out_px)
        }
    }
}

fn print(found: &Intrinsics, findings: &[Finding], out: &mut impl Write) -> std::io::Result<()> {
    let std = found.std();
    writeln!(
        out,
        "{}x{} px, {} views, noise of a corner {:.3} px",
        found.width,
        found.height,
        found.views.len(),
        found.sigma_px
    )?;
    for (i, parameter) in found.report().parameters.iter().enumerate() {
        match parameter.std {
            Some(_) => writeln!(out, "  {:<3} {:>11.5} ± {:.5}", parameter.name, parameter.value, 1.96 * std[i])?,
            None => writeln!(out, "  {:<3} {:>11.5} (kept)", parameter.name, parameter.value)?,
        }
    }
    print_findings(out, findings)?;
    for view in &found.dropped {
        writeln!(
            out,
            "left out: {} ({:?}, {:.2} px; usual {:.2} px)",
            view.name, view.reason, view.held_out_px, view.typical_px
        )?;
    }
    for note in &found.notes {
        writeln!(out, "note: {note}")?;
    }
    if let Some(next) = &found.next_view {
        writeln!(out, "the view to add next: {}", next.advice)?;
    }
    Ok(())
}

const IMPORT_HELP: &str = "\
Example:
  tenon-calibrate import-intrinsics --rig bench --camera front:822512060853 camera_info.yaml --yes

Reads OpenCV's and ROS's YAML (which count pixels from the centre of the top left one). Nothing says how exact such values are: `tenon-calibrate
intrinsics` measures them with standard deviations.

Exit code: 0; 2 the file cannot be read.";

#[derive(Debug, Args)]
#[command(after_help = IMPORT_HELP)]
pub struct ImportArgs {
    #[command(flatten)]
    pub rig: RigArgs,

    /// Whose intrinsics they are
    #[arg(long, value_name = "NAME:SERIAL")]
    pub camera: String,

    /// OpenCV or ROS YAML
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Take them into use without asking
    #[arg(long)]
    pub yes: bool,
}

/// Takes factory values.
pub fn import_intrinsics(args: &ImportArgs, out: &mut impl Write) -> anyhow::Result<Outcome> {
    let SerialArg { name, serial } = args
        .camera
        .parse()
        .map_err(|_| anyhow::anyhow!("--camera {}: write NAME:SERIAL, e.g. front:822512060853", args.camera))?;
    let camera = CameraArg { name, serial, folder: PathBuf::new() };
    let info = CameraInfo::load(&args.file)?;
    let folder = args.rig.folder()?;
    let date = now();
    let mut draft = folder.draft(&program(), &date)?;
    let record = IntrinsicsRecord {
        source: IntrinsicsSource::Imported,
        focal_px: info.camera.focal_px(),
        principal_px: info.camera.principal_px(),
        distortion: info.camera.distortion().map_or([0.0; 5], |d| [d.k1, d.k2, d.p1, d.p2, d.k3]),
        sigma: None,
        rms_px: None,
        views: None,
        date: date.clone(),
    };
    if args.rig.json {
        writeln!(
            out,
            "{}",
            serde_json::json!({ "schema": "tenon.import/1", "serial": camera.serial, "intrinsics": record })
        )?;
    } else {
        let [fx, fy] = record.focal_px;
        writeln!(
            out,
            "{} ({}): {}x{} px, focal length {fx:.2}, {fy:.2} px",
            camera.name, camera.serial, info.width, info.height
        )?;
    }
    put(&mut draft, &camera, [info.width, info.height], record)?;
    draft.end_step(Step::Intrinsics, Ended::Done { date: date.clone() })?;
    finish(&folder, draft, &date, args.yes)
}

const EXPORT_HELP: &str = "\
Example:
  tenon-calibrate export-intrinsics --rig bench --serial 822512060853 --format ros --out camera_info.yaml

Exit code: 0; 2 there is no such camera, or the file exists already.";

/// Whose file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lowercase")]
pub enum FormatArg {
    /// %YAML:1.0 of OpenCV's FileStorage
    Opencv,
    /// camera_info of ROS
    Ros,
}

#[derive(Debug, Args)]
#[command(after_help = EXPORT_HELP)]
pub struct ExportArgs {
    #[command(flatten)]
    pub rig: RigArgs,

    /// Serial number of the camera
    #[arg(long, value_name = "SERIAL")]
    pub serial: String,

    /// Whose layout
    #[arg(long, value_enum)]
    pub format: FormatArg,

    /// File to write; an existing one is kept
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Writes the intrinsics in use for another program.
pub fn export_intrinsics(args: &ExportArgs, out: &mut impl Write) -> anyhow::Result<Outcome> {
    let current = args.rig.folder()?.current()?;
    let Some(record) = current.calibration.camera(&args.serial) else {
        let known: Vec<&str> = current.calibration.camera.iter().map(|camera| camera.serial.as_str()).collect();
        bail!("there is no camera {} in rig {}; known are {}", args.serial, args.rig.rig, known.join(", "));
    };
    ensure!(!args.out.exists(), "{} exists already: name another or delete it", args.out.display());
    let [width, height] = record.resolution_px.map(|n| n as usize);
    let info = CameraInfo { name: record.name.clone(), width, height, camera: camera_of(&record.intrinsics)? };
    let format = match args.format {
        FormatArg::Opencv => Format::OpenCv,
        FormatArg::Ros => Format::Ros,
    };
    write_new(&args.out, info.to_yaml(format).as_bytes()).context("export-intrinsics")?;
    if args.rig.json {
        writeln!(out, "{}", serde_json::json!({ "schema": "tenon.export/1", "file": args.out }))?;
    } else {
        writeln!(out, "{}", args.out.display())?;
    }
    Ok(Outcome::Done)
}
