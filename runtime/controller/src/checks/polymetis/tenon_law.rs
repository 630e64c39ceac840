//! Checks of what Tenon sends: its own law, the samples of the specification, and the rule of its client.

use std::time::Duration;

use tenon_polymetis::archive::{TensorData, read_controller, read_parameters};
use tenon_polymetis::client::{ClientError, ControllerClient, Deadlines};
use tenon_polymetis::waypoints::{PLAN, Plan, Refusal as PlanRefusal, Waypoint};
use tonic::Code;

use super::archives::{self, Law};
use super::controllers::still;
use super::rig::{Refusal, Rig, Running, farthest};
use super::verdict::{Outcome, Stop, fail, refused, require, skip, succeeded};

/// Steps between waypoints, and how many: a plan that outlasts the time to the next one.
const SPACING_STEPS: u32 = 20;
const WAYPOINTS: usize = 40;
/// The law begins at the joints of its first step, which the arm's creeping and noise have moved a little from those of the plan.
const RESTING_TORQUE_NM: f32 = 0.1;

/// A plan that stays where the arm is, from the step with this log index on.
fn resting(running: &Running, sequence: i64, from: i32) -> Plan {
    let waypoint = Waypoint { positions_rad: running.target.map(f64::from), velocities_rad_s: [0.0; 7] };
    Plan {
        session: running.session,
        sequence,
        first_step: i64::from(from - running.start) / i64::from(SPACING_STEPS) * i64::from(SPACING_STEPS),
        spacing_steps: SPACING_STEPS,
        waypoints: vec![waypoint; WAYPOINTS],
    }
}

fn archive(plan: &Plan) -> Outcome<Vec<u8>> {
    plan.to_archive().or_else(|e| skip(format!("the plan cannot be written: {e}")))
}

/// Waypoints are taken, doubled ones and old ones too; the arm rests.
pub fn plans(rig: &mut Rig) -> Outcome {
    let running = rig.hold(Law::Tenon)?;
    let mut from = running.start;
    for sequence in 1..=5 {
        let plan = archive(&resting(&running, sequence, from))?;
        from = rig.update_ok("a plan", &plan)?;
        rig.update_ok("the same plan again", &plan)?;
        std::thread::sleep(Duration::from_millis(10));
    }
    rig.update_ok("a plan of the past", &archive(&resting(&running, 2, from))?)?;
    still(rig, &running.target)
}

/// What the law refuses says so in the server's answer, and the law goes on.
pub fn plan_refused(rig: &mut Rig) -> Outcome {
    let running = rig.hold(Law::Tenon)?;
    let sound = resting(&running, 1, running.start);
    let from = rig.update_ok("a plan", &archive(&sound)?)?;
    let foreign = Plan { session: running.session + 1, sequence: 2, ..sound.clone() };
    let shape = archives::named(PLAN, &[14], TensorData::F64(vec![0.0; 14]))?;
    for (what, plan, why) in [
        ("a plan of another session", archive(&foreign)?, PlanRefusal::Session),
        ("a plan of another shape", shape, PlanRefusal::Format),
    ] {
        let answer = rig.update(&plan)?;
        // The reason stands behind kilobytes of traceback.
        let reason = match &answer {
            Err(Refusal::Status { text, .. }) => PlanRefusal::in_text(text),
            _ => None,
        };
        require(reason == Some(why), format!("UpdateController with {what}: \"{why}\""), || format!("{answer:?}"))?;
        refused(&format!("UpdateController with {what}"), answer, Code::Cancelled, "Failed to update controller")?;
    }
    rig.update_ok("a sound plan after them", &archive(&resting(&running, 3, from))?)?;
    still(rig, &running.target)
}

/// The dead-man: past its patience without a plan the law brakes and holds on its own, and a plan is taken again afterwards.
pub fn dead_man(rig: &mut Rig) -> Outcome {
    let running = rig.hold(Law::Tenon)?;
    let hz = rig.metadata.hz.max(1);
    let settings = rig.bridge.waypoint_settings(hz.unsigned_abs(), running.session);
    // The plan would last for longer than the law's patience.
    let mut plan = resting(&running, 1, running.start);
    plan.spacing_steps = settings.patience_steps / 10 + 1;
    plan.first_step = 0;
    let from = rig.update_ok("a long plan", &archive(&plan)?)?;
    let silence_s = f64::from(settings.patience_steps + settings.shortest_brake_steps) / f64::from(hz) + 0.1;
    std::thread::sleep(Duration::from_secs_f64(silence_s));
    rig.require_ours()?;
    still(rig, &running.target)?;
    // Steps go on while nobody speaks; where the law stands is told by the next answer.
    let again = rig.update_ok("a plan of the past", &archive(&resting(&running, 1, from))?)?;
    let silent = again - from;
    let patience = settings.patience_steps as i32;
    require(silent > patience, format!("more than {patience} steps without a plan"), || format!("{silent}"))?;
    let ended_at = rig.update_ok("a plan after the silence", &archive(&resting(&running, 2, again))?)?;
    still(rig, &running.target)?;
    // Braking and joining again showed in no torque: what the law holds did not move.
    let states = succeeded("GetRobotStateLog", rig.log(from, ended_at))?;
    let gains = rig.bridge.gains();
    if gains.uses_model() {
        return Ok(());
    }
    for (state, index) in states.iter().zip(from..) {
        let off = super::controllers::off_the_law(state, &running.target, &gains.kq, &gains.kqd)?;
        require(off < RESTING_TORQUE_NM, format!("step {index}: the torque that holds"), || {
            format!("{off:.4} N·m beside it")
        })?;
    }
    Ok(())
}

/// Our client sends no update to a server on which it has set nothing: it could kill it.
pub fn client_waits_for_a_controller(rig: &mut Rig) -> Outcome {
    let target = rig.measured()?;
    let mut client = client(rig)?;
    match rig.runtime.block_on(client.update_joint_targets(&target)) {
        Err(ClientError::NoControllerSet) => Ok(()),
        other => fail("an error of our own client, before anything is sent", format!("{other:?}")),
    }
}

/// A client of Tenon's, whose deadlines are the suite's.
pub fn client(rig: &Rig) -> Outcome<ControllerClient> {
    let patience = rig.patience;
    let deadlines =
        Deadlines { set: patience, update: patience, get: patience, terminate: patience, metadata: patience };
    let _in_runtime = rig.runtime.enter();
    ControllerClient::new(&rig.address, deadlines).or_else(|e| skip(e.to_string()))
}

/// The archives in the samples' folder, their joints replaced by the measured ones.
pub fn samples(rig: &mut Rig) -> Outcome {
    let Some(folder) = rig.samples.clone() else { return skip("needs --samples, a folder of archives (.pt)") };
    let unreadable = |e: std::io::Error| Stop::Skip(format!("{}: {e}", folder.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|end| end == "pt") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.push((name, std::fs::read(&path).map_err(unreadable)?));
        }
    }
    if files.is_empty() {
        return skip(format!("{} has no archive (.pt)", folder.display()));
    }
    files.sort();
    // Updates first need something that takes them.
    for (name, bytes) in &files {
        let Ok(controller) = read_controller(bytes) else { continue };
        let held = controller.attribute("qd").and_then(|value| value.as_tensor()).and_then(|t| t.as_f32_array::<7>());
        let Some(held) = held else { return skip(format!("{name}: no attribute qd of 7 float32")) };
        let measured = rig.measured()?;
        let archive = replaced(name, bytes, &held, &measured)?;
        rig.set_archive(&archive).map_err(|stop| about(name, stop))?;
        rig.update_ok(name, &archives::joints(&measured)?)?;
        still(rig, &measured).map_err(|stop| about(name, stop))?;
    }
    let running = rig.hold(Law::Pd)?;
    for (name, bytes) in &files {
        let Ok(parameters) = read_parameters(bytes) else { continue };
        let Some(target) = parameters.first().and_then(|(_, tensor)| tensor.as_f32_array::<7>()) else {
            return skip(format!("{name}: no parameter of 7 float32"));
        };
        rig.update_ok(name, &replaced(name, bytes, &target, &running.target)?)?;
    }
    still(rig, &running.target)
}

/// A sample that commands the measured joints and nothing else.
fn replaced(name: &str, bytes: &[u8], from: &[f32; 7], to: &[f32; 7]) -> Outcome<Vec<u8>> {
    let Some(archive) = archives::with_joints(bytes, from, to) else {
        return skip(format!("{name}: its joints are not found in it, so it is not uploaded"));
    };
    // What is uploaded is looked at once more: a sample holds its own pose otherwise.
    let found = match (read_controller(&archive), read_parameters(&archive)) {
        (Ok(controller), _) => {
            controller.attribute("qd").and_then(|v| v.as_tensor()).and_then(|t| t.as_f32_array::<7>())
        }
        (_, Ok(parameters)) => parameters.first().and_then(|(_, tensor)| tensor.as_f32_array::<7>()),
        _ => None,
    };
    match found {
        Some(found) if farthest(&found, to) == 0.0 => Ok(archive),
        _ => skip(format!("{name}: its joints could not be replaced, so it is not uploaded")),
    }
}

fn about(name: &str, stop: Stop) -> Stop {
    match stop {
        Stop::Fail { expected, came } => Stop::Fail { expected: format!("{name}: {expected}"), came },
        Stop::Skip(why) => Stop::Skip(format!("{name}: {why}")),
    }
}
