//! Seeing for a run: the rig's calibration judged, its cameras opened, its parts fused, a view of them for the control thread.
//!
//! ```text
//! rig's folder ──► fitness (is it proven, recent, complete?) ─┐
//! cameras ──► cameras::open ──► drift (has one moved?) ───────┼──► fusion::start ── PartsView (slot) ──► control thread
//!                                                             ┘        ▲── tool pose (slot), gripper events (queue)
//! ```
//!
//! Everything before [`fusion::start`] says no in words: a [`Finding`] that fails names the camera or part and what to do.

pub mod cameras;
pub mod drift;
pub mod fitness;
pub mod fusion;
pub mod rendered;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tenon_calibrate::rig::{RigFolder, Version, state_folder};
use tenon_calibrate::steps::{Finding, Grade, Limits};
use tenon_calibrate::wizard::CameraChoice;
use tenon_core::config::{CamerasConfig, RobotConfig};
use tenon_core::fusion::{Furniture, PartBoard};
use tenon_core::spec::{ObservationField, PolicySpec};
use tenon_core::task::TaskName;
use tenon_vision::Rig;
use tenon_vision::pipeline::{PipelineSettings, Realtime, VisionThreads};
use tenon_vision::source::{Clock, SystemClock};

pub use cameras::OpenCamera;
pub use fusion::{Seeing, SeeingEnds};

/// The calibration in use of the configured rig, or of the one named instead.
pub fn calibration(config: &CamerasConfig, rig: Option<&str>) -> Result<Version> {
    let name = rig.unwrap_or(&config.rig);
    Ok(RigFolder::new(&state_folder()?, name)?.current()?)
}

/// The furniture that a policy observes; none for one that observes no parts.
pub fn furniture_of(spec: &PolicySpec) -> Result<Option<Furniture>> {
    let parts = spec.observation.iter().find_map(|field| match field {
        ObservationField::PartPoses(n) => Some(usize::from(*n)),
        _ => None,
    });
    let Some(parts) = parts else { return Ok(None) };
    let Some(furniture) = TaskName::from_name(&spec.task).and_then(Furniture::of_task) else {
        bail!("the policy observes {parts} parts, but its task {} has no furniture that Tenon knows", spec.task);
    };
    let known = furniture.part_names().len();
    if known != parts {
        bail!("the policy observes {parts} parts, {} has {known}: export it again with this release", spec.task);
    }
    Ok(Some(furniture))
}

/// Opens everything for `furniture` and starts the threads. `say`: told of each finding that does not stop the run.
///
/// # Errors
/// What is missing or unfit, and what to do about it.
pub fn open(
    config: &RobotConfig,
    furniture: Furniture,
    rig: Option<&str>,
    choices: &[CameraChoice],
    robot_file: &Path,
    mut say: impl FnMut(&Finding),
) -> Result<(Seeing, SeeingEnds)> {
    let cameras_config = config.cameras.as_ref().with_context(|| {
        format!("the policy observes parts, but {} has no [cameras] table: it names the rig", robot_file.display())
    })?;
    let version = calibration(cameras_config, rig)?;
    let findings = fitness::judge(&version, cameras_config, fitness::today());
    refuse(&findings, &mut say).with_context(|| format!("the calibration {}", version.path.display()))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut cameras = cameras::open(cameras_config, &version.calibration, choices, &clock)?;
    let layout = Rig::built_in()?;
    let limits = Limits::load(Some(robot_file))?.drift();
    let findings = drift::check(&version.calibration, &mut cameras, &layout, &limits)?;
    refuse(&findings, &mut say).context("a camera is not where it was calibrated")?;

    let board = version.calibration.board.as_ref().context("the board's place in the robot's base is unknown")?;
    let T_robot_board = board.T_robot_april();
    let board = PartBoard::new(furniture, &config.fusion, &T_robot_board, cameras.len(), clock.now())?;
    let settings =
        PipelineSettings { realtime_priority: cameras_config.realtime_priority, ..PipelineSettings::threaded() };
    let covariances: Vec<_> = cameras.iter().map(|camera| Some(camera.place_covariance)).collect();
    let names = cameras.iter().map(|camera| camera.name.clone()).collect();
    let cameras = cameras.into_iter().map(OpenCamera::into_pipeline).collect();
    let threads = VisionThreads::start_with_covariances(&layout, &board, cameras, &covariances, &clock, &settings)?;
    if let Realtime::Refused(refused) = threads.realtime() {
        say(&Finding { grade: Grade::Warn, text: refused.to_string() });
    }
    fusion::start(board, threads, names, clock)
}

fn refuse(findings: &[Finding], say: &mut impl FnMut(&Finding)) -> Result<()> {
    let (failed, rest): (Vec<&Finding>, Vec<&Finding>) = findings.iter().partition(|f| f.grade == Grade::Fail);
    rest.into_iter().for_each(say);
    if failed.is_empty() {
        return Ok(());
    }
    let texts: Vec<&str> = failed.iter().map(|f| f.text.as_str()).collect();
    bail!("{}", texts.join("; "))
}
