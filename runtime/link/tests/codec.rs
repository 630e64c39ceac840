//! Bytes of every message: golden constants, round trips, and arbitrary bytes that must never panic.

use proptest::prelude::*;
use tenon_core::message::{
    BridgeFault, BridgeState, BridgeStatus, GripperCommand, GripperPhase, JointTarget, MESSAGE_VERSION, Request,
    RobotState,
};
use tenon_core::time::{MonotonicTime, RobotTime};
use tenon_link::codec::*;

/// Written by hand from the table in `codec`, so that a change of layout shows here and not on a robot.
const GOLDEN_STATE: &str = "0201\
    0807060504030201\
    00ca9a3b00000000\
    000000000000e03f000000000000f0bf000000000000000000000000000004c0000000000000d03f0000000000000440000000000000e83f\
    0000000000000000000000000000d03f000000000000d0bf000000000000000000000000000000000000000000000000000000000000f03f\
    000000000000f03f00000000000000400000000000000840000000000000104000000000000014400000000000001840000000000000f0bf\
    000000000000b03f\
    04\
    01000000";
const GOLDEN_TARGET: &str = "0202\
    efcdab8967452301\
    2a00000000000000\
    00ca9a3b00000000\
    000000000000e03f000000000000f0bf000000000000000000000000000004c0000000000000d03f0000000000000440000000000000e83f\
    0000000000000000000000000000d03f000000000000d0bf000000000000000000000000000000000000000000000000000000000000f03f\
    000000000000f03f00000000000000400000000000000840000000000000104000000000000014400000000000001840000000000000f0bf";
const GOLDEN_ARM: &str = "02030107000000000000ff00";
const GOLDEN_RELEASE: &str = "02030207000000000000ff00";
const GOLDEN_HEARTBEAT: &str = "02030307000000000000ff00";
const GOLDEN_CLOSE: &str = "02030407000000000000ff01";
const GOLDEN_STATUS: &str = "0204\
    0300000000000000\
    0404\
    0700000000000000\
    05000000\
    2a00000000000000\
    d2040000\
    e8030000";

const JOINTS: [f64; 7] = [0.5, -1.0, 0.0, -2.5, 0.25, 2.5, 0.75];
const VELOCITIES: [f64; 7] = [0.0, 0.25, -0.25, 0.0, 0.0, 0.0, 1.0];
const SESSION: u64 = 0xff00_0000_0000_0007;

fn state() -> RobotState {
    RobotState {
        sequence: 0x0102_0304_0506_0708,
        robot_time: RobotTime::from_nanos(1_000_000_000),
        joint_positions_rad: JOINTS,
        joint_velocities_rad_s: VELOCITIES,
        joint_torques_external_nm: [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -1.0],
        gripper_width_m: 0.0625,
        gripper: GripperPhase::Holding,
        error_code: 1,
    }
}

fn target() -> JointTarget {
    JointTarget {
        session: 0x0123_4567_89ab_cdef,
        sequence: 42,
        due: MonotonicTime::from_nanos(1_000_000_000),
        joint_positions_rad: JOINTS,
        joint_velocities_rad_s: VELOCITIES,
        joint_accelerations_rad_s2: [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -1.0],
    }
}

fn status() -> BridgeStatus {
    BridgeStatus {
        sequence: 3,
        state: BridgeState::Fault,
        fault: BridgeFault::ControllerDropped,
        session: 7,
        epoch: 5,
        acknowledged: 42,
        update_us: 1234,
        robot_hz: 1000,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn golden_bytes_of_every_message() {
    assert_eq!(hex(&encode_state(&state())), GOLDEN_STATE);
    assert_eq!(hex(&encode_target(&target())), GOLDEN_TARGET);
    assert_eq!(hex(&encode_request(&Request::Arm { session: SESSION })), GOLDEN_ARM);
    assert_eq!(hex(&encode_request(&Request::Release { session: SESSION })), GOLDEN_RELEASE);
    assert_eq!(hex(&encode_request(&Request::Heartbeat { session: SESSION })), GOLDEN_HEARTBEAT);
    let close = Request::Gripper { session: SESSION, command: GripperCommand::Close };
    assert_eq!(hex(&encode_request(&close)), GOLDEN_CLOSE);
    assert_eq!(hex(&encode_status(&status())), GOLDEN_STATUS);
}

#[test]
fn every_message_survives_a_round_trip() {
    assert_eq!(decode_state(&encode_state(&state())), Ok(state()));
    assert_eq!(decode_target(&encode_target(&target())), Ok(target()));
    for request in [
        Request::Arm { session: 1 },
        Request::Release { session: 2 },
        Request::Heartbeat { session: 3 },
        Request::Gripper { session: 4, command: GripperCommand::Open },
        Request::Gripper { session: 5, command: GripperCommand::Close },
    ] {
        assert_eq!(decode_request(&encode_request(&request)), Ok(request));
    }
    for gripper in [
        GripperPhase::Absent,
        GripperPhase::Open,
        GripperPhase::Opening,
        GripperPhase::Closing,
        GripperPhase::Holding,
        GripperPhase::Empty,
        GripperPhase::TimedOut,
    ] {
        let m = RobotState { gripper, ..state() };
        assert_eq!(decode_state(&encode_state(&m)), Ok(m));
    }
    for state in
        [BridgeState::NoServer, BridgeState::NoRobot, BridgeState::Idle, BridgeState::Running, BridgeState::Fault]
    {
        for fault in [
            BridgeFault::None,
            BridgeFault::ServerGone,
            BridgeFault::ServerRestarted,
            BridgeFault::RobotGone,
            BridgeFault::ControllerDropped,
            BridgeFault::ControllerReplaced,
            BridgeFault::ControllerRefused,
            BridgeFault::UpdateRefused,
            BridgeFault::HeartbeatLost,
        ] {
            let m = BridgeStatus { state, fault, ..status() };
            assert_eq!(decode_status(&encode_status(&m)), Ok(m));
        }
    }
}

#[test]
fn another_version_is_a_named_error_whatever_its_length() {
    let mut bytes = encode_target(&target()).to_vec();
    bytes[0] = MESSAGE_VERSION + 1;
    bytes.push(0);
    let error = decode_target(&bytes).unwrap_err();
    assert_eq!(error, DecodeError::Version { found: MESSAGE_VERSION + 1 });
    assert!(error.to_string().contains("install the same release"), "{error}");
}

#[test]
fn a_target_that_is_not_finite_is_refused() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut m = target();
        m.joint_positions_rad[4] = bad;
        let refused = decode_target(&encode_target(&m));
        assert_eq!(refused, Err(DecodeError::NotFinite { field: "target", joint: 4 }));
        let mut m = target();
        m.joint_accelerations_rad_s2[2] = bad;
        let refused = decode_target(&encode_target(&m));
        assert_eq!(refused, Err(DecodeError::NotFinite { field: "target's acceleration", joint: 2 }));
    }
}

#[test]
fn a_state_may_lack_a_gripper_but_no_joint() {
    let mut m = state();
    m.gripper_width_m = f64::NAN;
    assert!(decode_state(&encode_state(&m)).unwrap().gripper_width_m.is_nan());
    m.gripper_width_m = f64::INFINITY;
    assert_eq!(decode_state(&encode_state(&m)), Err(DecodeError::GripperWidth));
    let mut m = state();
    m.joint_velocities_rad_s[0] = f64::NAN;
    assert_eq!(decode_state(&encode_state(&m)), Err(DecodeError::NotFinite { field: "velocity", joint: 0 }));
}

#[test]
fn every_other_length_is_refused() {
    let whole = encode_state(&state());
    for len in 0..whole.len() {
        assert!(decode_state(&whole[..len]).is_err());
    }
    let mut longer = whole.to_vec();
    longer.push(0);
    let expected = DecodeError::Length { kind: MessageKind::State, found: STATE_BYTES + 1 };
    assert_eq!(decode_state(&longer), Err(expected));
}

#[test]
fn a_message_on_the_wrong_key_is_refused() {
    let refused = decode_target(&encode_state(&state()));
    assert_eq!(refused, Err(DecodeError::Kind { expected: MessageKind::Target, found: 1 }));
}

fn joints() -> impl Strategy<Value = [f64; 7]> {
    proptest::array::uniform7(-1e9..1e9f64)
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = (decode_state(&bytes), decode_target(&bytes), decode_request(&bytes), decode_status(&bytes));
    }

    #[test]
    fn damaged_messages_never_panic_and_never_pass_a_nan(at in 0..TARGET_BYTES, value in any::<u8>()) {
        let mut bytes = encode_target(&target());
        bytes[at] = value;
        if let Ok(m) = decode_target(&bytes) {
            prop_assert_eq!(m.check_finite(), Ok(()));
            prop_assert_eq!(encode_target(&m), bytes);
        }
    }

    #[test]
    fn arbitrary_status_bytes_are_refused_or_kept(mut bytes in proptest::array::uniform32(any::<u8>())) {
        bytes[0] = MESSAGE_VERSION;
        bytes[1] = MessageKind::Status as u8;
        let mut whole = [0; STATUS_BYTES];
        whole[..32].copy_from_slice(&bytes);
        if let Ok(m) = decode_status(&whole) {
            prop_assert_eq!(encode_status(&m), whole);
        }
    }

    #[test]
    fn every_finite_target_survives(
        session in any::<u64>(), sequence in any::<u64>(), due in any::<i64>(), q in joints(), dq in joints(), ddq in joints(),
    ) {
        let m = JointTarget {
            session,
            sequence,
            due: MonotonicTime::from_nanos(due),
            joint_positions_rad: q,
            joint_velocities_rad_s: dq,
            joint_accelerations_rad_s2: ddq,
        };
        prop_assert_eq!(decode_target(&encode_target(&m)), Ok(m));
    }

    #[test]
    fn every_finite_state_survives(
        sequence in any::<u64>(), nanos in any::<i64>(), q in joints(), dq in joints(), tau in joints(), code in any::<i32>(),
    ) {
        let m = RobotState {
            sequence,
            robot_time: RobotTime::from_nanos(nanos),
            joint_positions_rad: q,
            joint_velocities_rad_s: dq,
            joint_torques_external_nm: tau,
            gripper_width_m: 0.08,
            gripper: GripperPhase::Open,
            error_code: code,
        };
        prop_assert_eq!(decode_state(&encode_state(&m)), Ok(m));
    }
}
