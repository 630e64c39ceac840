//! `tenon-calibrate place`.

use std::io::Write;

use clap::Args;

use super::{HandArgs, PicturesArgs, RigArgs, finish, now, print_findings, program, search_all};
use crate::rig::{Ended, Step};
use crate::run::Outcome;
use crate::steps::place::{PlaceInput, Placed};
use crate::steps::{Grade, place as step, worst};

const HELP: &str = "\
Examples:
  tenon-calibrate place --rig bench --from-images front:822512060853=pictures/front --yes
  tenon-calibrate place --rig bench --from-images front=front --serial front=822512060853 --from-images side:817612070315=side \\
    --arm-poses poses.csv --hand-tag 40 --hand-tag-size-m 0.048 --yes

Without the arm's poses the cameras are placed in the frame of the base board ('april'). With them, and with a tag in the
gripper, the board's place in the robot's base is found too, and a print of the wrong size shows.

A file of arm poses has one line for each picture: picture,x_m,y_m,z_m,qw,qx,qy,qz (pose of the hand in the robot's base: of flange or tool
point, but of the same in all lines). `tenon-calibrate arm-pose` writes it from the robot itself while the pictures are taken.

Exit code: 0 passed (with or without warnings); 1 a limit was missed, and nothing was taken into use; 2 something cannot be read or
solved.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct PlaceArgs {
    #[command(flatten)]
    pub rig: RigArgs,

    #[command(flatten)]
    pub pictures: PicturesArgs,

    #[command(flatten)]
    pub hand: HandArgs,

    /// Focal length for cameras that have no intrinsics yet: distances are then wrong by as many percent as it is
    #[arg(long, value_name = "PX")]
    pub assume_focal_px: Option<f64>,

    /// Take a result that passes into use without asking
    #[arg(long)]
    pub yes: bool,
}

/// Runs the step.
pub fn place(args: &PlaceArgs, out: &mut impl Write) -> anyhow::Result<Outcome> {
    let folders = args.pictures.cameras()?;
    let layout = args.rig.layout()?;
    let folder = args.rig.folder()?;
    let (arm_poses, hand) = (args.hand.arm_poses()?, args.hand.tags());
    let cameras = search_all(&folders, &layout)?;
    let date = now();
    let mut draft = folder.draft(&program(), &date)?;
    let input = PlaceInput {
        cameras: &cameras,
        board: &layout.base_tags,
        hand: &hand,
        arm_poses: &arm_poses,
        assume_focal_px: args.assume_focal_px,
    };
    let placed = step::place(draft.calibration(), &input, &date)?;
    let grade = worst(&placed.findings);
    print(args, &placed, out)?;
    let report = serde_json::to_string_pretty(&placed.report())?;
    draft.write_file("place.json", report.as_bytes())?;
    if grade == Grade::Fail {
        writeln!(std::io::stderr(), "tenon-calibrate: limits are missed: nothing was taken into use")?;
        return Ok(Outcome::NothingFound);
    }
    draft.change(|calibration| {
        placed.cameras.iter().for_each(|camera| calibration.put_camera(camera.clone()));
        if placed.board.is_some() {
            calibration.board.clone_from(&placed.board);
        }
        // It was of other places.
        calibration.proof = None;
    })?;
    draft.end_step(Step::Place, Ended::Done { date: date.clone() })?;
    finish(&folder, draft, &date, args.yes)
}

fn print(args: &PlaceArgs, placed: &Placed, out: &mut impl Write) -> anyhow::Result<()> {
    if args.rig.json {
        writeln!(out, "{}", serde_json::to_string(&placed.report())?)?;
        return Ok(());
    }
    let base = if placed.solution.base_is_robot { "robot's base" } else { "base board" };
    writeln!(
        out,
        "noise of a corner {:.3} px, {} pictures, base: {base}",
        placed.solution.sigma_px,
        placed.solution.views.len()
    )?;
    for (index, camera) in placed.cameras.iter().enumerate() {
        let (pose, covariance) = placed.solution.in_board(index);
        let (p, r) = (pose.translation.vector, pose.rotation.euler_angles());
        let half = |i: usize| 1.96 * covariance[(i, i)].max(0.0).sqrt();
        writeln!(out, "{} ({}) in april:", camera.name, camera.serial)?;
        for (i, (axis, value)) in ["x", "y", "z"].iter().zip([p.x, p.y, p.z]).enumerate() {
            writeln!(out, "  {axis}     {value:>9.4} ± {:.4} m", half(i))?;
        }
        for (i, (axis, value)) in ["roll", "pitch", "yaw"].iter().zip([r.0, r.1, r.2]).enumerate() {
            writeln!(out, "  {axis:<5} {:>9.3} ± {:.3} degrees", value.to_degrees(), half(3 + i).to_degrees())?;
        }
        for (method, form) in &placed.solution.cameras[index].closed_forms {
            let away = (form.T_base_camera.translation.vector
                - placed.solution.cameras[index].T_base_camera.translation.vector)
                .norm();
            writeln!(out, "  {} alone is {:.1} mm away", method.name(), 1e3 * away)?;
        }
    }
    for (name, scale) in
        [("tag in the gripper", placed.solution.hand_scale), ("base board", placed.solution.board_scale)]
    {
        if let Some(scale) = scale {
            let (value, half) = (100.0 * (scale.value - 1.0), 196.0 * scale.sigma);
            writeln!(out, "size of the {name}: {value:+.2} ± {half:.2} % of what was given")?;
        }
    }
    if let Some(next) = &placed.next {
        let ([x, y, z], [qw, qx, qy, qz]) = (next.position_m, next.quat_wxyz);
        writeln!(
            out,
            "the pose of the hand to add next: {x:.3}, {y:.3}, {z:.3} m, quaternion (w, x, y, z) {qw:.3}, {qx:.3}, {qy:.3}, {qz:.3}"
        )?;
        let (now, then) = (1e3 * next.now_sigma_m, 1e3 * next.then_sigma_m);
        writeln!(
            out,
            "  the least certain camera would be known to {then:.2} mm instead of {now:.2} mm (look first whether the arm gets there)"
        )?;
    }
    print_findings(out, &placed.findings)?;
    Ok(())
}
