//! Checks of UpdateController: the table of §4.3 as far as it moves nothing.

use std::time::Duration;

use tenon_polymetis::archive::TensorData;
use tenon_polymetis::chunks;
use tenon_polymetis::proto::{ControllerChunk, Empty, RobotState};
use tonic::Code;

use super::archives::{self, Law};
use super::controllers::off_the_law;
use super::rig::{Refusal, Rig, client_of, messages_of, one_message};
use super::verdict::{Outcome, fail, refused, require, skip, succeeded};

/// A deadline that most updates miss.
const TOO_SOON: Duration = Duration::from_micros(200);
/// Tries of what may be off by a step by chance.
const ATTEMPTS: usize = 4;
/// Clients at once, and the updates of each.
const CLIENTS: usize = 4;
const UPDATES_EACH: usize = 10;
/// Prefix of what the controller itself refuses.
const REFUSED: &str = "Failed to update controller";
const NOT_LOADED: &str = "Failed to load new controller params.";

/// §4.3: `start` is the index of the first state with the new values, and grows.
pub fn float32(rig: &mut Rig) -> Outcome {
    let running = rig.hold(Law::Pd)?;
    let archive = archives::joints(&running.target)?;
    let mut last = running.start;
    for _ in 0..5 {
        let start = rig.update_ok("7 float32", &archive)?;
        require(start > running.start && start >= last, format!("a start behind {last}"), || start.to_string())?;
        last = start;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

pub fn float64(rig: &mut Rig) -> Outcome {
    let running = rig.hold(Law::Pd)?;
    let doubles = TensorData::F64(running.target.map(f64::from).to_vec());
    rig.update_ok("7 float64", &archives::target(&[7], doubles)?).map(|_| ())
}

/// §4.3 with §4.2: bytes are collected whatever the messages.
pub fn any_chunks(rig: &mut Rig) -> Outcome {
    let running = rig.hold(Law::Pd)?;
    let archive = archives::joints(&running.target)?;
    for messages in [one_message(&archive), messages_of(&archive, &[100]), messages_of(&archive, &[1, 0, 500])] {
        let count = messages.len();
        succeeded(&format!("UpdateController in {count} messages"), rig.update_messages(messages)?)?;
    }
    Ok(())
}

/// An update that has to be refused while the controller runs on.
fn refused_update(
    rig: &mut Rig,
    what: &str,
    code: Code,
    text: &str,
    make: fn(&[f32; 7]) -> Outcome<Vec<u8>>,
) -> Outcome {
    let running = rig.hold(Law::Pd)?;
    let archive = make(&running.target)?;
    refused(&format!("UpdateController with {what}"), rig.update(&archive)?, code, text)?;
    rig.update_ok("the measured joints after it", &archives::joints(&running.target)?)?;
    rig.require_ours()
}

pub fn six(rig: &mut Rig) -> Outcome {
    refused_update(rig, "6 values", Code::Cancelled, REFUSED, |target| {
        archives::target(&[6], TensorData::F32(target[..6].to_vec()))
    })
}

pub fn row(rig: &mut Rig) -> Outcome {
    refused_update(rig, "shape [1, 7]", Code::Cancelled, REFUSED, |target| {
        archives::target(&[1, 7], TensorData::F32(target.to_vec()))
    })
}

pub fn unknown_key(rig: &mut Rig) -> Outcome {
    refused_update(rig, "an unknown key", Code::Cancelled, REFUSED, |target| {
        archives::named("ee_pos_desired", &[7], TensorData::F32(target.to_vec()))
    })
}

pub fn not_an_archive(rig: &mut Rig) -> Outcome {
    refused_update(rig, "no archive", Code::Cancelled, NOT_LOADED, |_| Ok(b"this is no archive".to_vec()))
}

pub fn truncated(rig: &mut Rig) -> Outcome {
    refused_update(rig, "a truncated archive", Code::Cancelled, NOT_LOADED, |target| {
        archives::joints(target).map(|archive| archive[..archive.len() / 2].to_vec())
    })
}

pub fn empty(rig: &mut Rig) -> Outcome {
    refused_update(rig, "an empty stream", Code::Cancelled, NOT_LOADED, |_| Ok(Vec::new()))
}

/// §6.1
pub fn version(rig: &mut Rig) -> Outcome {
    refused_update(rig, "version 11", Code::Cancelled, NOT_LOADED, |target| {
        archives::with_entry(&archives::joints(target)?, "version", |_| b"11\n".to_vec())
    })
}

pub fn wanting_arguments(rig: &mut Rig) -> Outcome {
    let text = "Unexpected error in RPC handling";
    refused_update(rig, "a forward that takes arguments", Code::Unknown, text, archives::wanting_arguments)
}

/// §4.3: `start` names the first state that was computed with the new values, not one before it.
///
/// The real server counts a step a moment after it has computed it: an update within that moment is answered with the step before.
/// So one attempt in a few has to be exact.
pub fn effective_from_start(rig: &mut Rig) -> Outcome {
    if rig.nudge_rad == 0.0 {
        return skip("both targets are the measured joints: with --move one is 0.5 mrad away");
    }
    let mut last = Ok(());
    for _ in 0..ATTEMPTS {
        let running = rig.hold(Law::Pd)?;
        let mut moved = running.target;
        moved[6] += rig.nudge_rad;
        std::thread::sleep(rig.steps(20));
        let from = rig.update_ok("joint 7 moved", &archives::joints(&moved)?)?;
        std::thread::sleep(rig.steps(20));
        rig.update_ok("the measured joints", &archives::joints(&running.target)?)?;
        let ended = rig.terminate()?;
        let states = succeeded("GetRobotStateLog", rig.log(from - 5, from + 5))?;
        require(states.len() == 11 && from - 5 > ended.start, "eleven states about the update", || {
            states.len().to_string()
        })?;
        last = changes_at(rig, &states, from, &running.target, &moved);
        if last.is_ok() {
            break;
        }
    }
    last
}

/// Eleven states about step `from`: the torque is of the old target before it, and of the new one from there on.
fn changes_at(rig: &Rig, states: &[RobotState], from: i32, old: &[f32; 7], new: &[f32; 7]) -> Outcome {
    let (kq, kqd) = archives::default_gains(&rig.metadata)?;
    // Half of what the step of the target makes of the torque tells one from the other.
    let between = 0.5 * kq[6] * rig.nudge_rad;
    for (state, index) in states.iter().zip(from - 5..) {
        let (target, which) = if index < from { (old, "old") } else { (new, "new") };
        let off = off_the_law(state, target, &kq, &kqd)?;
        require(off < between, format!("step {index} (start = {from}): the torque of the {which} target"), || {
            format!("{off:.4} N·m beside it")
        })?;
    }
    Ok(())
}

/// §4.7: an upload that is cancelled half way changes nothing, and the next one is answered.
pub fn abandoned(rig: &mut Rig) -> Outcome {
    let running = rig.hold(Law::Pd)?;
    rig.require_ours()?;
    let archive = archives::joints(&running.target)?;
    let half = ControllerChunk { torchscript_binary_chunk: archive[..archive.len() / 2].to_vec() };
    let mut client = rig.client.clone();
    // A stream that begins and never ends, until we give up.
    let call = async move {
        let begun = tokio_stream::once(half);
        let never = tokio_stream::pending();
        client.update_controller(tokio_stream::StreamExt::chain(begun, never)).await
    };
    let answer = rig.wait(Duration::from_millis(100), call);
    if let Ok(interval) = answer {
        return fail("no answer to half an upload", format!("OK, {interval:?}"));
    }
    rig.update_ok("the measured joints after a cancelled upload", &archive)?;
    rig.require_ours()
}

/// §4.7: a deadline that passes frees the client; the controller runs on. The calls have connections of their own: what becomes of a
/// connection whose call was given up is the client's business.
pub fn late(rig: &mut Rig) -> Outcome {
    let running = rig.hold(Law::Pd)?;
    rig.require_ours()?;
    let archive = archives::joints(&running.target)?;
    for _ in 0..3 {
        let client = {
            let _in_runtime = rig.runtime.enter();
            client_of(&rig.address)
        };
        let mut client = client.or_else(|e| skip(e.to_string()))?;
        let connected = rig.wait(rig.patience, client.get_episode_interval(Empty {}));
        succeeded("GetEpisodeInterval over a new connection", connected)?;
        let mut request = tonic::Request::new(tokio_stream::iter(chunks(&archive).collect::<Vec<_>>()));
        request.set_timeout(TOO_SOON);
        // Either outcome is sound: it may have been quick enough.
        let _: Result<_, _> = rig.wait(rig.patience, client.update_controller(request));
    }
    rig.update_ok("the measured joints after deadlines that passed", &archive)?;
    rig.require_ours()
}

/// §6.1: a dict without its tag is a `Dict[Any, Any]`, which the controller's `update` refuses.
pub fn untagged(rig: &mut Rig) -> Outcome {
    refused_update(rig, "an untagged dict", Code::Cancelled, REFUSED, archives::untagged)
}

/// §4.1: a mutex serialises the updates of all clients; none is lost or refused.
pub fn together(rig: &mut Rig) -> Outcome {
    let running = rig.hold(Law::Pd)?;
    rig.require_ours()?;
    let messages: Vec<_> = chunks(&archives::joints(&running.target)?).collect();
    let mut calls = Vec::new();
    for _ in 0..CLIENTS {
        let client = {
            let _in_runtime = rig.runtime.enter();
            client_of(&rig.address)
        };
        let mut client = client.or_else(|e| skip(e.to_string()))?;
        let (messages, patience) = (messages.clone(), rig.patience);
        calls.push(rig.runtime.spawn(async move {
            for _ in 0..UPDATES_EACH {
                let call = client.update_controller(tokio_stream::iter(messages.clone()));
                match tokio::time::timeout(patience, call).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(status)) => return Err(Refusal::from(status)),
                    Err(_) => return Err(Refusal::NoAnswer { after: patience }),
                }
            }
            Ok(())
        }));
    }
    for call in calls {
        let answer = rig.runtime.block_on(call).or_else(|e| skip(e.to_string()))?;
        succeeded(&format!("UpdateController of {CLIENTS} clients at once"), answer)?;
    }
    rig.require_ours()
}
