//! What stands in front of the synthetic camera: solid bodies with tags on them.

use crate::rig::Part;
use crate::{Family, Pose, Rig, TagOnBody, VisionError};
use nalgebra::{Point3, Vector3};
use tenon_core::geometry::interpolate;

/// Solids stop this far behind the tags they carry, m: a tag is printed on the surface, not inside it.
const BEHIND_TAG_M: f64 = 2e-4;
/// A body whose tags lie in one plane (the base board) gets this thickness, m.
const SHEET_M: f64 = 2e-3;

/// The shape of a body, in its own frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Solid {
    Convex(Convex),
    Ball { radius_m: f64 },
}

/// An intersection of half-spaces, bounded by a box.
#[derive(Debug, Clone, PartialEq)]
pub struct Convex {
    /// Outward normal and distance from the origin along it, m: inside is n · p ≤ distance.
    pub(super) planes: Vec<(Vector3<f64>, f64)>,
    /// Corners of a box around it, m.
    pub(super) low_m: Point3<f64>,
    pub(super) high_m: Point3<f64>,
}

impl Convex {
    /// A box centred on the body's origin with the given edges, m.
    pub fn cuboid(edges_m: [f64; 3]) -> Self {
        let half = Point3::from(Vector3::from(edges_m) / 2.0);
        Self::between(Point3::from(-half.coords), half)
    }

    /// A box between two corners, m.
    pub fn between(low_m: Point3<f64>, high_m: Point3<f64>) -> Self {
        let axes = [Vector3::x(), Vector3::y(), Vector3::z()];
        let up = axes.into_iter().enumerate().map(|(i, axis)| (axis, high_m[i]));
        let down = axes.into_iter().enumerate().map(|(i, axis)| (-axis, -low_m[i]));
        Self { planes: up.chain(down).collect(), low_m, high_m }
    }

    /// The solid that a set of printed tags covers: the box around all prints, cut by the plane of every tag. A leg becomes
    /// a bar, the lamp's hood a six-sided frustum; every tag faces outward and none is buried.
    pub fn behind_tags(tags: &[TagOnBody], family: Family) -> Result<Self, VisionError> {
        let (mut low, mut high) = ([f64::INFINITY; 3], [f64::NEG_INFINITY; 3]);
        let mut faces = Vec::with_capacity(tags.len());
        for tag in tags {
            let print_m = print_width_m(tag, family)?;
            let inward = tag.T_body_tag.rotation * Vector3::z();
            for corner in crate::pose::corners_in_tag(print_m) {
                let on_surface = tag.T_body_tag * corner;
                for (axis, value) in (on_surface + inward * BEHIND_TAG_M).iter().enumerate() {
                    low[axis] = low[axis].min(*value);
                    high[axis] = high[axis].max(*value);
                }
            }
            let centre = tag.T_body_tag.translation.vector + inward * BEHIND_TAG_M;
            faces.push((-inward, -inward.dot(&centre)));
        }
        for axis in 0..3 {
            if high[axis] - low[axis] < SHEET_M {
                // A sheet: extend it to the side the tags do not look at.
                let inward: f64 = tags.iter().map(|tag| (tag.T_body_tag.rotation * Vector3::z())[axis]).sum();
                if inward >= 0.0 {
                    high[axis] = low[axis] + SHEET_M;
                } else {
                    low[axis] = high[axis] - SHEET_M;
                }
            }
        }
        let mut solid = Self::between(Point3::from(low), Point3::from(high));
        solid.planes.extend(faces);
        Ok(solid)
    }
}

/// A tag as printed on a body, with its cells.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PrintedCells {
    pub(super) tag: TagOnBody,
    /// Cells along a side, white margin included.
    pub(super) cells_a_side: usize,
    /// Row-major, `true` is white.
    pub(super) white: Vec<bool>,
    pub(super) cell_m: f64,
}

/// Width of the print with its white margin, m.
fn print_width_m(tag: &TagOnBody, family: Family) -> Result<f64, VisionError> {
    let cells = family.bitmap(tag.id)?.width() as f64;
    Ok(tag.size_m * cells / family.cells_within_border() as f64)
}

/// A solid body, the light it reflects (0 to 1, linear) and the tags printed on it.
#[derive(Debug, Clone, PartialEq)]
pub struct SceneBody {
    pub(super) solid: Solid,
    pub(super) reflectance: f32,
    pub(super) prints: Vec<PrintedCells>,
}

impl SceneBody {
    /// A body without tags, for instance a hand that hides them.
    pub fn bare(solid: Solid, reflectance: f32) -> Self {
        Self { solid, reflectance, prints: Vec::new() }
    }

    /// The solid behind a set of tags ([`Convex::behind_tags`]) with those tags on it.
    pub fn with_tags(tags: &[TagOnBody], family: Family, reflectance: f32) -> Result<Self, VisionError> {
        let prints = tags
            .iter()
            .map(|tag| {
                let cells = family.bitmap(tag.id)?;
                let cell_m = tag.size_m / family.cells_within_border() as f64;
                let white = cells.pixels().iter().map(|&level| level > 127).collect();
                Ok(PrintedCells { tag: *tag, cells_a_side: cells.width(), white, cell_m })
            })
            .collect::<Result<Vec<_>, VisionError>>()?;
        Ok(Self { solid: Solid::Convex(Convex::behind_tags(tags, family)?), reflectance, prints })
    }

    /// The base board of a rig.
    pub fn base_board(rig: &Rig) -> Result<Self, VisionError> {
        Self::with_tags(&rig.base_tags, rig.family, 0.6)
    }

    /// A furniture part of a rig.
    pub fn part(rig: &Rig, part: &Part) -> Result<Self, VisionError> {
        Self::with_tags(&part.tags, rig.family, 0.35)
    }

    /// Tags printed on the body, in its frame.
    pub fn tags(&self) -> impl Iterator<Item = &TagOnBody> {
        self.prints.iter().map(|print| &print.tag)
    }
}

/// All bodies before a camera.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scene {
    pub bodies: Vec<SceneBody>,
}

/// Where a body is when the shutter opens and when it closes; in between it moves evenly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Motion {
    pub T_camera_body_open: Pose,
    pub T_camera_body_close: Pose,
}

impl Motion {
    pub fn still(T_camera_body: Pose) -> Self {
        Self { T_camera_body_open: T_camera_body, T_camera_body_close: T_camera_body }
    }

    /// At a fraction of the exposure, 0 to 1.
    pub fn at(&self, fraction: f64) -> Pose {
        interpolate(&self.T_camera_body_open, &self.T_camera_body_close, fraction)
    }

    pub(super) fn moves(&self) -> bool {
        self.T_camera_body_open != self.T_camera_body_close
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag_of_every_part_lies_on_the_outside_of_its_solid() {
        let rig = Rig::built_in().unwrap();
        let parts = rig.parts.iter().map(|part| (part.name.as_str(), part.tags.as_slice()));
        for (name, tags) in parts.chain([("board", rig.base_tags.as_slice())]) {
            let solid = Convex::behind_tags(tags, rig.family).unwrap();
            for tag in tags {
                let outward = -(tag.T_body_tag.rotation * Vector3::z());
                for corner in crate::pose::corners_in_tag(tag.size_m) {
                    let above = tag.T_body_tag * corner + outward * 1e-5;
                    let beyond = solid.planes.iter().map(|(n, d)| n.dot(&above.coords) - d);
                    assert!(beyond.fold(f64::NEG_INFINITY, f64::max) > 0.0, "{name}: tag {} is buried", tag.id);
                    let below = tag.T_body_tag * corner - outward * 4e-4;
                    let beyond = solid.planes.iter().map(|(n, d)| n.dot(&below.coords) - d);
                    assert!(beyond.fold(f64::NEG_INFINITY, f64::max) < 2e-4, "{name}: tag {} floats", tag.id);
                }
            }
        }
    }
}
