//! `tenon-calibrate show`.

use std::io::Write;

use clap::Args;

use super::RigArgs;
use crate::run::Outcome;

const HELP: &str = "\
Examples:
  tenon-calibrate show --rig bench
  tenon-calibrate show --rig bench --use-version 0001-20260131T123456Z

Exit code: 0; 2 the rig has no calibration, or a file was changed.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct ShowArgs {
    #[command(flatten)]
    pub rig: RigArgs,

    /// Take an earlier (or later) version into use first
    #[arg(long, value_name = "VERSION")]
    pub use_version: Option<String>,
}

/// Says what is known of a rig.
pub fn show(args: &ShowArgs, out: &mut impl Write) -> anyhow::Result<Outcome> {
    let folder = args.rig.folder()?;
    if let Some(version) = &args.use_version {
        folder.choose(version)?;
    }
    let current = folder.current()?;
    let known = &current.calibration;
    if args.rig.json {
        let report = serde_json::json!({
            "schema": "tenon.rig/1", "version": current.name, "versions": folder.versions()?, "calibration": known
        });
        writeln!(out, "{report}")?;
        return Ok(Outcome::Done);
    }
    writeln!(out, "rig {} in {}", folder.name(), folder.path().display())?;
    for version in folder.versions()? {
        writeln!(out, "{} {version}", if version == current.name { "*" } else { " " })?;
    }
    for camera in &known.camera {
        let i = &camera.intrinsics;
        let [width, height] = camera.resolution_px;
        writeln!(out, "camera {} ({}), {width}x{height}", camera.name, camera.serial)?;
        writeln!(out, "  focal length {:.2}, {:.2} px, {:?}, {}", i.focal_px[0], i.focal_px[1], i.source, i.date)?;
        match &camera.place {
            Some(place) => {
                let [x, y, z] = place.position_m;
                let sigma = |k: usize| place.covariance[k][k].max(0.0).sqrt() * 1e3;
                writeln!(
                    out,
                    "  in april {x:.4}, {y:.4}, {z:.4} m (± {:.2}, {:.2}, {:.2} mm, one standard deviation), {}",
                    sigma(0),
                    sigma(1),
                    sigma(2),
                    place.date
                )?;
            }
            None => writeln!(out, "  not placed yet: `tenon-calibrate place`")?,
        }
    }
    match &known.board {
        Some(board) => writeln!(out, "base board in the robot's base {:.4?} m, {}", board.position_m, board.date)?,
        None => writeln!(out, "base board in the robot's base: not measured")?,
    }
    match &known.proof {
        Some(proof) => writeln!(
            out,
            "proof: {}, 95 % within {:.1} mm and {:.2} degrees",
            if proof.passed { "passed" } else { "failed" },
            1e3 * proof.position_p95_m,
            proof.rotation_p95_rad.to_degrees()
        )?,
        None => writeln!(out, "proof: none")?,
    }
    let noise: Vec<&str> = known.noise.iter().map(|record| record.part.as_str()).collect();
    writeln!(out, "noise at rest: {}", if noise.is_empty() { "not measured".into() } else { noise.join(", ") })?;
    Ok(Outcome::Done)
}
