//! What the writer writes the reader reads, and what is not right is refused.

mod common;

use common::{KQ, KQD, KX, KXD, REST, TARGETS, with_entry, with_text};
use tenon_polymetis::archive::{
    ArchiveError, FormatError, PANDA_LINK8_FRAME, ParameterArchive, TensorData, TensorValue, Value, hybrid_controller,
    pd_controller, read_controller, read_parameters, write_parameters,
};

#[test]
fn parameters_of_every_type_and_shape_come_back() {
    let tensors = [
        ("f32", TensorValue::f32_vector(&[1.5, -0.0, f32::MAX])),
        ("f64", TensorValue::f64_vector(&[0.1; 300])),
        ("i64", TensorValue::i64_vector(&[i64::MIN, -1, i64::MAX])),
        ("i32", TensorValue::new(vec![2, 2], TensorData::I32(vec![1, -2, 3, -4])).unwrap()),
        ("bool", TensorValue::new(vec![2], TensorData::Bool(vec![true, false])).unwrap()),
        ("matrix", TensorValue::new(vec![2, 3], TensorData::F32(vec![1.0; 6])).unwrap()),
        ("scalar", TensorValue::new(vec![], TensorData::F64(vec![2.5])).unwrap()),
        ("_", TensorValue::f32_vector(&[])),
        ("none", TensorValue::new(vec![0, 7], TensorData::F32(vec![])).unwrap()),
        ("large", TensorValue::f32_vector(&vec![0.25; 70_000])),
        ("größe", TensorValue::f32_vector(&[1.0])),
    ];
    let entries: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let read = read_parameters(&write_parameters(&entries).unwrap()).unwrap();
    assert_eq!(read.len(), tensors.len());
    for ((name, tensor), (read_name, read_tensor)) in tensors.iter().zip(&read) {
        assert_eq!((name, tensor), (&read_name.as_str(), read_tensor));
    }
}

#[test]
fn patched_template_equals_a_new_archive() {
    let mut template = ParameterArchive::joint_pos_desired();
    assert_eq!(template.bytes().len(), 910);
    for joints in [TARGETS, REST, [f32::NAN; 7], [0.0; 7]] {
        let tensor = TensorValue::f32_vector(&joints);
        let fresh = write_parameters(&[("joint_pos_desired", &tensor)]).unwrap();
        assert_eq!(template.patch(&joints), fresh);
    }
}

#[test]
fn controllers_come_back_with_their_attributes() {
    let pd = read_controller(&pd_controller(&REST, &KQ, &KQD).unwrap()).unwrap();
    let floats = |name: &str| pd.attribute(name).and_then(Value::as_tensor).and_then(|t| t.as_f32_array::<7>());
    assert_eq!([floats("qd"), floats("kp"), floats("kd")], [Some(REST), Some(KQ), Some(KQD)]);
    let urdf = "<robot name=\"größe\">\n</robot>\n";
    let hybrid = read_controller(&hybrid_controller(&REST, &KQ, &KQD, &KX, &KXD, urdf).unwrap()).unwrap();
    let cartesian = |name: &str| hybrid.attribute(name).and_then(Value::as_tensor).and_then(|t| t.as_f32_array::<6>());
    assert_eq!([cartesian("kx"), cartesian("kxd")], [Some(KX), Some(KXD)]);
    assert_eq!(hybrid.attribute("ee").and_then(Value::as_int), Some(PANDA_LINK8_FRAME));
    let model = hybrid.attribute("model").and_then(Value::as_object).unwrap();
    assert_eq!(model.state.as_str(), Some(urdf));
}

#[test]
fn controller_with_values_that_are_not_finite_is_not_written() {
    let mut targets = REST;
    targets[3] = f32::NAN;
    assert!(matches!(
        pd_controller(&targets, &KQ, &KQD),
        Err(ArchiveError::NotFinite { name: "q_desired", index: 3, .. })
    ));
    assert!(hybrid_controller(&REST, &KQ, &KQD, &KX, &[f32::INFINITY; 6], "<robot/>").is_err());
    assert!(hybrid_controller(&REST, &KQ, &KQD, &KX, &KXD, " \n").is_err());
}

#[test]
fn parameter_names_must_be_given_and_differ() {
    let tensor = TensorValue::f32_vector(&[1.0]);
    assert!(write_parameters(&[]).is_err());
    assert!(write_parameters(&[("", &tensor)]).is_err());
    assert!(write_parameters(&[("a", &tensor), ("a", &tensor)]).is_err());
}

#[test]
fn short_storage_is_refused() {
    let mut template = ParameterArchive::joint_pos_desired();
    let short = with_entry(template.patch(&TARGETS), "data/0", |data| Some(data[..24].to_vec()));
    assert_eq!(
        read_parameters(&short),
        Err(FormatError::ShortStorage { entry: "data/0".into(), have_bytes: 24, need_bytes: 28 }.into())
    );
}

#[test]
fn missing_entries_are_named() {
    let archive = ParameterArchive::joint_pos_desired();
    for entry in ["data.pkl", "data/0", "code/__torch__.py", "constants.pkl", "version"] {
        let error = read_parameters(&with_entry(archive.bytes(), entry, |_| None)).unwrap_err();
        assert_eq!(error, FormatError::MissingEntry { entry: entry.into() }.into());
    }
}

#[test]
fn version_must_be_one_to_ten() {
    let archive = ParameterArchive::joint_pos_desired();
    let with_version = |version: &str| with_entry(archive.bytes(), "version", |_| Some(version.into()));
    for version in ["1", "3\n", "10\n"] {
        assert!(read_parameters(&with_version(version)).is_ok(), "{version}");
    }
    for version in ["0", "11", "", "x", "-1", "3.0"] {
        assert!(read_parameters(&with_version(version)).is_err(), "{version}");
    }
}

#[test]
fn forward_with_arguments_is_told_apart() {
    let archive = ParameterArchive::joint_pos_desired();
    let with_argument = with_text(archive.bytes(), "self: __torch__.P", "self: __torch__.P, x: int");
    assert!(matches!(read_parameters(&with_argument), Err(ArchiveError::ForwardNeedsArguments { .. })));
}

#[test]
fn forward_that_computes_is_not_guessed_at() {
    let archive = ParameterArchive::joint_pos_desired();
    let computing = with_text(archive.bytes(), "return self.d", "return {}");
    assert!(matches!(read_parameters(&computing), Err(ArchiveError::NotParameters { .. })));
}

#[test]
fn declared_attribute_must_be_in_the_pickle() {
    let archive = ParameterArchive::joint_pos_desired();
    let changed = with_text(archive.bytes(), "  d : ", "  e : int\n  d : ");
    assert!(matches!(read_parameters(&changed), Err(ArchiveError::Class { .. })));
}

#[test]
fn untagged_dict_is_refused() {
    let archive = ParameterArchive::joint_pos_desired();
    let tag = b"X\x11\x00\x00\x00Dict[str, Tensor]\x86R";
    let function = b"ctorch.jit._pickle\nrestore_type_tag\n";
    let untagged = with_entry(archive.bytes(), "data.pkl", |pickle| {
        let remove = |bytes: &[u8], part: &[u8]| {
            let at = bytes.windows(part.len()).position(|w| w == part).unwrap();
            [&bytes[..at], &bytes[at + part.len()..]].concat()
        };
        Some(remove(&remove(pickle, function), tag))
    });
    assert_eq!(
        read_parameters(&untagged),
        Err(ArchiveError::UntaggedDict { attribute: "d".into(), tag: "not at all".into() })
    );
}
