//! Checks of SetController and TerminateController: what runs, from when to when, and who holds the arm afterwards.

use std::time::Duration;

use tenon_polymetis::chunks;
use tenon_polymetis::proto::{LogInterval, RobotState};
use tonic::Code;

use super::archives::{self, ENDING_STEPS, Law};
use super::rig::{Refusal, Rig, client_of, farthest, joints, messages_of, one_message, stamp_s, vector};
use super::verdict::{Outcome, fail, refused, require, skip, succeeded};

/// What the server says where nothing runs.
pub const NOTHING_TO_UPDATE: &str = "Tried to perform a controller update with no controller running.";
pub const NOTHING_TO_TERMINATE: &str = "Tried to terminate controller with no controller running.";
/// How long a held arm is watched, and how far a joint may creep meanwhile: what the robot's gravity model is wrong by, one law holds
/// with its stiffness and the next one, whose target is where the arm stands, has to find again.
const WATCH: Duration = Duration::from_millis(150);
const CREEP_RAD: f32 = 0.01;
/// Torques are float32 sums of a few products of at most 100 N·m.
const SAME_TORQUE_NM: f32 = 1e-3;

/// An upload that has to be refused, and must leave everything as it is.
fn refused_upload(rig: &mut Rig, what: &str, archive: &[u8]) -> Outcome {
    rig.require_robot()?;
    let before = succeeded("GetEpisodeInterval", rig.episode())?;
    let answer = rig.set_unguarded(chunks(archive).collect(), rig.patience);
    match answer {
        Err(Refusal::Status { .. }) => {}
        Ok(interval) => {
            // It runs, whatever it is: to be ended.
            rig.ours = (interval.start >= 0).then_some(interval.start);
            return fail(format!("SetController with {what}: refused"), format!("OK, {interval:?}"));
        }
        Err(refusal) => return fail(format!("SetController with {what}: refused"), refusal.to_string()),
    }
    let after = succeeded("GetEpisodeInterval", rig.episode())?;
    require(before == after, format!("the refused upload changes nothing: {before:?}"), || format!("{after:?}"))
}

pub fn set_not_an_archive(rig: &mut Rig) -> Outcome {
    refused_upload(rig, "no archive", b"this is no archive")
}

pub fn set_empty(rig: &mut Rig) -> Outcome {
    refused_upload(rig, "an empty stream", b"")
}

pub fn set_truncated(rig: &mut Rig) -> Outcome {
    let target = rig.measured()?;
    let archive = rig.archive_of(Law::Pd, &target)?;
    refused_upload(rig, "a truncated archive", &archive[..archive.len() / 2])
}

/// §4.2: the warm-up calls `forward` with the state, which parameters do not take.
pub fn set_parameters(rig: &mut Rig) -> Outcome {
    let target = rig.measured()?;
    refused_upload(rig, "an update's archive", &archives::joints(&target)?)
}

pub fn set_raising(rig: &mut Rig) -> Outcome {
    let target = rig.measured()?;
    let archive = archives::raising_at_once(&target, &rig.metadata)?;
    refused_upload(rig, "a controller that raises", &archive)
}

/// §6.1: version 11 is refused.
pub fn set_version(rig: &mut Rig) -> Outcome {
    let target = rig.measured()?;
    let archive = rig.archive_of(Law::Pd, &target)?;
    let archive = archives::with_entry(&archive, "version", |_| b"11\n".to_vec())?;
    refused_upload(rig, "version 11", &archive)
}

/// §4.4
pub fn terminate_nothing(rig: &mut Rig) -> Outcome {
    rig.require_robot()?;
    refused("TerminateController", rig.terminate_unguarded(rig.patience), Code::Cancelled, NOTHING_TO_TERMINATE)
}

pub fn set_pd(rig: &mut Rig) -> Outcome {
    holds(rig, Law::Pd)
}

pub fn set_joint_impedance(rig: &mut Rig) -> Outcome {
    holds(rig, Law::JointImpedance)
}

pub fn set_hybrid(rig: &mut Rig) -> Outcome {
    holds(rig, Law::Hybrid)
}

pub fn set_tenon(rig: &mut Rig) -> Outcome {
    holds(rig, Law::Tenon)
}

/// A law runs, holds the arm, takes its kind of update and ends.
fn holds(rig: &mut Rig, law: Law) -> Outcome {
    let running = rig.hold(law)?;
    rig.require_ours()?;
    if law != Law::Tenon {
        rig.update_ok("the measured joints", &archives::joints(&running.target)?)?;
    }
    still(rig, &running.target)?;
    let ended = rig.terminate()?;
    require(ended.start == running.start && ended.end >= ended.start, "the interval of what ran", || {
        format!("{ended:?}")
    })
}

/// The arm stays within [`CREEP_RAD`], with finite torques.
pub fn still(rig: &Rig, at: &[f32; 7]) -> Outcome {
    std::thread::sleep(WATCH);
    let state = succeeded("GetRobotState", rig.state())?;
    vector("joint_torques_computed", &state.joint_torques_computed)?;
    require(state.error_code == 0, "error_code = 0", || state.error_code.to_string())?;
    let creep = farthest(&joints(&state)?, at);
    require(creep < CREEP_RAD, format!("joints within {CREEP_RAD} rad of their target"), || format!("{creep:.4} rad"))
}

/// §4.2: one message holding everything.
pub fn set_one_message(rig: &mut Rig) -> Outcome {
    let target = rig.measured()?;
    let archive = rig.archive_of(Law::Hybrid, &target)?;
    rig.set_messages(one_message(&archive)).map(|_| ())
}

/// §4.2: chunk size is free.
pub fn set_odd_chunks(rig: &mut Rig) -> Outcome {
    let target = rig.measured()?;
    let archive = rig.archive_of(Law::Pd, &target)?;
    rig.set_messages(messages_of(&archive, &[1, 0, 333, 4000, 7])).map(|_| ())
}

/// §4.2: replaced at once, and the interval is the new one's.
pub fn set_replaces(rig: &mut Rig) -> Outcome {
    let first = rig.hold(Law::Pd)?;
    let second = rig.hold(Law::JointImpedance)?;
    require(second.start > first.start, format!("a start behind {}", first.start), || second.start.to_string())?;
    rig.require_ours()?;
    // No step between the two belongs to nobody: the log has a torque for each, once the last has been recorded.
    std::thread::sleep(Duration::from_millis(30));
    let states = succeeded("GetRobotStateLog", rig.log(first.start, second.start))?;
    require(
        states.len() == (second.start - first.start + 1) as usize,
        "every step from the first to the second",
        || format!("{} of {}", states.len(), second.start - first.start + 1),
    )
}

/// §4.2: errors in load or warm-up leave the running controller alone.
pub fn set_refused_leaves(rig: &mut Rig) -> Outcome {
    let running = rig.hold(Law::Pd)?;
    let raising = archives::raising_at_once(&running.target, &rig.metadata)?;
    for (what, archive) in [("no archive", &b"no archive"[..]), ("a controller that raises", &raising)] {
        refused_upload(rig, what, archive)?;
        rig.update_ok("the measured joints", &archives::joints(&running.target)?)?;
    }
    Ok(())
}

/// §4.1, §4.2, §4.4: from `start` to `end`, both included, the log has what the law says, and before `start` it has not.
pub fn torques_are_the_laws(rig: &mut Rig) -> Outcome {
    let running = rig.hold(Law::Pd)?;
    std::thread::sleep(Duration::from_millis(60));
    let ended = rig.terminate()?;
    require(ended.start == running.start, format!("start = {}", running.start), || format!("{ended:?}"))?;
    let (kq, kqd) = archives::default_gains(&rig.metadata)?;
    let states = succeeded("GetRobotStateLog", rig.log(ended.start, ended.end))?;
    require(states.len() == (ended.end - ended.start + 1) as usize, "all states of the interval", || {
        format!("{} of {}", states.len(), ended.end - ended.start + 1)
    })?;
    for (state, index) in states.iter().zip(ended.start..) {
        let off = off_the_law(state, &running.target, &kq, &kqd)?;
        require(off < SAME_TORQUE_NM, format!("step {index}: the torque of kq(qd - q) - kqd v"), || {
            format!("{off:.4} N·m beside it")
        })?;
    }
    Ok(())
}

/// Distance of a state's torque from the PD law, N·m.
pub fn off_the_law(state: &RobotState, target: &[f32; 7], kq: &[f32; 7], kqd: &[f32; 7]) -> Outcome<f32> {
    let (q, v) = (joints(state)?, vector("joint_velocities", &state.joint_velocities)?);
    let torque = vector("joint_torques_computed", &state.joint_torques_computed)?;
    let law: [f32; 7] = std::array::from_fn(|i| kq[i] * (target[i] - q[i]) - kqd[i] * v[i]);
    Ok(farthest(&law, &torque))
}

/// §4.4: the interval of Terminate is what GetEpisodeInterval says afterwards, and a second call finds nothing.
pub fn terminate(rig: &mut Rig) -> Outcome {
    let running = rig.hold(Law::Pd)?;
    let from = rig.update_ok("the measured joints", &archives::joints(&running.target)?)?;
    let ended = rig.terminate()?;
    require(ended.start == running.start && ended.end >= from - 1, "the interval of what ran", || {
        format!("{ended:?}")
    })?;
    let episode = succeeded("GetEpisodeInterval", rig.episode())?;
    require(episode == ended, format!("{ended:?}"), || format!("{episode:?}"))?;
    refused(
        "a second TerminateController",
        rig.terminate_unguarded(rig.patience),
        Code::Cancelled,
        NOTHING_TO_TERMINATE,
    )
}

/// §4.3: the controller was terminated. A controller had been set, so this does not kill the server.
pub fn update_after_terminate(rig: &mut Rig) -> Outcome {
    let running = rig.hold(Law::Pd)?;
    rig.terminate()?;
    let update = chunks(&archives::joints(&running.target)?).collect();
    refused("UpdateController", rig.update_unguarded(update, rig.patience), Code::Cancelled, NOTHING_TO_UPDATE)
}

/// §4.1: the default controller latches the first state after the hand-over and holds it.
pub fn default_holds(rig: &mut Rig) -> Outcome {
    rig.hold(Law::Pd)?;
    let ended = rig.terminate()?;
    std::thread::sleep(WATCH);
    let (kq, kqd) = archives::default_gains(&rig.metadata)?;
    let states = succeeded("GetRobotStateLog", rig.log(ended.end + 1, -1))?;
    let Some(first) = states.first() else {
        return fail("states behind the end of the controller", "none");
    };
    let held = joints(first)?;
    for (state, index) in states.iter().take(50).zip(ended.end + 1..) {
        let off = off_the_law(state, &held, &kq, &kqd)?;
        require(off < SAME_TORQUE_NM, format!("step {index}: the default controller's torque, holding"), || {
            format!("{off:.4} N·m beside it")
        })?;
    }
    still(rig, &held)
}

/// §4.4: `is_terminated` is asked after each step; the warm-up's five steps do not count.
pub fn ends_itself(rig: &mut Rig) -> Outcome {
    let target = rig.measured()?;
    let set = rig.set_archive(&archives::ending(&target, &rig.metadata)?)?;
    let mut episode = set;
    for _ in 0..200 {
        episode = succeeded("GetEpisodeInterval", rig.episode())?;
        if episode.end != -1 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    rig.ours = None;
    let expected = LogInterval { start: set.start, end: set.start + ENDING_STEPS - 1 };
    require(episode == expected, format!("{ENDING_STEPS} steps, then the default controller: {expected:?}"), || {
        format!("{episode:?}")
    })?;
    let update = chunks(&archives::joints(&target)?).collect();
    refused("UpdateController", rig.update_unguarded(update, rig.patience), Code::Cancelled, NOTHING_TO_UPDATE)
}

/// §5: what a controller is given.
pub fn inputs(rig: &mut Rig) -> Outcome {
    let target = rig.measured()?;
    rig.set_archive(&archives::looking_at_inputs(&target, &rig.metadata)?)?;
    std::thread::sleep(Duration::from_millis(30));
    rig.require_ours()
}

/// §4.4: there is no ownership; who compares `start` notices that his controller was replaced.
pub fn replaced(rig: &mut Rig) -> Outcome {
    let first = rig.hold(Law::Pd)?;
    let target = rig.measured()?;
    let archive = rig.archive_of(Law::Pd, &target)?;
    rig.require_robot()?;
    let other = {
        let _in_runtime = rig.runtime.enter();
        client_of(&rig.address)
    };
    let mut other = other.or_else(|e| skip(e.to_string()))?;
    let messages: Vec<_> = chunks(&archive).collect();
    let answer = rig.wait(rig.patience, other.set_controller(tokio_stream::iter(messages)));
    let second = succeeded("SetController of another client", answer)?;
    // Whoever set it: it is to be terminated by this suite.
    rig.ours = Some(second.start);
    let episode = succeeded("GetEpisodeInterval", rig.episode())?;
    require(second.start > first.start && episode == second, "the other's interval, with a later start", || {
        format!("{second:?}, GetEpisodeInterval {episode:?}")
    })
}

/// §4.5: the log's ends count, and −1 reaches up to the newest.
pub fn log_interval(rig: &mut Rig) -> Outcome {
    rig.hold(Law::Pd)?;
    std::thread::sleep(Duration::from_millis(50));
    let ended = rig.terminate()?;
    let all = succeeded("GetRobotStateLog", rig.log(ended.start, ended.end))?;
    let count = (ended.end - ended.start + 1) as usize;
    require(all.len() == count, format!("{count} states, both ends included"), || all.len().to_string())?;
    let one = succeeded("GetRobotStateLog", rig.log(ended.end, ended.end))?;
    require(one.len() == 1 && one.last() == all.last(), "one state, the last", || format!("{} states", one.len()))?;
    let newest = succeeded("GetRobotStateLog … -1", rig.log(ended.end, -1))?;
    require(!newest.is_empty() && newest.first() == all.last(), "from the last state up to the newest", || {
        format!("{} states", newest.len())
    })
}

/// §4.5: the stream brings every state, which the log shows.
pub fn stream_is_the_log(rig: &mut Rig) -> Outcome {
    let running = rig.hold(Law::Pd)?;
    let streamed = succeeded("GetRobotStateStream", rig.stream(Duration::from_millis(250)))?;
    let ended = rig.terminate()?;
    let log = succeeded("GetRobotStateLog", rig.log(running.start, ended.end))?;
    let Some((_, first)) = streamed.first() else { return fail("states", "none") };
    let Some(at) = log.iter().position(|state| state == first) else {
        return fail("the stream's first state in the log", format!("none of time {:.6}", stamp_s(first)));
    };
    for (number, ((_, state), logged)) in streamed.iter().zip(&log[at..]).enumerate() {
        require(state == logged, format!("state {number} of the stream: the log's next"), || {
            format!("{:+.6} s beside it", stamp_s(state) - stamp_s(logged))
        })?;
    }
    Ok(())
}
