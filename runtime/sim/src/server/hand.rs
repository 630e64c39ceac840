//! The Franka Hand and what its Polymetis client makes of commands (spec `polymetis.md` §7). No clock, no thread.
//!
//! Fingers move at the speed they are told and meet, at most, one object. Nothing can interrupt a motion.

use std::time::Duration;

use prost_types::Timestamp;
use tenon_polymetis::proto::{GripperCommand, GripperState};

/// Widest opening, m.
pub const MAX_WIDTH_M: f32 = 0.08;
/// What the client takes for a negative tolerance of a grasp, m: any object counts.
const ANY_OBJECT_M: f32 = 0.2;
/// A motion that gets nowhere is given up after one to three minutes.
const GIVES_UP_AFTER: Duration = Duration::from_secs(90);
/// Speed at which fingers that hold with force follow an object that gives way, m/s.
const FOLLOW_SPEED_M_S: f32 = 0.1;

/// libfranka threw in the thread that moves the hand: the client aborts and reports nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("the hand's client died of a command: width {width_m} m, speed {speed_m_s} m/s, force {force_n} N")]
pub struct HandDied {
    width_m: f32,
    speed_m_s: f32,
    force_n: f32,
}

#[derive(Debug, Clone, Copy)]
struct Motion {
    target_m: f32,
    speed_m_s: f32,
    /// Inner and outer tolerance of a grasp, m; none moves.
    grasp_m: Option<[f32; 2]>,
    /// How long it has not got on.
    blocked: Duration,
}

/// The fingers.
#[derive(Debug, Clone)]
pub struct Hand {
    width_m: f32,
    /// Width of what stands between the fingers, m; 0 for nothing.
    object_m: f32,
    hangs: bool,
    motion: Option<Motion>,
    /// After a grasp the fingers go on pressing.
    presses: bool,
    is_grasped: bool,
    succeeded: bool,
    last_nanos: i32,
    motions: u64,
}

impl Hand {
    /// Open, after homing.
    pub fn new(object_m: f32) -> Self {
        Self {
            width_m: MAX_WIDTH_M,
            object_m,
            hangs: false,
            motion: None,
            presses: false,
            is_grasped: false,
            succeeded: true,
            last_nanos: 0,
            motions: 0,
        }
    }

    /// Opening between the fingers, m.
    pub fn width_m(&self) -> f32 {
        self.width_m
    }

    /// Motions begun.
    pub fn motions(&self) -> u64 {
        self.motions
    }

    /// Puts an object of that width between the fingers; 0 takes it away.
    pub fn put_object(&mut self, width_m: f32) {
        self.object_m = width_m.clamp(0.0, MAX_WIDTH_M);
        self.width_m = self.width_m.max(self.object_m);
    }

    /// While it hangs a motion gets nowhere.
    pub fn hang(&mut self, hangs: bool) {
        self.hangs = hangs;
    }

    /// What the client reports at `stamp` (wall clock).
    pub fn state(&self, (seconds, nanos): (i64, i32)) -> GripperState {
        GripperState {
            timestamp: Some(Timestamp { seconds, nanos }),
            width: self.width_m,
            is_grasped: self.is_grasped,
            is_moving: self.motion.is_some(),
            error_code: 0,
            prev_command_successful: self.succeeded,
        }
    }

    /// The newest stored command, as the client fetches it: taken up if the hand rests and the nanoseconds of its stamp
    /// (nothing else is compared) are new and not 0.
    ///
    /// # Errors
    /// [`HandDied`] for numbers that libfranka throws at.
    pub fn fetch(&mut self, command: &GripperCommand) -> Result<(), HandDied> {
        let nanos = command.timestamp.map_or(0, |stamp| stamp.nanos);
        if self.motion.is_some() || nanos == 0 || nanos == self.last_nanos {
            return Ok(());
        }
        self.last_nanos = nanos;
        let GripperCommand { width, speed, force, grasp, epsilon_inner, epsilon_outer, .. } = *command;
        if !(width.is_finite() && speed.is_finite() && force.is_finite() && speed > 0.0 && width >= 0.0) {
            return Err(HandDied { width_m: width, speed_m_s: speed, force_n: force });
        }
        let tolerance = |epsilon: f32| if epsilon < 0.0 { ANY_OBJECT_M } else { epsilon };
        self.motion = Some(Motion {
            target_m: width.min(MAX_WIDTH_M),
            speed_m_s: speed,
            grasp_m: grasp.then(|| [tolerance(epsilon_inner), tolerance(epsilon_outer)]),
            blocked: Duration::ZERO,
        });
        (self.presses, self.is_grasped) = (false, false);
        self.motions += 1;
        Ok(())
    }

    /// Moves on by `time`.
    pub fn step(&mut self, time: Duration) {
        let Some(mut motion) = self.motion else {
            if self.presses && self.width_m > self.object_m {
                self.width_m = (self.width_m - FOLLOW_SPEED_M_S * time.as_secs_f32()).max(self.object_m);
                self.is_grasped = false;
            }
            return;
        };
        let way = motion.speed_m_s * time.as_secs_f32();
        let free = self.width_m + (motion.target_m - self.width_m).clamp(-way, way);
        // Fingers that open leave the object behind.
        let wanted = if motion.target_m < self.width_m { free.max(self.object_m.min(self.width_m)) } else { free };
        let before = self.width_m;
        if !self.hangs {
            self.width_m = wanted;
        }
        let arrived = !self.hangs && self.width_m == motion.target_m;
        let met = !self.hangs && !arrived && way > 0.0 && self.width_m == before;
        match motion.grasp_m {
            Some([inner, outer]) if arrived || met => {
                let off = self.width_m - motion.target_m;
                self.end(-inner < off && off < outer);
                (self.presses, self.is_grasped) = (true, self.succeeded);
            }
            None if arrived => self.end(true),
            _ => {
                motion.blocked = if self.width_m == before { motion.blocked + time } else { Duration::ZERO };
                if motion.blocked >= GIVES_UP_AFTER {
                    self.end(false);
                } else {
                    self.motion = Some(motion);
                }
            }
        }
    }

    fn end(&mut self, succeeded: bool) {
        self.motion = None;
        self.succeeded = succeeded;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(33);

    fn command(nanos: i32, width: f32, grasp: bool) -> GripperCommand {
        let timestamp = Some(Timestamp { seconds: 7, nanos });
        GripperCommand { timestamp, width, speed: 0.1, force: 10.0, grasp, epsilon_inner: -1.0, epsilon_outer: -1.0 }
    }

    fn grasp(nanos: i32) -> GripperCommand {
        command(nanos, 0.0, true)
    }

    /// Runs the client's loop for `seconds` with this command stored.
    fn run(hand: &mut Hand, command: &GripperCommand, seconds: f32) -> GripperState {
        for _ in 0..(seconds / PERIOD.as_secs_f32()).ceil() as usize {
            hand.step(PERIOD);
            hand.fetch(command).unwrap();
        }
        hand.state((0, 0))
    }

    #[test]
    fn a_grasp_ends_at_the_object_or_at_nothing() {
        for object_m in [0.03, 0.0] {
            let mut hand = Hand::new(object_m);
            let state = run(&mut hand, &grasp(1), 0.3);
            assert!(state.is_moving && !state.is_grasped, "{state:?}");
            let state = run(&mut hand, &grasp(1), 1.0);
            assert_eq!((state.is_moving, state.width), (false, object_m));
            // Within a tolerance of 0.2 m whatever the fingers met is what was to be grasped.
            assert!(state.is_grasped && state.prev_command_successful);
        }
        let mut hand = Hand::new(0.03);
        // The protocol's default tolerance: another width than the commanded one is a failure.
        let exact = GripperCommand { epsilon_inner: 0.0, epsilon_outer: 0.0, ..grasp(1) };
        let state = run(&mut hand, &exact, 1.5);
        assert!(!state.is_moving && !state.is_grasped && !state.prev_command_successful);
    }

    #[test]
    fn a_move_into_an_object_hangs_for_more_than_a_minute() {
        let mut hand = Hand::new(0.03);
        let state = run(&mut hand, &command(1, 0.0, false), 60.0);
        assert_eq!((state.is_moving, state.width), (true, 0.03));
        let state = run(&mut hand, &command(1, 0.0, false), 60.0);
        assert_eq!((state.is_moving, state.prev_command_successful), (false, false));
    }

    #[test]
    fn only_new_nanoseconds_that_are_not_zero_make_a_command() {
        let mut hand = Hand::new(0.0);
        run(&mut hand, &GripperCommand::default(), 0.1);
        run(&mut hand, &grasp(0), 0.1);
        assert_eq!(hand.motions(), 0);
        run(&mut hand, &grasp(5), 1.5);
        let later = GripperCommand { timestamp: Some(Timestamp { seconds: 8, nanos: 5 }), ..command(5, 0.08, false) };
        assert_eq!(run(&mut hand, &later, 1.5).width, 0.0, "another second, the same nanoseconds");
        assert_eq!(run(&mut hand, &command(6, 0.5, false), 1.5).width, MAX_WIDTH_M);
        assert_eq!(hand.motions(), 2);
    }

    #[test]
    fn a_motion_is_not_interrupted_and_only_the_newest_command_follows() {
        let mut hand = Hand::new(0.03);
        run(&mut hand, &grasp(1), 0.1);
        run(&mut hand, &command(2, 0.05, false), 0.1);
        let state = run(&mut hand, &command(3, 0.08, false), 0.1);
        assert!(state.is_moving && state.width < 0.08);
        let state = run(&mut hand, &command(3, 0.08, false), 1.5);
        assert_eq!((state.is_moving, state.width, hand.motions()), (false, 0.08, 2), "never to 0.05");
    }

    #[test]
    fn an_object_that_is_taken_away_is_no_longer_grasped() {
        let mut hand = Hand::new(0.03);
        assert!(run(&mut hand, &grasp(1), 1.0).is_grasped);
        hand.put_object(0.0);
        let state = run(&mut hand, &grasp(1), 1.0);
        assert_eq!((state.is_grasped, state.width), (false, 0.0));
    }

    #[test]
    fn a_hand_that_hangs_moves_on_later_and_numbers_that_are_none_kill_its_client() {
        let mut hand = Hand::new(0.0);
        hand.hang(true);
        let state = run(&mut hand, &grasp(1), 5.0);
        assert_eq!((state.is_moving, state.width), (true, MAX_WIDTH_M));
        hand.hang(false);
        assert_eq!(run(&mut hand, &grasp(1), 1.0).width, 0.0);
        assert!(hand.fetch(&command(2, f32::NAN, false)).is_err());
        assert!(hand.fetch(&GripperCommand { speed: 0.0, ..grasp(3) }).is_err());
    }
}
