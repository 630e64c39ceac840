//! A small checkpoint of every architecture beside the diffusion MLP (`data/write_architectures.py`).

use std::collections::BTreeMap;

use tenon_core::config::{PolicyModel, TaskConfig};
use tenon_core::network::{GaussianSpec, NetworkSpec, PolicyNetwork, StdSpec};
use tenon_core::noise::{NoiseSource, SeededNoise};
use tenon_core::normalizer::{Limits, Normalizer};
use tenon_train::checkpoint::Checkpoint;
use tenon_train::dppo::EtaSettings;
use tenon_train::import::{Contents, Imported, Kind, StdBounds, Weights, import};
use tenon_train::sampling::{PretrainedWeights, TrainedPolicy};
use tenon_train::settings::dppo_config;

use crate::cases::cases;
use crate::known::{Known, Network, networks};
use crate::{data, edited};

/// Most bytes of a small file.
const SMALL: u64 = 200_000;

fn architectures() -> BTreeMap<String, TaskConfig> {
    cases(&data("architectures.toml"))
}

fn known(name: &str) -> Known {
    Known::open(&data(&format!("architectures/{name}.safetensors")))
}

fn contents(name: &str) -> Contents {
    Contents::open(&data(&format!("architectures/{name}.pt"))).unwrap()
}

/// Limits of −1 and 1.
pub fn unit_limits(config: &TaskConfig) -> Normalizer {
    let unit = |n| Limits::symmetric(1.0, n);
    Normalizer::new(unit(config.task.observation_dim()), unit(config.task.action_dim()))
}

pub fn imported(contents: &Contents, config: &TaskConfig, weights: Weights) -> Result<(Checkpoint, Imported), String> {
    import(contents, config, String::new(), unit_limits(config), weights, BTreeMap::new()).map_err(|e| e.to_string())
}

/// The weights that evaluation and fine-tuning take from a checkpoint.
fn weights_in_use(checkpoint: &Checkpoint, which: PretrainedWeights) -> Vec<f32> {
    match TrainedPolicy::of(checkpoint, which, 3.0).unwrap() {
        TrainedPolicy::Diffusion(policy) => policy.finetuned,
        TrainedPolicy::Gaussian(policy) => policy.finetuned,
    }
}

#[test]
fn every_architecture_gives_the_outputs_of_pytorch() {
    for (name, config) in architectures() {
        println!("{name}");
        let contents = contents(&name);
        let (checkpoint, summary) = imported(&contents, &config, Weights::Average).unwrap();
        known(&name).compare_checkpoint(&checkpoint, ["model", "ema"]);
        let parts: Vec<&str> = summary.parts.iter().map(|p| p.name).collect();
        let in_use = match summary.kind {
            Kind::Finetuned => {
                assert!(config.finetune.is_some(), "{name}");
                let eta = learned_eta(&config).map(|_| "eta");
                assert_eq!(parts, ["actor", "actor_ft", "critic"].into_iter().chain(eta).collect::<Vec<_>>(), "{name}");
                ["actor_ft"; 2]
            }
            Kind::Pretrained => {
                assert!(config.pretrain.is_some(), "{name}");
                assert_eq!(parts, ["network", "ema"], "{name}");
                let (raw, _) = imported(&contents, &config, Weights::Raw).unwrap();
                known(&name).compare_checkpoint(&raw, ["model", "model"]);
                ["ema", "model"]
            }
        };
        let policy = Network::policy(&checkpoint.header.run);
        for (in_use, which) in in_use.into_iter().zip([PretrainedWeights::Finetuning, PretrainedWeights::Raw]) {
            for (output, values) in known(&name).outputs(in_use, &policy, &weights_in_use(&checkpoint, which)) {
                known(&name).compare(&output, &values);
            }
        }
    }
}

#[test]
fn small_files_are_small_and_each_has_a_case() {
    let cases = architectures();
    let mut files = 0;
    for entry in std::fs::read_dir(data("architectures")).unwrap() {
        let path = entry.unwrap().path();
        let length = std::fs::metadata(&path).unwrap().len();
        assert!(length <= SMALL, "{}: {length} bytes", path.display());
        assert!(cases.contains_key(path.file_stem().unwrap().to_str().unwrap()), "{}", path.display());
        files += 1;
    }
    assert_eq!(files, 2 * cases.len());
}

/// Parameters that say nothing: where the memory has one token, every query finds it whatever it asks.
fn has_no_effect(name: &str) -> bool {
    name.contains("decoder.layers.") && name.contains(".norm2.")
}

/// So a tensor under another's name, or one that stayed as it began, would be noticed.
#[test]
fn outputs_tell_of_every_tensor_of_a_file() {
    let mut noise = SeededNoise::new(42, 0);
    for (name, config) in architectures() {
        let (checkpoint, _) = imported(&contents(&name), &config, Weights::Average).unwrap();
        let known = known(&name);
        for (key, network, parameters) in networks(&checkpoint, ["model", "ema"]) {
            for (parameter, _, range) in network.table().iter() {
                let mut changed = parameters.clone();
                // At random: a norm or a softmax passes over what its inputs share.
                let mut draws = vec![0.0; range.len()];
                noise.fill_standard_normal(&mut draws);
                changed[range].iter_mut().zip(draws).for_each(|(v, draw)| *v += 0.02 * (draw + draw.signum()));
                // Against ours without the change: PyTorch has no frozen network of a mixture.
                let before = known.outputs(key, &network, &parameters);
                let after = known.outputs(key, &network, &changed);
                let deviation = before.iter().zip(&after).map(|(a, b)| difference(&a.1, &b.1)).fold(0.0, f32::max);
                let told = deviation > 2e-5;
                assert_eq!(told, !has_no_effect(parameter), "{name}: {key}.{parameter}: {deviation:e}");
            }
        }
    }
}

/// Measured by the largest value of `a`.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    let largest = a.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

fn learned_eta(config: &TaskConfig) -> Option<EtaSettings> {
    config.finetune.as_ref()?.diffusion.as_ref()?;
    Some(dppo_config(config).unwrap().eta).filter(|eta| eta.constant().is_none())
}

/// η of the states of a file.
fn etas(policy: &TrainedPolicy, states: &[f32]) -> Vec<f32> {
    let TrainedPolicy::Diffusion(policy) = policy else { panic!("a diffusion policy") };
    let len = policy.network.state_len();
    policy.eta.as_ref().unwrap().values(states.len() / len, |i| &states[i * len..][..len])
}

#[test]
fn a_learned_eta_is_that_of_the_file() {
    let cases = architectures();
    let mut seen = 0;
    for (name, config) in &cases {
        let Some(settings) = learned_eta(config) else { continue };
        seen += 1;
        let (checkpoint, summary) = imported(&contents(name), config, Weights::Average).unwrap();
        assert_eq!(summary.unused, [""; 0], "{name}");
        let mut policy = TrainedPolicy::of(&checkpoint, PretrainedWeights::Finetuning, 3.0).unwrap();
        policy.take_eta(&checkpoint, &settings).unwrap();
        let known = known(name);
        let states = known.values("state");
        let values = etas(&policy, &states);
        known.compare("eta", &values);
        // Every tensor of the module has its effect, so none is another's.
        let TrainedPolicy::Diffusion(diffusion) = &policy else { panic!("{name}") };
        let module = diffusion.eta.as_ref().unwrap();
        for (parameter, _, range) in module.table().iter() {
            let mut changed = policy.clone();
            let TrainedPolicy::Diffusion(diffusion) = &mut changed else { panic!("{name}") };
            diffusion.eta.as_mut().unwrap().parameters[range].iter_mut().for_each(|v| *v += 0.05);
            let deviation = difference(&values, &etas(&changed, &states));
            assert!(deviation > 1e-4, "{name}: {parameter}: {deviation:e}");
        }
    }
    assert_eq!(seen, 2);
    // A file whose η is another one's.
    let error = imported(&contents("eta_per_action"), &cases["eta_of_state"], Weights::Average).unwrap_err();
    assert!(
        error.contains("missing, 6") && error.contains("model.eta.mlp_res.moduleList.0.linear_1.weight"),
        "{error}"
    );
    assert!(error.contains("model.eta.eta_logit [10]"), "{error}");
}

#[test]
fn a_deviation_has_the_bounds_of_the_file() {
    let cases = architectures();
    let bounds_of = |checkpoint: &Checkpoint| match &checkpoint.header.run.network {
        PolicyNetwork::Gaussian(GaussianSpec { std: StdSpec::Learned { min, max, .. }, .. }) => [*min, *max],
        other => panic!("{other:?}"),
    };
    // Bounds of pre-training: the configuration's 0.2 would cut what the authors' policy does not.
    let name = "gaussian_mlp_learned_std";
    let (checkpoint, summary) = imported(&contents(name), &cases[name], Weights::Average).unwrap();
    assert_eq!(summary.std_bounds, Some(StdBounds { file: [0.01, 1.0], configuration: [0.01, 0.2] }));
    assert_eq!(bounds_of(&checkpoint), [0.01, 1.0]);
    assert!(known(name).values("actor_ft.std").iter().any(|&std| std > 0.21));
    // Bounds of the configuration, so that it stays as it is written there.
    for name in ["gmm_mlp", "gaussian_transformer", "gaussian_vit_mlp"] {
        let (checkpoint, summary) = imported(&contents(name), &cases[name], Weights::Average).unwrap();
        assert_eq!((summary.std_bounds, bounds_of(&checkpoint)), (None, [0.01, 0.2]), "{name}");
    }
}

#[test]
fn bounds_that_no_deviation_has_are_refused() {
    let name = "gaussian_mlp_learned_std";
    let config = &architectures()[name];
    let whole = std::fs::read(data(&format!("architectures/{name}.pt"))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let refuse = |log_variance: f32| {
        let path = folder.path().join("bounds.pt");
        // The trained network's `logvar_max`, behind `logvar` and `logvar_min`.
        let file = edited(&whole, "data/2", |content| content.copy_from_slice(&log_variance.to_le_bytes()));
        std::fs::write(&path, file).unwrap();
        imported(&Contents::open(&path).unwrap(), config, Weights::Average).unwrap_err()
    };
    let error = refuse(f32::NAN);
    assert!(error.contains("model.actor_ft.logvar_max is NaN"), "{error}");
    let error = refuse(-10.0);
    assert!(error.contains("model.actor_ft.logvar_min is above model.actor_ft.logvar_max"), "{error}");
}

#[test]
fn another_architecture_is_refused_by_name() {
    let cases = architectures();
    let refuse = |file: &str, config: &TaskConfig| imported(&contents(file), config, Weights::Average).unwrap_err();
    let expect = |error: String, parts: &[&str]| parts.iter().for_each(|p| assert!(error.contains(p), "{p}: {error}"));

    // The other condition encoder, and a narrower time.
    let mut config = cases["unet"].clone();
    config.policy.model = cases["unet_small_encoder"].policy.model.clone();
    expect(
        refuse("unet", &config),
        &[
            "unet.pt: does not fit [policy]",
            "model.actor.down_modules.0.0.cond_encoder.1.weight [8, 8]",
            "model.actor.down_modules.0.0.cond_encoder.0.weight [8, 12]",
            "model.actor.time_mlp.1.weight is [32, 8], the configuration wants [16, 4]",
        ],
    );
    expect(
        refuse("unet", &cases["unet_small_encoder"]),
        &["the file has a critic: give a configuration with [finetune]"],
    );
    // Pictures of another size, and a second camera.
    let PolicyModel::Diffusion(mut model) = cases["vit_mlp"].policy.model.clone() else { panic!() };
    let NetworkSpec::VitMlp { vision, .. } = &mut model.network else { panic!() };
    vision.image_px = 32;
    let mut config = cases["vit_mlp"].clone();
    config.policy.model = PolicyModel::Diffusion(model.clone());
    expect(
        refuse("vit_mlp", &config),
        &["ema.network.backbone.vit.pos_embed is [1, 4, 8], the configuration wants [1, 9, 8]"],
    );
    let NetworkSpec::VitMlp { vision, .. } = &mut model.network else { panic!() };
    (vision.image_px, vision.cameras) = (24, 2);
    config.policy.model = PolicyModel::Diffusion(model);
    expect(
        refuse("vit_mlp", &config),
        &["model.network.compress2.weight [1, 8, 6]", "model.network.compress.weight [1, 8, 6]"],
    );
    // A critic that sees nothing.
    let mut config = cases["vit_mlp_two_cameras"].clone();
    config.finetune.as_mut().unwrap().critic.vision = None;
    expect(
        refuse("vit_mlp_two_cameras", &config),
        &[
            "model.critic.backbone.vit.pos_embed [1, 4, 4]",
            "model.critic.Q1.layers.0.weight is [8, 30], the configuration wants [8, 18]",
        ],
    );
    // A deviation from elsewhere.
    expect(
        refuse("gaussian_mlp_fixed_std", &cases["gaussian_mlp_learned_std"]),
        &["missing, 2:", "model.network.logvar [7]", "ema.network.logvar [7]"],
    );
    expect(
        refuse("gaussian_transformer_state_std", &cases["gaussian_transformer"]),
        &["model.network.transformer.head.weight is [14, 8], the configuration wants [7, 8]"],
    );
    // Another number of components.
    let mut config = cases["gmm_transformer"].clone();
    let PolicyModel::Gaussian(spec) = &mut config.policy.model else { panic!() };
    spec.modes = 5;
    expect(
        refuse("gmm_transformer", &config),
        &[
            "model.network.modes_head.weight is [3, 32], the configuration wants [5, 32]",
            "ema.network.transformer.head.bias is [21], the configuration wants [35]",
        ],
    );
    // Another kind of policy altogether.
    let error = refuse("gmm_mlp", &cases["unet"]);
    expect(error, &["model.actor_ft.mlp_weights.layers.0.bias [8]", "model.network.time_mlp.1.weight [32, 8]"]);
}
