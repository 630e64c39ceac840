//! Where the refinement starts: cameras from their best view of the board, or by the closed forms from the arm's poses. Tags that
//! were taken for their mirror image are turned over here, and stations that contradict the others have no say.

use tenon_vision::{Camera, Pose};

use super::board::{refined, start_pose};
use super::hand_eye::{self, HandEye, Method, Station};
use super::problem::{Problem, Unknowns, View};
use super::solve::{ExtrinsicsError, SolveSettings, TooFew};

/// Views of the board that a start is taken from: it only has to be near.
const STARTS: usize = 8;

/// Values from which the refinement finds the minimum.
pub(super) struct Start {
    pub unknowns: Unknowns,
    /// Answers of the closed forms, for each camera; empty where the arm did not move.
    pub closed_forms: Vec<Vec<(Method, HandEye)>>,
}

/// The board is the base: each camera from its best view.
pub(super) fn start_on_board(problem: &Problem) -> Result<Start, ExtrinsicsError> {
    let mut T_base_camera = Vec::with_capacity(problem.cameras.len());
    for (index, (name, camera)) in problem.cameras.iter().enumerate() {
        let poses = problem.views.iter().filter(|view| view.camera == index).take(STARTS);
        let poses = poses.filter_map(|view| start_pose(camera, &problem.board, &view.detections));
        let Some((best, _)) = poses.min_by(|a, b| a.1.total_cmp(&b.1)) else {
            let advice = "move the arm out of the way, or bring the board into the picture";
            return Err(ExtrinsicsError::SawNothing { camera: name.clone(), hand: false, advice });
        };
        T_base_camera.push(best.inverse());
    }
    let unknowns = Unknowns {
        T_base_camera,
        T_hand_tag: Pose::identity(),
        T_base_board: Pose::identity(),
        hand_scale: 1.0,
        board_scale: 1.0,
    };
    Ok(Start { unknowns, closed_forms: vec![Vec::new(); problem.cameras.len()] })
}

/// The arm gives the base: closed forms for each camera that saw the gripper's tags, the others through the board.
pub(super) fn start_with_arm(problem: &Problem, settings: &SolveSettings) -> Result<Start, ExtrinsicsError> {
    let found: Vec<Option<Eye>> =
        (0..problem.cameras.len()).map(|camera| eye_to_hand(problem, settings, camera)).collect();
    let best = found.iter().flatten().max_by_key(|eye| eye.stations);
    let Some(best) = best else {
        let stations = |camera: usize| hand_stations(problem, camera).len();
        let most = (0..problem.cameras.len()).map(stations).max().unwrap_or(0);
        if most >= settings.min_stations {
            return Err(ExtrinsicsError::NotObservable { camera: problem.cameras[0].0.clone() });
        }
        return Err(ExtrinsicsError::TooFew(TooFew { most, wanted: settings.min_stations }));
    };
    let board_in = |camera: usize| {
        let views = problem.views.iter().filter(move |view| view.camera == camera);
        let poses = views.filter_map(|view| start_pose(&problem.cameras[camera].1, &problem.board, &view.detections));
        poses.take(STARTS).min_by(|a, b| a.1.total_cmp(&b.1)).map(|(T_camera_board, _)| T_camera_board)
    };
    let both = found.iter().enumerate().find_map(|(camera, eye)| Some(eye.as_ref()?.T_base_camera * board_in(camera)?));
    let mut T_base_camera = Vec::with_capacity(found.len());
    for (camera, eye) in found.iter().enumerate() {
        let through_board = || Some(both? * board_in(camera)?.inverse());
        match eye.as_ref().map(|eye| eye.T_base_camera).or_else(through_board) {
            Some(pose) => T_base_camera.push(pose),
            None => return Err(ExtrinsicsError::NotObservable { camera: problem.cameras[camera].0.clone() }),
        }
    }
    let unknowns = Unknowns {
        T_base_camera,
        T_hand_tag: best.T_hand_tag,
        T_base_board: both.unwrap_or_else(Pose::identity),
        hand_scale: best.tag_scale,
        board_scale: 1.0,
    };
    Ok(Start {
        unknowns,
        closed_forms: found.into_iter().map(|eye| eye.map_or_else(Vec::new, |e| e.closed_forms)).collect(),
    })
}

struct Eye {
    T_base_camera: Pose,
    T_hand_tag: Pose,
    tag_scale: f64,
    stations: usize,
    closed_forms: Vec<(Method, HandEye)>,
}

/// The two poses that a view's gripper tags allow, the better one first.
struct HandStation<'a> {
    view: &'a View,
    T_base_hand: Pose,
    T_camera_tag: Pose,
}

fn hand_stations(problem: &Problem, camera: usize) -> Vec<HandStation<'_>> {
    let views = problem.views.iter().filter(|view| view.camera == camera);
    let station = |view| {
        let view: &View = view;
        let T_base_hand = view.T_base_hand?;
        let (T_camera_tag, _) = start_pose(&problem.cameras[camera].1, &problem.hand, &view.detections)?;
        Some(HandStation { view, T_base_hand, T_camera_tag })
    };
    views.filter_map(station).collect()
}

/// Rounds in which flipped tags may turn over.
const ROUNDS: usize = 6;

/// Closed forms of one camera; a tag that was taken for its mirror image is turned over where the others demand it.
fn eye_to_hand(problem: &Problem, settings: &SolveSettings, camera: usize) -> Option<Eye> {
    let intrinsics: &Camera = &problem.cameras[camera].1;
    let mut stations = hand_stations(problem, camera);
    if stations.len() < settings.min_stations.max(3) {
        return None;
    }
    let plain = |stations: &[HandStation]| -> Vec<Station> {
        stations.iter().map(|s| Station { T_base_hand: s.T_base_hand, T_camera_tag: s.T_camera_tag }).collect()
    };
    let mut found = best_consensus(&plain(&stations))?;
    for _ in 0..ROUNDS {
        let mut turned = false;
        for station in &mut stations {
            let mut expected = found.T_base_camera.inverse() * station.T_base_hand * found.T_hand_tag;
            expected.translation.vector /= found.tag_scale;
            if expected.rotation.angle_to(&station.T_camera_tag.rotation) < 0.1 {
                continue;
            }
            // Both minima are near: refine from where the others say it is.
            let refined = refined(intrinsics, &problem.hand, &station.view.detections, &expected);
            if let Some((pose, _)) = refined
                && pose.rotation.angle_to(&station.T_camera_tag.rotation) > 0.05
                && expected.rotation.angle_to(&pose.rotation)
                    < expected.rotation.angle_to(&station.T_camera_tag.rotation)
            {
                station.T_camera_tag = pose;
                turned = true;
            }
        }
        found = best_consensus(&plain(&stations))?;
        if !turned {
            break;
        }
    }
    let kept = consistent(&found, &plain(&stations));
    let closed_forms = Method::ALL.iter().filter_map(|&m| Some((m, hand_eye::solve(m, &kept)?))).collect();
    let HandEye { T_base_camera, T_hand_tag, tag_scale } = found;
    Some(Eye { T_base_camera, T_hand_tag, tag_scale, stations: stations.len(), closed_forms })
}

/// Rotation within which a station agrees with a solution, rad.
const AGREES_RAD: f64 = 0.12;

fn consistent(solution: &HandEye, stations: &[Station]) -> Vec<Station> {
    let agrees = |s: &Station| {
        let expected = solution.T_base_camera.inverse() * s.T_base_hand * solution.T_hand_tag;
        expected.rotation.angle_to(&s.T_camera_tag.rotation) < AGREES_RAD
    };
    stations.iter().filter(|s| agrees(s)).copied().collect()
}

/// The solution that most stations agree with, from spread triples and from all together: flipped tags and wrong arm poses
/// spoil a mean, not a vote.
fn best_consensus(stations: &[Station]) -> Option<HandEye> {
    let n = stations.len();
    let mut best: Option<(usize, HandEye)> = None;
    let mut consider = |found: Option<HandEye>| {
        let Some(found) = found else { return };
        let agreeing = consistent(&found, stations).len();
        if best.is_none_or(|(most, _)| agreeing > most) {
            best = Some((agreeing, found));
        }
    };
    consider(hand_eye::solve(Method::ParkMartin, stations));
    // Deterministic triples at different strides.
    for stride in 1..n.min(9) {
        for first in (0..n).step_by(1 + n / 12) {
            let triple = [0, 1, 2].map(|k| stations[(first + k * stride) % n]);
            consider(hand_eye::solve(Method::ParkMartin, &triple));
        }
    }
    let (_, found) = best?;
    // All that agree, together.
    hand_eye::solve(Method::ParkMartin, &consistent(&found, stations)).or(Some(found))
}
