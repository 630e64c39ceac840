//! Delays of a rig's devices, as its calibration measured them, and what a run does about them:
//!
//! | delay | compensated by |
//! |---|---|
//! | camera | its frames' stamps, see `tenon_vision::source::Delayed` |
//! | arm | what is commanded leads by it ([`lead_s`]) |
//! | link | a state is older than its arrival by it |
//! | gripper | nothing: the arm waits for the hand (`machine::gripping`), however long it takes |

use std::time::Duration;

use anyhow::{Result, bail};
use tenon_core::config::rig::{Delay, RigCalibration};
use tenon_core::config::{BridgeController, RobotConfig};

/// What the calibration in use says.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Delays {
    /// From a joint target to the arm's motion, s.
    pub arm_s: Option<f64>,
    /// Age of the robot's state when it arrives.
    pub link: Duration,
}

/// A measured delay that differs by more from what the controller already accounts for was measured with another controller.
const MOST_BESIDE_S: f64 = 0.05;

impl Delays {
    pub fn of(calibration: &RigCalibration) -> Self {
        let Some(record) = &calibration.latency else { return Self::default() };
        let middle_s = |delay: &Option<Delay>| delay.map(|delay| delay.p50_s);
        let link = middle_s(&record.link).and_then(|s| Duration::try_from_secs_f64(s).ok());
        Self { arm_s: middle_s(&record.arm), link: link.unwrap_or_default() }
    }
}

/// By how much what is commanded leads, s: as the configuration says, and where the arm's delay was measured by what that leaves over.
///
/// Tenon's own controller in the server plays a target `bridge.lead_s` after its instant; with the stock law the joints lag by what
/// `control.lag_compensation_s` makes up for.
///
/// # Errors
/// A measured delay that belongs to another controller.
pub fn lead_s(config: &RobotConfig, arm_delay_s: Option<f64>) -> Result<f64> {
    let configured_s = config.lead_s();
    let Some(measured_s) = arm_delay_s else { return Ok(configured_s) };
    let accounted_s = match config.bridge.controller {
        BridgeController::Waypoints => configured_s,
        BridgeController::Stock => config.control.lag_compensation_s.iter().sum::<f64>() / 7.0,
    };
    let beside_s = measured_s - accounted_s;
    if beside_s.abs() > MOST_BESIDE_S || !beside_s.is_finite() {
        bail!(
            "the rig's latency record says that the arm moves {:.0} ms after its target, this configuration accounts for {:.0} ms \
             (bridge.lead_s, or control.lag_compensation_s with the stock controller): it was measured with another controller; measure \
             it again with this one (tenon-calibrate latency --help)",
            1e3 * measured_s,
            1e3 * accounted_s
        );
    }
    Ok((configured_s + beside_s).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(edit: impl Fn(String) -> String) -> RobotConfig {
        let text = include_str!("../../../../configs/robot.toml").to_owned();
        tenon_core::config::parse("robot.toml", &edit(text)).unwrap()
    }

    #[test]
    fn the_arm_is_led_by_what_was_measured() {
        let waypoints = config(|text| text);
        assert_eq!(lead_s(&waypoints, None).unwrap(), 0.02);
        assert!((lead_s(&waypoints, Some(0.026)).unwrap() - 0.026).abs() < 1e-12);
        // A record of the stock law, whose lag is five times as long.
        let error = lead_s(&waypoints, Some(0.0975)).unwrap_err().to_string();
        assert!(error.contains("98 ms") && error.contains("20 ms") && error.contains("again"), "{error}");
        assert!(lead_s(&waypoints, Some(f64::NAN)).is_err());

        let stock = config(|text| {
            let text = text.replace("controller = \"waypoints\"", "controller = \"stock\"");
            text.replace(
                "lag_compensation_s = [0.0125, 0.0125, 0.0125, 0.0125, 0.0125, 0.0125, 0.0125]",
                "lag_compensation_s = [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]",
            )
        });
        assert_eq!(lead_s(&stock, None).unwrap(), 0.0);
        assert!((lead_s(&stock, Some(0.112)).unwrap() - 0.012).abs() < 1e-12);
        // Nobody leads backwards.
        assert_eq!(lead_s(&stock, Some(0.09)).unwrap(), 0.0);
    }
}
