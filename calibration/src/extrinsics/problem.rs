//! What was seen, the unknowns, and how they meet: residuals and their derivatives.

use nalgebra::{Matrix2x3, Matrix3, Point3, SMatrix, Translation3, UnitQuaternion, Vector2, Vector3};
use tenon_core::geometry::skew;
use tenon_vision::pose::corners_in_tag;
use tenon_vision::{Camera, Pose, TagDetection, TagOnBody};

/// Which of the two bodies a tag sits on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// The base board on the table.
    Board,
    /// What the gripper holds.
    Hand,
}

/// One picture.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// File or frame, for messages.
    pub name: String,
    /// Index of the camera.
    pub camera: usize,
    /// Pose of the hand (flange or TCP, but always the same) in the robot's base; without it the gripper's tags say nothing.
    pub T_base_hand: Option<Pose>,
    pub detections: Vec<TagDetection>,
}

/// Cameras, tag layouts and views.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Names and intrinsics.
    pub cameras: Vec<(String, Camera)>,
    /// Tags of the base board in its frame.
    pub board: Vec<TagOnBody>,
    /// Tags in the gripper, in the frame of their carrier; the first is at its origin where there is only one.
    pub hand: Vec<TagOnBody>,
    pub views: Vec<View>,
}

/// A tag of one view with its four corners.
#[derive(Debug, Clone, Copy)]
pub(super) struct TagSighting {
    pub view: usize,
    pub camera: usize,
    pub id: u32,
    pub body: Body,
    /// On the body at the nominal size, m.
    pub points_m: [Point3<f64>; 4],
    pub pixels: [[f64; 2]; 4],
    /// For [`Body::Hand`].
    pub T_base_hand: Pose,
}

impl Problem {
    /// Every usable tag of every view; an id that a view has twice is left out of that view.
    pub(super) fn sightings(&self) -> Vec<TagSighting> {
        let mut found = Vec::new();
        for (index, view) in self.views.iter().enumerate() {
            for detection in &view.detections {
                let on = |tags: &[TagOnBody]| tags.iter().find(|tag| tag.id == detection.id).copied();
                let (tag, body) = match (on(&self.board), on(&self.hand)) {
                    (Some(tag), _) => (tag, Body::Board),
                    (None, Some(tag)) if view.T_base_hand.is_some() => (tag, Body::Hand),
                    _ => continue,
                };
                if view.detections.iter().filter(|other| other.id == tag.id).count() > 1 {
                    continue;
                }
                found.push(TagSighting {
                    view: index,
                    camera: view.camera,
                    id: tag.id,
                    body,
                    points_m: corners_in_tag(tag.size_m).map(|corner| tag.T_body_tag * corner),
                    pixels: detection.corners_px,
                    T_base_hand: view.T_base_hand.unwrap_or_else(Pose::identity),
                });
            }
        }
        found
    }
}

/// Which unknowns there are, and where their step lies in the vector of all steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub cameras: usize,
    pub hand: Option<usize>,
    pub board: Option<usize>,
    pub hand_scale: Option<usize>,
    pub board_scale: Option<usize>,
    pub len: usize,
}

/// Values of the unknowns.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unknowns {
    pub T_base_camera: Vec<Pose>,
    pub T_hand_tag: Pose,
    pub T_base_board: Pose,
    /// True size of the tags over the size that was given.
    pub hand_scale: f64,
    pub board_scale: f64,
}

impl Layout {
    /// `hand`: the gripper's tags are seen; `board`: the board is seen and its place in the base is unknown.
    pub(super) fn new(cameras: usize, hand: bool, board: bool, scales: [bool; 2]) -> Self {
        let mut len = 6 * cameras;
        let mut take = |wanted: bool, n: usize| {
            wanted.then(|| {
                len += n;
                len - n
            })
        };
        let (hand, board) = (take(hand, 6), take(board, 6));
        let (hand_scale, board_scale) = (take(scales[0], 1), take(scales[1], 1));
        Self { cameras, hand, board, hand_scale, board_scale, len }
    }

    /// Displaces each origin in outer axes and turns about it; scales change by their logarithm.
    pub(super) fn retract(&self, at: &Unknowns, step: &[f64]) -> Unknowns {
        let pose = |pose: &Pose, i: usize| {
            let (v, w) = (Vector3::from_column_slice(&step[i..i + 3]), Vector3::from_column_slice(&step[i + 3..i + 6]));
            let mut rotation = UnitQuaternion::from_scaled_axis(w) * pose.rotation;
            rotation.renormalize();
            Pose::from_parts(Translation3::from(pose.translation.vector + v), rotation)
        };
        Unknowns {
            T_base_camera: at.T_base_camera.iter().enumerate().map(|(c, camera)| pose(camera, 6 * c)).collect(),
            T_hand_tag: self.hand.map_or(at.T_hand_tag, |i| pose(&at.T_hand_tag, i)),
            T_base_board: self.board.map_or(at.T_base_board, |i| pose(&at.T_base_board, i)),
            hand_scale: self.hand_scale.map_or(at.hand_scale, |i| at.hand_scale * step[i].exp()),
            board_scale: self.board_scale.map_or(at.board_scale, |i| at.board_scale * step[i].exp()),
        }
    }
}

/// Derivative of a tag's eight residuals by the steps that move it: its camera's six, its body's six, its scale.
pub(super) struct Linearised {
    pub residuals: [f64; 8],
    pub by_camera: SMatrix<f64, 8, 6>,
    pub by_body: SMatrix<f64, 8, 6>,
    pub by_scale: SMatrix<f64, 8, 1>,
}

impl TagSighting {
    /// Projected minus seen, px; `None` when a corner is behind the camera.
    pub fn residuals(&self, cameras: &[(String, Camera)], at: &Unknowns) -> Option<[f64; 8]> {
        let T_camera_base = at.T_base_camera[self.camera].inverse();
        let (T_base_body, scale) = self.body_pose(at);
        let mut out = [0.0; 8];
        for (i, (point, seen)) in self.points_m.iter().zip(self.pixels).enumerate() {
            let in_base = T_base_body * Point3::from(point.coords * scale);
            let [u, v] = cameras[self.camera].1.project(&(T_camera_base * in_base))?;
            (out[2 * i], out[2 * i + 1]) = (u - seen[0], v - seen[1]);
        }
        out.iter().all(|v| v.is_finite()).then_some(out)
    }

    pub fn linearise(&self, cameras: &[(String, Camera)], at: &Unknowns) -> Option<Linearised> {
        let T_base_camera = &at.T_base_camera[self.camera];
        let T_camera_base = T_base_camera.inverse();
        let R_camera_base: Matrix3<f64> = *T_camera_base.rotation.to_rotation_matrix().matrix();
        let (T_base_body, scale) = self.body_pose(at);
        // Steps of the body are in the axes of the frame that it is given in.
        let R_base_outer: Matrix3<f64> = match self.body {
            Body::Board => Matrix3::identity(),
            Body::Hand => *self.T_base_hand.rotation.to_rotation_matrix().matrix(),
        };
        let R_outer_body = match self.body {
            Body::Board => at.T_base_board.rotation,
            Body::Hand => at.T_hand_tag.rotation,
        };
        let mut out = Linearised {
            residuals: [0.0; 8],
            by_camera: SMatrix::zeros(),
            by_body: SMatrix::zeros(),
            by_scale: SMatrix::zeros(),
        };
        for (i, (point, seen)) in self.points_m.iter().zip(self.pixels).enumerate() {
            let scaled: Vector3<f64> = point.coords * scale;
            let in_base: Point3<f64> = T_base_body * Point3::from(scaled);
            let (pixel, by_point) = cameras[self.camera].1.project_with_jacobian(&(T_camera_base * in_base))?;
            let residual = Vector2::new(pixel[0] - seen[0], pixel[1] - seen[1]);
            (out.residuals[2 * i], out.residuals[2 * i + 1]) = (residual.x, residual.y);
            // p_camera = R_baseᵀ (p_base − t): moving the camera moves the point the other way.
            let by_base: Matrix2x3<f64> = by_point * R_camera_base;
            let from_camera = in_base.coords - T_base_camera.translation.vector;
            out.by_camera.fixed_view_mut::<2, 3>(2 * i, 0).copy_from(&-by_base);
            out.by_camera.fixed_view_mut::<2, 3>(2 * i, 3).copy_from(&(by_base * skew(&from_camera)));
            let arm: Vector3<f64> = R_outer_body * scaled;
            let by_outer: Matrix2x3<f64> = by_base * R_base_outer;
            out.by_body.fixed_view_mut::<2, 3>(2 * i, 0).copy_from(&by_outer);
            out.by_body.fixed_view_mut::<2, 3>(2 * i, 3).copy_from(&(by_outer * -skew(&arm)));
            out.by_scale.fixed_view_mut::<2, 1>(2 * i, 0).copy_from(&(by_outer * arm));
        }
        out.residuals.iter().all(|v| v.is_finite()).then_some(out)
    }

    fn body_pose(&self, at: &Unknowns) -> (Pose, f64) {
        match self.body {
            Body::Board => (at.T_base_board, at.board_scale),
            Body::Hand => (self.T_base_hand * at.T_hand_tag, at.hand_scale),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_vision::Distortion;

    #[test]
    fn derivatives_equal_central_differences() {
        let distortion = Distortion { k1: 0.08, k2: -0.15, p1: 0.001, p2: -0.0007, k3: 0.03 };
        let camera = Camera::pinhole(915.0, 910.0, 642.0, 350.0).unwrap().with_distortion(distortion).unwrap();
        let cameras = vec![("front".to_owned(), camera)];
        let pose = |t: [f64; 3], r: [f64; 3]| {
            Pose::from_parts(Translation3::from(Vector3::from(t)), UnitQuaternion::from_scaled_axis(Vector3::from(r)))
        };
        let at = Unknowns {
            T_base_camera: vec![pose([0.9, 0.1, 0.5], [-0.4, -1.8, 1.5])],
            T_hand_tag: pose([0.01, 0.0, 0.05], [0.2, 0.1, 3.0]),
            T_base_board: pose([0.3, 0.0, 0.0], [2.2, 2.2, 0.0]),
            hand_scale: 1.02,
            board_scale: 0.99,
        };
        let layout = Layout::new(1, true, true, [true, true]);
        for (body, T_base_hand) in
            [(Body::Board, Pose::identity()), (Body::Hand, pose([0.4, 0.05, 0.2], [2.9, 0.3, 0.1]))]
        {
            let sighting = TagSighting {
                view: 0,
                camera: 0,
                id: 0,
                body,
                points_m: corners_in_tag(0.048),
                pixels: [[600.0, 300.0]; 4],
                T_base_hand,
            };
            // Somewhere in front of the camera, whatever the numbers above say.
            let mut at = at.clone();
            let middle = sighting.body_pose(&at).0.translation.vector;
            let eye = middle + Vector3::new(0.5, 0.1, 0.4);
            let z = (middle - eye).normalize();
            let x = z.cross(&Vector3::z()).normalize();
            let R = Matrix3::from_columns(&[x, z.cross(&x), z]);
            let rotation = UnitQuaternion::from_rotation_matrix(&nalgebra::Rotation3::from_matrix_unchecked(R));
            at.T_base_camera[0] = Pose::from_parts(Translation3::from(eye), rotation);
            let linear = sighting.linearise(&cameras, &at).unwrap();
            let (body_at, scale_at) = match body {
                Body::Board => (layout.board.unwrap(), layout.board_scale.unwrap()),
                Body::Hand => (layout.hand.unwrap(), layout.hand_scale.unwrap()),
            };
            let columns = (0..6).map(|i| (i, linear.by_camera.column(i).into_owned()));
            let columns = columns.chain((0..6).map(|i| (body_at + i, linear.by_body.column(i).into_owned())));
            for (index, column) in columns.chain([(scale_at, linear.by_scale.column(0).into_owned())]) {
                let mut step = vec![0.0; layout.len];
                let mut at_offset = |h: f64| {
                    step[index] = h;
                    sighting.residuals(&cameras, &layout.retract(&at, &step)).unwrap()
                };
                let (plus, minus) = (at_offset(1e-6), at_offset(-1e-6));
                for row in 0..8 {
                    let slope = (plus[row] - minus[row]) / 2e-6;
                    assert!(
                        (slope - column[row]).abs() < 1e-3 * (1.0 + slope.abs()),
                        "{body:?} {index} {row}: {slope} {}",
                        column[row]
                    );
                }
            }
        }
    }
}
