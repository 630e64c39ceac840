//! All cameras, both bodies and the tags' true sizes refined together on pixels (Levenberg–Marquardt, Huber's loss of each
//! tag), with the covariance of the result.

use nalgebra::{DMatrix, DVector, SMatrix};
use tenon_vision::Camera;

use super::problem::{Body, Layout, TagSighting, Unknowns};

/// Huber's threshold on a tag's distance in units of its standard deviation: 99 % of tags without error lie below (χ² with
/// 8 degrees of freedom).
const HUBER: f64 = 4.48;
const MAX_ITERATIONS: usize = 100;

/// Where the refinement ended.
#[derive(Debug, Clone)]
pub(super) struct Refined {
    pub at: Unknowns,
    /// JᵀWJ in 1/px² weights, by the steps of [`Layout`].
    pub normal_matrix: DMatrix<f64>,
    /// √(squared distance of the tag's corners / 4) of each sighting, px.
    pub rms_px: Vec<f64>,
}

/// Refines `start` over the sightings that are `used`. `sigma_px`: standard deviation of a pixel coordinate, which tells
/// noise from error. `None` where a tag lies behind its camera or the problem is singular.
pub(super) fn refine(
    cameras: &[(String, Camera)],
    layout: &Layout,
    sightings: &[TagSighting],
    used: &[bool],
    start: &Unknowns,
    sigma_px: f64,
) -> Option<Refined> {
    let chosen: Vec<&TagSighting> = sightings.iter().zip(used).filter(|(_, used)| **used).map(|(s, _)| s).collect();
    let cost = |at: &Unknowns| -> Option<f64> {
        let sum =
            chosen.iter().map(|s| Some(huber(squared(&s.residuals(cameras, at)?), sigma_px).0)).sum::<Option<f64>>();
        sum.filter(|sum| sum.is_finite())
    };
    let mut at = start.clone();
    let mut error = cost(&at)?;
    let mut damping = 1e-4;
    let (mut normal, mut gradient) = normal_equations(cameras, layout, &chosen, &at, sigma_px)?;
    'outer: for _ in 0..MAX_ITERATIONS {
        loop {
            let mut damped = normal.clone();
            for i in 0..layout.len {
                damped[(i, i)] += damping * normal[(i, i)].max(1e-9);
            }
            let step: DVector<f64> = -damped.cholesky()?.solve(&gradient);
            let candidate = layout.retract(&at, step.as_slice());
            match cost(&candidate) {
                Some(lower) if lower <= error => {
                    let gain = error - lower;
                    (at, error) = (candidate, lower);
                    damping = (damping * 0.1).max(1e-12);
                    (normal, gradient) = normal_equations(cameras, layout, &chosen, &at, sigma_px)?;
                    // Below a nanometre and a nanoradian, or below rounding.
                    if step.norm() < 1e-9 || gain <= 1e-13 * error {
                        break 'outer;
                    }
                    break;
                }
                _ => {
                    damping *= 10.0;
                    if damping > 1e10 {
                        break 'outer;
                    }
                }
            }
        }
    }
    let rms = |s: &TagSighting| s.residuals(cameras, &at).map_or(f64::INFINITY, |r| (squared(&r) / 4.0).sqrt());
    let rms_px = sightings.iter().map(rms).collect();
    Some(Refined { at, normal_matrix: normal, rms_px })
}

fn normal_equations(
    cameras: &[(String, Camera)],
    layout: &Layout,
    sightings: &[&TagSighting],
    at: &Unknowns,
    sigma_px: f64,
) -> Option<(DMatrix<f64>, DVector<f64>)> {
    let mut normal = DMatrix::zeros(layout.len, layout.len);
    let mut gradient = DVector::zeros(layout.len);
    for sighting in sightings {
        let linear = sighting.linearise(cameras, at)?;
        let weight = huber(squared(&linear.residuals), sigma_px).1;
        let (body, scale) = match sighting.body {
            Body::Board => (layout.board, layout.board_scale),
            Body::Hand => (layout.hand, layout.hand_scale),
        };
        // The unknowns that this tag depends on, as one block row.
        let mut J: SMatrix<f64, 8, 13> = SMatrix::zeros();
        J.fixed_columns_mut::<6>(0).copy_from(&linear.by_camera);
        J.fixed_columns_mut::<6>(6).copy_from(&linear.by_body);
        J.fixed_columns_mut::<1>(12).copy_from(&linear.by_scale);
        let places = [(0, Some(6 * sighting.camera), 6), (6, body, 6), (12, scale, 1)];
        let JtJ = J.transpose() * J * weight;
        let Jtr = J.transpose() * SMatrix::<f64, 8, 1>::from(linear.residuals) * weight;
        for (from, to, n) in places {
            let Some(to) = to else { continue };
            for i in 0..n {
                gradient[to + i] += Jtr[from + i];
                for (from2, to2, n2) in places {
                    let Some(to2) = to2 else { continue };
                    for j in 0..n2 {
                        normal[(to + i, to2 + j)] += JtJ[(from + i, from2 + j)];
                    }
                }
            }
        }
    }
    Some((normal, gradient))
}

fn squared(residuals: &[f64; 8]) -> f64 {
    residuals.iter().map(|r| r * r).sum()
}

/// Huber's loss of a tag, px², and its derivative by the squared distance.
fn huber(squared_px: f64, sigma_px: f64) -> (f64, f64) {
    let limit = HUBER * sigma_px;
    if squared_px <= limit * limit {
        return (squared_px, 1.0);
    }
    let root = squared_px.sqrt();
    (limit * (2.0 * root - limit), limit / root)
}
