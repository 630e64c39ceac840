//! What a bundle needs besides networks, for the tests that write some.

use tenon_core::config::{PolicyModel, TaskConfig, Values};
use tenon_core::normalizer::{Limits, Normalizer};
use tenon_core::spec::{PolicySpec, Sampler};
use tenon_policy::bundle::Provenance;

/// The shipped Avoid task with another sampler.
pub fn spec(sampler: Sampler, denoising_steps: usize, finetuned_steps: usize) -> PolicySpec {
    let text = include_str!("../../../../configs/tasks/avoid_m1.toml");
    let mut task = TaskConfig::parse("avoid_m1.toml", text, Values::Latest).expect("the shipped file");
    let PolicyModel::Diffusion(model) = &mut task.policy.model else { panic!("Avoid denoises") };
    model.sampler = sampler;
    model.denoising_steps = denoising_steps;
    task.policy_spec(Normalizer::new(Limits::symmetric(1.0, 4), Limits::symmetric(1.0, 2)), finetuned_steps)
}

pub fn provenance() -> Provenance {
    Provenance::new(7, "task = \"avoid_m1\"\n".into(), "0".repeat(64), "unknown".into(), "0.1.0".into(), String::new())
}
