//! `calibration.toml`: what was measured on one rig. Written by the calibration, read by everything that sees.
//!
//! A rig's file holds what belongs to this hardware and nothing else: a camera is known by its serial number, every number has
//! its standard deviation and date, and what has not been measured is absent, not zero.
//!
//! Pixels count from the outer corner of the top left pixel (OpenCV and ROS count from its centre: their principal point is
//! smaller by half a pixel). Poses are `T_a_b` as `position_m` and `quat_wxyz`; covariances are of a displacement of b's origin
//! and a rotation about it `[v; ω]`, in axes of a (m², m·rad, rad²).

use nalgebra::Matrix6;
use serde::{Deserialize, Serialize};

use super::parse::{Check, Problems};
use crate::geometry::{Pose, pose_from_wxyz};

/// Layout of the file.
pub const VERSION: u32 = 1;

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RigCalibration {
    /// [`VERSION`].
    pub version: u32,
    /// Name of the rig.
    pub rig: String,
    /// Version of the program that wrote it, and when (RFC 3339, UTC).
    pub written_by: String,
    pub written: String,
    /// The base board in the robot's base; absent until the arm or a measurement ties the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub board: Option<BoardRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub camera: Vec<CameraRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ProofRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyRecord>,
    /// One entry for each part whose noise at rest was measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub noise: Vec<NoiseRecord>,
}

/// One camera, known by its serial number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraRecord {
    /// What people call it, e.g. `front`.
    pub name: String,
    pub serial: String,
    /// Width and height that the intrinsics belong to.
    pub resolution_px: [u32; 2],
    pub intrinsics: IntrinsicsRecord,
    /// Absent until its place was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<PlaceRecord>,
}

/// Where intrinsics come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntrinsicsSource {
    /// Measured here with a board.
    Calibrated,
    /// Imported, e.g. from the camera's memory; no standard deviations are known.
    Imported,
    /// Typical values of the model: distances are wrong by as many percent as these are.
    Assumed,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntrinsicsRecord {
    pub source: IntrinsicsSource,
    pub focal_px: [f64; 2],
    pub principal_px: [f64; 2],
    /// k1, k2, p1, p2, k3 (Brown–Conrady).
    pub distortion: [f64; 5],
    /// Of fx, fy, cx, cy, k1, k2, p1, p2, k3; absent where unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigma: Option<[f64; 9]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rms_px: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub views: Option<usize>,
    pub date: String,
}

/// How a place was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaceMethod {
    /// From the base board over many frames.
    Board,
    /// From a tag in the gripper, together with the board.
    Arm,
}

/// `T_april_camera`: a camera in the frame of the base board.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceRecord {
    pub method: PlaceMethod,
    pub position_m: [f64; 3],
    pub quat_wxyz: [f64; 4],
    pub covariance: [[f64; 6]; 6],
    pub rms_px: f64,
    pub views: usize,
    pub date: String,
}

/// How the board was tied to the robot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoardMethod {
    /// From a tag in the gripper.
    Arm,
    /// Touched with the tool.
    TouchOff,
    /// Given by hand.
    Measured,
}

/// `T_robot_april`: the base board in the robot's base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoardRecord {
    pub method: BoardMethod,
    pub position_m: [f64; 3],
    pub quat_wxyz: [f64; 4],
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covariance: Option<[[f64; 6]; 6]>,
    pub date: String,
}

/// Error on views that took no part in the calibration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofRecord {
    pub passed: bool,
    pub views: usize,
    /// Median and 95 % bound of the error, each with the interval of the median.
    pub position_median_m: f64,
    pub position_median_interval_m: [f64; 2],
    pub position_p95_m: f64,
    pub rotation_median_rad: f64,
    pub rotation_median_interval_rad: [f64; 2],
    pub rotation_p95_rad: f64,
    /// What it was held against.
    pub limit_position_m: f64,
    pub limit_rotation_rad: f64,
    pub date: String,
}

/// Delays as distributions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyRecord {
    /// From the middle of the exposure to the frame in the program's hands, by camera serial.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub camera: Vec<CameraDelay>,
    /// From a joint target to the arm's motion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arm: Option<Delay>,
    /// From a command to the fingers' motion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gripper: Option<Delay>,
    /// Age of the robot's state when it arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Delay>,
    pub date: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraDelay {
    pub serial: String,
    pub delay: Delay,
}

/// Distribution of a delay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delay {
    pub samples: usize,
    pub mean_s: f64,
    pub std_s: f64,
    pub p50_s: f64,
    pub p95_s: f64,
    pub max_s: f64,
}

/// A part's pose while nothing moved: the input of domain randomisation (x, y, z in m, quaternion x, y, z, w; april frame).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoiseRecord {
    pub part: String,
    pub samples: usize,
    pub duration_s: f64,
    pub mean: [f64; 7],
    pub min: [f64; 7],
    pub max: [f64; 7],
    pub std: [f64; 7],
    /// Standard deviation of position (each axis) and rotation vector (each axis) about the mean pose.
    pub position_std_m: [f64; 3],
    pub rotation_std_rad: [f64; 3],
    pub date: String,
}

impl PlaceRecord {
    pub fn T_april_camera(&self) -> Pose {
        pose_from_wxyz(self.position_m, self.quat_wxyz)
    }

    pub fn covariance(&self) -> Matrix6<f64> {
        matrix(&self.covariance)
    }
}

impl BoardRecord {
    pub fn T_robot_april(&self) -> Pose {
        pose_from_wxyz(self.position_m, self.quat_wxyz)
    }
}

/// Rows of a covariance.
pub fn rows(matrix: &Matrix6<f64>) -> [[f64; 6]; 6] {
    std::array::from_fn(|r| std::array::from_fn(|c| matrix[(r, c)]))
}

/// Position and quaternion (w, x, y, z; w not negative) of a pose.
pub fn position_and_quaternion(pose: &Pose) -> ([f64; 3], [f64; 4]) {
    let q = pose.rotation.quaternion();
    let sign = if q.w < 0.0 { -1.0 } else { 1.0 };
    (pose.translation.vector.into(), [q.w, q.i, q.j, q.k].map(|v| v * sign))
}

fn matrix(rows: &[[f64; 6]; 6]) -> Matrix6<f64> {
    Matrix6::from_fn(|r, c| rows[r][c])
}

impl RigCalibration {
    /// A rig of which nothing is known yet.
    pub fn empty(rig: &str, written_by: &str, written: String) -> Self {
        Self {
            version: VERSION,
            rig: rig.to_owned(),
            written_by: written_by.to_owned(),
            written,
            board: None,
            camera: Vec::new(),
            proof: None,
            latency: None,
            noise: Vec::new(),
        }
    }

    /// The camera with this serial number.
    pub fn camera(&self, serial: &str) -> Option<&CameraRecord> {
        self.camera.iter().find(|camera| camera.serial == serial)
    }

    /// Enters a camera, in place of an earlier entry of the same serial number.
    pub fn put_camera(&mut self, camera: CameraRecord) {
        match self.camera.iter_mut().find(|known| known.serial == camera.serial) {
            Some(known) => *known = camera,
            None => self.camera.push(camera),
        }
    }
}

impl Check for RigCalibration {
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut p = Problems(Vec::new());
        if self.version != VERSION {
            p.add("version", format!("{} is not known; this program reads {VERSION}", self.version));
        }
        for (i, camera) in self.camera.iter().enumerate() {
            if camera.serial.is_empty() {
                p.add(
                    "camera.serial",
                    format!("camera {} has none: a calibration belongs to one piece of hardware", camera.name),
                );
            }
            if self.camera[..i].iter().any(|other| other.serial == camera.serial || other.name == camera.name) {
                p.add("camera.serial", format!("{} ({}) is listed twice", camera.name, camera.serial));
            }
            camera.resolution_px.iter().for_each(|&n| p.at_least_one("camera.resolution_px", n as usize));
            camera.intrinsics.focal_px.iter().for_each(|&f| p.positive("camera.intrinsics.focal_px", f));
            let numbers = camera.intrinsics.principal_px.iter().chain(&camera.intrinsics.distortion);
            if !numbers.into_iter().all(|v| v.is_finite()) {
                p.add("camera.intrinsics", format!("{}: a number is not finite", camera.name));
            }
            if let Some(place) = &camera.place {
                check_pose(&mut p, "camera.place", &place.position_m, &place.quat_wxyz);
                check_covariance(&mut p, "camera.place.covariance", &place.covariance);
            }
        }
        if let Some(board) = &self.board {
            check_pose(&mut p, "board", &board.position_m, &board.quat_wxyz);
            board.covariance.iter().for_each(|rows| check_covariance(&mut p, "board.covariance", rows));
        }
        for noise in &self.noise {
            if !noise.std.iter().chain(&noise.min).chain(&noise.max).all(|v| v.is_finite()) {
                p.add("noise", format!("{}: a number is not finite", noise.part));
            }
        }
        p.0
    }
}

fn check_pose(p: &mut Problems, key: &'static str, position_m: &[f64; 3], quat_wxyz: &[f64; 4]) {
    if !position_m.iter().all(|v| v.is_finite() && v.abs() < 10.0) {
        p.add(key, format!("position_m {position_m:?} must be finite and within 10 m"));
    }
    let norm = quat_wxyz.iter().map(|v| v * v).sum::<f64>().sqrt();
    // A NaN is not near one.
    if !norm.is_finite() || (norm - 1.0).abs() >= 1e-3 {
        p.add(key, format!("quat_wxyz {quat_wxyz:?} must have length 1"));
    }
}

fn check_covariance(p: &mut Problems, key: &'static str, rows: &[[f64; 6]; 6]) {
    let m = matrix(rows);
    let symmetric = (m - m.transpose()).norm() <= 1e-6 * m.norm();
    if !symmetric || m.symmetric_eigenvalues().min() < -1e-9 * m.norm() {
        p.add(key, "must be symmetric and positive");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn example() -> RigCalibration {
        let mut rig = RigCalibration::empty("bench", "0.1.0", "2026-01-31T12:34:56Z".into());
        let pose = pose_from_wxyz([0.03, 0.79, -0.28], [0.8, 0.6, 0.0, 0.0]);
        let (position_m, quat_wxyz) = position_and_quaternion(&pose);
        rig.put_camera(CameraRecord {
            name: "front".into(),
            serial: "822512060853".into(),
            resolution_px: [1280, 720],
            intrinsics: IntrinsicsRecord {
                source: IntrinsicsSource::Calibrated,
                focal_px: [912.3, 911.9],
                principal_px: [642.1, 349.0],
                distortion: [0.1, -0.2, 1e-4, -2e-4, 0.0],
                sigma: Some([0.4; 9]),
                rms_px: Some(0.18),
                views: Some(31),
                date: "2026-01-31T12:34:56Z".into(),
            },
            place: Some(PlaceRecord {
                method: PlaceMethod::Board,
                position_m,
                quat_wxyz,
                covariance: rows(&(Matrix6::identity() * 1e-7)),
                rms_px: 0.2,
                views: 60,
                date: "2026-01-31T12:35:56Z".into(),
            }),
        });
        rig
    }

    #[test]
    fn what_is_written_is_read() {
        let rig = example();
        let text = toml::to_string_pretty(&rig).unwrap();
        let read: RigCalibration = parse("calibration.toml", &text).unwrap();
        assert_eq!(read, rig);
        let place = read.camera("822512060853").unwrap().place.as_ref().unwrap();
        assert!((place.T_april_camera().translation.y - 0.79).abs() < 1e-12);
        assert!(read.camera("another").is_none());
    }

    #[test]
    fn an_entry_of_the_same_serial_takes_the_place_of_the_other() {
        let mut rig = example();
        let mut again = rig.camera[0].clone();
        again.intrinsics.focal_px = [900.0; 2];
        rig.put_camera(again.clone());
        assert_eq!(rig.camera, [again]);
    }

    #[test]
    fn wrong_values_are_named_with_their_line() {
        let text = toml::to_string_pretty(&example()).unwrap();
        let message = |from: &str, to: &str| {
            assert!(text.contains(from), "{from} in {text}");
            parse::<RigCalibration>("calibration.toml", &text.replacen(from, to, 1)).unwrap_err().to_string()
        };
        assert!(message("version = 1", "version = 9").contains("calibration.toml:1"));
        assert!(message("serial = \"822512060853\"", "serial = \"\"").contains("one piece of hardware"));
        assert!(message("912.3", "-912.3").contains("focal_px"));
        assert!(message("0.8,", "0.2,").contains("length 1"));
        assert!(message("rms_px", "rms").contains("rms"));
        assert!(message("[[camera]]", "[[camera]]\nfocus = 3").contains("focus"));
    }
}
