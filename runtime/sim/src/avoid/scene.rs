//! The scene of D3IL Avoid as MJCF: arm with rod, table, six cylinders.

use tenon_core::avoid::{
    Obstacle, PHYSICS_STEP_S, ROD_CENTER_FROM_HAND_M, ROD_HALF_LENGTH_M, ROD_RADIUS_M, TABLE_CENTER_M,
    TABLE_HALF_SIZE_M, TCP_FROM_HAND_M,
};

use crate::panda::{self, Rod};

/// Name of the geom of obstacle `index`.
pub fn obstacle_geom_name(index: usize) -> String {
    format!("obstacle{index}")
}

/// Name of the table's geom.
pub const TABLE_GEOM: &str = "table";

/// The scene's MJCF text with these cylinders (specification of the simulation tasks, section 4).
///
/// The only pairs that can touch are rod–obstacle (a collision) and rod–table (none, but the rod rests on it below a
/// tool height of about 0.101 m). Arm and fingers are clear of the obstacles at the height of the task. The table's
/// contact is as stiff as in D3IL's published laboratory.
pub fn scene_mjcf(obstacles: &[Obstacle]) -> String {
    use panda::numbers;
    let arm = panda::arm_mjcf(
        TCP_FROM_HAND_M,
        Some(Rod {
            radius_m: ROD_RADIUS_M,
            half_length_m: ROD_HALF_LENGTH_M,
            center_from_hand_m: ROD_CENTER_FROM_HAND_M,
        }),
    );
    let obstacles: String = obstacles
        .iter()
        .enumerate()
        .map(|(index, obstacle)| {
            format!(
                r#"<geom name="{}" type="cylinder" pos="{}" size="{}" contype="0" conaffinity="1"/>{}"#,
                obstacle_geom_name(index),
                numbers(&[obstacle.center_xy_m[0], obstacle.center_xy_m[1], 0.0]),
                numbers(&[obstacle.radius_m, obstacle.half_height_m]),
                '\n',
            )
        })
        .collect();
    format!(
        r#"<mujoco model="d3il_avoid">
<compiler angle="radian" autolimits="true"/>
<option timestep="{PHYSICS_STEP_S}" cone="elliptic" impratio="3" solver="Newton" tolerance="1e-10"/>
<size memory="2M"/>
<worldbody>
<geom name="{TABLE_GEOM}" type="box" pos="{}" size="{}" contype="0" conaffinity="1" solimp="0.999 0.999 0.001" solref="0.002 1"/>
{obstacles}{}</worldbody>
<actuator>
{}</actuator>
</mujoco>
"#,
        numbers(&TABLE_CENTER_M),
        numbers(&TABLE_HALF_SIZE_M),
        arm.bodies,
        arm.actuators,
    )
}
