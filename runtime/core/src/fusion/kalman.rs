//! Error-state Kalman filter on SE(3): prediction, innovation, correction. When to do which is [`super::part_filter`]'s.
//!
//! State: pose T = (p, R) and twist `[v; ω]` in april axes. Error: [δp; δθ; δv; δω] with true p = p + δp, R = exp(δθ) R,
//! so a measurement's covariance (twist about the part's origin) needs no conversion. Of errors that measurements share
//! ([`super::systematic`]) the state carries what its own error has in common with them.

use nalgebra::{Cholesky, Const, Matrix3, Matrix6, SMatrix, Translation3, UnitQuaternion, Vector3, Vector6};

use super::config::MotionConfig;
use super::minima::Minimum;
use super::systematic::{ByUnknowns, SystematicError, WithUnknowns};
use crate::geometry::{Pose, exp_se3, pose_error, skew};

pub(super) type Covariance = SMatrix<f64, 12, 12>;

/// How the state changes by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ProcessNoise {
    /// Variances gathered in a second: m²/s, rad²/s.
    RandomWalk { position: f64, rotation: f64 },
    /// Spectral densities of the accelerations (m²/s³, rad²/s³) on a twist that fades with `memory_s`.
    FadingVelocity { linear: f64, angular: f64, memory_s: f64 },
}

impl ProcessNoise {
    /// For a part at rest and for one that moves.
    pub fn of(config: &MotionConfig) -> (Self, Self) {
        match *config {
            MotionConfig::RandomWalk(c) => (
                Self::RandomWalk { position: c.rest_m_per_sqrt_s.powi(2), rotation: c.rest_rad_per_sqrt_s.powi(2) },
                Self::RandomWalk { position: c.moving_m_per_sqrt_s.powi(2), rotation: c.moving_rad_per_sqrt_s.powi(2) },
            ),
            MotionConfig::ConstantVelocity(c) => (
                Self::FadingVelocity {
                    linear: c.rest_m_s2_per_sqrt_hz.powi(2),
                    angular: c.rest_rad_s2_per_sqrt_hz.powi(2),
                    memory_s: c.velocity_memory_s,
                },
                Self::FadingVelocity {
                    linear: c.moving_m_s2_per_sqrt_hz.powi(2),
                    angular: c.moving_rad_s2_per_sqrt_hz.powi(2),
                    memory_s: c.velocity_memory_s,
                },
            ),
        }
    }

    /// Variances of the twist that this noise keeps up: σ² = q τ / 2; none without a twist.
    fn twist_variances(&self) -> [f64; 2] {
        match *self {
            Self::RandomWalk { .. } => [0.0, 0.0],
            Self::FadingVelocity { linear, angular, memory_s } => [0.5 * linear * memory_s, 0.5 * angular * memory_s],
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct KalmanState {
    pub T: Pose,
    pub twist: Vector6<f64>,
    pub P: Covariance,
    /// X = E[δ uᵀ]; none where no measurement has told of systematic errors.
    X: Option<WithUnknowns>,
}

/// A measurement seen from a state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Innovation {
    nu: Vector6<f64>,
    S: Cholesky<f64, Const<6>>,
    /// L⁻¹ν with S = L Lᵀ: six values of variance 1 if the covariances are right.
    whitened: Vector6<f64>,
    persistent: Option<Persistent>,
}

/// What of an innovation is new, and what it has in common with those before and after it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Persistent {
    /// L⁻¹ν, where L Lᵀ is the covariance of the innovation if the unknowns u of the systematic errors were given.
    pub whitened: Vector6<f64>,
    /// L⁻¹(H X + B): how its mean shifts with u, which stays the same.
    pub by_unknowns: ByUnknowns,
}

impl Innovation {
    /// νᵀ S⁻¹ ν.
    pub fn squared_distance(&self) -> f64 {
        self.whitened.norm_squared()
    }

    /// −2 log of the likelihood, up to a constant: what two minima with covariances of their own are compared by.
    pub fn minus_two_log_likelihood(&self) -> f64 {
        let L = self.S.l_dirty();
        self.squared_distance() + 2.0 * (0..6).map(|i| L[(i, i)].ln()).sum::<f64>()
    }

    /// For sums over innovations. Without systematic errors innovations have nothing in common.
    pub fn persistent(&self) -> (Vector6<f64>, Option<&ByUnknowns>) {
        match &self.persistent {
            Some(persistent) => (persistent.whitened, Some(&persistent.by_unknowns)),
            None => (self.whitened, None),
        }
    }

    pub fn distance_m(&self) -> f64 {
        self.nu.fixed_rows::<3>(0).norm()
    }

    pub fn angle_rad(&self) -> f64 {
        self.nu.fixed_rows::<3>(3).norm()
    }
}

/// [`Innovation`] of the pose `z` from the pose `T`, where their difference has covariance `S`.
pub(super) fn innovation(T: &Pose, z: &Pose, S: &Matrix6<f64>) -> Option<Innovation> {
    let nu = pose_error(T, z);
    let S = Cholesky::new(*S)?;
    let whitened = S.l_dirty().solve_lower_triangular(&nu)?;
    whitened.iter().all(|v| v.is_finite()).then_some(Innovation { nu, S, whitened, persistent: None })
}

impl KalmanState {
    /// A part known to be at `T` with `covariance`, and with the twist that `noise` keeps up.
    pub fn new(T: Pose, covariance: &Matrix6<f64>, noise: &ProcessNoise) -> Self {
        let mut P = Covariance::zeros();
        P.fixed_view_mut::<6, 6>(0, 0).copy_from(covariance);
        let mut state = Self { T, twist: Vector6::zeros(), P, X: None };
        state.raise_twist(noise);
        state
    }

    /// A part of which there is one measurement: δ = −(B u + w).
    pub fn from_measurement(z: &Minimum, noise: &ProcessNoise) -> Self {
        let Some(systematic) = &z.systematic else { return Self::new(z.T, &z.R, noise) };
        let mut state = Self::new(z.T, &(z.R + systematic.covariance()), noise);
        let mut X = WithUnknowns::zeros();
        X.fixed_rows_mut::<6>(0).copy_from(&-systematic.matrix());
        state.X = Some(X);
        state
    }

    pub fn pose_covariance(&self) -> Matrix6<f64> {
        self.P.fixed_view::<6, 6>(0, 0).into_owned()
    }

    fn raise_twist(&mut self, noise: &ProcessNoise) {
        let [linear, angular] = noise.twist_variances();
        for i in 0..3 {
            self.P[(6 + i, 6 + i)] = self.P[(6 + i, 6 + i)].max(linear);
            self.P[(9 + i, 9 + i)] = self.P[(9 + i, 9 + i)].max(angular);
        }
    }

    /// The state of a part that may have begun to move `dt_s` ago, where the filter took it to be at rest: `moving`
    /// is what it gathers.
    pub fn stirred(&self, moving: &ProcessNoise, dt_s: f64) -> Self {
        let mut state = *self;
        state.raise_twist(moving);
        // The pose has changed since by what a twist of that size makes of it; the twist itself stays as it is now.
        let (linear, angular) = match *moving {
            ProcessNoise::RandomWalk { position, rotation } => (position * dt_s, rotation * dt_s),
            ProcessNoise::FadingVelocity { .. } => {
                let [v, w] = moving.twist_variances();
                (v * dt_s * dt_s, w * dt_s * dt_s)
            }
        };
        for i in 0..3 {
            state.P[(i, i)] += linear;
            state.P[(3 + i, 3 + i)] += angular;
        }
        state
    }

    /// The state `dt_s` ≥ 0 later.
    pub fn predicted(&self, dt_s: f64, noise: &ProcessNoise) -> Self {
        match *noise {
            ProcessNoise::RandomWalk { position, rotation } => {
                let mut state = *self;
                for i in 0..3 {
                    state.P[(i, i)] += position * dt_s;
                    state.P[(3 + i, 3 + i)] += rotation * dt_s;
                }
                state
            }
            ProcessNoise::FadingVelocity { linear, angular, memory_s } => {
                self.predicted_with_twist(dt_s, linear, angular, memory_s)
            }
        }
    }

    /// v' = e^{−a} v and p' = p + s v with a = Δt/τ, s = τ(1 − e^{−a}); the rotation likewise, exp(s ω) R.
    fn predicted_with_twist(&self, dt_s: f64, linear: f64, angular: f64, memory_s: f64) -> Self {
        let a = dt_s / memory_s;
        let (fade, s) = ((-a).exp(), -memory_s * (-a).exp_m1());
        let turn = self.twist.fixed_rows::<3>(3) * s;
        let turned = UnitQuaternion::from_scaled_axis(turn);
        let mut F = Covariance::identity();
        F.fixed_view_mut::<3, 3>(0, 6).fill_diagonal(s);
        F.fixed_view_mut::<3, 3>(3, 3).copy_from(turned.to_rotation_matrix().matrix());
        F.fixed_view_mut::<3, 3>(3, 9).copy_from(&(left_jacobian(&turn) * s));
        F.fixed_view_mut::<6, 6>(6, 6).fill_diagonal(fade);
        let mut P = F * self.P * F.transpose();
        let X = self.X.map(|X| F * X);
        let [pose, cross, twist] = integrated_noise(a, memory_s);
        for i in 0..6 {
            let q = if i < 3 { linear } else { angular };
            P[(i, i)] += q * pose;
            P[(i, i + 6)] += q * cross;
            P[(i + 6, i)] += q * cross;
            P[(i + 6, i + 6)] += q * twist;
        }
        let p = self.T.translation.vector + self.twist.fixed_rows::<3>(0) * s;
        Self { T: rigid(p, turned * self.T.rotation), twist: self.twist * fade, P, X }
    }

    /// X Bᵀ: what the state's error has in common with the systematic error of a measurement.
    fn in_common(&self, systematic: Option<&SystematicError>) -> Option<SMatrix<f64, 12, 6>> {
        Some(self.X? * systematic?.matrix().transpose())
    }

    /// ν = δ + B u + w, so S = H P Hᵀ + R + B Bᵀ + H X Bᵀ + B Xᵀ Hᵀ with H = [I 0].
    pub fn innovation(&self, z: &Minimum) -> Option<Innovation> {
        let mut S = self.pose_covariance() + z.R;
        if let Some(systematic) = &z.systematic {
            S += systematic.covariance();
        }
        if let Some(C) = self.in_common(z.systematic.as_ref()) {
            let C = C.fixed_rows::<6>(0);
            S += C + C.transpose();
        }
        let mut innovation = innovation(&self.T, &z.T, &S)?;
        innovation.persistent = self.persistent(z, &S, &innovation.nu);
        Some(innovation)
    }

    /// E[ν | u] = (H X + B) u, and the covariance of what is left is S − (H X + B)(H X + B)ᵀ.
    fn persistent(&self, z: &Minimum, S: &Matrix6<f64>, nu: &Vector6<f64>) -> Option<Persistent> {
        let mut M = match (&self.X, &z.systematic) {
            (None, None) => return None,
            (Some(X), _) => X.fixed_rows::<6>(0).into_owned(),
            (None, Some(_)) => ByUnknowns::zeros(),
        };
        if let Some(systematic) = &z.systematic {
            M += systematic.matrix();
        }
        let L = Cholesky::new(S - M * M.transpose())?.unpack();
        let (whitened, by_unknowns) = (L.solve_lower_triangular(nu)?, L.solve_lower_triangular(&M)?);
        Some(Persistent { whitened, by_unknowns })
    }

    /// The state after the measurement `z`, seen from it as `innovation`; covariance in Joseph's form.
    pub fn corrected(&self, z: &Minimum, innovation: &Innovation) -> Self {
        // K = (P Hᵀ + X Bᵀ) S⁻¹.
        let in_common = self.in_common(z.systematic.as_ref());
        let mut PH = self.P.fixed_columns::<6>(0).into_owned();
        if let Some(C) = &in_common {
            PH += C;
        }
        let K = innovation.S.solve(&PH.transpose()).transpose();
        let delta = K * innovation.nu;
        let mut A = Covariance::identity();
        for i in 0..6 {
            let column = A.column(i) - K.column(i);
            A.set_column(i, &column);
        }
        // δ' = A δ − K (B u + w).
        let mut P = A * self.P * A.transpose() + K * z.R * K.transpose();
        let mut X = self.X.map(|X| A * X);
        if let Some(systematic) = &z.systematic {
            P += K * systematic.covariance() * K.transpose();
            let KB = K * systematic.matrix();
            X = Some(X.map_or_else(|| -KB, |X| X - KB));
        }
        if let Some(C) = &in_common {
            let cross = A * C * K.transpose();
            P -= cross + cross.transpose();
        }
        // The rotation's error is now counted from the corrected rotation: exp(e) exp(−δ) ≈ exp(J(δ)(e − δ)).
        let turn = delta.fixed_rows::<3>(3).into_owned();
        let J = left_jacobian(&turn);
        let rows = J * P.fixed_rows::<3>(3);
        P.fixed_rows_mut::<3>(3).copy_from(&rows);
        let columns = P.fixed_columns::<3>(3) * J.transpose();
        P.fixed_columns_mut::<3>(3).copy_from(&columns);
        P = (P + P.transpose()) * 0.5;
        if let Some(X) = &mut X {
            let rows = J * X.fixed_rows::<3>(3);
            X.fixed_rows_mut::<3>(3).copy_from(&rows);
        }
        let p = self.T.translation.vector + delta.fixed_rows::<3>(0);
        let rotation = UnitQuaternion::from_scaled_axis(turn) * self.T.rotation;
        Self { T: rigid(p, rotation), twist: self.twist + delta.fixed_rows::<6>(6), P, X }
    }
}

/// Products of unit quaternions drift away from length one.
fn rigid(p: Vector3<f64>, rotation: UnitQuaternion<f64>) -> Pose {
    Pose::from_parts(Translation3::from(p), UnitQuaternion::new_normalize(rotation.into_inner()))
}

/// J(θ) with exp(θ + ε) ≈ exp(J(θ) ε) exp(θ): the matrix V of [`exp_se3`], whose columns are translations.
fn left_jacobian(theta: &Vector3<f64>) -> Matrix3<f64> {
    if theta.norm_squared() < 1e-12 {
        return Matrix3::identity() + skew(theta) * 0.5;
    }
    let column = |i: usize| {
        let mut twist = Vector6::zeros();
        twist[i] = 1.0;
        twist.fixed_rows_mut::<3>(3).copy_from(theta);
        exp_se3(&twist).translation.vector
    };
    Matrix3::from_columns(&[column(0), column(1), column(2)])
}

/// Variances of pose, both, twist that unit white acceleration leaves after Δt = a τ on a twist that fades with τ.
fn integrated_noise(a: f64, tau: f64) -> [f64; 3] {
    if a < 1e-3 {
        // The closed form cancels; to first order in a this is the plain double integrator.
        let dt = a * tau;
        return [dt.powi(3) / 3.0 * (1.0 - 0.75 * a), dt * dt / 2.0 * (1.0 - a), dt * (1.0 - a)];
    }
    let e = (-a).exp();
    [0.5 * tau.powi(3) * (2.0 * a - 3.0 + 4.0 * e - e * e), 0.5 * (tau * (1.0 - e)).powi(2), 0.5 * tau * (1.0 - e * e)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fusion::config::{ConstantVelocityConfig, RandomWalkConfig};

    fn state() -> KalmanState {
        let T = exp_se3(&Vector6::new(0.1, 0.2, -0.1, 0.7, -0.4, 1.2));
        let R = Matrix6::from_diagonal(&Vector6::new(1e-6, 2e-6, 4e-6, 1e-4, 3e-4, 2e-4));
        let (_, moving) = ProcessNoise::of(&MotionConfig::ConstantVelocity(ConstantVelocityConfig::default()));
        let mut state = KalmanState::new(T, &R, &moving);
        state.twist = Vector6::new(0.1, -0.05, 0.02, 0.5, 1.0, -0.3);
        state
    }

    #[test]
    fn two_half_predictions_are_one_whole() {
        let (_, moving) = ProcessNoise::of(&MotionConfig::ConstantVelocity(ConstantVelocityConfig::default()));
        let whole = state().predicted(0.1, &moving);
        let halves = state().predicted(0.05, &moving).predicted(0.05, &moving);
        assert!(pose_error(&whole.T, &halves.T).norm() < 1e-12);
        assert!((whole.twist - halves.twist).norm() < 1e-12);
        // Not exactly alike: the noise of the rotation is integrated as if its axis stood still within a step.
        assert!(
            (whole.P - halves.P).norm() < 2e-2 * whole.P.norm(),
            "{}",
            (whole.P - halves.P).norm() / whole.P.norm()
        );
        let (rest, _) = ProcessNoise::of(&MotionConfig::RandomWalk(RandomWalkConfig::default()));
        let once = state().predicted(0.1, &rest).P;
        assert!((once - state().predicted(0.03, &rest).predicted(0.07, &rest).P).norm() < 1e-15);
    }

    #[test]
    fn the_noise_of_a_fading_twist_agrees_with_a_sum_over_small_steps() {
        for (dt, tau) in [(0.1, 0.5), (0.5, 0.2), (1e-4, 0.5)] {
            let steps = 20_000;
            let h = dt / f64::from(steps);
            let (mut pose, mut cross, mut twist) = (0.0, 0.0, 0.0);
            for k in 0..steps {
                let left = dt - (f64::from(k) + 0.5) * h;
                let (s, f) = (tau * (1.0 - (-left / tau).exp()), (-left / tau).exp());
                (pose, cross, twist) = (pose + s * s * h, cross + s * f * h, twist + f * f * h);
            }
            for (got, want) in integrated_noise(dt / tau, tau).into_iter().zip([pose, cross, twist]) {
                assert!((got - want).abs() < 1e-5 * want, "dt {dt}, τ {tau}: {got} {want}");
            }
        }
    }

    #[test]
    fn the_jacobians_of_the_prediction_agree_with_differences() {
        let noise = ProcessNoise::FadingVelocity { linear: 0.0, angular: 0.0, memory_s: 0.5 };
        let (mut base, dt) = (state(), 0.2);
        base.P = Covariance::identity();
        // With P = I the columns of F are found again in P' = F Fᵀ.
        let h = 1e-6;
        let shifted = |i: usize, h: f64| {
            let mut s = base;
            let mut e = SMatrix::<f64, 12, 1>::zeros();
            e[i] = h;
            let p = s.T.translation.vector + e.fixed_rows::<3>(0);
            s.T = rigid(p, UnitQuaternion::from_scaled_axis(e.fixed_rows::<3>(3).into_owned()) * s.T.rotation);
            s.twist += e.fixed_rows::<6>(6);
            s.predicted(dt, &noise)
        };
        let mut F = Covariance::zeros();
        for i in 0..12 {
            let (lo, hi) = (shifted(i, -h), shifted(i, h));
            F.fixed_view_mut::<6, 1>(0, i).copy_from(&(pose_error(&lo.T, &hi.T) / (2.0 * h)));
            F.fixed_view_mut::<6, 1>(6, i).copy_from(&((hi.twist - lo.twist) / (2.0 * h)));
        }
        assert!((F * F.transpose() - base.predicted(dt, &noise).P).norm() < 1e-6);
    }

    #[test]
    fn a_correction_goes_to_the_weighted_mean() {
        let base = state();
        let mut z = Minimum { T: base.T, R: base.pose_covariance() * 3.0, systematic: None, is_other: false };
        z.T.translation.vector += Vector3::new(0.004, 0.0, 0.0);
        let mut alone = base;
        // Without a link to the twist the gain is P/(P + 3P) = 1/4.
        alone.P.fixed_view_mut::<6, 6>(6, 6).fill(0.0);
        let after = alone.corrected(&z, &alone.innovation(&z).unwrap());
        assert!((after.T.translation.x - base.T.translation.x - 0.001).abs() < 1e-12);
        assert!((after.pose_covariance() - base.pose_covariance() * 0.75).norm() < 1e-12);
    }

    #[test]
    fn a_covariance_that_is_not_positive_definite_has_no_innovation() {
        let base = state();
        let with = |R| Minimum { T: base.T, R, systematic: None, is_other: false };
        assert!(base.innovation(&with(-base.pose_covariance() * 2.0)).is_none());
        assert!(base.innovation(&with(Matrix6::from_element(f64::NAN))).is_none());
    }
}
