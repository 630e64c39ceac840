//! What the service is asked and what it answers: one JSON object a line, over a socket of this machine.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tenon_calibrate::rig::state_folder;
use tenon_core::message::{BridgeFault, BridgeState};

use crate::machine::Phase;
use crate::run::Robot;
use crate::shadow::ShadowReport;

/// What a person asks of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask", deny_unknown_fields)]
pub enum Ask {
    Status,
    /// Take the lease and hold the arm where it is.
    Arm,
    /// Run that many episodes of the armed arm; 0 = until somebody says hold.
    Start {
        episodes: u64,
    },
    /// Stop what moves; the arm stays armed.
    Hold,
    /// Stop what moves and give the arm back.
    Stop,
}

/// What it says to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer", deny_unknown_fields)]
pub enum Answer {
    Done { text: String, status: Box<Status> },
    Refused { why: String, status: Box<Status> },
}

/// Where the controller stands, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The controller is not there yet: the bridge does not answer.
    WaitingForBridge,
    Disarmed,
    Arming,
    Holding,
    /// On the way to the start of an episode.
    Moving,
    /// The policy commands.
    Running,
    Stopping,
    Fault,
}

impl State {
    pub fn of(phase: &Phase) -> Self {
        match phase {
            Phase::Disarmed => Self::Disarmed,
            Phase::Arming => Self::Arming,
            Phase::Holding => Self::Holding,
            Phase::Moving => Self::Moving,
            Phase::Running => Self::Running,
            Phase::Stopping => Self::Stopping,
            Phase::Fault(_) => Self::Fault,
        }
    }
}

/// All that the service says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    pub schema: String,
    pub state: State,
    /// Why it is in a fault.
    pub fault: Option<String>,
    pub robot: Robot,
    pub bundle: String,
    pub task: String,
    /// Episodes that were run to their end since the service began.
    pub episodes: u64,
    /// The one that runs, from 1.
    pub episode: Option<u64>,
    pub bridge: Option<BridgeReport>,
    /// Age of the newest robot state, ms.
    pub arm_state_age_ms: Option<f64>,
    pub ticks: u64,
    /// Where the flight recorder writes.
    pub record: Option<PathBuf>,
    pub shadow: Option<ShadowReport>,
    /// What is wrong with the cameras now, a line for each fault.
    #[serde(default)]
    pub cameras: Vec<String>,
    /// What happened lately, the newest last.
    pub happenings: Vec<Happening>,
    pub pid: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BridgeReport {
    pub state: BridgeState,
    pub fault: BridgeFault,
    /// The lease in force, as hexadecimal digits; absent where there is none.
    pub session: Option<String>,
    /// Whether the lease is this service's.
    pub ours: bool,
    pub age_ms: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Happening {
    pub seconds_ago: f64,
    pub text: String,
}

/// The version of [`Status`].
pub const SCHEMA: &str = "tenon.status/1";

/// Longest line that either side reads.
pub const MAX_LINE: u64 = 64 << 10;

/// The socket: `$TENON_STATE/control.sock`. Who may write to it may command the arm, so it belongs to the service's user and group.
///
/// # Errors
/// There is no place for state.
pub fn socket_path() -> Result<PathBuf> {
    Ok(state_folder().context("where the service's socket is (TENON_STATE=DIR names a folder)")?.join("control.sock"))
}
