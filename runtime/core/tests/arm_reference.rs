//! Forward kinematics and Jacobian against the published constants (spec/data/robot.toml of the shared folder).

use std::path::Path;

use nalgebra::{SVector, Vector3, Vector6};
use tenon_core::arm::{Arm, Joints, RobotModel, T_flange_hand_tcp};
use tenon_core::geometry::pose_from_wxyz;
use tenon_core::ik::{Damping, IkOutcome, differential_ik};

fn reference() -> Option<toml::Table> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/spec/data/robot.toml");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: {} is not there", path.display());
        return None;
    };
    Some(text.parse().expect("robot.toml is valid TOML"))
}

fn numbers<const N: usize>(value: &toml::Value) -> [f64; N] {
    let list = value.as_array().expect("a list of numbers");
    assert_eq!(list.len(), N);
    std::array::from_fn(|i| list[i].as_float().expect("a number"))
}

fn reset_joints(name: &str) -> Joints {
    match name {
        "benchmark" => [-0.02630888, 0.3758795, 0.12485036, -2.1383357, -0.09431414, 2.49649072, 0.01921718],
        "authors_policy_eval" => [-0.0046, 0.2833, 0.0664, -2.2494, -0.1338, 2.5323, 0.0317],
        "authors_teleop" => [-0.0931, 0.0382, 0.1488, -2.3811, -0.0090, 2.4947, 0.1204],
        other => panic!("no reset {other}"),
    }
}

#[test]
fn forward_kinematics_and_jacobian_match_the_reference() {
    let Some(table) = reference() else { return };
    let arm = Arm::new(T_flange_hand_tcp());
    let cases = table["fk_reference"].as_array().expect("a list of cases");
    assert_eq!(cases.len(), 3);
    for case in cases {
        let name = case["reset"].as_str().expect("a name");
        let q = reset_joints(name);
        let flange = Vector3::from(numbers::<3>(&case["flange_pos"]));
        assert!((arm.flange(&q).translation.vector - flange).norm() < 2e-6, "{name}: flange");
        let [x, y, z, w] = numbers::<4>(&case["tcp_quat_xyzw"]);
        let tcp = pose_from_wxyz(numbers::<3>(&case["tcp_pos"]), [w, x, y, z]);
        let ours = arm.tcp(&q);
        assert!((ours.translation.vector - tcp.translation.vector).norm() < 2e-6, "{name}: tool point");
        assert!(ours.rotation.angle_to(&tcp.rotation) < 5e-6, "{name}: orientation");
        let Some(rows) = case.get("jacobian") else { continue };
        let (_, J) = arm.flange_jacobian(&q);
        for (i, row) in rows.as_array().expect("six rows").iter().enumerate() {
            for (j, entry) in numbers::<7>(row).iter().enumerate() {
                assert!((J[(i, j)] - entry).abs() < 2e-6, "{name}: J[{i}][{j}] = {} is not {entry}", J[(i, j)]);
            }
        }
        // The pseudo-inverse, through the product's own IK: a 0.1 mm step scales the published 0.1 m one.
        let twist = Vector6::from(numbers::<6>(&case["pinv_times_unit"]["twist"]));
        let qdot = SVector::<f64, 7>::from(numbers::<7>(&case["pinv_times_unit"]["qdot"]));
        let flange_only = Arm::new(nalgebra::Isometry3::identity());
        let mut target = flange_only.flange(&q);
        target.translation.vector += twist.fixed_rows::<3>(0) * 1e-3;
        let outcome = differential_ik(&flange_only, &q, &target, Damping::None, &RobotModel::Fer.limits(), 0.0);
        let IkOutcome::Reached { joint_positions_rad } = outcome else { panic!("{outcome:?}") };
        for i in 0..7 {
            let step = joint_positions_rad[i] - q[i];
            assert!((step - 1e-3 * qdot[i]).abs() < 2e-9, "joint {}: {step} is not {}", i + 1, 1e-3 * qdot[i]);
        }
    }
}
