//! What the poses of the arm so far come to: how well everything is known, what is still missing, and which pose to add next.

use nalgebra::Matrix6;
use serde::Serialize;
use tenon_core::config::rig::{RigCalibration, position_and_quaternion};
use tenon_core::geometry::pose_from_wxyz;
use tenon_vision::Pose;

use super::StepError;
use super::place::{PASS_SIGMA_M, PASS_SIGMA_RAD, PlaceInput, problem};
use crate::extrinsics::observability::{self, candidates_about};
use crate::extrinsics::{ExtrinsicsError, Problem, Solution, SolveSettings, calibrate};

/// A pose of the hand in the robot's base, and what it would bring.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Next {
    pub position_m: [f64; 3],
    pub quat_wxyz: [f64; 4],
    /// Largest standard deviation of a camera's position in the base: now, and with this pose, m.
    pub now_sigma_m: f64,
    pub then_sigma_m: f64,
}

impl Next {
    pub fn T_base_hand(&self) -> Pose {
        pose_from_wxyz(self.position_m, self.quat_wxyz)
    }
}

/// Largest standard deviation along, and about, any axis of the robot's base.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// A camera by its name, or `the base board`.
    pub what: String,
    pub sigma_m: f64,
    pub sigma_rad: f64,
}

impl Known {
    fn of(what: &str, covariance: &Matrix6<f64>) -> Self {
        let largest = |from: usize| {
            let block = covariance.fixed_view::<3, 3>(from, from).into_owned();
            block.symmetric_eigenvalues().max().max(0.0).sqrt()
        };
        Self { what: what.to_owned(), sigma_m: largest(0), sigma_rad: largest(3) }
    }

    /// A NaN is below no limit.
    fn suffices(&self) -> bool {
        self.sigma_m <= PASS_SIGMA_M && self.sigma_rad <= PASS_SIGMA_RAD
    }
}

/// The state of a calibration with the arm.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlook {
    /// The cameras in their order, then the base board where it was seen.
    pub known: Vec<Known>,
    /// The pose to add next; `None` where no camera would see the tag in any that is in reach.
    pub next: Option<Next>,
}

impl Outlook {
    /// What is not known well enough yet, with the limits; `None`: everything is.
    pub fn missing(&self) -> Option<String> {
        let lacking = self.known.iter().filter(|known| !known.suffices()).map(|known| {
            format!(
                "{} is known to {:.2} mm and {:.3} degrees",
                known.what,
                1e3 * known.sigma_m,
                known.sigma_rad.to_degrees()
            )
        });
        let lacking: Vec<String> = lacking.collect();
        let limits =
            || format!("{:.0} mm and {:.1} degrees are wanted", 1e3 * PASS_SIGMA_M, PASS_SIGMA_RAD.to_degrees());
        (!lacking.is_empty()).then(|| format!("{}; {}", lacking.join(", "), limits()))
    }

    /// The least certain of all in one line, with what the next pose brings.
    pub fn summary(&self) -> String {
        let worst = |value: fn(&Known) -> f64| self.known.iter().map(value).fold(0.0, f64::max);
        let next = self.next.as_ref().map_or_else(String::new, |next| {
            let (now, then) = (1e3 * next.now_sigma_m, 1e3 * next.then_sigma_m);
            format!("; the next pose brings the least certain camera from {now:.3} to {then:.3} mm")
        });
        format!(
            "standard deviations in the robot's base: at most {:.2} mm, {:.3} degrees{next}",
            1e3 * worst(|known| known.sigma_m),
            worst(|known| known.sigma_rad).to_degrees()
        )
    }
}

/// Why it is too early to say, for a person; or what the poses come to.
pub type Sight = Result<Outlook, String>;

/// Works out what the pictures so far come to. The inner error: they are too few or too much alike.
///
/// # Errors
/// What is wrong with the intrinsics.
pub fn outlook(known: &RigCalibration, input: &PlaceInput) -> Result<Sight, StepError> {
    let (problem, _) = problem(known, input, "")?;
    let solution = match calibrate(&problem, &SolveSettings::default()) {
        Ok(solution) if solution.base_is_robot => solution,
        Ok(_) => {
            let wanted = SolveSettings::default().min_stations;
            return Ok(Err(format!("no camera has seen the tag in the gripper yet ({wanted} poses are wanted)")));
        }
        Err(
            error @ (ExtrinsicsError::TooFew(_)
            | ExtrinsicsError::NotObservable { .. }
            | ExtrinsicsError::SawNothing { .. }
            | ExtrinsicsError::NoViews
            | ExtrinsicsError::NoFit),
        ) => return Ok(Err(error.to_string())),
        Err(error @ ExtrinsicsError::NoSuchCamera { .. }) => return Err(error.into()),
    };
    let mut known: Vec<Known> =
        solution.cameras.iter().map(|camera| Known::of(&camera.name, &camera.covariance)).collect();
    known.extend(solution.board_covariance.as_ref().map(|covariance| Known::of("the base board", covariance)));
    let next = next_pose(&problem, &solution, input);
    Ok(Ok(Outlook { known, next }))
}

/// The most useful of many poses about those that were taken. `None` without the arm.
pub fn next_pose(problem: &Problem, solution: &Solution, input: &PlaceInput) -> Option<Next> {
    solution.base_is_robot.then_some(())?;
    let taken: Vec<Pose> = problem.views.iter().filter_map(|view| view.T_base_hand).collect();
    let T_board_base = solution.board_covariance.map(|_| solution.T_base_board.inverse());
    let mut candidates = candidates_about(&taken);
    let present = taken.last()?;
    candidates.retain(|pose| {
        is_near(pose, present)
            && is_in_reach(pose)
            && is_above_table(pose, solution.T_hand_tag.as_ref(), T_board_base.as_ref(), &taken)
            && is_new(pose, &taken)
    });
    let sizes: Vec<[usize; 2]> = input.cameras.iter().map(|pictures| pictures.size_px).collect();
    let best = observability::next_pose(solution, &problem.cameras, &problem.hand, &sizes, &candidates)?;
    let (position_m, quat_wxyz) = position_and_quaternion(&candidates[best.candidate]);
    Some(Next { position_m, quat_wxyz, now_sigma_m: best.now_sigma_m, then_sigma_m: best.then_sigma_m })
}

/// Height of the arm's shoulder, and how far a hand gets from it (the wrist reaches 0.855 m; nobody guides a stretched arm gladly).
const SHOULDER_M: f64 = 0.333;
const REACH_M: f64 = 0.75;
/// Nearer to its own column the arm does not fold.
const COLUMN_M: f64 = 0.25;
/// Room for the gripper above the table.
const CLEAR_M: f64 = 0.04;
/// A pose as near as this to one that was taken is the same one.
const SAME_M: f64 = 0.02;
const SAME_RAD: f64 = 0.09;

/// Farther than this, or turned by more, nobody guides an arm in one go and arrives.
const WAY_M: f64 = 0.30;
const WAY_RAD: f64 = 1.05;

fn is_near(pose: &Pose, present: &Pose) -> bool {
    (pose.translation.vector - present.translation.vector).norm() <= WAY_M
        && pose.rotation.angle_to(&present.rotation) <= WAY_RAD
}

/// Roughly: a person looks before the arm goes there.
fn is_in_reach(T_base_hand: &Pose) -> bool {
    let p = T_base_hand.translation.vector;
    let from_shoulder = (p - nalgebra::Vector3::z() * SHOULDER_M).norm();
    from_shoulder <= REACH_M && p.xy().norm() >= COLUMN_M
}

/// Hand and tag stay clear of the table: of the board's plane where it is known, else not below the poses that were taken.
fn is_above_table(T_base_hand: &Pose, T_hand_tag: Option<&Pose>, T_board_base: Option<&Pose>, taken: &[Pose]) -> bool {
    let tag = T_hand_tag.map_or(*T_base_hand, |T_hand_tag| T_base_hand * T_hand_tag);
    let points = [T_base_hand.translation.vector, tag.translation.vector];
    match T_board_base {
        // The board's z points down.
        Some(T_board_base) => points.iter().all(|p| (T_board_base * nalgebra::Point3::from(*p)).z <= -CLEAR_M),
        None => taken.iter().any(|pose| pose.translation.vector.z <= T_base_hand.translation.vector.z),
    }
}

/// Where it was taken before it brought what it could; if the tag was not found there, it will not be next time.
fn is_new(pose: &Pose, taken: &[Pose]) -> bool {
    taken.iter().all(|other| {
        (pose.translation.vector - other.translation.vector).norm() > SAME_M
            || pose.rotation.angle_to(&other.rotation) > SAME_RAD
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::{Translation3, UnitQuaternion, Vector3};

    fn known(what: &str, sigma_m: f64, sigma_deg: f64) -> Known {
        Known { what: what.into(), sigma_m, sigma_rad: sigma_deg.to_radians() }
    }

    #[test]
    fn what_is_missing_is_named_with_its_limit() {
        let mut outlook =
            Outlook { known: vec![known("front", 4e-4, 0.05), known("the base board", 9e-4, 0.02)], next: None };
        assert_eq!(outlook.missing(), None);
        outlook.known[1].sigma_rad = 0.15_f64.to_radians();
        let said = outlook.missing().unwrap();
        assert_eq!(said, "the base board is known to 0.90 mm and 0.150 degrees; 1 mm and 0.1 degrees are wanted");
        outlook.known[0].sigma_m = f64::NAN;
        assert!(outlook.missing().unwrap().starts_with("front"));
        assert!(outlook.summary().contains("0.150 degrees"));
    }

    #[test]
    fn the_largest_of_all_directions_counts_not_of_the_axes() {
        let mut covariance = Matrix6::identity() * 1e-8;
        // A long ellipsoid along (1, 1, 0).
        for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            covariance[(i, j)] += 5e-7;
        }
        assert!((Known::of("front", &covariance).sigma_m - 1.005e-3).abs() < 1e-5);
    }

    #[test]
    fn poses_far_away_out_of_reach_in_the_table_or_taken_already_are_not_suggested() {
        let at = |x: f64, y: f64, z: f64| Pose::from_parts(Translation3::new(x, y, z), UnitQuaternion::identity());
        assert!(
            is_in_reach(&at(0.5, 0.1, 0.2)) && !is_in_reach(&at(0.9, 0.0, 0.3)) && !is_in_reach(&at(0.1, 0.0, 0.6))
        );
        let flat = UnitQuaternion::from_euler_angles(std::f64::consts::PI, 0.0, 0.0);
        let T_board_base = Pose::from_parts(Translation3::new(0.3, 0.0, -0.01), flat).inverse();
        let T_hand_tag = at(0.0, 0.0, 0.06);
        let above = |pose: &Pose| is_above_table(pose, Some(&T_hand_tag), Some(&T_board_base), &[]);
        assert!(above(&at(0.4, 0.0, 0.2)) && !above(&at(0.4, 0.0, 0.02)));
        // The hand is high enough, but it points down and the tag lies at the table.
        let down = Pose::from_parts(Translation3::new(0.4, 0.0, 0.07), flat);
        assert!(!above(&down));
        let taken = [at(0.4, 0.0, 0.2)];
        assert!(!is_above_table(&at(0.4, 0.0, 0.1), None, None, &taken));
        assert!(!is_new(&at(0.41, 0.0, 0.2), &taken) && is_new(&at(0.43, 0.0, 0.2), &taken));
        let tilted = Pose::from_parts(taken[0].translation, UnitQuaternion::from_scaled_axis(Vector3::x() * 0.2));
        assert!(is_new(&tilted, &taken) && is_near(&tilted, &taken[0]));
        assert!(!is_near(&at(0.4, 0.31, 0.2), &taken[0]));
        let turned = Pose::from_parts(taken[0].translation, UnitQuaternion::from_scaled_axis(Vector3::x() * 1.1));
        assert!(!is_near(&turned, &taken[0]));
    }
}
