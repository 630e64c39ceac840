//! `tenon-train watch`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use tenon_core::config::TaskConfig;
use tenon_core::diffusion::StepNoise;
use tenon_core::pictures::PicturesSeen;
use tenon_core::spec::PolicySpec;
use tenon_core::task::TaskName;
use tenon_policy::Bundle;
use tenon_sim::render::Quality;
use tenon_train::checkpoint::Checkpoint;
use tenon_train::device::Choice;
use tenon_train::environments::pictures_seen;
use tenon_train::evaluate::{ChunkSource, PolicyChunks};
use tenon_train::film::{FilmOptions, RandomChunks, ffmpeg_is_available, film, random_spec};
use tenon_train::interrupt::Interrupt;
use tenon_train::progress::Progress;
use tenon_train::run_dir::last_checkpoint;
use tenon_train::sampling::{ChunkMode, PretrainedWeights, TrainedPolicy};
use tenon_train::workers::Workers;

use super::evaluate::evaluation_noise;
use super::export::bundle_chunks;
use super::{DeviceArg, Ending, Output, config_of, look};

/// Seed where no configuration says one.
const SEED: u64 = 1000;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon-train watch --checkpoint runs/finetune --episodes 3 --out videos/avoid_m1\n  \
    tenon-train watch --bundle bundles/avoid_m1 --out videos/bundle --size 640x480 --json\n  \
    tenon-train watch --bundle bundles/avoid_m1 --denoising-steps 5 --out videos/quick\n  \
    tenon-train watch --task hopper --random --out videos/hopper\n\n\
    Writes an animated PNG for each episode (and an MP4 where an ffmpeg program is there), and index.html with all of\n\
    them. Episodes are those of `tenon-train evaluate` with the same seed. Drawing needs an OpenGL library: the Debian\n\
    packages libegl1 libegl-mesa0 libgl1-mesa-dri, or libosmesa6; no display and no card. TENON_GL=egl or osmesa asks for\n\
    one of them, TENON_FFMPEG names another ffmpeg.")]
pub struct WatchArgs {
    #[command(flatten)]
    whose: Whose,
    /// Sample a bundle's chunks in so many steps, of those that it allows, instead of the usual number.
    #[arg(long, value_name = "N", requires = "bundle", conflicts_with_all = ["checkpoint", "task", "random"])]
    denoising_steps: Option<usize>,
    /// Episodes.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    episodes: u16,
    /// Seed [default: evaluate.seed of the configuration, else 1000].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Folder of the videos; those of an earlier call with the same numbers are replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Size of the pictures, pixels: even numbers.
    #[arg(long, value_name = "WxH", default_value = "480x360", value_parser = size)]
    size: [u32; 2],
    /// exact: as MuJoCo draws; fast: without shadows and reflections.
    #[arg(long, default_value_t = Quality::Exact)]
    quality: Quality,
    /// Quality of what a policy that sees pictures sees [default: what it saw in training, where checkpoint or bundle records
    /// it, else exact].
    #[arg(long, value_name = "QUALITY")]
    pictures: Option<Quality>,
    /// Another camera of the scene.
    #[arg(long, value_name = "NAME")]
    camera: Option<String>,
    /// No MP4, even where there is an ffmpeg.
    #[arg(long)]
    no_mp4: bool,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Whose {
    /// Folder of a run (its last checkpoint), or a checkpoint.
    #[arg(long, value_name = "RUN|FILE", conflicts_with_all = ["bundle", "random", "task"])]
    checkpoint: Option<PathBuf>,
    /// Policy bundle, run by the default ONNX engine.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["random", "task"])]
    bundle: Option<PathBuf>,
    /// Task to watch without a policy, with --random.
    #[arg(long, value_name = "NAME", requires = "random", value_parser = task)]
    task: Option<TaskName>,
    /// Random actions.
    #[arg(long, requires = "task")]
    random: bool,
}

pub(super) fn task(name: &str) -> Result<TaskName, String> {
    TaskName::from_name(name).ok_or_else(|| format!("one of {}", TaskName::ALL.map(TaskName::as_str).join(", ")))
}

pub(super) fn size(text: &str) -> Result<[u32; 2], String> {
    let side = |text: &str| text.parse().ok().filter(|side: &u32| (16..=4096).contains(side) && side.is_multiple_of(2));
    text.split_once('x')
        .and_then(|(width, height)| Some([side(width)?, side(height)?]))
        .ok_or_else(|| "give WIDTHxHEIGHT, even numbers from 16 to 4096, e.g. 480x360".into())
}

pub fn run(args: WatchArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    if let Some(path) = &args.whose.checkpoint {
        let file = if path.is_dir() { last_checkpoint(path)? } else { path.clone() };
        let checkpoint = Checkpoint::read(&file)?;
        let config = config_of(&checkpoint)?;
        let workers = Workers::new(args.device.compute(&args.output)?)?;
        let policy =
            TrainedPolicy::of(&checkpoint, PretrainedWeights::of_evaluation(&config), config.policy.noise_clip)?;
        let policy = policy.on(workers.device());
        let mode = ChunkMode::evaluation(policy.as_ref());
        let mut source = PolicyChunks::new(policy.as_ref(), &workers, mode, 1);
        let (spec, seen) = (&checkpoint.header.run.policy, pictures_seen(&checkpoint.header.run)?);
        let who = Who { name: path.display().to_string(), task: config.task, config: Some(config), seen };
        return shoot(&args, &mut source, spec, &who, interrupt);
    }
    if let Some(folder) = &args.whose.bundle {
        let bundle = Bundle::open(folder)?;
        let (config, task) = config_of_bundle(&bundle, folder)?;
        ensure!(args.device.device == Choice::Cpu, "a bundle runs on its ONNX engine: leave --device out");
        let mut source = bundle_chunks(&bundle, StepNoise::Evaluation, args.denoising_steps)?;
        let seen = bundle.spec().pictures.clone();
        let who = Who { name: folder.display().to_string(), task, config, seen };
        return shoot(&args, &mut source, bundle.spec(), &who, interrupt);
    }
    match args.whose.task {
        Some(task) if args.whose.random => {
            let who = Who { name: "random actions".into(), task, config: None, seen: None };
            shoot(&args, &mut RandomChunks, &random_spec(task)?, &who, interrupt)
        }
        _ => bail!("give --checkpoint, --bundle, or --task with --random"),
    }
}

/// The task of a bundle, and the configuration that it was trained with, where this release reads it.
fn config_of_bundle(bundle: &Bundle, folder: &Path) -> anyhow::Result<(Option<TaskConfig>, TaskName)> {
    let name = &bundle.spec().task;
    let task = TaskName::from_name(name).with_context(|| {
        format!("{} is for the task \"{name}\", which this release does not know", folder.display())
    })?;
    Ok((toml::from_str(&bundle.manifest().provenance.config).ok(), task))
}

/// Whose episodes are filmed.
struct Who {
    name: String,
    task: TaskName,
    config: Option<TaskConfig>,
    /// What is known of the pictures that the policy saw.
    seen: Option<PicturesSeen>,
}

fn shoot(
    args: &WatchArgs,
    source: &mut dyn ChunkSource,
    spec: &PolicySpec,
    who: &Who,
    interrupt: &Interrupt,
) -> anyhow::Result<Ending> {
    let (task, config) = (who.task, who.config.as_ref());
    // Random actions follow from no pictures.
    let sees = !args.whose.random;
    ensure!(sees || args.pictures.is_none(), "--pictures: random actions follow from no pictures");
    let look = match sees {
        true => look(task, args.pictures, who.seen.as_ref(), Path::new(&who.name))?,
        false => None,
    };
    let randomisation = config.map(evaluation_noise).transpose()?.flatten();
    let mp4 = !args.no_mp4 && ffmpeg_is_available();
    if !mp4 && !args.no_mp4 {
        eprintln!("no ffmpeg was found: only animated PNGs are written (install ffmpeg for MP4)");
    }
    let episodes = usize::from(args.episodes);
    let options = FilmOptions {
        task,
        episodes,
        seed: args.seed.or(config.map(|c| c.evaluate.seed)).unwrap_or(SEED),
        folder: &args.out,
        who: &who.name,
        width: args.size[0],
        height: args.size[1],
        quality: args.quality,
        camera: args.camera.as_deref(),
        mp4,
        randomisation: randomisation.as_ref(),
        pictures: look.as_ref(),
    };
    let stop = || interrupt.is_requested();
    let mut progress = Progress::new("control step", episodes * task.episode_steps());
    let mut show = |episode: usize, steps: usize| {
        progress.show(episode * task.episode_steps() + steps, &format!("episode {} of {episodes}", episode + 1));
    };
    let report = film(source, spec, options, &stop, &mut show)?;
    drop(progress);
    let Some(report) = report else { return Ok(Ending::Interrupted) };
    args.output.print(&report, &report.describe())?;
    Ok(Ending::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_two_even_numbers() {
        assert_eq!(size("480x360"), Ok([480, 360]));
        for bad in ["", "480", "480x", "481x360", "8x8", "9000x100", "480x360x3", "-2x16"] {
            assert!(size(bad).unwrap_err().contains("480x360"), "{bad}");
        }
    }
}
