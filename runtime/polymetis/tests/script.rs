//! The evaluator: what it refuses, and that nothing in an archive makes it panic or run away.

mod common;

use std::time::{Duration, Instant};

use common::bench::{FormulaModel, Random, gains, plan_along, random_state, settings};
use common::{KQ, KQD, KX, KXD, REST, with_entry, with_text};
use tenon_polymetis::archive::zip::ZipArchive;
use tenon_polymetis::archive::{
    ArchiveError, LIMITS, ParameterArchive, TensorValue, default_controller, hybrid_controller,
    joint_impedance_controller, pd_controller, write_parameters,
};
use tenon_polymetis::script::{ControllerState, NoRobotModel, ScriptError, ScriptedController, evaluate_parameters};
use tenon_polymetis::waypoints::{PLAN, waypoint_controller};

fn pd() -> Vec<u8> {
    pd_controller(&REST, &KQ, &KQD).unwrap()
}

/// The PD controller with another statement in place of the first of `forward`.
fn with_statement(statement: &str) -> Vec<u8> {
    with_text(&pd(), "    e = torch.mul(self.kp, torch.sub(self.qd, s[\"joint_positions\"]))", statement)
}

fn at_rest() -> ControllerState {
    ControllerState { joint_positions: REST, ..ControllerState::default() }
}

fn named(name: &str, values: &[f32]) -> (String, TensorValue) {
    (name.to_owned(), TensorValue::f32_vector(values))
}

#[test]
fn an_unknown_operator_is_refused_with_its_name_and_line_before_anything_runs() {
    for (call, name) in [
        ("torch.linalg_svd(self.qd)", "torch.linalg_svd"),
        ("ops.aten.warn(self.qd)", "ops.aten.warn"),
        ("__torch__.os.system(\"true\")", "__torch__.os.system"),
        ("print(\"hello\")", "print"),
        ("open(\"/etc/passwd\")", "open"),
        ("(self.qd).backward()", ".backward"),
        ("(self).missing()", ".missing"),
    ] {
        // In a branch that is never taken.
        let archive = with_statement(&format!("    if False:\n      e = {call}\n    else:\n      e = self.qd"));
        let error = ScriptedController::load(&archive).unwrap_err();
        let expected = ScriptError::UnknownOperator { name: name.to_owned(), file: "__torch__".to_owned(), line: 8 };
        assert_eq!(error, expected);
    }
}

#[test]
fn what_nobody_calls_may_be_unknown() {
    let archive = with_text(
        &pd(),
        "  def is_terminated",
        "  def helper(self: __torch__.C) -> Tensor:\n    return torch.linalg_svd(self.qd)\n  def is_terminated",
    );
    assert!(ScriptedController::load(&archive).is_ok());
}

#[test]
fn statements_outside_the_dialect_are_refused() {
    for statement in [
        "    e = self.qd + self.kp",
        "    e = torch.add(self.qd)",
        "    e = torch.add(self.qd, 1, 2, 3)",
        "    e = torch.add(self.qd, 1, beta=3)",
        "    e = missing",
        "    e = torch.add",
        "    e = [x for x in s]",
        "    self.qd[0] = 1.0\n    e = self.qd",
        "    import os\n    e = self.qd",
        "    for x in s:\n      pass\n    e = self.qd",
        "    e = CONSTANTS.c0",
    ] {
        let error = ScriptedController::load(&with_statement(statement)).unwrap_err();
        let placed = matches!(error, ScriptError::Syntax { .. } | ScriptError::Unsupported { .. });
        assert!(placed && error.to_string().contains(" line "), "{statement}: {error}");
    }
}

#[test]
fn an_exception_names_its_line_and_the_controller_lives_on() {
    let archive = with_statement(
        "    if bool(torch.gt(torch.select(self.qd, 0, 0), 1.)):\n      ops.prim.RaiseException(\"too far\")\n    else:\n      \
         pass\n    e = torch.mul(self.kp, torch.sub(self.qd, s[\"joint_positions\"]))",
    );
    let mut controller = ScriptedController::load(&archive).unwrap();
    assert_eq!(controller.forward(&at_rest(), &mut NoRobotModel), Ok([0.0; 7]));
    controller.update(&[named("joint_pos_desired", &[2.0; 7])]).unwrap();
    let error = controller.forward(&at_rest(), &mut NoRobotModel).unwrap_err();
    assert!(matches!(&error, ScriptError::Failed { line: 8, reason, .. } if reason == "too far"), "{error}");
    controller.update(&[named("joint_pos_desired", &REST)]).unwrap();
    assert_eq!(controller.forward(&at_rest(), &mut NoRobotModel), Ok([0.0; 7]));
}

#[test]
fn what_runs_away_is_stopped() {
    for statement in [
        "    e = self.qd\n    while True:\n      pass",
        "    e = self.qd\n    while True:\n      e = torch.cat([e, e])",
        "    e = torch.zeros([100000, 100000])",
        "    e = self.qd\n    l = [1]\n    while True:\n      _0 = torch.append(l, 1)",
        "    e = ((self).forward(s))[\"joint_torques\"]",
        "    e = torch.matmul(torch.eye(2000), torch.eye(2000))",
    ] {
        let mut controller = ScriptedController::load(&with_statement(statement)).unwrap();
        let begin = Instant::now();
        let error = controller.forward(&at_rest(), &mut NoRobotModel).unwrap_err();
        assert!(matches!(error, ScriptError::Failed { .. }), "{statement}: {error}");
        assert!(begin.elapsed() < Duration::from_secs(20), "{statement}");
    }
}

#[test]
fn a_warm_up_leaves_no_trace() {
    let law = waypoint_controller(&settings(), &gains(false), "").unwrap();
    let controller = ScriptedController::load(&law).unwrap();
    controller.warm_up(&at_rest(), &mut NoRobotModel).unwrap();
    assert_eq!(controller.attribute("n").unwrap().to_f32_vec(), [0.0]);
    let raising = with_statement("    e = s[\"missing\"]");
    assert!(ScriptedController::load(&raising).unwrap().warm_up(&at_rest(), &mut NoRobotModel).is_err());
}

#[test]
fn entries_of_an_update_stay_applied_where_a_later_one_fails() {
    let archive = with_text(
        &pd(),
        "    _0 = torch.copy_(self.qd, u[\"joint_pos_desired\"])",
        "    _0 = torch.copy_(self.qd, u[\"joint_pos_desired\"])\n    _1 = torch.copy_(self.kp, u[\"stiffness\"])",
    );
    let mut controller = ScriptedController::load(&archive).unwrap();
    let mut target = REST;
    target[0] += 1.0;
    assert!(controller.update(&[named("joint_pos_desired", &target)]).is_err());
    let torques = controller.forward(&at_rest(), &mut NoRobotModel).unwrap();
    assert!((torques[0] - KQ[0]).abs() < 1e-5);
}

#[test]
fn a_default_controller_holds_where_it_is_reset() {
    let mut controller = ScriptedController::load(&default_controller(&KQ, &KQD).unwrap()).unwrap();
    assert_eq!(controller.forward(&at_rest(), &mut NoRobotModel), Ok([0.0; 7]));
    let moved = ControllerState { joint_positions: [0.0; 7], ..at_rest() };
    assert!(controller.forward(&moved, &mut NoRobotModel).unwrap()[3] < -50.0);
    controller.reset().unwrap();
    assert_eq!(controller.forward(&moved, &mut NoRobotModel), Ok([0.0; 7]));
    assert!(matches!(controller.update(&[]), Err(ScriptError::NoMethod { method: "update", .. })));
}

#[test]
fn parameters_are_what_forward_returns() {
    let mut update = ParameterArchive::joint_pos_desired();
    let archive = update.patch(&REST).to_vec();
    assert_eq!(evaluate_parameters(&archive), Ok(vec![named("joint_pos_desired", &REST)]));
    let computed = with_text(&archive, "return self.d", "return {\"q\": torch.mul(self.d[\"joint_pos_desired\"], 2.)}");
    assert_eq!(evaluate_parameters(&computed), Ok(vec![named("q", &REST.map(|q| 2.0 * q))]));
    let wanting = with_text(&archive, "self: __torch__.P", "self: __torch__.P, x: int");
    assert!(matches!(
        evaluate_parameters(&wanting),
        Err(ScriptError::Archive(ArchiveError::ForwardNeedsArguments { .. }))
    ));
    let other = with_text(&archive, "return self.d", "return [1, 2]");
    assert!(matches!(evaluate_parameters(&other), Err(ScriptError::Archive(ArchiveError::NotParameters { .. }))));
    assert!(evaluate_parameters(&pd()).is_err());
}

fn samples() -> Vec<Vec<u8>> {
    vec![
        pd(),
        default_controller(&KQ, &KQD).unwrap(),
        joint_impedance_controller(&REST, &KQ, &KQD, "<robot/>").unwrap(),
        hybrid_controller(&REST, &KQ, &KQD, &KX, &KXD, "<robot/>").unwrap(),
        waypoint_controller(&settings(), &gains(false), "").unwrap(),
        waypoint_controller(&settings(), &gains(true), "<robot/>").unwrap(),
    ]
}

/// Words and signs of the class text are replaced, removed, doubled and swapped. Whatever becomes of it, it ends.
#[test]
fn damaged_text_is_refused_or_fails_or_runs_but_never_panics() {
    const WORDS: [&str; 24] = [
        "torch.",
        "self",
        "(",
        ")",
        "[",
        "]",
        ",",
        ".",
        "0",
        "-1",
        "7",
        "1e300",
        "None",
        "True",
        "if ",
        "else:",
        "\n",
        "  ",
        "while ",
        "=",
        "torch.select",
        "torch.slice",
        "torch.cat",
        "torch.reshape",
    ];
    let mut random = Random(5);
    let mut below = |n: usize| (random.share() * n as f64) as usize;
    let plan = plan_along(&REST.map(f64::from), 0.0, 1, 0, 20, 12).to_tensor();
    let (mut loaded, mut ran) = (0, 0);
    for sample in samples() {
        let zip = ZipArchive::open(&sample, &LIMITS).unwrap();
        let text = std::str::from_utf8(zip.entry("code/__torch__.py").unwrap()).unwrap();
        for _ in 0..1000 {
            let mut words: Vec<String> =
                text.split_inclusive([' ', '(', ')', ',', '.', '\n']).map(str::to_owned).collect();
            for _ in 0..=below(3) {
                let at = below(words.len());
                match below(4) {
                    0 => words[at] = WORDS[below(WORDS.len())].to_owned(),
                    1 => {
                        words.remove(at);
                    }
                    2 => words.insert(at, WORDS[below(WORDS.len())].to_owned()),
                    _ => {
                        let other = below(words.len());
                        words.swap(at, other);
                    }
                }
            }
            let damaged = words.concat();
            let archive = with_entry(&sample, "code/__torch__.py", |_| Some(damaged.clone().into_bytes()));
            let Ok(mut controller) = ScriptedController::load(&archive) else { continue };
            loaded += 1;
            let state = random_state(&mut Random(1));
            for step in 0..3 {
                let result = controller.forward(&state, &mut FormulaModel);
                ran += usize::from(result.is_ok());
                if step == 1 {
                    let _ = controller.update(&[named("joint_pos_desired", &REST), (PLAN.to_owned(), plan.clone())]);
                }
                let _ = controller.is_terminated();
                let _ = controller.reset();
            }
        }
    }
    assert!(loaded > 100 && ran > 300, "{loaded} loaded, {ran} steps");
}

/// Printed for the record; the bound is the loop's own period.
#[test]
fn a_step_costs_far_less_than_a_millisecond() {
    let names = ["pd", "default", "joint impedance", "hybrid", "waypoints", "waypoints with model"];
    for (name, archive) in names.iter().zip(samples()) {
        let mut controller = ScriptedController::load(&archive).unwrap();
        let state = random_state(&mut Random(3));
        let with_plan = name.starts_with("waypoints");
        let mut times = Vec::new();
        let mut updates = Vec::new();
        for step in 0..4000_i64 {
            if with_plan && step % 20 == 1 {
                let from = state.joint_positions.map(f64::from);
                let plan = plan_along(&from, 0.0, step, step / 20 * 20, 20, 8).to_archive().unwrap();
                let begin = Instant::now();
                let parameters = evaluate_parameters(&plan).unwrap();
                controller.update(&parameters).unwrap();
                updates.push(begin.elapsed());
            }
            let begin = Instant::now();
            controller.forward(&state, &mut FormulaModel).unwrap();
            controller.is_terminated().unwrap();
            times.push(begin.elapsed());
        }
        times.sort();
        updates.sort();
        let at = |times: &[Duration], share: f64| times.get((times.len() as f64 * share) as usize).copied();
        println!(
            "{name}: step p50 {:?}, p99 {:?}, max {:?}; update p50 {:?}",
            times[2000],
            times[3960],
            times[3999],
            at(&updates, 0.5).unwrap_or_default()
        );
        let loading = Instant::now();
        ScriptedController::load(&archive).unwrap();
        println!("  load {:?}", loading.elapsed());
        assert!(times[2000] < Duration::from_millis(1), "{name}: {:?}", times[2000]);
    }
    let update = write_parameters(&[("joint_pos_desired", &TensorValue::f32_vector(&REST))]).unwrap();
    let begin = Instant::now();
    for _ in 0..1000 {
        evaluate_parameters(&update).unwrap();
    }
    println!("stock update: {:?}", begin.elapsed() / 1000);
}
