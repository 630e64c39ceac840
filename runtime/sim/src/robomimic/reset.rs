//! What the starts of all tasks are made of (section 3.3).

use crate::mujoco::Simulation;

/// Where things go that a task does not use, metres.
pub(super) const PARKED_M: [f64; 3] = [10.0; 3];

/// Rotation by an angle about z, wxyz.
pub(super) fn yaw_wxyz(angle_rad: f64) -> [f64; 4] {
    let (sin, cos) = (0.5 * angle_rad).sin_cos();
    [cos, 0.0, 0.0, sin]
}

/// Puts the body of a free joint somewhere in the world; `joint` is where its position begins.
pub(super) fn put_free_body(simulation: &mut Simulation, joint: usize, position_m: [f64; 3], quat_wxyz: [f64; 4]) {
    let qpos = &mut simulation.qpos_mut()[joint..joint + 7];
    qpos[..3].copy_from_slice(&position_m);
    qpos[3..].copy_from_slice(&quat_wxyz);
}
