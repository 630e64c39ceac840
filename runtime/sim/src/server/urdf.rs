//! URDF text of the Panda, as the robot client's metadata carries it.
//!
//! Kinematics and limits only (spec `robot_control.md` §6): here nobody computes dynamics from it, the arm's masses are
//! MuJoCo's. A real robot client sends its own, complete text.

use std::fmt::Write;

use tenon_core::arm::RobotModel;

/// Joint frames in their parents: position (m) and turn about the parent's x axis (quarter turns).
const CHAIN: [([f64; 3], i8); 7] = [
    ([0.0, 0.0, 0.333], 0),
    ([0.0, 0.0, 0.0], -1),
    ([0.0, -0.316, 0.0], 1),
    ([0.0825, 0.0, 0.0], 1),
    ([-0.0825, 0.384, 0.0], -1),
    ([0.0, 0.0, 0.0], 1),
    ([0.088, 0.0, 0.0], 1),
];
const FLANGE_OFFSET_M: f64 = 0.107;

/// The text.
pub fn panda_urdf() -> String {
    let mut text = String::from("<?xml version=\"1.0\"?>\n<robot name=\"panda\">\n");
    write_links(&mut text).expect("writing to a String cannot fail");
    text.push_str("</robot>\n");
    text
}

fn write_links(text: &mut String) -> std::fmt::Result {
    let limits = RobotModel::Fer.limits();
    for link in 0..=8 {
        writeln!(text, r#"<link name="panda_link{link}"/>"#)?;
    }
    for (i, ([x, y, z], quarters)) in CHAIN.iter().enumerate() {
        let roll = f64::from(*quarters) * std::f64::consts::FRAC_PI_2;
        let child = i + 1;
        writeln!(text, r#"<joint name="panda_joint{child}" type="revolute">"#)?;
        writeln!(text, r#"<origin xyz="{x} {y} {z}" rpy="{roll} 0 0"/>"#)?;
        writeln!(text, r#"<parent link="panda_link{i}"/><child link="panda_link{child}"/><axis xyz="0 0 1"/>"#)?;
        writeln!(
            text,
            r#"<limit lower="{}" upper="{}" velocity="{}" effort="{}"/>"#,
            limits.lower_rad[i], limits.upper_rad[i], limits.velocity_rad_s[i], limits.torque_nm[i]
        )?;
        writeln!(text, "</joint>")?;
    }
    writeln!(text, r#"<joint name="panda_joint8" type="fixed">"#)?;
    writeln!(text, r#"<origin xyz="0 0 {FLANGE_OFFSET_M}" rpy="0 0 0"/>"#)?;
    writeln!(text, r#"<parent link="panda_link7"/><child link="panda_link8"/>"#)?;
    writeln!(text, "</joint>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::{Isometry3, Translation3, UnitQuaternion, Vector3};
    use tenon_core::arm::Arm;
    use tenon_core::geometry::{Pose, pose_error};

    #[test]
    fn the_chain_is_that_of_the_core() {
        let q = [0.1, -0.2, 0.3, -1.4, 0.5, 1.6, -0.7];
        let mut T = Isometry3::identity();
        for (([x, y, z], quarters), q) in CHAIN.iter().zip(q) {
            let roll = f64::from(*quarters) * std::f64::consts::FRAC_PI_2;
            let turn = UnitQuaternion::from_axis_angle(&Vector3::x_axis(), roll)
                * UnitQuaternion::from_axis_angle(&Vector3::z_axis(), q);
            T *= Pose::from_parts(Translation3::new(*x, *y, *z), turn);
        }
        T *= Translation3::new(0.0, 0.0, FLANGE_OFFSET_M);
        assert!(pose_error(&T, &Arm::new(Pose::identity()).flange(&q)).norm() < 1e-12);
    }
}
