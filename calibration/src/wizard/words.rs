//! What the wizard says.

use super::turn::{Arm, Ending, Outlook, Plan, Question};
use crate::rig::{Ended, Step};

/// What will be done, how long it takes, and where the emergency stop is.
pub fn welcome(plan: &Plan) -> Vec<String> {
    let cameras = plan.cameras.join(", ");
    let mut say = vec![
        format!("Calibration of rig {}, cameras {cameras}.", plan.rig),
        String::new(),
        "Five steps: 1 intrinsics (the lens of each camera), 2 camera to base (where the cameras stand), 3 proof (on pictures that"
            .to_owned(),
        "took no part in it), 4 latency, 5 noise at rest. At the end a version with a report is written; nothing is overwritten."
            .to_owned(),
        format!("It takes about {}. Every step is kept as it ends: after a break the wizard goes on there.", minutes(plan)),
    ];
    match plan.arm {
        Arm::None => say.push("The arm takes no part: leave it parked, out of the cameras' view of the base board.".to_owned()),
        Arm::Simulated => say.push("The arm is simulated: nothing moves in this room.".to_owned()),
        Arm::Recorded => say.push("The arm's poses come from the recording: nothing moves in this room.".to_owned()),
        Arm::Guided | Arm::Linked => say.extend([
            "THE ARM WILL MOVE, guided by your hand. Emergency stop: the button of the Franka, within reach before you begin; the"
                .to_owned(),
            "enabling switch stops the arm when it is let go or pressed through. This program never commands the arm.".to_owned(),
        ]),
    }
    if !plan.ended.is_empty() {
        say.push(String::new());
        say.push("An earlier session was interrupted; done already:".to_owned());
        for (step, how) in &plan.ended {
            let how = match how {
                Ended::Done { .. } => String::new(),
                Ended::Skipped { reason, .. } => format!(" (left out: {reason})"),
            };
            say.push(format!("  {}{how}", step.title()));
        }
    }
    say
}

fn minutes(plan: &Plan) -> String {
    if matches!(plan.arm, Arm::Simulated | Arm::Recorded) {
        return "a minute".into();
    }
    let guided = matches!(plan.arm, Arm::Guided | Arm::Linked);
    let poses = if guided { plan.arm_poses + plan.proof_poses } else { 0 };
    format!("{} minutes", 5 + 4 * plan.cameras.len() + poses)
}

/// A step before it begins.
pub fn before_step(plan: &Plan, step: Step) -> Vec<String> {
    let number = Step::ALL.iter().position(|s| *s == step).unwrap_or(0) + 1;
    let mut say = vec![String::new(), format!("{number} of 5: {}", step.title())];
    if (step, plan.arm) == (Step::Proof, Arm::None) && plan.cameras.len() == 1 {
        say.push(
            "One camera without the arm has nothing to be compared with: `skip REASON`, and trust the result the less."
                .into(),
        );
        return say;
    }
    let lines: &[&str] = match (step, plan.arm) {
        (Step::Intrinsics, _) => &[
            "Hold the printed board (`tenon-calibrate board`) before one camera after the other: near and far, in all corners of the",
            "picture, tilted to every side. What is still missing is said after every view.",
        ],
        (Step::Place, Arm::None) => &[
            "The base board must lie in its place, all four tags in view of every camera. Nobody moves anything meanwhile.",
        ],
        (Step::Place, Arm::Guided) => &[
            "Put the tag into the gripper. First the cameras look at the base board with the arm parked; then guide the arm to poses",
            "before the cameras, with the tag turned by 20 to 40 degrees to all sides, and type where it stands. After some poses it is",
            "said where the next one helps most.",
        ],
        (Step::Place, Arm::Linked) => &[
            "Put the tag into the gripper. First the cameras look at the base board with the arm parked; then guide the arm to poses",
            "before the cameras, with the tag turned by 20 to 40 degrees to all sides, and hold it still: the robot itself says where it",
            "stands. After some poses it is said where the next one helps most.",
        ],
        (Step::Place, Arm::Simulated | Arm::Recorded) => {
            &["The cameras look at the base board, then at a tag in the gripper in several poses of the arm."]
        }
        (Step::Proof, Arm::None) => &[
            "Put the parts down in view of two cameras; take them to another place after every picture, all over the workspace. The",
            "cameras must agree about where they are.",
        ],
        (Step::Proof, _) => &[
            "The same once more at other places, all over the workspace. These pictures take no part in the calibration.",
        ],
        (Step::Latency, Arm::None | Arm::Guided) => &[
            "Delays need a motion that is recorded: skip this here and give the records to `tenon-calibrate latency` later.",
        ],
        (Step::Latency, Arm::Linked) => &[
            "Swing the hand to and fro across the view of the cameras, some 10 cm, with changing speed, from now until all cameras have",
            "looked (10 seconds each); keep the tag in view. The robot says where the hand is meanwhile.",
        ],
        (Step::Latency, _) => {
            &["The arm swings the tag before the cameras; the delays follow from how much later it is seen."]
        }
        (Step::Noise, _) => &["Put the parts where the cameras see them and leave them alone for ten seconds."],
    };
    say.extend(lines.iter().map(|line| (*line).to_owned()));
    say
}

/// Which camera comes now.
pub fn before_camera(plan: &Plan, camera: usize) -> Vec<String> {
    let kept = match plan.views[camera] {
        0 => String::new(),
        views => format!(" ({views} views are kept from before)"),
    };
    vec![format!("camera {}: at least {} views of the board{kept}", plan.cameras[camera], plan.board_views)]
}

/// Where the arm should go next: along a list until the poses themselves say what is missing. `poses`: at least and at most.
pub fn arm_pose(step: Step, index: usize, poses: [usize; 2], outlook: &Outlook) -> Vec<String> {
    const TILTS: [&str; 5] = [
        "facing the cameras",
        "tilted to the left",
        "tilted to the right",
        "tilted towards the table",
        "turned in its own plane",
    ];
    const PLACES: [&str; 6] = [
        "in the middle",
        "on the far left",
        "on the far right",
        "near the robot",
        "near the cameras",
        "a hand's breadth higher",
    ];
    if let Outlook::Seen { next: Some(_), .. } = outlook {
        let mut say = suggestion(index, poses, outlook);
        say.push("  (left as seen from the robot; look first whether the arm gets there, somewhere near will do); hold it still".into());
        return say;
    }
    // Another start for the proof, so that its places are not those of the placing.
    let shift = if step == Step::Proof { 2 } else { 0 };
    let (tilt, place) = (TILTS[(index + shift) % TILTS.len()], PLACES[(index + shift) % PLACES.len()]);
    vec![format!("  pose {}: guide the tag {place}, {tilt}; hold it still", count(index, poses))]
}

/// `3 of 10 to 20`.
fn count(index: usize, [least, most]: [usize; 2]) -> String {
    let number = index + 1;
    if least == most { format!("{number} of {most}") } else { format!("{number} of {least} to {most}") }
}

/// The pose that helps most, and what is not known well enough without it.
pub fn suggestion(index: usize, poses: [usize; 2], outlook: &Outlook) -> Vec<String> {
    let Outlook::Seen { missing, next } = outlook else { return Vec::new() };
    let missing = missing.as_ref().map(|missing| format!("  still missing: {missing}"));
    let next = next.as_ref().map(|next| format!("  pose {}, the one that helps most: {next}", count(index, poses)));
    missing.into_iter().chain(next).collect()
}

/// No more poses are taken.
pub fn poses_taken(poses: usize, outlook: &Outlook) -> String {
    match outlook {
        Outlook::Open => format!("  {poses} poses are taken"),
        Outlook::Seen { missing: None, .. } => {
            format!("  {poses} poses are enough: everything is known better than its limit")
        }
        Outlook::Seen { missing: Some(missing), .. } => {
            format!("  {poses} poses are taken, and no more are asked for; still missing: {missing}")
        }
    }
}

/// Where the parts should go next.
pub fn parts_moved(index: usize, places: usize) -> String {
    format!(
        "  place {} of {places}: put the parts elsewhere, each in view of two cameras, and take your hands away",
        index + 1
    )
}

/// How a question ends on the terminal.
pub fn prompt(question: Question) -> &'static str {
    match question {
        Question::GoOn(_) => "Enter to begin, `skip REASON` to leave it out, `quit` to stop here > ",
        Question::ArmPose { .. } => "x y z qw qx qy qz of the hand in the robot's base > ",
        Question::ArmStill { .. } => "Enter when it is held still > ",
        Question::PartsMoved { .. } => "Enter when they lie still > ",
        Question::AfterFailure(_) => "what now? > ",
        Question::TakeIntoUse => "take it into use? [y/n] > ",
    }
}

/// What may be answered.
pub fn understood(question: Question, proof_failed: bool) -> String {
    match question {
        Question::GoOn(_) => "Enter begins, `skip REASON` leaves the step out, `quit` stops here and keeps what was measured".into(),
        Question::ArmPose { .. } => {
            "seven numbers, x y z in metres and the quaternion qw qx qy qz, as the robot shows them; or `skip REASON`, `quit`".into()
        }
        Question::ArmStill { .. } => "Enter takes the pictures, with the pose that the robot says; or `skip REASON`, `quit`".into(),
        Question::PartsMoved { .. } => "Enter takes the pictures; or `skip REASON`, `quit`".into(),
        Question::AfterFailure(Step::Proof) if proof_failed => {
            "`again` takes other pictures, `back` places the cameras anew, `keep` goes on (the version is then not taken into use), \
             `skip REASON`, `quit`"
                .into()
        }
        Question::AfterFailure(_) => "`again` does the step anew, `skip REASON` leaves it out, `quit` stops here".into(),
        Question::TakeIntoUse => "`y` or `n`; `quit` leaves the draft as it is".into(),
    }
}

pub fn after_failure(step: Step, proof_failed: bool) -> Vec<String> {
    vec![format!("{} did not succeed: {}", step.title(), understood(Question::AfterFailure(step), proof_failed))]
}

pub fn deciding(proof_passed: Option<bool>) -> Vec<String> {
    let proof = match proof_passed {
        Some(true) => "The proof passed.",
        Some(false) => "The proof failed.",
        None => "There is no proof: nothing says how wrong this calibration may be.",
    };
    vec![String::new(), format!("All steps have ended. {proof}")]
}

pub fn paused(plan: &Plan) -> Vec<String> {
    vec![format!("Kept as a draft. `tenon-calibrate wizard --rig {}` with the same cameras goes on here.", plan.rig)]
}

pub fn published(plan: &Plan, ending: Ending) -> Vec<String> {
    let rig = &plan.rig;
    match ending {
        Ending::InUse => vec![format!(
            "In use. `tenon-calibrate show --rig {rig}` shows it, `tenon-calibrate check` tells later whether a camera moved."
        )],
        _ => vec![format!(
            "Not in use. `tenon-calibrate show --rig {rig} --use-version NAME` takes it into use all the same."
        )],
    }
}
