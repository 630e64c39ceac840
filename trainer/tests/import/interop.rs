//! Full-size checkpoints in both directions: `make test-interop` runs this between the two halves of
//! `tests/interop/checkpoints.py`, with `TENON_INTEROP` naming the folder they share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use tenon_core::config::TaskConfig;
use tenon_core::noise::{NoiseSource, SeededNoise};
use tenon_train::checkpoint::{Checkpoint, RunInfo, Stage};
use tenon_train::import::Contents;

use crate::architectures::{imported, unit_limits};
use crate::cases::cases;
use crate::known::{Known, Network, networks};
use crate::{Kind, Weights};

#[test]
fn interop_full_size_checkpoints_in_both_directions() {
    let Some(folder) = std::env::var_os("TENON_INTEROP").map(PathBuf::from) else {
        println!("skipped: TENON_INTEROP is not set; `make test-interop` sets it");
        return;
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/cases.toml");
    for (name, config) in cases(&path) {
        println!("{name}: PyTorch's in ours");
        read_theirs(&folder.join(&name), &config);
        write_ours(&folder.join(&name), &config);
    }
}

fn read_theirs(folder: &Path, config: &TaskConfig) {
    let contents = Contents::open(&folder.join("theirs.pt")).unwrap();
    let known = Known::open(&folder.join("theirs_outputs.safetensors"));
    let (checkpoint, summary) = imported(&contents, config, Weights::Average).unwrap();
    assert_eq!(summary.kind == Kind::Finetuned, config.finetune.is_some());
    known.compare_checkpoint(&checkpoint, ["model", "ema"]);
}

/// A checkpoint of fresh weights, and beside it what our networks say to the inputs of the other direction.
fn write_ours(folder: &Path, config: &TaskConfig) {
    let (stage, prefixes) = match &config.finetune {
        Some(_) => (Stage::Finetune, ["actor.", "actor_ft."]),
        None => (Stage::Pretrain, ["network.", "ema."]),
    };
    let run = RunInfo {
        network: config.policy.model.network(),
        critic: config.finetune.as_ref().map(|c| c.critic.clone()),
        config: String::new(),
        provenance: BTreeMap::new(),
        policy: config.policy_spec(unit_limits(config), config.policy.finetuned_steps()),
    };
    let policies = prefixes.map(|prefix| (prefix, Network::policy(&run)));
    let critic = Network::critic(&run).map(|network| ("critic.", network));
    let mut checkpoint = Checkpoint::new(stage, run);
    for (stream, (prefix, network)) in policies.into_iter().chain(critic).enumerate() {
        checkpoint.put_parameters(prefix, network.table(), &fresh(&network, stream as u64));
    }
    checkpoint.write(&folder.join("ours.safetensors")).unwrap();

    let known = Known::open(&folder.join("theirs_outputs.safetensors"));
    let outputs: Vec<(String, Vec<u8>)> = networks(&checkpoint, ["network", "ema"])
        .iter()
        .flat_map(|(key, network, parameters)| known.outputs(key, network, parameters))
        .map(|(name, values)| (name, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = outputs
        .iter()
        .map(|(name, bytes)| (name.as_str(), TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).unwrap()));
    std::fs::write(folder.join("ours_outputs.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Fresh weights, but no norm is at 1 and 0 and no bias at 0: each has its own effect.
fn fresh(network: &Network, stream: u64) -> Vec<f32> {
    let mut noise = SeededNoise::new(42, stream);
    let mut values = network.initialise(&mut noise);
    for (name, shape, range) in network.table().iter() {
        if name.starts_with("compress") && shape.len() == 3 {
            // N(0, 1) over so many rows drives a Gaussian's tanh to its ends, where both sides only show their rounding.
            let spread = (shape[1] as f32).sqrt();
            values[range].iter_mut().for_each(|v| *v /= spread);
        } else if shape.len() == 1 {
            let mut draws = vec![0.0; range.len()];
            noise.fill_standard_normal(&mut draws);
            values[range].iter_mut().zip(draws).for_each(|(v, draw)| *v += 0.1 * draw);
        }
    }
    values
}
