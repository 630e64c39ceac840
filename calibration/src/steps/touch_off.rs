//! The base board in the robot's base from points that the tool touched (spec perception.md §7.3, step 4).
//!
//! ```text
//! # the middle of a tag of the base board            # any point of the board
//! tag,x_m,y_m,z_m                                    april_x_m,april_y_m,april_z_m,x_m,y_m,z_m
//! 0,0.271,-0.030,0.0004                              0.06,0.06,0,0.362,0.059,0.0002
//! ```
//!
//! x, y, z: the tool point in the robot's base. Headers and lines that begin with `#` are passed over; both kinds may be mixed.

use std::path::Path;

use nalgebra::Point3;
use tenon_core::config::rig::{BoardMethod, BoardRecord, position_and_quaternion, rows};
use tenon_vision::TagOnBody;

use super::{Finding, Grade, StepError};
use crate::measure::registration::{Pair, Registration, register};

/// A touched point, with a name for messages.
#[derive(Debug, Clone, PartialEq)]
pub struct Touched {
    pub name: String,
    pub pair: Pair,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct TouchedOff {
    pub registration: Registration,
    pub record: BoardRecord,
    pub findings: Vec<Finding>,
}

/// Reads the file. `board`: tags of the base board in its frame.
pub fn read(path: &Path, board: &[TagOnBody]) -> Result<Vec<Touched>, StepError> {
    let text =
        std::fs::read_to_string(path).map_err(|e| StepError::Read { path: path.to_owned(), reason: e.to_string() })?;
    parse(path, &text, board)
}

/// Parses its text. `path` names it in messages.
pub fn parse(path: &Path, text: &str, board: &[TagOnBody]) -> Result<Vec<Touched>, StepError> {
    let mut points = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let fail = |reason: String| StepError::Line { path: path.to_owned(), line: i + 1, reason };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line.starts_with("tag,") || line.starts_with("april_") {
            continue;
        }
        let numbers: Vec<f64> = line
            .split(',')
            .map(|field| field.trim().parse().map_err(|_| fail(format!("{field:?} is not a number"))))
            .collect::<Result<_, _>>()?;
        if let Some(far) = numbers.iter().skip(1).find(|v| !(v.abs() < 5.0)) {
            return Err(fail(format!("{far} m is not within 5 m")));
        }
        let (name, in_b, in_a) = match numbers[..] {
            [id, x, y, z] => {
                let tag = board.iter().find(|tag| f64::from(tag.id) == id).ok_or_else(|| {
                    let known: Vec<String> = board.iter().map(|tag| tag.id.to_string()).collect();
                    fail(format!("the base board has no tag {id}; it has {}", known.join(", ")))
                })?;
                (format!("tag {id}"), Point3::from(tag.T_body_tag.translation.vector), Point3::new(x, y, z))
            }
            [u, v, w, x, y, z] => (format!("point {u}, {v}, {w}"), Point3::new(u, v, w), Point3::new(x, y, z)),
            _ => {
                return Err(fail(format!(
                    "{} numbers: 4 are wanted (tag and tool point) or 6 (point of the board and tool point)",
                    numbers.len()
                )));
            }
        };
        points.push(Touched { name, pair: Pair { in_a, in_b } });
    }
    Ok(points)
}

/// Registers the points and judges the fit.
pub fn touch_off(points: &[Touched], limit_rms_m: f64, date: &str) -> Result<TouchedOff, StepError> {
    let pairs: Vec<Pair> = points.iter().map(|point| point.pair).collect();
    let registration = register(&pairs)?;
    let (position_m, quat_wxyz) = position_and_quaternion(&registration.T_a_b);
    let covariance = Some(rows(&registration.covariance));
    let record =
        BoardRecord { method: BoardMethod::TouchOff, position_m, quat_wxyz, covariance, date: date.to_owned() };
    let mut findings = vec![Finding::of(registration.rms_m, limit_rms_m, limit_rms_m, |grade| {
        let advice = if grade == Grade::Pass { "" } else { ": touch again, the farthest point first" };
        let (rms_mm, limit_mm) = (1e3 * registration.rms_m, 1e3 * limit_rms_m);
        format!("touched points lie {rms_mm:.2} mm from the rigid fit (limit {limit_mm:.2}){advice}")
    })];
    let farthest = registration.distances_m.iter().zip(points).max_by(|a, b| a.0.total_cmp(b.0));
    if let Some((distance_m, point)) = farthest.filter(|(d, _)| **d > limit_rms_m) {
        let text = format!("{}: {:.2} mm from where the others put it", point.name, 1e3 * distance_m);
        findings.push(Finding { grade: Grade::Warn, text });
    }
    Ok(TouchedOff { registration, record, findings })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::worst;
    use tenon_vision::Rig;

    const GOOD: &str = "tag,x_m,y_m,z_m\n# tool 0.1034\n0,0.2715,-0.030,0.0\n1,0.2715,0.030,0.0002\n2,0.3315,-0.030,0.0\n\
                        3,0.3315,0.030,-0.0001\n0.06,0.06,0,0.3615,0.0601,0\n";

    fn points(text: &str) -> Result<Vec<Touched>, StepError> {
        parse(Path::new("t.csv"), text, &Rig::built_in().unwrap().base_tags)
    }

    #[test]
    fn touched_tags_give_the_published_place_of_the_board() {
        // Board x = robot y, board y = robot x (spec perception.md section 1).
        let found = touch_off(&points(GOOD).unwrap(), 1.5e-3, "today").unwrap();
        let [x, y, z] = found.record.position_m;
        assert!((x - 0.3015).abs() < 2e-4 && y.abs() < 2e-4 && z.abs() < 2e-4, "{:?}", found.record);
        assert_eq!((worst(&found.findings), found.record.method), (Grade::Pass, BoardMethod::TouchOff));
        // z points down into the table.
        let down = found.record.T_robot_april() * nalgebra::Vector3::z();
        assert!(down.z < -0.999, "{down}");
    }

    #[test]
    fn a_point_beside_its_tag_fails_and_is_named() {
        let wrong = GOOD.replace("3,0.3315,0.030", "3,0.3315,0.040");
        let found = touch_off(&points(&wrong).unwrap(), 1.5e-3, "today").unwrap();
        assert_eq!(worst(&found.findings), Grade::Fail);
        assert!(found.findings[1].text.starts_with("tag 3:"), "{:?}", found.findings);
    }

    #[test]
    fn mistakes_name_line_and_what_is_wanted() {
        let said = |text: &str| points(text).unwrap_err().to_string();
        assert!(said("0,0.2,0.1,0\n17,0.2,0.1,0\n").starts_with("t.csv:2: the base board has no tag 17"));
        assert!(said("0,0.2,0.1\n").contains("3 numbers: 4 are wanted"));
        assert!(said("0,0.2,0.1,zero\n").contains("\"zero\" is not a number"));
        assert!(said("0,271,-30,0\n").contains("within 5 m"));
        let few = touch_off(&points("0,0.2,0.1,0\n").unwrap(), 1.5e-3, "today").unwrap_err();
        assert!(few.to_string().contains("too few"), "{few}");
    }
}
