//! Camera to base: from pictures of the base board and, with the arm's poses, of a tag in the gripper.

use std::collections::BTreeMap;

use serde::Serialize;
use tenon_core::config::rig::{
    BoardMethod, BoardRecord, CameraRecord, IntrinsicsRecord, IntrinsicsSource, PlaceMethod, PlaceRecord,
    RigCalibration, position_and_quaternion, rows,
};
use tenon_vision::{Camera, Distortion, Pose, TagOnBody};

use super::outlook::{Next, next_pose};
use super::pictures::Pictures;
use super::{Finding, Grade, StepError};
use crate::extrinsics::{Problem, Solution, SolveSettings, View, calibrate};

/// Limits of spec perception.md §7.3.
pub const MIN_EDGE_PX: f64 = 35.0;
const PASS_RMS_PX: f64 = 0.5;
const WARN_RMS_PX: f64 = 1.0;
pub const PASS_SIGMA_M: f64 = 1e-3;
pub const PASS_SIGMA_RAD: f64 = 0.1 * std::f64::consts::PI / 180.0;
/// Part of a camera's pictures in which the whole board must be seen.
const WHOLE_BOARD: f64 = 0.8;

/// What the step works on.
#[derive(Debug, Clone)]
pub struct PlaceInput<'a> {
    pub cameras: &'a [Pictures],
    /// Tags of the base board in its frame.
    pub board: &'a [TagOnBody],
    /// Tags in the gripper.
    pub hand: &'a [TagOnBody],
    /// The arm's pose by the picture's name; empty where the arm did not move.
    pub arm_poses: &'a BTreeMap<String, Pose>,
    /// Focal length for cameras without intrinsics, px.
    pub assume_focal_px: Option<f64>,
}

/// What it found.
#[derive(Debug, Clone)]
pub struct Placed {
    pub solution: Solution,
    /// One for each camera, in their order.
    pub cameras: Vec<CameraRecord>,
    pub board: Option<BoardRecord>,
    pub findings: Vec<Finding>,
    /// The pose of the arm to add next, where the arm moved.
    pub next: Option<Next>,
}

/// As it goes out with `--json`.
#[derive(Debug, Clone, Serialize)]
pub struct PlaceReport<'a> {
    pub schema: &'static str,
    pub grade: Grade,
    pub findings: &'a [Finding],
    pub noise_px: f64,
    pub rms_px: f64,
    pub base_is_robot: bool,
    pub cameras: &'a [CameraRecord],
    pub board: &'a Option<BoardRecord>,
    pub bad_views: &'a [crate::extrinsics::BadView],
    pub misplaced_tags: &'a [crate::extrinsics::board::Misplaced],
    pub hand_tag_scale: Option<crate::extrinsics::Scale>,
    pub board_scale: Option<crate::extrinsics::Scale>,
    /// How well each picture fits.
    pub views: &'a [crate::extrinsics::ViewResidual],
    pub next_pose: &'a Option<Next>,
}

/// The intrinsics that pictures of a camera are to be read with.
pub fn intrinsics_for(
    known: &RigCalibration,
    pictures: &Pictures,
    assume_focal_px: Option<f64>,
    date: &str,
) -> Result<(Camera, IntrinsicsRecord), StepError> {
    let [width, height] = pictures.size_px;
    let record = match (known.camera(&pictures.serial), assume_focal_px) {
        (Some(camera), _) => {
            let [known_width, known_height] = camera.resolution_px;
            if [width, height] != [known_width as usize, known_height as usize] {
                let serial = pictures.serial.clone();
                return Err(StepError::Resolution { serial, width, height, known_width, known_height });
            }
            camera.intrinsics.clone()
        }
        (None, Some(focal)) => IntrinsicsRecord {
            source: IntrinsicsSource::Assumed,
            focal_px: [focal; 2],
            principal_px: [width as f64 / 2.0, height as f64 / 2.0],
            distortion: [0.0; 5],
            sigma: None,
            rms_px: None,
            views: None,
            date: date.to_owned(),
        },
        (None, None) => return Err(StepError::NoIntrinsics { serial: pictures.serial.clone() }),
    };
    Ok((camera_of(&record)?, record))
}

/// The camera model of a record.
pub fn camera_of(record: &IntrinsicsRecord) -> Result<Camera, StepError> {
    let ([fx, fy], [cx, cy], [k1, k2, p1, p2, k3]) = (record.focal_px, record.principal_px, record.distortion);
    let camera = Camera::pinhole(fx, fy, cx, cy)?;
    if record.distortion.iter().all(|k| *k == 0.0) {
        return Ok(camera);
    }
    Ok(camera.with_distortion(Distortion { k1, k2, p1, p2, k3 })?)
}

/// What was seen, and the intrinsics that it is read with, in the order of the cameras.
pub(super) fn problem(
    known: &RigCalibration,
    input: &PlaceInput,
    date: &str,
) -> Result<(Problem, Vec<IntrinsicsRecord>), StepError> {
    let mut cameras = Vec::with_capacity(input.cameras.len());
    let mut records = Vec::with_capacity(input.cameras.len());
    let mut views = Vec::new();
    for (index, pictures) in input.cameras.iter().enumerate() {
        let (camera, record) = intrinsics_for(known, pictures, input.assume_focal_px, date)?;
        cameras.push((pictures.name.clone(), camera));
        records.push(record);
        views.extend(pictures.pictures.iter().map(|picture| View {
            name: picture.name.clone(),
            camera: index,
            T_base_hand: input.arm_poses.get(&picture.name).copied(),
            detections: picture.detections.clone(),
        }));
    }
    Ok((Problem { cameras, board: input.board.to_vec(), hand: input.hand.to_vec(), views }, records))
}

/// Places all cameras together.
pub fn place(known: &RigCalibration, input: &PlaceInput, date: &str) -> Result<Placed, StepError> {
    let (problem, records) = problem(known, input, date)?;
    let settings = SolveSettings::default();
    let solution = calibrate(&problem, &settings)?;
    let findings = findings(&problem, &solution, input.cameras, &settings);
    let method = if solution.base_is_robot { PlaceMethod::Arm } else { PlaceMethod::Board };
    let camera_record = |(index, (pictures, intrinsics)): (usize, (&Pictures, IntrinsicsRecord))| {
        let (T_april_camera, covariance) = solution.in_board(index);
        let (position_m, quat_wxyz) = position_and_quaternion(&T_april_camera);
        let place = PlaceRecord {
            method,
            position_m,
            quat_wxyz,
            covariance: rows(&covariance),
            rms_px: solution.rms_px,
            views: solution.views.iter().filter(|view| view.camera == index).count(),
            date: date.to_owned(),
        };
        CameraRecord {
            name: pictures.name.clone(),
            serial: pictures.serial.clone(),
            resolution_px: pictures.size_px.map(|n| n as u32),
            intrinsics,
            place: Some(place),
        }
    };
    let cameras = input.cameras.iter().zip(records).enumerate().map(camera_record).collect();
    let board = solution.board_covariance.map(|covariance| {
        let (position_m, quat_wxyz) = position_and_quaternion(&solution.T_base_board);
        let covariance = Some(rows(&covariance));
        BoardRecord { method: BoardMethod::Arm, position_m, quat_wxyz, covariance, date: date.to_owned() }
    });
    let next = next_pose(&problem, &solution, input);
    Ok(Placed { solution, cameras, board, findings, next })
}

fn findings(problem: &Problem, solution: &Solution, pictures: &[Pictures], settings: &SolveSettings) -> Vec<Finding> {
    let mut out = Vec::new();
    let fail = |text: String| Finding { grade: Grade::Fail, text };
    out.extend(
        solution.misplaced.iter().map(|what| fail(format!("base board: {what}: glue it anew or correct the layout"))),
    );
    out.extend(solution.wrong_sizes(settings).into_iter().map(fail));
    for (index, place) in solution.cameras.iter().enumerate() {
        let name = &place.name;
        let own: Vec<&View> = problem.views.iter().filter(|view| view.camera == index).collect();
        let ids: Vec<u32> = problem.board.iter().map(|tag| tag.id).collect();
        let whole = own.iter().filter(|v| ids.iter().all(|id| v.detections.iter().any(|d| d.id == *id))).count();
        let missing = 1.0 - whole as f64 / own.len().max(1) as f64;
        out.push(Finding::of(missing, 1.0 - WHOLE_BOARD, 0.9, |grade| {
            let advice =
                if grade == Grade::Pass { "" } else { ": move the arm out of the way, bring the board into view" };
            format!("{name}: all {} tags of the board in {whole} of {} pictures{advice}", ids.len(), own.len())
        }));
        let on_board = own.iter().flat_map(|v| &v.detections).filter(|d| ids.contains(&d.id));
        let edge = on_board.map(|d| d.shortest_edge_px()).fold(f64::INFINITY, f64::min);
        if edge.is_finite() {
            out.push(Finding::of(MIN_EDGE_PX / edge, 1.0, 1.6, |grade| {
                let advice =
                    if grade == Grade::Pass { "" } else { ": bring the camera nearer or raise the resolution" };
                format!("{name}: shortest tag edge {edge:.0} px, {MIN_EDGE_PX:.0} are wanted{advice}")
            }));
        }
        // As seen from the board, which is what poses of parts are measured in.
        let (_, covariance) = solution.in_board(index);
        let sigma = |from: usize| (from..from + 3).map(|i| covariance[(i, i)].max(0.0)).fold(0.0, f64::max).sqrt();
        let (sigma_m, sigma_rad) = (sigma(0), sigma(3));
        out.push(Finding::of(sigma_m, PASS_SIGMA_M, 3.0 * PASS_SIGMA_M, |grade| {
            let advice = if grade == Grade::Pass { "" } else { ": take more pictures" };
            format!(
                "{name}: position known to {:.2} mm (one standard deviation, limit {:.0}){advice}",
                1e3 * sigma_m,
                1e3 * PASS_SIGMA_M
            )
        }));
        out.push(Finding::of(sigma_rad, PASS_SIGMA_RAD, 3.0 * PASS_SIGMA_RAD, |grade| {
            let advice = if grade == Grade::Pass { "" } else { ": take more pictures" };
            format!(
                "{name}: orientation known to {:.3} degrees (limit {:.1}){advice}",
                sigma_rad.to_degrees(),
                PASS_SIGMA_RAD.to_degrees()
            )
        }));
        if let Some(assumed) = pictures.get(index).filter(|p| p.pictures.len() < 20) {
            let text = format!("{name}: {} pictures; 60 average the noise better", assumed.pictures.len());
            out.push(Finding { grade: Grade::Warn, text });
        }
    }
    out.push(Finding::of(solution.rms_px, PASS_RMS_PX, WARN_RMS_PX, |grade| {
        let advice = if grade == Grade::Pass { "" } else { ": are intrinsics, tag sizes and layout right?" };
        format!("corners lie {:.2} px from where the solution puts them (limit {PASS_RMS_PX}){advice}", solution.rms_px)
    }));
    let views = solution.views.len().max(1);
    if !solution.bad_views.is_empty() {
        let grade = if 5 * solution.bad_views.len() > views { Grade::Fail } else { Grade::Warn };
        out.extend(
            solution
                .bad_views
                .iter()
                .map(|bad| Finding { grade, text: format!("picture {}: {}", bad.name, bad.reason) }),
        );
    }
    out
}

impl Placed {
    pub fn report<'a>(&'a self) -> PlaceReport<'a> {
        PlaceReport {
            schema: "tenon.place/1",
            grade: super::worst(&self.findings),
            findings: &self.findings,
            noise_px: self.solution.sigma_px,
            rms_px: self.solution.rms_px,
            base_is_robot: self.solution.base_is_robot,
            cameras: &self.cameras,
            board: &self.board,
            bad_views: &self.solution.bad_views,
            misplaced_tags: &self.solution.misplaced,
            hand_tag_scale: self.solution.hand_scale,
            board_scale: self.solution.board_scale,
            views: &self.solution.views,
            next_pose: &self.next,
        }
    }
}
