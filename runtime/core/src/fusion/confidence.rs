//! Probability that a pose is good enough, from its covariance.

use nalgebra::{Matrix3, Matrix6};

/// Lower bound of the probability that the position is within `distance_m` and the rotation within `rotation_rad`, for a
/// Gaussian error with `covariance` (twist `[v; ω]`): every axis counts like the one with the largest variance.
pub(super) fn within_tolerances(covariance: &Matrix6<f64>, distance_m: f64, rotation_rad: f64) -> f64 {
    let position = covariance.fixed_view::<3, 3>(0, 0).into_owned();
    let rotation = covariance.fixed_view::<3, 3>(3, 3).into_owned();
    within(&position, distance_m) * within(&rotation, rotation_rad)
}

/// P(|e| < radius) for e ~ N(0, σ²I) in three dimensions, σ² the largest eigenvalue: erf(x/√2) − √(2/π) x exp(−x²/2).
fn within(covariance: &Matrix3<f64>, radius: f64) -> f64 {
    let variance = covariance.symmetric_eigenvalues().max();
    if variance <= 0.0 {
        return 1.0;
    }
    let x = radius / variance.sqrt();
    let density = (2.0 / std::f64::consts::PI).sqrt() * x * (-0.5 * x * x).exp();
    (libm::erf(x / std::f64::consts::SQRT_2) - density).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_is_the_maxwell_distribution_of_the_worst_axis() {
        // Quantiles of χ² with 3 degrees of freedom: 0.5 at 2.36597, 0.99 at 11.34487.
        for (squared, want) in [(2.36597f64, 0.5), (11.34487, 0.99)] {
            let mut covariance = Matrix6::identity() * 1e-12;
            covariance[(1, 1)] = 1e-6;
            let got = within_tolerances(&covariance, 1e-3 * squared.sqrt(), 1.0);
            assert!((got - want).abs() < 1e-4, "{got}");
        }
    }

    #[test]
    fn confidence_falls_as_either_covariance_grows() {
        let with = |p: f64, r: f64| {
            let mut covariance = Matrix6::identity() * p;
            covariance.fixed_view_mut::<3, 3>(3, 3).fill_diagonal(r);
            within_tolerances(&covariance, 0.005, 0.0873)
        };
        assert!(with(1e-7, 1e-5) > 0.999);
        assert!(with(1e-5, 1e-5) < with(1e-6, 1e-5) && with(1e-6, 1e-3) < with(1e-6, 1e-5));
        assert!(with(1.0, 1e-5) < 1e-6);
    }
}
