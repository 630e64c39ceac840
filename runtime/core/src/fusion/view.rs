//! What a look at the board gave, small enough to cross threads by value.

use super::board::{NotReady, PartBoard, PartsBlock};
use super::furniture::MAX_PARTS;
use crate::geometry::Pose;
use crate::spec::PART_NUMBERS;
use crate::time::{MonotonicTime, Stamped};

/// The parts block at one instant, or which part is missing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartsView {
    /// When the board was looked at; ages count from here.
    pub at: MonotonicTime,
    pub block: Result<PartsBlock, NotReady>,
    len: usize,
    numbers: [f32; MAX_PARTS * PART_NUMBERS],
}

impl PartsView {
    /// The numbers of all parts, or the first part that has no pose.
    pub fn numbers(&self) -> Result<&[f32], NotReady> {
        self.block.map(|_| &self.numbers[..self.len])
    }
}

impl PartBoard {
    /// [`Self::write`] as a value. `T_robot_tcp`: as there.
    pub fn view(&mut self, now: MonotonicTime, T_robot_tcp: Option<&Stamped<Pose>>) -> PartsView {
        let mut numbers = [0.0; MAX_PARTS * PART_NUMBERS];
        let len = self.dim();
        let block = self.write(now, T_robot_tcp, &mut numbers[..len]);
        PartsView { at: now, block, len, numbers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fusion::{Furniture, FusionConfig, T_robot_april_training};

    #[test]
    fn a_view_of_a_board_that_has_seen_nothing_names_the_part_and_shows_no_numbers() {
        let start = MonotonicTime::from_nanos(5);
        let mut board =
            PartBoard::new(Furniture::Lamp, &FusionConfig::default(), &T_robot_april_training(), 1, start).unwrap();
        let view = board.view(MonotonicTime::from_nanos(1_000_000_000), None);
        let missing = view.numbers().unwrap_err();
        assert_eq!((missing.part, missing.since), ("lamp_base", start));
    }
}
