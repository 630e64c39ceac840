//! When a policy's gripper value turns the hand over.

use crate::message::GripperCommand;

/// Thresholds of the toggle logic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ToggleSettings {
    /// |a| must be larger: what a policy says around zero is noise.
    pub threshold: f64,
    /// More actions than these must have been executed since the last toggle, the present one counted.
    pub min_actions: u32,
}

impl Default for ToggleSettings {
    /// The authors' (spec robot_control.md §7).
    fn default() -> Self {
        Self { threshold: 0.25, min_actions: 10 }
    }
}

/// The toggle logic of one trial. It begins with an open hand and a counter of 0, so the first
/// [`min_actions`](ToggleSettings::min_actions) actions close nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GripperToggle {
    settings: ToggleSettings,
    last: GripperCommand,
    actions: u32,
}

impl GripperToggle {
    pub fn new(settings: ToggleSettings) -> Self {
        Self { settings, last: GripperCommand::Open, actions: 0 }
    }

    /// Back to the beginning of a trial; whoever calls it has the hand opened.
    pub fn reset(&mut self) {
        *self = Self::new(self.settings);
    }

    /// What the hand was told last.
    pub fn last(&self) -> GripperCommand {
        self.last
    }

    /// Takes note of one executed action: positive closes, negative opens. Returns a command where it toggles.
    pub fn decide(&mut self, action_value: f64) -> Option<GripperCommand> {
        let ToggleSettings { threshold, min_actions } = self.settings;
        self.actions = self.actions.saturating_add(1);
        let wanted = if action_value > threshold {
            GripperCommand::Close
        } else if action_value < -threshold {
            GripperCommand::Open
        } else {
            // NaN comes here too.
            return None;
        };
        if wanted == self.last || self.actions <= min_actions {
            return None;
        }
        (self.last, self.actions) = (wanted, 0);
        Some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(count: usize, value: f64) -> GripperToggle {
        let mut toggle = GripperToggle::new(ToggleSettings::default());
        for _ in 0..count {
            assert_eq!(toggle.decide(value), None);
        }
        toggle
    }

    #[test]
    fn a_strong_value_of_the_other_sign_toggles_after_more_than_ten_actions() {
        let mut toggle = after(10, 1.0);
        assert_eq!(toggle.decide(1.0), Some(GripperCommand::Close), "the eleventh action");
        for _ in 0..10 {
            assert_eq!(toggle.decide(-1.0), None);
        }
        assert_eq!(toggle.decide(1.0), None, "the same sign again");
        assert_eq!(toggle.decide(-0.3), Some(GripperCommand::Open));
        assert_eq!(toggle.last(), GripperCommand::Open);
    }

    #[test]
    fn a_weak_value_and_nan_toggle_nothing() {
        let mut toggle = after(50, 0.0);
        for value in [0.25, -0.25, 0.2, f64::NAN, -1.0] {
            assert_eq!(toggle.decide(value), None, "{value}");
        }
        assert_eq!(toggle.decide(0.2501), Some(GripperCommand::Close));
    }

    #[test]
    fn a_reset_begins_open_with_an_empty_count() {
        let mut toggle = after(20, -1.0);
        assert_eq!(toggle.decide(1.0), Some(GripperCommand::Close));
        toggle.reset();
        assert_eq!(toggle, GripperToggle::new(ToggleSettings::default()));
        assert_eq!(toggle.decide(1.0), None);
    }

    fn values() -> impl Strategy<Value = Vec<f64>> {
        let value = prop_oneof![-1.5..1.5_f64, Just(f64::NAN), Just(0.0), Just(1.0), Just(-1.0), Just(f64::INFINITY)];
        prop::collection::vec(value, 0..400)
    }

    proptest! {
        #[test]
        fn toggles_alternate_and_stand_further_apart_than_min_actions(
            values in values(), threshold in 0.0..1.0_f64, min_actions in 0..30_u32
        ) {
            let mut toggle = GripperToggle::new(ToggleSettings { threshold, min_actions });
            // The action before the first one is where the count begins.
            let (mut last, mut at) = (GripperCommand::Open, 0);
            for (i, &value) in (1_u32..).zip(&values) {
                if let Some(command) = toggle.decide(value) {
                    prop_assert_ne!(command, last);
                    prop_assert!(value.abs() > threshold && (value > 0.0) == (command == GripperCommand::Close));
                    prop_assert!(i - at > min_actions, "{} after {}", i, at);
                    (last, at) = (command, i);
                }
                prop_assert_eq!(toggle.last(), last);
            }
        }
    }
}
