//! Measures one picture: tags, camera pose from the base board, poses of parts.

use crate::cli::{ASSUMED_FOCAL_PX, PhotoArgs};
use crate::report::{
    BoardReport, CameraReport, DetectorReport, HypothesisReport, PartReport, PhotoReport, SCHEMA, TagPoseReport,
    TagReport, TagResidualReport, camera_position_std, finite,
};
use crate::{CalibrateError, diagnose};
use tenon_vision::rig::{BASE_BOARD, TagOwner};
use tenon_vision::{
    BodyPose, Camera, Detector, DetectorSettings, Distortion, FrameVariant, Frames, Hypothesis, Pose, Rig, StillImage,
    TagDetection, VisionError, body_pose, tag_pose,
};

/// Everything that does not change from picture to picture.
#[derive(Debug)]
pub struct Setup {
    pub rig: Rig,
    pub frames: Frames,
    pub variant: FrameVariant,
    pub settings: DetectorSettings,
    pub optics: Optics,
}

/// Camera model as asked for; what is missing is assumed for each picture.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Optics {
    pub focal_px: Option<[f64; 2]>,
    pub principal_px: Option<[f64; 2]>,
    pub distortion: Option<Distortion>,
}

/// A measured picture: the report, and what the drawing needs.
#[derive(Debug)]
pub struct Measured {
    pub report: PhotoReport,
    pub camera: Camera,
    pub detections: Vec<TagDetection>,
    pub T_camera_april: Option<Pose>,
    /// Name and pose of every part that was solved.
    pub parts: Vec<(String, Pose)>,
}

impl Setup {
    /// From the command line, with all of its numbers checked.
    pub fn from_args(args: &PhotoArgs) -> Result<Self, CalibrateError> {
        let rig = match &args.tags {
            Some(path) => Rig::load(path)?,
            None => Rig::built_in()?,
        };
        let frames = match &args.frames {
            Some(path) => Frames::load(path)?,
            None => Frames::built_in()?,
        };
        let settings = DetectorSettings {
            family: rig.family,
            threads: args.threads,
            quad_decimate: args.decimate,
            quad_sigma: args.sigma,
            refine_edges: true,
            decode_sharpening: args.sharpening,
            max_hamming: args.max_hamming.unwrap_or(rig.max_hamming),
            min_decision_margin: args.margin,
            min_edge_px: args.min_edge_px,
        };
        let optics = Optics::from_args(args)?;
        Ok(Self { rig, frames, variant: args.frame_variant.into(), settings, optics })
    }
}

impl Optics {
    fn from_args(args: &PhotoArgs) -> Result<Self, CalibrateError> {
        let wrong = |option, got: &[f64], wanted| CalibrateError::Option { option, got: format!("{got:?}"), wanted };
        let focal_px = match args.focal_px[..] {
            [] => None,
            [f] => Some([f, f]),
            [fx, fy] => Some([fx, fy]),
            _ => return Err(wrong("--focal-px", &args.focal_px, "one number or FX,FY")),
        };
        let principal_px = match args.principal[..] {
            [] => None,
            [cx, cy] => Some([cx, cy]),
            _ => return Err(wrong("--principal", &args.principal, "two numbers CX,CY")),
        };
        let distortion = match args.distortion[..] {
            [] => None,
            [k1, k2, p1, p2, k3] => Some(Distortion { k1, k2, p1, p2, k3 }),
            _ => return Err(wrong("--distortion", &args.distortion, "five numbers K1,K2,P1,P2,K3")),
        };
        let optics = Self { focal_px, principal_px, distortion };
        // Bad numbers end here, before any picture is opened.
        optics.camera_for(1280, 720)?;
        Ok(optics)
    }

    /// The camera for a picture of this size.
    pub fn camera_for(&self, width: usize, height: usize) -> Result<Camera, VisionError> {
        let [fx, fy] = self.focal_px.unwrap_or([ASSUMED_FOCAL_PX; 2]);
        let [cx, cy] = self.principal_px.unwrap_or([width as f64 / 2.0, height as f64 / 2.0]);
        let camera = Camera::pinhole(fx, fy, cx, cy)?;
        match self.distortion {
            Some(distortion) => camera.with_distortion(distortion),
            None => Ok(camera),
        }
    }

    fn assumptions(&self, width: usize, height: usize) -> Vec<String> {
        let mut assumptions = Vec::new();
        if self.focal_px.is_none() {
            let mut text = format!(
                "focal length {ASSUMED_FOCAL_PX} px is an assumption (RealSense D435 colour at 1280x720: 900 to 930 px); \
                 distances are wrong by as many percent as it is; give --focal-px"
            );
            if (width, height) != (1280, 720) {
                text.push_str(&format!("; this picture is {width}x{height}, so expect it to be far off"));
            }
            assumptions.push(text);
        }
        if self.principal_px.is_none() {
            assumptions
                .push("principal point in the middle of the picture is an assumption; give --principal".to_owned());
        }
        if self.distortion.is_none() {
            assumptions.push("no lens distortion is an assumption; give --distortion".to_owned());
        }
        assumptions
    }
}

/// Detects and solves everything on `image`.
///
/// # Errors
/// Only what prevents looking at all; a picture without tags, or a refused board, is part of the report.
pub fn measure(
    setup: &Setup,
    detector: &mut Detector,
    file: &str,
    image: &StillImage,
) -> Result<Measured, CalibrateError> {
    let (width, height) = (image.grey.width(), image.grey.height());
    let camera = setup.optics.camera_for(width, height)?;
    let detections = detector.detect(image.grey.view())?;
    let search = detector.last_search();
    let T_robot_april = setup.frames.T_robot_april(setup.variant);

    let board = body_pose(BASE_BOARD, &camera, &setup.rig.base_tags, &detections);
    let T_april_camera = board.as_ref().ok().map(BodyPose::T_body_camera);
    let place = Places { T_april_camera, T_robot_april };

    let mut solved_parts = Vec::new();
    let mut parts = Vec::new();
    for part in &setup.rig.parts {
        let tag_ids: Vec<u32> =
            detections.iter().map(|d| d.id).filter(|id| part.tags.iter().any(|tag| tag.id == *id)).collect();
        if tag_ids.is_empty() {
            continue;
        }
        let solved = body_pose(&part.name, &camera, &part.tags, &detections);
        let (error, pose) = match &solved {
            Ok(solved) => (None, Some(solved)),
            Err(error) => (Some(error.to_string()), None),
        };
        let seen_at = pose.map(|pose| pose.best.T_camera_body);
        if let Some(T_camera_part) = seen_at {
            solved_parts.push((part.name.clone(), T_camera_part));
        }
        parts.push(PartReport {
            name: part.name.clone(),
            furniture: part.furniture.clone(),
            index: part.index,
            tag_ids,
            error,
            in_camera: seen_at.as_ref().map(Into::into),
            in_april: seen_at.and_then(|pose| place.in_april(&pose)).as_ref().map(Into::into),
            in_robot: seen_at.and_then(|pose| place.in_robot(&pose)).as_ref().map(Into::into),
            residual_rms_px: pose.map(|pose| pose.best.rms_px),
            ratio: pose.and_then(|pose| finite(pose.ratio)),
            ambiguous: pose.is_some_and(|pose| pose.ambiguous),
        });
    }

    let tags = detections.iter().map(|detection| tag_report(setup, &camera, &place, detection)).collect();
    let no_tags =
        if detections.is_empty() { Some(diagnose::why_no_tags(&image.grey, &setup.settings, search)?) } else { None };
    let settings = &setup.settings;
    let report = PhotoReport {
        schema: SCHEMA,
        file: file.to_owned(),
        width_px: width,
        height_px: height,
        camera: CameraReport {
            focal_px: camera.focal_px(),
            principal_px: camera.principal_px(),
            distortion: camera.distortion().map(|d| [d.k1, d.k2, d.p1, d.p2, d.k3]),
            assumptions: setup.optics.assumptions(width, height),
        },
        detector: DetectorReport {
            family: settings.family.name(),
            quad_decimate: settings.quad_decimate,
            quad_sigma: settings.quad_sigma,
            refine_edges: settings.refine_edges,
            decode_sharpening: settings.decode_sharpening,
            max_hamming: settings.max_hamming,
            min_decision_margin: settings.min_decision_margin,
            min_edge_px: settings.min_edge_px,
            threads: settings.threads,
            quads_tried: search.quads,
            tags_dropped: search.dropped,
        },
        frame_variant: setup.variant.name(),
        frame_meaning: setup.frames.meaning(setup.variant).to_owned(),
        tags,
        board: board_report(&board, &T_robot_april),
        parts,
        picture: None,
        no_tags,
    };
    let T_camera_april = T_april_camera.map(|pose| pose.inverse());
    Ok(Measured { report, camera, detections, T_camera_april, parts: solved_parts })
}

/// Takes poses from the camera frame on to april and robot.
struct Places {
    T_april_camera: Option<Pose>,
    T_robot_april: Pose,
}

impl Places {
    fn in_april(&self, T_camera_body: &Pose) -> Option<Pose> {
        Some(self.T_april_camera? * T_camera_body)
    }

    fn in_robot(&self, T_camera_body: &Pose) -> Option<Pose> {
        Some(self.T_robot_april * self.in_april(T_camera_body)?)
    }
}

fn tag_report(setup: &Setup, camera: &Camera, place: &Places, detection: &TagDetection) -> TagReport {
    let (belongs_to, size_m, note) = match setup.rig.owner(detection.id) {
        Some(TagOwner::BaseBoard(tag)) => (Some("base_board".to_owned()), Some(tag.size_m), None),
        Some(TagOwner::Part(part, tag)) => (Some(part.name.clone()), Some(tag.size_m), None),
        Some(TagOwner::Ignored(part, why)) => {
            let note = format!("not used: {why}");
            (Some(part.name.clone()), None, Some(note))
        }
        None => (None, None, Some("no pose: the tag layout does not know this id, so its size is unknown".to_owned())),
    };
    let mut report = TagReport {
        id: detection.id,
        hamming: detection.hamming,
        decision_margin: detection.decision_margin,
        centre_px: detection.centre_px,
        corners_px: detection.corners_px,
        shortest_edge_px: detection.shortest_edge_px(),
        belongs_to,
        size_m,
        pose: None,
        note,
    };
    if let Some(size_m) = size_m {
        match tag_pose(camera, detection, size_m) {
            Err(error) => report.note = Some(error.to_string()),
            Ok(pose) => {
                let hypothesis = |h: &Hypothesis| HypothesisReport {
                    in_camera: (&h.T_camera_body).into(),
                    in_april: place.in_april(&h.T_camera_body).as_ref().map(Into::into),
                    in_robot: place.in_robot(&h.T_camera_body).as_ref().map(Into::into),
                    reprojection_rms_px: h.rms_px,
                    is_minimum: h.is_minimum,
                };
                let apart = pose.best.T_camera_body.rotation.angle_to(&pose.other.T_camera_body.rotation);
                report.pose = Some(TagPoseReport {
                    hypotheses: [hypothesis(&pose.best), hypothesis(&pose.other)],
                    ratio: finite(pose.ratio),
                    ambiguous: pose.ambiguous,
                    apart_deg: apart.to_degrees(),
                });
            }
        }
    }
    report
}

fn board_report(board: &Result<BodyPose, VisionError>, T_robot_april: &Pose) -> BoardReport {
    match board {
        Err(error) => BoardReport {
            error: Some(error.to_string()),
            camera_in_april: None,
            camera_in_robot: None,
            residual_rms_px: None,
            tags: Vec::new(),
            position_std_m: None,
            ratio: None,
            ambiguous: false,
        },
        Ok(board) => {
            let T_april_camera = board.T_body_camera();
            BoardReport {
                error: None,
                camera_in_april: Some((&T_april_camera).into()),
                camera_in_robot: Some((&(T_robot_april * T_april_camera)).into()),
                residual_rms_px: Some(board.best.rms_px),
                tags: board.tags.iter().map(|tag| TagResidualReport { id: tag.id, rms_px: tag.rms_px }).collect(),
                position_std_m: camera_position_std(&board.best, 4 * board.tags.len()),
                ratio: finite(board.ratio),
                ambiguous: board.ambiguous,
            }
        }
    }
}
