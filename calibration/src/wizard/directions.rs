//! A way from one pose of the hand to another, in words that a person can follow with the arm in both hands.

use nalgebra::{UnitQuaternion, Vector3};
use tenon_vision::Pose;

/// Shorter ways and smaller turns are not said: nobody guides an arm by hand more exactly.
const LEAST_M: f64 = 0.01;
const LEAST_RAD: f64 = 0.09;

/// What takes the hand from `now` to `next` (poses in the robot's base: x away from it, y to its left, z up): first the way, then a
/// turn about the vertical, then a tip to one side. The three together are the whole change.
pub fn way(now: &Pose, next: &Pose) -> String {
    let shift = next.translation.vector - now.translation.vector;
    let (turn_rad, tip) = turn_and_tip(&(next.rotation * now.rotation.inverse()));
    let mut steps = Vec::new();
    let ways: Vec<String> = [
        (shift.x, "away from the robot", "towards the robot"),
        (shift.y, "to the robot's left", "to the robot's right"),
        (shift.z, "up", "down"),
    ]
    .into_iter()
    .filter(|(m, ..)| m.abs() >= LEAST_M)
    .map(|(m, there, back)| format!("{:.0} cm {}", 100.0 * m.abs(), if m > 0.0 { there } else { back }))
    .collect();
    if !ways.is_empty() {
        steps.push(format!("move the hand {}", listed(&ways)));
    }
    if turn_rad.abs() >= LEAST_RAD {
        let to = if turn_rad > 0.0 { "anticlockwise" } else { "clockwise" };
        steps.push(format!("turn it by {:.0} degrees {to}, seen from above", turn_rad.abs().to_degrees()));
    }
    if tip.norm() >= LEAST_RAD {
        steps.push(format!("tip it by {:.0} degrees so that its top leans {}", tip.norm().to_degrees(), towards(&tip)));
    }
    if steps.is_empty() { "leave the hand about where it is".to_owned() } else { steps.join("; then ") }
}

/// A rotation as a turn about the vertical (rad, anticlockwise seen from above) and, after it, a tip about a horizontal axis: the
/// direction in which the top goes, as long as its angle, rad.
fn turn_and_tip(rotation: &UnitQuaternion<f64>) -> (f64, Vector3<f64>) {
    let q = rotation.quaternion();
    // Where the top ends below (half a turn) every turn is as good as another.
    let turn_rad = if q.w.hypot(q.k) < 1e-9 { 0.0 } else { 2.0 * q.k.atan2(q.w) };
    let turn_rad = turn_rad.sin().atan2(turn_rad.cos());
    let tip = (rotation * UnitQuaternion::from_axis_angle(&Vector3::z_axis(), -turn_rad)).scaled_axis();
    (turn_rad, tip.cross(&Vector3::z()))
}

/// One of eight directions on the table.
fn towards(lean: &Vector3<f64>) -> &'static str {
    const DIRECTIONS: [&str; 8] = [
        "away from the robot",
        "away from the robot and to its left",
        "to the robot's left",
        "towards the robot and to its left",
        "towards the robot",
        "towards the robot and to its right",
        "to the robot's right",
        "away from the robot and to its right",
    ];
    let eighths = lean.y.atan2(lean.x) / std::f64::consts::FRAC_PI_4;
    DIRECTIONS[(eighths.round() as i64).rem_euclid(8) as usize]
}

/// `a`, `a and b`, `a, b and c`.
fn listed(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::Translation3;

    /// A hand that points down.
    fn hand() -> Pose {
        Pose::from_parts(
            Translation3::new(0.45, 0.05, 0.2),
            UnitQuaternion::from_euler_angles(std::f64::consts::PI, 0.0, 0.3),
        )
    }

    fn changed(shift: [f64; 3], turn: UnitQuaternion<f64>) -> Pose {
        let now = hand();
        Pose::from_parts(Translation3::from(now.translation.vector + Vector3::from(shift)), turn * now.rotation)
    }

    fn about(axis: Vector3<f64>, degrees: f64) -> UnitQuaternion<f64> {
        UnitQuaternion::from_scaled_axis(axis * degrees.to_radians())
    }

    #[test]
    fn ways_are_said_as_seen_from_the_robot() {
        let said = |shift| way(&hand(), &changed(shift, UnitQuaternion::identity()));
        assert_eq!(said([0.12, 0.0, 0.0]), "move the hand 12 cm away from the robot");
        assert_eq!(said([-0.04, -0.05, 0.004]), "move the hand 4 cm towards the robot and 5 cm to the robot's right");
        assert_eq!(
            said([0.1, 0.02, -0.03]),
            "move the hand 10 cm away from the robot, 2 cm to the robot's left and 3 cm down"
        );
        assert_eq!(said([0.004, -0.004, 0.0]), "leave the hand about where it is");
    }

    #[test]
    fn turns_and_tips_are_said_as_they_look_from_outside() {
        let said = |turn| way(&hand(), &changed([0.0; 3], turn));
        assert_eq!(said(about(Vector3::z(), 26.0)), "turn it by 26 degrees anticlockwise, seen from above");
        assert_eq!(said(about(Vector3::z(), -26.0)), "turn it by 26 degrees clockwise, seen from above");
        // About y the top goes to +x.
        assert_eq!(said(about(Vector3::y(), 20.0)), "tip it by 20 degrees so that its top leans away from the robot");
        assert_eq!(said(about(Vector3::x(), 20.0)), "tip it by 20 degrees so that its top leans to the robot's right");
        let slanting = about(Vector3::new(-1.0, -1.0, 0.0).normalize(), 30.0);
        assert!(said(slanting).ends_with("30 degrees so that its top leans towards the robot and to its left"));
        assert_eq!(said(about(Vector3::x(), 3.0)), "leave the hand about where it is");
    }

    #[test]
    fn turn_and_tip_together_are_the_whole_rotation() {
        for k in 0..200 {
            let k = f64::from(k);
            let axis = Vector3::new((1.1 * k).sin(), (2.3 * k).cos(), (0.7 * k).sin()).normalize();
            let rotation = about(axis, 170.0 * (0.37 * k).fract());
            let (turn_rad, lean) = turn_and_tip(&rotation);
            let tip = UnitQuaternion::from_scaled_axis(Vector3::z().cross(&lean));
            let again = tip * UnitQuaternion::from_axis_angle(&Vector3::z_axis(), turn_rad);
            assert!(again.angle_to(&rotation) < 1e-9 && turn_rad.abs() <= std::f64::consts::PI, "{k}");
            // The top goes where it is said.
            let top = rotation * Vector3::z();
            assert!(lean.norm() < 1e-9 || top.xy().dot(&lean.xy()) >= 0.0, "{k}");
        }
    }
}
