//! `[cameras]` of `robot.toml`: the rig whose calibration is used, and when its pictures are believed.

use serde::{Deserialize, Serialize};

use super::parse::Problems;

/// Needed by policies that observe parts; everything without a default is a fact of the rig.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CamerasConfig {
    /// Name of the rig: its calibration lies in `$TENON_STATE/rigs/<rig>`, and says which cameras there are.
    pub rig: String,
    /// Fixed exposure of V4L2 cameras in units of 100 µs, as during the calibration.
    pub exposure_100us: u32,
    pub rate_hz: f64,
    /// An older calibration must be made again before a run [default: 30].
    #[serde(default = "thirty")]
    pub max_calibration_age_days: f64,
    /// How long a start waits for every part to have a pose [default: 5].
    #[serde(default = "five")]
    pub ready_within_s: f64,
    /// How long a run holds the arm for a part that has gone missing before it is a fault [default: 2].
    #[serde(default = "two")]
    pub max_missing_s: f64,
    /// SCHED_FIFO priority of the threads that track and solve, where permitted; below the control thread's. 0 = do not ask
    /// [default: 0].
    #[serde(default)]
    pub realtime_priority: i32,
    #[serde(default)]
    pub watch: CameraWatchConfig,
}

/// `[cameras.watch]`: when a camera is at fault. What is absent follows from the rate.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CameraWatchConfig {
    /// From the middle of the exposure of the newest frame to now [default: five periods].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_frame_age_s: Option<f64>,
    /// Least rate, as a part of `rate_hz` [default: 0.85].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least_rate_fraction: Option<f64>,
    /// Most dropped frames, as a part of all [default: 0.05].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_dropped_fraction: Option<f64>,
    /// That many equal pictures in a row are a frozen camera; 0 switches this off, for pictures without noise [default: 6].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen_frames: Option<u32>,
}

fn thirty() -> f64 {
    30.0
}

fn five() -> f64 {
    5.0
}

fn two() -> f64 {
    2.0
}

impl CamerasConfig {
    pub(super) fn check(&self, p: &mut Problems) {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.rig.is_empty() || !self.rig.chars().all(plain) {
            p.add("cameras.rig", format!("\"{}\" must be a name of letters, digits, - and _", self.rig));
        }
        p.at_least_one("cameras.exposure_100us", self.exposure_100us as usize);
        p.within("cameras.rate_hz", self.rate_hz, 1.0, 300.0);
        p.positive("cameras.max_calibration_age_days", self.max_calibration_age_days);
        p.within("cameras.ready_within_s", self.ready_within_s, 0.1, 600.0);
        p.within("cameras.max_missing_s", self.max_missing_s, 0.0, 600.0);
        p.within("cameras.realtime_priority", f64::from(self.realtime_priority), 0.0, 98.0);
        let watch = &self.watch;
        watch.max_frame_age_s.into_iter().for_each(|v| p.within("cameras.watch.max_frame_age_s", v, 1e-3, 10.0));
        watch.least_rate_fraction.into_iter().for_each(|v| p.within("cameras.watch.least_rate_fraction", v, 0.0, 1.0));
        watch
            .max_dropped_fraction
            .into_iter()
            .for_each(|v| p.within("cameras.watch.max_dropped_fraction", v, 0.0, 1.0));
        if watch.frozen_frames == Some(1) {
            p.add("cameras.watch.frozen_frames", "must be 0 (off) or at least 2: one picture is equal to itself");
        }
    }
}
