//! `tenon-calibrate touch-off`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::{RigArgs, finish, now, print_findings, program};
use crate::run::Outcome;
use crate::steps::{Grade, Limits, touch_off as step, worst};

const HELP: &str = "\
Example:
  tenon-calibrate touch-off --rig bench touched.csv --yes

Where the base board lies in the robot's base, from at least four points that the tool touched (keep the emergency stop in your
hand). One line for each point: tag,x_m,y_m,z_m for the middle of a tag of the base board, or
april_x_m,april_y_m,april_z_m,x_m,y_m,z_m for any point of it; x, y, z is the tool point in the robot's base.

Exit code: 0 passed; 1 the points do not fit the board (limit touch_off_rms_m of robot.toml), and nothing was taken into use; 2
something cannot be read.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct TouchOffArgs {
    #[command(flatten)]
    pub rig: RigArgs,

    /// The touched points
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// The robot's configuration with the limit; without it configs/robot.toml where there is one, else that which Tenon ships
    #[arg(long, value_name = "FILE")]
    pub robot: Option<PathBuf>,

    /// Take a result that passes into use without asking
    #[arg(long)]
    pub yes: bool,
}

/// Registers the touched points.
pub fn touch_off(args: &TouchOffArgs, out: &mut impl Write) -> anyhow::Result<Outcome> {
    let layout = args.rig.layout()?;
    let limits = Limits::load(args.robot.as_deref())?;
    let points = step::read(&args.file, &layout.base_tags)?;
    let date = now();
    let found = step::touch_off(&points, limits.config.touch_off_rms_m, &date)?;
    let names: Vec<&str> = points.iter().map(|point| point.name.as_str()).collect();
    let distances = names.iter().zip(&found.registration.distances_m);
    if args.rig.json {
        let points: Vec<_> = distances.map(|(name, m)| serde_json::json!({ "point": name, "distance_m": m })).collect();
        let report = serde_json::json!({
            "schema": "tenon.touch_off/1", "board": found.record, "rms_m": found.registration.rms_m, "points": points,
            "findings": found.findings, "limits_of": limits.origin
        });
        writeln!(out, "{report}")?;
    } else {
        let half = |i: usize| 1.96e3 * found.registration.covariance[(i, i)].sqrt();
        let [x, y, z] = found.record.position_m;
        writeln!(
            out,
            "base board in the robot's base: {x:.4}, {y:.4}, {z:.4} m (95 % within {:.2}, {:.2}, {:.2} mm)",
            half(0),
            half(1),
            half(2)
        )?;
        for (name, distance_m) in distances {
            writeln!(out, "     {name}: {:.2} mm", 1e3 * distance_m)?;
        }
        print_findings(out, &found.findings)?;
    }
    if worst(&found.findings) == Grade::Fail {
        writeln!(std::io::stderr(), "tenon-calibrate: the limit is missed: nothing was taken into use")?;
        return Ok(Outcome::NothingFound);
    }
    let folder = args.rig.folder()?;
    let mut draft = folder.draft(&program(), &date)?;
    draft.change(|calibration| {
        calibration.board = Some(found.record);
        // What was proved against the arm was proved with the board elsewhere.
        calibration.proof = None;
    })?;
    finish(&folder, draft, &date, args.yes)
}
