//! Checks that kill the server, silence its robot client or make it throw (spec §4.2 to §4.6). Each leaves `rig.dirty` set where
//! the server has to be restarted before anything else.

use std::time::{Duration, Instant};

use tenon_polymetis::archive::TensorData;
use tenon_polymetis::chunks;
use tenon_polymetis::client::ClientError;
use tenon_polymetis::proto::LogInterval;
use tenon_polymetis::status::ServerError;
use tonic::Code;

use super::archives::{self, Law};
use super::controllers::{NOTHING_TO_TERMINATE, NOTHING_TO_UPDATE, still};
use super::rig::{Refusal, Rig};
use super::tenon_law::client;
use super::verdict::{Outcome, Stop, dies, fail, hangs, refused, require, skip, succeeded};

const NO_ROBOT: &str = "Robot context not valid when calling GetRobotClientMetadata!";
/// A robot client that threw tries to recover a second later, up to three times.
const RECOVERY: Duration = Duration::from_secs(8);
/// Tries of what a call that was given up may spoil.
const TRIES: usize = 5;
const UNSET: LogInterval = LogInterval { start: -1, end: -1 };

/// §4.3: the server dies of an update before any SetController.
pub fn update_before_set(rig: &mut Rig) -> Outcome {
    rig.restart(true)?;
    let target = rig.measured()?;
    rig.dirty = true;
    let update = chunks(&archives::joints(&target)?).collect();
    dies("UpdateController before any SetController", rig.update_unguarded(update, rig.patience))
}

/// A server whose robot client has not registered.
fn without_robot(rig: &mut Rig) -> Outcome {
    if rig.commands.robot_start.is_none() {
        return skip("needs --robot-stop-command and --robot-start-command");
    }
    rig.shell("robot-stop", &rig.commands.robot_stop)?;
    rig.restart(false)?;
    match rig.state() {
        Err(Refusal::Status { code: Code::FailedPrecondition, .. }) => Ok(()),
        _ => skip("the restarted server has a robot client although it was stopped"),
    }
}

/// What follows is told with the robot client back and the server as new, whatever the check found.
fn with_robot_again(rig: &mut Rig, outcome: Outcome) -> Outcome {
    if rig.commands.robot_start.is_some() {
        let started = rig.shell("robot-start", &rig.commands.robot_start);
        outcome.and(started)
    } else {
        outcome
    }
}

/// §4.5: no state was recorded yet.
pub fn empty_buffer(rig: &mut Rig) -> Outcome {
    let outcome = without_robot(rig).and_then(|()| {
        let text = "Cannot retrieve robot state from empty buffer!";
        refused("GetRobotState", rig.state(), Code::FailedPrecondition, text)?;
        refused("GetRobotClientMetadata", rig.get_metadata(), Code::Cancelled, NO_ROBOT)?;
        let episode = succeeded("GetEpisodeInterval", rig.episode())?;
        require(episode == UNSET, format!("{UNSET:?}"), || format!("{episode:?}"))
    });
    with_robot_again(rig, outcome)
}

/// §4.6: the server dies of a SetController before any robot client has registered.
pub fn set_before_robot(rig: &mut Rig) -> Outcome {
    let home = rig.home;
    let archive = rig.archive_of(Law::Pd, &home)?;
    let outcome = without_robot(rig).and_then(|()| {
        let answer = rig.set_unguarded(chunks(&archive).collect(), rig.patience);
        dies("SetController before any robot client registered", answer)
    });
    with_robot_again(rig, outcome)
}

/// §4.3: NaN is taken, and the torques become NaN.
pub fn nan(rig: &mut Rig) -> Outcome {
    let target = rig.measured()?;
    rig.set_archive(&archives::limp(&target, &rig.metadata)?)?;
    rig.dirty = true;
    let update = archives::target(&[7], TensorData::F32(vec![f32::NAN; 7]))?;
    let from = rig.update_ok("NaN", &update)?;
    std::thread::sleep(Duration::from_millis(30));
    // A server may have died of it by now, which the specification leaves open.
    let Ok(states) = rig.log(from, from) else { return Ok(()) };
    let torques = states.first().map(|state| state.joint_torques_computed.clone());
    require(torques.iter().flatten().any(|torque| torque.is_nan()), format!("NaN torques at step {from}"), || {
        format!("{torques:?}")
    })
}

/// §4.3: one value goes to all joints, here of a law without stiffness.
pub fn broadcast(rig: &mut Rig) -> Outcome {
    let target = rig.measured()?;
    rig.set_archive(&archives::limp(&target, &rig.metadata)?)?;
    let one = archives::target(&[1], TensorData::F32(vec![target[0]]))?;
    rig.update_ok("1 value", &one)?;
    rig.terminate().map(|_| ())
}

/// §4.6, §8: `forward` raises, the robot's loop stops for a second, and the controller is gone.
pub fn forward_raises(rig: &mut Rig) -> Outcome {
    let target = rig.measured()?;
    let set = rig.set_archive(&archives::raising(&target, &rig.metadata)?)?;
    rig.dirty = true;
    rig.ours = None;
    let end = Instant::now() + RECOVERY;
    let mut episode = set;
    while episode.start == set.start && episode.end == -1 {
        if Instant::now() >= end {
            return match rig.get_metadata() {
                Err(_) => {
                    skip("the robot client did not come back after its exception, so nobody dropped the controller")
                }
                Ok(_) => fail("the controller is dropped once the robot client is back", format!("{episode:?}")),
            };
        }
        std::thread::sleep(Duration::from_millis(20));
        episode = succeeded("GetEpisodeInterval", rig.episode())?;
    }
    dropped(rig, set.start, episode)?;
    rig.await_robot()?;
    // Steps that were computed count; the one that raised is not recorded.
    if episode.end != -1 {
        let most = set.start + archives::RAISING_STEPS;
        require(episode.end <= most, format!("an end of at most {most}"), || format!("{episode:?}"))?;
    }
    still(rig, &target)?;
    rig.dirty = false;
    Ok(())
}

/// The controller of this start is over: ended, or forgotten because the robot client registered anew. Updates are refused.
fn dropped(rig: &Rig, start: i32, episode: LogInterval) -> Outcome {
    require(episode == UNSET || (episode.start == start && episode.end != -1), "the controller has ended", || {
        format!("{episode:?}")
    })?;
    let update = chunks(&archives::joints(&rig.home)?).collect();
    refused("UpdateController", rig.update_unguarded(update, rig.patience), Code::Cancelled, NOTHING_TO_UPDATE)
}

/// §4.3 to §4.6: what is answered while the robot client is silent.
pub fn silent_robot(rig: &mut Rig) -> Outcome {
    let running = rig.hold(Law::Pd)?;
    rig.silence_robot()?;
    let outcome = (|| {
        refused("GetRobotClientMetadata", rig.get_metadata(), Code::Cancelled, NO_ROBOT)?;
        let first = succeeded("GetRobotState", rig.state())?;
        std::thread::sleep(Duration::from_millis(50));
        let second = succeeded("GetRobotState", rig.state())?;
        require(first == second, "the same old state twice", || "two states".to_owned())?;
        rig.require_ours()?;
        let update = archives::joints(&running.target)?;
        let a = rig.update_ok("the measured joints, without a robot", &update)?;
        std::thread::sleep(Duration::from_millis(50));
        let b = rig.update_ok("the measured joints, without a robot", &update)?;
        require(a == b, "a start that does not advance", || format!("{a}, {b}"))
    })();
    let awake = rig.wake_robot();
    rig.ours = None;
    outcome.and(awake)
}

/// §4.6: a gap of a second and more drops the controller; the default one holds.
pub fn gap_drops(rig: &mut Rig) -> Outcome {
    let running = rig.hold(Law::Pd)?;
    rig.silence_robot()?;
    rig.wake_robot()?;
    rig.ours = None;
    let episode = succeeded("GetEpisodeInterval", rig.episode())?;
    dropped(rig, running.start, episode)?;
    refused("TerminateController", rig.terminate_unguarded(rig.patience), Code::Cancelled, NOTHING_TO_TERMINATE)?;
    still(rig, &running.target)?;
    rig.hold(Law::Pd).map(|_| ())
}

/// §4.2: without a robot client SetController hangs and keeps the mutex; giving up frees nothing, the robot client's return does. The
/// controller never ran: `start` = −1.
pub fn set_hangs(rig: &mut Rig) -> Outcome {
    let target = rig.measured()?;
    let archive = rig.archive_of(Law::Pd, &target)?;
    // A controller of ours first: were the mutex not kept, an update would otherwise kill the server.
    rig.hold(Law::Pd)?;
    rig.terminate()?;
    rig.silence_robot()?;
    let waiting = rig.runtime.spawn({
        let (mut client, messages) = (rig.client.clone(), chunks(&archive).collect::<Vec<_>>());
        async move { client.set_controller(tokio_stream::iter(messages)).await }
    });
    std::thread::sleep(rig.patience);
    let outcome = (|| {
        require(!waiting.is_finished(), "SetController without a robot client: no answer", || "an answer".to_owned())?;
        let part = rig.patience / 3;
        let update = chunks(&archives::joints(&target)?).collect();
        hangs("UpdateController behind it", rig.update_unguarded(update, part))?;
        hangs("TerminateController behind it", rig.terminate_unguarded(part))?;
        hangs("a second SetController", rig.set_unguarded(chunks(&archive).collect(), part))?;
        succeeded("GetRobotState meanwhile", rig.state())?;
        succeeded("GetEpisodeInterval meanwhile", rig.episode()).map(|_| ())
    })();
    let awake = rig.wake_robot();
    rig.dirty = true;
    outcome.and(awake)?;
    let answer = rig.runtime.block_on(async { tokio::time::timeout(rig.patience, waiting).await });
    let interval = match answer {
        Ok(Ok(Ok(response))) => response.into_inner(),
        Ok(Ok(Err(status))) => return fail("SetController: OK with start = -1", Refusal::from(status).to_string()),
        Ok(Err(e)) => return skip(format!("the waiting call: {e}")),
        Err(_) => return fail("SetController is answered once the robot client is back", "no answer"),
    };
    require(interval.start == -1, "SetController: start = -1, the controller never ran", || format!("{interval:?}"))?;
    usable_again(rig)
}

/// The control plane works again. Calls that were given up wait for their turn on the real server and are carried out at some time: a
/// TerminateController among them ends whatever runs then, so one try may fail, and the server is restarted afterwards.
fn usable_again(rig: &mut Rig) -> Outcome {
    let mut last = Ok(());
    for _ in 0..TRIES {
        last = rig.hold(Law::Pd).and_then(|_| rig.terminate().map(|_| ()));
        if last.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    last
}

/// §4.4: TerminateController without a robot client hangs and keeps the mutex.
pub fn terminate_hangs(rig: &mut Rig) -> Outcome {
    let running = rig.hold(Law::Pd)?;
    rig.silence_robot()?;
    let outcome = (|| {
        hangs("TerminateController without a robot client", rig.terminate_unguarded(rig.patience))?;
        let update = chunks(&archives::joints(&running.target)?).collect();
        hangs("UpdateController behind it", rig.update_unguarded(update, rig.patience / 3))?;
        succeeded("GetEpisodeInterval meanwhile", rig.episode()).map(|_| ())
    })();
    let awake = rig.wake_robot();
    rig.dirty = true;
    rig.ours = None;
    outcome.and(awake)?;
    usable_again(rig)
}

/// §4.3, §10.1: a server that was restarted has no controller; our client notices and sends no update.
pub fn restart_noticed(rig: &mut Rig) -> Outcome {
    let target = rig.measured()?;
    rig.require_robot()?;
    let archive = rig.archive_of(Law::Pd, &target)?;
    let mut client = client(rig)?;
    let set = rig.runtime.block_on(client.set_controller(&archive));
    let start = set.or_else(|e| fail("SetController of Tenon's client: OK", e.to_string()))?;
    rig.ours = Some(start);
    let sent = rig.runtime.block_on(client.update_joint_targets(&target));
    require(sent.is_ok(), "an update of Tenon's client: OK", || format!("{sent:?}"))?;
    rig.restart(true)?;
    let noticed = rig.runtime.block_on(client.update_joint_targets(&target));
    let gone = matches!(
        noticed,
        Err(ClientError::Server { error: ServerError::Unavailable(_), .. } | ClientError::NoControllerSet)
    );
    require(gone, "Tenon's client: the connection is lost, nothing is sent", || format!("{noticed:?}"))?;
    let again = rig.runtime.block_on(client.update_joint_targets(&target));
    require(matches!(again, Err(ClientError::NoControllerSet)), "Tenon's client: no controller set", || {
        format!("{again:?}")
    })?;
    let episode = succeeded("GetEpisodeInterval of the new server", rig.episode())?;
    require(episode == UNSET, format!("{UNSET:?}: it knows of nothing, and lives"), || format!("{episode:?}"))
}

/// §4.5: a far end keeps the server busy over the range until the client cancels; it answers others meanwhile.
pub fn log_far_end(rig: &mut Rig) -> Outcome {
    let mut client = rig.client.clone();
    let call = async move {
        let mut stream = client.get_robot_state_log(LogInterval { start: 0, end: i32::MAX }).await?.into_inner();
        while stream.message().await?.is_some() {}
        Ok(tonic::Response::new(()))
    };
    hangs("GetRobotStateLog up to 2^31 - 1", rig.wait(Duration::from_millis(300), call))?;
    succeeded("GetRobotState after it was cancelled", rig.state())?;
    rig.hold(Law::Pd)?;
    rig.terminate().map(|_| ())
}

/// §4.2: archives beyond the reserved 1 MiB work too.
pub fn set_large(rig: &mut Rig) -> Outcome {
    let target = rig.measured()?;
    let archive = archives::large(&target, &rig.metadata, &rig.bridge)?;
    require(archive.len() > 1 << 20, "an archive above 1 MiB", || format!("{} bytes", archive.len()))?;
    rig.set_archive(&archive).map_err(|stop| match stop {
        Stop::Fail { expected, came } => Stop::Fail { expected: format!("{} bytes: {expected}", archive.len()), came },
        skip => skip,
    })?;
    rig.update_ok("the measured joints", &archives::joints(&target)?)?;
    rig.terminate().map(|_| ())
}
