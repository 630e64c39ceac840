//! What the types of [`super::config`] do not say. Keys are those of the table `[fusion]` of `robot.toml`.

use super::config::{FusionConfig, FusionMode, GateConfig, MotionConfig, MovingAverageConfig, SignRule};
use super::majority::MAX_QUEUE;
use super::part_filter::MAX_RAW;
use crate::config::Check;

impl Check for FusionConfig {
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut p = Vec::new();
        let mut positive = |key, value: f64| {
            if !(value.is_finite() && value > 0.0) {
                p.push((key, format!("{value} must be positive")));
            }
        };
        positive("fusion.ages.coasting_after_s", self.ages.coasting_after_s);
        positive("fusion.ages.lost_after_s", self.ages.lost_after_s);
        positive("fusion.max_age_s", self.max_age_s);
        positive("fusion.grip.min_width_m", self.grip.min_width_m);
        positive("fusion.grip.max_distance_m", self.grip.max_distance_m);
        match &self.filter {
            FusionMode::PartFilter(c) => {
                positive("fusion.filter.max_jump_m", c.max_jump_m);
                positive("fusion.filter.max_jump_rad", c.max_jump_rad);
                positive("fusion.filter.reacquire_distance_m", c.reacquire_distance_m);
                positive("fusion.filter.reacquire_rotation_rad", c.reacquire_rotation_rad);
                positive("fusion.filter.max_squared_mahalanobis", c.max_squared_mahalanobis);
                positive("fusion.filter.motion_memory_s", c.motion_memory_s);
                positive("fusion.filter.motion_threshold", c.motion_threshold);
                positive("fusion.filter.covariance_scale", c.covariance_scale);
                positive("fusion.filter.confidence_distance_m", c.confidence_distance_m);
                positive("fusion.filter.confidence_rotation_rad", c.confidence_rotation_rad);
                match &c.motion {
                    MotionConfig::RandomWalk(m) => {
                        positive("fusion.filter.motion.rest_m_per_sqrt_s", m.rest_m_per_sqrt_s);
                        positive("fusion.filter.motion.rest_rad_per_sqrt_s", m.rest_rad_per_sqrt_s);
                        positive("fusion.filter.motion.moving_m_per_sqrt_s", m.moving_m_per_sqrt_s);
                        positive("fusion.filter.motion.moving_rad_per_sqrt_s", m.moving_rad_per_sqrt_s);
                    }
                    MotionConfig::ConstantVelocity(m) => {
                        positive("fusion.filter.motion.rest_m_s2_per_sqrt_hz", m.rest_m_s2_per_sqrt_hz);
                        positive("fusion.filter.motion.rest_rad_s2_per_sqrt_hz", m.rest_rad_s2_per_sqrt_hz);
                        positive("fusion.filter.motion.moving_m_s2_per_sqrt_hz", m.moving_m_s2_per_sqrt_hz);
                        positive("fusion.filter.motion.moving_rad_s2_per_sqrt_hz", m.moving_rad_s2_per_sqrt_hz);
                        positive("fusion.filter.motion.velocity_memory_s", m.velocity_memory_s);
                    }
                }
            }
            FusionMode::Majority(c) => positive("fusion.filter.max_axis_distance_m", c.max_axis_distance_m),
            FusionMode::GateWithMovingAverage(c) => {
                positive("fusion.filter.alpha", c.alpha);
                positive("fusion.filter.max_jump_m", c.max_jump_m);
                positive("fusion.filter.max_jump_rad", c.max_jump_rad);
                positive("fusion.filter.majority.max_axis_distance_m", c.majority.max_axis_distance_m);
            }
            FusionMode::MovingAverage(c) => {
                positive("fusion.filter.alpha", c.alpha);
                c.time_constant_s.into_iter().for_each(|tau_s| positive("fusion.filter.time_constant_s", tau_s));
            }
        }
        if self.ages.lost_after_s < self.ages.coasting_after_s {
            p.push(("fusion.ages.lost_after_s", "must not be less than coasting_after_s".to_owned()));
        }
        let queue = |p: &mut Vec<_>, key, length| {
            if !(1..=MAX_QUEUE).contains(&length) {
                p.push((key, format!("{length} must be 1 to {MAX_QUEUE}")));
            }
        };
        match &self.filter {
            FusionMode::PartFilter(c) if !(2..=MAX_RAW).contains(&c.reacquire_count) => {
                p.push(("fusion.filter.reacquire_count", format!("{} must be 2 to {MAX_RAW}", c.reacquire_count)));
            }
            FusionMode::Majority(c) => queue(&mut p, "fusion.filter.queue_length", c.queue_length),
            FusionMode::GateWithMovingAverage(c) => {
                queue(&mut p, "fusion.filter.majority.queue_length", c.majority.queue_length);
            }
            _ => {}
        }
        match &self.filter {
            FusionMode::GateWithMovingAverage(GateConfig { alpha, .. })
            | FusionMode::MovingAverage(MovingAverageConfig { alpha, .. })
                if *alpha > 1.0 =>
            {
                p.push(("fusion.filter.alpha", format!("{alpha} must be at most 1")));
            }
            _ => {}
        }
        if let SignRule::Hysteresis { min_abs_w } = self.quaternion_sign
            && !(0.0..0.5).contains(&min_abs_w)
        {
            p.push(("fusion.quaternion_sign", format!("min_abs_w = {min_abs_w} must be from 0 to below 0.5")));
        }
        for frozen in &self.frozen {
            if !frozen.position_m.iter().all(|v| v.is_finite()) || !is_unit(&frozen.quat_xyzw) {
                p.push(("fusion.frozen", format!("{}: position must be finite, quaternion of length 1", frozen.part)));
            }
        }
        for symmetry in &self.symmetry {
            if !is_unit(&symmetry.quat_xyzw) || !(0.0..0.7).contains(&symmetry.margin_rad) {
                p.push((
                    "fusion.symmetry",
                    format!("{}: quaternion must have length 1, margin_rad lie between 0 and 0.7", symmetry.part),
                ));
            }
        }
        for height in &self.heights {
            if !(-0.05..=0.05).contains(&height.april_z_m) {
                p.push((
                    "fusion.heights",
                    format!("{}: {} m must lie within 0.05 m of 0", height.part, height.april_z_m),
                ));
            }
        }
        p
    }
}

/// Length 1 to within the rounding of published numbers.
fn is_unit(quat: &[f64; 4]) -> bool {
    (quat.iter().map(|v| v * v).sum::<f64>().sqrt() - 1.0).abs() < 1e-3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::fusion::MajorityConfig;

    #[test]
    fn an_empty_table_is_the_default_and_the_default_has_no_problems() {
        let config: FusionConfig = parse("fusion.toml", "").unwrap();
        assert_eq!(config, FusionConfig::default());
        assert!(config.problems().is_empty());
        assert!(matches!(config.filter, FusionMode::PartFilter(_)));
    }

    #[test]
    fn every_mode_goes_by_its_name_with_its_defaults() {
        for (text, mode) in [
            ("part_filter", FusionMode::default()),
            ("majority", FusionMode::Majority(MajorityConfig::default())),
            ("gate_with_moving_average", FusionMode::GateWithMovingAverage(GateConfig::default())),
            ("moving_average", FusionMode::MovingAverage(MovingAverageConfig::default())),
        ] {
            let config: FusionConfig = parse("f.toml", &format!("[filter]\nmode = \"{text}\"\n")).unwrap();
            assert_eq!(config.filter, mode);
            let back = toml::to_string(&config).unwrap();
            assert_eq!(parse::<FusionConfig>("f.toml", &back).unwrap(), config);
        }
        let text =
            "[filter]\nmode = \"part_filter\"\nmotion = { model = \"constant_velocity\", velocity_memory_s = 0.3 }\n";
        let config: FusionConfig = parse("f.toml", text).unwrap();
        let FusionMode::PartFilter(c) = config.filter else { panic!("{config:?}") };
        assert!(matches!(c.motion, MotionConfig::ConstantVelocity(m) if m.velocity_memory_s == 0.3));
    }

    #[test]
    fn an_unknown_key_is_an_error_at_every_level() {
        for text in [
            "max_age = 1.0\n",
            "[filter]\nmode = \"part_filter\"\nmax_jump = 0.1\n",
            "[filter]\nmode = \"majority\"\nmax_jump_m = 0.1\n",
            "[filter]\nmode = \"moving_average\"\nbeta = 0.1\n",
            "[filter]\nmode = \"gate_with_moving_average\"\nmajority = { length = 3 }\n",
            "[filter]\nmode = \"part_filter\"\nmotion = { model = \"random_walk\", memory_s = 1.0 }\n",
            "[ages]\nlost_s = 1.0\n",
            "quaternion_sign = { rule = \"hysteresis\", w = 0.02 }\n",
            "[[frozen]]\npart = \"x\"\nposition_m = [0, 0, 0]\nquat_xyzw = [0, 0, 0, 1]\nyaw = 1\n",
            "[filter]\nmode = \"median\"\n",
        ] {
            let error = parse::<FusionConfig>("f.toml", text).unwrap_err();
            assert!(error.message.contains("unknown"), "{text}: {error}");
        }
    }

    #[test]
    fn impossible_numbers_are_named_with_their_key() {
        for (text, key) in [
            ("max_age_s = -1.0\n", "max_age_s"),
            ("[ages]\ncoasting_after_s = 0.6\n", "ages.lost_after_s"),
            ("[filter]\nmode = \"part_filter\"\nreacquire_count = 99\n", "filter.reacquire_count"),
            ("[filter]\nmode = \"part_filter\"\nmax_jump_m = nan\n", "filter.max_jump_m"),
            ("[filter]\nmode = \"moving_average\"\nalpha = 1.5\n", "filter.alpha"),
            ("[filter]\nmode = \"majority\"\nqueue_length = 0\n", "filter.queue_length"),
            ("quaternion_sign = { rule = \"hysteresis\", min_abs_w = 0.7 }\n", "min_abs_w"),
            ("[[heights]]\npart = \"x\"\napril_z_m = 2.8\n", "heights"),
            ("[[frozen]]\npart = \"x\"\nposition_m = [0, 0, 0]\nquat_xyzw = [0, 0, 0, 2]\n", "frozen"),
        ] {
            let error = parse::<FusionConfig>("f.toml", text).unwrap_err();
            assert!(error.message.contains(key), "{text}: {error}");
        }
    }
}
