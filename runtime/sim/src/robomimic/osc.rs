//! Operational-space control of a grip site's pose, OSC_POSE (section 3.2).
//!
//! Once in a control step the goal is set from the present pose; in each physics step torques make for it as a critically
//! damped spring in the task's space would, translation and rotation each with its own inertia, and a weaker spring
//! draws the arm to its start within what the task leaves free.

use nalgebra::{Cholesky, Matrix3, SMatrix, SVector, Vector3};

use super::linear::solve_symmetric;
use crate::error::SimError;
use crate::saved_state::{StateReader, StateWriter};

/// Joints of an arm.
pub(crate) const JOINTS: usize = 7;

/// Stiffness of all six axes, 1/s².
const STIFFNESS: f64 = 150.0;
/// Stiffness towards the start within the null space, 1/s².
const REST_STIFFNESS: f64 = 10.0;
/// An action of 1 means so many metres.
const TRANSLATION_M: f64 = 0.05;
/// An action of 1 means so many radians.
const ROTATION_RAD: f64 = 0.5;

/// What the controller needs to know of an arm, world frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ArmState {
    pub positions_rad: SVector<f64, JOINTS>,
    pub velocities_rad_s: SVector<f64, JOINTS>,
    /// Torques of gravity and of the motion itself.
    pub bias_nm: SVector<f64, JOINTS>,
    pub inertia: SMatrix<f64, JOINTS, JOINTS>,
    /// Of the grip site: linear rows, then angular ones.
    pub jacobian: SMatrix<f64, 6, JOINTS>,
    pub grip_position_m: Vector3<f64>,
    pub grip_rotation: Matrix3<f64>,
}

/// The controller of one arm.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OscPose {
    goal_position_m: Vector3<f64>,
    goal_rotation: Matrix3<f64>,
    /// Joint angles of the start, q₀.
    start_rad: SVector<f64, JOINTS>,
}

impl OscPose {
    /// A controller that holds the pose that the arm has now.
    pub fn new(state: &ArmState) -> Self {
        Self {
            goal_position_m: state.grip_position_m,
            goal_rotation: state.grip_rotation,
            start_rad: state.positions_rad,
        }
    }

    /// Sets the goal from the present pose: p + 0.05·a, and Rot(0.5·a)·R. Without any rotation in the action the
    /// rotation of the goal before stays, so a held orientation does not creep.
    ///
    /// `action`: translation 3, rotation 3, in ±1 (clipped), world axes.
    pub fn set_goal(&mut self, action: &[f64], state: &ArmState) {
        let scaled = |from: usize, unit: f64| Vector3::from_fn(|axis, _| unit * action[from + axis].clamp(-1.0, 1.0));
        self.goal_position_m = state.grip_position_m + scaled(0, TRANSLATION_M);
        let rotation = scaled(3, ROTATION_RAD);
        if rotation != Vector3::zeros() {
            self.goal_rotation = rotation_of_reference(&rotation) * state.grip_rotation;
        }
    }

    /// Position and row-major rotation of the goal.
    pub fn goal(&self) -> ([f64; 3], [f64; 9]) {
        (self.goal_position_m.into(), std::array::from_fn(|entry| self.goal_rotation[(entry / 3, entry % 3)]))
    }

    /// Torques for one physics step, not limited yet, Nm; `None` where the state holds something that is no number.
    ///
    /// τ = Jᵀ [Λₚ F; Λ_R T] + b + Nᵀ M (10 (q₀ − q) − 2√10 q̇). The inverses stay factors, and with
    /// Nᵀ = I − Jᵀ Λ J M⁻¹ the last term is M x − Jᵀ Λ J x.
    pub fn torques(&self, state: &ArmState) -> Option<SVector<f64, JOINTS>> {
        let J = &state.jacobian;
        let twist = J * state.velocities_rad_s;
        let rotation_error: Vector3<f64> =
            (0..3).map(|k| state.grip_rotation.column(k).cross(&self.goal_rotation.column(k))).sum::<Vector3<f64>>()
                * 0.5;
        let damping = 2.0 * STIFFNESS.sqrt();
        let force = STIFFNESS * (self.goal_position_m - state.grip_position_m) - damping * twist.fixed_rows::<3>(0);
        let moment = STIFFNESS * rotation_error - damping * twist.fixed_rows::<3>(3);

        let inertia = Cholesky::new(state.inertia)?;
        let mobility = J * inertia.solve(&J.transpose());
        let linear = solve_symmetric(&mobility.fixed_view::<3, 3>(0, 0).into_owned(), &force)?;
        let angular = solve_symmetric(&mobility.fixed_view::<3, 3>(3, 3).into_owned(), &moment)?;

        let rest = REST_STIFFNESS * (self.start_rad - state.positions_rad)
            - 2.0 * REST_STIFFNESS.sqrt() * state.velocities_rad_s;
        let held = solve_symmetric(&mobility, &(J * rest))?;
        let mut wrench = -held;
        let mut rows = wrench.fixed_rows_mut::<3>(0);
        rows += linear;
        let mut rows = wrench.fixed_rows_mut::<3>(3);
        rows += angular;
        Some(J.transpose() * wrench + state.bias_nm + state.inertia * rest)
    }

    /// Number of values of a saved controller.
    const STATE_LEN: usize = 3 + 9 + JOINTS;

    /// Appends goal and start.
    pub fn save(&self, writer: &mut StateWriter) {
        let (position, rotation) = self.goal();
        writer.f64s(&position);
        writer.f64s(&rotation);
        writer.f64s(self.start_rad.as_slice());
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`SimError::SavedState`] where too few bytes are left.
    pub fn restore(reader: &mut StateReader) -> Result<Self, SimError> {
        let mut values = [0.0; Self::STATE_LEN];
        reader.f64s(&mut values)?;
        Ok(Self {
            goal_position_m: Vector3::from_column_slice(&values[..3]),
            goal_rotation: Matrix3::from_row_slice(&values[3..12]),
            start_rad: SVector::from_column_slice(&values[12..]),
        })
    }
}

/// The rotation by a vector (axis times angle) as the reference computes it: by a quaternion in single precision, whose
/// products, too, are single where they stand off the diagonal.
fn rotation_of_reference(vector: &Vector3<f64>) -> Matrix3<f64> {
    let angle = vector.norm();
    if angle == 0.0 {
        return Matrix3::identity();
    }
    let (sin, cos) = (0.5 * angle).sin_cos();
    let axis = vector / angle;
    let mut q = [cos, axis.x * sin, axis.y * sin, axis.z * sin].map(|value| value as f32);
    // Single products, summed in double and rounded: so does its library of linear algebra.
    let norm = q.iter().map(|value| f64::from(value * value)).sum::<f64>() as f32;
    let scale = (2.0 / f64::from(norm)).sqrt();
    q = q.map(|value| (f64::from(value) * scale) as f32);
    let product = |i: usize, j: usize| q[i] * q[j];
    let diagonal = |i: usize, j: usize| 1.0 - f64::from(product(i, i)) - f64::from(product(j, j));
    let sum = |(i, j): (usize, usize), k: usize| f64::from(product(i, j) + product(k, 0));
    let difference = |(i, j): (usize, usize), k: usize| f64::from(product(i, j) - product(k, 0));
    Matrix3::new(
        diagonal(2, 3),
        difference((1, 2), 3),
        sum((1, 3), 2),
        sum((1, 2), 3),
        diagonal(1, 3),
        difference((2, 3), 1),
        difference((1, 3), 2),
        sum((2, 3), 1),
        diagonal(1, 2),
    )
}

#[cfg(test)]
mod tests {
    use nalgebra::Rotation3;

    use super::*;

    #[test]
    fn the_goals_rotation_is_a_rotation_to_single_precision() {
        for vector in [Vector3::new(0.5, -0.25, 0.1), Vector3::new(0.0, 0.0, 1e-6), Vector3::new(-0.5, 0.5, 0.5)] {
            let exact = Rotation3::from_scaled_axis(vector);
            assert!((rotation_of_reference(&vector) - exact.matrix()).amax() < 3e-7);
        }
    }

    /// An arm whose seven joints move the six axes of the task, and one direction that they leave free.
    fn state() -> ArmState {
        let mut noise = tenon_core::noise::SeededNoise::new(3, 0);
        let mut draw = || rand::Rng::random_range(noise.rng(), -1.0..1.0);
        let half = SMatrix::<f64, JOINTS, JOINTS>::from_fn(|_, _| draw());
        ArmState {
            positions_rad: SVector::from_fn(|_, _| draw()),
            velocities_rad_s: SVector::zeros(),
            bias_nm: SVector::from_fn(|_, _| draw()),
            inertia: half * half.transpose() + SMatrix::identity(),
            jacobian: SMatrix::from_fn(|_, _| draw()),
            grip_position_m: Vector3::new(0.1, 0.2, 1.0),
            grip_rotation: *Rotation3::from_scaled_axis(Vector3::new(0.3, -1.0, 0.2)).matrix(),
        }
    }

    #[test]
    fn at_rest_on_the_goal_the_torques_are_the_bias() {
        let state = state();
        let torques = OscPose::new(&state).torques(&state).unwrap();
        assert!((torques - state.bias_nm).norm() < 1e-12);
    }

    /// Of the dynamics M q̈ = τ − b: where the goal is a translation alone, the task accelerates as the decoupled law says
    /// but for what translation and rotation share, and the pull to the start moves the task not at all.
    #[test]
    fn the_pull_to_the_start_does_not_move_the_task() {
        let state = state();
        let mut controller = OscPose::new(&state);
        controller.start_rad += SVector::from_fn(|joint, _| 0.1 * joint as f64);
        let torques = controller.torques(&state).unwrap() - state.bias_nm;
        let acceleration = state.jacobian * state.inertia.cholesky().unwrap().solve(&torques);
        assert!(torques.norm() > 0.01);
        assert!(acceleration.norm() < 1e-9, "{acceleration}");
    }

    #[test]
    fn a_goal_without_rotation_keeps_the_one_before() {
        let mut state = state();
        let mut controller = OscPose::new(&state);
        controller.set_goal(&[2.0, 0.0, -1.0, 0.0, 0.0, 0.1, 0.0], &state);
        let (position, rotation) = controller.goal();
        assert!((position[0] - 0.15).abs() < 1e-12 && (position[2] - 0.95).abs() < 1e-12, "{position:?}");
        state.grip_rotation = Matrix3::identity();
        controller.set_goal(&[0.0; 7], &state);
        assert_eq!(controller.goal().1, rotation);
    }
}
