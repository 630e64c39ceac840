//! Two clocks, two types. They are converted in one place only ([`ClockOffset`]).

use std::time::Duration;

/// Nanoseconds of the workstation's monotonic clock. What the control loop runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MonotonicTime(i64);

/// Nanoseconds of the robot client's wall clock, as in the state message's `timestamp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RobotTime(i64);

macro_rules! clock {
    ($name:ident) => {
        impl $name {
            pub const fn from_nanos(nanos: i64) -> Self {
                Self(nanos)
            }

            pub const fn as_nanos(self) -> i64 {
                self.0
            }

            /// Time since `earlier`; zero if that lies in the future.
            pub fn since(self, earlier: Self) -> Duration {
                Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
            }

            /// So long before; the other way of `+`.
            pub fn before(self, d: Duration) -> Self {
                Self(self.0.saturating_sub(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)))
            }

            /// Seconds since `earlier`, negative if that lies in the future.
            pub fn seconds_since(self, earlier: Self) -> f64 {
                (self.0 - earlier.0) as f64 * 1e-9
            }
        }

        impl std::ops::Add<Duration> for $name {
            type Output = Self;

            fn add(self, d: Duration) -> Self {
                Self(self.0.saturating_add(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)))
            }
        }
    };
}

clock!(MonotonicTime);
clock!(RobotTime);

/// A value and the time it was sensed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stamped<T> {
    pub time: MonotonicTime,
    pub value: T,
}

impl<T> Stamped<T> {
    pub fn age(&self, now: MonotonicTime) -> Duration {
        now.since(self.time)
    }
}

/// Difference between the robot's clock and ours, estimated from the fastest message seen (least transport delay).
#[derive(Debug, Clone, Copy, Default)]
pub struct ClockOffset {
    least: Option<i64>,
}

impl ClockOffset {
    /// Takes note of a message stamped `robot` that arrived at `arrived`, and converts its stamp to our clock.
    /// The result is never later than the arrival.
    pub fn observe(&mut self, robot: RobotTime, arrived: MonotonicTime) -> MonotonicTime {
        let delta = arrived.0 - robot.0;
        let least = self.least.map_or(delta, |l| l.min(delta));
        self.least = Some(least);
        MonotonicTime(robot.0 + least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_converted_stamp_is_never_later_than_its_arrival() {
        let mut offset = ClockOffset::default();
        for (robot, arrived) in [(100, 1_150), (200, 1_220), (300, 1_400)] {
            let t = offset.observe(RobotTime(robot), MonotonicTime(arrived));
            assert!(t.as_nanos() <= arrived);
        }
        assert_eq!(offset.observe(RobotTime(400), MonotonicTime(1_500)).as_nanos(), 1_420);
    }

    #[test]
    fn the_future_is_no_negative_age() {
        assert_eq!(MonotonicTime(5).since(MonotonicTime(9)), Duration::ZERO);
    }
}
