//! Small symmetric systems of fixed size, solved without allocating.

use nalgebra::{Cholesky, Const, SMatrix, SVector};

/// Squared ratio of a Cholesky factor's diagonal below which a matrix counts as nearly singular.
const NEARLY_SINGULAR: f64 = 1e-10;
/// Singular values below this share of the largest are taken as zero by the pseudo-inverse (section 3.2).
const CUT_OFF: f64 = 1e-15;
/// Sweeps after which Jacobi's method has converged for any matrix of numbers.
const SWEEPS: usize = 40;

/// x = A⁺ b for a symmetric, positive semi-definite A; `None` where A holds something that is no number.
///
/// By Cholesky; where A is nearly singular by its eigenvalues, as the pseudo-inverse would.
pub(crate) fn solve_symmetric<const N: usize>(a: &SMatrix<f64, N, N>, b: &SVector<f64, N>) -> Option<SVector<f64, N>> {
    if let Some(factor) = Cholesky::<f64, Const<N>>::new(*a) {
        let diagonal: SVector<f64, N> = SVector::from_fn(|index, _| factor.l_dirty()[(index, index)]);
        let ratio = diagonal.min() / diagonal.max();
        if ratio * ratio > NEARLY_SINGULAR {
            return Some(factor.solve(b));
        }
    }
    if !a.iter().all(|value| value.is_finite()) {
        return None;
    }
    let (values, vectors) = eigen(*a);
    let largest = values.amax();
    let mut x = SVector::zeros();
    for (index, &value) in values.iter().enumerate() {
        if value.abs() > CUT_OFF * largest {
            let vector = vectors.column(index);
            x += vector * (vector.dot(b) / value);
        }
    }
    Some(x)
}

/// Eigenvalues and eigenvectors (columns) of a symmetric matrix, by cyclic Jacobi rotations.
fn eigen<const N: usize>(mut a: SMatrix<f64, N, N>) -> (SVector<f64, N>, SMatrix<f64, N, N>) {
    let mut vectors = SMatrix::identity();
    for _ in 0..SWEEPS {
        let mut rotated = false;
        for p in 0..N {
            for q in p + 1..N {
                if a[(p, q)].abs() <= f64::EPSILON * (a[(p, p)] * a[(q, q)]).abs().sqrt() * 1e-3 {
                    continue;
                }
                rotated = true;
                let theta = (a[(q, q)] - a[(p, p)]) / (2.0 * a[(p, q)]);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let cos = 1.0 / (t * t + 1.0).sqrt();
                let sin = t * cos;
                for k in 0..N {
                    let (first, second) = (a[(k, p)], a[(k, q)]);
                    a[(k, p)] = cos * first - sin * second;
                    a[(k, q)] = sin * first + cos * second;
                }
                for k in 0..N {
                    let (first, second) = (a[(p, k)], a[(q, k)]);
                    a[(p, k)] = cos * first - sin * second;
                    a[(q, k)] = sin * first + cos * second;
                    let (first, second) = (vectors[(k, p)], vectors[(k, q)]);
                    vectors[(k, p)] = cos * first - sin * second;
                    vectors[(k, q)] = sin * first + cos * second;
                }
            }
        }
        if !rotated {
            break;
        }
    }
    (SVector::from_fn(|index, _| a[(index, index)]), vectors)
}

#[cfg(test)]
mod tests {
    use nalgebra::{DMatrix, SMatrix, SVector};

    use super::*;

    fn random<const R: usize, const C: usize>(seed: u64) -> SMatrix<f64, R, C> {
        let mut noise = tenon_core::noise::SeededNoise::new(seed, 0);
        SMatrix::from_fn(|_, _| rand::Rng::random_range(noise.rng(), -1.0..1.0))
    }

    #[test]
    fn a_sound_matrix_is_solved_as_by_its_pseudo_inverse() {
        for seed in 0..50 {
            let half: SMatrix<f64, 6, 7> = random(seed);
            let a = half * half.transpose();
            let b: SVector<f64, 6> = random(seed + 1000);
            let dynamic = DMatrix::from_column_slice(6, 6, a.as_slice());
            let expected = dynamic.pseudo_inverse(1e-15 * a.norm()).unwrap() * b;
            let found = solve_symmetric(&a, &b).unwrap();
            assert!((found - &expected).norm() <= 1e-9 * expected.norm(), "{found} {expected}");
        }
    }

    #[test]
    fn what_a_singular_matrix_cannot_reach_is_left_alone() {
        for seed in 0..50 {
            // Rank 3 of 6.
            let half: SMatrix<f64, 6, 3> = random(seed);
            let a = half * half.transpose();
            let wanted: SVector<f64, 6> = a * random::<6, 1>(seed + 1000);
            let x = solve_symmetric(&a, &(a * wanted)).unwrap();
            // The answer reaches the goal, and among those that do it is the shortest: it lies in the range of A.
            assert!((a * x - a * wanted).norm() < 1e-6 * (a * wanted).norm(), "seed {seed}");
            assert!((x - wanted).norm() < 1e-4 * wanted.norm(), "seed {seed}: {x} {wanted}");
        }
    }

    #[test]
    fn no_number_gives_no_answer() {
        let mut a = SMatrix::<f64, 3, 3>::identity();
        a[(1, 1)] = f64::NAN;
        assert_eq!(solve_symmetric(&a, &SVector::zeros()), None);
    }
}
