//! `tenon bench infer`: denoising networks on the engines, against ONNX Runtime on plain graphs.
//!
//! Without a folder of models it needs no files: our own exports with random weights of the Lift and Square MLP, the
//! One-leg U-Net and the ViT-MLP of Square (spec dppo.md §3.7, §3.8). Lines:
//!
//! * `infer/<network>/step/<engine>`: one evaluation of the whole network as one graph (`x`, `t`, `state` → `out`); peer:
//!   ONNX Runtime on the same graph.
//! * `infer/<network>/chain/<engine>`: a DDIM-5 chunk as the runtime computes it (encoder graph once, step graph five
//!   times, core's sampling loop); peer: ONNX Runtime on the whole chain as one graph.
//!
//! Everything runs on one thread, repetitions of ours and of the peer alternate, and both compute the same numbers.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use tenon_core::diffusion::{Clips, Denoiser, DenoisingStep, NoiseSchedule, SampleScratch, StepNoise, denoise};
use tenon_core::network::{
    Activation, Compression, ConditionEncoder, NetworkSpec, PatchEmbedding, UnetSpec, VisionSpec,
};
use tenon_core::noise::{NoiseSource, SeededNoise};

use crate::denoiser::OnnxDenoiser;
use crate::engine::{Engine, Input, Session};
use crate::error::PolicyError;
use crate::graph::{Dims, NetworkGraph, random_parameters};
use crate::onnx::ElementType;

/// One measured line, in the form that all benchmarks of Tenon share.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchLine {
    pub bench: String,
    pub unit: &'static str,
    /// Repetitions.
    pub n: usize,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
    /// What it is compared with.
    pub peer: Option<String>,
    pub peer_p50: Option<f64>,
    /// `peer_p50 / p50`: above 1 ours is faster.
    pub ratio: Option<f64>,
}

impl fmt::Display for BenchLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bench, unit, p50, p99, max, .. } = self;
        write!(f, "{bench:<36} p50 {p50:>9.1} p99 {p99:>9.1} max {max:>9.1} {unit}")?;
        if let (Some(peer), Some(peer_p50), Some(ratio)) = (&self.peer, self.peer_p50, self.ratio) {
            write!(f, "   {peer} {peer_p50:>9.1} {unit}, ratio {ratio:.2}")?;
        }
        Ok(())
    }
}

/// What to measure.
#[derive(Debug, Clone, Default)]
pub struct InferOptions {
    /// A folder of .onnx files to measure instead of our own exports.
    pub models: Option<PathBuf>,
    /// Few repetitions: shows that it runs, not how fast.
    pub quick: bool,
}

/// Measures and hands each line to `on_line` when it is known; progress goes to stderr.
///
/// Where ONNX Runtime is not available its own lines and the peer are left out, and stderr says why.
pub fn infer(options: &InferOptions, mut on_line: impl FnMut(&BenchLine)) -> Result<Vec<BenchLine>, PolicyError> {
    let engines: Vec<Engine> = Engine::ALL
        .into_iter()
        .filter(|engine| engine.available().inspect_err(|e| eprintln!("bench infer: {e}")).is_ok())
        .collect();
    let mut lines = Vec::new();
    let mut done = |line: BenchLine| {
        on_line(&line);
        lines.push(line);
    };
    match &options.models {
        Some(folder) => {
            for path in model_files(folder)? {
                bench_file(&path, &engines, options.quick, &mut done)?;
            }
        }
        None => {
            for (name, network, dims) in networks() {
                bench_network(name, &network, dims, &engines, options.quick, &mut done)?;
            }
        }
    }
    Ok(lines)
}

/// The four networks of the paper's tasks that are measured: name, architecture, sizes.
pub fn networks() -> [(&'static str, NetworkSpec, Dims); 4] {
    let dims = |observation_dim, prediction_horizon, action_dim| Dims {
        observation_horizon: 1,
        observation_dim,
        prediction_horizon,
        action_dim,
        denoising_steps: 100,
    };
    let mlp =
        |time_dim, width, cond: &[usize]| NetworkSpec::diffusion_mlp(time_dim, &[width; 3], cond, Activation::Mish);
    let unet = NetworkSpec::Unet(UnetSpec {
        time_dim: 16,
        dim: 64,
        dim_mults: vec![1, 2, 4],
        kernel_size: 5,
        groups: 8,
        group_norm_eps: 1e-5,
        activation: Activation::Mish,
        condition_encoder: ConditionEncoder::Large,
        condition_scales: true,
        cond_mlp_dims: vec![],
    });
    let vit = NetworkSpec::VitMlp {
        time_dim: 32,
        mlp_dims: vec![768; 3],
        activation: Activation::Mish,
        residual: true,
        vision: VisionSpec {
            cameras: 1,
            image_px: 96,
            embed_dim: 128,
            heads: 4,
            depth: 1,
            patch_embedding: PatchEmbedding::Two,
            patch_norm: false,
            compression: Compression::Spatial { dim: 128 },
        },
    };
    [
        ("lift_mlp", mlp(16, 512, &[]), dims(19, 4, 7)),
        ("square_mlp", mlp(32, 1024, &[512, 64]), dims(23, 4, 7)),
        ("one_leg_unet", unet, dims(58, 16, 10)),
        ("vit_mlp", vit, dims(9, 4, 7)),
    ]
}

/// Inputs of a session, filled with normal draws (t: 20).
struct Inputs {
    f32s: Vec<Vec<f32>>,
    i64s: Vec<Vec<i64>>,
    types: Vec<ElementType>,
}

impl Inputs {
    fn draw(session: &Session) -> Self {
        let mut source = SeededNoise::new(7, 0);
        let ports = session.inputs();
        let f32s = ports.iter().map(|port| {
            let mut data = vec![0.0; port.len()];
            source.fill_standard_normal(&mut data);
            data
        });
        Self {
            f32s: f32s.collect(),
            i64s: ports.iter().map(|port| vec![20; port.len()]).collect(),
            types: ports.iter().map(|port| port.element_type).collect(),
        }
    }

    fn given(&self) -> Vec<Input<'_>> {
        let input = |(i, kind): (usize, &ElementType)| match kind {
            ElementType::I64 => Input::I64(&self.i64s[i]),
            _ => Input::F32(&self.f32s[i]),
        };
        self.types.iter().enumerate().map(input).collect()
    }
}

/// Something timed: one call does the whole work once.
type Work<'a> = Box<dyn FnMut() -> Result<(), PolicyError> + 'a>;

/// A whole graph as work.
fn graph_work(mut session: Session) -> Result<Work<'static>, PolicyError> {
    let inputs = Inputs::draw(&session);
    let mut outputs = Vec::new();
    for info in session.outputs() {
        let dims: Option<Vec<usize>> =
            info.shape.iter().enumerate().map(|(axis, d)| d.or((axis == 0).then_some(1))).collect();
        outputs.push(vec![0.0f32; dims.map_or(0, |d| d.iter().product())]);
    }
    Ok(Box::new(move || {
        let mut targets: Vec<&mut [f32]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
        session.run(&inputs.given(), &mut targets)
    }))
}

fn bench_network(
    name: &str,
    network: &NetworkSpec,
    dims: Dims,
    engines: &[Engine],
    quick: bool,
    done: &mut dyn FnMut(BenchLine),
) -> Result<(), PolicyError> {
    eprintln!("bench infer: building {name}");
    let parameters = random_parameters(network, &dims, 1);
    let graph = NetworkGraph::new(network, dims, &parameters)?;
    let steps = NoiseSchedule::cosine(dims.denoising_steps).ddim_steps(5, StepNoise::Evaluation);
    let clips = Clips { denoised: 1.0, noise: 3.0, final_action: None };
    let single = graph.single_step();
    let chain = graph.chain(&steps, clips)?;
    for &engine in engines {
        let peer = (engine != Engine::OnnxRuntime && engines.contains(&Engine::OnnxRuntime))
            .then(|| Session::load(Engine::OnnxRuntime, name, &single, 1).and_then(graph_work))
            .transpose()?;
        let ours = graph_work(Session::load(engine, name, &single, 1)?)?;
        done(measure(format!("infer/{name}/step/{engine}"), ours, "onnxruntime, same graph", peer, quick)?);
        let peer = engines
            .contains(&Engine::OnnxRuntime)
            .then(|| Session::load(Engine::OnnxRuntime, name, &chain, 1).and_then(graph_work))
            .transpose()?;
        let ours = chain_work(engine, name, &graph, &steps, clips)?;
        done(measure(format!("infer/{name}/chain/{engine}"), ours, "onnxruntime, one graph", peer, quick)?);
    }
    Ok(())
}

/// A chunk as the runtime computes it.
fn chain_work(
    engine: Engine,
    name: &str,
    graph: &NetworkGraph,
    steps: &[DenoisingStep],
    clips: Clips,
) -> Result<Work<'static>, PolicyError> {
    let times: Vec<usize> = steps.iter().map(|s| s.t).collect();
    let mut denoiser = OnnxDenoiser::of_network(engine, name, graph, &times)?;
    let steps = steps.to_vec();
    let mut source = SeededNoise::new(7, 0);
    let mut draw = |len: usize| {
        let mut data = vec![0.0; len];
        source.fill_standard_normal(&mut data);
        data
    };
    let (noise, state) = (draw(denoiser.chunk_len()), draw(denoiser.state_len()));
    let image = draw(denoiser.image_len());
    let mut scratch = SampleScratch::new(noise.len());
    let mut x = noise.clone();
    let mut unused = SeededNoise::new(0, 0);
    Ok(Box::new(move || {
        if !image.is_empty() {
            denoiser.set_image(&image)?;
        }
        denoiser.condition(&state)?;
        x.copy_from_slice(&noise);
        denoise(&mut denoiser, &steps, clips, &mut unused, &mut scratch, &mut x)
    }))
}

fn model_files(folder: &Path) -> Result<Vec<PathBuf>, PolicyError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(PolicyError::io(folder))? {
        let path = entry.map_err(PolicyError::io(folder))?.path();
        if path.extension().is_some_and(|e| e == "onnx") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(PolicyError::Call { detail: format!("{}: no .onnx files there", folder.display()) });
    }
    Ok(files)
}

/// A file of another exporter: a chain where the time is no input but the noise is, else a step.
fn bench_file(
    path: &Path,
    engines: &[Engine],
    quick: bool,
    done: &mut dyn FnMut(BenchLine),
) -> Result<(), PolicyError> {
    let file = path.display().to_string();
    let name = path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    let model = fs::read(path).map_err(PolicyError::io(path))?;
    eprintln!("bench infer: loading {name}");
    for &engine in engines {
        let ours = Session::load(engine, &file, &model, 1)?;
        let has = |input: &str| ours.inputs().iter().any(|p| p.name == input);
        let kind = if has("x") && !has("t") { "chain" } else { "step" };
        let peer = (engine != Engine::OnnxRuntime && engines.contains(&Engine::OnnxRuntime))
            .then(|| Session::load(Engine::OnnxRuntime, &file, &model, 1).and_then(graph_work))
            .transpose()?;
        let bench = format!("infer/{name}/{kind}/{engine}");
        done(measure(bench, graph_work(ours)?, "onnxruntime, same graph", peer, quick)?);
    }
    Ok(())
}

/// Times ours and the peer in turn, so that both see the same machine.
fn measure(
    bench: String,
    mut ours: Work,
    peer_name: &str,
    mut peer: Option<Work>,
    quick: bool,
) -> Result<BenchLine, PolicyError> {
    let (limit, budget) = if quick { (50, Duration::from_millis(500)) } else { (5000, Duration::from_secs(6)) };
    let mut times = Vec::new();
    let mut peer_times = Vec::new();
    let warm_up = if quick { 5 } else { 30 };
    let mut start = Instant::now();
    for repetition in 0.. {
        if repetition == warm_up {
            times.clear();
            peer_times.clear();
            start = Instant::now();
        }
        times.push(microseconds(&mut ours)?);
        if let Some(peer) = &mut peer {
            peer_times.push(microseconds(peer)?);
        }
        let counted = repetition >= warm_up;
        if counted && (times.len() >= limit || (times.len() >= 20 && start.elapsed() > budget)) {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    peer_times.sort_by(f64::total_cmp);
    let p50 = percentile(&times, 0.5);
    let peer_p50 = (!peer_times.is_empty()).then(|| percentile(&peer_times, 0.5));
    Ok(BenchLine {
        bench,
        unit: "us",
        n: times.len(),
        p50,
        p99: percentile(&times, 0.99),
        max: percentile(&times, 1.0),
        peer: peer_p50.map(|_| peer_name.to_string()),
        peer_p50,
        ratio: peer_p50.map(|peer| peer / p50),
    })
}

fn microseconds(work: &mut Work) -> Result<f64, PolicyError> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e6)
}

/// Nearest rank of sorted values.
fn percentile(sorted: &[f64], fraction: f64) -> f64 {
    let rank = (fraction * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let sorted: Vec<f64> = (1..=200).map(f64::from).collect();
        let found = [0.5, 0.99, 1.0].map(|f| percentile(&sorted, f));
        assert_eq!(found, [100.0, 198.0, 200.0]);
    }

    #[test]
    fn sizes_are_those_of_the_paper() {
        let counts = networks()
            .map(|(_, network, d)| network.parameter_count(d.state_len(), d.prediction_horizon, d.action_dim));
        assert_eq!(counts, [573_516, 2_305_212, 6_856_346, 1_778_684]);
    }
}
