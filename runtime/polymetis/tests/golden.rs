//! Our archives equal the golden ones byte for byte, and all golden ones are read.

mod common;

use common::{KQ, KQD, KX, KXD, REST, SAMPLES, TARGETS, golden, is_default_set};
use tenon_polymetis::archive::{
    Archive, ControllerArchive, PANDA_LINK8_FRAME, ParameterArchive, TensorValue, Value, hybrid_controller,
    pd_controller, read_controller, read_parameters, write_parameters,
};

/// The joint targets in an update archive, whoever wrote it.
fn targets(archive: &[u8]) -> [f32; 7] {
    let parameters = read_parameters(archive).unwrap();
    let [(name, tensor)] = parameters.as_slice() else { panic!("{} parameters", parameters.len()) };
    assert_eq!(name, "joint_pos_desired");
    tensor.as_f32_array().unwrap()
}

fn floats<const N: usize>(controller: &ControllerArchive, name: &str) -> [f32; N] {
    controller.attribute(name).and_then(Value::as_tensor).and_then(|tensor| tensor.as_f32_array()).unwrap()
}

#[test]
fn golden_patched_update_archive_is_byte_equal() {
    let Some(expected) = golden("update_joint_pos_desired.minimal.pt") else { return };
    let mut archive = ParameterArchive::joint_pos_desired();
    archive.patch(&[9.0; 7]);
    let targets = if is_default_set() { TARGETS } else { targets(&expected) };
    assert_eq!(archive.patch(&targets), expected);
    assert_eq!(archive.bytes(), expected);
}

#[test]
fn golden_general_writer_gives_the_same_update_archive() {
    let Some(expected) = golden("update_joint_pos_desired.minimal.pt") else { return };
    let tensor = TensorValue::f32_vector(&targets(&expected));
    assert_eq!(write_parameters(&[("joint_pos_desired", &tensor)]).unwrap(), expected);
}

#[test]
fn golden_pd_controller_is_read_and_written_byte_equal() {
    let Some(expected) = golden("pd_controller.minimal.pt") else { return };
    let controller = read_controller(&expected).unwrap();
    assert_eq!(controller.class_name(), "__torch__.C");
    assert!(controller.accepts_updates());
    let names: Vec<_> = controller.attributes().map(|(name, _)| name).collect();
    assert_eq!(names, ["qd", "kp", "kd"]);
    let [q_desired, kp, kd] = ["qd", "kp", "kd"].map(|name| floats::<7>(&controller, name));
    if is_default_set() {
        assert_eq!((q_desired, kp, kd), (REST, KQ, KQD));
    }
    assert_eq!(pd_controller(&q_desired, &kp, &kd).unwrap(), expected);
}

#[test]
fn golden_hybrid_controller_is_read_and_written_byte_equal() {
    let Some(expected) = golden("hybrid_controller.minimal.pt") else { return };
    let controller = read_controller(&expected).unwrap();
    let [q_desired, kq, kqd] = ["qd", "kq", "kqd"].map(|name| floats::<7>(&controller, name));
    let [kx, kxd] = ["kx", "kxd"].map(|name| floats::<6>(&controller, name));
    let frame = controller.attribute("ee").and_then(Value::as_int).unwrap();
    let urdf = controller.attribute("model").and_then(Value::as_object).and_then(|o| o.state.as_str()).unwrap();
    if is_default_set() {
        assert_eq!((q_desired, kq, kqd, kx, kxd), (REST, KQ, KQD, KX, KXD));
    }
    assert_eq!(frame, PANDA_LINK8_FRAME);
    assert!(urdf.contains("panda_link8"));
    let ours = hybrid_controller(&q_desired, &kq, &kqd, &kx, &kxd, urdf).unwrap();
    assert_eq!(ours, expected);
}

#[test]
fn golden_update_archives_of_all_writers_are_read() {
    for file in SAMPLES.iter().filter(|file| file.starts_with("update")) {
        let Some(bytes) = golden(file) else { continue };
        let targets = targets(&bytes);
        assert!(!is_default_set() || targets == TARGETS, "{file}: {targets:?}");
    }
}

#[test]
fn golden_genuine_archive_keeps_its_class_and_text() {
    let Some(bytes) = golden("update_joint_pos_desired.torch28.pt") else { return };
    let archive = Archive::parse(&bytes).unwrap();
    assert_eq!(&*archive.root.class, "__torch__.polymetis.robot_interface.ParamDictContainer");
    let [(module, text)] = archive.sources.as_slice() else { panic!("not one source") };
    assert_eq!(module, "__torch__.polymetis.robot_interface");
    assert!(text.starts_with("class ParamDictContainer(Module):"));
}

#[test]
fn golden_parameter_archive_is_no_controller_and_the_reverse() {
    let Some(update) = golden("update_joint_pos_desired.minimal.pt") else { return };
    let Some(controller) = golden("pd_controller.minimal.pt") else { return };
    assert!(read_controller(&update).is_err());
    assert!(read_parameters(&controller).is_err());
}
