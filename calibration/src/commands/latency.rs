//! `tenon-calibrate latency`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tenon_core::config::rig::Delay;
use tenon_vision::source::{Pace, RecordedRun, SystemClock};
use tenon_vision::{Detector, DetectorSettings, Rig};

use super::{RigArgs, finish, now, program};
use crate::measure::latency::{LatencySettings, Sample};
use crate::rig::{Ended, Step};
use crate::run::Outcome;
use crate::steps::latency::{Delayed, measure, put, read, track};
use crate::wizard::worker::delay_line;

const HELP: &str = "\
Examples:
  tenon-calibrate latency --rig bench --arm targets.csv,angles.csv --link robot_time.csv,arrival.csv --yes
  tenon-calibrate latency --rig bench --camera 822512060853=hand.csv,runs/front --tag 100 --yes

Every pair is a cause and its response: files of time_s,value on one clock. For a camera the response may be a recorded run with a
moving tag. Move with changing speed for 20 seconds; the delay of every two seconds makes up the distribution. `tenon-calibrate arm-swing`
records the hand meanwhile.

Exit code: 0 measured; 2 the two records show no common motion, or something cannot be read.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct LatencyArgs {
    #[command(flatten)]
    pub rig: RigArgs,

    /// A camera: its serial number, the hand's place along its motion, and a record of the tag's place or a recorded run
    #[arg(long = "camera", value_name = "SERIAL=CAUSE,RESPONSE|RUN")]
    pub cameras: Vec<CameraPair>,

    /// A joint's targets and its angles
    #[arg(long, value_name = "CAUSE,RESPONSE")]
    pub arm: Option<Pair>,

    /// Commanded width and width of the gripper
    #[arg(long, value_name = "CAUSE,RESPONSE")]
    pub gripper: Option<Pair>,

    /// A joint's angle at the robot's own time and at its arrival
    #[arg(long, value_name = "CAUSE,RESPONSE")]
    pub link: Option<Pair>,

    /// Tag that moves in a recorded run
    #[arg(long, value_name = "ID")]
    pub tag: Option<u32>,

    /// Largest delay that is looked for
    #[arg(long, value_name = "S", default_value_t = LatencySettings::default().max_delay_s)]
    pub max_delay_s: f64,

    /// Take the result into use without asking
    #[arg(long)]
    pub yes: bool,
}

/// `cause.csv,response.csv`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub cause: PathBuf,
    pub response: PathBuf,
}

impl std::str::FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(',') {
            Some((cause, response)) if !cause.is_empty() && !response.is_empty() => {
                Ok(Self { cause: cause.into(), response: response.into() })
            }
            _ => Err("write CAUSE,RESPONSE, e.g. targets.csv,angles.csv".into()),
        }
    }
}

/// `822512060853=hand.csv,runs/front`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraPair {
    pub serial: String,
    pub pair: Pair,
}

impl std::str::FromStr for CameraPair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || "write SERIAL=CAUSE,RESPONSE, e.g. 822512060853=hand.csv,runs/front".to_owned();
        let (serial, pair) = text.split_once('=').filter(|(serial, _)| !serial.is_empty()).ok_or_else(wanted)?;
        Ok(Self { serial: serial.to_owned(), pair: pair.parse().map_err(|_| wanted())? })
    }
}

/// Runs the step.
pub fn latency(args: &LatencyArgs, out: &mut impl Write) -> anyhow::Result<Outcome> {
    let max_delay_s = args.max_delay_s;
    anyhow::ensure!(
        max_delay_s > 0.0 && max_delay_s <= 5.0,
        "--max-delay-s {max_delay_s}: must be above 0 and at most 5"
    );
    let settings = LatencySettings { max_delay_s, ..LatencySettings::default() };
    let layout = args.rig.layout()?;
    let mut found: Vec<(Delayed, Delay)> = Vec::new();
    for CameraPair { serial, pair } in &args.cameras {
        let response =
            if pair.response.is_dir() { of_run(&pair.response, args.tag, &layout)? } else { read(&pair.response)? };
        let what = Delayed::Camera(serial.clone());
        found.push((what.clone(), measure(&what, &read(&pair.cause)?, &response, &settings)?));
    }
    for (what, pair) in [(Delayed::Arm, &args.arm), (Delayed::Gripper, &args.gripper), (Delayed::Link, &args.link)] {
        if let Some(pair) = pair {
            let delay = measure(&what, &read(&pair.cause)?, &read(&pair.response)?, &settings)?;
            found.push((what, delay));
        }
    }
    anyhow::ensure!(!found.is_empty(), "nothing to measure: give --camera, --arm, --gripper or --link");
    let folder = args.rig.folder()?;
    let date = now();
    let mut draft = folder.draft(&program(), &date)?;
    draft.change(|calibration| {
        found.iter().for_each(|(what, delay)| put(&mut calibration.latency, what, *delay, &date));
    })?;
    if args.rig.json {
        let record = &draft.calibration().latency;
        writeln!(out, "{}", serde_json::json!({ "schema": "tenon.latency/1", "latency": record }))?;
    } else {
        found.iter().try_for_each(|(what, delay)| writeln!(out, "{}", delay_line(what, delay)))?;
    }
    draft.end_step(Step::Latency, Ended::Done { date: date.clone() })?;
    finish(&folder, draft, &date, args.yes)
}

fn of_run(folder: &Path, tag: Option<u32>, layout: &Rig) -> anyhow::Result<Vec<Sample>> {
    let tag = tag.ok_or_else(|| anyhow::anyhow!("{}: say with --tag which tag moves in it", folder.display()))?;
    let mut run = RecordedRun::open(folder, Pace::AsFastAsPossible, false, Arc::new(SystemClock))?;
    let settings = DetectorSettings { family: layout.family, max_hamming: layout.max_hamming, ..Default::default() };
    let mut detector = Detector::new(settings)?;
    Ok(track(&mut run, &mut detector, tag)?.along_motion(&folder.display().to_string())?)
}
