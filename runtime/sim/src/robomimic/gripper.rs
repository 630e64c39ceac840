//! The gripper's command, which moves at a bounded rate from physics step to physics step (section 3.2).

/// Change of a finger's share in one physics step.
const SPEED: f64 = 0.01;

/// Where the fingers are told to be: shares of their half ranges, −1 … 1. The first closes towards −1, the second
/// towards 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Gripper {
    shares: [f64; 2],
}

impl Gripper {
    /// A command as it is after a reset: half open.
    pub fn new(shares: [f64; 2]) -> Self {
        Self { shares }
    }

    /// Moves on by one physics step: a positive action closes, a negative opens, zero holds.
    pub fn step(&mut self, action: f64) {
        // f64::signum calls the sign of 0.0 positive.
        let sign = if action == 0.0 { 0.0 } else { action.signum() };
        for (share, direction) in self.shares.iter_mut().zip([-1.0, 1.0]) {
            *share = (*share + direction * SPEED * sign).clamp(-1.0, 1.0);
        }
    }

    /// The shares of finger 1 and 2.
    pub fn shares(&self) -> [f64; 2] {
        self.shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundred_physics_steps_lead_from_open_to_closed_and_zero_holds() {
        let mut gripper = Gripper::new([1.0, -1.0]);
        for _ in 0..199 {
            gripper.step(0.3);
        }
        assert!(gripper.shares()[0] > -1.0);
        gripper.step(1.0);
        gripper.step(1.0);
        assert_eq!(gripper.shares(), [-1.0, 1.0]);
        gripper.step(0.0);
        assert_eq!(gripper.shares(), [-1.0, 1.0]);
        gripper.step(-1e-9);
        assert_eq!(gripper.shares(), [-0.99, 0.99]);
    }
}
