//! Method paths and field numbers on the wire (spec `polymetis.md` §2–3).

use prost::Message;
use tenon_polymetis::proto::{
    ControllerChunk, GripperCommand, GripperState, LogInterval, RobotClientMetadata, RobotState, gripper_server_server,
    polymetis_controller_server_server,
};

#[test]
fn method_paths_have_no_package() {
    assert_eq!(polymetis_controller_server_server::SERVICE_NAME, "PolymetisControllerServer");
    assert_eq!(gripper_server_server::SERVICE_NAME, "GripperServer");
    let generated = include_str!(concat!(env!("OUT_DIR"), "/_.rs"));
    for method in [
        "SetController",
        "UpdateController",
        "TerminateController",
        "GetRobotState",
        "GetRobotStateStream",
        "GetRobotStateLog",
        "GetEpisodeInterval",
        "GetRobotClientMetadata",
        "InitRobotClient",
        "ControlUpdate",
    ] {
        assert!(generated.contains(&format!("\"/PolymetisControllerServer/{method}\"")), "{method}");
    }
    for method in ["Goto", "GetState", "GetRobotClientMetadata", "InitRobotClient", "ControlUpdate"] {
        assert!(generated.contains(&format!("\"/GripperServer/{method}\"")), "{method}");
    }
}

#[test]
fn messages_are_encoded_as_specified() {
    let chunk = ControllerChunk { torchscript_binary_chunk: vec![1, 2] };
    assert_eq!(chunk.encode_to_vec(), [0x0a, 2, 1, 2]);
    // -1 as a varint of ten bytes, not zigzag.
    let interval = LogInterval { start: 3, end: -1 };
    assert_eq!(interval.encode_to_vec(), [0x08, 3, 0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    // Packed floats; scalars behind them.
    let state = RobotState {
        joint_positions: vec![1.0],
        motor_torques_desired: vec![2.0],
        prev_controller_latency_ms: 1.0,
        prev_command_successful: true,
        error_code: 1,
        ..RobotState::default()
    };
    assert_eq!(
        state.encode_to_vec(),
        [0x12, 4, 0, 0, 0x80, 0x3f, 0x4a, 4, 0, 0, 0, 0x40, 0x55, 0, 0, 0x80, 0x3f, 0x58, 1, 0x60, 1]
    );
    let metadata = RobotClientMetadata {
        default_kq: vec![1.0],
        default_kx: vec![1.0],
        default_kxd: vec![1.0],
        ee_link_idx: 7,
        ..RobotClientMetadata::default()
    };
    assert_eq!(
        metadata.encode_to_vec(),
        [0x1a, 4, 0, 0, 0x80, 0x3f, 0x40, 7, 0x5a, 4, 0, 0, 0x80, 0x3f, 0x62, 4, 0, 0, 0x80, 0x3f]
    );
    let state = GripperState { error_code: 1, prev_command_successful: true, ..GripperState::default() };
    assert_eq!(state.encode_to_vec(), [0x28, 1, 0x30, 1]);
    let command = GripperCommand { grasp: true, epsilon_outer: -1.0, ..GripperCommand::default() };
    assert_eq!(command.encode_to_vec(), [0x28, 1, 0x3d, 0, 0, 0x80, 0xbf]);
}
