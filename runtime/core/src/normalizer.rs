//! Field limits → one affine map per value, and its inverse (spec dppo.md §7.1, robot_control.md §3.3).
//!
//! Forward (observations, and actions when a data set is made): `n = 2 (x − min) / (max − min + ε) − 1`.
//! Inverse (actions): `x = (n + 1)/2 (max − min) + min`, without ε: that asymmetry is the authors' and every trained
//! policy has seen it, so it is kept.

use serde::{Deserialize, Serialize};

/// Lower and upper limit of each value of a vector, from the training data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub min: Vec<f32>,
    pub max: Vec<f32>,
}

/// How a range of zero width is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZeroRange {
    /// 1e-6 is added to every range (Gym, Robomimic, Avoid).
    AddEpsilon,
    /// A constant value gets the limits min − 1, max + 1 (furniture).
    Widen,
}

/// The normaliser of a policy: physical units ↔ the network's [−1, 1].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalizer {
    pub observation: Limits,
    pub action: Limits,
    pub zero_range: ZeroRange,
    /// Clamp of normalised observations (furniture ±5; none for the others).
    pub observation_clip: Option<f32>,
}

impl Limits {
    /// −bound to bound in each of `dim` values.
    pub fn symmetric(bound: f32, dim: usize) -> Self {
        Self { min: vec![-bound; dim], max: vec![bound; dim] }
    }

    /// Limits of `rows` concatenated rows of `dim` values. Panics if `dim` is 0; an empty table gives infinities,
    /// which [`Limits::check`] refuses.
    pub fn of_rows(rows: &[f32], dim: usize) -> Self {
        let mut limits = Self { min: vec![f32::INFINITY; dim], max: vec![f32::NEG_INFINITY; dim] };
        for row in rows.chunks_exact(dim) {
            for (i, &x) in row.iter().enumerate() {
                limits.min[i] = limits.min[i].min(x);
                limits.max[i] = limits.max[i].max(x);
            }
        }
        limits
    }

    /// Says which value has limits that no data set can have.
    pub fn check(&self) -> Result<(), String> {
        for (i, (lo, hi)) in self.min.iter().zip(&self.max).enumerate() {
            if !lo.is_finite() || !hi.is_finite() || lo > hi {
                return Err(format!("value {i} has limits {lo}..{hi}"));
            }
        }
        Ok(())
    }

    fn affine(&self, i: usize, zero_range: ZeroRange) -> (f32, f32) {
        let (lo, hi) = (self.min[i], self.max[i]);
        match zero_range {
            ZeroRange::AddEpsilon => (lo, hi - lo + 1e-6),
            ZeroRange::Widen if hi == lo => (lo - 1.0, 2.0),
            ZeroRange::Widen => (lo, hi - lo),
        }
    }
}

impl Normalizer {
    /// The usual one, from the limits of a data set: `AddEpsilon`, no clamp (spec dppo.md §7.1).
    pub fn new(observation: Limits, action: Limits) -> Self {
        Self { observation, action, zero_range: ZeroRange::AddEpsilon, observation_clip: None }
    }

    /// Normalises one or more observations in place (rows of Do values).
    pub fn normalize_observation(&self, x: &mut [f32]) {
        normalize(&self.observation, self.zero_range, x);
        if let Some(clip) = self.observation_clip {
            for v in x {
                *v = v.clamp(-clip, clip);
            }
        }
    }

    /// Normalised observations → physical units, in place (rows of Do values): what [`Self::normalize_observation`] undoes.
    /// A value that was clamped comes back as the clamp.
    pub fn denormalize_observation(&self, x: &mut [f32]) {
        let dim = self.observation.min.len();
        for row in x.chunks_exact_mut(dim) {
            for (i, v) in row.iter_mut().enumerate() {
                let (lo, range) = self.observation.affine(i, self.zero_range);
                *v = (*v + 1.0) / 2.0 * range + lo;
            }
        }
    }

    /// Normalises one or more actions in place (rows of Da values); used when a data set is made.
    pub fn normalize_action(&self, x: &mut [f32]) {
        normalize(&self.action, self.zero_range, x);
    }

    /// Normalised actions → physical units, in place (rows of Da values).
    pub fn denormalize_action(&self, x: &mut [f32]) {
        let dim = self.action.min.len();
        for row in x.chunks_exact_mut(dim) {
            for (i, v) in row.iter_mut().enumerate() {
                let (lo, range) = match self.zero_range {
                    ZeroRange::AddEpsilon => (self.action.min[i], self.action.max[i] - self.action.min[i]),
                    ZeroRange::Widen => self.action.affine(i, ZeroRange::Widen),
                };
                *v = (*v + 1.0) / 2.0 * range + lo;
            }
        }
    }
}

fn normalize(limits: &Limits, zero_range: ZeroRange, x: &mut [f32]) {
    let dim = limits.min.len();
    for row in x.chunks_exact_mut(dim) {
        for (i, v) in row.iter_mut().enumerate() {
            let (lo, range) = limits.affine(i, zero_range);
            *v = 2.0 * (*v - lo) / range - 1.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalizer(zero_range: ZeroRange) -> Normalizer {
        let limits = Limits::of_rows(&[0.0, 5.0, 2.0, 5.0], 2);
        Normalizer { observation: limits.clone(), action: limits, zero_range, observation_clip: None }
    }

    #[test]
    fn limits_map_to_plus_and_minus_one_and_back() {
        for zero_range in [ZeroRange::AddEpsilon, ZeroRange::Widen] {
            let n = normalizer(zero_range);
            let mut x = [0.0, 5.0, 2.0, 5.0];
            n.normalize_action(&mut x);
            assert!((x[0] + 1.0).abs() < 1e-6 && (x[2] - 1.0).abs() < 2e-6, "{x:?}");
            n.denormalize_action(&mut x);
            for (a, b) in x.iter().zip([0.0, 5.0, 2.0, 5.0]) {
                assert!((a - b).abs() < 1e-5, "{zero_range:?}: {x:?}");
            }
        }
    }

    #[test]
    fn normalised_observations_come_back_as_they_were() {
        for zero_range in [ZeroRange::AddEpsilon, ZeroRange::Widen] {
            let n = normalizer(zero_range);
            let before = [0.3, 5.0, 1.9, 5.0, -0.7, 5.1];
            let mut x = before;
            n.normalize_observation(&mut x);
            n.denormalize_observation(&mut x);
            assert!(x.iter().zip(before).all(|(a, b)| (a - b).abs() < 1e-6), "{zero_range:?}: {x:?}");
        }
    }

    #[test]
    fn a_constant_value_is_centred_when_widened() {
        let mut x = [1.0, 5.0];
        normalizer(ZeroRange::Widen).normalize_observation(&mut x);
        assert_eq!(x, [0.0, 0.0]);
    }

    #[test]
    fn limits_of_no_rows_and_of_nan_are_refused() {
        assert!(Limits::of_rows(&[], 2).check().is_err());
        assert!(Limits { min: vec![f32::NAN], max: vec![1.0] }.check().is_err());
    }
}
