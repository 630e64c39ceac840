//! Increments → absolute targets, and the policy's view of the arm (spec robot_control.md §3.1, §8.3).

use crate::array::{Array, Data};

type Quaternion = [f64; 4];

/// The product a ⊗ b of quaternions x, y, z, w.
fn product(a: Quaternion, b: Quaternion) -> Quaternion {
    let ([ax, ay, az, aw], [bx, by, bz, bw]) = (a, b);
    [
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    ]
}

/// The first two rows of the rotation matrix.
fn two_rows(q: Quaternion) -> [f64; 6] {
    let norm = q.iter().map(|v| v * v).sum::<f64>().sqrt();
    let [x, y, z, w] = q.map(|v| v / norm);
    [
        1.0 - 2.0 * (y * y + z * z),
        2.0 * (x * y - z * w),
        2.0 * (x * z + y * w),
        2.0 * (x * y + z * w),
        1.0 - 2.0 * (x * x + z * z),
        2.0 * (y * z - x * w),
    ]
}

/// The rotation, of at most `limit` radians.
fn limited(q: Quaternion, limit: f64) -> Quaternion {
    let sign = if q[3] < 0.0 { -1.0 } else { 1.0 };
    let [x, y, z, w] = q.map(|v| v * sign);
    let sine = (x * x + y * y + z * z).sqrt();
    let angle = 2.0 * sine.atan2(w);
    if angle <= limit || sine == 0.0 {
        return q;
    }
    let scale = (limit / 2.0).sin() / sine;
    [x * scale, y * scale, z * scale, (limit / 2.0).cos()]
}

fn row<const N: usize>(array: &Array, t: usize) -> [f64; N] {
    std::array::from_fn(|i| array.value(t * array.width() + i))
}

/// Targets of 10 values: p + dp, q ⊗ dq as two rows, the sign of the gripper. `max_step_m` bounds each component of dp,
/// `max_turn_rad` the angle of dq, each in its own step.
pub fn absolute_actions(
    position: &Array,
    quaternion_xyzw: &Array,
    deltas: &Array,
    max_step_m: f64,
    max_turn_rad: f64,
) -> Result<Array, String> {
    let mut values = Vec::with_capacity(10 * deltas.frames());
    for t in 0..deltas.frames().min(position.frames()).min(quaternion_xyzw.frames()) {
        let d: [f64; 8] = row(deltas, t);
        let p: [f64; 3] = row(position, t);
        values.extend((0..3).map(|i| p[i] + d[i].clamp(-max_step_m, max_step_m)));
        let turn = limited([d[3], d[4], d[5], d[6]], max_turn_rad);
        values.extend(two_rows(product(row(quaternion_xyzw, t), turn)));
        values.push(if d[7] > 0.0 {
            1.0
        } else if d[7] < 0.0 {
            -1.0
        } else {
            0.0
        });
    }
    Array::rows_of(10, Data::F32(values.into_iter().map(|v| v as f32).collect()))
}

/// The policy's 16 values of the arm: position, two rows of the rotation, velocities, gripper width.
pub fn robot_state(
    position: &Array,
    quaternion_xyzw: &Array,
    linear: &Array,
    angular: &Array,
    width: &Array,
) -> Result<Array, String> {
    if linear.width() != 3 || angular.width() != 3 || width.width() != 1 {
        return Err("velocities of 3 values and a gripper width of one are needed".into());
    }
    let mut values: Vec<f32> = Vec::with_capacity(16 * position.frames());
    for t in 0..position.frames() {
        let (p, q): ([f64; 3], Quaternion) = (row(position, t), row(quaternion_xyzw, t));
        let (v, w, g): ([f64; 3], [f64; 3], [f64; 1]) = (row(linear, t), row(angular, t), row(width, t));
        values.extend(p.iter().chain(&two_rows(q)).chain(&v).chain(&w).chain(&g).map(|&x| x as f32));
    }
    Array::rows_of(16, Data::F32(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(width: usize, values: &[f64]) -> Array {
        Array::rows_of(width, Data::F64(values.to_vec())).unwrap()
    }

    #[test]
    fn a_quarter_turn_about_z_has_its_rows() {
        let half = std::f64::consts::FRAC_PI_4;
        let rows = two_rows([0.0, 0.0, half.sin(), half.cos()]);
        for (a, b) in rows.iter().zip([0.0, -1.0, 0.0, 1.0, 0.0, 0.0]) {
            assert!((a - b).abs() < 1e-12, "{rows:?}");
        }
    }

    /// The increment turns in the tool's own axes: the tool's x is the base's y after a quarter turn about z.
    #[test]
    fn increments_are_limited_and_turn_the_tool() {
        let half = std::f64::consts::FRAC_PI_4;
        let (p, q) = (array(3, &[0.5, 0.0, 0.2]), array(4, &[0.0, 0.0, half.sin(), half.cos()]));
        let turn = 0.1f64;
        let deltas = array(8, &[0.1, -0.01, 0.0, (turn / 2.0).sin(), 0.0, 0.0, (turn / 2.0).cos(), 0.3]);
        let a = absolute_actions(&p, &q, &deltas, 0.025, 0.35).unwrap().to_f32();
        assert!((a[0] - 0.525).abs() < 1e-6 && (a[1] + 0.01).abs() < 1e-6 && a[9] == 1.0, "{a:?}");
        // R = Rz(90°)·Rx(0.1): first row (0, −cos, sin), second row (1, 0, 0).
        let rows = [0.0, -turn.cos(), turn.sin(), 1.0, 0.0, 0.0];
        assert!(a[3..9].iter().zip(rows).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6), "{a:?}");
        let large = array(8, &[0.0, 0.0, 0.0, 0.5f64.sin(), 0.0, 0.0, 0.5f64.cos(), -1.0]);
        let a = absolute_actions(&p, &q, &large, 0.025, 0.35).unwrap().to_f32();
        assert!((f64::from(a[5]) - 0.35f64.sin()).abs() < 1e-6 && a[9] == -1.0, "{a:?}");
    }
}
