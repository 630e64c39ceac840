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
    /// A view as it was recorded. `None` if there are more numbers than the parts of any furniture have.
    pub fn recorded(at: MonotonicTime, block: Result<PartsBlock, NotReady>, numbers: &[f32]) -> Option<Self> {
        let mut view = Self { at, block, len: numbers.len(), numbers: [0.0; MAX_PARTS * PART_NUMBERS] };
        view.numbers.get_mut(..numbers.len())?.copy_from_slice(numbers);
        Some(view)
    }

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

    #[test]
    fn a_recorded_view_is_the_view_again() {
        let at = MonotonicTime::from_nanos(7);
        let block = PartsBlock { oldest_age: std::time::Duration::from_millis(3), least_confidence: 0.5 };
        let view = PartsView::recorded(at, Ok(block), &[1.0, 2.0]).unwrap();
        assert_eq!((view.at, view.numbers().unwrap()), (at, &[1.0, 2.0][..]));
        assert!(PartsView::recorded(at, Ok(block), &[0.0; MAX_PARTS * PART_NUMBERS + 1]).is_none());
        assert_eq!(Furniture::known_part("lamp_hood"), Some("lamp_hood"));
        assert_eq!(Furniture::known_part("lamp"), None);
    }
}
