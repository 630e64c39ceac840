//! The paper's exponential moving average as a low-pass on the pose (spec perception.md §6.5.2): position by a weighted
//! mean, rotation by slerp. No gate and no uncertainty; [`super::PartFilter`] is what to use.

use super::config::MovingAverageConfig;
use super::measurement::{Refusal, is_finite};
use crate::geometry::{Pose, interpolate};
use crate::time::MonotonicTime;

/// State of one part.
#[derive(Debug, Clone, Copy)]
pub struct MovingAverage {
    config: MovingAverageConfig,
    last: Option<(Pose, MonotonicTime)>,
    replace: bool,
}

impl MovingAverage {
    pub fn new(config: MovingAverageConfig) -> Self {
        Self { config, last: None, replace: false }
    }

    /// The average after the pose `T` of the instant `at`. The first pose is the average.
    pub fn update(&mut self, T: &Pose, at: MonotonicTime) -> Result<Pose, Refusal> {
        if !is_finite(T) {
            return Err(Refusal::NotFinite);
        }
        let average = match self.last {
            None => *T,
            Some((_, last_at)) if at == last_at => return Err(Refusal::Duplicate),
            Some((_, last_at)) if at < last_at => return Err(Refusal::OutOfOrder),
            Some(_) if self.replace => *T,
            Some((last, last_at)) => {
                let alpha = match self.config.time_constant_s {
                    None => self.config.alpha,
                    Some(tau_s) => 1.0 - (-at.seconds_since(last_at) / tau_s).exp(),
                };
                interpolate(&last, T, alpha)
            }
        };
        self.replace = false;
        self.last = Some((average, at));
        Ok(average)
    }

    /// The next pose replaces the average (α = 1): the gripper has closed or opened.
    pub fn replace_next(&mut self) {
        self.replace = true;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        (self.last, self.replace) = (None, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::{Translation3, UnitQuaternion, Vector3};

    fn at(x_m: f64, degrees: f64) -> Pose {
        let rotation = UnitQuaternion::from_scaled_axis(Vector3::y() * degrees.to_radians());
        Pose::from_parts(Translation3::new(x_m, 0.0, 0.0), rotation)
    }

    fn millis(ms: i64) -> MonotonicTime {
        MonotonicTime::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_quarter_of_the_way_is_gone_with_each_pose() {
        let mut filter = MovingAverage::new(MovingAverageConfig::default());
        filter.update(&at(0.0, 0.0), millis(0)).unwrap();
        for (n, want) in [(1, 0.25), (2, 0.4375), (3, 0.578125)] {
            let T = filter.update(&at(0.1, 40.0), millis(n * 33)).unwrap();
            assert!((T.translation.x - 0.1 * want).abs() < 1e-12);
            assert!((T.rotation.angle().to_degrees() - 40.0 * want).abs() < 1e-9);
        }
    }

    #[test]
    fn with_a_time_constant_the_rate_does_not_alter_the_smoothing() {
        let config = MovingAverageConfig { time_constant_s: Some(0.1), ..Default::default() };
        let after_300_ms = |step_ms: i64| {
            let mut filter = MovingAverage::new(config);
            filter.update(&at(0.0, 0.0), millis(0)).unwrap();
            (1..=300 / step_ms).map(|n| filter.update(&at(0.1, 30.0), millis(n * step_ms)).unwrap()).last().unwrap()
        };
        let (slow, fast) = (after_300_ms(100), after_300_ms(10));
        assert!((slow.translation.x - fast.translation.x).abs() < 1e-12);
        assert!(slow.rotation.angle_to(&fast.rotation) < 1e-9);
        assert!((slow.translation.x - 0.1 * (1.0 - (-3f64).exp())).abs() < 1e-12);
    }

    #[test]
    fn after_a_gripper_event_the_next_pose_replaces_the_average() {
        let mut filter = MovingAverage::new(MovingAverageConfig::default());
        filter.update(&at(0.0, 0.0), millis(0)).unwrap();
        filter.replace_next();
        assert_eq!(filter.update(&at(0.1, 10.0), millis(33)).unwrap(), at(0.1, 10.0));
        assert!((filter.update(&at(0.2, 10.0), millis(66)).unwrap().translation.x - 0.125).abs() < 1e-12);
    }

    #[test]
    fn reversed_time_and_nan_change_nothing() {
        let mut filter = MovingAverage::new(MovingAverageConfig::default());
        filter.update(&at(0.0, 0.0), millis(100)).unwrap();
        assert_eq!(filter.update(&at(9.0, 0.0), millis(99)), Err(Refusal::OutOfOrder));
        assert_eq!(filter.update(&at(9.0, 0.0), millis(100)), Err(Refusal::Duplicate));
        assert_eq!(filter.update(&at(f64::NAN, 0.0), millis(133)), Err(Refusal::NotFinite));
        assert!((filter.update(&at(0.1, 0.0), millis(166)).unwrap().translation.x - 0.025).abs() < 1e-12);
    }
}
