//! Sampling chunks for many environments at once (spec dppo.md §4).

use tenon_core::noise::NoiseSource;

use super::GaussianPolicy;
use super::likelihood::softmax;
use crate::network::{
    CriticRow, GaussianNetwork, GaussianPrepared, GaussianRow, GaussianWorkspace, Mode, Observations,
};
use crate::workers::{Workers, inference_shards, shard_range};

/// σ of an evaluation.
const EVALUATION_STD: f32 = 1e-4;

/// Which deviations are sampled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SamplingNoise {
    /// Those of the policy.
    Exploration,
    /// 1e-4: nearly the mean. A mixture still draws its component.
    Evaluation,
}

/// How chunks are sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplingMode {
    pub noise: SamplingNoise,
    /// Samples from the weights before the first update.
    pub base_policy: bool,
}

/// Buffers for sampling; one architecture, any parameters.
#[derive(Debug)]
pub struct GaussianSampler {
    workspaces: Vec<GaussianWorkspace>,
    rows: usize,
}

/// Rows of one shard.
struct Shard<'a, N> {
    observations: Observations<'a>,
    noise: &'a mut [N],
    chunks: &'a mut [f32],
}

impl GaussianSampler {
    /// For up to `rows` environments at a time.
    pub fn new(policy: &GaussianPolicy, workers: &Workers, rows: usize) -> Self {
        let shards = shards(&policy.network, workers, rows);
        let shard_rows = rows.div_ceil(shards).max(1);
        let block_rows = shard_rows.min(policy.network.block_rows());
        let workspace = || policy.network.workspace(block_rows, Mode::Inference);
        Self { workspaces: (0..workers.threads().min(shards)).map(|_| workspace()).collect(), rows }
    }

    /// Samples one chunk a row.
    ///
    /// `observations`: of the rows; a plain slice of states will do. `noise`: one stream a row, which gives a mixture's
    /// component first (one draw), then the chunk. `chunks`: receives `[rows, chunk_len]`.
    ///
    /// Panics if there are more rows than the sampler was made for, or lengths do not fit together.
    pub fn sample<'o, N: NoiseSource + Send>(
        &mut self,
        workers: &Workers,
        policy: &GaussianPolicy,
        mode: SamplingMode,
        observations: impl Into<Observations<'o>>,
        noise: &mut [N],
        chunks: &mut [f32],
    ) {
        let (network, observations, rows) = (&policy.network, observations.into(), noise.len());
        let (state_len, image_len, len) = (network.state_len(), network.image_len(), network.chunk_len());
        assert!(rows <= self.rows, "{rows} rows in a sampler made for {}", self.rows);
        assert_eq!(observations.states.len(), rows * state_len, "states of {rows} rows");
        assert_eq!(observations.images.map_or(0, <[u8]>::len), rows * image_len, "pictures of {rows} rows");
        assert_eq!(chunks.len(), rows * len, "chunks of {rows} rows");
        let parameters = if mode.base_policy { &policy.frozen } else { &policy.finetuned };
        let prepared = network.prepare(parameters);

        let shards = shards(network, workers, rows);
        let (mut observations, mut noise, mut chunks) = (observations, noise, chunks);
        let mut parts = Vec::with_capacity(shards);
        for shard in 0..shards {
            let n = shard_range(rows, shards, shard).len();
            let (o, o_rest) = observations.split_at(n, state_len, image_len);
            let (z, z_rest) = noise.split_at_mut(n);
            let (c, c_rest) = chunks.split_at_mut(n * len);
            parts.push(Shard { observations: o, noise: z, chunks: c });
            (observations, noise, chunks) = (o_rest, z_rest, c_rest);
        }
        let block_rows = network.block_rows();
        workers.run(&mut self.workspaces, &mut parts, |_, ws, shard| {
            for start in (0..shard.noise.len()).step_by(block_rows) {
                let end = (start + block_rows).min(shard.noise.len());
                draw_block(policy, parameters, &prepared, mode.noise, ws, shard, start..end);
            }
        });
    }
}

/// Rows are cut by their number alone, whatever the network.
fn shards(network: &GaussianNetwork, workers: &Workers, rows: usize) -> usize {
    if network.is_on_device() { 1 } else { inference_shards(workers, rows, true) }
}

fn draw_block<N: NoiseSource>(
    policy: &GaussianPolicy,
    parameters: &[f32],
    prepared: &GaussianPrepared,
    noise: SamplingNoise,
    ws: &mut GaussianWorkspace,
    shard: &mut Shard<N>,
    rows: std::ops::Range<usize>,
) {
    let network = &policy.network;
    let (state_len, image_len, len) = (network.state_len(), network.image_len(), network.chunk_len());
    let observations = shard.observations;
    network.forward(parameters, prepared, ws, rows.len(), |i| CriticRow {
        state: observations.state(rows.start + i, state_len),
        images: observations.image(rows.start + i, image_len),
    });
    let clip = if network.modes() == 0 { policy.noise_clip } else { f32::INFINITY };
    for i in rows.clone() {
        let row = network.row(prepared, ws, i - rows.start);
        draw(row, noise, clip, &mut shard.noise[i], &mut shard.chunks[i * len..(i + 1) * len]);
    }
}

/// Draws one chunk: a component by weight, then μ + σ · clamp(z, ±clip).
fn draw(row: GaussianRow, noise: SamplingNoise, clip: f32, stream: &mut impl NoiseSource, chunk: &mut [f32]) {
    let component = if row.logits.is_empty() { 0 } else { draw_component(row.logits, stream) };
    let part = component * chunk.len()..(component + 1) * chunk.len();
    stream.fill_standard_normal(chunk);
    for ((x, mean), std) in chunk.iter_mut().zip(&row.mean[part.clone()]).zip(&row.std[part]) {
        let std = match noise {
            SamplingNoise::Exploration => *std,
            SamplingNoise::Evaluation => EVALUATION_STD,
        };
        *x = mean + std * x.clamp(-clip, clip);
    }
}

/// The component at which the cumulative weights pass u = Φ(z), uniform for a standard normal z: all that a
/// [`NoiseSource`] gives.
fn draw_component(logits: &[f32], stream: &mut impl NoiseSource) -> usize {
    let mut z = [0.0];
    stream.fill_standard_normal(&mut z);
    let u = 0.5 * libm::erfc(-f64::from(z[0]) * std::f64::consts::FRAC_1_SQRT_2);
    let mut cumulative = 0.0;
    let passed = |weight: f64| {
        cumulative += weight;
        cumulative >= u
    };
    // The last one where rounding leaves the sum below u.
    softmax(logits).into_iter().position(passed).unwrap_or(logits.len() - 1)
}
