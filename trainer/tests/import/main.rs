//! Checkpoints and statistics that PyTorch and NumPy wrote (`data/write_checkpoints.py`, `data/write_architectures.py`)
//! become ours.

mod architectures;
mod cases;
mod command_line;
mod interop;
mod known;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tenon_core::config::{TaskConfig, Values};
use tenon_core::normalizer::{Limits, Normalizer, ZeroRange};
use tenon_train::checkpoint::{Checkpoint, Stage};
use tenon_train::dataset::write_normalization;
use tenon_train::import::{Contents, Imported, Kind, Progress, TorchCheckpoint, Weights, import, read_normalizer};

use known::Known;

const RELU: &str = r#"{ kind = "diffusion_mlp", time_dim = 16, mlp_dims = [32, 32, 32], activation = "relu" }"#;
const MISH: &str = r#"{ kind = "diffusion_mlp", time_dim = 16, mlp_dims = [32, 32, 32], cond_mlp_dims = [24, 8], activation = "mish" }"#;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A file of PyTorch with one of its entries changed.
fn edited(file: &[u8], entry: &str, edit: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let limits = tenon_pickle::Limits::for_file(file.len());
    let zip = tenon_pickle::zip::ZipArchive::open(file, &limits).unwrap();
    let mut out = tenon_pickle::zip::ZipWriter::new(&limits);
    for (name, content) in zip.entries() {
        let mut content = content.to_vec();
        if name == entry {
            edit(&mut content);
        }
        out.add(&format!("{}/{name}", zip.top_folder()), &content).unwrap();
    }
    out.finish().0
}

/// The Avoid task with another network, fast enough to train. `critic`: widths of its residual MLP.
fn config_text(network: &str, critic: &str) -> String {
    let critic = format!(r#"{{ head = {{ dims = {critic}, activation = "mish" }} }}"#);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/tasks/avoid_m1.toml");
    let values = [
        ("network", network),
        ("critic", critic.as_str()),
        ("environments", "4"),
        ("iterations", "2"),
        ("update_epochs", "1"),
        ("batch_size", "50"),
        ("episodes", "4"),
    ];
    let line = |line: &str| {
        let key = line.split_once('=').map_or("", |(key, _)| key.trim());
        let value = values.iter().find(|(name, _)| *name == key);
        value.map_or_else(|| line.to_string(), |(key, value)| format!("{key} = {value}")) + "\n"
    };
    std::fs::read_to_string(path).unwrap().lines().map(line).collect()
}

fn config(network: &str, critic: &str) -> TaskConfig {
    TaskConfig::parse("task.toml", &config_text(network, critic), Values::Latest).unwrap()
}

fn normalizer() -> Normalizer {
    Normalizer::new(Limits::symmetric(1.0, 4), Limits::symmetric(1.0, 2))
}

fn imported(file: &Path, config: &TaskConfig, weights: Weights) -> Result<(Checkpoint, Imported), String> {
    let contents = Contents::open(file).map_err(|e| e.to_string())?;
    import(&contents, config, String::new(), normalizer(), weights, BTreeMap::new()).map_err(|e| e.to_string())
}

#[test]
fn pretrained_weights_give_the_outputs_of_pytorch() {
    let known = Known::open(&data("pretrained.safetensors"));
    let config = config(RELU, "[16, 16, 16]");
    for (weights, key) in [(Weights::Average, "ema"), (Weights::Raw, "model")] {
        let (checkpoint, imported) = imported(&data("pretrained.pt"), &config, weights).unwrap();
        assert_eq!((imported.kind, imported.weights), (Kind::Pretrained, key));
        assert_eq!(imported.progress, Some(Progress::Epoch(3000)));
        assert_eq!((checkpoint.header.stage, checkpoint.counter("epoch").unwrap()), (Stage::Pretrain, 3000));
        assert!(checkpoint.header.run.critic.is_none());
        // The last weights are there either way.
        known.compare_checkpoint(&checkpoint, ["model", key]);
    }
    // The average by itself, in doubles and another protocol.
    let (checkpoint, imported) = imported(&data("bare.pt"), &config, Weights::Average).unwrap();
    assert_eq!((imported.kind, imported.weights, imported.progress), (Kind::Pretrained, "", None));
    known.compare_checkpoint(&checkpoint, ["ema", "ema"]);
}

#[test]
fn finetuned_checkpoint_gives_both_networks_and_the_critic() {
    let config = config(MISH, "[16, 16, 16]");
    let (checkpoint, imported) = imported(&data("finetuned.pt"), &config, Weights::Average).unwrap();
    assert_eq!((imported.kind, imported.weights), (Kind::Finetuned, "model"));
    assert_eq!(imported.progress, Some(Progress::Iteration(51)));
    assert_eq!(imported.parts.iter().map(|p| p.name).collect::<Vec<_>>(), ["actor", "actor_ft", "critic"]);
    assert_eq!(imported.unused, ["model.eta.*"]);
    assert_eq!((checkpoint.header.stage, checkpoint.counter("iteration").unwrap()), (Stage::Finetune, 51));
    let denoising = checkpoint.header.run.policy.diffusion().unwrap();
    assert_eq!(denoising.finetuned_steps, config.policy.finetuned_steps());
    Known::open(&data("finetuned.safetensors")).compare_checkpoint(&checkpoint, ["", ""]);
    // Written and read, it is the same.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    checkpoint.write(&path).unwrap();
    assert!(Checkpoint::read(&path).unwrap() == checkpoint);
}

#[test]
fn tensors_of_every_kind_have_the_values_of_pytorch() {
    let contents = Contents::open(&data("tensors.pt")).unwrap();
    let known: serde_json::Value = serde_json::from_slice(&std::fs::read(data("tensors.json")).unwrap()).unwrap();
    let found = TorchCheckpoint::find(&contents).unwrap().model.unwrap();
    for (name, tensor) in &found {
        let path = name.strip_prefix("tensors.").unwrap().replace('.', "/");
        let known = known.pointer(&format!("/{path}")).unwrap_or_else(|| panic!("{name} is not known"));
        assert_eq!(known["type"], tensor.data_type().name(), "{name}");
        assert_eq!(known["shape"], serde_json::json!(tensor.shape()), "{name}");
        let values: Vec<f32> = known["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        assert_eq!(tensor.to_f32_vec(), values, "{name}");
    }
    assert_eq!(found.len(), 21);
    let numbers = serde_json::to_value(contents.numbers().unwrap().into_iter().collect::<BTreeMap<_, _>>()).unwrap();
    let expected = serde_json::json!({
        "notes.big": 1_u64 << 40, "notes.flag": true, "notes.numpy_scalar": 0.25, "notes.size.0": 4, "notes.size.1": 6
    });
    assert_eq!(numbers, expected);
}

#[test]
fn what_does_not_fit_is_listed_by_name() {
    let refuse =
        |file: &str, network, critic| imported(&data(file), &config(network, critic), Weights::Average).unwrap_err();
    // The encoder is missing and the first layer narrower.
    let error = refuse("pretrained.pt", MISH, "[16, 16, 16]");
    for part in [
        "pretrained.pt",
        "missing, 8:",
        "ema.network.cond_mlp.moduleList.1.linear_1.weight [8, 24]",
        "model.network.cond_mlp.moduleList.0.linear_1.bias [24]",
        "ema.network.mlp_mean.layers.0.weight is [32, 28], the configuration wants [32, 32]",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let error = refuse("finetuned.pt", RELU, "[16, 16, 16]");
    assert!(error.contains("not in the configuration's network, 8:"), "{error}");
    assert!(error.contains("model.actor_ft.cond_mlp.moduleList.0.linear_1.weight [24, 4]"), "{error}");
    let error = refuse("finetuned.pt", MISH, "[16, 16, 16, 16, 16]");
    assert!(error.contains("model.critic.Q1.layers.2.l1.weight [16, 16]"), "{error}");
    let error = refuse("furniture.pth", RELU, "[16, 16, 16]");
    assert!(error.contains("missing, 12:") && error.contains("observations.min [4]"), "{error}");
}

#[test]
fn statistics_of_every_kind_give_the_same_limits() {
    let expected = [
        [0.3, -0.3, 0.29, -0.31].to_vec(),
        [0.7, 0.4, 0.71, 0.41].to_vec(),
        [-0.01, -0.0098].to_vec(),
        [0.01, 0.0099].to_vec(),
    ];
    let files = ["limits_p2.pkl", "limits_p4.pkl", "limits_p5.pkl", "furniture.pth", "parameters.pth"];
    for name in files {
        let found = read_normalizer(&data(name)).unwrap();
        let limits = [found.observation.min, found.observation.max, found.action.min, found.action.max];
        assert_eq!(limits, expected, "{name}");
        let furniture = name.ends_with(".pth");
        let convention = if furniture { (ZeroRange::Widen, Some(5.0)) } else { (ZeroRange::AddEpsilon, None) };
        assert_eq!((found.zero_range, found.observation_clip), convention, "{name}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("normalization.npz");
    let limits = |low: usize| Limits { min: expected[low].clone(), max: expected[low + 1].clone() };
    write_normalization(&path, &limits(0), &limits(2)).unwrap();
    assert_eq!(read_normalizer(&path).unwrap(), Normalizer::new(limits(0), limits(2)));
    let error = read_normalizer(&data("pretrained.pt")).unwrap_err().to_string();
    assert!(error.contains("obs_min") && error.contains("model.network.time_embedding.1.weight"), "{error}");
}
