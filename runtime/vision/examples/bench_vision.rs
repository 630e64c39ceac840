//! Prints what `tenon_vision::bench` measures: `bench_vision [speed|accuracy|library-accuracy] [--json]`.

use std::process::ExitCode;
use tenon_vision::VisionError;
use tenon_vision::bench::{AccuracySettings, BenchSettings, VisionBench, accuracy, speed};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let what = arguments.iter().find(|argument| !argument.starts_with("--")).map_or("speed", String::as_str);
    let done = match what {
        "speed" => speed(&BenchSettings::default()).map(|table| print_speed(&table, json)),
        "accuracy" => print_accuracy(&AccuracySettings::default(), json),
        "library-accuracy" => print_accuracy(&AccuracySettings { refine_corners: false, ..Default::default() }, json),
        other => {
            eprintln!("unknown measurement {other}: name speed, accuracy or library-accuracy");
            return ExitCode::FAILURE;
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn print_json(table: &impl serde::Serialize) {
    println!("{}", serde_json::to_string_pretty(table).expect("a table of numbers is JSON"));
}

fn print_speed(table: &VisionBench, json: bool) {
    if json {
        return print_json(table);
    }
    println!(
        "{} x {} px, {} processors, {:.1} tags in view",
        table.width, table.height, table.processors, table.tags_in_view
    );
    let cameras = table.three_cameras.iter().map(|cameras| &cameras.frame_to_pose);
    for timing in table.timings.iter().chain(cameras) {
        let (name, count) = (&timing.name, timing.count);
        let (p50, p99, max) = (timing.p50_ms, timing.p99_ms, timing.max_ms);
        println!("{name:22} {count:5} times  p50 {p50:8.3}  p99 {p99:8.3}  max {max:8.3} ms");
    }
    println!("full search over the library {:.2}x", table.full_over_library);
    println!(
        "tracking over the full search {:.1}x, over the library {:.1}x",
        table.track_over_full, table.track_over_library
    );
    println!("tracking searched {:.1} % of a frame", 100.0 * table.searched_share);
    println!("missed {} of {}, worst corner {:.4} px", table.missed, table.found_by_library, table.worst_corner_px);
    if let Some(cameras) = &table.three_cameras {
        let (dropped, slices) = (cameras.dropped, cameras.slices_per_s);
        println!("three cameras: {dropped} frames dropped, {slices:.1} slices a second and camera");
        println!("tracking and poses keep a processor busy for {:.2} ms a frame", cameras.busy_ms_per_frame);
    }
}

fn print_accuracy(settings: &AccuracySettings, json: bool) -> Result<(), VisionError> {
    let table = accuracy(settings)?;
    if json {
        print_json(&table);
        return Ok(());
    }
    println!(
        "size mm  dist m  tilt   edge px  recall (library)  corner px (library)  pos mm (/bound)  rot deg (/bound)  \
         flips/100k (unflagged)"
    );
    for cell in &table {
        println!(
            "{:7.1} {:7.2} {:5.0} {:9.1} {:7.3} ({:.3}) {:13.4} ({:.4}) {:10.3} ({:.2}) {:11.3} ({:.2}) {:11.0} ({:.0})",
            1e3 * cell.size_m,
            cell.distance_m,
            cell.tilt_deg,
            cell.edge_px,
            cell.recall,
            cell.library_recall,
            cell.corner_px,
            cell.library_corner_px,
            cell.position_mm,
            cell.position_over_bound,
            cell.rotation_deg,
            cell.rotation_over_bound,
            cell.flips_per_100k,
            cell.unflagged_flips_per_100k,
        );
    }
    Ok(())
}
