//! `tenon-train bench-render`: pictures a second of a core, exact and fast, and how much the two differ.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use tenon_core::task::TaskName;
use tenon_sim::SimError;
use tenon_sim::batch::Environment;
use tenon_sim::mujoco::{Model, Simulation};
use tenon_sim::render::{Quality, RenderOptions, Renderer, Sight, View, mean_difference};
use tenon_train::environments::{BatchSettings, TaskBatch};
use tenon_train::film::random_spec;
use tenon_train::interrupt::Interrupt;
use tenon_train::progress::Progress;
use tenon_train::stopwatch::timed;

use super::{Ending, Speech};

/// Pictures before the first that counts.
const WARM_UP: usize = 3;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon-train bench-render --task avoid_m1\n  \
    tenon-train bench-render --model lift.xml --camera robot0_eye_in_hand --group 1 --physics-steps 25 --json\n\n\
    Times are processor time of all threads. `fast` leaves out shadows, reflections and multisampling and draws fewer\n\
    triangles; `difference` is the mean absolute difference of its pictures from the exact ones, of 255 grey levels.\n\
    --peer is a Python with MuJoCo and trainer/peer/render.py, which draws the same with mujoco.Renderer.")]
pub struct BenchRenderArgs {
    /// MJCF file to draw.
    #[arg(long, value_name = "FILE", required_unless_present = "task", conflicts_with = "task")]
    model: Option<PathBuf>,
    /// Task to draw, as `tenon-train watch` shows it.
    #[arg(long, value_name = "NAME", value_parser = super::watch::task)]
    task: Option<TaskName>,
    /// Camera of the model [default: the task's, or one that sees all].
    #[arg(long, value_name = "NAME")]
    camera: Option<String>,
    /// Draw geoms of this group; may be given several times [default: 0, 1 and 2].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..6))]
    group: Vec<u8>,
    /// Size of the pictures, pixels: even numbers.
    #[arg(long, value_name = "WxH", default_value = "96x96", value_parser = super::watch::size)]
    size: [u32; 2],
    /// Pictures of each quality.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..1_000_000))]
    repetitions: u32,
    /// Physics steps before each picture, inside its time.
    #[arg(long, value_name = "N", default_value_t = 0)]
    physics_steps: u32,
    /// Also draw in so many threads at once, and give pictures a second on the clock.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=256))]
    threads: Option<u16>,
    /// Program (and its arguments) that draws the same, see trainer/peer/render.py; for --model only.
    #[arg(long, value_name = "PROGRAM", num_args = 1.., requires = "model")]
    peer: Vec<String>,
    #[command(flatten)]
    speech: Speech,
}

/// One quality.
#[derive(Debug, Serialize)]
struct Line {
    bench: String,
    unit: &'static str,
    n: usize,
    p50: f64,
    p99: f64,
    max: f64,
    pictures_per_core_second: f64,
    mesh_triangles: usize,
    /// From the exact pictures of the same worlds, grey levels.
    difference: f64,
    backend: String,
    /// Of all threads together, on the clock.
    threads: Option<u16>,
    pictures_per_second: Option<f64>,
    peer: Option<String>,
    peer_p50: Option<f64>,
    /// How many times faster ours is by the medians.
    ratio: Option<f64>,
}

/// What the peer is asked, as its last argument.
#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    camera: Option<&'a str>,
    geom_groups: [bool; 6],
    width: u32,
    height: u32,
    repetitions: u32,
    physics_steps: u32,
}

/// What it answers, as one line.
#[derive(Deserialize)]
struct Answer {
    peer: String,
    /// Processor time of each picture, seconds.
    cpu: Vec<f64>,
}

/// What is drawn: a world that stands still between pictures, or moves by physics steps.
struct Subject {
    world: Simulation,
    options: RenderOptions,
}

impl BenchRenderArgs {
    fn subject(&self) -> anyhow::Result<Subject> {
        let (model, sight) = match (&self.model, self.task) {
            (Some(path), _) => (Model::from_mjcf_file(path)?, Sight::default()),
            (None, Some(task)) => {
                let settings = BatchSettings { environments: 1, threads: 1, seed: 0, auto_reset: false };
                let mut batch = TaskBatch::new(task, &random_spec(task)?, settings)?;
                batch.begin_episodes(0);
                let environment = batch.environment_mut(0);
                let sight = environment.sight();
                let world = environment.world_to_draw().with_context(|| format!("{task} cannot be drawn"))?;
                (world.model().clone(), sight)
            }
            (None, None) => bail!("give --model or --task"),
        };
        let [width, height] = self.size;
        let mut options = RenderOptions::of_sight(sight, width, height, Quality::Exact);
        if let Some(camera) = &self.camera {
            options.views = vec![View::Camera(camera.clone())];
        }
        if !self.group.is_empty() {
            options.geom_groups =
                std::array::from_fn(|group| self.group.iter().any(|&wanted| usize::from(wanted) == group));
        }
        let mut world = Simulation::new(&model);
        world.forward();
        Ok(Subject { world, options })
    }

    fn ask_peer(&self, options: &RenderOptions) -> anyhow::Result<Option<(String, Vec<f64>)>> {
        let Some((program, arguments)) = self.peer.split_first() else { return Ok(None) };
        let model = self.model.as_deref().and_then(|path| path.to_str()).context("--peer wants --model")?;
        let request = Request {
            model,
            camera: self.camera.as_deref(),
            geom_groups: options.geom_groups,
            width: options.width,
            height: options.height,
            repetitions: self.repetitions,
            physics_steps: self.physics_steps,
        };
        let output = Command::new(program)
            .args(arguments)
            .arg(serde_json::to_string(&request)?)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("starting the peer `{program}`"))?;
        ensure!(output.status.success(), "the peer `{program}` failed; its own message stands above");
        let text = String::from_utf8_lossy(&output.stdout);
        let answer: Answer = serde_json::from_str(text.trim())
            .with_context(|| format!("the peer `{program}` answered what cannot be read: {}", text.trim_end()))?;
        ensure!(!answer.cpu.is_empty(), "the peer `{program}` drew nothing");
        Ok(Some((answer.peer, milliseconds(&answer.cpu))))
    }
}

fn milliseconds(seconds: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = seconds.iter().map(|s| 1000.0 * s).collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn at(sorted: &[f64], share: f64) -> f64 {
    sorted.get(((sorted.len().saturating_sub(1)) as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Pictures a second of `threads` threads, each with a renderer and a world of its own, on the clock.
fn together(model: &Model, options: &RenderOptions, args: &BenchRenderArgs, threads: u16) -> Result<f64, SimError> {
    let ready = Barrier::new(usize::from(threads) + 1);
    std::thread::scope(|scope| {
        let one = || {
            let prepared = Renderer::new(model, options).map(|renderer| (renderer, Simulation::new(model)));
            let (mut renderer, mut world) = match prepared {
                Ok(prepared) => prepared,
                Err(error) => {
                    ready.wait();
                    return Err(error);
                }
            };
            world.forward();
            let mut picture = vec![0; renderer.picture_len()];
            let warmed = renderer.render(&mut world, 0, &mut picture);
            ready.wait();
            warmed?;
            for _ in 0..args.repetitions {
                (0..args.physics_steps).for_each(|_| world.step());
                renderer.render(&mut world, 0, &mut picture)?;
            }
            Ok(())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        ready.wait();
        let begun = Instant::now();
        for worker in workers {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(f64::from(threads) * f64::from(args.repetitions) / begun.elapsed().as_secs_f64())
    })
}

pub fn run(args: &BenchRenderArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let mut subject = args.subject()?;
    let peer = args.ask_peer(&subject.options)?;
    let model = subject.world.model().clone();
    let mut reference = Renderer::new(&model, &subject.options)?;
    let repetitions = args.repetitions as usize;
    let mut progress = Progress::new("picture", 2 * repetitions);
    let mut lines = Vec::new();
    for (index, quality) in [Quality::Exact, Quality::Fast].into_iter().enumerate() {
        let options = RenderOptions { quality, ..subject.options.clone() };
        let mut renderer = Renderer::new(&model, &options)?;
        let (mut picture, mut exact) = (vec![0; renderer.picture_len()], vec![0; renderer.picture_len()]);
        let (mut seconds, mut difference) = (Vec::with_capacity(repetitions), 0.0);
        // Both qualities draw the same worlds.
        subject.world.reset();
        subject.world.forward();
        for repetition in 0..WARM_UP + repetitions {
            if interrupt.is_requested() {
                return Ok(Ending::Interrupted);
            }
            let (drawn, timing) = timed(|| {
                (0..args.physics_steps).for_each(|_| subject.world.step());
                renderer.render(&mut subject.world, 0, &mut picture)
            });
            drawn?;
            if repetition >= WARM_UP {
                seconds.push(timing.cpu.as_secs_f64());
                reference.render(&mut subject.world, 0, &mut exact)?;
                difference += mean_difference(&picture, &exact) / repetitions as f64;
                progress.show(index * repetitions + repetition + 1 - WARM_UP, &quality.to_string());
            }
        }
        let ours = milliseconds(&seconds);
        let (p50, peer_p50) = (at(&ours, 0.5), peer.as_ref().map(|(_, theirs)| at(theirs, 0.5)));
        lines.push(Line {
            bench: format!("sim/render_{quality}"),
            unit: "ms",
            n: ours.len(),
            p50,
            p99: at(&ours, 0.99),
            max: at(&ours, 1.0),
            pictures_per_core_second: ours.len() as f64 / seconds.iter().sum::<f64>().max(f64::MIN_POSITIVE),
            mesh_triangles: renderer.mesh_triangles()[1],
            difference,
            backend: renderer.backend().to_owned(),
            threads: args.threads,
            pictures_per_second: args.threads.map(|threads| together(&model, &options, args, threads)).transpose()?,
            peer: peer.as_ref().map(|(name, _)| name.clone()),
            peer_p50,
            ratio: peer_p50.map(|peer| peer / p50),
        });
    }
    drop(progress);
    for line in &lines {
        let against = match (&line.peer, line.peer_p50, line.ratio) {
            (Some(peer), Some(p50), Some(ratio)) => format!("; {peer} {p50:.2} ms, ratio {ratio:.2}"),
            _ => String::new(),
        };
        let together = match (line.threads, line.pictures_per_second) {
            (Some(threads), Some(rate)) => format!("; {threads} threads {rate:.1} pictures/s on the clock"),
            _ => String::new(),
        };
        let text = format!(
            "{}: {:.2} ms (p99 {:.2}, max {:.2}), {:.1} pictures a core-second, {} mesh triangles, differs from exact by {:.2} grey levels{together}{against}\n  {}",
            line.bench,
            line.p50,
            line.p99,
            line.max,
            line.pictures_per_core_second,
            line.mesh_triangles,
            line.difference,
            line.backend
        );
        args.speech.print(line, &text)?;
    }
    Ok(Ending::Done)
}
