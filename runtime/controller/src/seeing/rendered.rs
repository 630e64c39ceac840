//! A rig that is rendered: the bench of one_leg before two cameras at its sides, as recordings, with the calibration that such cameras
//! would have. For checks and tests of what a policy that observes parts does, with frames and threads as on a robot.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nalgebra::Matrix6;
use tenon_calibrate::rig::RigFolder;
use tenon_core::config::rig::{
    BoardMethod, BoardRecord, CameraRecord, IntrinsicsRecord, IntrinsicsSource, PlaceMethod, PlaceRecord, ProofRecord,
    RigCalibration, position_and_quaternion, rows,
};
use tenon_core::fusion::T_robot_april_training;
use tenon_core::geometry::Pose;
use tenon_core::time::MonotonicTime;
use tenon_vision::render::workbench::{Workbench, three_views};
use tenon_vision::render::{CameraEffects, SyntheticCamera};
use tenon_vision::source::{DeviceTime, Frame, Recorder, RecordingPixels, Serial, SourceDescription};
use tenon_vision::{Camera, GreyImage, Rig};

/// Name of the rig.
pub const RIG: &str = "bench";
/// Name and serial number of each camera.
pub const CAMERAS: [(&str, &str); 2] = [("left", "8225001"), ("right", "8225002")];
const SIZE: [usize; 2] = [1280, 720];
const FOCAL_PX: f64 = 915.0;
/// Pictures that are rendered of each camera, each with noise of its own; the recording repeats them.
const PICTURES: usize = 4;
/// From the middle of an exposure to its arrival.
const TRANSPORT: Duration = Duration::from_millis(10);
/// The cameras' own clocks are ahead by that.
const CLOCK_AHEAD_NS: i64 = 1_000_000_000_000;

/// Pose of a camera in the frame of the base board.
fn place(camera: usize) -> Pose {
    three_views()[1 + camera]
}

/// Records what the cameras see: a recording for each in `folder`, by its name. `hidden`: a part that is not there.
///
/// # Errors
/// As rendering and writing.
pub fn record(folder: &Path, rate_hz: f64, frames: u64, hidden: Option<&str>) -> Result<()> {
    let mut bench = Workbench::one_leg(&Rig::built_in()?, 0.0).context("the bench of one_leg")?;
    let hidden = match hidden {
        None => None,
        Some(name) => match bench.names.iter().position(|known| known == name) {
            Some(index) => Some(index),
            None => bail!("the bench has no part {name}; it has {}", bench.names.join(", ")),
        },
    };
    let all = bench.clone();
    if let Some(hidden) = hidden {
        bench.scene.bodies.remove(hidden);
    }
    let [width, height] = SIZE;
    let lens = Camera::pinhole(FOCAL_PX, FOCAL_PX, width as f64 / 2.0, height as f64 / 2.0)?;
    for (index, (name, serial)) in CAMERAS.into_iter().enumerate() {
        let mut camera = SyntheticCamera::new(lens, width, height, CameraEffects::default(), 7 + index as u64)?;
        let mut motions = all.motions(&place(index), 0.0, 0.0);
        if let Some(hidden) = hidden {
            motions.remove(hidden);
        }
        let mut pictures = Vec::with_capacity(PICTURES);
        for picture in 0..PICTURES {
            let mut grey = GreyImage::filled(width, height, 0);
            camera.shoot(&bench.scene, &motions, picture as u64, &mut grey).context("rendering a picture")?;
            pictures.push(grey);
        }
        let description = SourceDescription {
            name: name.to_owned(),
            serial: Some(Serial::new(serial)?),
            width,
            height,
            nominal_rate_hz: rate_hz,
            intrinsics: None,
        };
        let mut recorder = Recorder::create(&folder.join(name), &description, RecordingPixels::GreyRaw)?;
        let mut frame = Frame::of_size(width, height);
        for sequence in 0..frames {
            frame.grey.clone_from(&pictures[sequence as usize % PICTURES]);
            frame.sequence = sequence;
            let exposed_ns = (sequence as f64 / rate_hz * 1e9) as i64;
            frame.stamps.exposed_at = MonotonicTime::from_nanos(exposed_ns);
            frame.stamps.device = Some(DeviceTime::from_nanos(exposed_ns + CLOCK_AHEAD_NS));
            frame.stamps.arrived = frame.stamps.exposed_at + TRANSPORT;
            recorder.record(&frame)?;
        }
        recorder.finish()?;
    }
    Ok(())
}

/// What a calibration of these cameras would have found on `date`.
pub fn calibration(date: &str) -> RigCalibration {
    let date = date.to_owned();
    let mut rig = RigCalibration::empty(RIG, "a rendered rig", date.clone());
    for (index, (name, serial)) in CAMERAS.into_iter().enumerate() {
        let (position_m, quat_wxyz) = position_and_quaternion(&place(index));
        rig.put_camera(CameraRecord {
            name: name.to_owned(),
            serial: serial.to_owned(),
            resolution_px: SIZE.map(|n| n as u32),
            intrinsics: IntrinsicsRecord {
                source: IntrinsicsSource::Calibrated,
                focal_px: [FOCAL_PX; 2],
                principal_px: SIZE.map(|n| n as f64 / 2.0),
                distortion: [0.0; 5],
                sigma: None,
                rms_px: None,
                views: None,
                date: date.clone(),
            },
            place: Some(PlaceRecord {
                method: PlaceMethod::Board,
                position_m,
                quat_wxyz,
                covariance: rows(&(Matrix6::identity() * 1e-8)),
                rms_px: 0.1,
                views: 60,
                date: date.clone(),
            }),
        });
    }
    let (position_m, quat_wxyz) = position_and_quaternion(&T_robot_april_training());
    rig.board = Some(BoardRecord {
        method: BoardMethod::TouchOff,
        position_m,
        quat_wxyz,
        covariance: None,
        date: date.clone(),
    });
    rig.proof = Some(ProofRecord {
        passed: true,
        views: 20,
        position_median_m: 1e-3,
        position_median_interval_m: [1e-3; 2],
        position_p95_m: 2e-3,
        rotation_median_rad: 0.01,
        rotation_median_interval_rad: [0.01; 2],
        rotation_p95_rad: 0.02,
        limit_position_m: 3e-3,
        limit_rotation_rad: 0.03,
        date,
    });
    rig
}

/// Puts a calibration into use, in the folder of state that TENON_STATE names.
///
/// # Errors
/// As writing into a rig's folder.
pub fn publish(state: &Path, calibration: RigCalibration) -> Result<()> {
    let date = calibration.written.clone();
    let rig = RigFolder::new(state, RIG)?;
    let mut draft = rig.draft("a rendered rig", &date)?;
    draft.change(|known| *known = calibration)?;
    rig.publish(draft, &date, true)?;
    Ok(())
}
