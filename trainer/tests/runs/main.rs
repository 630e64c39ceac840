//! Whole runs in process: how they begin, environments in batches, exact restarts, noise on what they see, networks on a device,
//! what is not finite.

mod beginnings;
mod compat;
mod devices;
mod environments;
mod failures;
mod pictures;
mod randomising;
mod restarting;
mod robomimic;
#[path = "../small_hopper/mod.rs"]
mod small_hopper;

use tenon_core::config::{TaskConfig, Values};
use tenon_train::finetune::{FinetuneRun, IterationRecord, Source};

/// PPO from scratch.
const GAUSSIAN: &str = r#"method = "gaussian"
trunk = { kind = "mlp", dims = [32, 32, 32], activation = "mish" }
std = { kind = "learned", std = 0.3, min = 0.01, max = 0.6 }"#;

fn config(text: &str) -> TaskConfig {
    TaskConfig::parse("task.toml", text, Values::Latest).unwrap()
}

/// A fresh run of a configuration.
fn begin(text: &str, threads: usize) -> FinetuneRun {
    FinetuneRun::new(&config(text), text.to_string(), Source::Scratch, [], threads).unwrap()
}

/// One iteration that nothing disturbs.
fn iterate(run: &mut FinetuneRun) -> IterationRecord {
    run.iterate(&|| false, &mut |e| panic!("{e}")).unwrap().unwrap()
}
