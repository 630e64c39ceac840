//! DPPO with the residual MLP, the U-Net and the ViT-MLP: forward, single steps, chains, log-probabilities, loss terms and gradients.

use serde_json::Value;
use tenon_core::diffusion::StepNoise;
use tenon_core::network::{
    Activation, Compression, ConditionEncoder, CriticSpec, NetworkSpec, PatchEmbedding, UnetSpec, VisionSpec,
};
use tenon_core::noise::NoiseSource;
use tenon_core::spec::{Denoising, Prediction, Sampler};
use tenon_train::actor_critic::{CriticLoss, ValueLoss};
use tenon_train::device::Device;
use tenon_train::dppo::{
    ActorGradient, ChainMode, ChainSampler, Likelihood, LossBuffers, LossConfig, Minibatch, Policy, Samples,
};
use tenon_train::network::{Critic, Mode, NoiseNetwork, NoiseRow, Observations};
use tenon_train::optimizer::gradient_norm;
use tenon_train::workers::Workers;

use crate::load::{Case, case, devices, workers};

const FORWARD: f64 = 1e-5;
const CHAIN: f64 = 1e-4;
/// η while training in these cases: the fixed module at its base value.
const ETA: f64 = 1.0;

/// The stored draws of one row, in the order in which they are asked for.
pub struct Recorded {
    values: Vec<f32>,
    position: usize,
}

impl Recorded {
    /// Streams of rows from their initial noise `[rows, len]` and the draws of all steps `[steps, rows, len]`.
    pub fn rows(initial: &[f32], steps: &[f32], len: usize) -> Vec<Self> {
        let stream = |(i, x): (usize, &[f32])| {
            let draws = steps.chunks_exact(initial.len()).flat_map(|step| &step[i * len..][..len]);
            Self { values: x.iter().chain(draws).copied().collect(), position: 0 }
        };
        initial.chunks_exact(len).enumerate().map(stream).collect()
    }
}

impl NoiseSource for Recorded {
    fn fill_standard_normal(&mut self, out: &mut [f32]) {
        out.copy_from_slice(&self.values[self.position..][..out.len()]);
        self.position += out.len();
    }
}

struct Setup {
    c: Case,
    workers: Workers,
    policy: Policy,
    critic: Critic,
    critic_parameters: Vec<f32>,
    /// `[batch, state_len]`.
    states: Vec<f32>,
    /// `[batch, image_len]`.
    images: Option<Vec<u8>>,
    batch: usize,
}

fn activation(value: &Value) -> Activation {
    match value.as_str() {
        Some("ReLU") => Activation::ReLU,
        Some("Mish") | None => Activation::Mish,
        Some(other) => panic!("unknown activation {other}"),
    }
}

fn network(c: &Case) -> NetworkSpec {
    let dims = c.dims("mlp_dims");
    if c.config["dim_mults"].is_array() {
        return NetworkSpec::Unet(UnetSpec {
            time_dim: c.usize("diffusion_step_embed_dim"),
            dim: c.usize("dim"),
            dim_mults: c.dims("dim_mults"),
            kernel_size: c.usize("kernel_size"),
            groups: c.usize("n_groups"),
            group_norm_eps: c.number("groupnorm_eps") as f32,
            activation: Activation::Mish,
            condition_encoder: match c.config["smaller_encoder"].as_bool() {
                Some(true) => ConditionEncoder::Small,
                _ => ConditionEncoder::Large,
            },
            condition_scales: c.config["cond_predict_scale"].as_bool().unwrap_or(false),
            cond_mlp_dims: c.dims("cond_mlp_dims"),
        });
    }
    if c.config["image"].is_u64() {
        return NetworkSpec::VitMlp {
            time_dim: c.usize("time_dim"),
            mlp_dims: dims,
            activation: Activation::Mish,
            residual: true,
            vision: VisionSpec {
                cameras: 1,
                image_px: c.usize("image"),
                embed_dim: c.usize("embed_dim"),
                heads: c.usize("num_heads"),
                depth: c.usize("depth"),
                patch_embedding: PatchEmbedding::Two,
                patch_norm: c.usize("embed_norm") == 1,
                compression: Compression::Spatial { dim: c.usize("spatial_emb") },
            },
        };
    }
    NetworkSpec::diffusion_mlp(
        c.usize("time_dim"),
        &dims,
        &c.dims("cond_mlp_dims"),
        activation(&c.config["activation"]),
    )
}

impl Setup {
    fn image(&self, sample: usize) -> Option<&[u8]> {
        let len = self.policy.network.image_len();
        self.images.as_ref().map(|images| &images[sample * len..][..len])
    }

    fn observations(&self) -> Observations<'_> {
        Observations { states: &self.states, images: self.images.as_deref() }
    }

    /// The case on everything that computes.
    fn each(name: &str) -> impl Iterator<Item = Self> {
        devices().into_iter().map_while(move |device| Self::open(name, device))
    }

    fn open(name: &str, device: Option<Device>) -> Option<Self> {
        let c = case(name)?;
        let workers = workers(&device);
        let state_len = c.usize("cond_steps") * c.usize("obs_dim");
        let spec = network(&c);
        let network = NoiseNetwork::new(&spec, state_len, c.usize("horizon_steps"), c.usize("action_dim"))
            .unwrap()
            .on(workers.device());
        let mut critic = CriticSpec::state(&c.dims("critic_mlp_dims"), activation(&c.config["critic_activation"]));
        critic.vision = spec.vision().cloned();
        let critic = Critic::new(&critic, state_len).unwrap().on(workers.device());
        let denoising = Denoising {
            denoising_steps: c.usize("denoising_steps"),
            finetuned_steps: c.usize("ft_denoising_steps"),
            sampler: match c.config["ddim_steps"].as_u64() {
                Some(steps) => Sampler::Ddim { steps: steps as usize },
                None => Sampler::Ddpm,
            },
            denoised_clip: c.config["denoised_clip_value"].as_f64().unwrap_or(1.0) as f32,
            noise_clip: c.number("randn_clip_value") as f32,
            final_action_clip: c.config["final_action_clip_value"].as_f64().map(|v| v as f32),
            step_counts: Vec::new(),
            prediction: Prediction::Noise,
        };
        let policy = Policy {
            frozen: c.parameters("actor", network.table()),
            finetuned: c.parameters("actor_ft", network.table()),
            network,
            denoising,
            eta: None,
        };
        let critic_parameters = c.parameters("critic", critic.table());
        let (states, batch) = (c.f32("cond.state"), c.shape("cond.state")[0]);
        let images = c.has("cond.rgb").then(|| c.f32("cond.rgb").into_iter().map(|v| v as u8).collect());
        Some(Self { c, workers, policy, critic, critic_parameters, states, images, batch })
    }

    fn exploration(&self) -> StepNoise {
        StepNoise::Exploration { min_std: self.c.number("min_sampling_denoising_std"), eta: ETA }
    }

    fn steps(&self) -> usize {
        self.policy.finetuned_steps()
    }

    fn state(&self, sample: usize) -> &[f32] {
        let len = self.policy.network.state_len();
        &self.states[sample * len..][..len]
    }

    /// Row-wise noise streams from `[rows, chunk]` initial and `[steps, rows, chunk]` step noise.
    fn recorded(&self, x_t: &str, step_noise: &str) -> Vec<Recorded> {
        Recorded::rows(&self.c.f32(x_t), &self.c.f32(step_noise), self.policy.network.chunk_len())
    }

    fn sample(
        &self,
        policy: &Policy,
        mode: ChainMode,
        observations: Observations,
        mut noise: Vec<Recorded>,
    ) -> Vec<f32> {
        let mut sampler = ChainSampler::new(policy, &self.workers, noise.len());
        let mut chains = vec![0.0; noise.len() * (self.steps() + 1) * policy.network.chunk_len()];
        sampler.sample(&self.workers, policy, mode, observations, &mut noise, &mut chains);
        chains
    }

    fn forward(&self) {
        let c = &self.c;
        let network = &self.policy.network;
        let (x, t) = (c.f32("pmv.x"), c.indices("pmv.t"));
        let len = network.chunk_len();
        let mut outputs = Vec::new();
        for (name, parameters) in [("actor", &self.policy.frozen), ("actor_ft", &self.policy.finetuned)] {
            // One list entry a row: the rows repeat some steps, which the network must not mind.
            let prepared = network.prepare(parameters, &t);
            let mut ws = network.workspace(t.len(), Mode::Training);
            let rows: Vec<NoiseRow> = x
                .chunks_exact(len)
                .enumerate()
                .map(|(i, chunk)| NoiseRow {
                    slot: i as u32,
                    chunk,
                    state: self.state(i % self.batch),
                    images: self.image(i % self.batch),
                })
                .collect();
            let output = network.forward(parameters, &prepared, &mut ws, &rows).to_vec();
            c.compare_to(&format!("forward.{name}"), &output, FORWARD);
            outputs.push(output);
        }
        let mut values = vec![0.0; self.batch];
        CriticLoss::new(&self.critic, &self.workers, self.batch).values(
            &self.workers,
            &self.critic,
            &self.critic_parameters,
            self.observations(),
            &mut values,
        );
        c.compare_to("forward.critic", &values, FORWARD);
        self.single_steps(&x, &outputs[0], &outputs[1]);
    }

    /// Mean and log-variance of single steps, rows at different t.
    fn single_steps(&self, x: &[f32], frozen: &[f32], finetuned: &[f32]) {
        let c = &self.c;
        let t = c.indices("pmv.t");
        let len = self.policy.network.chunk_len();
        let modes = [
            ("ft", StepNoise::Bare { eta: ETA }),
            ("base", StepNoise::Bare { eta: ETA }),
            ("det", StepNoise::Evaluation),
        ];
        for (name, noise) in modes {
            if !c.has(&format!("pmv.{name}.mean")) {
                continue;
            }
            let steps = self.policy.denoising.steps(noise);
            let (mut means, mut log_variances) = (x.to_vec(), Vec::new());
            for (i, mean) in means.chunks_exact_mut(len).enumerate() {
                let step = steps.iter().find(|s| s.t == t[i]).expect("t is one of the sampled steps");
                let output = if step.finetuned && name != "base" { finetuned } else { frozen };
                step.mean(mean, &output[i * len..][..len], self.policy.denoising.denoised_clip);
                log_variances.push(2.0 * step.std.ln());
            }
            c.compare_to(&format!("pmv.{name}.mean"), &means, FORWARD);
            if c.has(&format!("pmv.{name}.logvar")) {
                c.compare_to(&format!("pmv.{name}.logvar"), &log_variances, FORWARD);
            }
        }
    }

    fn chains(&self) {
        let c = &self.c;
        let len = self.policy.network.chunk_len();
        let explore = self.exploration();
        for (name, noise, base_policy) in
            [("stoch", explore, false), ("stoch.base", explore, true), ("det", StepNoise::Evaluation, false)]
        {
            let mode = ChainMode { noise, base_policy };
            let chains = self.sample(&self.policy, mode, self.observations(), self.recorded("x_T", "step_noise"));
            c.compare_to(&format!("sample.{name}.chain"), &chains, CHAIN);
            let chunks: Vec<f32> = chains
                .chunks_exact((self.steps() + 1) * len)
                .flat_map(|chain| chain[self.steps() * len..].iter().copied())
                .collect();
            c.compare_to(&format!("sample.{name}.action"), &chunks, CHAIN);
        }
        let old =
            Policy { finetuned: c.parameters("actor_ft_old", self.policy.network.table()), ..self.policy.clone() };
        let mode = ChainMode { noise: explore, base_policy: false };
        let chains = self.sample(&old, mode, self.observations(), self.recorded("x_T", "step_noise"));
        c.compare("old_chains", &chains, &c.f64("old_chains"), CHAIN);
    }

    fn likelihood(&self) -> Likelihood {
        Likelihood::new(&self.policy.denoising, self.c.number("min_logprob_denoising_std"), ETA)
    }

    fn buffers(&self, rows: usize) -> LossBuffers {
        LossBuffers::new(&self.policy.network, &self.workers, rows, self.steps())
    }

    fn log_probs(&self) {
        let c = &self.c;
        let chains = c.f32("old_chains");
        let network = &self.policy.network;
        let samples = Samples {
            observations: self.observations(),
            chains: &chains,
            advantages: &[],
            returns: &[],
            old_values: &[],
            old_log_probs: &[],
            steps: self.steps(),
            state_len: network.state_len(),
            image_len: self.policy.network.image_len(),
            chunk_len: network.chunk_len(),
        };
        let old = c.parameters("actor_ft_old", network.table());
        let mut buffers = self.buffers(self.batch * self.steps());
        for (name, parameters) in
            [("logprobs", &self.policy.finetuned), ("logprobs.base", &self.policy.frozen), ("old_logprobs", &old)]
        {
            let mut elements = vec![0.0; self.batch * self.steps() * network.chunk_len()];
            buffers.log_prob_elements(&self.workers, network, parameters, &self.likelihood(), &samples, &mut elements);
            c.compare_to(name, &elements, CHAIN);
            if name == "logprobs" {
                let len = network.chunk_len();
                let (b, j) = (c.indices("ppo.batch_inds"), c.indices("ppo.denoising_inds"));
                let rows: Vec<f32> = b
                    .iter()
                    .zip(&j)
                    .flat_map(|(b, j)| elements[(b * self.steps() + j) * len..][..len].iter().copied())
                    .collect();
                c.compare_to("logprobs_subsample", &rows, CHAIN);
            }
        }
    }

    /// Every PPO variant: loss terms and gradients of actor and critic.
    fn losses(&self) {
        let c = &self.c;
        let network = &self.policy.network;
        let (steps, len) = (self.steps(), network.chunk_len());
        let (b, j) = (c.indices("ppo.batch_inds"), c.indices("ppo.denoising_inds"));
        // Each PPO row becomes a sample of its own, with one of its K' rows in the minibatch.
        let states: Vec<f32> = b.iter().flat_map(|&b| self.state(b).iter().copied()).collect();
        let images: Option<Vec<u8>> = self
            .images
            .as_ref()
            .map(|_| b.iter().flat_map(|&b| self.image(b).expect("pictures").iter().copied()).collect());
        let observations = Observations { states: &states, images: images.as_deref() };
        let all_chains = c.f32("old_chains");
        let chain_len = (steps + 1) * len;
        let chains: Vec<f32> =
            b.iter().flat_map(|&b| all_chains[b * chain_len..][..chain_len].iter().copied()).collect();
        let rows: Vec<u32> = j.iter().enumerate().map(|(i, j)| (i * steps + j) as u32).collect();
        let element_log_probs = c.f32("ppo.oldlogprobs");
        let (advantages, returns, old_values) = (c.f32("ppo.advantages"), c.f32("ppo.returns"), c.f32("ppo.oldvalues"));
        let mut buffers = self.buffers(rows.len());
        let mut critic_loss = CriticLoss::new(&self.critic, &self.workers, rows.len());
        for (variant, settings) in c.config["ppo_variants"].as_object().expect("variants") {
            let number = |key: &str| settings[key].as_f64();
            let vf_coef = c.number("vf_coef");
            let use_bc = settings["use_bc_loss"].as_bool().expect("a switch");
            let horizon_len = settings["reward_horizon"].as_u64().expect("a horizon") as usize * c.usize("action_dim");
            let config = LossConfig {
                gamma_denoising: c.number("gamma_denoising"),
                clip_ploss_coef: c.number("clip_ploss_coef"),
                clip_ploss_coef_base: c.number("clip_ploss_coef_base"),
                clip_ploss_coef_rate: c.number("clip_ploss_coef_rate"),
                norm_adv: settings["norm_adv"].as_bool().expect("a switch"),
                clip_advantage_lower_quantile: number("clip_advantage_lower_quantile").expect("a quantile"),
                clip_advantage_upper_quantile: number("clip_advantage_upper_quantile").expect("a quantile"),
                ent_coef: 0.0,
                bc_loss_coeff: number("bc_loss_coeff").filter(|_| use_bc),
                min_logprob_denoising_std: c.number("min_logprob_denoising_std"),
            };
            let mut old_log_probs = vec![0.0; rows.len() * steps];
            for (&row, elements) in rows.iter().zip(element_log_probs.chunks_exact(len)) {
                old_log_probs[row as usize] = Likelihood::mean_clamped(elements[..horizon_len].iter().copied());
            }
            let samples = Samples {
                observations,
                chains: &chains,
                advantages: &advantages,
                returns: &returns,
                old_values: &old_values,
                old_log_probs: &old_log_probs,
                steps,
                state_len: network.state_len(),
                image_len: self.policy.network.image_len(),
                chunk_len: len,
            };
            for (stored, offset) in [("ppo.chains_prev", 0), ("ppo.chains_next", 1)] {
                let ours = rows.iter().flat_map(|&r| {
                    let (x, next) = samples.transition(r);
                    if offset == 0 { x } else { next }.iter().copied()
                });
                assert!(ours.eq(c.f32(stored)), "{stored} are rows of old_chains");
            }
            let teacher_chains = use_bc.then(|| {
                let mode = ChainMode { noise: self.exploration(), base_policy: true };
                self.sample(&self.policy, mode, observations, self.recorded("bc.x_T", "bc.step_noise"))
            });
            let minibatch = [Minibatch { rows: &rows, teacher: teacher_chains.as_deref() }];

            let name = |term: &str| format!("ppo.{variant}.{term}");
            let gradient_of = |network: &str, parameter: &str| {
                let double = format!("grad.f64.{variant}.{network}.{parameter}");
                let single = format!("grad.{variant}.{network}.{parameter}");
                if c.has(&double) { Some(c.f64(&double)) } else { c.has(&single).then(|| c.f64(&single)) }
            };
            let ActorGradient { terms, parameters: gradient, .. } = buffers.actor(
                &self.workers,
                &self.policy,
                &self.likelihood(),
                &config,
                &samples,
                &minibatch,
                horizon_len,
            );
            let actor = &terms[0];
            c.compare_loss(&name("pg_loss"), actor.policy_loss);
            c.compare_loss(&name("clipfrac"), actor.clip_fraction);
            c.compare_loss(&name("approx_kl"), actor.approx_kl);
            c.compare_loss(&name("ratio_mean"), actor.ratio_mean);
            c.compare_loss(&name("bc_loss"), actor.bc_loss);
            c.compare_loss(&name("gradnorm.actor_ft"), gradient_norm(gradient));
            let mut gradients = 0;
            if network.table().iter().any(|(name, _, _)| gradient_of("actor_ft", name).is_some()) {
                gradients += 1;
                c.compare_gradient(network.table(), gradient, |p| gradient_of("actor_ft", p).expect("all or none"));
            }

            let (value_losses, gradient) = critic_loss.gradient(
                &self.workers,
                &self.critic,
                &self.critic_parameters,
                ValueLoss { vf_coef, clip_vloss_coef: number("clip_vloss_coef") },
                &samples.value_targets(),
                &[samples.distinct(&rows)],
            );
            c.compare_loss(&name("v_loss"), value_losses[0]);
            c.compare_loss(&name("gradnorm.critic"), gradient_norm(gradient));
            if gradients > 0 {
                c.compare_gradient(self.critic.table(), gradient, |p| gradient_of("critic", p).expect("all or none"));
            }
            assert!(gradients > 0 || variant != "base", "the base variant has gradients");

            c.compare_loss(&name("eta_mean"), ETA);
            c.compare_loss(&name("entropy_loss"), -ETA);
            let total = actor.policy_loss
                + c.number("ent_coef") * -ETA
                + vf_coef * value_losses[0]
                + config.bc_loss_coeff.unwrap_or(0.0) * actor.bc_loss;
            c.compare_loss(&name("total"), total);
        }
    }
}

macro_rules! golden_case {
    ($module:ident, $case:literal) => {
        mod $module {
            use super::Setup;

            #[test]
            fn golden_forward_and_single_steps() {
                for s in Setup::each($case) {
                    s.forward();
                }
            }

            #[test]
            fn golden_chains() {
                for s in Setup::each($case) {
                    s.chains();
                }
            }

            #[test]
            fn golden_log_probs() {
                for s in Setup::each($case) {
                    s.log_probs();
                }
            }

            #[test]
            fn golden_loss_terms_and_gradients() {
                for s in Setup::each($case) {
                    s.losses();
                }
            }
        }
    };
}

golden_case!(mlp_ddpm, "dppo_mlp_ddpm");
golden_case!(mlp_condmlp, "dppo_mlp_condmlp");
golden_case!(mlp_ddim, "dppo_mlp_ddim");
golden_case!(unet_ddim, "dppo_unet_ddim");
golden_case!(vit_ddim, "dppo_vit_ddim");
