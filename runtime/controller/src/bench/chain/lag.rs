//! Part *lag*: how far the arm is behind one and the same way, under Polymetis' own joint impedance and under Tenon's law.
//!
//! Each time a simulated server and the real bridge of its own; the targets are those of a smooth way of all joints. The arm's positions
//! come with the robot client's own stamps, so neither link nor polling is in the result. The lag is the shift of the way in time that
//! fits a joint's positions best.

use std::f64::consts::TAU;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use tenon_core::arm::Joints;
use tenon_core::config::{BridgeController, RobotConfig};
use tenon_core::message::{BridgeState, JointTarget};
use tenon_link::RobotLink;

use super::rig::{Rig, SESSION};
use super::{ChainArgs, Line};
use crate::clock;

/// As Avoid's.
const PERIOD: Duration = Duration::from_millis(7);
const SECONDS: f64 = 30.0;
const QUICK_SECONDS: f64 = 14.0;
/// The way begins gently; this much of it is not judged.
const RAMP_S: f64 = 3.0;
/// Largest lag that is looked for, s; Kd/Kp of the stock gains is at most 0.3 s.
const LONGEST_S: f64 = 0.6;

/// A smooth way about where the arm is held: every joint a sine of its own. It is slow: neither law knows the arm's inertia, and what the
/// joints do to each other grows with the square of the rate and would hide what is asked for.
struct Way {
    held: Joints,
}

impl Way {
    /// Position, velocity and acceleration of a joint at `t` seconds, rad.
    fn at(&self, joint: usize, t: f64) -> [f64; 3] {
        let w = TAU * (0.1 + 0.01 * joint as f64);
        let size = if joint == 1 || joint == 3 { 0.15 } else { 0.25 };
        // Grown in with a quintic: at rest at the beginning.
        let s = (t / RAMP_S).clamp(0.0, 1.0);
        let g = s.powi(3) * (10.0 - 15.0 * s + 6.0 * s * s);
        let dg = 30.0 * s * s * (1.0 - s).powi(2) / RAMP_S;
        let ddg = 60.0 * s * (1.0 - s) * (1.0 - 2.0 * s) / (RAMP_S * RAMP_S);
        let (sin, cos) = (w * t).sin_cos();
        [
            self.held[joint] + size * g * sin,
            size * (dg * sin + g * w * cos),
            size * (ddg * sin + 2.0 * dg * w * cos - g * w * w * sin),
        ]
    }
}

/// Where the arm was, s since the way began, rad.
type Track = Vec<(f64, Joints)>;

pub fn measure(args: &ChainArgs, config: &RobotConfig) -> Result<Vec<Line>> {
    let lags = |controller| -> Result<(Vec<f64>, Vec<f64>)> {
        let (way, track) = follow(args, config, controller)?;
        let lag_s: Vec<f64> = (0..7).map(|joint| lag_s(&way, &track, joint)).collect();
        // Tenon's controller is told what will be wanted a lead later, so a lead is no error of the law.
        let led_s = if controller == BridgeController::Waypoints { config.bridge.lead_s } else { 0.0 };
        let error = (0..7).map(|joint| rms(&way, &track, joint, led_s) * 1e3).collect();
        let lag_ms: Vec<f64> = lag_s.into_iter().map(|lag| lag * 1e3).collect();
        if !args.json {
            let each: Vec<String> = lag_ms.iter().map(|lag| format!("{lag:.1}")).collect();
            eprintln!("  joints 1 to 7 are late by {} ms", each.join(", "));
        }
        Ok((lag_ms, error))
    };
    let (mut stock, mut stock_error) = lags(BridgeController::Stock)?;
    let (mut ours, mut error) = lags(BridgeController::Waypoints)?;
    let mut of_law: Vec<f64> = ours.iter().map(|lag| (lag - config.bridge.lead_s * 1e3).abs()).collect();
    let peer = "joint impedance of Polymetis";
    Ok(vec![
        Line::of("chain/lag/whole", &mut ours, Some((peer, &mut stock)))?,
        Line::of("chain/lag/law", &mut of_law, Some((peer, &mut stock)))?,
        Line::of("chain/lag/error_mrad", &mut error, Some((peer, &mut stock_error)))?,
    ])
}

/// Leads the arm along the way, and says where it was.
fn follow(args: &ChainArgs, config: &RobotConfig, controller: BridgeController) -> Result<(Way, Track)> {
    let mut rig = Rig::start(config, &[], |bridge| bridge.controller = controller)?;
    let way = Way { held: rig.held };
    let seconds = if args.quick { QUICK_SECONDS } else { SECONDS };
    if !args.json {
        eprintln!("{controller:?}: {seconds} s along the way");
    }
    let begin = clock::now() + PERIOD * 10;
    let wall_offset_ns =
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i64 - clock::now().as_nanos();
    let mut track: Track = Vec::new();
    let mut seen = 0;
    for k in 0..(seconds / PERIOD.as_secs_f64()) as u32 {
        let due = begin + PERIOD * k;
        clock::sleep_until(due);
        let t = due.seconds_since(begin);
        let motion: [[f64; 3]; 7] = std::array::from_fn(|joint| way.at(joint, t));
        rig.link.send_target(&JointTarget {
            session: SESSION,
            sequence: u64::from(k) + 1,
            due,
            joint_positions_rad: motion.map(|m| m[0]),
            joint_velocities_rad_s: motion.map(|m| m[1]),
            joint_accelerations_rad_s2: motion.map(|m| m[2]),
        })?;
        if let Some(state) = rig.link.latest_state().map(|state| state.value).filter(|state| state.sequence != seen) {
            seen = state.sequence;
            let at_ns = state.robot_time.as_nanos() - wall_offset_ns - begin.as_nanos();
            track.push((at_ns as f64 * 1e-9, state.joint_positions_rad));
        }
        let status = rig.link.latest_status().map(|status| status.value);
        ensure!(
            status.is_some_and(|status| status.state == BridgeState::Running),
            "the bridge stopped following after {t:.2} s: {status:?}"
        );
    }
    rig.finish()?;
    track.retain(|(t, _)| *t > RAMP_S + LONGEST_S);
    ensure!(track.len() > 100, "only {} states of the arm arrived", track.len());
    Ok((way, track))
}

/// Root mean square distance of a joint from the way `lag_s` ago, rad.
fn rms(way: &Way, track: &Track, joint: usize, lag_s: f64) -> f64 {
    let squares = track.iter().map(|(t, q)| (q[joint] - way.at(joint, t - lag_s)[0]).powi(2));
    (squares.sum::<f64>() / track.len() as f64).sqrt()
}

/// The shift in time that fits best, s.
fn lag_s(way: &Way, track: &Track, joint: usize) -> f64 {
    let step_s = 0.002;
    let steps = (LONGEST_S / step_s) as i64;
    let cost = |lag: f64| rms(way, track, joint, lag);
    let best = (-10..=steps).map(|k| k as f64 * step_s).min_by(|a, b| cost(*a).total_cmp(&cost(*b))).unwrap_or(0.0);
    // Between the steps: golden section.
    let (mut low, mut high) = (best - step_s, best + step_s);
    for _ in 0..30 {
        let (a, b) = (high - 0.618 * (high - low), low + 0.618 * (high - low));
        if cost(a) < cost(b) { high = b } else { low = a }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_begins_at_rest_and_its_derivatives_are_its_own() {
        let way = Way { held: [0.1; 7] };
        for joint in 0..7 {
            assert_eq!(way.at(joint, 0.0)[..2], [0.1, 0.0]);
            for t in [0.3, 1.0, 1.7, 4.0] {
                let h = 1e-5;
                let (before, now, after) = (way.at(joint, t - h), way.at(joint, t), way.at(joint, t + h));
                assert!(((after[0] - before[0]) / (2.0 * h) - now[1]).abs() < 1e-7, "{joint} {t}");
                assert!(((after[1] - before[1]) / (2.0 * h) - now[2]).abs() < 1e-7, "{joint} {t}");
            }
        }
    }

    #[test]
    fn a_known_lag_is_found() {
        let way = Way { held: [0.0; 7] };
        let late = |t: f64| (t, std::array::from_fn(|joint| way.at(joint, t - 0.0123 - 0.05 * joint as f64)[0]));
        let track: Track = (0..2000).map(|k| late(2.2 + 0.005 * f64::from(k))).collect();
        for joint in 0..7 {
            let wanted = 0.0123 + 0.05 * joint as f64;
            assert!((lag_s(&way, &track, joint) - wanted).abs() < 1e-5, "{joint}");
            assert!(rms(&way, &track, joint, wanted) < 1e-12 && rms(&way, &track, joint, 0.0) > 1e-3);
        }
    }
}
