//! Bytes of the messages: fixed size, little-endian, version first, kind second.
//!
//! | offset | state (199) | target (194) | request (12) | status (40) |
//! |---|---|---|---|---|
//! | 0 | version | version | version | version |
//! | 1 | kind 1 | kind 2 | kind 3 | kind 4 |
//! | 2 | sequence u64 | session u64 | 1 arm, 2 release, 3 heartbeat, 4 gripper | sequence u64 |
//! | … | robot time i64 ns | sequence u64 | session u64 | state u8, fault u8 |
//! | … | q 7×f64 rad | due i64 ns | gripper: 0 open, 1 close; else 0 | session u64, epoch u32 |
//! | … | dq 7×f64 rad/s | q 7×f64 rad | | acknowledged u64 |
//! | … | τ_ext 7×f64 N·m | dq 7×f64 rad/s | | update u32 µs |
//! | … | width f64 m, gripper u8, error i32 | ddq 7×f64 rad/s² | | rate u32 Hz |
//!
//! A field is never moved or re-used: a change of layout is a new [`MESSAGE_VERSION`]. Decoding checks everything, so
//! that a decoded value needs no second look; it never panics, whatever the bytes.

use tenon_core::arm::Joints;
use tenon_core::message::{
    BridgeFault, BridgeState, BridgeStatus, GripperCommand, GripperPhase, JointTarget, MESSAGE_VERSION, Request,
    RobotState,
};
use tenon_core::time::{MonotonicTime, RobotTime};
use thiserror::Error;

/// Size of an encoded [`RobotState`].
pub const STATE_BYTES: usize = 199;
/// Size of an encoded [`JointTarget`].
pub const TARGET_BYTES: usize = 194;
/// Size of an encoded [`Request`].
pub const REQUEST_BYTES: usize = 12;
/// Size of an encoded [`BridgeStatus`].
pub const STATUS_BYTES: usize = 40;

/// Which message it is; the value is the second byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageKind {
    State = 1,
    Target = 2,
    Request = 3,
    Status = 4,
}

impl MessageKind {
    /// All of them, by their byte.
    pub const ALL: [Self; 4] = [Self::State, Self::Target, Self::Request, Self::Status];

    /// Last part of the key.
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Target => "target",
            Self::Request => "request",
            Self::Status => "status",
        }
    }

    /// Size of the message in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::State => STATE_BYTES,
            Self::Target => TARGET_BYTES,
            Self::Request => REQUEST_BYTES,
            Self::Status => STATUS_BYTES,
        }
    }
}

/// Why a message was refused. `Copy`, so that the receiver can keep the last one without allocating.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("an empty message")]
    Empty,
    #[error(
        "the peer speaks message version {found}, this program version {MESSAGE_VERSION}: install the same release on both"
    )]
    Version { found: u8 },
    #[error("a {} message of {found} bytes, must have {}", kind.name(), kind.bytes())]
    Length { kind: MessageKind, found: usize },
    #[error("kind {found} where a {} message belongs", expected.name())]
    Kind { expected: MessageKind, found: u8 },
    #[error("{field} = {found} in a {} message is unknown", kind.name())]
    Value { kind: MessageKind, field: &'static str, found: u8 },
    #[error("{field} of joint {} is not finite", joint + 1)]
    NotFinite { field: &'static str, joint: usize },
    #[error("an infinite gripper width")]
    GripperWidth,
}

/// Bytes of a robot state.
pub fn encode_state(m: &RobotState) -> [u8; STATE_BYTES] {
    let mut w = Writer::<STATE_BYTES>::new(MessageKind::State);
    w.put(m.sequence.to_le_bytes());
    w.put(m.robot_time.as_nanos().to_le_bytes());
    w.joints(&m.joint_positions_rad);
    w.joints(&m.joint_velocities_rad_s);
    w.joints(&m.joint_torques_external_nm);
    w.put(m.gripper_width_m.to_le_bytes());
    w.put([gripper_byte(m.gripper)]);
    w.put(m.error_code.to_le_bytes());
    w.finish()
}

/// A robot state from its bytes. Joint values must be finite; the gripper width may be NaN (no gripper).
///
/// # Errors
/// [`DecodeError`]
pub fn decode_state(bytes: &[u8]) -> Result<RobotState, DecodeError> {
    let mut r = Reader::<STATE_BYTES>::new(MessageKind::State, bytes)?;
    let m = RobotState {
        sequence: u64::from_le_bytes(r.take()),
        robot_time: RobotTime::from_nanos(i64::from_le_bytes(r.take())),
        joint_positions_rad: r.joints("position")?,
        joint_velocities_rad_s: r.joints("velocity")?,
        joint_torques_external_nm: r.joints("external torque")?,
        gripper_width_m: f64::from_le_bytes(r.take()),
        gripper: {
            let [found] = r.take();
            let unknown = DecodeError::Value { kind: MessageKind::State, field: "gripper", found };
            *GRIPPER_PHASES.get(usize::from(found)).ok_or(unknown)?
        },
        error_code: i32::from_le_bytes(r.take()),
    };
    if m.gripper_width_m.is_infinite() {
        return Err(DecodeError::GripperWidth);
    }
    Ok(m)
}

/// Bytes of a joint target.
pub fn encode_target(m: &JointTarget) -> [u8; TARGET_BYTES] {
    let mut w = Writer::<TARGET_BYTES>::new(MessageKind::Target);
    w.put(m.session.to_le_bytes());
    w.put(m.sequence.to_le_bytes());
    w.put(m.due.as_nanos().to_le_bytes());
    w.joints(&m.joint_positions_rad);
    w.joints(&m.joint_velocities_rad_s);
    w.joints(&m.joint_accelerations_rad_s2);
    w.finish()
}

/// A joint target from its bytes; it is finite.
///
/// # Errors
/// [`DecodeError`]
pub fn decode_target(bytes: &[u8]) -> Result<JointTarget, DecodeError> {
    let mut r = Reader::<TARGET_BYTES>::new(MessageKind::Target, bytes)?;
    Ok(JointTarget {
        session: u64::from_le_bytes(r.take()),
        sequence: u64::from_le_bytes(r.take()),
        due: MonotonicTime::from_nanos(i64::from_le_bytes(r.take())),
        joint_positions_rad: r.joints("target")?,
        joint_velocities_rad_s: r.joints("target's velocity")?,
        joint_accelerations_rad_s2: r.joints("target's acceleration")?,
    })
}

/// Bytes of a request.
pub fn encode_request(m: &Request) -> [u8; REQUEST_BYTES] {
    let (tag, session, argument) = match *m {
        Request::Arm { session } => (1u8, session, 0u8),
        Request::Release { session } => (2, session, 0),
        Request::Heartbeat { session } => (3, session, 0),
        Request::Gripper { session, command: GripperCommand::Open } => (4, session, 0),
        Request::Gripper { session, command: GripperCommand::Close } => (4, session, 1),
    };
    let mut w = Writer::<REQUEST_BYTES>::new(MessageKind::Request);
    w.put([tag]);
    w.put(session.to_le_bytes());
    w.put([argument]);
    w.finish()
}

/// A request from its bytes.
///
/// # Errors
/// [`DecodeError`]
pub fn decode_request(bytes: &[u8]) -> Result<Request, DecodeError> {
    let mut r = Reader::<REQUEST_BYTES>::new(MessageKind::Request, bytes)?;
    let [tag] = r.take();
    let session = u64::from_le_bytes(r.take());
    let [argument] = r.take();
    let unknown = |field, found| DecodeError::Value { kind: MessageKind::Request, field, found };
    match (tag, argument) {
        (1, 0) => Ok(Request::Arm { session }),
        (2, 0) => Ok(Request::Release { session }),
        (3, 0) => Ok(Request::Heartbeat { session }),
        (4, 0) => Ok(Request::Gripper { session, command: GripperCommand::Open }),
        (4, 1) => Ok(Request::Gripper { session, command: GripperCommand::Close }),
        (1..=4, found) => Err(unknown("argument", found)),
        (found, _) => Err(unknown("request", found)),
    }
}

const STATES: [BridgeState; 5] =
    [BridgeState::NoServer, BridgeState::NoRobot, BridgeState::Idle, BridgeState::Running, BridgeState::Fault];

const FAULTS: [BridgeFault; 9] = [
    BridgeFault::None,
    BridgeFault::ServerGone,
    BridgeFault::ServerRestarted,
    BridgeFault::RobotGone,
    BridgeFault::ControllerDropped,
    BridgeFault::ControllerReplaced,
    BridgeFault::ControllerRefused,
    BridgeFault::UpdateRefused,
    BridgeFault::HeartbeatLost,
];

const GRIPPER_PHASES: [GripperPhase; 7] = [
    GripperPhase::Absent,
    GripperPhase::Open,
    GripperPhase::Opening,
    GripperPhase::Closing,
    GripperPhase::Holding,
    GripperPhase::Empty,
    GripperPhase::TimedOut,
];

/// See [`state_byte`].
const fn gripper_byte(phase: GripperPhase) -> u8 {
    match phase {
        GripperPhase::Absent => 0,
        GripperPhase::Open => 1,
        GripperPhase::Opening => 2,
        GripperPhase::Closing => 3,
        GripperPhase::Holding => 4,
        GripperPhase::Empty => 5,
        GripperPhase::TimedOut => 6,
    }
}

/// Byte of a state: its place in [`STATES`], written out so that a new variant does not compile without one.
const fn state_byte(state: BridgeState) -> u8 {
    match state {
        BridgeState::NoServer => 0,
        BridgeState::NoRobot => 1,
        BridgeState::Idle => 2,
        BridgeState::Running => 3,
        BridgeState::Fault => 4,
    }
}

/// See [`state_byte`].
const fn fault_byte(fault: BridgeFault) -> u8 {
    match fault {
        BridgeFault::None => 0,
        BridgeFault::ServerGone => 1,
        BridgeFault::ServerRestarted => 2,
        BridgeFault::RobotGone => 3,
        BridgeFault::ControllerDropped => 4,
        BridgeFault::ControllerReplaced => 5,
        BridgeFault::ControllerRefused => 6,
        BridgeFault::UpdateRefused => 7,
        BridgeFault::HeartbeatLost => 8,
    }
}

/// Bytes of a bridge status.
pub fn encode_status(m: &BridgeStatus) -> [u8; STATUS_BYTES] {
    let mut w = Writer::<STATUS_BYTES>::new(MessageKind::Status);
    w.put(m.sequence.to_le_bytes());
    w.put([state_byte(m.state), fault_byte(m.fault)]);
    w.put(m.session.to_le_bytes());
    w.put(m.epoch.to_le_bytes());
    w.put(m.acknowledged.to_le_bytes());
    w.put(m.update_us.to_le_bytes());
    w.put(m.robot_hz.to_le_bytes());
    w.finish()
}

/// A bridge status from its bytes.
///
/// # Errors
/// [`DecodeError`]
pub fn decode_status(bytes: &[u8]) -> Result<BridgeStatus, DecodeError> {
    let kind = MessageKind::Status;
    let mut r = Reader::<STATUS_BYTES>::new(kind, bytes)?;
    let sequence = u64::from_le_bytes(r.take());
    let [state, fault] = r.take();
    let unknown = |field, found| DecodeError::Value { kind, field, found };
    Ok(BridgeStatus {
        sequence,
        state: *STATES.get(usize::from(state)).ok_or(unknown("state", state))?,
        fault: *FAULTS.get(usize::from(fault)).ok_or(unknown("fault", fault))?,
        session: u64::from_le_bytes(r.take()),
        epoch: u32::from_le_bytes(r.take()),
        acknowledged: u64::from_le_bytes(r.take()),
        update_us: u32::from_le_bytes(r.take()),
        robot_hz: u32::from_le_bytes(r.take()),
    })
}

/// Fills exactly `N` bytes.
struct Writer<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Writer<N> {
    fn new(kind: MessageKind) -> Self {
        let mut w = Self { bytes: [0; N], at: 0 };
        w.put([MESSAGE_VERSION, kind as u8]);
        w
    }

    fn put<const M: usize>(&mut self, value: [u8; M]) {
        self.bytes[self.at..][..M].copy_from_slice(&value);
        self.at += M;
    }

    fn joints(&mut self, joints: &Joints) {
        for joint in joints {
            self.put(joint.to_le_bytes());
        }
    }

    fn finish(self) -> [u8; N] {
        debug_assert_eq!(self.at, N, "every layout fills its size");
        self.bytes
    }
}

/// Reads exactly `N` bytes; the length was checked once, so nothing behind it can be out of range.
struct Reader<'a, const N: usize> {
    bytes: &'a [u8; N],
    at: usize,
}

impl<'a, const N: usize> Reader<'a, N> {
    fn new(kind: MessageKind, bytes: &'a [u8]) -> Result<Self, DecodeError> {
        // Version before length: another version may well have another length.
        let &version = bytes.first().ok_or(DecodeError::Empty)?;
        if version != MESSAGE_VERSION {
            return Err(DecodeError::Version { found: version });
        }
        if let Some(&found) = bytes.get(1)
            && found != kind as u8
        {
            return Err(DecodeError::Kind { expected: kind, found });
        }
        let bytes = bytes.try_into().map_err(|_| DecodeError::Length { kind, found: bytes.len() })?;
        Ok(Self { bytes, at: 2 })
    }

    fn take<const M: usize>(&mut self) -> [u8; M] {
        let mut value = [0; M];
        value.copy_from_slice(&self.bytes[self.at..][..M]);
        self.at += M;
        value
    }

    fn joints(&mut self, field: &'static str) -> Result<Joints, DecodeError> {
        let mut joints = [0.0; 7];
        for (joint, value) in joints.iter_mut().enumerate() {
            *value = f64::from_le_bytes(self.take());
            if !value.is_finite() {
                return Err(DecodeError::NotFinite { field, joint });
            }
        }
        Ok(joints)
    }
}
