//! What goes into the wizard and what comes out of it, as plain values.

use std::collections::BTreeMap;

use crate::rig::{Ended, Step};
use crate::steps::Grade;

/// What the wizard has to work with.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub rig: String,
    pub cameras: Vec<String>,
    pub arm: Arm,
    /// Views of the board for each camera's intrinsics, at least.
    pub board_views: usize,
    /// Poses of the arm for the placing, at least and at most, and other ones for the proof; 0 where there is no arm.
    pub arm_poses: usize,
    pub most_arm_poses: usize,
    pub proof_poses: usize,
    /// Steps of the draft that have ended already.
    pub ended: BTreeMap<Step, Ended>,
    /// Cameras whose intrinsics the draft has already, and board views that are kept of each camera.
    pub solved: Vec<bool>,
    pub views: Vec<usize>,
    /// How the proof ended, if it has: the draft's entry.
    pub proof_passed: Option<bool>,
}

/// How the arm gets to its poses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    /// There is none: cameras are placed in the frame of the base board.
    None,
    /// It moves by itself, because it is simulated.
    Simulated,
    /// A person guides it by hand and says where it stands.
    Guided,
    /// A person guides it by hand, and the robot says where it stands.
    Linked,
    /// Its poses were recorded together with the pictures.
    Recorded,
}

/// What comes in.
#[derive(Debug, Clone, PartialEq)]
pub enum Input<'a> {
    /// The beginning.
    Begin,
    /// A line of the person at the terminal.
    Answer(&'a str),
    /// What a task came to.
    Report(Report),
}

/// What a task came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// A view of the board was kept (or not, with the reason in `lines`).
    View {
        kept: bool,
        lines: Vec<String>,
        /// What the views so far still lack, in words; `None`: nothing.
        missing: Option<String>,
        /// There are no more pictures.
        last: bool,
    },
    /// The cameras looked at the base board.
    Rest {
        lines: Vec<String>,
    },
    /// The arm's pose was taken with all cameras.
    Pose {
        lines: Vec<String>,
        outlook: Outlook,
    },
    /// The arm's pose could not be taken, because it was not held still for instance. It is asked for again.
    PoseRefused(String),
    /// A step was worked out, with its numbers and limits as lines.
    Result {
        grade: Grade,
        lines: Vec<String>,
    },
    /// A step could not be worked out.
    Failed(String),
    Published {
        lines: Vec<String>,
    },
}

/// How far the poses of the arm have come.
#[derive(Debug, Clone, PartialEq)]
pub enum Outlook {
    /// Too few to say.
    Open,
    /// What is not known well enough yet (`None`: everything is), and the pose that helps most next as a way from where the hand is now
    /// (`None`: no camera would see the tag in any). Both in words.
    Seen { missing: Option<String>, next: Option<String> },
}

/// What the wizard wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Look through a camera for the board and keep the view if it is good.
    BoardView {
        camera: usize,
    },
    /// Work out a camera's intrinsics.
    Intrinsics {
        camera: usize,
    },
    /// Look at the base board with all cameras while nothing moves.
    Rest,
    /// Take pictures with the arm at a pose (all of `arm_poses` or `proof_poses` where they are recorded). `text`: the pose, where a
    /// person gave it.
    Pose {
        step: Step,
        index: usize,
        text: Option<[f64; 7]>,
    },
    Place,
    Proof,
    Latency,
    Noise,
    /// Write down that a step was left out.
    Skip {
        step: Step,
        reason: String,
    },
    /// Throw away what was taken for a step, to take it anew.
    Forget {
        step: Step,
    },
    /// Write the report and make the draft a version; take it into use or not.
    Publish {
        take_into_use: bool,
    },
}

/// A question, and what an empty answer (or `--yes`) means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Enter goes on.
    GoOn(Step),
    /// A pose of the arm: seven numbers.
    ArmPose {
        step: Step,
        index: usize,
    },
    /// Enter says that the arm is held still at a pose; the robot says which.
    ArmStill {
        step: Step,
        index: usize,
    },
    /// Enter says that the parts lie at another place.
    PartsMoved {
        index: usize,
    },
    /// After a failure: again, skip, back, keep.
    AfterFailure(Step),
    TakeIntoUse,
}

/// What comes out: lines for the person, then one thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    pub say: Vec<String>,
    pub then: Then,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Then {
    Ask(Question),
    Do(Task),
    End(Ending),
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A version is there and in use.
    InUse,
    /// A version is there, but not in use.
    Kept,
    /// The draft is kept; the wizard goes on there.
    Paused,
}
