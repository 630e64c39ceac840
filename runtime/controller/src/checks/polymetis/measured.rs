//! Figures of the server: what calls take, how old states are, what updates cost the control loop. Nothing is judged.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tenon_polymetis::chunks;
use tenon_polymetis::proto::ControllerChunk;

use super::archives::{self, Law};
use super::rig::{Rig, one_message, stamp_s};
use super::verdict::{Figure, Outcome, require, succeeded};

/// GetRobotState calls, and updates of each kind.
const GETS: usize = 300;
const UPDATES: usize = 400;
/// Updates at an even rate, and their period.
const STEADY: usize = 100;
const STEADY_PERIOD: Duration = Duration::from_millis(20);

/// §4.5, §4.8: GetRobotState, and the age of what it brings as far as the clocks agree.
pub fn get_state(rig: &mut Rig) -> Outcome {
    let (mut took_ms, mut age_ms) = (Vec::new(), Vec::new());
    for _ in 0..GETS / rig.haste {
        let begin = Instant::now();
        let state = succeeded("GetRobotState", rig.state())?;
        took_ms.push(begin.elapsed().as_secs_f64() * 1e3);
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        age_ms.push((now_s - stamp_s(&state)) * 1e3);
        // Between the robot's steps, not in time with them.
        std::thread::sleep(Duration::from_micros(700));
    }
    rig.figures.extend(Figure::of("GetRobotState", "ms", &took_ms));
    rig.figures.extend(Figure::of("age of the state (clocks permitting)", "ms", &age_ms));
    Ok(())
}

/// §4.8: updates one after the other, in chunks and whole, and Tenon's plans.
pub fn updates(rig: &mut Rig) -> Outcome {
    let running = rig.hold(Law::Pd)?;
    let archive = archives::joints(&running.target)?;
    timed(rig, "UpdateController, 1024-byte chunks", &|| chunks(&archive).collect())?;
    timed(rig, "UpdateController, one message", &|| one_message(&archive))?;
    let ended = rig.terminate()?;
    // What the control loop felt meanwhile: the newest states of the interval.
    let from = ended.start.max(ended.end.saturating_sub(2000));
    let states = succeeded("GetRobotStateLog", rig.log(from, ended.end))?;
    let latency: Vec<f64> = states.iter().map(|state| f64::from(state.prev_controller_latency_ms)).collect();
    rig.figures.extend(Figure::of("ControlUpdate during updates", "ms", &latency));
    Ok(())
}

/// Sends the same update again and again.
fn timed(rig: &mut Rig, name: &str, messages: &dyn Fn() -> Vec<ControllerChunk>) -> Outcome {
    rig.require_ours()?;
    let mut took_ms = Vec::new();
    let begin = Instant::now();
    for _ in 0..UPDATES / rig.haste {
        let called = Instant::now();
        succeeded(name, rig.update_unguarded(messages(), rig.patience))?;
        took_ms.push(called.elapsed().as_secs_f64() * 1e3);
    }
    let per_s = took_ms.len() as f64 / begin.elapsed().as_secs_f64();
    rig.figures.extend(Figure::of(name, "ms", &took_ms));
    rig.figures.push(Figure::single(format!("{name}, in a row"), "1/s", per_s));
    Ok(())
}

/// §4.8: 50 updates a second are comfortable: all are answered, and `start` keeps up with the robot.
pub fn steady(rig: &mut Rig) -> Outcome {
    let running = rig.hold(Law::Pd)?;
    let archive = archives::joints(&running.target)?;
    let (mut took_ms, mut starts) = (Vec::new(), Vec::new());
    let mut due = Instant::now();
    for _ in 0..(STEADY / rig.haste).max(10) {
        due += STEADY_PERIOD;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let called = Instant::now();
        let answer = rig.update_unguarded(chunks(&archive).collect(), rig.patience);
        starts.push(succeeded("UpdateController at 50 Hz", answer)?.start);
        took_ms.push(called.elapsed().as_secs_f64() * 1e3);
    }
    rig.figures.extend(Figure::of("UpdateController at 50 Hz", "ms", &took_ms));
    // A robot that pauses for a moment has no step between two updates.
    let grows = starts.windows(2).all(|pair| pair[1] >= pair[0]) && starts.last() > starts.first();
    require(grows, "log indices that grow from update to update", || format!("{starts:?}"))?;
    rig.require_ours()
}

/// Figures of what all checks did, for the end.
pub fn add_calls(rig: &mut Rig) {
    let set = Figure::of("SetController", "ms", &rig.set_ms);
    let terminate = Figure::of("TerminateController", "ms", &rig.terminate_ms);
    rig.figures.extend(set.into_iter().chain(terminate));
}
