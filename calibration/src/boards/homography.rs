//! Homographies between a board's plane and a picture, by the normalised direct linear transform (Hartley and Zisserman,
//! algorithm 4.2).

use nalgebra::{Matrix3, SMatrix, Vector3};

/// H with `image ~ H · (x, y, 1)`, least squares over at least four pairs (plane, image); `None` when they do not fix one
/// (fewer than four, on a line, or not finite).
pub fn homography<'a>(pairs: impl Iterator<Item = ([f64; 2], [f64; 2])> + Clone + 'a) -> Option<Matrix3<f64>> {
    let count = pairs.clone().count();
    if count < 4 {
        return None;
    }
    let plane = normalisation(pairs.clone().map(|(p, _)| p), count)?;
    let image = normalisation(pairs.clone().map(|(_, q)| q), count)?;
    let mut normal = SMatrix::<f64, 9, 9>::zeros();
    for (p, q) in pairs {
        let p = plane * Vector3::new(p[0], p[1], 1.0);
        let q = image * Vector3::new(q[0], q[1], 1.0);
        let rows = [
            [p.x, p.y, 1.0, 0.0, 0.0, 0.0, -q.x * p.x, -q.x * p.y, -q.x],
            [0.0, 0.0, 0.0, p.x, p.y, 1.0, -q.y * p.x, -q.y * p.y, -q.y],
        ];
        for row in rows {
            for i in 0..9 {
                for j in 0..9 {
                    normal[(i, j)] += row[i] * row[j];
                }
            }
        }
    }
    if !normal.iter().all(|v| v.is_finite()) {
        return None;
    }
    let eigen = normal.symmetric_eigen();
    let mut order: [usize; 9] = std::array::from_fn(|i| i);
    order.sort_by(|a, b| eigen.eigenvalues[*a].total_cmp(&eigen.eigenvalues[*b]));
    // A second vanishing eigenvalue: more than one homography fits.
    if eigen.eigenvalues[order[1]] <= 1e-9 * eigen.eigenvalues[order[8]] {
        return None;
    }
    let h = eigen.eigenvectors.column(order[0]);
    let H = Matrix3::new(h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7], h[8]);
    let H = image.try_inverse()? * H * plane;
    H.iter().all(|v| v.is_finite()).then_some(H)
}

/// Image of a plane point; `None` at infinity.
pub fn apply(H: &Matrix3<f64>, plane: [f64; 2]) -> Option<[f64; 2]> {
    let q = H * Vector3::new(plane[0], plane[1], 1.0);
    let at = [q.x / q.z, q.y / q.z];
    (at[0].is_finite() && at[1].is_finite()).then_some(at)
}

/// Brings points to mean zero and mean distance √2.
fn normalisation(points: impl Iterator<Item = [f64; 2]> + Clone, count: usize) -> Option<Matrix3<f64>> {
    let n = count as f64;
    let (sx, sy) = points.clone().fold((0.0, 0.0), |(x, y), p| (x + p[0], y + p[1]));
    let (mx, my) = (sx / n, sy / n);
    let mean = points.map(|p| (p[0] - mx).hypot(p[1] - my)).sum::<f64>() / n;
    let scale = std::f64::consts::SQRT_2 / mean;
    (scale.is_finite() && scale > 0.0)
        .then(|| Matrix3::new(scale, 0.0, -scale * mx, 0.0, scale, -scale * my, 0.0, 0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_homography_of_exact_points_maps_them_and_points_on_a_line_have_none() {
        let truth = Matrix3::new(900.0, 30.0, 640.0, -20.0, 880.0, 350.0, 0.1, -0.2, 1.0);
        let points = [[0.0, 0.0], [0.2, 0.01], [0.19, 0.16], [-0.02, 0.14], [0.1, 0.07]];
        let pairs = points.map(|p| (p, apply(&truth, p).unwrap()));
        let H = homography(pairs.into_iter()).unwrap();
        for (p, q) in pairs {
            let at = apply(&H, p).unwrap();
            assert!((at[0] - q[0]).hypot(at[1] - q[1]) < 1e-6);
        }
        let line = [0.0, 0.1, 0.2, 0.3, 0.5].map(|t| ([t, 2.0 * t], apply(&truth, [t, 2.0 * t]).unwrap()));
        assert!(homography(line.into_iter()).is_none());
        assert!(homography(pairs[..3].iter().copied()).is_none());
        assert!(homography([([f64::NAN, 0.0], [0.0, 0.0]); 5].into_iter()).is_none());
    }
}
