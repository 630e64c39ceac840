//! What is written and read again is the same.

use tenon_core::normalizer::ZeroRange;

use super::*;

/// Fields that a format keeps, as single floats.
fn assert_same(a: &Demonstrations, b: &Demonstrations, fields: &[&str]) {
    assert_eq!(a.episodes.len(), b.episodes.len());
    for (x, y) in a.episodes.iter().zip(&b.episodes) {
        for field in fields {
            let (x, y) = (&x.fields[*field], &y.fields[*field]);
            assert_eq!(x.shape(), y.shape(), "{field}");
            let apart = x.values().zip(y.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(apart < 1e-5, "{field}: {apart}");
        }
    }
}

#[test]
fn robomimic_written_and_read_again_is_equal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("again.hdf5");
    let before = found("robomimic.hdf5", Format::Robomimic);
    written(&path, before.demonstrations.clone(), Format::Robomimic, Format::Robomimic);
    let after = found_as(&path, Format::Robomimic, true).unwrap();
    assert_eq!(after.defects, []);
    assert_eq!(after.demonstrations.episodes, before.demonstrations.episodes);
    assert_eq!(after.demonstrations.attributes["mask"], before.demonstrations.attributes["mask"]);
    assert_eq!((after.demonstrations.environment.as_deref(), after.demonstrations.rate_hz), (Some("Lift"), Some(20.0)));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
}

#[test]
fn npz_keeps_the_limits_and_gives_the_values_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("demos");
    let before = found("d4rl.hdf5", Format::D4rl).demonstrations;
    written(&path, before.clone(), Format::Npz, Format::D4rl);
    assert_eq!(detect(&path).unwrap(), Format::Npz);
    let after = found_as(&path, Format::Npz, true).unwrap();
    assert_eq!(verify(&path, &after, Format::Npz.bounds()), []);
    let normalizer = after.demonstrations.normalizer.clone().unwrap();
    assert_eq!(normalizer.zero_range, ZeroRange::AddEpsilon);
    // Limits of the first action over all episodes; normalised values by the formula.
    let all = || before.episodes.iter().flat_map(|e| e.fields["actions"].values().step_by(3));
    let (min, max) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    assert_eq!((f64::from(normalizer.action.min[0]), f64::from(normalizer.action.max[0])), (min, max));
    let (raw, normal) =
        (before.episodes[1].fields["actions"].value(3), after.demonstrations.episodes[1].fields["actions"].value(3));
    assert!((normal - (2.0 * (raw - min) / (max - min + 1e-6) - 1.0)).abs() < 1e-6);
    assert_same(
        &before,
        &after.demonstrations.clone().into_physical(),
        &["obs/state", "actions", "rewards", "terminated"],
    );

    // Written again they keep their limits, even where episodes are gone.
    let mut fewer = after.demonstrations.clone();
    fewer.episodes.truncate(1);
    let again = folder.path().join("fewer");
    written(&again, fewer, Format::Npz, Format::Npz);
    let again = found_as(&again, Format::Npz, true).unwrap().demonstrations;
    assert_eq!(again.normalizer, after.demonstrations.normalizer);
    assert_eq!(again.episodes[0].fields, after.demonstrations.episodes[0].fields);
}

#[test]
fn furniture_is_normalised_with_widened_constants() {
    let folder = tempfile::tempdir().unwrap();
    let before = found("furniture", Format::Furniture).demonstrations;
    let path = folder.path().join("one_leg");
    written(&path, before, Format::Npz, Format::Furniture);
    let after = found_as(&path, Format::Npz, true).unwrap().demonstrations;
    assert_eq!(after.normalizer.as_ref().unwrap().zero_range, ZeroRange::Widen);
    let state = &after.episodes[0].fields["obs/state"];
    assert_eq!(state.width(), 16 + 14);
    assert_eq!(state.value(15), 0.0, "the gripper never moves");
}

#[test]
fn lerobot_written_and_read_again_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set");
    let before = found("lerobot", Format::Lerobot).demonstrations;
    written(&path, before.clone(), Format::Lerobot, Format::Lerobot);
    assert_eq!(detect(&path).unwrap(), Format::Lerobot);
    let after = found_as(&path, Format::Lerobot, true).unwrap();
    assert_eq!(verify(&path, &after, Bounds::default()), []);
    assert_same(&before, &after.demonstrations, &["obs/state", "actions", "rewards", "time_s"]);
    let tasks =
        |d: &Demonstrations| d.episodes.iter().map(|e| (e.attributes["task"].clone(), e.success)).collect::<Vec<_>>();
    assert_eq!(tasks(&before), tasks(&after.demonstrations));
}

#[test]
fn robomimic_becomes_lerobot_with_one_state_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set");
    let before = found("robomimic.hdf5", Format::Robomimic).demonstrations;
    let notes = written(&path, before.clone(), Format::Lerobot, Format::Robomimic);
    assert!(notes.iter().any(|n| n.contains("pictures are left out")), "{notes:?}");
    let after = found_as(&path, Format::Lerobot, true).unwrap();
    assert_eq!(verify(&path, &after, Bounds::default()), []);
    assert_eq!(after.demonstrations.episodes[0].fields["obs/state"].shape(), [5, 14]);
    assert_same(&before, &after.demonstrations, &["actions", "rewards", "states"]);
    let back = folder.path().join("back.hdf5");
    written(&back, after.demonstrations, Format::Robomimic, Format::Lerobot);
    let back = found_as(&back, Format::Robomimic, true).unwrap();
    assert_eq!(back.defects, []);
    assert_same(&before, &back.demonstrations, &["actions", "rewards", "states", "dones"]);
}

#[test]
fn pictures_become_channels_of_npz() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("demos");
    let before = found("robomimic.hdf5", Format::Robomimic).demonstrations;
    let mut output = output(Format::Npz, &before, Format::Robomimic);
    output.choice.pictures = vec!["agentview_image".into()];
    let mut notes = Notes::default();
    write(&path, before.clone(), &output, &mut Steps::new(true, &mut |_, _| true), &mut notes).unwrap();
    let after = found_as(&path, Format::Npz, true).unwrap().demonstrations;
    let (a, b) = (&before.episodes[1].fields["obs/agentview_image"], &after.episodes[1].fields["obs/images"]);
    assert_eq!(b.shape(), [3, 3, 4, 4]);
    // Frame 1, row 2, column 3, green.
    assert_eq!(a.value((16 + 2 * 4 + 3) * 3 + 1), b.value(48 + 16 + 2 * 4 + 3));
}

#[test]
fn nothing_is_written_over_and_an_interruption_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let before = found("lerobot", Format::Lerobot).demonstrations;
    let path = folder.path().join("set");
    for format in Format::WRITTEN {
        let output = output(format, &before, Format::Lerobot);
        let (mut calls, mut notes) = (0, Notes::default());
        let mut tell = |_, _| {
            calls += 1;
            calls < 2
        };
        let result = write(&path, before.clone(), &output, &mut Steps::new(true, &mut tell), &mut notes);
        assert!(matches!(result, Err(DataError::Interrupted)), "{format}: {result:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{format}");
    }
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("x"), "").unwrap();
    let output = output(Format::Lerobot, &before, Format::Lerobot);
    let result = write(&path, before, &output, &mut Steps::new(true, &mut |_, _| true), &mut Notes::default());
    assert!(result.unwrap_err().to_string().contains("is there already"));
}
