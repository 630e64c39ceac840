//! `tenon-calibrate wizard`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use tenon_vision::{Pose, TagOnBody};

use super::arm::linked_arm;
use super::board::board_of;
use super::{RigArgs, now, program};
use crate::arm::{ArmPoseSource, FilePoses, TypedPoses};
use crate::boards::print::Paper;
use crate::run::Outcome;
use crate::steps::{Limits, arm_poses};
use crate::wizard::simulated::hand_tag;
use crate::wizard::sources::Kind;
use crate::wizard::{
    Answers, Bench, CameraChoice, Ending, SimulatedBench, SourceBench, SourceSettings, Wizard, Worker, WorkerSettings,
    talk,
};

const HELP: &str = "\
Examples:
  tenon-calibrate wizard --rig demo --simulated --yes
  tenon-calibrate wizard --rig bench --camera front=v4l2:822512060853 --camera side=v4l2:817612070315 --exposure-100us 80 \\
    --board board.toml --arm-link --hand-tag 100 --hand-tag-size-m 0.048
  tenon-calibrate wizard --rig bench --camera front=images:822512060853:pictures/front --board board.toml --yes

Leads through intrinsics, camera to base, proof, latency and noise at rest, and writes a version of the rig's calibration with a
report (report.html). It works over ssh, keeps every step as it ends, and goes on there when it is started again. It never commands
the arm.

With --arm-link the robot itself says where the hand is (through tenon-bridge, which is only listened to): the tool point of [tool] in
robot.toml, taken when every joint has been below 0.01 rad/s for half a second. With --guided-arm you type it, and --arm-poses reads it from
a file. Which frame of the hand it is does not matter as long as it is always the same. After some poses the wizard says where the next one
helps most, and ends when everything is known better than 1 mm and 0.1 degrees.

Folders of pictures and recorded runs may have a subfolder for each step: intrinsics, place, proof, latency, noise.

Exit code: 0 a version is in use; 1 a version is kept but not in use (the proof failed or was left out), or the session was
interrupted; 2 something cannot be read.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct WizardArgs {
    #[command(flatten)]
    pub rig: RigArgs,

    /// A camera: NAME=v4l2:SERIAL, NAME=recorded:DIR, NAME=images:SERIAL:DIR or NAME=simulated. Once for each camera
    #[arg(long = "camera", value_name = "NAME=SOURCE")]
    pub cameras: Vec<CameraChoice>,

    /// Two simulated cameras and a simulated arm: to try the wizard without hardware
    #[arg(long, conflicts_with = "cameras")]
    pub simulated: bool,

    /// Description of the board, as `tenon-calibrate board` wrote it; or april_grid, charuco, checkerboard for those of A4
    #[arg(long, value_name = "FILE|KIND", default_value = "april_grid")]
    pub board: String,

    /// The robot's configuration with the limits ([calibration]); without it configs/robot.toml where there is one, else the limits
    /// that Tenon ships
    #[arg(long, value_name = "FILE")]
    pub robot: Option<PathBuf>,

    /// Fixed exposure of v4l2 cameras in units of 100 microseconds
    #[arg(long, value_name = "N")]
    pub exposure_100us: Option<i64>,

    /// The arm takes part: it is guided by hand, and its pose is typed in
    #[arg(long, requires = "hand_tag", conflicts_with_all = ["arm_link", "arm_poses", "simulated"])]
    pub guided_arm: bool,

    /// The arm takes part: it is guided by hand, and its pose comes over the link, from the bridge at ENDPOINT (without it: at [link]
    /// endpoint of robot.toml). Its swing for the latency is recorded, too
    #[arg(long, value_name = "ENDPOINT", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    #[arg(requires = "hand_tag", conflicts_with_all = ["arm_poses", "simulated"])]
    pub arm_link: Option<String>,

    /// The arm's pose for each picture of a file (see `tenon-calibrate place --help`)
    #[arg(long, value_name = "FILE", requires = "hand_tag", conflicts_with = "simulated")]
    pub arm_poses: Option<PathBuf>,

    /// Id of the tag in the gripper
    #[arg(long, value_name = "ID", requires = "hand_tag_size_m")]
    pub hand_tag: Option<u32>,

    /// Edge of its black border, as measured on the print
    #[arg(long, value_name = "M")]
    pub hand_tag_size_m: Option<f64>,

    /// Record of the hand along its swing (time_s,value), for the latency of cameras whose pictures are recorded
    #[arg(long, value_name = "FILE")]
    pub swing: Option<PathBuf>,

    /// Focal length for cameras whose intrinsics are left out
    #[arg(long, value_name = "PX")]
    pub assume_focal_px: Option<f64>,

    /// Push the simulated cameras by that much before the proof, to see a proof fail
    #[arg(long, value_name = "MM", default_value_t = 0.0, allow_negative_numbers = true)]
    pub push_mm: f64,

    /// Ask nothing: Enter to every question. A version is taken into use only if its proof passed
    #[arg(long)]
    pub yes: bool,
}

/// Who knows the arm's poses.
fn arm(args: &WizardArgs) -> anyhow::Result<Option<Box<dyn ArmPoseSource>>> {
    if let Some(endpoint) = &args.arm_link {
        return Ok(Some(Box::new(linked_arm(endpoint, args.robot.as_deref())?)));
    }
    if args.guided_arm {
        return Ok(Some(Box::new(TypedPoses)));
    }
    Ok(match &args.arm_poses {
        Some(path) => Some(Box::new(FilePoses(arm_poses::read(path)?))),
        None => None,
    })
}

/// Runs a session. What is said goes to standard output, with `--json` to standard error.
pub fn wizard(args: &WizardArgs, out: &mut impl Write) -> anyhow::Result<Outcome> {
    let simulated = args.simulated || args.cameras.iter().any(|camera| camera.kind == Kind::Simulated);
    let board = board_of(&args.board, if args.simulated { Paper::A3 } else { Paper::A4 })?;
    let hand: Vec<TagOnBody> = match (args.hand_tag, args.hand_tag_size_m) {
        (Some(id), Some(size_m)) => vec![TagOnBody { id, size_m, T_body_tag: Pose::identity() }],
        _ if simulated => vec![hand_tag()],
        _ => Vec::new(),
    };
    let mut bench: Box<dyn Bench> = if simulated {
        let real = args.cameras.iter().find(|camera| camera.kind != Kind::Simulated);
        anyhow::ensure!(real.is_none(), "simulated and real cameras do not go together");
        let names: Vec<String> = match args.cameras.as_slice() {
            [] => vec!["front".into(), "side".into()],
            cameras => cameras.iter().map(|camera| camera.name.clone()).collect(),
        };
        Box::new(SimulatedBench::new(&names, board.clone(), 1e-3 * args.push_mm)?)
    } else {
        let settings =
            SourceSettings { exposure_100us: args.exposure_100us, arm: arm(args)?, swing: args.swing.clone() };
        Box::new(SourceBench::open(&args.cameras, settings)?)
    };
    let settings = WorkerSettings {
        layout: args.rig.layout()?,
        board,
        hand,
        limits: Limits::load(args.robot.as_deref())?,
        assume_focal_px: args.assume_focal_px,
        program: program(),
        now,
    };
    let mut worker = Worker::new(bench.as_mut(), args.rig.folder()?, settings)?;
    let mut wizard = Wizard::new(worker.plan()?);
    let mut input = std::io::stdin().lock();
    let mut answers = if args.yes { Answers::Yes } else { Answers::Lines(&mut input) };
    let ending = if args.rig.json {
        talk(&mut wizard, &mut worker, &mut answers, &mut std::io::stderr())?
    } else {
        talk(&mut wizard, &mut worker, &mut answers, out)?
    };
    if args.rig.json {
        let ending_name = match ending {
            Ending::InUse => "in_use",
            Ending::Kept => "kept",
            Ending::Paused => "paused",
        };
        let report = serde_json::json!({
            "schema": "tenon.wizard/1", "rig": args.rig.rig, "ending": ending_name, "version": worker.published()
        });
        writeln!(out, "{report}")?;
    }
    Ok(if ending == Ending::InUse { Outcome::Done } else { Outcome::NothingFound })
}
