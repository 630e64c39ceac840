//! Full-size checkpoints in both directions: `make test-interop` runs this between the two halves of
//! `tests/interop/checkpoints.py`, with `TENON_INTEROP` naming the folder they share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use tenon_core::noise::SeededNoise;
use tenon_train::checkpoint::{Checkpoint, RunInfo, Stage};
use tenon_train::network::{Critic, ParameterTable};

use crate::known::Known;
use crate::{Weights, config, imported, normalizer, policy_of};

#[test]
fn interop_full_size_checkpoints_in_both_directions() {
    let Some(folder) = std::env::var_os("TENON_INTEROP").map(PathBuf::from) else {
        println!("skipped: TENON_INTEROP is not set; `make test-interop` sets it");
        return;
    };
    let text = std::fs::read_to_string(folder.join("cases.json")).unwrap();
    let cases: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_str(&text).unwrap();
    assert!(!cases.is_empty());
    for (name, case) in cases {
        println!("{name}");
        read_theirs(&folder.join(&name), &case["network"], &case["critic"]);
        write_ours(&folder.join(&name), &case["network"], &case["critic"]);
    }
}

fn read_theirs(folder: &Path, network: &str, critic: &str) {
    let config = config(network, critic);
    for (weights, key) in [(Weights::Average, "ema"), (Weights::Raw, "model")] {
        let (checkpoint, _) = imported(&folder.join("pretrained.pt"), &config, weights).unwrap();
        Known::open(&folder.join("pretrained.safetensors")).compare_checkpoint(&checkpoint, key, key);
    }
    let (checkpoint, _) = imported(&folder.join("finetuned.pt"), &config, Weights::Average).unwrap();
    Known::open(&folder.join("finetuned.safetensors")).compare_checkpoint(&checkpoint, "actor", "actor_ft");
}

/// A checkpoint of fresh weights, and beside it what our networks say to the inputs of the other direction.
fn write_ours(folder: &Path, network: &str, critic: &str) {
    let config = config(network, critic);
    let policy = config.policy_spec(normalizer(), config.policy.finetuned_steps());
    let spec = config.finetune().unwrap().critic.clone();
    let run = RunInfo {
        network: config.policy.model.network(),
        critic: Some(spec.clone()),
        config: String::new(),
        provenance: BTreeMap::new(),
        policy: policy.clone(),
    };
    let (state_len, horizon, action_dim) = (policy.state_len(), policy.prediction_horizon, policy.action_dim());
    let actor = ParameterTable::new(run.network.parameters(state_len, horizon, action_dim));
    let critic = Critic::new(&spec, state_len).unwrap();
    let mut checkpoint = Checkpoint::new(Stage::Finetune, run);
    for (stream, (prefix, table)) in
        [("actor.", &actor), ("actor_ft.", &actor), ("critic.", critic.table())].into_iter().enumerate()
    {
        checkpoint.put_parameters(prefix, table, &table.initialise(&mut SeededNoise::new(42, stream as u64)));
    }
    checkpoint.write(&folder.join("ours.safetensors")).unwrap();

    let known = Known::open(&folder.join("finetuned.safetensors"));
    let policy = policy_of(&checkpoint);
    let parameters = checkpoint.parameters("critic.", critic.table()).unwrap();
    let outputs = [
        ("actor", known.noise(&policy.network, &policy.frozen)),
        ("actor_ft", known.noise(&policy.network, &policy.finetuned)),
        ("critic", known.values_of_states(&critic, &parameters)),
    ];
    let bytes = outputs.map(|(name, values)| (name, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()));
    let views = bytes.iter().map(|(name, b)| (*name, TensorView::new(Dtype::F32, vec![b.len() / 4], b).unwrap()));
    std::fs::write(folder.join("ours_outputs.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
}
