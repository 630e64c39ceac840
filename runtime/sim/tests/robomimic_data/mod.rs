//! What the tests of the Robomimic tasks share: scenes, where they are there, and recorded arrays.
#![allow(dead_code)] // Each test uses a part of it.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use tenon_sim::robomimic::{RobomimicScene, RobomimicTask, SceneSizes, Visuals, scene_path};

/// Whether the scenes are there; says so in one line where they aren't.
pub fn scenes_are_there() -> bool {
    match scene_path(RobomimicTask::Lift) {
        Ok(_) => true,
        Err(error) => {
            println!("skipped: {error}");
            false
        }
    }
}

/// The scene of the recorded data.
pub fn reference_scene(task: RobomimicTask, visuals: Visuals) -> RobomimicScene {
    RobomimicScene::new(task, SceneSizes::reference(task), visuals).unwrap()
}

/// A file of `sim/` in the golden folder ($TENON_GOLDEN, else beside the checkout), or `None` and one line.
pub fn golden_file(name: &str) -> Option<Vec<u8>> {
    let folder = std::env::var_os("TENON_GOLDEN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden"), PathBuf::from);
    let path = folder.join("sim").join(name);
    if !path.is_file() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(std::fs::read(path).unwrap())
}

/// Arrays `<task>.<name>`.
pub struct Arrays<'a> {
    tensors: SafeTensors<'a>,
    task: String,
}

impl<'a> Arrays<'a> {
    pub fn new(bytes: &'a [u8], task: RobomimicTask) -> Self {
        Self { tensors: SafeTensors::deserialize(bytes).unwrap(), task: task.to_string() }
    }

    /// Whether there is an array of this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.tensor(&format!("{}.{name}", self.task)).is_ok()
    }

    /// Names of the task's arrays.
    pub fn names(&self) -> Vec<String> {
        let prefix = format!("{}.", self.task);
        let mut names: Vec<_> =
            self.tensors.names().into_iter().filter_map(|name| Some(name.strip_prefix(&prefix)?.to_owned())).collect();
        names.sort_unstable();
        names
    }

    /// Values of any type as reals.
    pub fn reals(&self, name: &str) -> Vec<f64> {
        let tensor = self.tensors.tensor(&format!("{}.{name}", self.task)).unwrap();
        match tensor.dtype() {
            Dtype::F64 => {
                tensor.data().chunks_exact(8).map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap())).collect()
            }
            Dtype::I32 => tensor
                .data()
                .chunks_exact(4)
                .map(|bytes| f64::from(i32::from_le_bytes(bytes.try_into().unwrap())))
                .collect(),
            Dtype::U8 => tensor.data().iter().map(|&flag| f64::from(flag)).collect(),
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// Largest difference; NaN counts as infinite.
pub fn difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let of = |(a, b): (&f64, &f64)| if (a - b).is_nan() { f64::INFINITY } else { (a - b).abs() };
    a.iter().zip(b).map(of).fold(0.0, f64::max)
}

/// The places of quaternions in a task's observation.
pub fn quaternions(task: RobomimicTask) -> &'static [usize] {
    match task {
        RobomimicTask::Lift => &[3, 12],
        RobomimicTask::Can | RobomimicTask::Square => &[3, 12, 19],
        RobomimicTask::Transport => &[3, 12, 21, 28, 35],
    }
}

/// Turns quaternions of `observation` round where that brings them nearer to `recorded`: a half turn has w ≈ 0, and its
/// sign is a matter of rounding.
pub fn align_half_turns(task: RobomimicTask, observation: &mut [f64], recorded: &[f64]) {
    for &at in quaternions(task) {
        let (found, wanted) = (&mut observation[at..at + 4], &recorded[at..at + 4]);
        if found[3].abs() < 1e-5 && found.iter().zip(wanted).map(|(a, b)| a * b).sum::<f64>() < 0.0 {
            found.iter_mut().for_each(|value| *value = -*value);
        }
    }
}
