//! Solving with a symmetric 6 × 6 matrix whose singular values are clipped.

use nalgebra::{Matrix6, Vector6};

/// Sweeps of the Jacobi iteration; six-by-six matrices need about six.
const MAX_SWEEPS: usize = 20;

/// x = A'⁻¹ b, where A' is the symmetric positive semi-definite `A` with its singular values clipped to `[low, high]`.
///
/// Two Cholesky factorisations do where nothing is clipped: A − low·I has one exactly if every eigenvalue is above
/// `low`, and the trace bounds the largest. Else the eigenvalues are computed. Both ways agree to rounding.
pub fn solve_clipped(A: &Matrix6<f64>, b: &Vector6<f64>, low: f64, high: f64) -> Vector6<f64> {
    if A.trace() <= high && is_positive_definite_above(A, low) {
        solve_positive_definite(A, b)
    } else {
        solve_by_eigenvalues(A, b, low, high)
    }
}

/// Whether A − shift·I has a Cholesky factor.
fn is_positive_definite_above(A: &Matrix6<f64>, shift: f64) -> bool {
    let mut L = Matrix6::zeros();
    for j in 0..6 {
        let mut pivot = A[(j, j)] - shift;
        for k in 0..j {
            pivot -= L[(j, k)] * L[(j, k)];
        }
        if pivot.is_nan() || pivot <= 0.0 {
            return false;
        }
        let inverse_root = 1.0 / pivot.sqrt();
        for i in j + 1..6 {
            let mut value = A[(i, j)];
            for k in 0..j {
                value -= L[(i, k)] * L[(j, k)];
            }
            L[(i, j)] = value * inverse_root;
        }
    }
    true
}

/// A⁻¹ b by Cholesky; `A` is known to be positive definite.
fn solve_positive_definite(A: &Matrix6<f64>, b: &Vector6<f64>) -> Vector6<f64> {
    let mut L = Matrix6::zeros();
    let mut inverse_diagonal = [0.0; 6];
    let mut x = *b;
    for j in 0..6 {
        let mut pivot = A[(j, j)];
        for k in 0..j {
            pivot -= L[(j, k)] * L[(j, k)];
        }
        inverse_diagonal[j] = 1.0 / pivot.sqrt();
        for i in j + 1..6 {
            let mut value = A[(i, j)];
            for k in 0..j {
                value -= L[(i, k)] * L[(j, k)];
            }
            L[(i, j)] = value * inverse_diagonal[j];
        }
        x[j] *= inverse_diagonal[j];
        for i in j + 1..6 {
            x[i] -= L[(i, j)] * x[j];
        }
    }
    for j in (0..6).rev() {
        for i in j + 1..6 {
            x[j] -= L[(i, j)] * x[i];
        }
        x[j] *= inverse_diagonal[j];
    }
    x
}

/// A'⁻¹ b through the eigenvalues of `A` (cyclic Jacobi rotations; Golub & Van Loan, section 8.5).
fn solve_by_eigenvalues(A: &Matrix6<f64>, b: &Vector6<f64>, low: f64, high: f64) -> Vector6<f64> {
    let mut D = *A;
    let mut V = Matrix6::identity();
    let scale = A.norm();
    for _ in 0..MAX_SWEEPS {
        let mut off_diagonal = 0.0;
        for p in 0..5 {
            for q in p + 1..6 {
                off_diagonal += D[(p, q)] * D[(p, q)];
            }
        }
        if off_diagonal.sqrt() <= 1e-15 * scale {
            break;
        }
        for p in 0..5 {
            for q in p + 1..6 {
                rotate(&mut D, &mut V, p, q);
            }
        }
    }
    let mut x = Vector6::zeros();
    for index in 0..6 {
        let v = V.column(index);
        // A positive semi-definite matrix has its eigenvalues as singular values; rounding may make one negative.
        x += v * (v.dot(b) / D[(index, index)].clamp(low, high));
    }
    x
}

/// One Jacobi rotation that zeroes D[p, q].
fn rotate(D: &mut Matrix6<f64>, V: &mut Matrix6<f64>, p: usize, q: usize) {
    let off = D[(p, q)];
    if off == 0.0 {
        return;
    }
    let theta = (D[(q, q)] - D[(p, p)]) / (2.0 * off);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let cos = 1.0 / (t * t + 1.0).sqrt();
    let sin = t * cos;
    for k in 0..6 {
        let (a, b) = (D[(k, p)], D[(k, q)]);
        D[(k, p)] = cos * a - sin * b;
        D[(k, q)] = sin * a + cos * b;
    }
    for k in 0..6 {
        let (a, b) = (D[(p, k)], D[(q, k)]);
        D[(p, k)] = cos * a - sin * b;
        D[(q, k)] = sin * a + cos * b;
    }
    for k in 0..6 {
        let (a, b) = (V[(k, p)], V[(k, q)]);
        V[(k, p)] = cos * a - sin * b;
        V[(k, q)] = sin * a + cos * b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Matrices with known eigenvectors: B Bᵀ of a fixed pseudo-random B, shifted to be more or less singular.
    fn matrix(seed: u64, smallest: f64) -> Matrix6<f64> {
        let mut state = seed;
        let B = Matrix6::from_fn(|_, _| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        });
        let eigen = (B * B.transpose()).symmetric_eigen();
        let mut values = eigen.eigenvalues.map(|value| value + 0.02);
        let index = values.imin();
        values[index] = smallest;
        eigen.eigenvectors * Matrix6::from_diagonal(&values) * eigen.eigenvectors.transpose()
    }

    fn reference(A: &Matrix6<f64>, b: &Vector6<f64>, low: f64, high: f64) -> Vector6<f64> {
        let svd = A.svd(true, true);
        let clipped = svd.singular_values.map(|value| value.clamp(low, high));
        let (u, v_t) = (svd.u.unwrap(), svd.v_t.unwrap());
        v_t.transpose() * Matrix6::from_diagonal(&clipped.map(|value| 1.0 / value)) * u.transpose() * b
    }

    #[test]
    fn solution_equals_that_of_a_clipped_singular_value_decomposition() {
        let b = Vector6::new(1.0, -2.0, 0.5, 0.1, -0.3, 0.7);
        for seed in 0..200 {
            for (smallest, high) in [(0.02, 100.0), (0.0101, 100.0), (0.003, 100.0), (1e-7, 100.0), (0.05, 0.3)] {
                let A = matrix(seed, smallest);
                let x = solve_clipped(&A, &b, 0.01, high);
                let expected = reference(&A, &b, 0.01, high);
                let error = (x - expected).norm() / expected.norm();
                assert!(error < 1e-9, "seed {seed}, smallest {smallest}: {error}");
            }
        }
    }

    #[test]
    fn both_ways_agree_where_nothing_is_clipped() {
        let b = Vector6::new(1.0, -2.0, 0.5, 0.1, -0.3, 0.7);
        for seed in 0..200 {
            let A = matrix(seed, 0.011);
            let difference = solve_positive_definite(&A, &b) - solve_by_eigenvalues(&A, &b, 0.01, 100.0);
            assert!(difference.norm() < 1e-9);
        }
    }

    #[test]
    fn nan_ends_in_nan_not_in_a_loop() {
        let mut A = Matrix6::identity();
        (A[(3, 2)], A[(2, 3)]) = (f64::NAN, f64::NAN);
        let x = solve_clipped(&A, &Vector6::repeat(1.0), 0.01, 100.0);
        assert!(x.iter().any(|value| value.is_nan()));
    }
}
