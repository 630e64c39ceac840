//! The built-in layouts against the numbers of the specification, read from `../shared/spec/data`.

use nalgebra::{Matrix3, Vector3};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tenon_vision::rig::TagOwner;
use tenon_vision::{FrameVariant, Frames, Pose, Rig};

#[derive(Deserialize)]
struct SpecTags {
    part_tag_size: f64,
    base_tag_size: f64,
    base_tag: Vec<SpecTag>,
    part: Vec<SpecPart>,
}

#[derive(Deserialize)]
struct SpecPart {
    furniture: String,
    index: usize,
    name: String,
    tag: Vec<SpecTag>,
}

#[derive(Deserialize)]
struct SpecTag {
    id: u32,
    pos: [f64; 3],
    rot: [[f64; 3]; 3],
    mesh_pos: Option<[f64; 3]>,
}

#[derive(Deserialize)]
struct SpecFrames {
    robot_from_april: BTreeMap<FrameVariant, SpecFrame>,
}

#[derive(Deserialize)]
struct SpecFrame {
    pos: [f64; 3],
    rot: [[f64; 3]; 3],
}

fn read<T: for<'de> Deserialize<'de>>(name: &str) -> Option<T> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/spec/data").join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(toml::from_str(&text).unwrap()),
        Err(_) => {
            println!("skipped: {} is not here", path.display());
            None
        }
    }
}

fn assert_pose(what: &str, pose: &Pose, pos: [f64; 3], rot: [[f64; 3]; 3]) {
    let rows = Matrix3::from_fn(|row, column| rot[row][column]);
    let turned = (pose.rotation.to_rotation_matrix().matrix() - rows).amax();
    let moved = (pose.translation.vector - Vector3::from(pos)).amax();
    // The specification prints seven digits; one of its positions is off by 0.5 µm (perception.md section 2).
    assert!(turned < 1e-6 && moved < 6e-7, "{what}: rotation {turned}, position {moved}");
}

#[test]
fn every_tag_sits_where_the_specification_puts_it() {
    let Some(spec) = read::<SpecTags>("tags.toml") else { return };
    let rig = Rig::built_in().unwrap();
    assert_eq!(rig.base_tags.len(), spec.base_tag.len());
    for tag in &spec.base_tag {
        let Some(TagOwner::BaseBoard(ours)) = rig.owner(tag.id) else { panic!("base tag {}", tag.id) };
        assert_eq!(ours.size_m, spec.base_tag_size);
        assert_pose(&format!("tag {}", tag.id), &ours.T_body_tag, tag.pos, tag.rot);
    }
    assert_eq!(rig.parts.len(), spec.part.len());
    for part in &spec.part {
        for tag in &part.tag {
            match rig.owner(tag.id) {
                Some(TagOwner::Part(ours, placed)) => {
                    assert_eq!((ours.name.as_str(), ours.index), (part.name.as_str(), part.index));
                    assert!(ours.furniture.contains(&part.furniture));
                    assert_eq!(placed.size_m, spec.part_tag_size);
                    // Section 2.1: where the mesh is known to differ, the mesh is right.
                    let pos = tag.mesh_pos.unwrap_or(tag.pos);
                    assert_pose(&format!("tag {}", tag.id), &placed.T_body_tag, pos, tag.rot);
                }
                Some(TagOwner::Ignored(..)) => assert_eq!(tag.id, 173),
                other => panic!("tag {}: {other:?}", tag.id),
            }
        }
    }
}

#[test]
fn every_frame_variant_equals_the_specification() {
    let Some(spec) = read::<SpecFrames>("frames.toml") else { return };
    let frames = Frames::built_in().unwrap();
    for variant in FrameVariant::ALL {
        let wanted = &spec.robot_from_april[&variant];
        assert_pose(variant.name(), &frames.T_robot_april(variant), wanted.pos, wanted.rot);
    }
}
