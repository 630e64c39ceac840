//! `tenon-train demos robomimic`.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use clap::Args;
use tenon_sim::render::Quality;
use tenon_train::demos::{RobomimicOptions, demonstrate, write_demonstrations};
use tenon_train::film::{FilmOptions, ffmpeg_is_available};
use tenon_train::interrupt::Interrupt;
use tenon_train::progress::Progress;

use crate::cli::{Common, Ending};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon-train demos robomimic --config configs/tasks/lift.toml --episodes 300 --out runs/lift/demos\n  \
    tenon-train demos robomimic --config configs/tasks/square.toml --keep-failures --seed 7 --out runs/square/demos\n  \
    tenon-train demos robomimic --config configs/tasks/lift_pixels.toml --pictures fast --videos 3 --out runs/lift_pixels/demos\n\n\
    A scripted expert with speeds, unsteadiness, pauses and ways of its own in each episode.\n\
    Writes train.npz (normalised; with pictures for tasks that are seen through cameras, 28 kB a camera and step),\n\
    normalization.npz, summary.json and, with --videos, videos/index.html.\n\
    The scenes are needed: make assets-robomimic.")]
pub struct RobomimicArgs {
    #[command(flatten)]
    common: Common,
    /// Folder to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Episodes to demonstrate; the public data sets have 300.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    episodes: u32,
    /// Seed of starts and expert.
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// Keep episodes in which the expert failed, instead of attempting them anew.
    #[arg(long)]
    keep_failures: bool,
    /// Quality of the pictures of a task that is seen through cameras, exact or fast.
    #[arg(long, value_name = "QUALITY", default_value_t = Quality::Exact)]
    pictures: Quality,
    /// Film so many of the first episodes, into videos/ of the folder.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    videos: u32,
    /// No MP4, even where there is an ffmpeg.
    #[arg(long)]
    no_mp4: bool,
}

/// Pixels of the videos.
const VIDEO_SIZE: [u32; 2] = [480, 360];

pub fn run(args: RobomimicArgs, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let config = args.common.read()?;
    let options = RobomimicOptions {
        task: config.task,
        episodes: args.episodes as usize,
        seed: args.seed,
        threads: args.common.output.threads(),
        keep_failures: args.keep_failures,
        pictures: args.pictures,
    };
    let videos = args.out.join("videos");
    let film = (args.videos > 0).then(|| FilmOptions {
        task: config.task,
        episodes: args.videos as usize,
        seed: args.seed,
        folder: &videos,
        who: "scripted expert",
        width: VIDEO_SIZE[0],
        height: VIDEO_SIZE[1],
        quality: Quality::Exact,
        camera: None,
        mp4: !args.no_mp4 && ffmpeg_is_available(),
        randomisation: None,
        pictures: None,
    });
    let begun = Instant::now();
    let mut progress = Progress::new("demonstrations", options.episodes);
    // Films take their time before the first episode is there.
    progress.show(0, &if film.is_some() { format!("{} are filmed", args.videos) } else { String::new() });
    let progress = Mutex::new((progress, 0, 0, 0));
    let report = demonstrate(options, film, &|| interrupt.is_requested(), &|steps, attempts| {
        let mut progress = progress.lock().unwrap_or_else(|e| e.into_inner());
        let (progress, episodes, sum, tried) = &mut *progress;
        (*episodes, *sum, *tried) = (*episodes + 1, *sum + steps, *tried + attempts);
        let mean = *sum as f64 / *episodes as f64;
        progress.show(*episodes, &format!("mean length {mean:.0} steps, {tried} attempts"));
    })?;
    if report.stopped {
        return Ok(Ending::Interrupted);
    }
    let film = report.film.clone();
    let summary = write_demonstrations(&args.out, options, report, begun.elapsed().as_secs_f64())?;
    let [shortest, mean, longest] = summary.steps_per_episode;
    let mut text = format!(
        "{}: {} episodes, {} steps ({shortest:.0} to {longest:.0} an episode, mean {mean:.1}); {} without success\n\
         the expert succeeded in {:.1} % of {} attempts; {:.1} s; written to {}",
        summary.task,
        summary.episodes,
        summary.frames,
        summary.failures_kept,
        100.0 * summary.expert_success,
        summary.attempts,
        summary.seconds,
        args.out.display()
    );
    if let Some(film) = film {
        text += &format!("\nopen {} in a browser: {} episodes on film", film.index.display(), film.episodes.len());
    }
    args.common.output.print(&summary, &text)?;
    Ok(Ending::Done)
}
