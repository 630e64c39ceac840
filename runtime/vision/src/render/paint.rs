//! Ray tracing of a scene's bodies into linear light.
//!
//! A ray through the camera's centre has direction d = (x, y, 1) in normalised coordinates, so its parameter t is depth
//! along the optical axis and hits of different bodies compare directly. Everything that depends on the moment of the
//! exposure but not on the ray is worked out once a photograph ([`Surface`]).

use super::scene::{Motion, PrintedCells, Scene, Solid};
use crate::{Camera, Pose};
use nalgebra::{Matrix3, Point3, RowVector3, Vector3};

/// A print wins over the solid it is glued to when their depths differ by less than this, m.
const GLUE_M: f64 = 3e-4;

/// One thing a ray can hit, in the camera frame, at each moment of the exposure (one entry for a body at rest).
#[derive(Debug, Clone)]
pub(super) struct Surface {
    shape: Shape,
    /// Pixels it may touch: left, top, right, bottom, the latter two exclusive.
    pub(super) area: [usize; 4],
}

#[derive(Debug, Clone)]
enum Shape {
    Convex {
        /// For each moment, the planes with outward normals and the light each reflects.
        moments: Vec<Vec<(Vector3<f64>, f64, f32)>>,
    },
    Ball {
        moments: Vec<Vector3<f64>>,
        radius_m: f64,
        light: f32,
    },
    Print {
        /// For each moment: rows of the map from d to (W x, W y, W) in cells from the print's corner, and the tag's plane
        /// distance: depth is `distance / W`.
        moments: Vec<(Matrix3<f64>, f64)>,
        body: usize,
        print: usize,
        black: f32,
        white: f32,
    },
}

/// Nearest thing on a ray.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hit {
    pub(super) depth_m: f64,
    pub(super) light: f32,
    /// Same for rays that hit the same flat patch of one reflectance.
    pub(super) patch: u64,
}

/// Light of a matt surface whose outward normal is `n`: a lamp behind the camera, and the room.
fn shade(n: &Vector3<f64>) -> f32 {
    (0.55 + 0.45 * (-n.z).max(0.0)) as f32
}

/// All surfaces of a scene. `moments`: points of the exposure, each a fraction of it.
pub(super) fn surfaces(
    camera: &Camera,
    size: (usize, usize),
    scene: &Scene,
    motions: &[Motion],
    moments: &[f64],
    black_and_white: (f32, f32),
    out: &mut Vec<Surface>,
) {
    out.clear();
    for (body_index, (body, motion)) in scene.bodies.iter().zip(motions).enumerate() {
        let poses: Vec<Pose> = match motion.moves() {
            true => moments.iter().map(|&fraction| motion.at(fraction)).collect(),
            false => vec![motion.T_camera_body_open],
        };
        let ends = [motion.T_camera_body_open, motion.T_camera_body_close];
        let shape = match &body.solid {
            Solid::Ball { radius_m } => Shape::Ball {
                moments: poses.iter().map(|pose| pose.translation.vector).collect(),
                radius_m: *radius_m,
                light: body.reflectance,
            },
            Solid::Convex(convex) => Shape::Convex {
                moments: poses
                    .iter()
                    .map(|pose| {
                        let in_camera = |(n, offset): &(Vector3<f64>, f64)| {
                            let normal = pose.rotation * n;
                            (normal, offset + normal.dot(&pose.translation.vector), body.reflectance * shade(&normal))
                        };
                        convex.planes.iter().map(in_camera).collect()
                    })
                    .collect(),
            },
        };
        let corners = match &body.solid {
            Solid::Ball { radius_m } => box_corners(Point3::from([-radius_m; 3]), Point3::from([*radius_m; 3])),
            Solid::Convex(convex) => box_corners(convex.low_m, convex.high_m),
        };
        if let Some(area) = covered(camera, size, &ends, &corners) {
            out.push(Surface { shape, area });
        }
        for (print_index, print) in body.prints.iter().enumerate() {
            if let Some(surface) = print_surface(camera, size, print, &poses, &ends, black_and_white) {
                let (area, moments, (black, white)) = surface;
                let shape = Shape::Print { moments, body: body_index, print: print_index, black, white };
                out.push(Surface { shape, area });
            }
        }
    }
}

type PrintSurface = ([usize; 4], Vec<(Matrix3<f64>, f64)>, (f32, f32));

fn print_surface(
    camera: &Camera,
    size: (usize, usize),
    print: &PrintedCells,
    poses: &[Pose],
    ends: &[Pose; 2],
    (black, white): (f32, f32),
) -> Option<PrintSurface> {
    let half_cells = print.cells_a_side as f64 / 2.0;
    let ends = ends.map(|pose| pose * print.tag.T_body_tag);
    let faces = |pose: &Pose| (pose.rotation * Vector3::z()).dot(&pose.translation.vector) > 0.0;
    if !ends.iter().any(faces) {
        return None;
    }
    let corners = crate::pose::corners_in_tag(2.0 * half_cells * print.cell_m);
    let area = covered(camera, size, &ends, &corners)?;
    let moments = poses
        .iter()
        .map(|pose| {
            let T_camera_tag = pose * print.tag.T_body_tag;
            let R = T_camera_tag.rotation.inverse().to_rotation_matrix();
            let eye = T_camera_tag.inverse().translation.vector;
            // Along the ray, p = eye + t R d; the plane z = 0 is reached at t = −eye.z / (R d).z.
            let [x, y, z]: [RowVector3<f64>; 3] = std::array::from_fn(|i| R.matrix().row(i).into_owned());
            let column = (z * eye.x - x * eye.z) / print.cell_m + z * half_cells;
            let row = (z * eye.y - y * eye.z) / print.cell_m + z * half_cells;
            (Matrix3::from_rows(&[column, row, z]), -eye.z)
        })
        .collect();
    let light = shade(&-(ends[0].rotation * Vector3::z()));
    Some((area, moments, (black * light, white * light)))
}

fn box_corners(low: Point3<f64>, high: Point3<f64>) -> [Point3<f64>; 8] {
    std::array::from_fn(|i| {
        let pick = |axis: usize| if i >> axis & 1 == 0 { low[axis] } else { high[axis] };
        Point3::new(pick(0), pick(1), pick(2))
    })
}

/// Pixels that the hull of `corners` may touch at both ends of its motion; `None` when a corner is behind the camera or
/// all of it is outside the picture.
fn covered(camera: &Camera, size: (usize, usize), ends: &[Pose; 2], corners: &[Point3<f64>]) -> Option<[usize; 4]> {
    let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
    for pose in ends {
        for corner in corners {
            let pixel = camera.project(&(pose * corner))?;
            for axis in 0..2 {
                low[axis] = low[axis].min(pixel[axis]);
                high[axis] = high[axis].max(pixel[axis]);
            }
        }
    }
    // Distortion bends edges outward by less than this on any usable lens.
    let slack = 2.0 + 0.02 * (high[0] - low[0]).max(high[1] - low[1]);
    let clamp = |value: f64, limit: usize| value.clamp(0.0, limit as f64) as usize;
    let area = [
        clamp(low[0] - slack, size.0),
        clamp(low[1] - slack, size.1),
        clamp(high[0] + slack + 1.0, size.0),
        clamp(high[1] + slack + 1.0, size.1),
    ];
    (area[0] < area[2] && area[1] < area[3]).then_some(area)
}

impl Surface {
    /// Whether it stands still during the exposure.
    pub(super) fn is_still(&self) -> bool {
        match &self.shape {
            Shape::Convex { moments } => moments.len() == 1,
            Shape::Ball { moments, .. } => moments.len() == 1,
            Shape::Print { moments, .. } => moments.len() == 1,
        }
    }

    pub(super) fn is_solid(&self) -> bool {
        !matches!(self.shape, Shape::Print { .. })
    }

    /// Where the ray `direction` = (x, y, 1) meets the surface, `moment` counted as in [`surfaces`]. `index`: the
    /// surface's own number.
    pub(super) fn hit(&self, scene: &Scene, index: usize, direction: &Vector3<f64>, moment: usize) -> Option<Hit> {
        let patch = |part: usize| (index as u64) << 32 | part as u64;
        match &self.shape {
            Shape::Convex { moments } => {
                let planes = &moments[moment.min(moments.len() - 1)];
                let (mut enter, mut leave) = (0.0f64, f64::INFINITY);
                let mut face = None;
                for (i, (normal, offset, light)) in planes.iter().enumerate() {
                    let along = normal.dot(direction);
                    let t = offset / along;
                    if along < 0.0 {
                        if t > enter {
                            enter = t;
                            face = Some((i, *light));
                        }
                    } else if along > 0.0 {
                        leave = leave.min(t);
                    } else if *offset < 0.0 {
                        return None;
                    }
                }
                let (i, light) = face?;
                (enter < leave).then(|| Hit { depth_m: enter, light, patch: patch(i) })
            }
            Shape::Ball { moments, radius_m, light } => {
                let centre = &moments[moment.min(moments.len() - 1)];
                let (dd, dc) = (direction.norm_squared(), direction.dot(centre));
                let inside = dc * dc - dd * (centre.norm_squared() - radius_m * radius_m);
                if inside <= 0.0 {
                    return None;
                }
                let depth_m = (dc - inside.sqrt()) / dd;
                (depth_m > 0.0).then(|| {
                    let normal = (direction * depth_m - centre) / *radius_m;
                    // Shaded smoothly: no two rays share a patch.
                    Hit { depth_m, light: light * shade(&normal), patch: u64::MAX - (depth_m.to_bits() >> 1) }
                })
            }
            Shape::Print { moments, body, print, black, white } => {
                let (map, distance) = &moments[moment.min(moments.len() - 1)];
                let p = map * direction;
                if p.z <= 0.0 || *distance <= 0.0 {
                    return None;
                }
                let cells = &scene.bodies[*body].prints[*print];
                let side = cells.cells_a_side as f64;
                let (column, row) = (p.x / p.z, p.y / p.z);
                if !((0.0..side).contains(&column) && (0.0..side).contains(&row)) {
                    return None;
                }
                let cell = row as usize * cells.cells_a_side + column as usize;
                let light = if cells.white[cell] { *white } else { *black };
                Some(Hit { depth_m: distance / p.z - GLUE_M, light, patch: patch(cell) })
            }
        }
    }
}
