//! The scene of D3IL Avoid as MJCF: arm with rod, table, six cylinders.

use tenon_core::avoid::{
    FINISH_LINE_Y_M, Obstacle, PHYSICS_STEP_S, ROD_CENTER_FROM_HAND_M, ROD_HALF_LENGTH_M, ROD_RADIUS_M, TABLE_CENTER_M,
    TABLE_HALF_SIZE_M, TCP_FROM_HAND_M,
};

use crate::panda::{self, Rod};

/// Name of the geom of obstacle `index`.
pub fn obstacle_geom_name(index: usize) -> String {
    format!("obstacle{index}")
}

/// Name of the table's geom.
pub const TABLE_GEOM: &str = "table";

const ROD: Rod =
    Rod { radius_m: ROD_RADIUS_M, half_length_m: ROD_HALF_LENGTH_M, center_from_hand_m: ROD_CENTER_FROM_HAND_M };

/// The camera of the scene that is drawn: before the arm's right side, above the start.
pub(super) const CAMERA: &str = "watch";

fn obstacles_mjcf(obstacles: &[Obstacle]) -> String {
    let geom = |(index, obstacle): (usize, &Obstacle)| {
        format!(
            r#"<geom name="{}" type="cylinder" pos="{}" size="{}" contype="0" conaffinity="1"/>{}"#,
            obstacle_geom_name(index),
            panda::numbers(&[obstacle.center_xy_m[0], obstacle.center_xy_m[1], 0.0]),
            panda::numbers(&[obstacle.radius_m, obstacle.half_height_m]),
            '\n',
        )
    };
    obstacles.iter().enumerate().map(geom).collect()
}

/// The same scene as people want to see it: the arm's links, colours, a floor, light, a camera and the finish line. It has
/// the joints of [`scene_mjcf`] in the same order; it is drawn and never stepped.
pub(super) fn drawn_scene_mjcf(obstacles: &[Obstacle]) -> String {
    use panda::numbers;
    let arm = panda::drawn_arm_mjcf(TCP_FROM_HAND_M, Some(ROD));
    let [x_m, _, z_m] = TABLE_CENTER_M;
    let half_width_m = TABLE_HALF_SIZE_M[0];
    format!(
        r#"<mujoco model="d3il_avoid_drawn">
<compiler angle="radian" autolimits="true"/>
<visual><quality shadowsize="1024"/><headlight ambient="0.35 0.35 0.35" diffuse="0.35 0.35 0.35" specular="0.1 0.1 0.1"/></visual>
<asset>
<texture type="skybox" builtin="gradient" rgb1="0.93 0.95 0.97" rgb2="0.72 0.77 0.83" width="64" height="64"/>
</asset>
<default><geom rgba="0.9 0.9 0.92 1"/></default>
<worldbody>
<light pos="0.4 -0.5 2.5" dir="0 0.2 -1" diffuse="0.5 0.5 0.5"/>
<camera name="{CAMERA}" pos="1.75 0 1.15" xyaxes="0 1 0 -0.65 0 0.76" fovy="42"/>
<geom name="{TABLE_GEOM}" type="box" pos="{}" size="{}" rgba="0.62 0.66 0.7 1"/>
<geom type="box" pos="{x_m} {FINISH_LINE_Y_M} {}" size="{half_width_m} 0.006 0.001" rgba="0.2 0.65 0.3 1"/>
{}{}</worldbody>
<actuator>
{}</actuator>
</mujoco>
"#,
        numbers(&TABLE_CENTER_M),
        numbers(&TABLE_HALF_SIZE_M),
        z_m + 2.0 * TABLE_HALF_SIZE_M[2],
        obstacles_mjcf(obstacles).replace("/>", r#" rgba="0.8 0.25 0.2 1"/>"#),
        arm.bodies.replace(
            &format!(r#"<geom name="{}""#, panda::ROD_GEOM),
            &format!(r#"<geom rgba="0.15 0.4 0.8 1" name="{}""#, panda::ROD_GEOM)
        ),
        arm.actuators,
    )
}

/// The scene's MJCF text with these cylinders (specification of the simulation tasks, section 4).
///
/// The only pairs that can touch are rod–obstacle (a collision) and rod–table (none, but the rod rests on it below a
/// tool height of about 0.101 m). Arm and fingers are clear of the obstacles at the height of the task. The table's
/// contact is as stiff as in D3IL's published laboratory.
pub fn scene_mjcf(obstacles: &[Obstacle]) -> String {
    use panda::numbers;
    let arm = panda::arm_mjcf(TCP_FROM_HAND_M, Some(ROD));
    let obstacles = obstacles_mjcf(obstacles);
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
