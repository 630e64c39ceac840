//! Whether a calibration may be run with: complete, proven, recent. Pure but for [`today`].

use std::time::{SystemTime, UNIX_EPOCH};

use tenon_calibrate::rig::Version;
use tenon_calibrate::steps::{Finding, Grade};
use tenon_core::calendar::unix_seconds;
use tenon_core::config::CamerasConfig;
use tenon_core::config::rig::IntrinsicsSource;

/// Seconds since 1970 by this machine's clock.
pub fn today() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// Judges the calibration in use. `now`: seconds since 1970.
pub fn judge(version: &Version, config: &CamerasConfig, now: f64) -> Vec<Finding> {
    let calibration = &version.calibration;
    let rig = &calibration.rig;
    let mut findings = Vec::new();
    let mut add = |grade, text| findings.push(Finding { grade, text });
    match &calibration.proof {
        None => add(
            Grade::Fail,
            format!("it was never proven on held-out views: run `tenon-calibrate proof --rig {rig}`, or the wizard"),
        ),
        Some(proof) if !proof.passed => add(
            Grade::Fail,
            format!(
                "its proof failed ({:.1} mm, {:.2} degrees at 95 %): calibrate again, `tenon-calibrate wizard --rig {rig}`",
                1e3 * proof.position_p95_m,
                proof.rotation_p95_rad.to_degrees()
            ),
        ),
        Some(proof) => add(
            Grade::Pass,
            format!(
                "proven on {} held-out views: {:.1} mm, {:.2} degrees at 95 %",
                proof.views,
                1e3 * proof.position_p95_m,
                proof.rotation_p95_rad.to_degrees()
            ),
        ),
    }
    if calibration.board.is_none() {
        add(
            Grade::Fail,
            format!(
                "where the base board lies in the robot's base is unknown: run `tenon-calibrate touch-off --rig {rig}`, or `place` with the arm's poses"
            ),
        );
    }
    let placed: Vec<_> = calibration.camera.iter().filter(|camera| camera.place.is_some()).collect();
    if placed.is_empty() {
        add(Grade::Fail, format!("no camera has a place: run `tenon-calibrate place --rig {rig}`"));
    }
    for camera in placed {
        if camera.intrinsics.source == IntrinsicsSource::Assumed {
            let text = format!(
                "camera {}: its focal length is assumed, so distances are off by as much: run `tenon-calibrate intrinsics`",
                camera.name
            );
            add(Grade::Warn, text);
        }
        let Some(place) = &camera.place else { continue };
        let limit = config.max_calibration_age_days;
        match unix_seconds(&place.date).map(|then| (now - then) / 86_400.0) {
            None => add(
                Grade::Fail,
                format!(
                    "camera {}: its place is dated \"{}\", which is no date: place it again",
                    camera.name, place.date
                ),
            ),
            // A clock that was set back is as good as no date.
            Some(days) if days < -1.0 => add(
                Grade::Fail,
                format!(
                    "camera {}: its place is dated {}, in the future: set this machine's clock, or place the camera again",
                    camera.name, place.date
                ),
            ),
            Some(days) if days > limit => add(
                Grade::Fail,
                format!(
                    "camera {}: it was placed {days:.0} days ago (limit {limit} days, cameras.max_calibration_age_days): run `tenon-calibrate place --rig {rig}` and `proof`",
                    camera.name
                ),
            ),
            Some(days) => add(Grade::Pass, format!("camera {}: placed {:.0} days ago", camera.name, days.max(0.0))),
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeing::rendered;
    use tenon_core::config::rig::RigCalibration;

    const DAY: f64 = 86_400.0;
    const PLACED: &str = "2026-01-31T12:00:00Z";

    fn version() -> Version {
        let mut calibration = rendered::calibration(PLACED);
        calibration.camera.truncate(1);
        Version { name: "0001".into(), path: "rigs/bench/0001".into(), calibration }
    }

    fn config() -> CamerasConfig {
        CamerasConfig {
            rig: "bench".into(),
            exposure_100us: 80,
            rate_hz: 30.0,
            max_calibration_age_days: 30.0,
            ready_within_s: 5.0,
            max_missing_s: 2.0,
            realtime_priority: 0,
            watch: Default::default(),
        }
    }

    fn failures(change: impl FnOnce(&mut RigCalibration), days: f64) -> Vec<String> {
        let mut version = version();
        change(&mut version.calibration);
        let now = unix_seconds(PLACED).unwrap() + days * DAY;
        let failed = judge(&version, &config(), now).into_iter().filter(|f| f.grade == Grade::Fail);
        failed.map(|f| f.text).collect()
    }

    #[test]
    fn a_proven_recent_complete_calibration_is_fit() {
        assert_eq!(failures(|_| {}, 0.0), [""; 0]);
        assert_eq!(failures(|_| {}, 29.9), [""; 0]);
    }

    #[test]
    fn what_is_missing_or_old_is_named_with_what_to_do() {
        type Change = fn(&mut RigCalibration);
        let cases: [(Change, f64, &str); 7] = [
            (|_| {}, 31.0, "placed 31 days ago"),
            (|_| {}, -2.0, "in the future"),
            (|c| c.proof = None, 0.0, "tenon-calibrate proof --rig bench"),
            (|c| c.proof.as_mut().unwrap().passed = false, 0.0, "its proof failed"),
            (|c| c.board = None, 0.0, "touch-off"),
            (|c| c.camera[0].place = None, 0.0, "tenon-calibrate place"),
            (|c| c.camera[0].place.as_mut().unwrap().date = "yesterday".into(), 0.0, "no date"),
        ];
        for (change, days, wanted) in cases {
            let said = failures(change, days);
            assert!(said.len() == 1 && said[0].contains(wanted), "{wanted}: {said:?}");
        }
    }
}
