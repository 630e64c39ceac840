//! The arm's pose for each picture, from a CSV file.
//!
//! ```text
//! picture,x_m,y_m,z_m,qw,qx,qy,qz
//! 0001.png,0.412,0.031,0.204,0.0021,0.9997,0.0102,0.0193
//! ```
//!
//! Pose of the hand (flange or tool, but always the same) in the robot's base. A header and lines that begin with `#` are passed
//! over.

use std::collections::BTreeMap;
use std::path::Path;

use tenon_core::config::rig::position_and_quaternion;
use tenon_core::geometry::pose_from_wxyz;
use tenon_vision::Pose;

use super::StepError;

/// Reads the file. Poses by the picture's name.
pub fn read(path: &Path) -> Result<BTreeMap<String, Pose>, StepError> {
    let text =
        std::fs::read_to_string(path).map_err(|e| StepError::Read { path: path.to_owned(), reason: e.to_string() })?;
    parse(path, &text)
}

/// Parses its text. `path` names it in messages.
pub fn parse(path: &Path, text: &str) -> Result<BTreeMap<String, Pose>, StepError> {
    let mut poses = BTreeMap::new();
    for (i, line) in text.lines().enumerate() {
        let fail = |reason: String| StepError::ArmPoses { path: path.to_owned(), line: i + 1, reason };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line.starts_with("picture,") {
            continue;
        }
        let mut fields = line.split(',').map(str::trim);
        let name = fields.next().unwrap_or_default();
        let numbers: Vec<f64> = fields
            .map(|field| field.parse().map_err(|_| fail(format!("{field:?} is not a number"))))
            .collect::<Result<_, _>>()?;
        let Ok([x, y, z, w, i, j, k]) = <[f64; 7]>::try_from(numbers.as_slice()) else {
            return Err(fail(format!(
                "{} numbers behind the name, 7 are wanted: x, y, z, qw, qx, qy, qz",
                numbers.len()
            )));
        };
        if ![x, y, z].iter().all(|v| v.is_finite() && v.abs() < 5.0) {
            return Err(fail(format!("position {x}, {y}, {z} m is not within 5 m")));
        }
        let norm = [w, i, j, k].iter().map(|v| v * v).sum::<f64>().sqrt();
        // Also where it is not a number.
        if !((norm - 1.0).abs() < 0.01) {
            return Err(fail(format!(
                "quaternion {w}, {i}, {j}, {k} has length {norm:.3}, it should be 1 (order w, x, y, z)"
            )));
        }
        if poses.insert(name.to_owned(), pose_from_wxyz([x, y, z], [w, i, j, k])).is_some() {
            return Err(fail(format!("picture {name} has a pose already")));
        }
    }
    Ok(poses)
}

/// First line of a file that is begun.
pub const HEADER: &str = "picture,x_m,y_m,z_m,qw,qx,qy,qz";

/// The line of one picture, for [`parse`].
///
/// # Errors
/// A name that would read back as something else.
pub fn line(picture: &str, T_base_hand: &Pose) -> Result<String, StepError> {
    let fails = picture.is_empty()
        || picture.starts_with('#')
        || picture.trim() != picture
        || picture == "picture"
        || picture.contains([',', '\n', '\r']);
    if fails {
        let reason =
            "a picture's name is not empty, has no comma and no space around it, and does not begin with #".into();
        return Err(StepError::Picture { what: format!("{picture:?}"), reason });
    }
    let ([x, y, z], [w, i, j, k]) = position_and_quaternion(T_base_hand);
    Ok(format!("{picture},{x:.7},{y:.7},{z:.7},{w:.9},{i:.9},{j:.9},{k:.9}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poses_are_read_by_name() {
        let text =
            "picture,x_m,y_m,z_m,qw,qx,qy,qz\n# arm\na.png, 0.4, 0, 0.2, 0, 1, 0, 0\n\nb.png,0.5,0.1,0.3,1,0,0,0\n";
        let poses = parse(Path::new("p.csv"), text).unwrap();
        assert_eq!(poses.keys().collect::<Vec<_>>(), ["a.png", "b.png"]);
        assert!((poses["a.png"].translation.x - 0.4).abs() < 1e-12 && poses["a.png"].rotation.i.abs() > 0.999);
    }

    #[test]
    fn mistakes_name_line_and_what_is_wanted() {
        let said = |text: &str| parse(Path::new("p.csv"), text).unwrap_err().to_string();
        assert!(said("a.png,0,0,0,1,0,0\n").starts_with("p.csv:1: 6 numbers"));
        assert!(said("\na.png,0,0,zero,1,0,0,0\n").starts_with("p.csv:2: \"zero\""));
        assert!(said("a.png,0,0,400,1,0,0,0\n").contains("within 5 m"));
        assert!(said("a.png,0,0,0,1,1,0,0\n").contains("length 1.414"));
        assert!(said("a.png,0,0,0,NaN,1,0,0\n").contains("length NaN"));
        assert!(said("a.png,0,0,0,1,0,0,0\na.png,0,0,0,1,0,0,0\n").starts_with("p.csv:2: picture a.png has"));
    }

    #[test]
    fn a_pose_is_read_as_it_was_written() {
        let pose = pose_from_wxyz([0.41234567, -0.03, 0.2], [0.1, 0.9, -0.3, 0.3]);
        let text = format!("{HEADER}\n{}\n", line("0001.png", &pose).unwrap());
        let read = parse(Path::new("p.csv"), &text).unwrap()["0001.png"];
        assert!((read.translation.vector - pose.translation.vector).norm() < 1e-6);
        assert!(read.rotation.angle_to(&pose.rotation) < 1e-7);
        for wrong in ["", "#1.png", "a,b.png", " a.png", "picture", "a\nb"] {
            assert!(line(wrong, &pose).unwrap_err().to_string().contains("no comma"), "{wrong:?}");
        }
    }
}
