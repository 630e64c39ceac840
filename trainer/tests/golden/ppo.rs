//! PPO and behaviour cloning of a Gaussian policy and of a mixture: outputs, log-probabilities, loss terms, gradients.

use tenon_core::network::{Activation, CriticSpec, GaussianSpec, MlpSpec, StdSpec, TrunkSpec};
use tenon_train::actor_critic::{CriticLoss, ValueLoss};
use tenon_train::device::Device;
use tenon_train::network::{Critic, CriticRow, GaussianNetwork, Mode};
use tenon_train::ppo::{
    CloningLoss, GaussianPolicy, Likelihood, Minibatch, MixtureDensity, PpoCompat, PpoLoss, PpoLossConfig, Samples,
};
use tenon_train::workers::Workers;

use crate::load::{Case, case, devices, workers};

const FORWARD: f64 = 1e-5;
/// Log-probabilities are sums like those of a chain.
const LOG_PROBS: f64 = 1e-4;
/// Settings of the README.
const ENT_COEF: f64 = 0.01;
const VF_COEF: f64 = 0.5;
const CLIP: f64 = 0.01;
const VALUE_CLIP: f64 = 0.2;

struct Setup {
    c: Case,
    workers: Workers,
    policy: GaussianPolicy,
    critic: Critic,
    critic_parameters: Vec<f32>,
    states: Vec<f32>,
    chunks: Vec<f32>,
    rows: usize,
}

impl Setup {
    /// The case on everything that computes.
    fn each(name: &str) -> impl Iterator<Item = Self> {
        devices().into_iter().map_while(move |device| Self::open(name, device))
    }

    fn open(name: &str, device: Option<Device>) -> Option<Self> {
        let c = case(name)?;
        let workers = workers(&device);
        let activation = match c.config["activation"].as_str() {
            Some("ReLU") => Activation::ReLU,
            Some("Mish") | None => Activation::Mish,
            Some(other) => panic!("unknown activation {other}"),
        };
        let (std, min, max) = (c.number("fixed_std"), c.number("std_min"), c.number("std_max"));
        let spec = GaussianSpec {
            trunk: TrunkSpec::Mlp(MlpSpec {
                dims: c.dims("mlp_dims"),
                activation,
                residual: c.config["residual_style"].as_bool().unwrap_or(true),
                layer_norm: false,
            }),
            std: match c.config["learn_fixed_std"].as_bool() {
                Some(true) => StdSpec::Learned { std, min, max },
                _ => StdSpec::Fixed { std },
            },
            modes: c.config["num_modes"].as_u64().unwrap_or(0) as usize,
            tanh_mean: true,
        };
        let shape = c.shape("state");
        let state_len = shape[1..].iter().product();
        let network =
            GaussianNetwork::new(&spec, state_len, c.usize("horizon"), c.usize("action")).unwrap().on(workers.device());
        let parameters = c.parameters("actor_ft", network.table());
        // Width and depth of the critic are not among the settings: read off its weights.
        let width = c.shape("critic.Q1.layers.0.bias")[0];
        let blocks = (1..).take_while(|i| c.has(&format!("critic.Q1.layers.{i}.l1.weight"))).count();
        let critic_spec = CriticSpec::state(&vec![width; 2 * blocks + 1], Activation::Mish);
        let critic = Critic::new(&critic_spec, state_len).unwrap().on(workers.device());
        Some(Self {
            policy: GaussianPolicy::from_parameters(network, parameters, 3.0),
            critic_parameters: c.parameters("critic", critic.table()),
            critic,
            states: c.f32("state"),
            chunks: c.f32("actions"),
            rows: shape[0],
            workers,
            c,
        })
    }

    /// Mean, deviation and logits of every row; entropy and mean deviation.
    fn outputs(&self) {
        let network = &self.policy.network;
        let prepared = network.prepare(&self.policy.finetuned);
        let mut ws = network.workspace(self.rows, Mode::Inference);
        let len = network.state_len();
        network.forward(&self.policy.finetuned, &prepared, &mut ws, self.rows, |i| CriticRow {
            state: &self.states[i * len..(i + 1) * len],
            images: None,
        });
        let likelihood = Likelihood { mixture: MixtureDensity::Joint };
        let (mut mean, mut std, mut logits) = (vec![], vec![], vec![]);
        let (mut entropy, mut mean_std) = (0.0, 0.0);
        for i in 0..self.rows {
            let row = network.row(&prepared, &ws, i);
            mean.extend_from_slice(row.mean);
            std.extend_from_slice(row.std);
            logits.extend_from_slice(row.logits);
            entropy += likelihood.entropy(row) / self.rows as f64;
            mean_std += Likelihood::mean_std(row) / self.rows as f64;
        }
        self.c.compare_to("net.out0", &mean, FORWARD);
        self.c.compare_to("net.out1", &std, FORWARD);
        if self.c.has("net.out2") {
            self.c.compare_to("net.out2", &logits, FORWARD);
        }
        self.c.compare_loss("entropy", entropy);
        self.c.compare_loss("std", mean_std);
    }

    fn samples<'a>(&'a self, old_log_probs: &'a [f32], numbers: &'a [Vec<f32>; 3]) -> Samples<'a> {
        let network = &self.policy.network;
        Samples {
            observations: (&self.states).into(),
            chunks: &self.chunks,
            advantages: &numbers[0],
            returns: &numbers[1],
            old_values: &numbers[2],
            old_log_probs,
            state_len: network.state_len(),
            image_len: 0,
            chunk_len: network.chunk_len(),
        }
    }

    fn losses(&self) {
        let c = &self.c;
        let (network, policy) = (&self.policy.network, &self.policy);
        let numbers = ["advantages", "returns", "oldvalues"].map(|name| c.f32(name));
        let old: Vec<f32> = c.f64("oldlogprobs").into_iter().map(|p| Likelihood::clamp(p).0).collect();
        let samples = self.samples(&old, &numbers);
        let mut loss = PpoLoss::new(network, &self.workers, self.rows);
        let mut log_probs = vec![0.0; self.rows];
        let likelihood = Likelihood { mixture: MixtureDensity::Joint };
        loss.log_probs(&self.workers, network, &policy.finetuned, likelihood, &samples, &mut log_probs);
        c.compare_to("logprobs", &log_probs, LOG_PROBS);

        let rows: Vec<u32> = (0..self.rows as u32).collect();
        let minibatch = [Minibatch { samples: &rows, teacher: None }];
        let mut critic_loss = CriticLoss::new(&self.critic, &self.workers, self.rows);
        for (variant, norm_adv, clip_vloss_coef) in [("base", true, None), ("nonorm_vclip", false, Some(VALUE_CLIP))] {
            let config = PpoLossConfig {
                clip_ploss_coef: CLIP,
                norm_adv,
                ent_coef: ENT_COEF,
                bc_loss_coeff: None,
                compat: PpoCompat { joint_mixture_density: true },
            };
            let name = |term: &str| format!("ppo.{variant}.{term}");
            let (terms, gradient) = loss.actor(&self.workers, policy, &config, &samples, &minibatch);
            let terms = terms[0];
            c.compare_gradient(network.table(), gradient, |p| c.reference(&format!("grad.{variant}.actor_ft.{p}")));
            c.compare_loss(&name("pg_loss"), terms.policy_loss);
            c.compare_loss(&name("entropy_loss"), -terms.entropy);
            c.compare_loss(&name("clipfrac"), terms.clip_fraction);
            c.compare_loss(&name("approx_kl"), terms.approx_kl);
            c.compare_loss(&name("ratio_mean"), terms.ratio_mean);
            c.compare_loss(&name("std"), terms.std);
            c.compare_loss(&name("bc_loss"), terms.bc_loss);
            let (values, gradient) = critic_loss.gradient(
                &self.workers,
                &self.critic,
                &self.critic_parameters,
                ValueLoss { vf_coef: VF_COEF, clip_vloss_coef },
                &samples.value_targets(),
                &[rows.iter().map(|&r| (r, 1.0)).collect()],
            );
            c.compare_gradient(self.critic.table(), gradient, |p| c.reference(&format!("grad.{variant}.critic.{p}")));
            c.compare_loss(&name("v_loss"), values[0]);
            let total = terms.policy_loss - ENT_COEF * terms.entropy + VF_COEF * values[0];
            c.compare_loss(&name("total"), total);
        }
    }

    fn cloning(&self) {
        let network = &self.policy.network;
        // The mixture's loss has no entropy term.
        let ent_coef = if network.modes() == 0 { ENT_COEF } else { 0.0 };
        let mut loss = CloningLoss::new(network, &self.workers, self.rows, ent_coef);
        let (terms, gradient) =
            loss.gradient(&self.workers, network, &self.policy.finetuned, &self.states, &self.chunks);
        self.c.compare_loss("bc.loss", terms.loss);
        self.c.compare_gradient(network.table(), gradient, |p| self.c.reference(&format!("bc.grad.actor_ft.{p}")));
    }
}

macro_rules! golden_case {
    ($module:ident, $case:literal) => {
        mod $module {
            use super::Setup;

            #[test]
            fn golden_outputs() {
                for s in Setup::each($case) {
                    s.outputs();
                }
            }

            #[test]
            fn golden_log_probs_loss_terms_and_gradients() {
                for s in Setup::each($case) {
                    s.losses();
                }
            }

            #[test]
            fn golden_behaviour_cloning() {
                for s in Setup::each($case) {
                    s.cloning();
                }
            }
        }
    };
}

golden_case!(gaussian, "ppo_gaussian");
golden_case!(gmm, "ppo_gmm");
