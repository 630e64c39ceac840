//! `tenon-calibrate check`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::{PicturesArgs, RigArgs, search_all};
use crate::measure::drift::DriftVerdict;
use crate::run::Outcome;
use crate::steps::{Limits, check as step};

const HELP: &str = "\
Example:
  tenon-calibrate check --rig bench --from-images front=now/front --serial front=822512060853

Compares the base board in pictures taken now with the calibration in use and says how far each camera moved.

Exit code: 0 in place (or a warning); 1 a camera moved farther than the limits ([calibration.drift] of robot.toml: 5 mm, 1 degree), beyond
what noise explains; 2 something cannot be read.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct CheckArgs {
    #[command(flatten)]
    pub rig: RigArgs,

    #[command(flatten)]
    pub pictures: PicturesArgs,

    /// The robot's configuration with the limits; without it configs/robot.toml where there is one, else those that Tenon ships
    #[arg(long, value_name = "FILE")]
    pub robot: Option<PathBuf>,
}

/// Runs the check.
pub fn check(args: &CheckArgs, out: &mut impl Write) -> anyhow::Result<Outcome> {
    let folders = args.pictures.cameras()?;
    let layout = args.rig.layout()?;
    let current = args.rig.folder()?.current()?;
    let cameras = search_all(&folders, &layout)?;
    let found =
        step::drift(&current.calibration, &cameras, &layout.base_tags, &Limits::load(args.robot.as_deref())?.drift())?;
    let stop = found.iter().any(|camera| camera.drift.verdict == DriftVerdict::Stop);
    if args.rig.json {
        let report = serde_json::json!({ "schema": "tenon.check/1", "version": current.name, "passed": !stop, "cameras": found });
        writeln!(out, "{report}")?;
    } else {
        writeln!(out, "against {}", current.name)?;
        for camera in &found {
            let mark = match camera.drift.verdict {
                DriftVerdict::InPlace => "ok  ",
                DriftVerdict::Warn => "warn",
                DriftVerdict::Stop => "FAIL",
            };
            writeln!(out, "{mark} {}", camera.text)?;
        }
    }
    Ok(if stop { Outcome::NothingFound } else { Outcome::Done })
}
