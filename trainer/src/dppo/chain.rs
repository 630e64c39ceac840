//! Sampling chunks for many environments at once, with the chain that training needs (spec dppo.md §1.2–1.7).

use tenon_core::diffusion::{DenoisingStep, StepNoise};
use tenon_core::noise::NoiseSource;

use super::Policy;
use super::eta::EtaSteps;
use crate::network::{Mode, Observations, Prepared, Workspace};
use crate::workers::{Workers, shard_range};

/// How a chain is walked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChainMode {
    /// Standard deviations: exploration in training, evaluation otherwise. Exploring, a policy whose η is no constant takes
    /// it from its module.
    pub noise: StepNoise,
    /// Uses the frozen network for all steps (teacher samples of the behaviour-cloning loss, and the policy as it was
    /// before fine-tuning).
    pub base_policy: bool,
}

/// Buffers for sampling; one policy architecture, any parameters.
#[derive(Debug)]
pub struct ChainSampler {
    workspaces: Vec<ThreadBuffers>,
    rows: usize,
}

#[derive(Debug)]
struct ThreadBuffers {
    frozen: Workspace,
    finetuned: Workspace,
    x: Vec<f32>,
    draw: Vec<f32>,
}

/// Rows of one shard.
struct Shard<'a, N> {
    observations: Observations<'a>,
    /// η of each row, `[rows, 1 or Da]`; empty where all have the same.
    etas: &'a [f32],
    noise: &'a mut [N],
    chains: &'a mut [f32],
}

/// The chains' common part.
struct Walk<'a> {
    policy: &'a Policy,
    steps: &'a [DenoisingStep],
    /// Of rows with an η of their own.
    eta_steps: Option<EtaSteps>,
    frozen: &'a Prepared,
    finetuned: &'a Prepared,
}

impl ChainSampler {
    /// For up to `rows` environments at a time.
    pub fn new(policy: &Policy, workers: &Workers, rows: usize) -> Self {
        let network = &policy.network;
        let shards = network.inference_shards(workers, rows);
        let shard_rows = rows.div_ceil(shards);
        let buffers = || ThreadBuffers {
            frozen: network.workspace(shard_rows, Mode::Inference),
            finetuned: network.workspace(shard_rows, Mode::Inference),
            x: vec![0.0; shard_rows * network.chunk_len()],
            draw: vec![0.0; network.chunk_len()],
        };
        Self { workspaces: (0..workers.threads().min(shards)).map(|_| buffers()).collect(), rows }
    }

    /// Samples one chunk a row.
    ///
    /// `observations`: of the rows; a plain slice of states will do. `noise`: one stream a row, which first gives x_K, then the draws of
    /// each step with a standard deviation. `chains`: receives `[rows, K'+1, chunk_len]`; the last entry is the chunk.
    ///
    /// Panics if there are more rows than the sampler was made for, or lengths do not fit together.
    pub fn sample<'o, N: NoiseSource + Send>(
        &mut self,
        workers: &Workers,
        policy: &Policy,
        mode: ChainMode,
        observations: impl Into<Observations<'o>>,
        noise: &mut [N],
        chains: &mut [f32],
    ) {
        let network = &policy.network;
        let observations = observations.into();
        let (rows, state_len) = (noise.len(), network.state_len());
        let chain_len = (policy.finetuned_steps() + 1) * network.chunk_len();
        assert!(rows <= self.rows, "{rows} rows in a sampler made for {}", self.rows);
        assert_eq!(observations.states.len(), rows * state_len, "states of {rows} rows");
        assert_eq!(chains.len(), rows * chain_len, "chains of {rows} rows");

        let mut steps = policy.denoising.steps(mode.noise);
        if mode.base_policy {
            steps.iter_mut().for_each(|s| s.finetuned = false);
        }
        let times: Vec<usize> = steps.iter().map(|s| s.t).collect();
        let frozen = network.prepare(&policy.frozen, &times);
        let finetuned = network.prepare(&policy.finetuned, &times);

        let (eta_steps, etas) = match (&policy.eta, mode.noise) {
            (Some(module), StepNoise::Exploration { min_std, .. }) => {
                let etas = module.values(rows, |i| observations.state(i, state_len));
                (EtaSteps::new(&policy.denoising, min_std), etas)
            }
            _ => (None, Vec::new()),
        };
        let walk = Walk { policy, steps: &steps, eta_steps, frozen: &frozen, finetuned: &finetuned };

        let shards = network.inference_shards(workers, rows);
        let (mut observations, mut etas, mut noise, mut chains) = (observations, etas.as_slice(), noise, chains);
        let eta_len = etas.len() / rows.max(1);
        let mut parts = Vec::with_capacity(shards);
        for shard in 0..shards {
            let n = shard_range(rows, shards, shard).len();
            let (o, o_rest) = observations.split_at(n, state_len, network.image_len());
            let (e, e_rest) = etas.split_at(n * eta_len);
            let (z, z_rest) = noise.split_at_mut(n);
            let (c, c_rest) = chains.split_at_mut(n * chain_len);
            parts.push(Shard { observations: o, etas: e, noise: z, chains: c });
            (observations, etas, noise, chains) = (o_rest, e_rest, z_rest, c_rest);
        }
        workers.run(&mut self.workspaces, &mut parts, |_, buffers, shard| walk.shard(buffers, shard));
    }
}

impl Walk<'_> {
    /// Walks the chains of one shard from x_K to x_0.
    fn shard<N: NoiseSource>(&self, buffers: &mut ThreadBuffers, shard: &mut Shard<N>) {
        let (network, denoising) = (&self.policy.network, &self.policy.denoising);
        let (len, kept) = (network.chunk_len(), self.policy.finetuned_steps());
        let ThreadBuffers { frozen, finetuned, x, draw } = buffers;
        let x = &mut x[..shard.noise.len() * len];
        if self.steps.iter().any(|s| !s.finetuned) {
            network.condition(&self.policy.frozen, self.frozen, frozen, shard.observations);
        }
        if self.steps.iter().any(|s| s.finetuned) {
            network.condition(&self.policy.finetuned, self.finetuned, finetuned, shard.observations);
        }
        for (x, noise) in x.chunks_exact_mut(len).zip(shard.noise.iter_mut()) {
            noise.fill_standard_normal(x);
        }
        let keep = |x: &[f32], remaining: usize, chains: &mut [f32]| {
            if remaining <= kept {
                let chains = chains.chunks_exact_mut((kept + 1) * len);
                for (chain, x) in chains.zip(x.chunks_exact(len)) {
                    chain[(kept - remaining) * len..][..len].copy_from_slice(x);
                }
            }
        };
        keep(x, self.steps.len(), shard.chains);
        for (i, step) in self.steps.iter().enumerate() {
            let predicted = if step.finetuned {
                network.forward_conditioned(&self.policy.finetuned, self.finetuned, finetuned, i, x)
            } else {
                network.forward_conditioned(&self.policy.frozen, self.frozen, frozen, i, x)
            };
            match &self.eta_steps {
                None => self.step(step, x, predicted, shard.noise, draw),
                Some(eta_steps) => self.eta_step(eta_steps, i, x, predicted, shard, draw),
            }
            let remaining = self.steps.len() - 1 - i;
            if let (0, Some(clip)) = (remaining, denoising.final_action_clip) {
                x.iter_mut().for_each(|x| *x = x.clamp(-clip, clip));
            }
            keep(x, remaining, shard.chains);
        }
    }

    /// One step of all rows, alike.
    fn step<N: NoiseSource>(
        &self,
        step: &DenoisingStep,
        x: &mut [f32],
        predicted: &[f32],
        noise: &mut [N],
        draw: &mut [f32],
    ) {
        let denoising = &self.policy.denoising;
        step.mean(x, predicted, denoising.denoised_clip);
        if step.std > 0.0 {
            for (x, noise) in x.chunks_exact_mut(draw.len()).zip(noise) {
                noise.fill_standard_normal(draw);
                for (x, z) in x.iter_mut().zip(&*draw) {
                    *x += step.std * z.clamp(-denoising.noise_clip, denoising.noise_clip);
                }
            }
        }
    }

    /// Step `i` of all rows, each with its η.
    fn eta_step<N: NoiseSource>(
        &self,
        eta_steps: &EtaSteps,
        i: usize,
        x: &mut [f32],
        predicted: &[f32],
        shard: &mut Shard<N>,
        draw: &mut [f32],
    ) {
        let (denoising, step) = (&self.policy.denoising, &self.steps[i]);
        let (clip, noise_clip, len) = (denoising.denoised_clip, denoising.noise_clip, draw.len());
        let eta_len = shard.etas.len() / shard.noise.len();
        let rows = x.chunks_exact_mut(len).zip(predicted.chunks_exact(len));
        let rows = rows.zip(shard.etas.chunks_exact(eta_len)).zip(shard.noise.iter_mut());
        for (((x, predicted), etas), noise) in rows {
            noise.fill_standard_normal(draw);
            for (k, &eta) in etas.iter().enumerate() {
                let s = eta_steps.at(i, eta);
                // An action's values stand Da apart, [Tp, Da].
                for e in (k..len).step_by(eta_len) {
                    let x0 = (step.x0_from_x * x[e] - step.x0_from_noise * predicted[e]).clamp(-clip, clip);
                    let mean = s.mean_from_x0 * x0 + s.mean_from_x * x[e];
                    x[e] = mean + s.std * draw[e].clamp(-noise_clip, noise_clip);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::NoiseNetwork;
    use tenon_core::network::{Activation, ConditionEncoder, NetworkSpec, UnetSpec};
    use tenon_core::noise::SeededNoise;
    use tenon_core::spec::{Denoising, Prediction, Sampler};

    /// Environments are cut by threads, and nobody can tell from the chains.
    #[test]
    fn chains_are_the_same_bits_on_any_number_of_threads() {
        let unet = NetworkSpec::Unet(UnetSpec {
            time_dim: 16,
            dim: 8,
            dim_mults: vec![1, 2],
            kernel_size: 5,
            groups: 4,
            group_norm_eps: 1e-5,
            activation: Activation::Mish,
            condition_encoder: ConditionEncoder::Large,
            condition_scales: true,
            cond_mlp_dims: vec![],
        });
        let mlp = NetworkSpec::diffusion_mlp(16, &[64; 3], &[12, 5], Activation::Mish);
        for (name, spec) in [("MLP", mlp), ("U-Net", unet)] {
            let network = NoiseNetwork::new(&spec, 4, 4, 2).unwrap();
            assert_eq!(network.has_positions(), name == "U-Net", "which decides how environments are cut");
            let parameters = network.table().initialise(&mut SeededNoise::new(1, 0));
            let denoising = Denoising {
                denoising_steps: 6,
                finetuned_steps: 3,
                sampler: Sampler::Ddpm,
                denoised_clip: 1.0,
                noise_clip: 3.0,
                final_action_clip: None,
                prediction: Prediction::Noise,
                step_counts: Vec::new(),
            };
            let policy = Policy::from_pretrained(network, parameters, denoising);
            let mut states = vec![0.0; 103 * 4];
            SeededNoise::new(2, 0).fill_standard_normal(&mut states);
            let chains = |threads: usize| {
                let workers = Workers::new(threads).unwrap();
                let mut sampler = ChainSampler::new(&policy, &workers, 103);
                let mut noise: Vec<SeededNoise> = (0..103).map(|row| SeededNoise::new(3, row)).collect();
                let mut chains = vec![0.0; 103 * 4 * 8];
                let noise_kind = StepNoise::Exploration { min_std: 0.1, eta: 1.0 };
                let mode = ChainMode { noise: noise_kind, base_policy: false };
                sampler.sample(&workers, &policy, mode, &states, &mut noise, &mut chains);
                chains
            };
            let one = chains(1);
            assert!((2..5).all(|threads| chains(threads) == one), "{name}");
        }
    }
}
