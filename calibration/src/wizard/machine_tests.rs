use super::*;

fn plan(arm: Arm) -> Plan {
    Plan {
        rig: "bench".into(),
        cameras: vec!["front".into(), "side".into()],
        arm,
        board_views: 2,
        arm_poses: 2,
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
        Task::Pose { .. } => Report::Pose { lines: vec![] },
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
