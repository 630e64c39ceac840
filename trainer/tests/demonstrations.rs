//! Scripted and recorded demonstrations: what they hold, that the environment replays them, that bad files are refused.

use std::path::{Path, PathBuf};

use tenon_core::avoid::{CHUNK_STEPS, COMMANDED_HEIGHT_M, DemonstrationSet, MODE_COUNT, Mode, chunk_succeeds};
use tenon_core::task::TaskName;
use tenon_sim::avoid::{AvoidEnv, AvoidScene};
use tenon_sim::batch::Environment;
use tenon_sim::render::Quality;
use tenon_sim::robomimic::{RobomimicTask, scene_path};
use tenon_train::dataset::Dataset;
use tenon_train::demos::{
    Alignment, MAX_INCREMENT_M, RobomimicOptions, ScriptOptions, ScriptReport, demonstrate, read_human,
    recorded_quality, script, select, write_demonstrations,
};
use tenon_train::film::FilmOptions;

fn scripted(threads: usize) -> ScriptReport {
    script(ScriptOptions { seed: 5, per_mode: 1, threads }, &|| false, &|_| {}).unwrap()
}

#[test]
fn scripted_episodes_cover_all_modes_and_are_the_same_for_any_thread_count() {
    let report = scripted(1);
    assert_eq!(report, scripted(3));
    assert_eq!(report.episodes.len(), MODE_COUNT);
    for (mode, episode) in Mode::all().zip(&report.episodes) {
        assert_eq!(episode.mode, Some(mode));
        assert!((60..=106).contains(&episode.steps()), "{} steps", episode.steps());
        let largest = episode.actions.iter().flatten().fold(0f32, |m, a| m.max(a.abs()));
        assert!(f64::from(largest) <= MAX_INCREMENT_M + 1e-9, "{largest}");
        assert_eq!(episode.commanded_xy_m.len(), episode.steps() + 1);
    }
}

/// The stored pairs are what the environment hands out, and imitating them earns the success.
#[test]
fn the_environment_replays_scripted_episodes_and_pays_for_them() {
    let scene = AvoidScene::new().unwrap();
    let mut environment = AvoidEnv::new(&scene);
    let mut observation = [0.0; 4];
    for episode in scripted(2).episodes {
        environment.reset(0, &mut observation);
        for (stored, action) in episode.observations.iter().zip(&episode.actions) {
            environment.step(&action.map(f64::from), &mut observation);
            assert_eq!(observation.map(|v| v as f32), *stored);
        }
        assert!(!environment.rod_touched());

        environment.reset(0, &mut observation);
        let mut actions: Vec<f64> = episode.actions.iter().flatten().map(|&a| f64::from(a)).collect();
        actions.resize(200, 0.0);
        let succeeded = actions.chunks_exact(2 * CHUNK_STEPS).any(|chunk| {
            let outcome = environment.step_chunk(chunk, &mut observation);
            chunk_succeeds(outcome.reward, outcome.steps)
        });
        let ends_left = episode.mode.is_some_and(|mode| mode.bits().is_set(5));
        assert_eq!(succeeded, ends_left, "{:?}", episode.mode);
    }
}

/// What training pairs with an action is what a policy that plans chunks of four sees before it.
#[test]
fn training_pairs_are_those_of_run_time() {
    let scene = AvoidScene::new().unwrap();
    let mut environment = AvoidEnv::new(&scene);
    let mut observation = [0.0; 4];
    let episode = &scripted(2).episodes[12];
    environment.reset(0, &mut observation);
    let seen = episode.training_observations(Alignment::RunTime);
    for (chunk, actions) in episode.actions.chunks_exact(CHUNK_STEPS).enumerate() {
        assert_eq!(observation.map(|v| v as f32), seen[chunk * CHUNK_STEPS], "chunk {chunk}");
        let actions: Vec<f64> = actions.iter().flatten().map(|&a| f64::from(a)).collect();
        environment.step_chunk(&actions, &mut observation);
    }
}

/// A recorded row holds the set point of the step that is about to run, so its age differs from the measured one's.
#[test]
fn recorded_demonstrations_replayed_in_the_environment_show_their_training_pairs() {
    let Some(path) = human_file() else { return };
    let scene = AvoidScene::new().unwrap();
    let mut environment = AvoidEnv::new(&scene);
    for episode in read_human(&path).unwrap().iter().take(3) {
        let seen = episode.training_observations(Alignment::RunTime);
        environment.restart();
        let mut before = environment.observation();
        for (t, commanded) in episode.commanded_xy_m.iter().enumerate().take(seen.len()) {
            // `before`: the state before step t, which a policy sees when it decides on the set point of step t + 1.
            if t > 0 {
                let apart = (0..4).map(|i| (before[i] - f64::from(seen[t][i])).abs()).fold(0.0, f64::max);
                assert!(apart < 0.004, "step {t}: {before:?} and {:?}", seen[t]);
            }
            environment.step_setpoint([commanded[0], commanded[1], COMMANDED_HEIGHT_M]).unwrap();
            before = environment.observation();
        }
    }
}

#[test]
fn stopping_ends_scripting_early() {
    let report = script(ScriptOptions { seed: 5, per_mode: 40, threads: 2 }, &|| true, &|_| {}).unwrap();
    assert!(report.stopped && report.episodes.is_empty());
}

fn human_file() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/avoid/demos.npz");
    if !path.is_file() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn human_demonstrations_are_selected_as_the_paper_does() {
    let Some(path) = human_file() else { return };
    let episodes = read_human(&path).unwrap();
    assert_eq!(episodes.len(), 96);
    assert_eq!(episodes.iter().map(|e| e.steps() + 1).sum::<usize>(), 7401);
    for (set, steps) in DemonstrationSet::ALL.into_iter().zip([571, 622, 685]) {
        let selected = select(&episodes, set);
        assert_eq!(selected.len(), 8, "{set:?}");
        assert_eq!(selected.iter().map(|e| e.steps()).sum::<usize>(), steps, "{set:?}");
        for bit in set.final_bits() {
            let with_bit = selected.iter().filter(|e| e.mode.is_some_and(|m| m.bits().is_set(bit))).count();
            assert_eq!(with_bit, 4, "{set:?}, bit {bit}");
        }
    }
}

/// A recorded file, damaged one way or another.
mod bad_input {
    use super::*;
    use ndarray_npz::NpzWriter;
    use ndarray_npz::ndarray::{Array1, Array2};

    fn refused(lengths: Vec<i64>, commanded: Array2<f32>, measured: Array2<f32>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("demos.npz");
        let mut npz = NpzWriter::new(std::fs::File::create(&path).unwrap());
        npz.add_array("lengths.npy", &Array1::from(lengths)).unwrap();
        npz.add_array("des_xyz.npy", &commanded).unwrap();
        npz.add_array("c_xyz.npy", &measured).unwrap();
        npz.finish().unwrap();
        read_human(&path).unwrap_err().to_string()
    }

    #[test]
    fn nan_is_refused_with_its_place() {
        let mut measured = Array2::zeros((5, 3));
        measured[(3, 1)] = f32::NAN;
        let error = refused(vec![2, 3], Array2::zeros((5, 3)), measured);
        assert!(error.contains("demos.npz") && error.contains("`c_xyz`, episode 1, frame 1: value 1"), "{error}");
    }

    #[test]
    fn wrong_width_is_refused() {
        let error = refused(vec![5], Array2::zeros((5, 2)), Array2::zeros((5, 3)));
        assert!(error.contains("`des_xyz`") && error.contains("2 values"), "{error}");
    }

    #[test]
    fn no_episode_is_refused() {
        let error = refused(vec![], Array2::zeros((0, 3)), Array2::zeros((0, 3)));
        assert!(error.contains("no episode"), "{error}");
        let error = refused(vec![1], Array2::zeros((1, 3)), Array2::zeros((1, 3)));
        assert!(error.contains("episode 0 has 1 rows"), "{error}");
    }

    #[test]
    fn missing_rows_are_refused() {
        let error = refused(vec![4, 4], Array2::zeros((8, 3)), Array2::zeros((7, 3)));
        assert!(error.contains("`c_xyz`") && error.contains("7 rows"), "{error}");
    }

    #[test]
    fn a_truncated_file_is_refused() {
        let Some(path) = human_file() else { return };
        let bytes = std::fs::read(path).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let cut = folder.path().join("cut.npz");
        for keep in [0, 100, bytes.len() / 2, bytes.len() - 30] {
            std::fs::write(&cut, &bytes[..keep]).unwrap();
            let error = read_human(&cut).unwrap_err().to_string();
            assert!(error.contains("cut.npz"), "{error}");
        }
    }
}

/// Lift's expert on its own: threads leave no trace, every episode ends in success, and what is written can be trained on.
#[test]
fn demonstrations_of_lift_are_the_same_for_any_thread_count_and_make_a_data_set() {
    if let Err(error) = scene_path(RobomimicTask::Lift) {
        println!("skipped: {error}");
        return;
    }
    let options = RobomimicOptions {
        task: TaskName::Lift,
        episodes: 4,
        seed: 3,
        threads: 1,
        keep_failures: false,
        pictures: Quality::Fast,
    };
    let report = demonstrate(options, None, &|| false, &|_, _| {}).unwrap();
    assert_eq!(report, demonstrate(RobomimicOptions { threads: 3, ..options }, None, &|| false, &|_, _| {}).unwrap());
    assert_eq!(report.successes, 4);
    let mut end = 0;
    for &length in &report.recording.lengths {
        end += length;
        assert!(report.recording.rewards[end - 10..end].iter().all(|&reward| reward == 1.0));
    }
    assert!(report.recording.actions.iter().all(|action| action.abs() <= 1.0));

    let folder = tempfile::tempdir().unwrap();
    let summary = write_demonstrations(folder.path(), options, report, 0.0).unwrap();
    let data = Dataset::open(&folder.path().join("train.npz")).unwrap();
    assert_eq!((data.frames(), data.lengths.len()), (summary.frames, 4));
    assert!(data.states.iter().chain(&data.actions).all(|value| value.abs() <= 1.0 + 1e-5));
}

/// Pictures and films of the same episodes as without them: what the expert does does not depend on who looks.
#[test]
fn demonstrations_with_pictures_and_films_are_those_without() {
    if let Err(error) = scene_path(RobomimicTask::Lift) {
        println!("skipped: {error}");
        return;
    }
    let blind = RobomimicOptions {
        task: TaskName::Lift,
        episodes: 2,
        seed: 3,
        threads: 2,
        keep_failures: false,
        pictures: Quality::Fast,
    };
    let seen = RobomimicOptions { task: TaskName::LiftPixels, ..blind };
    let folder = tempfile::tempdir().unwrap();
    let videos = folder.path().join("videos");
    let film = FilmOptions {
        task: TaskName::LiftPixels,
        episodes: 1,
        seed: 3,
        folder: &videos,
        who: "scripted expert",
        width: 64,
        height: 48,
        quality: Quality::Fast,
        camera: None,
        mp4: false,
        randomisation: None,
        pictures: None,
    };
    let report = match demonstrate(seen, Some(film), &|| false, &|_, _| {}) {
        Err(error) if error.to_string().contains("OpenGL") => {
            println!("skipped: {error}");
            return;
        }
        made => made.unwrap(),
    };
    let without = demonstrate(blind, None, &|| false, &|_, _| {}).unwrap();
    assert_eq!(
        (&report.recording.actions, &report.recording.lengths),
        (&without.recording.actions, &without.recording.lengths)
    );
    let [shown, whole] = [seen, blind].map(|options| options.task.observation_dim());
    assert!(shown < whole);
    let rows =
        report.recording.observations.chunks_exact(shown).zip(without.recording.observations.chunks_exact(whole));
    assert!(rows.into_iter().all(|(seen, all)| seen == &all[..shown]));

    let films = report.film.clone().unwrap();
    assert_eq!((films.episodes.len(), films.episodes[0].success), (1, Some(true)));
    assert_eq!(films.episodes[0].control_steps, report.recording.lengths[0]);
    assert_eq!(films.episodes[0].frames as usize, report.recording.lengths[0] + 1);
    assert!(videos.join(&films.episodes[0].png).is_file());
    assert!(std::fs::read_to_string(&films.index).unwrap().contains("scripted expert"));

    let summary = write_demonstrations(folder.path(), seen, report, 0.0).unwrap();
    assert_eq!(summary.pictures, Some(Quality::Fast));
    assert_eq!(recorded_quality(folder.path()).unwrap(), Some(Quality::Fast));
    let data = Dataset::open(&folder.path().join("train.npz")).unwrap();
    let pictures = data.pictures.unwrap();
    assert_eq!(
        (pictures.channels, pictures.px, pictures.bytes.len()),
        (3, 96, data.lengths.iter().sum::<usize>() * 27_648)
    );
    // The arm moves, so what its hand sees does.
    assert_ne!(pictures.frame(0), pictures.frame(20));

    std::fs::write(folder.path().join("summary.json"), r#"{"pictures": "blurred"}"#).unwrap();
    let error = recorded_quality(folder.path()).unwrap_err().to_string();
    assert!(error.contains("blurred") && error.contains("summary.json"), "{error}");
}

#[test]
fn demonstrating_stops_when_asked_and_refuses_other_tasks() {
    let options = RobomimicOptions {
        task: TaskName::Hopper,
        episodes: 1,
        seed: 0,
        threads: 1,
        keep_failures: false,
        pictures: Quality::Fast,
    };
    let error = demonstrate(options, None, &|| false, &|_, _| {}).unwrap_err().to_string();
    assert!(error.contains("hopper has no scripted expert"), "{error}");
    if scene_path(RobomimicTask::Square).is_err() {
        return;
    }
    let options = RobomimicOptions { task: TaskName::Square, ..options };
    assert!(demonstrate(options, None, &|| true, &|_, _| {}).unwrap().stopped);
}
