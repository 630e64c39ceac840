//! What the evaluator makes of our archives is what the laws say: 10 000 steps of each.
//!
//! `TENON_TORCHSCRIPT=FOLDER` writes the archives, the states and the torques there for PyTorch to run the same
//! (`tests/interop/torchscript.sh`), and runs the archives that PyTorch wrote into `FOLDER/made`.

mod common;

use std::path::{Path, PathBuf};

use common::bench::{FormulaModel, Q, Random, coriolis, gains, plan_along, random_state, settings};
use common::{KQ, KQD, KX, KXD, REST, golden};
use tenon_polymetis::archive::{
    TensorData, TensorValue, default_controller, hybrid_controller, joint_impedance_controller, pd_controller,
    write_parameters,
};
use tenon_polymetis::script::{ControllerState, RobotModel, ScriptedController, evaluate_parameters};
use tenon_polymetis::waypoints::{
    Measured, ModelTerms, PLAN, Plan, Reception, Refusal, WaypointLaw, waypoint_controller,
};

const STEPS: usize = 10_000;
/// Of torques in N·m, relative above one: single precision carries 1.2e-7 of up to 87 N·m.
const TOLERANCE: f32 = 1e-5;

/// A controller, the updates that it gets before their steps, the states it sees and the torques it answers.
struct Course {
    name: &'static str,
    archive: Vec<u8>,
    updates: Vec<(usize, Vec<u8>)>,
    states: Vec<ControllerState>,
}

/// Torques, and which updates were accepted.
struct Outcome {
    torques: Vec<[f32; 7]>,
    accepted: Vec<bool>,
}

fn run(course: &Course) -> Outcome {
    let mut controller = ScriptedController::load(&course.archive).unwrap();
    let mut outcome = Outcome { torques: Vec::new(), accepted: Vec::new() };
    let mut updates = course.updates.iter().peekable();
    for (step, state) in course.states.iter().enumerate() {
        while let Some((_, archive)) = updates.next_if(|(at, _)| *at == step) {
            let parameters = evaluate_parameters(archive).unwrap();
            outcome.accepted.push(controller.update(&parameters).is_ok());
        }
        outcome.torques.push(controller.forward(state, &mut FormulaModel).unwrap());
        assert!(!controller.is_terminated().unwrap());
    }
    outcome
}

/// The largest difference, as a share of the tolerance's scale.
fn compare(name: &str, ours: &[[f32; 7]], expected: &[[f32; 7]]) -> f32 {
    assert_eq!(ours.len(), expected.len());
    let mut worst = 0.0_f32;
    for (step, (a, b)) in ours.iter().zip(expected).enumerate() {
        let scale = b.iter().fold(1.0_f32, |m, x| m.max(x.abs()));
        for i in 0..7 {
            let difference = (a[i] - b[i]).abs() / scale;
            assert!(difference <= TOLERANCE, "{name}, step {step}, joint {}: {} and {}", i + 1, a[i], b[i]);
            worst = worst.max(difference);
        }
    }
    println!("{name}: {} steps, largest difference {worst:.1e}", ours.len());
    worst
}

/// Random states and targets for a stock law, and what the law says in double precision.
fn stock(
    name: &'static str,
    archive: Vec<u8>,
    law: impl Fn(&[f64; 7], &[f64; 7], &[f64; 7]) -> [f64; 7],
) -> (Course, Vec<[f32; 7]>) {
    let mut random = Random(11);
    let mut target = REST;
    let (mut updates, mut states, mut torques) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..STEPS {
        if step % 37 == 5 && name != "default" {
            target = Q.map(|q| (q + 0.1 * random.around()) as f32);
            let tensor = TensorValue::f32_vector(&target);
            updates.push((step, write_parameters(&[("joint_pos_desired", &tensor)]).unwrap()));
        }
        let state = random_state(&mut random);
        let (q, v) = (state.joint_positions.map(f64::from), state.joint_velocities.map(f64::from));
        torques.push(law(&target.map(f64::from), &q, &v).map(|x| x as f32));
        states.push(state);
    }
    (Course { name, archive, updates, states }, torques)
}

fn pd(kp: &[f32; 7], kd: &[f32; 7], target: &[f64; 7], q: &[f64; 7], v: &[f64; 7]) -> [f64; 7] {
    std::array::from_fn(|i| f64::from(kp[i]) * (target[i] - q[i]) - f64::from(kd[i]) * v[i])
}

fn stock_courses() -> Vec<(Course, Vec<[f32; 7]>)> {
    let hybrid = |target: &[f64; 7], q: &[f64; 7], v: &[f64; 7]| {
        let jacobian = FormulaModel.jacobian(q, 17).unwrap();
        let along = |row: usize, x: &dyn Fn(usize) -> f64| (0..7).map(|i| jacobian[row][i] * x(i)).sum::<f64>();
        let force: [f64; 6] = std::array::from_fn(|row| {
            f64::from(KX[row]) * along(row, &|i| target[i] - q[i]) - f64::from(KXD[row]) * along(row, &|i| v[i])
        });
        let (joint, c) = (pd(&KQ, &KQD, target, q, v), coriolis(q, v));
        std::array::from_fn(|i| joint[i] + c[i] + (0..6).map(|row| jacobian[row][i] * force[row]).sum::<f64>())
    };
    let impedance = |target: &[f64; 7], q: &[f64; 7], v: &[f64; 7]| {
        let (joint, c) = (pd(&KQ, &KQD, target, q, v), coriolis(q, v));
        std::array::from_fn(|i| joint[i] + c[i])
    };
    let first = random_state(&mut Random(11)).joint_positions.map(f64::from);
    vec![
        stock("pd", pd_controller(&REST, &KQ, &KQD).unwrap(), |t, q, v| pd(&KQ, &KQD, t, q, v)),
        stock("default", default_controller(&KQ, &KQD).unwrap(), |_, q, v| pd(&KQ, &KQD, &first, q, v)),
        stock("joint_impedance", joint_impedance_controller(&REST, &KQ, &KQD, "<robot/>").unwrap(), impedance),
        stock("hybrid", hybrid_controller(&REST, &KQ, &KQD, &KX, &KXD, "<robot/>").unwrap(), hybrid),
    ]
}

#[test]
fn stock_laws_are_what_their_texts_say() {
    for (course, expected) in stock_courses() {
        compare(course.name, &run(&course).torques, &expected);
    }
}

#[test]
fn golden_controllers_run_as_the_laws_they_carry() {
    let courses = stock_courses();
    for (file, name) in [("pd_controller.minimal.pt", "pd"), ("hybrid_controller.minimal.pt", "hybrid")] {
        let Some(archive) = golden(file) else { continue };
        let (course, expected) = courses.iter().find(|(course, _)| course.name == name).unwrap();
        // Until the first update the target is the file's own.
        let begin = course.updates[0].0;
        let course = Course { archive, states: course.states.clone(), updates: course.updates.clone(), name };
        compare(file, &run(&course).torques[begin..], &expected[begin..]);
    }
    for file in ["minimal", "torch28", "torch113"].map(|kind| format!("update_joint_pos_desired.{kind}.pt")) {
        let Some(archive) = golden(&file) else { continue };
        assert_eq!(
            evaluate_parameters(&archive).unwrap(),
            tenon_polymetis::archive::read_parameters(&archive).unwrap()
        );
    }
}

/// How often each thing happened on a course.
#[derive(Debug, Default)]
struct Events {
    joined: usize,
    old: usize,
    over: usize,
    not_finite: usize,
    other_session: usize,
    cannot_join: usize,
    malformed: usize,
    brakes: usize,
}

/// Tenon's law along a course with losses, doubles, delays, NaN and nonsense.
fn waypoints(name: &'static str, cartesian: bool) -> (Course, Outcome, Vec<[f64; 7]>, Events) {
    let mut random = Random(23);
    let gains = gains(cartesian);
    let archive = waypoint_controller(&settings(), &gains, "<robot/>").unwrap();
    let mut law = WaypointLaw::new(&settings(), &gains);
    let mut events = Events::default();
    let (mut updates, mut states, mut commands) = (Vec::new(), Vec::new(), Vec::new());
    let mut outcome = Outcome { torques: Vec::new(), accepted: Vec::new() };
    let (mut from, mut start_s, mut sequence, mut silent_until, mut last) = (Q, 0.0, 0, 0, None::<Plan>);
    let (mut q, mut v, mut followed) = (Q, [0.0; 7], false);
    for step in 0..STEPS {
        if step > 0 && step % 20 == 0 && step >= silent_until {
            let n = step as i64;
            let kind = random.share();
            if !followed {
                // A plan from where the arm is.
                (from, start_s) = (q, n as f64 * 1e-3);
            }
            sequence += 1;
            let mut plan = plan_along(&from, start_s, sequence, n - n % 20 - 20, 20, 12);
            let mut malformed = None;
            match kind {
                _ if kind < 0.03 => silent_until = step + (random.share() * 600.0) as usize,
                _ if kind < 0.05 => plan.waypoints[7].positions_rad[3] = f64::NAN,
                _ if kind < 0.06 => plan.waypoints[0].velocities_rad_s[0] = f64::INFINITY,
                _ if kind < 0.08 => plan.session += 1,
                // Beside the way, a little or too much.
                _ if kind < 0.14 => {
                    let shift = 0.02 * random.share();
                    plan.waypoints.iter_mut().for_each(|w| w.positions_rad[2] += shift);
                }
                _ if kind < 0.16 => plan.waypoints.iter_mut().for_each(|w| w.positions_rad[1] += 0.4),
                // Late, and over.
                _ if kind < 0.20 => plan.first_step -= 100,
                _ if kind < 0.22 => plan.first_step -= 1000,
                _ if kind < 0.24 => {
                    let shape = [vec![13_usize, 13], vec![1], vec![1, 14], vec![182], vec![300, 14]]
                        [(random.share() * 5.0) as usize]
                        .clone();
                    let data = TensorData::F64(vec![1.0; shape.iter().product()]);
                    malformed = Some(TensorValue::new(shape, data).unwrap());
                }
                _ => {}
            }
            let mut sent = |law: &mut WaypointLaw, plan: &Plan| {
                updates.push((step, plan.to_archive().unwrap()));
                let taken = law.update(plan);
                match taken {
                    Ok(Reception::Joined) => events.joined += 1,
                    Ok(Reception::Old) => events.old += 1,
                    Ok(Reception::Over) => events.over += 1,
                    Err(Refusal::NotFinite) => events.not_finite += 1,
                    Err(Refusal::Session) => events.other_session += 1,
                    Err(Refusal::CannotJoin) => events.cannot_join += 1,
                    Err(Refusal::Format) => {}
                }
                outcome.accepted.push(taken.is_ok());
            };
            if let Some(tensor) = malformed {
                updates.push((step, write_parameters(&[(PLAN, &tensor)]).unwrap()));
                // In Rust a plan has its shape; one without waypoints is refused for the same reason.
                assert_eq!(law.update(&Plan { waypoints: Vec::new(), ..plan }), Err(Refusal::Format));
                outcome.accepted.push(false);
                events.malformed += 1;
            } else {
                sent(&mut law, &plan);
                if random.share() < 0.1 {
                    sent(&mut law, &plan);
                }
                if let Some(older) = last.replace(plan)
                    && random.share() < 0.1
                {
                    sent(&mut law, &older);
                }
            }
        }
        let state = ControllerState {
            joint_positions: q.map(|q| (q + 0.01 * random.around()) as f32),
            joint_velocities: v.map(|v| (v + 0.05 * random.around()) as f32),
            ..random_state(&mut random)
        };
        let measured = Measured { positions_rad: state.joint_positions, velocities_rad_s: state.joint_velocities };
        let (qm, vm) = (state.joint_positions.map(f64::from), state.joint_velocities.map(f64::from));
        let model = ModelTerms { jacobian: FormulaModel.jacobian(&qm, 17).unwrap(), coriolis_nm: coriolis(&qm, &vm) };
        let command = law.step(&measured, Some(&model));
        events.brakes += usize::from(followed && !command.follows);
        (q, v, followed) = (command.positions_rad, command.velocities_rad_s, command.follows);
        outcome.torques.push(command.torques_nm);
        commands.push(command.positions_rad);
        states.push(state);
    }
    (Course { name, archive, updates, states }, outcome, commands, events)
}

#[test]
fn tenons_law_is_what_its_text_says_whatever_the_network_does() {
    for (name, cartesian) in [("waypoints", false), ("waypoints_cartesian", true)] {
        let (course, expected, commands, events) = waypoints(name, cartesian);
        println!("{name}: {events:?}");
        let Events { joined, old, over, not_finite, other_session, cannot_join, malformed, brakes } = events;
        let seldom = [old, over, not_finite, other_session, cannot_join, malformed, brakes];
        assert!(joined > 150 && seldom.iter().all(|&count| count >= 2), "the course has everything");
        let outcome = run(&course);
        assert_eq!(outcome.accepted, expected.accepted);
        compare(name, &outcome.torques, &expected.torques);
        // The command itself, to the last digits of double precision.
        let mut controller = ScriptedController::load(&course.archive).unwrap();
        let mut updates = course.updates.iter().peekable();
        for (step, state) in course.states.iter().enumerate() {
            while let Some((_, archive)) = updates.next_if(|(at, _)| *at == step) {
                let _ = controller.update(&evaluate_parameters(archive).unwrap());
            }
            controller.forward(state, &mut FormulaModel).unwrap();
            let TensorData::F64(q) = controller.attribute("qs").unwrap().data().clone() else { panic!("float64") };
            assert!((0..7).all(|i| (q[i] - commands[step][i]).abs() < 1e-12), "step {step}");
        }
    }
}

fn folder() -> Option<PathBuf> {
    std::env::var_os("TENON_TORCHSCRIPT").map(PathBuf::from)
}

fn write_torques(path: &Path, torques: &[[f32; 7]]) {
    std::fs::write(path, torques.iter().flatten().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()).unwrap();
}

fn floats(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn interop_cases_are_written_for_pytorch() {
    let Some(folder) = folder() else { return };
    let mut courses = stock_courses();
    for (name, cartesian) in [("waypoints", false), ("waypoints_cartesian", true)] {
        let (course, outcome, ..) = waypoints(name, cartesian);
        courses.push((course, outcome.torques));
    }
    for (course, law) in courses {
        let folder = folder.join("ours").join(course.name);
        std::fs::create_dir_all(folder.join("updates")).unwrap();
        std::fs::write(folder.join("controller.pt"), &course.archive).unwrap();
        let outcome = run(&course);
        let mut lines = String::new();
        for (i, (step, archive)) in course.updates.iter().enumerate() {
            std::fs::write(folder.join(format!("updates/{i}.pt")), archive).unwrap();
            lines += &format!("{step} {i} {}\n", u8::from(outcome.accepted[i]));
        }
        std::fs::write(folder.join("updates.txt"), lines).unwrap();
        let states = course.states.iter().flat_map(|s| {
            let vectors = [s.joint_positions, s.joint_velocities, s.motor_torques_measured, s.motor_torques_external];
            vectors.into_iter().flatten().flat_map(f32::to_le_bytes)
        });
        std::fs::write(folder.join("states.f32"), states.collect::<Vec<_>>()).unwrap();
        write_torques(&folder.join("evaluator.f32"), &outcome.torques);
        write_torques(&folder.join("law.f32"), &law);
    }
}

#[test]
fn interop_controllers_scripted_by_pytorch_run_here() {
    let Some(made) = folder().map(|folder| folder.join("made")) else { return };
    let mut count = 0;
    for entry in std::fs::read_dir(&made).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let read = |file: &str| std::fs::read(folder.join(file)).unwrap();
        let mut controller = ScriptedController::load(&read("controller.pt")).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut updates = std::collections::HashMap::new();
        for line in String::from_utf8(read("updates.txt")).unwrap().lines() {
            let mut words = line.split(' ');
            let (step, file) = (words.next().unwrap().parse::<usize>().unwrap(), words.next().unwrap());
            updates.insert(step, evaluate_parameters(&read(&format!("updates/{file}.pt"))).unwrap());
        }
        let states = floats(&folder.join("states.f32"));
        let expected: Vec<[f32; 7]> =
            floats(&folder.join("torques.f32")).chunks_exact(7).map(|t| t.try_into().unwrap()).collect();
        let mut torques = Vec::new();
        let mut ended = None;
        for (step, row) in states.chunks_exact(28).enumerate() {
            if let Some(parameters) = updates.get(&step) {
                controller.update(parameters).unwrap_or_else(|e| panic!("{name}, step {step}: {e}"));
            }
            let vector = |i: usize| row[7 * i..7 * (i + 1)].try_into().unwrap();
            let state = ControllerState {
                timestamp: [0, 0],
                joint_positions: vector(0),
                joint_velocities: vector(1),
                motor_torques_measured: vector(2),
                motor_torques_external: vector(3),
            };
            torques.push(controller.forward(&state, &mut FormulaModel).unwrap_or_else(|e| panic!("{name}: {e}")));
            if controller.is_terminated().unwrap() {
                ended = Some(step);
                break;
            }
        }
        compare(&format!("scripted by PyTorch: {name}, ended {ended:?}"), &torques, &expected);
        count += 1;
    }
    assert!(count >= 4, "{count} controllers");
}
