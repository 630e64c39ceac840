//! The record of a run: where it goes, what explains it, what became of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tenon_calibrate::rig::state_folder;
use tenon_core::calendar::rfc3339;
use tenon_core::config::RobotConfig;
use tenon_policy::Bundle;
use tenon_policy::bundle::sha256;
use tenon_recorder::{Limits, Recorded, Settings as RecorderSettings, Tap};

use super::stage::Setup;
use super::{Robot, manifest_text};
use crate::record::{Happened, RunRecorder};
use crate::replay;

/// Where the flight recorder writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordTo {
    /// A folder of its own, named by time and session, in `$TENON_STATE/runs`.
    State,
    Folder(PathBuf),
    Nowhere,
}

/// A run's record, for `tenon replay`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordReport {
    pub folder: PathBuf,
    pub ticks: u64,
    /// Records that were lost because the recorder did not keep up.
    pub dropped: u64,
    pub bytes: u64,
    /// What led to each fault.
    pub faults: Vec<PathBuf>,
    /// Why the record ends before the run.
    pub trouble: Option<String>,
}

impl RecordReport {
    pub fn of(folder: PathBuf, recorded: Recorded) -> Self {
        let Recorded { ticks, dropped, bytes, fault_files, trouble } = recorded;
        Self { folder, ticks, dropped, bytes, faults: fault_files, trouble }
    }
}

/// Key of the arm's measured delay, s; absent where none was in use.
pub const ARM_DELAY: &str = "arm_delay_s";

/// What explains a record.
pub struct About<'a> {
    pub setup: &'a Setup,
    pub config_file: &'a Path,
    pub config_text: &'a str,
    /// What the calibration in use says of the arm's delay.
    pub arm_delay_s: Option<f64>,
    pub bundle: &'a Bundle,
    pub session_id: u64,
}

impl About<'_> {
    /// Begins the record; `None` where none is wanted.
    pub fn start_recorder(&self, config: &RobotConfig) -> Result<Option<(PathBuf, RunRecorder, Tap<Happened>)>> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let folder = match &self.setup.record {
            RecordTo::Nowhere => return Ok(None),
            RecordTo::Folder(folder) => folder.clone(),
            RecordTo::State => {
                let date = rfc3339(since_1970.as_secs_f64()).replace(['-', ':'], "");
                let state = state_folder().context("where to keep the run's record (--record DIR names a folder)")?;
                state.join("runs").join(format!("{date}-{:016x}", self.session_id))
            }
        };
        let wall_offset_ns =
            i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX).saturating_sub(crate::clock::now().as_nanos());
        let settings = RecorderSettings {
            folder: folder.clone(),
            metadata: self.metadata(rfc3339(since_1970.as_secs_f64()), wall_offset_ns)?,
            arm: config.arm(),
            wall_offset_ns,
            limits: Limits::default(),
            // Whatever becomes of the record, the arm's control goes on.
            trouble: Box::new(|text| eprintln!("warning: flight recorder: {text}")),
        };
        let (recorder, tap) = RunRecorder::start(settings)
            .context("beginning the run's record (--record DIR names another folder, --no-record does without)")?;
        Ok(Some((folder, recorder, tap)))
    }

    fn metadata(&self, started: String, wall_offset_ns: i64) -> Result<BTreeMap<String, String>> {
        let policy_json = manifest_text(self.bundle)?;
        let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string();
        let robot = match self.setup.robot {
            Robot::Sim => "sim",
            Robot::Panda => "panda",
            Robot::Readonly => "readonly",
        };
        let pairs = [
            ("tenon_version", env!("CARGO_PKG_VERSION").to_owned()),
            ("record_version", tenon_recorder::record::RECORD_VERSION.to_string()),
            ("started", started),
            ("wall_offset_ns", wall_offset_ns.to_string()),
            ("session", format!("{:016x}", self.session_id)),
            ("robot", robot.to_owned()),
            ("machine", replay::this_machine()),
            ("engine", self.setup.engine.to_string()),
            ("seed", self.setup.seed.to_string()),
            ("task", self.bundle.spec().task.clone()),
            ("bundle", whole(self.bundle.folder())),
            ("bundle_sha256", sha256(policy_json.as_bytes())),
            ("policy_json", policy_json),
            ("config", whole(self.config_file)),
            ("robot_toml", self.config_text.to_owned()),
        ];
        let delay = self.arm_delay_s.map(|s| (ARM_DELAY.to_owned(), s.to_string()));
        Ok(pairs.map(|(key, value)| (key.to_owned(), value)).into_iter().chain(delay).collect())
    }
}
