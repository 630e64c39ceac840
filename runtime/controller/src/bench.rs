//! `tenon bench`: the command lines of the benches; what is measured lives where it belongs.

mod chain;
mod hand_over;
mod link;
pub mod tick;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};
use tenon_policy::bench::BenchLine;
use tenon_vision::bench as vision_bench;
use tenon_vision::bench::{
    AccuracyCell, AccuracySettings, BenchSettings, FusedAccuracy, FusedSettings, PeerPicture, Timing, VisionBench,
};

pub use chain::{ChainArgs, chain};
pub use hand_over::{HandOverArgs, hand_over};
pub use link::{LinkArgs, link};
pub use tick::{TickArgs, tick};

#[derive(Debug, Clone, clap::Args)]
pub struct InferArgs {
    /// Measure the .onnx step networks in this folder instead of our own exports.
    #[arg(long)]
    pub models: Option<PathBuf>,
    /// Fewer repetitions.
    #[arg(long)]
    pub quick: bool,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// Runs `tenon bench infer`.
pub fn infer(args: &InferArgs) -> Result<ExitCode> {
    let options = tenon_policy::bench::InferOptions { models: args.models.clone(), quick: args.quick };
    // Each line is printed when it is known: the whole run takes minutes.
    tenon_policy::bench::infer(&options, |line| match (args.json, serde_json::to_string(line)) {
        (true, Ok(json)) => println!("{json}"),
        _ => println!("{line}"),
    })
    .context("measuring inference")?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Clone, clap::Args)]
pub struct VisionArgs {
    /// How exact instead of how fast: single tags by size, distance and tilt, and the fused poses of parts at rest.
    #[arg(long, conflicts_with = "pictures")]
    pub accuracy: bool,
    /// Write pictures with their truth and what is found in them into this folder instead, for another detector.
    #[arg(long, value_name = "FOLDER")]
    pub pictures: Option<PathBuf>,
    /// Fewer frames, pictures and trials.
    #[arg(long)]
    pub quick: bool,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// Runs `tenon bench vision`.
pub fn vision(args: &VisionArgs) -> Result<ExitCode> {
    match &args.pictures {
        Some(folder) => write_pictures(folder, args.quick)?,
        None if args.accuracy => accuracy(args)?,
        None => {
            let settings = if args.quick { BenchSettings::quick() } else { BenchSettings::default() };
            let table = vision_bench::speed(&settings).context("measuring the speed of vision")?;
            if args.json {
                speed_lines(&table)?.iter().for_each(|line| println!("{line}"));
            } else {
                println!("{table}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Lines in the form that all benchmarks share, with what only vision has besides; times in ms. `ratio` is of medians on the
/// clock, `busy_ratio` of medians of processor time.
fn speed_lines(table: &VisionBench) -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    let library = table.timings.first();
    for timing in &table.timings {
        let peer = library.filter(|library| library.name != timing.name);
        let mut line = line_of(timing, peer)?;
        if timing.name == "vision/track" {
            line["missed"] = json!(table.missed);
            line["found_by_library"] = json!(table.found_by_library);
            line["worst_corner_px"] = json!(table.worst_corner_px);
            line["searched_share"] = json!(table.searched_share);
        }
        lines.push(line);
    }
    if let Some(cameras) = &table.three_cameras {
        let mut line = line_of(&cameras.frame_to_pose, None)?;
        let Value::Object(figures) = serde_json::to_value(cameras)? else { return Ok(lines) };
        for (key, figure) in figures.into_iter().filter(|(key, _)| key != "frame_to_pose") {
            line[&key] = figure;
        }
        lines.push(line);
    }
    Ok(lines)
}

fn line_of(timing: &Timing, peer: Option<&Timing>) -> Result<Value> {
    let line = BenchLine {
        bench: timing.name.clone(),
        unit: "ms",
        n: timing.count,
        p50: timing.p50_ms,
        p99: timing.p99_ms,
        max: timing.max_ms,
        peer: peer.map(|peer| peer.name.clone()),
        peer_p50: peer.map(|peer| peer.p50_ms),
        ratio: peer.map(|peer| peer.p50_ms / timing.p50_ms),
    };
    let mut line = serde_json::to_value(line)?;
    line["busy_p50"] = json!(timing.busy_p50_ms);
    line["peer_busy_p50"] = json!(peer.map(|peer| peer.busy_p50_ms));
    line["busy_ratio"] = json!(peer.map(|peer| peer.busy_p50_ms / timing.busy_p50_ms));
    Ok(line)
}

/// The two tables of `tenon bench vision --accuracy`.
fn accuracy(args: &VisionArgs) -> Result<()> {
    let (mut tags, mut parts) = (AccuracySettings::default(), FusedSettings::default());
    if args.quick {
        (tags.pictures, tags.flip_trials, parts.arrangements) = (2, 1000, 4);
    }
    let cells = vision_bench::accuracy(&tags).context("measuring the accuracy of single tags")?;
    print_table(args.json, "tag", AccuracyCell::HEADING, &cells)?;
    for (title, rows) in vision_bench::fused_tables(&parts).context("measuring the accuracy of fused poses")? {
        print_table(args.json, title, FusedAccuracy::HEADING, &rows)?;
    }
    Ok(())
}

fn print_table<T: Serialize + std::fmt::Display>(as_json: bool, name: &str, heading: &str, rows: &[T]) -> Result<()> {
    if !as_json {
        println!("{name}\n{heading}");
    }
    for row in rows {
        if as_json {
            let mut line = serde_json::to_value(row)?;
            line["table"] = json!(name);
            println!("{line}");
        } else {
            println!("{row}");
        }
    }
    Ok(())
}

/// `NNN.pgm` and `ours.json`, which `tests/interop/tags.py` reads.
fn write_pictures(folder: &Path, quick: bool) -> Result<()> {
    let pictures = vision_bench::peer_pictures(&BenchSettings::default(), if quick { 6 } else { 30 });
    let pictures = pictures.context("rendering pictures")?;
    fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
    for (number, PeerPicture { image, .. }) in pictures.pictures.iter().enumerate() {
        let path = folder.join(format!("{number:03}.pgm"));
        let mut bytes = format!("P5\n{} {}\n255\n", image.width(), image.height()).into_bytes();
        bytes.extend_from_slice(image.pixels());
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
    }
    let path = folder.join("ours.json");
    let text = serde_json::to_string(&pictures).context("the pictures' lists are plain data")?;
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_vision_have_the_shared_form_and_compare_with_the_library() {
        let timing = |name: &str, p50_ms: f64| Timing {
            name: name.to_owned(),
            count: 3,
            p50_ms,
            p99_ms: 2.0 * p50_ms,
            max_ms: 3.0 * p50_ms,
            busy_p50_ms: 0.5 * p50_ms,
        };
        let table = VisionBench {
            width: 1280,
            height: 720,
            processors: 2,
            tags_in_view: 14.0,
            timings: vec![timing("library", 60.0), timing("vision/full", 20.0), timing("vision/track", 3.0)],
            full_over_library: 3.0,
            track_over_full: 20.0 / 3.0,
            track_over_library: 20.0,
            missed: 1,
            found_by_library: 400,
            searched_share: 0.1,
            worst_corner_px: 0.001,
            three_cameras: Some(vision_bench::ThreeCameras {
                frame_to_pose: timing("vision/three_cameras", 4.0),
                frames: 3,
                dropped: 0,
                processor_ms_per_frame: 7.0,
                tracking_ms_per_frame: 3.0,
                solving_ms_per_frame: 0.5,
                slices_per_s: 7.0,
                tags_per_frame: 13.0,
                parts_ready: 5,
            }),
        };
        let lines = speed_lines(&table).unwrap();
        let names: Vec<&str> = lines.iter().map(|line| line["bench"].as_str().unwrap()).collect();
        assert_eq!(names, ["library", "vision/full", "vision/track", "vision/three_cameras"]);
        for line in &lines {
            for key in ["unit", "n", "p50", "p99", "max", "peer", "peer_p50", "ratio"] {
                assert!(line.get(key).is_some(), "{key} is missing in {line}");
            }
        }
        assert_eq!((lines[1]["ratio"].as_f64(), lines[2]["busy_ratio"].as_f64()), (Some(3.0), Some(20.0)));
        assert!(lines[0]["ratio"].is_null() && lines[3]["dropped"] == 0 && lines[3]["parts_ready"] == 5);
    }
}
