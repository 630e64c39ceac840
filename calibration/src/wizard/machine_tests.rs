use std::collections::BTreeMap;

use super::*;

fn plan(arm: Arm) -> Plan {
    Plan {
        rig: "bench".into(),
        cameras: vec!["front".into(), "side".into()],
        arm,
        board_views: 2,
        arm_poses: 2,
        most_arm_poses: 2,
        proof_poses: 2,
        ended: BTreeMap::new(),
        solved: vec![false, false],
        views: vec![0, 0],
        proof_passed: None,
    }
}

fn good() -> Report {
    Report::Result { grade: Grade::Pass, lines: vec!["ok".into()] }
}

fn bad() -> Report {
    Report::Result { grade: Grade::Fail, lines: vec!["FAIL".into()] }
}

fn answer(task: &Task) -> Report {
    match task {
        Task::BoardView { .. } => Report::View { kept: true, lines: vec!["view".into()], missing: None, last: false },
        Task::Rest => Report::Rest { lines: vec![] },
        Task::Pose { .. } => Report::Pose { lines: vec![], outlook: Outlook::Open },
        Task::Publish { .. } => Report::Published { lines: vec![] },
        _ => good(),
    }
}

/// Runs to the end with Enter everywhere, or to a question that `stop` picks. `reports` may answer a task its own way.
fn run(
    wizard: &mut Wizard,
    mut turn: Turn,
    reports: &dyn Fn(&Task) -> Option<Report>,
    stop: &dyn Fn(Question) -> bool,
) -> (Turn, Vec<Task>) {
    let mut tasks = Vec::new();
    for _ in 0..200 {
        turn = match &turn.then {
            Then::End(_) => return (turn, tasks),
            Then::Ask(question) if stop(*question) => return (turn, tasks),
            Then::Ask(_) => wizard.step(Input::Answer("")),
            Then::Do(task) => {
                tasks.push(task.clone());
                let report = reports(task).unwrap_or_else(|| answer(task));
                wizard.step(Input::Report(report))
            }
        };
    }
    panic!("the wizard does not end");
}

fn never(_: Question) -> bool {
    false
}

#[test]
fn the_steps_come_in_their_order_and_end_in_use() {
    let mut wizard = Wizard::new(plan(Arm::Simulated));
    let turn = wizard.step(Input::Begin);
    let said = turn.say.join("\n");
    assert!(said.contains("Five steps") && said.contains("a minute") && said.contains("nothing moves"), "{said}");
    let (turn, tasks) = run(&mut wizard, turn, &|_| None, &never);
    assert_eq!(turn.then, Then::End(Ending::InUse));
    let view = |camera| Task::BoardView { camera };
    let pose = |step, index| Task::Pose { step, index, text: None };
    let expected = [
        view(0),
        view(0),
        Task::Intrinsics { camera: 0 },
        view(1),
        view(1),
        Task::Intrinsics { camera: 1 },
        Task::Rest,
        pose(Step::Place, 0),
        pose(Step::Place, 1),
        Task::Place,
        pose(Step::Proof, 0),
        pose(Step::Proof, 1),
        Task::Proof,
        Task::Latency,
        Task::Noise,
        Task::Publish { take_into_use: true },
    ];
    assert_eq!(tasks, expected);
}

#[test]
fn where_the_arm_moves_the_emergency_stop_comes_first() {
    let mut wizard = Wizard::new(plan(Arm::Guided));
    let said = wizard.step(Input::Begin).say.join("\n");
    assert!(said.contains("THE ARM WILL MOVE") && said.contains("Emergency stop"), "{said}");
}

#[test]
fn answers_that_make_no_sense_are_asked_again() {
    let mut wizard = Wizard::new(plan(Arm::Guided));
    let first = wizard.step(Input::Begin);
    assert_eq!(first.then, Then::Ask(Question::GoOn(Step::Intrinsics)));
    for nonsense in ["maybe", "42", "skip", "again", "back", "\u{1F600} ?"] {
        let turn = wizard.step(Input::Answer(nonsense));
        assert_eq!(turn.then, Then::Ask(Question::GoOn(Step::Intrinsics)), "{nonsense}");
        assert!(turn.say[0].contains("skip REASON"), "{nonsense}: {:?}", turn.say);
    }
    // To the first pose of the arm.
    let turn = wizard.step(Input::Answer(""));
    let (turn, _) = run(&mut wizard, turn, &|_| None, &|q| matches!(q, Question::ArmPose { .. }));
    let asked = turn.then;
    for (nonsense, why) in [
        ("", "0 numbers"),
        ("1 2 3", "3 numbers"),
        ("0.4 0 0.2 1 0 0 x", "\"x\" is not a number"),
        ("400 0 200 1 0 0 0", "within 5 m"),
        ("0.4 0 0.2 1 1 0 0", "length 1.414"),
        ("0.4 0 0.2 NaN 0 0 0", "length NaN"),
    ] {
        let turn = wizard.step(Input::Answer(nonsense));
        assert_eq!(turn.then, asked, "{nonsense}");
        assert!(turn.say[0].contains(why), "{nonsense}: {:?}", turn.say);
    }
    let turn = wizard.step(Input::Answer("0.4, 0, 0.2, 0, 1, 0, 0"));
    let pose = Task::Pose { step: Step::Place, index: 0, text: Some([0.4, 0.0, 0.2, 0.0, 1.0, 0.0, 0.0]) };
    assert_eq!(turn.then, Then::Do(pose));
}

#[test]
fn a_failed_proof_is_not_taken_into_use_whatever_is_answered() {
    let failing = |task: &Task| (*task == Task::Proof).then(bad);
    let mut wizard = Wizard::new(plan(Arm::Simulated));
    let turn = wizard.step(Input::Begin);
    let (turn, tasks) = run(&mut wizard, turn, &failing, &never);
    assert_eq!((turn.then, tasks.last()), (Then::End(Ending::Kept), Some(&Task::Publish { take_into_use: false })));
    // `back` places the cameras anew, and a proof that passes then counts.
    let mut wizard = Wizard::new(plan(Arm::Simulated));
    let turn = wizard.step(Input::Begin);
    let (turn, _) = run(&mut wizard, turn, &failing, &|q| q == Question::AfterFailure(Step::Proof));
    assert!(turn.say.iter().any(|line| line.contains("`back`")), "{:?}", turn.say);
    let turn = wizard.step(Input::Answer("back"));
    let (turn, tasks) = run(&mut wizard, turn, &|_| None, &never);
    assert_eq!(turn.then, Then::End(Ending::InUse));
    assert_eq!(tasks[0], Task::Forget { step: Step::Place });
    assert!(tasks.contains(&Task::Place) && !tasks.iter().any(|task| matches!(task, Task::Intrinsics { .. })));
}

#[test]
fn a_step_is_left_out_with_a_reason_and_without_a_proof_enter_does_not_take_into_use() {
    let mut wizard = Wizard::new(plan(Arm::Simulated));
    let turn = wizard.step(Input::Begin);
    let (_, _) = run(&mut wizard, turn, &|_| None, &|q| q == Question::GoOn(Step::Proof));
    let turn = wizard.step(Input::Answer("skip  no second camera yet"));
    let skip = Task::Skip { step: Step::Proof, reason: "no second camera yet".into() };
    assert_eq!(turn.then, Then::Do(skip));
    let (turn, _) = run(&mut wizard, turn, &|_| None, &|q| q == Question::TakeIntoUse);
    assert!(turn.say.iter().any(|line| line.contains("There is no proof")), "{:?}", turn.say);
    let mut other = wizard.clone();
    assert_eq!(wizard.step(Input::Answer("")).then, Then::Do(Task::Publish { take_into_use: false }));
    assert_eq!(other.step(Input::Answer("y")).then, Then::Do(Task::Publish { take_into_use: true }));
}

#[test]
fn an_interrupted_session_begins_at_the_first_step_that_is_missing() {
    let done = || Ended::Done { date: "today".into() };
    let ended =
        [(Step::Intrinsics, done()), (Step::Place, Ended::Skipped { date: "today".into(), reason: "why".into() })];
    let mut wizard = Wizard::new(Plan { ended: ended.into(), solved: vec![true, true], ..plan(Arm::Simulated) });
    let turn = wizard.step(Input::Begin);
    assert_eq!(turn.then, Then::Ask(Question::GoOn(Step::Proof)));
    let said = turn.say.join("\n");
    assert!(said.contains("interrupted") && said.contains("left out: why") && said.contains("3 of 5"), "{said}");
    // With one camera done, the other is next.
    let mut wizard = Wizard::new(Plan { solved: vec![true, false], ..plan(Arm::Simulated) });
    wizard.step(Input::Begin);
    assert_eq!(wizard.step(Input::Answer("")).then, Then::Do(Task::BoardView { camera: 1 }));
}

#[test]
fn quit_keeps_the_draft_and_says_how_to_go_on() {
    let mut wizard = Wizard::new(plan(Arm::Simulated));
    wizard.step(Input::Begin);
    let turn = wizard.step(Input::Answer("quit"));
    assert_eq!(turn.then, Then::End(Ending::Paused));
    assert!(turn.say[0].contains("tenon-calibrate wizard --rig bench"), "{:?}", turn.say);
    assert_eq!(wizard.step(Input::Answer("")).then, Then::End(Ending::Paused));
}

#[test]
fn what_cannot_be_done_is_offered_again_or_left_out() {
    let broken = |task: &Task| (*task == Task::Noise).then(|| Report::Failed("no part in view".into()));
    let mut wizard = Wizard::new(plan(Arm::Simulated));
    let turn = wizard.step(Input::Begin);
    let (turn, _) = run(&mut wizard, turn, &broken, &|q| q == Question::AfterFailure(Step::Noise));
    assert_eq!(turn.say[0], "no part in view");
    let mut other = wizard.clone();
    assert_eq!(other.step(Input::Answer("again")).then, Then::Do(Task::Forget { step: Step::Noise }));
    assert!(matches!(wizard.step(Input::Answer("")).then, Then::Do(Task::Skip { step: Step::Noise, .. })));
}

/// What the poses so far come to, after each of them.
fn pose_with(outlook: Outlook) -> Report {
    Report::Pose { lines: vec![], outlook }
}

fn lacking(next: Option<&str>) -> Outlook {
    Outlook::Seen { missing: Some("front is known to 3 mm".into()), next: next.map(str::to_owned) }
}

fn enough() -> Outlook {
    Outlook::Seen { missing: None, next: Some("move the hand 2 cm down".into()) }
}

fn placing(arm: Arm) -> Wizard {
    let done = || Ended::Done { date: "today".into() };
    Wizard::new(Plan {
        arm_poses: 2,
        most_arm_poses: 5,
        ended: [(Step::Intrinsics, done())].into(),
        solved: vec![true, true],
        ..plan(arm)
    })
}

fn poses_of(tasks: &[Task], step: Step) -> usize {
    tasks.iter().filter(|task| matches!(task, Task::Pose { step: of, .. } if *of == step)).count()
}

#[test]
fn poses_are_taken_until_everything_is_known_well_enough() {
    for (enough_after, expected) in [(1, 2), (2, 2), (4, 4), (99, 5)] {
        let mut wizard = placing(Arm::Simulated);
        let turn = wizard.step(Input::Begin);
        let outlook = |task: &Task| match task {
            Task::Pose { step: Step::Place, index, .. } if index + 1 < enough_after => {
                Some(pose_with(lacking(Some("move the hand 9 cm up"))))
            }
            Task::Pose { step: Step::Place, .. } => Some(pose_with(enough())),
            _ => None,
        };
        let (turn, tasks) = run(&mut wizard, turn, &outlook, &|q| q == Question::GoOn(Step::Proof));
        assert_eq!(poses_of(&tasks, Step::Place), expected, "enough after {enough_after}: {:?}", turn.say);
        assert_eq!(tasks.last(), Some(&Task::Place));
    }
}

#[test]
fn the_pose_that_helps_most_is_said_and_at_the_end_what_is_still_missing() {
    let mut wizard = placing(Arm::Guided);
    wizard.step(Input::Begin);
    assert_eq!(wizard.step(Input::Answer("")).then, Then::Do(Task::Rest));
    let mut turn = wizard.step(Input::Report(Report::Rest { lines: vec![] }));
    assert!(turn.say[0].contains("pose 1 of 2 to 5: guide the tag in the middle"), "{:?}", turn.say);
    for index in 0..5 {
        let pose = Question::ArmPose { step: Step::Place, index };
        assert_eq!(turn.then, Then::Ask(pose), "{:?}", turn.say);
        wizard.step(Input::Answer("0.4 0 0.2 0 1 0 0"));
        // Without a suggestion the list goes on.
        let next = (index % 2 == 0).then_some("move the hand 9 cm up");
        turn = wizard.step(Input::Report(pose_with(lacking(next))));
        let said = turn.say.join("\n");
        assert!(index == 4 || said.contains("front is known to 3 mm") == next.is_some(), "{said}");
        assert!(index == 4 || said.contains("9 cm up") == next.is_some(), "{said}");
    }
    assert_eq!(turn.then, Then::Do(Task::Place));
    let said = turn.say.join("\n");
    assert!(said.contains("5 poses are taken") && said.contains("still missing: front is known to 3 mm"), "{said}");
}

#[test]
fn the_pose_that_helps_most_is_said_even_where_nothing_is_missing() {
    let mut wizard = placing(Arm::Linked);
    wizard.step(Input::Begin);
    wizard.step(Input::Answer(""));
    wizard.step(Input::Report(Report::Rest { lines: vec![] }));
    wizard.step(Input::Answer(""));
    let turn = wizard.step(Input::Report(pose_with(enough())));
    assert_eq!(turn.then, Then::Ask(Question::ArmStill { step: Step::Place, index: 1 }), "two poses are the least");
    assert!(turn.say[0].contains("pose 2 of 2 to 5") && turn.say[0].contains("2 cm down"), "{:?}", turn.say);
    wizard.step(Input::Answer(""));
    let turn = wizard.step(Input::Report(pose_with(enough())));
    assert_eq!(turn.then, Then::Do(Task::Place));
    assert!(turn.say[0].contains("2 poses are enough"), "{:?}", turn.say);
}

#[test]
fn an_arm_on_the_link_is_only_held_still_and_a_pose_that_is_refused_is_asked_for_again() {
    let mut wizard = placing(Arm::Linked);
    let said = wizard.step(Input::Begin).say.join("\n");
    assert!(said.contains("THE ARM WILL MOVE") && said.contains("robot itself says where it"), "{said}");
    wizard.step(Input::Answer(""));
    let turn = wizard.step(Input::Report(Report::Rest { lines: vec![] }));
    let asked = Then::Ask(Question::ArmStill { step: Step::Place, index: 0 });
    assert_eq!(turn.then, asked);
    assert_eq!(wizard.step(Input::Answer("0.4 0 0.2 0 1 0 0")).then, asked, "numbers are not wanted");
    let pose = |index| Then::Do(Task::Pose { step: Step::Place, index, text: None });
    let refused = || Input::Report(Report::PoseRefused("joint 3 moved".into()));
    for _ in 0..4 {
        assert_eq!(wizard.step(Input::Answer("")).then, pose(0));
        let turn = wizard.step(refused());
        assert_eq!((turn.then, turn.say[0].as_str()), (asked.clone(), "joint 3 moved"));
    }
    // Taken at last: the next pose has all its tries.
    let mut given_up = wizard.clone();
    wizard.step(Input::Answer(""));
    wizard.step(Input::Report(pose_with(Outlook::Open)));
    assert_eq!(wizard.step(Input::Answer("")).then, pose(1));
    assert!(matches!(wizard.step(refused()).then, Then::Ask(Question::ArmStill { index: 1, .. })));
    // A script that only says Enter comes to an end.
    given_up.step(Input::Answer(""));
    let turn = given_up.step(refused());
    assert_eq!(turn.then, Then::Ask(Question::AfterFailure(Step::Place)));
    assert!(turn.say.iter().any(|line| line.contains("refused 5 times")), "{:?}", turn.say);
}
