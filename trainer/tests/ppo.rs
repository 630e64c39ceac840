//! Whole runs of Gaussian policies and mixtures on small problems: they learn, they repeat bit for bit, they resume.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rand::Rng;
use tenon_core::network::{
    Activation, Compression, CriticSpec, GaussianSpec, MlpSpec, NetworkSpec, PatchEmbedding, StdSpec, TransformerSpec,
    TrunkSpec, VisionSpec,
};
use tenon_core::noise::SeededNoise;
use tenon_core::normalizer::{Limits, Normalizer, ZeroRange};
use tenon_core::spec::{ActionField, Denoising, ObservationField, PolicySpec, SPEC_VERSION, Sampler};
use tenon_train::TrainError;
use tenon_train::checkpoint::{Checkpoint, RunInfo, Stage};
use tenon_train::dataset::Dataset;
use tenon_train::network::{Critic, CriticRow, GaussianNetwork, Mode, Observations};
use tenon_train::optimizer::{LrSchedule, gradient_norm};
use tenon_train::ppo::{
    Cloner, CloningConfig, CloningLoss, GaussianPolicy, GaussianSampler, Likelihood, Minibatch, PpoCompat, PpoConfig,
    PpoLoss, PpoLossConfig, PpoStats, PpoUpdater, Samples, SamplingMode, SamplingNoise,
};
use tenon_train::rollout::{Rollout, RolloutImages, TimeOut};
use tenon_train::seeds::Stream;
use tenon_train::workers::Workers;

const HORIZON: usize = 2;
const STATE: usize = 2;

const FIXED: StdSpec = StdSpec::Fixed { std: 0.1 };
const LEARNED: StdSpec = StdSpec::Learned { std: 0.1, min: 0.01, max: 0.2 };
const PER_STATE: StdSpec = StdSpec::PerState { min: 0.05, max: 0.5 };
const EXPLORE: SamplingMode = SamplingMode { noise: SamplingNoise::Exploration, base_policy: false };
const EVALUATE: SamplingMode = SamplingMode { noise: SamplingNoise::Evaluation, base_policy: false };

fn mlp(width: usize) -> TrunkSpec {
    TrunkSpec::Mlp(MlpSpec { dims: vec![width; 3], activation: Activation::Mish, residual: true, layer_norm: false })
}

fn transformer() -> TrunkSpec {
    TrunkSpec::Transformer(TransformerSpec { embed_dim: 16, heads: 2, layers: 2 })
}

fn vision(cameras: usize, image_px: usize) -> VisionSpec {
    VisionSpec {
        cameras,
        image_px,
        embed_dim: 8,
        heads: 2,
        depth: 1,
        patch_embedding: PatchEmbedding::Two,
        patch_norm: false,
        compression: Compression::Spatial { dim: 8 },
    }
}

fn vit_mlp(vision: VisionSpec) -> TrunkSpec {
    let head = MlpSpec { dims: vec![16; 3], activation: Activation::Mish, residual: true, layer_norm: false };
    TrunkSpec::VitMlp { vision, head }
}

fn network(trunk: TrunkSpec, std: StdSpec, modes: usize) -> GaussianNetwork {
    let spec = GaussianSpec { trunk, std, modes, tanh_mean: true };
    GaussianNetwork::new(&spec, STATE, HORIZON, 1).unwrap()
}

/// Every kind of policy that there is.
fn every_network() -> Vec<(&'static str, GaussianNetwork)> {
    let plain =
        TrunkSpec::Mlp(MlpSpec { dims: vec![16; 2], activation: Activation::ReLU, residual: false, layer_norm: false });
    vec![
        ("MLP, fixed", network(mlp(16), FIXED, 0)),
        ("MLP, learned", network(mlp(16), LEARNED, 0)),
        ("MLP, per state", network(mlp(16), PER_STATE, 0)),
        ("plain MLP, per state", network(plain, PER_STATE, 0)),
        ("transformer, fixed", network(transformer(), FIXED, 0)),
        ("transformer, learned", network(transformer(), LEARNED, 0)),
        ("transformer, per state", network(transformer(), PER_STATE, 0)),
        ("ViT-MLP, learned", network(vit_mlp(vision(2, 32)), LEARNED, 0)),
        ("ViT-MLP, per state", network(vit_mlp(vision(2, 32)), PER_STATE, 0)),
        ("mixture of MLPs, fixed", network(mlp(16), FIXED, 3)),
        ("mixture of MLPs, learned", network(mlp(16), LEARNED, 3)),
        ("mixture of MLPs, per state", network(mlp(16), PER_STATE, 3)),
        ("mixture, transformer, learned", network(transformer(), LEARNED, 3)),
        ("mixture, transformer, per state", network(transformer(), PER_STATE, 3)),
    ]
}

struct Batch {
    states: Vec<f32>,
    images: Option<Vec<u8>>,
}

impl Batch {
    fn new(network: &GaussianNetwork, rows: usize, seed: u64) -> Self {
        let mut noise = SeededNoise::new(seed, 0);
        let states = (0..rows * STATE).map(|_| noise.rng().random_range(-1.0..1.0)).collect();
        let images = (0..rows * network.image_len()).map(|_| noise.rng().random_range(0..=255)).collect();
        Self { states, images: (network.image_len() > 0).then_some(images) }
    }

    fn observations(&self) -> Observations<'_> {
        Observations { states: &self.states, images: self.images.as_deref() }
    }
}

fn streams(n: usize, seed: u64) -> Vec<SeededNoise> {
    (0..n as u32).map(|i| Stream::Policy(i).of(seed)).collect()
}

fn sample(policy: &GaussianPolicy, mode: SamplingMode, batch: &Batch, threads: usize) -> Vec<f32> {
    let (workers, rows) = (Workers::new(threads).unwrap(), batch.states.len() / STATE);
    let mut chunks = vec![0.0; rows * policy.network.chunk_len()];
    GaussianSampler::new(policy, &workers, rows).sample(
        &workers,
        policy,
        mode,
        batch.observations(),
        &mut streams(rows, 3),
        &mut chunks,
    );
    chunks
}

fn fresh(network: GaussianNetwork) -> GaussianPolicy {
    GaussianPolicy::fresh(network, &mut Stream::ActorWeights.of(4), 3.0)
}

/// Deviations of row 0 of a batch.
fn deviations(policy: &GaussianPolicy, batch: &Batch, i: usize) -> Vec<f32> {
    let network = &policy.network;
    let prepared = network.prepare(&policy.finetuned);
    let mut ws = network.workspace(1, Mode::Inference);
    let o = batch.observations();
    network.forward(&policy.finetuned, &prepared, &mut ws, 1, |_| CriticRow {
        state: o.state(i, STATE),
        images: o.image(i, network.image_len()),
    });
    network.row(&prepared, &ws, 0).std.to_vec()
}

fn loss_config(bc_loss_coeff: Option<f64>, compat: bool) -> PpoLossConfig {
    PpoLossConfig {
        clip_ploss_coef: 0.5,
        norm_adv: false,
        clip_vloss_coef: None,
        ent_coef: 0.05,
        vf_coef: 0.5,
        bc_loss_coeff,
        compat: PpoCompat { joint_mixture_density: compat },
    }
}

/// PPO with entropy and behaviour cloning, and behaviour cloning alone, along the gradient itself.
#[test]
fn gradients_of_every_kind_are_the_slopes_of_their_losses() {
    let workers = Workers::new(1).unwrap();
    const ROWS: usize = 70;
    for (name, network) in every_network() {
        let mut policy = fresh(network);
        let critic = Critic::new(&CriticSpec::state(&[8; 3], Activation::Mish), STATE).unwrap();
        let batch = Batch::new(&policy.network, ROWS, 8);
        let chunks = sample(&policy, EXPLORE, &batch, 1);
        let mut noise = SeededNoise::new(9, 0);
        let mut numbers =
            |scale: f32| -> Vec<f32> { (0..ROWS).map(|_| noise.rng().random_range(-scale..scale)).collect() };
        let (advantages, returns, old_values) = (numbers(1.0), numbers(1.0), numbers(1.0));
        let mut loss = PpoLoss::new(&policy.network, &critic, &workers, ROWS);
        let mut samples = Samples {
            observations: batch.observations(),
            chunks: &chunks,
            advantages: &advantages,
            returns: &returns,
            old_values: &old_values,
            old_log_probs: &[],
            state_len: STATE,
            image_len: policy.network.image_len(),
            chunk_len: HORIZON,
        };
        let config = loss_config(Some(0.3), false);
        let likelihood = Likelihood { mixture: config.mixture_density() };
        let mut old = vec![0.0; ROWS];
        loss.log_probs(&workers, &policy.network, &policy.finetuned, likelihood, &samples, &mut old);
        samples.old_log_probs = &old;
        let teacher: Vec<f32> = chunks.iter().map(|x| 0.9 * x + 0.01).collect();
        let rows: Vec<u32> = (0..ROWS as u32).collect();
        // Two minibatches: their gradients are summed.
        let minibatches = [
            Minibatch { samples: &rows[..30], teacher: Some(&teacher[..30 * HORIZON]) },
            Minibatch { samples: &rows[30..], teacher: Some(&teacher[30 * HORIZON..]) },
        ];
        let mut cloning = CloningLoss::new(&policy.network, &workers, ROWS, 0.05);
        let start = policy.finetuned.clone();
        for what in ["PPO", "cloning"] {
            let mut at = |parameters: &[f32]| -> (f64, Vec<f32>) {
                policy.finetuned.copy_from_slice(parameters);
                if what == "PPO" {
                    let (terms, gradient) = loss.actor(&workers, &policy, &config, &samples, &minibatches);
                    let total = terms.iter().map(|t| t.policy_loss - 0.05 * t.entropy + 0.3 * t.bc_loss).sum();
                    (total, gradient.to_vec())
                } else {
                    let network = &policy.network;
                    let (terms, gradient) =
                        cloning.gradient(&workers, network, parameters, batch.observations(), &teacher);
                    (terms.loss, gradient.to_vec())
                }
            };
            let (_, gradient) = at(&start);
            let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let mut moved = |by: f64| {
                let step = (by / norm) as f32;
                let there: Vec<f32> = start.iter().zip(&gradient).map(|(p, g)| p + step * g).collect();
                at(&there).0
            };
            // A change of the loss that is well above rounding, and a step that is small where the loss is steep.
            let step = 5e-4 / norm.max(1.0);
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            assert!((slope / norm - 1.0).abs() < 0.02, "{name}, {what}: slope {slope}, gradient {norm}");
        }
    }
}

#[test]
fn samples_have_the_policys_mean_and_deviation_and_stay_within_the_clip() {
    const ROWS: usize = 20_000;
    for (name, std) in [("fixed", FIXED), ("learned", LEARNED), ("per state", PER_STATE)] {
        let policy = fresh(network(mlp(16), std, 0));
        // One state many times.
        let batch = Batch { states: [0.3, -0.7].repeat(ROWS), images: None };
        let deviations = deviations(&policy, &batch, 0);
        let means = sample(&policy, EVALUATE, &batch, 1);
        let chunks = sample(&policy, EXPLORE, &batch, 1);
        for k in 0..HORIZON {
            let (mean, std) = (f64::from(means[k]), f64::from(deviations[k]));
            let of = |chunks: &[f32]| -> (f64, f64, f64) {
                let d: Vec<f64> = chunks.chunks_exact(HORIZON).map(|c| f64::from(c[k]) - mean).collect();
                let average = d.iter().sum::<f64>() / ROWS as f64;
                let square = d.iter().map(|d| d * d).sum::<f64>() / ROWS as f64;
                (average, square.sqrt(), d.iter().fold(0.0, |m, d| m.max(d.abs())))
            };
            let (average, deviation, largest) = of(&chunks);
            assert!(average.abs() < 0.03 * std, "{name}: mean off by {average}");
            // Draws beyond three deviations are put there, which leaves 0.9975 σ.
            assert!((deviation / std - 0.9975).abs() < 0.015, "{name}: {deviation} of {std}");
            assert!(largest < 3.0 * std + 5e-4 && largest > 2.9 * std, "{name}: {largest} of {std}");
            let (_, deviation, _) = of(&means);
            assert!(deviation < 3e-4, "an evaluation's deviation is 1e-4, not {deviation}");
        }
    }
}

#[test]
fn a_mixture_draws_its_components_by_weight_and_is_not_clipped() {
    const ROWS: usize = 20_000;
    let mut policy = fresh(network(mlp(16), StdSpec::Fixed { std: 0.02 }, 2));
    // Constant outputs: means ±tanh(1), logits 0 and ln 3.
    let table = policy.network.table().clone();
    let mut set = |name: &str, values: &[f32]| {
        let (range, _) = table.find(name).unwrap();
        policy.finetuned[range].copy_from_slice(values);
    };
    set("mlp_mean.layers.2.weight", &[0.0; 4 * 16]);
    set("mlp_mean.layers.2.bias", &[1.0, 1.0, -1.0, -1.0]);
    set("mlp_weights.layers.2.weight", &[0.0; 2 * 16]);
    set("mlp_weights.layers.2.bias", &[0.0, 3f32.ln()]);
    let batch = Batch { states: [0.3, -0.7].repeat(ROWS), images: None };
    for (mode, std) in [(EXPLORE, 0.02), (EVALUATE, 1e-4)] {
        let chunks = sample(&policy, mode, &batch, 1);
        let second = chunks.chunks_exact(HORIZON).filter(|c| c[0] < 0.0).count() as f64 / ROWS as f64;
        assert!((second - 0.75).abs() < 0.01, "the second component was drawn in {second}");
        let distances: Vec<f64> = chunks.iter().map(|x| (f64::from(x.abs()) - f64::from(1f32.tanh())) / std).collect();
        let deviation = (distances.iter().map(|d| d * d).sum::<f64>() / distances.len() as f64).sqrt();
        assert!((deviation - 1.0).abs() < 0.02, "{deviation}");
        assert!(distances.iter().any(|d| d.abs() > 3.2), "a mixture has no clip");
        assert!(chunks.chunks_exact(HORIZON).all(|c| (c[0] < 0.0) == (c[1] < 0.0)), "one component a chunk");
    }
}

#[test]
fn deviations_are_fixed_learned_or_of_the_state() {
    let batch = Batch::new(&network(mlp(16), FIXED, 0), 2, 1);
    let of = |policy: &GaussianPolicy| [deviations(policy, &batch, 0), deviations(policy, &batch, 1)];
    let fixed = fresh(network(mlp(16), FIXED, 0));
    assert!(fixed.network.table().find("logvar").is_err(), "nothing to learn");
    assert_eq!(of(&fixed), [[0.1; 2], [0.1; 2]]);

    let mut learned = fresh(network(mlp(16), LEARNED, 0));
    let close = |stds: [Vec<f32>; 2], wanted: f32| {
        assert!(stds.iter().flatten().all(|s| (s / wanted - 1.0).abs() < 1e-5), "{stds:?}, not {wanted}");
    };
    close(of(&learned), 0.1);
    // Whatever the log-variance becomes, the bounds hold.
    let (range, shape) = learned.network.table().find("logvar").unwrap();
    assert_eq!(shape, [1]);
    for (log_variance, std) in [(5.0, 0.2), (-50.0, 0.01)] {
        learned.finetuned[range.clone()].fill(log_variance);
        close(of(&learned), std);
    }

    let [first, second] = of(&fresh(network(mlp(16), PER_STATE, 0)));
    assert_ne!(first, second);
    assert!(first.iter().chain(&second).all(|s| (0.05..=0.5).contains(s)));
}

#[test]
fn fine_tuning_takes_raw_weights_and_begins_a_log_variance_that_pre_training_had_not() {
    let fixed = network(mlp(16), FIXED, 0);
    let cloner = Cloner::new(cloning_config(1), fixed.clone(), STATE, 5, 1).unwrap();
    let mut checkpoint = Checkpoint::new(Stage::Pretrain, run_info());
    cloner.store(&mut checkpoint);
    let learned = network(mlp(16), LEARNED, 0);
    let policy = GaussianPolicy::from_checkpoint(learned, &checkpoint, "network.", 3.0).unwrap();
    let table = policy.network.table().split(&policy.finetuned);
    for (name, values) in fixed.table().split(cloner.parameters()) {
        assert_eq!(table[name], values, "{name}");
    }
    assert_eq!(table["logvar"].1, [(2.0 * 0.1f64.ln()) as f32]);
    assert_eq!(policy.frozen, policy.finetuned);
    // Anything else that lacks is an error.
    let other = GaussianPolicy::from_checkpoint(network(mlp(32), FIXED, 0), &checkpoint, "network.", 3.0);
    assert!(other.unwrap_err().to_string().contains("mlp_mean.layers.0.weight"));
}

#[test]
fn fresh_transformers_and_image_encoders_begin_as_the_spec_says() {
    let transformer = network(transformer(), LEARNED, 2);
    let values = transformer.initialise(&mut SeededNoise::new(1, 0));
    let spread = |name: &str, network: &GaussianNetwork, values: &[f32]| {
        let (range, _) = network.table().find(name).unwrap();
        let v = &values[range];
        (v.iter().map(|v| v * v).sum::<f32>() / v.len() as f32).sqrt()
    };
    for (name, std) in [
        ("transformer.pos_emb", 0.02),
        ("transformer.decoder.layers.0.self_attn.in_proj_weight", 0.02),
        ("transformer.decoder.layers.1.linear1.weight", 0.02),
        ("transformer.decoder.layers.0.multihead_attn.in_proj_bias", 0.0),
        ("transformer.head.bias", 0.0),
        ("transformer.ln_f.weight", 1.0),
        // Outside of what the reference initialises: uniform within ±1/√(2 · 16).
        ("modes_head.weight", 1.0 / 96f32.sqrt()),
    ] {
        let found = spread(name, &transformer, &values);
        assert!((found - std).abs() <= 0.3 * std, "{name}: {found}, not {std}");
    }
    let pictures = network(vit_mlp(vision(2, 32)), FIXED, 0);
    let values = pictures.initialise(&mut SeededNoise::new(1, 0));
    for (name, std) in [
        ("backbone.vit.pos_embed", 0.02),
        ("backbone.vit.net.0.mha.qkv_proj.weight", 0.02),
        ("backbone.vit.net.0.linear2.bias", 0.0),
        ("backbone.vit.net.0.layer_norm1.weight", 1.0),
        ("compress1.weight", 1.0),
        ("backbone.vit.patch_embed.embed.0.weight", 1.0 / (3.0 * 192f32).sqrt()),
    ] {
        let found = spread(name, &pictures, &values);
        assert!((found - std).abs() <= 0.3 * std, "{name}: {found}, not {std}");
    }
}

fn run_info() -> RunInfo {
    let limits = |n| Limits { min: vec![-1.0; n], max: vec![1.0; n] };
    RunInfo {
        network: NetworkSpec::diffusion_mlp(16, &[8; 3], &[], Activation::Mish),
        policy: PolicySpec {
            spec_version: SPEC_VERSION,
            task: "toy".into(),
            observation: vec![ObservationField::Task(STATE as u16)],
            action: vec![ActionField::Task(1)],
            observation_horizon: 1,
            prediction_horizon: HORIZON,
            action_horizon: HORIZON,
            period_s: 0.1,
            observation_delay_steps: 0,
            denoising: Denoising {
                denoising_steps: 10,
                finetuned_steps: 5,
                sampler: Sampler::Ddpm,
                denoised_clip: 1.0,
                noise_clip: 3.0,
                final_action_clip: None,
            },
            normalizer: Normalizer {
                observation: limits(STATE),
                action: limits(1),
                zero_range: ZeroRange::AddEpsilon,
                observation_clip: None,
            },
        },
        critic: None,
        config: String::new(),
        provenance: BTreeMap::new(),
    }
}

/// States in [−1, 1]², constant in an episode; actions ±(0.5 · s₀ − 0.3 · s₁ + 0.2), the sign of an episode by chance
/// where there are `two_modes`.
fn dataset(two_modes: bool) -> Dataset {
    let mut noise = SeededNoise::new(11, 0);
    let (episodes, length) = (450, 3);
    let (mut states, mut actions) = (Vec::new(), Vec::new());
    for _ in 0..episodes {
        let state: [f32; STATE] = std::array::from_fn(|_| noise.rng().random_range(-1.0..1.0));
        let sign = if two_modes && noise.rng().random_bool(0.5) { -1.0 } else { 1.0 };
        for _ in 0..length {
            states.extend(state);
            actions.push(sign * target(&state));
        }
    }
    let frames = episodes * length;
    Dataset {
        states,
        actions,
        rewards: vec![0.0; frames],
        terminals: vec![false; frames],
        lengths: vec![length; episodes],
        state_dim: STATE,
        action_dim: 1,
    }
}

fn target(state: &[f32]) -> f32 {
    0.5 * state[0] - 0.3 * state[1] + 0.2
}

fn cloning_config(epochs: u64) -> CloningConfig {
    CloningConfig {
        epochs,
        batch_size: 200,
        lr: LrSchedule { max_lr: 3e-3, min_lr: 1e-3, warmup_steps: 2, first_cycle_steps: 100 },
        weight_decay: 1e-6,
        ent_coef: 0.0,
        max_episodes: None,
    }
}

fn cloner(epochs: u64, network: GaussianNetwork, threads: usize) -> Cloner {
    Cloner::new(cloning_config(epochs), network, STATE, 5, threads).unwrap()
}

fn go_on(_: &Cloner, _: &tenon_train::pretrain::EpochReport) -> Result<ControlFlow<()>, TrainError> {
    Ok(ControlFlow::Continue(()))
}

#[test]
fn a_cloned_gaussian_imitates_the_demonstrations() {
    let data = dataset(false);
    for (name, network) in [
        ("MLP", network(mlp(32), FIXED, 0)),
        ("MLP, learned deviation", network(mlp(32), LEARNED, 0)),
        ("transformer", network(transformer(), FIXED, 0)),
        ("mixture", network(mlp(32), FIXED, 3)),
    ] {
        let mut cloner = cloner(40, network, 1);
        let mut losses = Vec::new();
        cloner
            .run(&data, &mut |_, report| {
                losses.push(report.loss);
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
        assert!(losses[39] < losses[0] - 0.5, "{name}: {losses:?}");
        let policy = GaussianPolicy::from_parameters(cloner.network().clone(), cloner.parameters().to_vec(), 3.0);
        let batch = Batch::new(&policy.network, 100, 2);
        let chunks = sample(&policy, EVALUATE, &batch, 1);
        let error: f32 = chunks
            .chunks_exact(HORIZON)
            .zip(batch.states.chunks_exact(STATE))
            .map(|(chunk, state)| (chunk[0] - target(state)).abs())
            .sum::<f32>()
            / 100.0;
        assert!(error < 0.08, "{name}: mean error of the action is {error}");
    }
}

#[test]
fn a_cloned_mixture_keeps_both_modes_where_a_gaussian_averages() {
    let data = dataset(true);
    let spread = |modes: usize| {
        let mut cloner = cloner(60, network(mlp(32), FIXED, modes), 1);
        cloner.run(&data, &mut go_on).unwrap();
        let policy = GaussianPolicy::from_parameters(cloner.network().clone(), cloner.parameters().to_vec(), 3.0);
        // The target at this state is 0.9: far from its opposite.
        let batch = Batch { states: [0.8f32, -1.0].repeat(200), images: None };
        let chunks = sample(&policy, EVALUATE, &batch, 1);
        let near = |sign: f32| chunks.iter().filter(|x| (*x - sign * target(&[0.8, -1.0])).abs() < 0.25).count();
        (near(1.0), near(-1.0))
    };
    let (plus, minus) = spread(2);
    assert!(plus > 80 && minus > 80, "the mixture drew {plus} and {minus} of 400");
    let (plus, minus) = spread(0);
    assert!(plus + minus < 40, "a Gaussian drew {plus} and {minus} of 400");
}

#[test]
fn cloning_gives_the_same_bits_on_two_threads_and_after_a_resume() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let data = dataset(true);
    let stored = |cloner: &Cloner| {
        let mut checkpoint = Checkpoint::new(Stage::Pretrain, run_info());
        cloner.store(&mut checkpoint);
        checkpoint
    };
    for (name, network) in [
        ("learned", network(mlp(16), LEARNED, 0)),
        ("per state", network(mlp(16), PER_STATE, 0)),
        ("transformer mixture", network(transformer(), LEARNED, 3)),
    ] {
        let mut whole = cloner(5, network.clone(), 1);
        whole.run(&data, &mut go_on).unwrap();
        let mut first = cloner(5, network.clone(), 2);
        first
            .run(&data, &mut |c, report| {
                if report.epoch == 2 {
                    stored(c).write(&path)?;
                    return Ok(ControlFlow::Break(()));
                }
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
        let mut second = cloner(5, network, 2);
        second.restore(&Checkpoint::read(&path).unwrap()).unwrap();
        assert_eq!(second.epochs_done(), 2);
        second.run(&data, &mut go_on).unwrap();
        assert!(stored(&second) == stored(&whole), "{name}");
    }
}

#[test]
fn cloning_refuses_data_of_another_width_and_stops_at_what_is_not_finite() {
    let mut cloner = cloner(1, network(mlp(16), LEARNED, 0), 1);
    let mut data = dataset(false);
    data.state_dim = 1;
    assert!(cloner.run_epoch(&data).unwrap_err().to_string().contains("the policy 2"));
    let before = cloner.parameters().to_vec();
    let mut data = dataset(false);
    data.actions.fill(f32::NAN);
    assert!(matches!(cloner.run_epoch(&data), Err(TrainError::Numerical { .. })));
    assert_eq!(cloner.parameters(), before);
    let mut data = dataset(false);
    data.lengths = vec![1; data.frames()];
    assert!(cloner.run_epoch(&data).unwrap_err().to_string().contains("no episode is as long"));
}

fn ppo_config() -> PpoConfig {
    PpoConfig {
        loss: PpoLossConfig {
            clip_ploss_coef: 0.1,
            norm_adv: true,
            clip_vloss_coef: None,
            ent_coef: 0.0,
            vf_coef: 0.5,
            bc_loss_coeff: None,
            compat: PpoCompat::default(),
        },
        gamma: 0.99,
        gae_lambda: 0.95,
        time_out: TimeOut::Bootstrap,
        reward_scale_running: true,
        reward_scale_const: 1.0,
        update_epochs: 5,
        batch_size: 100,
        grad_accumulate: 1,
        target_kl: 1.0,
        n_critic_warmup_itr: 1,
        max_grad_norm: None,
        actor_lr: LrSchedule::constant(1e-3),
        actor_weight_decay: 0.0,
        critic_lr: LrSchedule::constant(1e-3),
        critic_weight_decay: 0.0,
    }
}

/// A bandit: random states, the first action should be s₀; where there are pictures, dark or bright ones, it should be
/// −0.7 or 0.7.
struct Bandit {
    updater: PpoUpdater,
    sampler: GaussianSampler,
    workers: Workers,
    noise: Vec<SeededNoise>,
    environments: SeededNoise,
}

impl Bandit {
    const ENVS: usize = 50;
    const STEPS: usize = 8;

    fn new(config: PpoConfig, network: GaussianNetwork, threads: usize) -> Self {
        let policy = fresh(network);
        let mut critic = CriticSpec::state(&[32; 3], Activation::Mish);
        critic.vision = (policy.network.image_len() > 0).then(|| vision(1, 16));
        let critic = Critic::new(&critic, STATE).unwrap();
        let workers = Workers::new(threads).unwrap();
        Self {
            sampler: GaussianSampler::new(&policy, &workers, Self::ENVS),
            updater: PpoUpdater::new(config, policy, critic, Self::ENVS, 9, &workers).unwrap(),
            workers,
            noise: streams(Self::ENVS, 9),
            environments: Stream::Environment(0).of(9),
        }
    }

    fn collect(&mut self) -> Rollout {
        let mut r = Rollout::new(Self::STEPS, Self::ENVS, STATE, HORIZON);
        for s in &mut r.states {
            *s = self.environments.rng().random_range(-1.0..1.0);
        }
        let mut targets: Vec<f32> = r.states.chunks_exact(STATE).map(|s| s[0]).collect();
        let image_len = self.updater.policy.network.image_len();
        if image_len > 0 {
            let mut images = RolloutImages { last: vec![128; Self::ENVS * image_len], ..Default::default() };
            for target in &mut targets {
                let bright = self.environments.rng().random_bool(0.5);
                images.before.extend(std::iter::repeat_n(if bright { 215 } else { 40 }, image_len));
                *target = if bright { 0.7 } else { -0.7 };
            }
            r.images = Some(images);
        }
        let mut chains = std::mem::take(&mut r.chains);
        let mut seen = r.observations();
        for chunks in chains.chunks_exact_mut(HORIZON * Self::ENVS) {
            let (now, later) = seen.split_at(Self::ENVS, STATE, image_len);
            let (policy, mode) = (&self.updater.policy, self.updater.exploration());
            self.sampler.sample(&self.workers, policy, mode, now, &mut self.noise, chunks);
            seen = later;
        }
        r.chains = chains;
        for (i, reward) in r.rewards.iter_mut().enumerate() {
            *reward = -f64::from(r.chains[HORIZON * i] - targets[i]).powi(2);
        }
        // Every step is an episode of its own.
        r.terminated.fill(true);
        r.first.fill(true);
        r
    }

    fn iterate(&mut self) -> (f64, PpoStats) {
        let rollout = self.collect();
        let stats = self.updater.update(&self.workers, &rollout).unwrap();
        self.updater.end_iteration();
        (rollout.rewards.iter().sum::<f64>() / rollout.rewards.len() as f64, stats)
    }

    fn checkpoint(&self) -> Checkpoint {
        let mut checkpoint = Checkpoint::new(Stage::Finetune, run_info());
        self.updater.store(&mut checkpoint);
        checkpoint
    }
}

#[test]
fn ppo_raises_the_reward_of_a_bandit() {
    for (name, network) in [
        ("fixed", network(mlp(32), FIXED, 0)),
        ("learned", network(mlp(32), LEARNED, 0)),
        ("per state", network(mlp(32), PER_STATE, 0)),
        ("mixture", network(mlp(32), LEARNED, 3)),
        ("transformer", network(transformer(), LEARNED, 0)),
    ] {
        let mut config = ppo_config();
        if name == "transformer" {
            config.actor_lr = LrSchedule::constant(3e-4);
        }
        let mut bandit = Bandit::new(config, network, 1);
        let mut rewards = Vec::new();
        for _ in 0..60 {
            let (reward, stats) = bandit.iterate();
            rewards.push(reward);
            assert!(stats.approx_kl.is_finite() && stats.explained_variance.is_finite(), "{stats:?}");
        }
        let (before, after) = (rewards[0], rewards[55..].iter().sum::<f64>() / 5.0);
        println!("{name}: mean squared error from {before} to {after}");
        assert!(after > 0.4 * before, "{name}: from {before} to {after}: {rewards:?}");
    }
}

#[test]
fn ppo_learns_from_pictures_with_summed_minibatches() {
    let mut config = ppo_config();
    config.grad_accumulate = 2;
    config.loss.bc_loss_coeff = Some(0.001);
    let network = network(vit_mlp(vision(1, 16)), LEARNED, 0);
    let (mut one, mut two) = (Bandit::new(config.clone(), network.clone(), 1), Bandit::new(config, network, 2));
    let mut rewards = Vec::new();
    for iteration in 0..30 {
        let (reward, stats) = one.iterate();
        rewards.push(reward);
        if iteration < 3 {
            assert_eq!(two.iterate(), (reward, stats));
        }
    }
    let (before, after) = (rewards[0], rewards[25..].iter().sum::<f64>() / 5.0);
    println!("pictures: mean squared error from {before} to {after}");
    assert!(after > 0.4 * before, "from {before} to {after}: {rewards:?}");

    // Pictures that are missing, or too few, are named.
    let mut rollout = one.collect();
    rollout.images.as_mut().unwrap().last.pop();
    let error = one.updater.update(&one.workers, &rollout).unwrap_err().to_string();
    assert!(error.contains("after the last step"), "{error}");
    rollout.images = None;
    let error = one.updater.update(&one.workers, &rollout).unwrap_err().to_string();
    assert!(error.contains("the rollout has none"), "{error}");
}

/// With σ = 0.1 and 28 values the joint log-density is about +20, beyond the clamp: the reference's mixture stands still.
#[test]
fn the_references_joint_density_of_a_mixture_has_no_gradient_where_the_corrected_one_has() {
    const ROWS: usize = 64;
    let workers = Workers::new(1).unwrap();
    let spec = GaussianSpec { trunk: mlp(16), std: FIXED, modes: 3, tanh_mean: true };
    let policy = fresh(GaussianNetwork::new(&spec, STATE, 4, 7).unwrap());
    let critic = Critic::new(&CriticSpec::state(&[8; 3], Activation::Mish), STATE).unwrap();
    let batch = Batch::new(&policy.network, ROWS, 8);
    let chunks = sample(&policy, EXPLORE, &batch, 1);
    let advantages: Vec<f32> = (0..ROWS).map(|i| (i as f32).sin()).collect();
    let rows: Vec<u32> = (0..ROWS as u32).collect();
    let norm = |joint: bool| {
        let config = PpoLossConfig { ent_coef: 0.0, ..loss_config(None, joint) };
        let likelihood = Likelihood { mixture: config.mixture_density() };
        let mut loss = PpoLoss::new(&policy.network, &critic, &workers, ROWS);
        let mut samples = Samples {
            observations: batch.observations(),
            chunks: &chunks,
            advantages: &advantages,
            returns: &[],
            old_values: &[],
            old_log_probs: &[],
            state_len: STATE,
            image_len: 0,
            chunk_len: 28,
        };
        let mut old = vec![0.0; ROWS];
        loss.log_probs(&workers, &policy.network, &policy.finetuned, likelihood, &samples, &mut old);
        assert_eq!(old.iter().all(|&p| p > 2.0), joint, "{old:?}");
        old.iter_mut().for_each(|p| *p = Likelihood::clamp(f64::from(*p)).0);
        samples.old_log_probs = &old;
        let minibatch = [Minibatch { samples: &rows, teacher: None }];
        gradient_norm(loss.actor(&workers, &policy, &config, &samples, &minibatch).1)
    };
    assert_eq!(norm(true), 0.0);
    assert!(norm(false) > 1e-3);
}

#[test]
fn critic_warm_up_leaves_the_actor_alone_and_the_ratio_starts_at_one() {
    let mut config = ppo_config();
    config.update_epochs = 1;
    config.batch_size = 400;
    let mut bandit = Bandit::new(config, network(mlp(16), LEARNED, 0), 1);
    let before = (bandit.updater.policy.finetuned.clone(), bandit.updater.critic_parameters.clone());
    let (_, stats) = bandit.iterate();
    assert_eq!(bandit.updater.policy.finetuned, before.0);
    assert_ne!(bandit.updater.critic_parameters, before.1);
    assert_eq!((stats.minibatches, stats.approx_kl), (1, 0.0));
    let (_, stats) = bandit.iterate();
    assert_ne!(bandit.updater.policy.finetuned, before.0);
    assert_eq!(bandit.updater.policy.frozen, before.0);
    assert!((stats.ratio_mean - 1.0).abs() < 1e-6 && stats.clip_fraction == 0.0, "{stats:?}");
    assert!((stats.std - 0.1).abs() < 1e-6, "{stats:?}");
}

#[test]
fn ppo_gives_the_same_bits_on_one_and_two_threads() {
    for network in [network(mlp(16), LEARNED, 0), network(mlp(16), PER_STATE, 0), network(transformer(), LEARNED, 3)] {
        let mut config = ppo_config();
        config.loss.bc_loss_coeff = Some(0.1);
        config.loss.ent_coef = 0.01;
        config.update_epochs = 1;
        config.batch_size = 200;
        let (mut one, mut two) = (Bandit::new(config.clone(), network.clone(), 1), Bandit::new(config, network, 2));
        for _ in 0..3 {
            assert_eq!(one.iterate(), two.iterate());
        }
        assert!(one.checkpoint() == two.checkpoint());
    }
}

#[test]
fn a_restored_updater_continues_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let mut config = ppo_config();
    config.loss.bc_loss_coeff = Some(0.1);
    config.update_epochs = 2;
    let mut bandit = Bandit::new(config.clone(), network(mlp(16), LEARNED, 0), 1);
    bandit.iterate();
    bandit.iterate();
    bandit.checkpoint().write(&path).unwrap();
    let rollout = bandit.collect();
    let stats = bandit.updater.update(&bandit.workers, &rollout).unwrap();

    let mut resumed = Bandit::new(config, network(mlp(16), LEARNED, 0), 2);
    resumed.updater.restore(&Checkpoint::read(&path).unwrap()).unwrap();
    assert_eq!(resumed.updater.iteration(), 2);
    assert_eq!(resumed.updater.update(&resumed.workers, &rollout).unwrap(), stats);
    assert!(bandit.checkpoint() == resumed.checkpoint());
}

#[test]
fn behaviour_cloning_holds_the_policy_near_what_it_was() {
    let drift = |bc_loss_coeff: Option<f64>| {
        let mut config = ppo_config();
        config.loss.bc_loss_coeff = bc_loss_coeff;
        config.n_critic_warmup_itr = 0;
        let mut bandit = Bandit::new(config, network(mlp(16), FIXED, 0), 1);
        for _ in 0..10 {
            bandit.iterate();
        }
        let batch = Batch::new(&bandit.updater.policy.network, 50, 2);
        let now = sample(&bandit.updater.policy, EVALUATE, &batch, 1);
        let then = sample(&bandit.updater.policy, SamplingMode { base_policy: true, ..EVALUATE }, &batch, 1);
        now.iter().zip(&then).map(|(a, b)| (a - b).abs()).sum::<f32>()
    };
    let (free, held) = (drift(None), drift(Some(5.0)));
    assert!(held < 0.3 * free, "moved by {held} with, by {free} without");
}

#[test]
fn summed_minibatches_make_one_step_of_each_optimiser() {
    let mut config = ppo_config();
    config.update_epochs = 1;
    config.n_critic_warmup_itr = 0;
    let steps = |config: &PpoConfig| {
        let mut bandit = Bandit::new(config.clone(), network(mlp(16), FIXED, 0), 1);
        let (_, stats) = bandit.iterate();
        let checkpoint = bandit.checkpoint();
        let of = |name: &str| checkpoint.counter(&format!("adam_steps.{name}")).unwrap();
        (stats.minibatches, of("actor_ft"), of("critic"))
    };
    assert_eq!(steps(&config), (4, 4, 4));
    config.grad_accumulate = 2;
    assert_eq!(steps(&config), (4, 2, 2));
    // What is left at the end of an epoch steps too.
    config.grad_accumulate = 3;
    assert_eq!(steps(&config), (4, 2, 2));
}

#[test]
fn an_early_stop_leaves_all_epochs() {
    let mut config = ppo_config();
    config.n_critic_warmup_itr = 0;
    config.target_kl = 1e-12;
    let (_, stats) = Bandit::new(config, network(mlp(16), LEARNED, 0), 1).iterate();
    assert!(stats.stopped_early && stats.minibatches < 20, "{stats:?}");
}

#[test]
fn what_is_not_finite_is_named_and_changes_nothing() {
    let mut bandit = Bandit::new(ppo_config(), network(mlp(16), LEARNED, 0), 1);
    bandit.iterate();
    let before = bandit.checkpoint();
    let mut rollout = bandit.collect();
    rollout.rewards[3 * Bandit::ENVS + 7] = f64::NAN;
    let error = bandit.updater.update(&bandit.workers, &rollout).unwrap_err().to_string();
    assert!(error.contains("the reward is not finite at chunk step 3, environment 7"), "{error}");
    assert!(bandit.checkpoint() == before);
    // A weight that is not finite is found in the gradient, before any step.
    let rollout = bandit.collect();
    let (range, _) = bandit.updater.policy.network.table().find("logvar").unwrap();
    bandit.updater.policy.finetuned[range].fill(f32::NAN);
    let before = bandit.updater.critic_parameters.clone();
    assert!(matches!(bandit.updater.update(&bandit.workers, &rollout), Err(TrainError::Numerical { .. })));
    assert_eq!(bandit.updater.critic_parameters, before);
}

#[test]
fn settings_that_no_run_can_use_are_refused() {
    let refused = |change: fn(&mut PpoConfig)| {
        let mut config = ppo_config();
        change(&mut config);
        config.check().unwrap_err().to_string()
    };
    assert!(refused(|c| c.loss.clip_ploss_coef = 0.0).contains("clip_ploss_coef"));
    assert!(refused(|c| c.gamma = 1.5).contains("gamma"));
    assert!(refused(|c| c.grad_accumulate = 0).contains("grad_accumulate"));
    assert!(refused(|c| c.loss.ent_coef = f64::NAN).contains("ent_coef"));
    let policy = fresh(network(mlp(16), FIXED, 0));
    let critic = Critic::new(&CriticSpec::state(&[8; 3], Activation::Mish), STATE + 1).unwrap();
    let error = PpoUpdater::new(ppo_config(), policy, critic, 4, 1, &Workers::new(1).unwrap()).unwrap_err();
    assert!(error.to_string().contains("critic"), "{error}");
}
