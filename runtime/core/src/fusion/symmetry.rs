//! Parts that look the same after a quarter turn about their y axis (spec perception.md §6.5.5).
//!
//! Their tags tell the four branches apart, so this is no matter of measurement: it only chooses which of the four equal
//! poses is shown to a policy that has seen one of them in training.

use std::f64::consts::FRAC_PI_2;

use nalgebra::{UnitQuaternion, Vector3};

/// Symmetry of a part about its own y axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symmetry {
    None,
    FourFold,
}

/// Number of quarter turns about part y, 0 to 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Branch(u8);

impl Branch {
    const ALL: [Self; 4] = [Self(0), Self(1), Self(2), Self(3)];

    /// The rotation of this branch.
    pub fn of(self, rotation: &UnitQuaternion<f64>) -> UnitQuaternion<f64> {
        rotation * UnitQuaternion::from_axis_angle(&Vector3::y_axis(), f64::from(self.0) * FRAC_PI_2)
    }

    /// The branch of `rotation` nearest to `reference`; `last` stays unless another one is nearer by `margin_rad`.
    pub fn nearest(
        rotation: &UnitQuaternion<f64>,
        reference: &UnitQuaternion<f64>,
        last: Option<Self>,
        margin_rad: f64,
    ) -> Self {
        let away = |branch: Self| branch.of(rotation).angle_to(reference);
        let mut best = Self(0);
        for branch in Self::ALL {
            if away(branch) < away(best) {
                best = branch;
            }
        }
        match last {
            Some(last) if away(last) < away(best) + margin_rad => last,
            _ => best,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about_y(degrees: f64) -> UnitQuaternion<f64> {
        UnitQuaternion::from_axis_angle(&Vector3::y_axis(), degrees.to_radians())
    }

    #[test]
    fn every_quarter_turn_of_the_reference_comes_back_to_it() {
        let reference = UnitQuaternion::from_euler_angles(0.4, -0.9, 2.0);
        for quarter in 0..4 {
            let seen = reference * about_y(90.0 * f64::from(quarter) + 12.0);
            let branch = Branch::nearest(&seen, &reference, None, 0.0);
            assert!((branch.of(&seen).angle_to(&reference).to_degrees() - 12.0).abs() < 1e-9, "quarter {quarter}");
        }
    }

    #[test]
    fn the_branch_is_left_only_beyond_the_margin() {
        let reference = UnitQuaternion::identity();
        let mut branch = None;
        let mut shown = Vec::new();
        for degrees in [40.0, 47.0, 44.0, 49.0, 51.0, 44.0, 41.0, 39.0] {
            let next = Branch::nearest(&about_y(degrees), &reference, branch, 10f64.to_radians());
            shown.push(next.0);
            branch = Some(next);
        }
        // At 45° + 5° the other branch is nearer by 10°.
        assert_eq!(shown, [0, 0, 0, 0, 3, 3, 3, 0]);
    }
}
