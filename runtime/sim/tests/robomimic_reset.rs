//! Starts beside 150 of robosuite's for each task: `reset_qpos` of `sim/robosuite_mj337.safetensors`.
//!
//! Each coordinate that varies is compared by a two-sample Kolmogorov-Smirnov test; the level over all coordinates of all
//! tasks together is 0.1 % (Bonferroni). Coordinates that do not vary are the same.

mod robomimic_data;

use robomimic_data::{Arrays, golden_file, reference_scene, scenes_are_there};
use tenon_sim::batch::{Environment, episode_seed};
use tenon_sim::robomimic::{RobomimicEnv, RobomimicOptions, RobomimicTask, Visuals};

const LEVEL: f64 = 1e-3;
const STARTS: usize = 2000;

/// Largest distance of the two empirical distributions.
fn kolmogorov_smirnov(a: &mut [f64], b: &mut [f64]) -> f64 {
    a.sort_by(f64::total_cmp);
    b.sort_by(f64::total_cmp);
    let (mut i, mut j, mut largest) = (0, 0, 0f64);
    while i < a.len() && j < b.len() {
        let value = a[i].min(b[j]);
        while i < a.len() && a[i] <= value {
            i += 1;
        }
        while j < b.len() && b[j] <= value {
            j += 1;
        }
        largest = largest.max((i as f64 / a.len() as f64 - j as f64 / b.len() as f64).abs());
    }
    largest
}

/// The distance that two samples of one distribution exceed with probability `level`.
fn critical_distance(level: f64, a: usize, b: usize) -> f64 {
    (-0.5 * (0.5 * level).ln() * (a + b) as f64 / (a * b) as f64).sqrt()
}

fn column(rows: &[f64], width: usize, column: usize) -> Vec<f64> {
    rows.chunks_exact(width).map(|row| row[column]).collect()
}

fn range(values: &[f64]) -> f64 {
    values.iter().fold(f64::MIN, |a, &b| a.max(b)) - values.iter().fold(f64::MAX, |a, &b| a.min(b))
}

/// Starts of our own, `[STARTS, nq]`.
fn starts(task: RobomimicTask) -> (Vec<f64>, usize) {
    let scene = reference_scene(task, Visuals::Without);
    let mut env = RobomimicEnv::new(&scene, RobomimicOptions::default());
    let mut observation = vec![0.0; task.observation_dim()];
    let mut rows = Vec::new();
    for start in 0..STARTS as u64 {
        env.reset(episode_seed(11, 0, start), &mut observation);
        rows.extend_from_slice(env.qpos());
        assert!(env.qvel().iter().all(|velocity| *velocity == 0.0));
    }
    (rows, scene.model().position_dim())
}

#[test]
fn starts_are_distributed_as_those_of_robosuite() {
    let Some(bytes) = golden_file("robosuite_mj337.safetensors").filter(|_| scenes_are_there()) else {
        return;
    };
    let all = RobomimicTask::ALL.map(|task| {
        let (rows, width) = starts(task);
        (task, rows, Arrays::new(&bytes, task).reals("reset_qpos"), width)
    });
    let varies = |values: &[f64]| range(values) > 1e-9;
    let compared: usize = all
        .iter()
        .map(|(_, _, theirs, width)| (0..*width).filter(|i| varies(&column(theirs, *width, *i))).count())
        .sum();
    assert!(compared > 60, "{compared}");
    for (task, ours, theirs, width) in &all {
        let mut largest = (0.0, 0);
        for index in 0..*width {
            let (mut a, mut b) = (column(ours, *width, index), column(theirs, *width, index));
            if !varies(&b) {
                let worst = a.iter().map(|value| (value - b[0]).abs()).fold(0.0, f64::max);
                assert!(worst < 1e-9, "{task}: position {index} is always {}, ours differs by {worst}", b[0]);
                continue;
            }
            let critical = critical_distance(LEVEL / compared as f64, a.len(), b.len());
            let distance = kolmogorov_smirnov(&mut a, &mut b);
            assert!(distance < critical, "{task}: position {index}: distance {distance}, critical {critical}");
            if distance > largest.0 {
                largest = (distance, index);
            }
        }
        let critical = critical_distance(LEVEL / compared as f64, STARTS, theirs.len() / width);
        println!("{task}: largest distance {:.3} (position {}), critical {critical:.3}", largest.0, largest.1);
    }
}

/// What lies in or on a bin starts with it.
#[test]
fn lid_hammer_and_rubbish_start_with_their_bins() {
    if !scenes_are_there() {
        return;
    }
    let (rows, width) = starts(RobomimicTask::Transport);
    for row in rows.chunks_exact(width) {
        let xy = |body: usize| [row[18 + 7 * body], row[18 + 7 * body + 1]];
        let [payload, trash, start, target, _, lid] = std::array::from_fn(xy);
        assert_eq!(payload, start);
        assert_eq!(lid, start);
        assert_eq!(trash, target);
    }
}

#[test]
fn the_test_itself_tells_distributions_apart() {
    let draws = |from: f64| -> Vec<f64> { (0..STARTS).map(|i| from + i as f64 / STARTS as f64).collect() };
    let critical = critical_distance(LEVEL, STARTS, STARTS);
    assert!(kolmogorov_smirnov(&mut draws(0.0), &mut draws(0.0)) < critical);
    assert!((kolmogorov_smirnov(&mut draws(0.0), &mut draws(0.2)) - 0.2).abs() < 1e-3);
    assert!(kolmogorov_smirnov(&mut draws(0.0), &mut draws(0.2)) > critical);
}
