//! `tenon-calibrate arm-pose` and `arm-swing`: what the robot itself says of the arm, for pictures that another program takes.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use tenon_core::config::LinkConfig;
use tenon_core::config::rig::position_and_quaternion;
use tenon_link::Endpoint;
use tenon_vision::Pose;
use tenon_vision::source::{Clock, SystemClock};

use super::board::write_new;
use crate::arm::{LinkPoses, LinkSettings, SwingRecorder, connect};
use crate::run::Outcome;
use crate::steps::{arm_poses, latency, limits};

/// How long a bridge that is just starting is waited for.
const CONNECT: Duration = Duration::from_secs(5);

/// Which robot, and how to reach it.
#[derive(Debug, Args)]
pub struct RobotLinkArgs {
    /// The bridge's endpoint; without it [link] endpoint of robot.toml
    #[arg(long, value_name = "ENDPOINT")]
    pub arm_link: Option<String>,

    /// The robot's configuration with model, tool and link; without it configs/robot.toml
    #[arg(long, value_name = "FILE")]
    pub robot: Option<PathBuf>,
}

/// Opens the link of the robot that is described in `robot`. `endpoint`: empty for the one that stands there.
pub(super) fn linked_arm(endpoint: &str, robot: Option<&Path>) -> anyhow::Result<LinkPoses> {
    let robot = limits::robot(robot)?;
    let endpoint = endpoint_of(&robot.link, (!endpoint.is_empty()).then_some(endpoint))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let states = connect(&endpoint, &clock, CONNECT)?;
    Ok(LinkPoses::new(states, LinkSettings::new(&robot), clock))
}

/// The bridge's end point, or the one that is named instead, with the certificates of robot.toml.
fn endpoint_of(link: &LinkConfig, instead: Option<&str>) -> anyhow::Result<Endpoint> {
    let named = instead.map(|endpoint| LinkConfig { endpoint: endpoint.to_owned(), ..link.clone() });
    let endpoint = Endpoint::of_config(named.as_ref().unwrap_or(link))?;
    if let Some(warning) = endpoint.warning() {
        eprintln!("warning: {warning}");
    }
    Ok(endpoint)
}

const POSE_HELP: &str = "\
Examples:
  tenon-calibrate arm-pose 0001.png --out poses.csv
  tenon-calibrate arm-pose --out poses.csv          # asks for one picture after the other
  tenon-calibrate arm-pose                          # only says where the arm stands

Takes the pose of the hand in the robot's base from the newest state of the robot, when every joint has been below 0.01 rad/s, and within
0.0005 rad of where it was, for half a second. It is the tool point of [tool] in robot.toml. tenon-bridge is only listened to: nothing is
sent, the arm is never commanded. Guide the arm, hold it still, take the picture, and run this before the arm moves on; the file is what
`place` and `proof` read with --arm-poses.

Exit code: 0; 2 no bridge or robot answers, its states cannot be used, or the arm does not come to rest within a minute.";

#[derive(Debug, Args)]
#[command(after_help = POSE_HELP)]
pub struct ArmPoseArgs {
    #[command(flatten)]
    pub link: RobotLinkArgs,

    /// Names of the pictures that show the arm where it stands now; without any they are read from standard input, one a line
    #[arg(value_name = "PICTURE")]
    pub pictures: Vec<String>,

    /// File that the poses are added to; begun where there is none
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Print one JSON object a line instead of text
    #[arg(long)]
    pub json: bool,
}

/// Says where the arm stands.
pub fn arm_pose(args: &ArmPoseArgs, out: &mut impl Write) -> anyhow::Result<Outcome> {
    // What is wrong with the file is said before anybody holds the arm.
    if let Some(path) = args.out.as_ref().filter(|path| path.exists()) {
        let known = arm_poses::read(path)?;
        let twice = args.pictures.iter().find(|picture| known.contains_key(*picture));
        ensure!(twice.is_none(), "{}: picture {} has a pose already", path.display(), twice.map_or("", String::as_str));
    }
    let mut arm = linked_arm(args.link.arm_link.as_deref().unwrap_or_default(), args.link.robot.as_deref())?;
    if !args.pictures.is_empty() || args.out.is_none() {
        let pose = arm.wait()?;
        if args.pictures.is_empty() {
            say(args, out, None, &pose)?;
        }
        for picture in &args.pictures {
            note(args, out, picture, &pose)?;
        }
        return Ok(Outcome::Done);
    }
    let input = std::io::stdin();
    let on_terminal = input.is_terminal();
    let mut lines = input.lock().lines();
    loop {
        if on_terminal {
            eprint!("name of the picture that was taken here (Enter ends) > ");
        }
        let Some(line) = lines.next() else { return Ok(Outcome::Done) };
        let picture = line?.trim().to_owned();
        match picture.as_str() {
            "" if on_terminal => return Ok(Outcome::Done),
            "" => {}
            picture => {
                let pose = arm.wait()?;
                note(args, out, picture, &pose)?;
            }
        }
    }
}

/// Adds a line to the file, and says it.
fn note(args: &ArmPoseArgs, out: &mut impl Write, picture: &str, pose: &Pose) -> anyhow::Result<()> {
    let line = arm_poses::line(picture, pose)?;
    if let Some(path) = &args.out {
        let mut text = if path.exists() {
            let known = arm_poses::read(path)?;
            ensure!(!known.contains_key(picture), "{}: picture {picture} has a pose already", path.display());
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?
        } else {
            format!("{}\n", arm_poses::HEADER)
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text += &line;
        text.push('\n');
        replace(path, text.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
    }
    say(args, out, Some(picture), pose)
}

/// Writes beside the file, then renames: poses that were taken before are not lost with a full disk.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tenon-").suffix(".csv");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path).map(|_| ()).map_err(|error| error.error)
}

fn say(args: &ArmPoseArgs, out: &mut impl Write, picture: Option<&str>, pose: &Pose) -> anyhow::Result<()> {
    let (position_m, quat_wxyz) = position_and_quaternion(pose);
    if args.json {
        let report = serde_json::json!({
            "schema": "tenon.arm_pose/1", "picture": picture, "position_m": position_m, "quat_wxyz": quat_wxyz
        });
        writeln!(out, "{report}")?;
    } else {
        let ([x, y, z], [w, i, j, k]) = (position_m, quat_wxyz);
        let name = picture.map_or_else(|| "hand in the robot's base".to_owned(), str::to_owned);
        writeln!(out, "{name}: {x:.4}, {y:.4}, {z:.4} m, quaternion (w, x, y, z) {w:.4}, {i:.4}, {j:.4}, {k:.4}")?;
    }
    Ok(out.flush()?)
}

const SWING_HELP: &str = "\
Example:
  tenon-calibrate arm-swing --seconds 20 --out hand.csv     # while a camera records a run

`latency` then takes the file beside the camera's recording (--camera SERIAL=hand.csv,runs/front).

Swing the hand to and fro across the view of the camera, some 10 cm, with changing speed. What is written is the place of the tool point
along the direction in which it moved most, at the times at which the robot measured it, on this workstation's monotonic clock (that of
recorded frames). Nothing is sent: the arm is never commanded.

Exit code: 0; 2 no bridge or robot answers, the hand hardly moved, or the file exists already.";

#[derive(Debug, Args)]
#[command(after_help = SWING_HELP)]
pub struct ArmSwingArgs {
    #[command(flatten)]
    pub link: RobotLinkArgs,

    /// How long to record
    #[arg(long, value_name = "S", default_value_t = 20.0)]
    pub seconds: f64,

    /// File to write (time_s,value); an existing one is kept
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,

    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// Records the hand while it swings.
pub fn arm_swing(args: &ArmSwingArgs, out: &mut impl Write) -> anyhow::Result<Outcome> {
    ensure!(args.seconds > 0.0 && args.seconds <= 600.0, "--seconds {}: must be above 0 and at most 600", args.seconds);
    ensure!(!args.out.exists(), "{} exists already: name another or delete it", args.out.display());
    let robot = limits::robot(args.link.robot.as_deref())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let endpoint = endpoint_of(&robot.link, args.link.arm_link.as_deref())?;
    let states = connect(&endpoint, &clock, CONNECT)?;
    let recorder = SwingRecorder::begin(states, robot.arm(), Arc::clone(&clock))?;
    eprintln!("recording for {} s: swing the hand now", args.seconds);
    clock.sleep_until(clock.now() + Duration::from_secs_f64(args.seconds));
    let track = recorder.end()?;
    ensure!(
        !track.is_empty(),
        "link at {endpoint}: no state of the robot arrived in {} s: does its client run?",
        args.seconds
    );
    let samples = track.along_motion()?;
    write_new(&args.out, latency::to_csv(&samples).as_bytes())?;
    let values = || samples.iter().map(|sample| sample.value);
    let moved_m = values().fold(f64::NEG_INFINITY, f64::max) - values().fold(f64::INFINITY, f64::min);
    if args.json {
        let report = serde_json::json!({
            "schema": "tenon.arm_swing/1", "file": args.out, "samples": samples.len(), "moved_m": moved_m
        });
        writeln!(out, "{report}")?;
    } else {
        writeln!(out, "{}: {} samples, the hand moved by {:.0} mm", args.out.display(), samples.len(), 1e3 * moved_m)?;
    }
    Ok(Outcome::Done)
}
