//! Proof on pictures that took no part in the calibration: the arm against the cameras, and the cameras against one another
//! (spec perception.md §7.3, step 3).
//!
//! Everything is compared in the frame of the base board. Against the arm: where a camera sees the tag in the gripper, and where
//! the arm says that it is. How the tag sits in the gripper is taken from all *other* views, so a view never proves itself.
//! Between cameras: the pose of one body as two cameras see it at once.

use std::collections::BTreeMap;

use serde::Serialize;
use tenon_core::config::rig::{ProofRecord, RigCalibration};
use tenon_core::fusion::average_poses;
use tenon_vision::rig::Part;
use tenon_vision::{PartSettings, PartSolver, PlacedCamera, Pose, TagDetection, TagOnBody, VisionError};

use super::noise::placed_cameras;
use super::pictures::Pictures;
use super::{Finding, Grade, StepError};
use crate::measure::proof::{HeldOut, Limits, Proof, judge};

/// What is proved with.
#[derive(Debug, Clone)]
pub struct ProofInput<'a> {
    pub cameras: &'a [Pictures],
    /// Bodies that two cameras may see; not the base board, which took part in the calibration.
    pub parts: &'a [Part],
    /// Tags in the gripper.
    pub hand: &'a [TagOnBody],
    /// The arm's pose by the picture's name; empty where the arm did not move.
    pub arm_poses: &'a BTreeMap<String, Pose>,
}

/// The judgement with its entry for the rig's file.
#[derive(Debug, Clone)]
pub struct Proved {
    pub proof: Proof,
    pub record: ProofRecord,
    pub findings: Vec<Finding>,
    pub against_arm: usize,
    pub between_cameras: usize,
}

/// As it goes out with `--json` and into the version's folder.
#[derive(Debug, Clone, Serialize)]
pub struct ProofReport<'a> {
    pub schema: &'static str,
    pub against_arm: usize,
    pub between_cameras: usize,
    pub findings: &'a [Finding],
    /// Where the limits come from.
    pub limits_of: &'a str,
    #[serde(flatten)]
    pub proof: &'a Proof,
}

impl Proved {
    pub fn report<'a>(&'a self, limits_of: &'a str) -> ProofReport<'a> {
        ProofReport {
            schema: "tenon.proof/1",
            against_arm: self.against_arm,
            between_cameras: self.between_cameras,
            findings: &self.findings,
            limits_of,
            proof: &self.proof,
        }
    }
}

/// Judges the pictures.
///
/// # Errors
/// [`StepError::NothingToProve`] where no view can be compared, [`StepError::NoBoard`] where the arm's poses are given and nothing
/// ties the board to the robot, [`StepError::NoPlace`] for a camera that was never placed.
pub fn prove(known: &RigCalibration, input: &ProofInput<'_>, limits: &Limits, date: &str) -> Result<Proved, StepError> {
    let placed = placed_cameras(known, input.cameras)?;
    let mut views = against_arm(known, input, &placed)?;
    let against_arm = views.len();
    views.extend(between_cameras(input, &placed)?);
    let between_cameras = views.len() - against_arm;
    let proof = judge(&views, limits).ok_or_else(|| StepError::NothingToProve { reason: missing(input) })?;
    let findings = findings(&proof, against_arm, between_cameras);
    Ok(Proved { record: proof.record(date), proof, findings, against_arm, between_cameras })
}

fn missing(input: &ProofInput<'_>) -> String {
    let cameras = input.cameras.len();
    match (input.arm_poses.is_empty(), cameras) {
        (true, 1) => "there is one camera, and the arm's poses are not given".to_owned(),
        (true, _) => "no part was seen by two cameras at once".to_owned(),
        (false, _) => "the tag in the gripper was seen in fewer than three poses of the arm".to_owned(),
    }
}

fn findings(proof: &Proof, against_arm: usize, between_cameras: usize) -> Vec<Finding> {
    let (p95_m, limit_m) = (proof.position_p95_m.value, proof.limits.position_m);
    let (p95_rad, limit_rad) = (proof.rotation_p95_rad.value, proof.limits.rotation_rad);
    let advice = |grade: Grade, what: &'static str| if grade == Grade::Pass { "" } else { what };
    let enough = |value: f64, needed: f64, text: &dyn Fn(Grade) -> String| Finding::of(-value, -needed, -needed, text);
    vec![
        Finding::of(p95_m, limit_m, limit_m, |grade| {
            let [low, high] = proof.position_median_m.interval.map(|m| 1e3 * m);
            format!(
                "95 % of the views are within {:.2} mm (limit {:.2}); median {:.2} mm, 95 % interval {low:.2} to {high:.2}{}",
                1e3 * p95_m,
                1e3 * limit_m,
                1e3 * proof.position_median_m.value,
                advice(
                    grade,
                    ": place the cameras again; if that does not help, measure the tags and the intrinsics anew"
                )
            )
        }),
        Finding::of(p95_rad, limit_rad, limit_rad, |grade| {
            let [low, high] = proof.rotation_median_rad.interval.map(f64::to_degrees);
            format!(
                "95 % of the views are within {:.2} degrees (limit {:.2}); median {:.2}, 95 % interval {low:.2} to {high:.2}{}",
                p95_rad.to_degrees(),
                limit_rad.to_degrees(),
                proof.rotation_median_rad.value.to_degrees(),
                advice(grade, ": bring the tags nearer to the cameras, or use larger ones")
            )
        }),
        enough(proof.views.len() as f64, proof.limits.min_views as f64, &|grade| {
            let what = advice(grade, ": take more pictures, each with the tag or the parts at another place");
            format!(
                "{} views, {against_arm} against the arm and {between_cameras} between cameras ({} are needed){what}",
                proof.views.len(),
                proof.limits.min_views
            )
        }),
        enough(proof.extent_m, proof.limits.min_extent_m, &|grade| {
            let what = advice(grade, ": spread them over the workspace");
            format!(
                "the views span {:.0} mm ({:.0} are needed){what}",
                1e3 * proof.extent_m,
                1e3 * proof.limits.min_extent_m
            )
        }),
    ]
}

/// A body in one picture of one camera: the pose that fits best and, where another one fits nearly as well, that too.
struct Seen {
    best: Pose,
    other: Option<Pose>,
}

impl Seen {
    /// The one of its poses that is turned least against `expected`.
    fn nearest(&self, expected: &Pose) -> Pose {
        let turned = |pose: &Pose| pose.rotation.angle_to(&expected.rotation);
        match self.other {
            Some(other) if turned(&other) < turned(&self.best) => other,
            _ => self.best,
        }
    }
}

fn see(
    solver: &mut PartSolver,
    name: &str,
    tags: &[TagOnBody],
    camera: &PlacedCamera,
    detections: &[TagDetection],
) -> Result<Option<Seen>, StepError> {
    match solver.solve(name, tags, std::slice::from_ref(camera), [detections], None) {
        Ok(solved) => {
            let other = solved.other.filter(|_| solved.ambiguous).map(|other| other.T_april_part);
            Ok(Some(Seen { best: solved.T_april_part, other }))
        }
        Err(VisionError::NoTagOfBody { .. } | VisionError::NoBodyPose { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn against_arm(
    known: &RigCalibration,
    input: &ProofInput<'_>,
    placed: &[PlacedCamera],
) -> Result<Vec<HeldOut>, StepError> {
    if input.arm_poses.is_empty() || input.hand.is_empty() {
        return Ok(Vec::new());
    }
    let T_april_robot = known.board.as_ref().ok_or(StepError::NoBoard)?.T_robot_april().inverse();
    let mut solver = PartSolver::new(PartSettings::default());
    let mut seen: Vec<(String, Seen, Pose)> = Vec::new();
    for (pictures, camera) in input.cameras.iter().zip(placed) {
        for picture in &pictures.pictures {
            let Some(T_robot_hand) = input.arm_poses.get(&picture.name) else { continue };
            if let Some(tag) = see(&mut solver, "the tag in the gripper", input.hand, camera, &picture.detections)? {
                seen.push((format!("{} {}", pictures.name, picture.name), tag, T_april_robot * T_robot_hand));
            }
        }
    }
    // Three at least: two others, whose mean says how the tag sits in the gripper.
    if seen.len() < 3 {
        return Ok(Vec::new());
    }
    // The gripper holds the tag one way only: what is certain in some views decides where others are ambiguous.
    let in_hand = |pose: &Pose, T_april_hand: &Pose| T_april_hand.inverse() * pose;
    let certain: Vec<Pose> =
        seen.iter().filter(|(_, s, _)| s.other.is_none()).map(|(_, s, hand)| in_hand(&s.best, hand)).collect();
    let all = || seen.iter().map(|(_, s, hand)| in_hand(&s.best, hand)).collect();
    let rough = mean_pose(&if certain.is_empty() { all() } else { certain });
    let T_hand_tag: Vec<Pose> = seen.iter().map(|(_, s, hand)| in_hand(&s.nearest(&(hand * rough)), hand)).collect();
    let view = |(i, (name, _, T_april_hand)): (usize, &(String, Seen, Pose))| {
        let others: Vec<Pose> = T_hand_tag.iter().enumerate().filter(|(k, _)| *k != i).map(|(_, pose)| *pose).collect();
        HeldOut {
            name: format!("{name} against the arm"),
            measured: T_april_hand * T_hand_tag[i],
            expected: T_april_hand * mean_pose(&others),
        }
    };
    Ok(seen.iter().enumerate().map(view).collect())
}

/// Of at least one pose.
fn mean_pose(poses: &[Pose]) -> Pose {
    average_poses(poses).unwrap_or_else(Pose::identity)
}

fn between_cameras(input: &ProofInput<'_>, placed: &[PlacedCamera]) -> Result<Vec<HeldOut>, StepError> {
    let Some(first) = input.cameras.first().filter(|_| input.cameras.len() > 1) else { return Ok(Vec::new()) };
    let instants = first.pictures.len();
    if let Some(other) = input.cameras.iter().find(|pictures| pictures.pictures.len() != instants) {
        return Err(StepError::Unequal {
            folder: first.folder.clone(),
            pictures: instants,
            other: other.folder.clone(),
            others: other.pictures.len(),
        });
    }
    let bodies = input.parts.iter().map(|part| (part.name.as_str(), &part.tags[..]));
    let hand = (!input.hand.is_empty()).then_some(("the tag in the gripper", input.hand));
    let bodies: Vec<(&str, &[TagOnBody])> = bodies.chain(hand).collect();
    let mut solver = PartSolver::new(PartSettings::default());
    let mut views = Vec::new();
    for k in 0..instants {
        for (name, tags) in &bodies {
            let mut seen: Vec<(usize, Seen)> = Vec::new();
            for (index, (pictures, camera)) in input.cameras.iter().zip(placed).enumerate() {
                if let Some(pose) = see(&mut solver, name, tags, camera, &pictures.pictures[k].detections)? {
                    seen.push((index, pose));
                }
            }
            for (i, (a, from_a)) in seen.iter().enumerate() {
                for (b, from_b) in &seen[i + 1..] {
                    let (measured, expected) = match (from_a.other, from_b.other) {
                        // Nobody can tell which two belong together.
                        (Some(_), Some(_)) => continue,
                        (None, _) => (from_a.best, from_b.nearest(&from_a.best)),
                        (_, None) => (from_a.nearest(&from_b.best), from_b.best),
                    };
                    let (a, b) = (&input.cameras[*a].name, &input.cameras[*b].name);
                    let name = format!("{name} in {}: {a} against {b}", first.pictures[k].name);
                    views.push(HeldOut { name, measured, expected });
                }
            }
        }
    }
    Ok(views)
}
