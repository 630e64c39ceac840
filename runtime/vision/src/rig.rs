//! What the rig looks like: tags on the base board and on the furniture parts, and where the board sits in the robot's
//! base frame. The built-in layouts are `configs/vision/tags.toml` and `configs/vision/frames.toml`.

use crate::{Family, Pose, TagOnBody, VisionError};
use nalgebra::{Translation3, UnitQuaternion};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

const TAGS_TOML: &str = include_str!("../../../configs/vision/tags.toml");
const FRAMES_TOML: &str = include_str!("../../../configs/vision/frames.toml");

/// Name of the base board in messages.
pub const BASE_BOARD: &str = "the base board";

/// The tag layout, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Rig {
    pub family: Family,
    pub max_hamming: u32,
    /// Tags of the base board in the `april` frame.
    pub base_tags: Vec<TagOnBody>,
    pub parts: Vec<Part>,
}

/// A furniture part that carries tags.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Furnitures it belongs to.
    pub furniture: Vec<String>,
    /// Index in the observation's part order.
    pub index: usize,
    pub name: String,
    /// Tags to use, in the part's frame.
    pub tags: Vec<TagOnBody>,
    /// Tags the part carries whose published place cannot be trusted, and why.
    pub ignored: Vec<(u32, String)>,
}

/// Where a tag id belongs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TagOwner<'a> {
    BaseBoard(&'a TagOnBody),
    Part(&'a Part, &'a TagOnBody),
    /// On the part, but not to be used for its pose.
    Ignored(&'a Part, &'a str),
}

impl Rig {
    /// The layout of `configs/vision/tags.toml`, compiled in.
    pub fn built_in() -> Result<Self, VisionError> {
        Self::parse(TAGS_TOML, "built-in configs/vision/tags.toml")
    }

    /// A layout of your own in the same format.
    pub fn load(path: &Path) -> Result<Self, VisionError> {
        Self::parse(&read_text(path)?, &path.display().to_string())
    }

    /// `origin` names the text in messages.
    pub fn parse(text: &str, origin: &str) -> Result<Self, VisionError> {
        let raw: RawRig = parse_toml(text, origin)?;
        let fail = |message: String| VisionError::Layout { origin: origin.to_owned(), message };
        for (key, size) in [("base_tag_size_m", raw.base_tag_size_m), ("part_tag_size_m", raw.part_tag_size_m)] {
            if !(size > 0.0 && size < 1.0) {
                return Err(fail(format!("{key} = {size}: must lie between 0 and 1 m")));
            }
        }
        if raw.max_hamming > 2 {
            return Err(fail(format!("max_hamming = {}: must be 0 to 2", raw.max_hamming)));
        }
        let mut ids = Vec::new();
        let mut place = |id: u32, position_m: [f64; 3], euler_xyz_deg: [f64; 3], size_m: f64| {
            if ids.contains(&id) {
                return Err(fail(format!("tag id {id} is listed twice")));
            }
            ids.push(id);
            let T_body_tag = pose_from_euler(position_m, euler_xyz_deg);
            let T_body_tag = T_body_tag.ok_or_else(|| fail(format!("tag id {id}: its pose is not finite")))?;
            Ok(TagOnBody { id, size_m, T_body_tag })
        };
        let base_tags = raw
            .base_tag
            .iter()
            .map(|tag| place(tag.id, tag.position_m, tag.euler_xyz_deg, raw.base_tag_size_m))
            .collect::<Result<Vec<_>, _>>()?;
        if base_tags.is_empty() {
            return Err(fail("base_tag: the base board needs at least one tag".to_owned()));
        }
        let mut parts = Vec::with_capacity(raw.part.len());
        for part in raw.part {
            let (mut tags, mut ignored) = (Vec::new(), Vec::new());
            for tag in part.tags {
                let placed = place(tag.id, tag.position_m, tag.euler_xyz_deg, raw.part_tag_size_m)?;
                match tag.ignored_because {
                    None => tags.push(placed),
                    Some(reason) => ignored.push((tag.id, reason)),
                }
            }
            if tags.is_empty() {
                return Err(fail(format!("part {}: needs at least one tag that is not ignored", part.name)));
            }
            parts.push(Part { furniture: part.furniture, index: part.index, name: part.name, tags, ignored });
        }
        Ok(Self { family: raw.family, max_hamming: raw.max_hamming, base_tags, parts })
    }

    /// Where tag `id` belongs, if anywhere.
    pub fn owner(&self, id: u32) -> Option<TagOwner<'_>> {
        if let Some(tag) = self.base_tags.iter().find(|tag| tag.id == id) {
            return Some(TagOwner::BaseBoard(tag));
        }
        self.parts.iter().find_map(|part| {
            if let Some(tag) = part.tags.iter().find(|tag| tag.id == id) {
                return Some(TagOwner::Part(part, tag));
            }
            let ignored = part.ignored.iter().find(|(ignored, _)| *ignored == id);
            ignored.map(|(_, reason)| TagOwner::Ignored(part, reason))
        })
    }
}

/// Published positions of the base board in the robot's base frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameVariant {
    /// What the policies were trained with; the default everywhere.
    Training,
    Benchmark,
    AuthorsHardware,
}

impl FrameVariant {
    pub const ALL: [Self; 3] = [Self::Training, Self::Benchmark, Self::AuthorsHardware];

    pub fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Benchmark => "benchmark",
            Self::AuthorsHardware => "authors_hardware",
        }
    }
}

/// One entry for each [`FrameVariant`].
#[derive(Debug, Clone, PartialEq)]
pub struct Frames {
    entries: BTreeMap<FrameVariant, (Pose, String)>,
}

impl Frames {
    /// The variants of `configs/vision/frames.toml`, compiled in.
    pub fn built_in() -> Result<Self, VisionError> {
        Self::parse(FRAMES_TOML, "built-in configs/vision/frames.toml")
    }

    /// Variants of your own in the same format.
    pub fn load(path: &Path) -> Result<Self, VisionError> {
        Self::parse(&read_text(path)?, &path.display().to_string())
    }

    pub fn parse(text: &str, origin: &str) -> Result<Self, VisionError> {
        let raw: RawFrames = parse_toml(text, origin)?;
        let mut entries = BTreeMap::new();
        for variant in FrameVariant::ALL {
            let fail = |message: &str| VisionError::Layout {
                origin: origin.to_owned(),
                message: format!("robot_from_april.{}: {message}", variant.name()),
            };
            let frame = raw.robot_from_april.get(&variant).ok_or_else(|| fail("is missing"))?;
            let pose = pose_from_euler(frame.position_m, frame.euler_xyz_deg);
            let pose = pose.ok_or_else(|| fail("its pose is not finite"))?;
            entries.insert(variant, (pose, frame.meaning.clone()));
        }
        Ok(Self { entries })
    }

    /// Pose of the april frame in the robot's base frame.
    pub fn T_robot_april(&self, variant: FrameVariant) -> Pose {
        self.entry(variant).0
    }

    /// What the variant stands for, in words.
    pub fn meaning(&self, variant: FrameVariant) -> &str {
        &self.entry(variant).1
    }

    fn entry(&self, variant: FrameVariant) -> &(Pose, String) {
        self.entries.get(&variant).expect("parse() refuses a table that lacks a variant")
    }
}

/// Pose from a position (m) and the sources' Euler angles: Rz(z) · Ry(y) · Rx(x). `None` when not finite.
fn pose_from_euler(position_m: [f64; 3], euler_xyz_deg: [f64; 3]) -> Option<Pose> {
    let finite = position_m.iter().chain(&euler_xyz_deg).all(|v| v.is_finite());
    let [x, y, z] = euler_xyz_deg.map(f64::to_radians);
    // nalgebra's roll, pitch, yaw are rotations about fixed x, y, z: the same product.
    let rotation = UnitQuaternion::from_euler_angles(x, y, z);
    finite.then(|| Pose::from_parts(Translation3::from(nalgebra::Vector3::from(position_m)), rotation))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRig {
    family: Family,
    max_hamming: u32,
    base_tag_size_m: f64,
    part_tag_size_m: f64,
    base_tag: Vec<RawBaseTag>,
    part: Vec<RawPart>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBaseTag {
    id: u32,
    position_m: [f64; 3],
    euler_xyz_deg: [f64; 3],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPart {
    furniture: Vec<String>,
    index: usize,
    name: String,
    tags: Vec<RawPartTag>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPartTag {
    id: u32,
    position_m: [f64; 3],
    euler_xyz_deg: [f64; 3],
    ignored_because: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFrames {
    robot_from_april: BTreeMap<FrameVariant, RawFrame>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFrame {
    meaning: String,
    position_m: [f64; 3],
    euler_xyz_deg: [f64; 3],
}

fn read_text(path: &Path) -> Result<String, VisionError> {
    std::fs::read_to_string(path).map_err(|error| VisionError::Layout {
        origin: path.display().to_string(),
        message: format!("cannot be read: {error}"),
    })
}

/// Errors carry file, line and, for an unknown key, the keys that exist.
fn parse_toml<T: for<'de> Deserialize<'de>>(text: &str, origin: &str) -> Result<T, VisionError> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| 1 + text[..span.start].matches('\n').count());
        VisionError::Layout {
            origin: line.map_or_else(|| origin.to_owned(), |line| format!("{origin}:{line}")),
            message: error.message().to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_layouts_are_whole() {
        let rig = Rig::built_in().unwrap();
        assert_eq!(rig.base_tags.len(), 4);
        assert_eq!(rig.parts.len(), 11);
        assert!(
            matches!(rig.owner(6), Some(TagOwner::Part(part, tag)) if part.name == "square_table_top" && tag.size_m == 0.0195)
        );
        assert!(matches!(rig.owner(3), Some(TagOwner::BaseBoard(tag)) if tag.size_m == 0.048));
        assert!(matches!(rig.owner(173), Some(TagOwner::Ignored(part, _)) if part.name == "lamp_base"));
        assert!(rig.owner(500).is_none());
        let frames = Frames::built_in().unwrap();
        let R = frames.T_robot_april(FrameVariant::Training).rotation.to_rotation_matrix();
        let want = nalgebra::Matrix3::new(0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0);
        assert!((R.matrix() - want).norm() < 1e-12);
        assert_eq!(frames.T_robot_april(FrameVariant::Benchmark).translation.z, -0.015);
    }

    #[test]
    fn lamp_hood_tags_look_outward_from_the_corrected_places() {
        let rig = Rig::built_in().unwrap();
        let hood = rig.parts.iter().find(|part| part.name == "lamp_hood").unwrap();
        for tag in &hood.tags {
            let outward = -(tag.T_body_tag.rotation * nalgebra::Vector3::z());
            let place = tag.T_body_tag.translation.vector;
            let horizontal = nalgebra::Vector3::new(place.x, 0.0, place.z).normalize();
            assert!(outward.dot(&horizontal) > 0.98, "tag {}: {outward:?} {place:?}", tag.id);
        }
    }

    #[test]
    fn mistakes_name_file_line_and_what_is_allowed() {
        let text = TAGS_TOML.replace("part_tag_size_m", "part_tag_size");
        let message = Rig::parse(&text, "mine.toml").unwrap_err().to_string();
        assert!(message.starts_with("mine.toml:12: ") && message.contains("part_tag_size_m"), "{message}");
        let text = TAGS_TOML.replace("id = 1\n", "id = 0\n");
        let message = Rig::parse(&text, "mine.toml").unwrap_err().to_string();
        assert!(message.contains("tag id 0 is listed twice"), "{message}");
        let text = TAGS_TOML.replace("0.0195", "nan");
        assert!(Rig::parse(&text, "mine.toml").unwrap_err().to_string().contains("part_tag_size_m"));
        let text = FRAMES_TOML.replace("benchmark]", "bench]");
        let message = Frames::parse(&text, "frames.toml").unwrap_err().to_string();
        assert!(message.contains("bench") && message.contains("authors_hardware"), "{message}");
    }
}
