//! What goes into a tick and what comes out of it.

use std::time::Duration;

use tenon_core::action::{ActionChunk, MAX_CHUNK_VALUES};
use tenon_core::arm::{Arm, Joints};
use tenon_core::fusion::{GripperEvent, NotReady, PartsView};
use tenon_core::gripper::ToggleSettings;
use tenon_core::ik::Damping;
use tenon_core::message::{BridgeFault, BridgeState, BridgeStatus, GripperCommand, Request, RobotState};
use tenon_core::safety::{JointMotion, Refusal, SafetyLimits};
use tenon_core::spec::{ActionField, ObservationField};
use tenon_core::time::{MonotonicTime, Stamped};
use tenon_core::timeline::{Anchor, HandOver};
use thiserror::Error;

use crate::motion::Motion;

/// Most values of one observation.
pub const MAX_OBSERVATION: usize = 64;
/// What the tick sees.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The instant that this tick's command is for: its deadline, however late it runs.
    pub due: MonotonicTime,
    pub state: Option<Stamped<RobotState>>,
    pub status: Option<Stamped<BridgeStatus>>,
    /// The newest chunk that the policy has made.
    pub chunk: Option<&'a ActionChunk>,
    /// The newest look at the parts; none where no cameras run.
    pub parts: Option<&'a PartsView>,
    /// A command of the operator or the episode sequencer, each given once.
    pub order: Option<Order>,
    /// Ticks that were skipped in a row before this one because the loop was late.
    pub late_ticks: usize,
}

/// What can be asked of the controller.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    Arm {
        session: u64,
    },
    Move(Motion),
    /// Run the policy for that many actions, then hold.
    Run {
        actions: usize,
    },
    /// Stop where the arm is commanded now, and hold.
    Hold,
    Disarm,
}

/// A request to the policy: sample a chunk from this observation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InferRequest {
    pub id: u64,
    pub len: usize,
    /// Observation in physical units.
    pub observation: [f32; MAX_OBSERVATION],
    /// Time until the chunk is needed, s; infinite where nothing moves meanwhile.
    pub budget_s: f32,
    pub guide: ChunkGuide,
}

impl Default for InferRequest {
    fn default() -> Self {
        let observation = [0.0; MAX_OBSERVATION];
        Self { id: 0, len: 0, observation, budget_s: f32::INFINITY, guide: ChunkGuide::NONE }
    }
}

/// What the chunk before said about the instants of the one that is asked for, physical units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChunkGuide {
    /// Actions that will have been executed when the chunk is there.
    pub frozen: usize,
    /// Actions that the chunk before planned; 0 = nothing is given.
    pub overlap: usize,
    len: usize,
    /// `[overlap, action_dim]`
    values: [f32; MAX_CHUNK_VALUES],
}

impl ChunkGuide {
    pub const NONE: Self = Self { frozen: 0, overlap: 0, len: 0, values: [0.0; MAX_CHUNK_VALUES] };

    /// From `previous`, whose action `offset` is for the same instant as the new chunk's first one; `frozen` of them will have been
    /// executed.
    pub fn new(previous: &ActionChunk, offset: i64, frozen: i64) -> Self {
        let mut guide = Self::NONE;
        let Ok(offset) = usize::try_from(offset) else { return guide };
        let width = previous.action_dim;
        guide.overlap = previous.steps.saturating_sub(offset);
        guide.len = guide.overlap * width;
        guide.frozen = usize::try_from(frozen).unwrap_or(0).min(guide.overlap);
        for i in 0..guide.overlap {
            if let Some(action) = previous.action(offset + i) {
                guide.values[i * width..(i + 1) * width].copy_from_slice(action);
            }
        }
        guide
    }

    /// As a record has it; what does not fit is left out.
    pub fn recorded(frozen: usize, overlap: usize, said: &[f32]) -> Self {
        let mut guide = Self { frozen, overlap, len: said.len().min(MAX_CHUNK_VALUES), ..Self::NONE };
        guide.values[..guide.len].copy_from_slice(&said[..guide.len]);
        guide
    }

    /// `[overlap, action_dim]`
    pub fn values(&self) -> &[f32] {
        &self.values[..self.len]
    }
}

/// Why the controller is in `Fault`.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum FaultCause {
    #[error("no robot state for {age_ms} ms (limit {limit_ms} ms)")]
    StaleState { age_ms: u64, limit_ms: u64 },
    #[error("the robot reports error code {0}")]
    RobotError(i32),
    #[error("robot state is not finite")]
    NonFiniteState,
    #[error(
        "joint {} is at {position_rad:.3} rad, beyond the range of its model ({lower_rad:.3} to {upper_rad:.3}): guide the arm back \
         by hand, then arm again", joint + 1
    )]
    BeyondRange { joint: usize, position_rad: f64, lower_rad: f64, upper_rad: f64 },
    #[error("action {step} of chunk {chunk} is not finite or no pose")]
    BadAction { chunk: u64, step: usize },
    #[error("chunk {chunk}, action {step} refused: {refusal}")]
    Refused { chunk: u64, step: usize, refusal: Refusal },
    #[error("motion refused: {0}")]
    MotionRefused(Refusal),
    #[error("the arm is singular here (smallest singular value {0:.4})")]
    Singular(f64),
    #[error("no chunk from the policy for {0} ms")]
    NoChunk(u64),
    #[error("the policy cannot observe: {0}")]
    PartMissing(NotReady),
    #[error("the policy observes the gripper's width, but the robot state has none")]
    NoGripper,
    #[error("the gripper does not answer: its server, its hand client or the hand itself is gone")]
    GripperAbsent,
    #[error("the gripper did not {} in its time: free the fingers, then arm again", verb(*.0))]
    GripperTimedOut(GripperCommand),
    #[error("the gripper was told to {} and did not begin: is [gripper] set in the bridge's robot.toml?", verb(*.0))]
    GripperUnheard(GripperCommand),
    #[error("the policy observes other parts than the {found} numbers that are seen")]
    OtherParts { found: usize },
    #[error(
        "nobody has looked at the parts for {age_ms} ms (limit {limit_ms} ms): the thread that fuses poses has stopped"
    )]
    PartsStale { age_ms: u64, limit_ms: u64 },
    #[error("{0} ticks late in a row")]
    Late(usize),
    #[error("the clock ran back by {back_ms} ms")]
    ClockRanBack { back_ms: u64 },
    #[error("bridge: {0}")]
    Bridge(BridgeFault),
    #[error("the bridge let the arm go: {}", let_go(*.0))]
    BridgeLetGo(BridgeState),
    #[error("the bridge is silent")]
    BridgeSilent,
    #[error("the arm is leased to session {0:016x}, another `tenon run`")]
    LeasedToAnother(u64),
    #[error("arming timed out (bridge: {0:?})")]
    ArmingTimedOut(Option<BridgeState>),
}

fn let_go(state: BridgeState) -> &'static str {
    match state {
        BridgeState::NoServer => "it reaches no Polymetis server",
        BridgeState::NoRobot => "no robot client runs behind the server",
        BridgeState::Idle => "it ends, or another one has begun",
        BridgeState::Running | BridgeState::Fault => "it says no more",
    }
}

fn verb(command: GripperCommand) -> &'static str {
    match command {
        GripperCommand::Open => "open",
        GripperCommand::Close => "close",
    }
}

/// Public view of the state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Phase {
    Disarmed,
    Arming,
    Holding,
    Moving,
    Running,
    /// On the way to rest; then it holds.
    Stopping,
    Fault(FaultCause),
}

/// What happened in a tick, for the log and the sequencer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    Armed,
    MotionEnded,
    /// A run began: its first action is executed in this tick.
    RunStarted,
    /// The observation of action `step` was taken (not yet the action executed).
    RunEnded {
        actions: usize,
    },
    /// The arm waits for a chunk.
    ChunkLate {
        chunk: u64,
    },
    Faulted(FaultCause),
    /// The arm waits for a part to be seen again.
    PartAwaited(NotReady),
    /// A run was not begun because a part has no pose.
    RunRefused(NotReady),
    /// An order that does not fit the state was ignored.
    OrderIgnored,
    Disarmed,
}

/// The decision of a tick.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// The motion that is commanded for this tick.
    pub target: Option<[JointMotion; 7]>,
    pub request: Option<Request>,
    pub infer: Option<InferRequest>,
    /// What the gripper did, for who follows parts between its fingers.
    pub gripper: Option<GripperEvent>,
    pub event: Option<Event>,
}

/// Settings of a controller; physical facts from `robot.toml`, everything of the policy from its `PolicySpec`.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub arm: Arm,
    pub damping: Damping,
    pub safety: SafetyLimits,
    pub targets_per_action: usize,
    /// How a new chunk takes over from the one that is being executed.
    pub hand_over: HandOver,
    pub anchor: Anchor,
    /// From the instant that a command is for until the arm is there, s: what is commanded leads by it.
    pub lead_s: f64,
    /// An action beyond these is shortened, against the one before.
    pub max_tcp_step_m: f64,
    pub max_tcp_turn_rad: f64,
    /// How quickly the null space is drawn to the posture that a run began with, 1/s; 0 = not at all, as in the paper.
    pub posture_rate_hz: f64,
    /// Where the arm has a hand: when the policy turns it over.
    pub gripper: Option<ToggleSettings>,
    /// Lag of each joint's impedance law behind a moving target, s; the target leads by it. 0 = the paper's law.
    pub lag_compensation_s: Joints,
    pub max_state_age: Duration,
    pub max_late_ticks: usize,
    /// A run holds the arm for a part that has gone missing at most this long, then it is a fault.
    pub max_missing: Duration,
}

impl Settings {
    /// Grid instants that pass between an observation and the way that its chunk changes: the lead, and less than a period for
    /// the policy itself.
    pub fn inference_periods(&self, period_s: f64) -> usize {
        1 + (self.lead_s / period_s).floor().max(0.0) as usize
    }
}

/// What was done to actions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ActionCounts {
    /// Shortened by the caps of one action.
    pub shortened: u64,
    /// Dropped because their instant had passed.
    pub late_actions: u64,
}

fn of_task(values: usize) -> String {
    format!("{values} values that its task defines")
}

/// What is wrong with a policy for this controller.
#[derive(Debug, Error, PartialEq)]
pub enum SettingsError {
    #[error("the policy observes {}, which only a simulation can provide", of_task(.0.dim()))]
    SimulationOnly(ObservationField),
    #[error("the policy acts through {}, which only a simulation understands", of_task(.0.dim()))]
    SimulationOnlyAction(ActionField),
    #[error(
        "control.hand_over: executing {executed} actions of a chunk while the next is inferred ({delay} more) needs a prediction \
         horizon of {}, the policy has {prediction_horizon}: execute fewer, or use mode = \"sequential\"", executed + delay
    )]
    Horizon { executed: usize, delay: usize, prediction_horizon: usize },
    #[error("the policy moves a gripper, but robot.toml has no [gripper]")]
    NoGripper,
    #[error("control.hand_over: executed = 0 executes nothing")]
    NothingExecuted,
    #[error("{what} = {value} exceeds {limit}")]
    TooLarge { what: &'static str, value: usize, limit: usize },
}
