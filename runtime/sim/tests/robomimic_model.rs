//! The compiled scenes beside what MuJoCo's Python package made of the same: `sim/model_mj337` of the golden folder.

mod robomimic_data;

use robomimic_data::{Arrays, difference, golden_file, reference_scene, scenes_are_there};
use tenon_sim::mujoco::ObjectKind;
use tenon_sim::robomimic::{RobomimicScene, RobomimicTask, SceneSizes, Visuals};

/// Of values that a compiler's own arithmetic has gone through.
const TOLERANCE: f64 = 1e-12;

/// Compares every table that both have; `kept[geom]` says which geoms of the record the scene holds.
fn compare(task: RobomimicTask, scene: &RobomimicScene, arrays: &Arrays, kept: &[bool]) -> usize {
    let tables = scene.model().tables();
    let mut compared = 0;
    for name in arrays.names() {
        let Some((kind, found)) = tables.get(&name) else { continue };
        let recorded = arrays.reals(&name);
        let recorded = if kind == ObjectKind::Geom {
            let width = recorded.len() / kept.len();
            recorded
                .chunks_exact(width)
                .zip(kept)
                .filter(|(_, kept)| **kept)
                .flat_map(|(row, _)| row)
                .copied()
                .collect()
        } else {
            recorded
        };
        // Robosuite moves Can's visual targets only at a reset; our scenes have them there from the start.
        let moved = task == RobomimicTask::Can && name == "body_pos";
        let (found, recorded) = if moved {
            let targets = scene.model().names(ObjectKind::Body);
            let rest = |values: &[f64]| -> Vec<f64> {
                let rows = values.chunks_exact(3).zip(&targets);
                rows.filter(|(_, name)| !name.starts_with("Visual")).flat_map(|(row, _)| row).copied().collect()
            };
            (rest(&found), rest(&recorded))
        } else {
            (found, recorded)
        };
        let error = difference(&found, &recorded);
        let scale = recorded.iter().fold(1f64, |scale, value| scale.max(value.abs()));
        assert!(error <= TOLERANCE * scale, "{task}: {name} differs by {error:e}");
        compared += 1;
    }
    let [damping, armature, friction] = tables.degrees_of_freedom();
    for (name, found) in [("dof_damping", damping), ("dof_armature", armature), ("dof_frictionloss", friction)] {
        assert!(difference(found, &arrays.reals(name)) <= TOLERANCE, "{task}: {name}");
    }
    assert!(difference(tables.initial_positions(), &arrays.reals("qpos0")) <= TOLERANCE, "{task}: qpos0");
    compared
}

/// Names of the record, by kind.
fn recorded_names(json: &serde_json::Value, task: RobomimicTask, kind: ObjectKind) -> Vec<String> {
    let names = json[task.to_string()]["names"][kind.as_str()].as_array().unwrap();
    names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

const KINDS: [ObjectKind; 6] =
    [ObjectKind::Body, ObjectKind::Joint, ObjectKind::Geom, ObjectKind::Site, ObjectKind::Actuator, ObjectKind::Camera];

#[test]
fn scenes_are_those_of_robosuite_with_and_without_what_is_only_seen() {
    let (Some(bytes), Some(json)) = (golden_file("model_mj337.safetensors"), golden_file("model_mj337.json")) else {
        return;
    };
    if !scenes_are_there() {
        return;
    }
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    for task in RobomimicTask::ALL {
        let arrays = Arrays::new(&bytes, task);
        let (group, contact) = (arrays.reals("geom_group"), arrays.reals("geom_contype"));
        let affinity = arrays.reals("geom_conaffinity");
        let touches: Vec<bool> =
            (0..group.len()).map(|geom| group[geom] == 0.0 || contact[geom] + affinity[geom] > 0.0).collect();
        for visuals in [Visuals::With, Visuals::Without] {
            let scene = reference_scene(task, visuals);
            let kept = match visuals {
                Visuals::With => vec![true; touches.len()],
                Visuals::Without => touches.clone(),
            };
            for kind in KINDS {
                let mut names = recorded_names(&json, task, kind);
                if kind == ObjectKind::Geom {
                    names = names.into_iter().zip(&kept).filter(|(_, kept)| **kept).map(|(name, _)| name).collect();
                }
                assert_eq!(scene.model().names(kind), names, "{task}: names of each {}", kind.as_str());
            }
            let compared = compare(task, &scene, &arrays, &kept);
            assert!(compared >= 35, "{task}: only {compared} tables were compared");
            println!(
                "{task} {visuals:?} visuals: {compared} tables, {} geoms agree",
                scene.model().count(ObjectKind::Geom)
            );
        }
    }
}

/// The sizes of the record again after other ones: what the simulation edits is all that the sizes change.
#[test]
fn drawn_sizes_change_mass_and_geometry_of_their_object_alone() {
    if !scenes_are_there() {
        return;
    }
    for (task, object) in [(RobomimicTask::Lift, "cube"), (RobomimicTask::Transport, "payload")] {
        let reference = reference_scene(task, Visuals::Without);
        let other = RobomimicScene::new(task, SceneSizes::drawn(task, 7), Visuals::Without).unwrap();
        assert_ne!(other.sizes(), reference.sizes());
        let bodies = reference.model().names(ObjectKind::Body);
        let geoms = reference.model().names(ObjectKind::Geom);
        for (table, names, width) in [("body_mass", &bodies, 1), ("geom_size", &geoms, 3), ("body_pos", &bodies, 3)] {
            let (_, before) = reference.model().tables().get(table).unwrap();
            let (_, after) = other.model().tables().get(table).unwrap();
            for (index, name) in names.iter().enumerate() {
                let rows = [&before, &after].map(|values| &values[index * width..][..width]);
                if rows[0] != rows[1] {
                    assert!(name.starts_with(object), "{task}: {table} of {name} has changed");
                    assert_ne!(table, "body_pos");
                }
            }
            assert_eq!(before == after, table == "body_pos", "{task}: {table}");
        }
        // Seeds give sizes of their own, always the same.
        assert_eq!(SceneSizes::drawn(task, 7), other.sizes());
        assert_ne!(SceneSizes::drawn(task, 8), other.sizes());
    }
}

/// A cube of 1000 kg/m³.
#[test]
fn the_cubes_mass_follows_its_size() {
    if !scenes_are_there() {
        return;
    }
    let scene =
        RobomimicScene::new(RobomimicTask::Lift, SceneSizes::drawn(RobomimicTask::Lift, 3), Visuals::Without).unwrap();
    let SceneSizes::Cube { half_sizes_m: [x, y, z] } = scene.sizes() else { panic!() };
    assert!([x, y, z].iter().all(|half| (0.020..=0.022).contains(half)));
    let (_, masses) = scene.model().tables().get("body_mass").unwrap();
    let cube = scene.model().names(ObjectKind::Body).iter().position(|name| name == "cube_main").unwrap();
    assert!((masses[cube] - 1000.0 * 8.0 * x * y * z).abs() < 1e-12);
}

#[test]
fn another_tasks_scene_is_refused_by_what_differs() {
    if !scenes_are_there() {
        return;
    }
    let error = RobomimicScene::new(RobomimicTask::Lift, SceneSizes::Fixed, Visuals::Without).unwrap_err().to_string();
    assert!(error.contains("lift.xml") && error.contains("sizes of lift"), "{error}");
}
