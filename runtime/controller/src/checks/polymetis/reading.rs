//! Checks that only read.

use std::time::{Duration, Instant};

use tenon_polymetis::archive::read_controller;

use super::rig::{Rig, joints, stamp_s, vector};
use super::verdict::{Figure, Outcome, fail, require, skip, succeeded};

/// How long a stream is listened to.
const LISTEN: Duration = Duration::from_millis(500);
/// States that arrive within this belong to one burst.
const SAME_BURST: Duration = Duration::from_millis(4);
/// Streams at once: the server gives each a thread.
const STREAMS: usize = 4;

/// §2, §4.6: what the robot client says about itself.
pub fn metadata(rig: &mut Rig) -> Outcome {
    let metadata = succeeded("GetRobotClientMetadata", rig.get_metadata())?;
    require(metadata.dof == 7, "dof = 7", || metadata.dof.to_string())?;
    require(metadata.hz > 0, "hz > 0", || metadata.hz.to_string())?;
    vector("default_Kq", &metadata.default_kq)?;
    vector("default_Kqd", &metadata.default_kqd)?;
    vector("rest_pose", &metadata.rest_pose)?;
    for (name, gains) in [("default_Kx", &metadata.default_kx), ("default_Kxd", &metadata.default_kxd)] {
        require(gains.len() == 6, format!("{name}: 6 values"), || format!("{} values", gains.len()))?;
    }
    require(metadata.urdf_file.contains("panda_link8"), "the URDF's text, with panda_link8", || {
        format!("{} bytes without it", metadata.urdf_file.len())
    })?;
    require(metadata.default_controller.starts_with(b"PK"), "default_controller: a TorchScript archive (ZIP)", || {
        format!("{} bytes of something else", metadata.default_controller.len())
    })?;
    rig.figures.push(Figure::single("URDF in the metadata", "bytes", metadata.urdf_file.len() as f64));
    Ok(())
}

/// §4.1, §6.4: the methods that the server calls.
pub fn default_controller(rig: &mut Rig) -> Outcome {
    let metadata = succeeded("GetRobotClientMetadata", rig.get_metadata())?;
    let archive = read_controller(&metadata.default_controller);
    // What Tenon's reader does not know may still run on the server.
    let archive = archive.or_else(|e| skip(format!("Tenon's reader does not read it: {e}")))?;
    let resets = archive.sources().iter().any(|(_, text)| text.contains("def reset(self"));
    require(resets, "a method reset beside forward and is_terminated", || archive.class_name().to_owned())
}

/// §2: the fields of a state.
pub fn state(rig: &mut Rig) -> Outcome {
    let state = succeeded("GetRobotState", rig.state())?;
    joints(&state)?;
    vector("joint_velocities", &state.joint_velocities)?;
    vector("joint_torques_computed", &state.joint_torques_computed)?;
    for (name, values) in [
        ("prev_joint_torques_computed", &state.prev_joint_torques_computed),
        ("prev_joint_torques_computed_safened", &state.prev_joint_torques_computed_safened),
        ("motor_torques_measured", &state.motor_torques_measured),
        ("motor_torques_external", &state.motor_torques_external),
        ("motor_torques_desired", &state.motor_torques_desired),
    ] {
        // Simulations may leave out what they do not have.
        if !values.is_empty() {
            vector(name, values)?;
        }
    }
    require(state.timestamp.is_some(), "a timestamp", || "none".to_owned())?;
    require(state.error_code == 0, "error_code = 0", || state.error_code.to_string())
}

/// §4.5: GetRobotState follows the robot.
pub fn state_moves(rig: &mut Rig) -> Outcome {
    let mut last = stamp_s(&succeeded("GetRobotState", rig.state())?);
    for _ in 0..5 {
        let begin = Instant::now();
        loop {
            std::thread::sleep(Duration::from_millis(10));
            let next = stamp_s(&succeeded("GetRobotState", rig.state())?);
            require(next >= last, "no earlier timestamp", || format!("{:+.6} s", next - last))?;
            if next > last {
                last = next;
                break;
            }
            require(begin.elapsed() < rig.patience, "a later timestamp", || {
                "the same state again and again".to_owned()
            })?;
        }
    }
    Ok(())
}

/// §4.5: the stream brings states in order, in bursts; both are measured.
pub fn stream(rig: &mut Rig) -> Outcome {
    let states = succeeded("GetRobotStateStream", rig.stream(LISTEN))?;
    require(states.len() > 10, "more than ten states in half a second", || format!("{}", states.len()))?;
    for pair in states.windows(2) {
        let step = stamp_s(&pair[1].1) - stamp_s(&pair[0].1);
        require(step >= 0.0, "states in order of time", || format!("a step of {step:+.6} s"))?;
    }
    let (mut gaps_ms, mut bursts, mut size) = (Vec::new(), Vec::new(), 1.0);
    for pair in states.windows(2) {
        let gap = pair[1].0 - pair[0].0;
        if gap < SAME_BURST {
            size += 1.0;
        } else {
            gaps_ms.push(gap.as_secs_f64() * 1e3);
            bursts.push(size);
            size = 1.0;
        }
    }
    let length_s = stamp_s(&states[states.len() - 1].1) - stamp_s(&states[0].1);
    rig.figures.push(Figure::single("rate of the states", "Hz", (states.len() - 1) as f64 / length_s.max(1e-9)));
    rig.figures.extend(Figure::of("between bursts of the state stream", "ms", &gaps_ms));
    rig.figures.extend(Figure::of("states in a burst", "1", &bursts));
    Ok(())
}

/// §4.5: a stream ends when it is cancelled, and the server goes on answering.
pub fn stream_cancelled(rig: &mut Rig) -> Outcome {
    for _ in 0..STREAMS {
        let states = succeeded("GetRobotStateStream", rig.stream(Duration::from_millis(40)))?;
        require(!states.is_empty(), "states", || "none".to_owned())?;
    }
    let client = rig.client.clone();
    rig.runtime.block_on(async {
        let mut open = Vec::new();
        for _ in 0..STREAMS {
            let mut client = client.clone();
            let call = client.get_robot_state_stream(tenon_polymetis::proto::Empty {});
            if let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_secs(1), call).await {
                open.push(stream);
            }
        }
        // All of them are cancelled here.
    });
    succeeded("GetRobotState after streams were cancelled", rig.state()).map(|_| ())
}

/// §4.5: the log of a single index, long gone on a server that runs for more than five minutes.
pub fn log_of_one(rig: &mut Rig) -> Outcome {
    let states = succeeded("GetRobotStateLog 0…0", rig.log(0, 0))?;
    require(states.len() <= 1, "one state, or none where the index was forgotten", || format!("{}", states.len()))
}

/// §4.4: (−1, −1), (s, −1), (s, e) or (−1, e).
pub fn episode(rig: &mut Rig) -> Outcome {
    let episode = succeeded("GetEpisodeInterval", rig.episode())?;
    let sound = episode.start >= -1 && episode.end >= -1;
    if sound && (episode.start == -1 || episode.end == -1 || episode.end >= episode.start - 1) {
        Ok(())
    } else {
        fail("indices of at least -1, the end not before the start", format!("{episode:?}"))
    }
}
