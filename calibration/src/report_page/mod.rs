//! `report.html` of a version: what was measured, with intervals, residuals, coverage, proof and pictures, in one file that needs no
//! network and no other file. It is written into the draft before the manifest, from what the steps left there.

mod html;
mod svg;

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};
use tenon_core::config::rig::{CameraRecord, Delay, RigCalibration};

use crate::rig::{Draft, Ended, Step, StoreError};
use html::{Table, data_uri, escape, page};

/// Name of the file in a version's folder.
pub const REPORT: &str = "report.html";
/// Pictures are shown this wide, px; the files beside the report have all their pixels.
const SHOWN_PX: u32 = 640;
/// More pictures than this make a page slow.
const MAX_PICTURES: usize = 16;

/// Writes the report of a draft.
pub fn write(draft: &mut Draft, date: &str) -> Result<(), StoreError> {
    let steps: Vec<(Step, Option<Ended>)> =
        Step::ALL.into_iter().map(|step| (step, draft.steps().get(&step).cloned())).collect();
    let text = render(draft.folder(), draft.calibration(), &steps, date);
    draft.write_file(REPORT, text.as_bytes())
}

/// The page. `folder`: where the steps left their results and pictures; what is not there is not shown.
pub fn render(folder: &Path, known: &RigCalibration, steps: &[(Step, Option<Ended>)], date: &str) -> String {
    let mut body = String::new();
    let title = format!("Calibration of rig {}", known.rig);
    let _ = write!(body, "<h1>{}</h1><p>{} · {}</p>", escape(&title), escape(date), escape(&known.written_by));
    body += &verdict(known);
    body += &progress(steps);
    body += &cameras(known);
    body += &robot(known);
    for camera in &known.camera {
        if let Some(result) = read(folder, &format!("intrinsics-{}.json", camera.serial)) {
            body += &intrinsics(camera, &result);
        }
    }
    if let Some(result) = read(folder, "place.json") {
        body += &place(&result);
    }
    if let Some(result) = read(folder, "proof.json") {
        body += &proof(&result);
    }
    body += &latency(known);
    body += &noise(known);
    body += &pictures(folder);
    body += &files(folder);
    page(&title, &body)
}

fn read(folder: &Path, name: &str) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(folder.join(name)).ok()?).ok()
}

fn verdict(known: &RigCalibration) -> String {
    match &known.proof {
        Some(proof) if proof.passed => format!(
            "<p class=ok>Proof passed: 95 % of {} held-out views within {:.2} mm and {:.2}°.</p>",
            proof.views,
            1e3 * proof.position_p95_m,
            proof.rotation_p95_rad.to_degrees()
        ),
        Some(proof) => format!(
            "<p class=bad>Proof failed: 95 % of {} held-out views within {:.2} mm and {:.2}°; the limits are {:.2} mm and {:.2}°.</p>",
            proof.views,
            1e3 * proof.position_p95_m,
            proof.rotation_p95_rad.to_degrees(),
            1e3 * proof.limit_position_m,
            proof.limit_rotation_rad.to_degrees()
        ),
        None => "<p class=bad>No proof: nothing says how wrong this calibration may be.</p>".to_owned(),
    }
}

fn progress(steps: &[(Step, Option<Ended>)]) -> String {
    let mut table = Table::new("Steps of this version", &["step", "outcome", "date"]);
    for (step, how) in steps {
        let (outcome, date) = match how {
            Some(Ended::Done { date }) => ("done".to_owned(), date.as_str()),
            Some(Ended::Skipped { date, reason }) => (format!("left out: {reason}"), date.as_str()),
            None => ("taken over from before, or not done".to_owned(), ""),
        };
        table.row(&[step.title(), &outcome, date]);
    }
    table.html()
}

fn cameras(known: &RigCalibration) -> String {
    let mut out = String::new();
    let mut table = Table::new("Cameras", &["name", "serial", "resolution", "intrinsics", "date"]);
    for camera in &known.camera {
        let [width, height] = camera.resolution_px;
        let source = format!("{:?}", camera.intrinsics.source).to_lowercase();
        table.row(&[&camera.name, &camera.serial, &format!("{width}×{height}"), &source, &camera.intrinsics.date]);
    }
    out += &table.html();
    let names = ["fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3"];
    let mut table = Table::new("Intrinsics, ± half the 95 % interval", &["camera", "parameter", "value", "±"]);
    for camera in &known.camera {
        let i = &camera.intrinsics;
        let values = i.focal_px.iter().chain(&i.principal_px).chain(&i.distortion);
        for (k, (name, value)) in names.iter().zip(values).enumerate() {
            let half = i.sigma.map_or("unknown".to_owned(), |sigma| format!("{:.5}", 1.96 * sigma[k]));
            table.row(&[&camera.name, name, &format!("{value:.5}"), &half]);
        }
    }
    out += &table.html();
    let mut table = Table::new(
        "Places in the frame of the base board, ± half the 95 % interval",
        &["camera", "", "value", "±", "views", "date"],
    );
    for camera in &known.camera {
        let Some(place) = &camera.place else { continue };
        let views = place.views.to_string();
        let half = |k: usize| 1.96 * place.covariance[k][k].max(0.0).sqrt();
        for (k, axis) in ["x", "y", "z"].iter().enumerate() {
            let (value, half) = (format!("{:.5} m", place.position_m[k]), format!("{:.5} m", half(k)));
            table.row(&[&camera.name, axis, &value, &half, &views, &place.date]);
        }
        let (roll, pitch, yaw) = place.T_april_camera().rotation.euler_angles();
        for (k, (axis, angle)) in [("roll", roll), ("pitch", pitch), ("yaw", yaw)].into_iter().enumerate() {
            let half = format!("{:.4}°", half(3 + k).to_degrees());
            table.row(&[&camera.name, axis, &format!("{:.4}°", angle.to_degrees()), &half, &views, &place.date]);
        }
    }
    out + &table.html()
}

fn robot(known: &RigCalibration) -> String {
    let Some(board) = &known.board else {
        return "<h2>Base board in the robot's base</h2><p>Not measured.</p>".to_owned();
    };
    let title = format!("Base board in the robot's base ({:?}, {})", board.method, board.date);
    let mut table = Table::new(&title, &["", "value", "± half the 95 % interval"]);
    for (k, axis) in ["x", "y", "z"].iter().enumerate() {
        let half =
            board.covariance.map_or("unknown".to_owned(), |c| format!("{:.5} m", 1.96 * c[k][k].max(0.0).sqrt()));
        table.row(&[axis, &format!("{:.5} m", board.position_m[k]), &half]);
    }
    table.html()
}

/// Names and numbers of a list of views.
fn views_of<'a>(result: &'a Value, number: &str) -> Vec<(&'a str, f64)> {
    let views = result["views"].as_array().map_or(&[][..], Vec::as_slice);
    views.iter().filter_map(|view| Some((view["name"].as_str()?, view[number].as_f64()?))).collect()
}

fn intrinsics(camera: &CameraRecord, result: &Value) -> String {
    let mut out = format!("<h2>Views of the board: {} ({})</h2>", escape(&camera.name), escape(&camera.serial));
    let rms = result["rms_px"].as_f64().unwrap_or(f64::NAN);
    let sigma = result["sigma_px"].as_f64().unwrap_or(f64::NAN);
    let _ = write!(out, "<p>Corners lie {rms:.3} px from the solution; noise of a coordinate {sigma:.3} px.</p>");
    out += &svg::bars("distance of the corners from the solution, px", &views_of(result, "rms_px"), None);
    out += &svg::cells("points seen in each part of the picture", &result["coverage"]["points_in_cells"]);
    let dropped = result["dropped"].as_array().map_or(&[][..], Vec::as_slice);
    for view in dropped {
        let name = view["name"].as_str().unwrap_or_default();
        let reason = view["reason"].as_str().unwrap_or_default();
        let _ = write!(out, "<p class=bad>{} was left out: {}</p>", escape(name), escape(reason));
    }
    for note in result["notes"].as_array().map_or(&[][..], Vec::as_slice) {
        let _ = write!(out, "<p>{}</p>", escape(note.as_str().unwrap_or_default()));
    }
    out
}

fn findings(result: &Value) -> String {
    let mut out = String::from("<ul>");
    for finding in result["findings"].as_array().map_or(&[][..], Vec::as_slice) {
        let class = match finding["grade"].as_str() {
            Some("pass") => "ok",
            Some("warn") => "warn",
            _ => "bad",
        };
        let _ = write!(out, "<li class={class}>{}</li>", escape(finding["text"].as_str().unwrap_or_default()));
    }
    out + "</ul>"
}

fn place(result: &Value) -> String {
    let mut out = format!("<h2>Camera to base</h2>{}", findings(result));
    out += &svg::bars("distance of a picture's corners from the solution, px", &views_of(result, "rms_px"), Some(0.5));
    out
}

fn proof(result: &Value) -> String {
    let mut out = format!("<h2>Proof on held-out views</h2>{}", findings(result));
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let limit_m = number(&result["limits"]["position_m"]);
    let _ = write!(out, "<p>Limits of {}.</p>", escape(result["limits_of"].as_str().unwrap_or("robot.toml")));
    let views = result["views"].as_array().map_or(&[][..], Vec::as_slice);
    let points: Vec<svg::Point> = views
        .iter()
        .map(|view| svg::Point {
            name: view["name"].as_str().unwrap_or_default(),
            place_m: [number(&view["place_m"][0]), number(&view["place_m"][1])],
            error_m: number(&view["position_m"]),
        })
        .collect();
    out += &svg::workspace(&points, limit_m);
    let mut table = Table::new("The ten worst views", &["view", "position", "rotation"]);
    for view in views.iter().take(10) {
        let (m, rad) = (number(&view["position_m"]), number(&view["rotation_rad"]));
        let name = view["name"].as_str().unwrap_or_default();
        table.row(&[name, &format!("{:.2} mm", 1e3 * m), &format!("{:.2}°", rad.to_degrees())]);
    }
    out + &table.html()
}

fn latency(known: &RigCalibration) -> String {
    let Some(record) = &known.latency else { return "<h2>Latency</h2><p>Not measured.</p>".to_owned() };
    let title = format!("Latency ({})", record.date);
    let mut table = Table::new(&title, &["of", "median", "95 % below", "largest", "standard deviation", "stretches"]);
    let mut row = |name: &str, delay: &Delay| {
        let [p50, p95, max, std] =
            [delay.p50_s, delay.p95_s, delay.max_s, delay.std_s].map(|s| format!("{:.1} ms", 1e3 * s));
        table.row(&[name, &p50, &p95, &max, &std, &delay.samples.to_string()]);
    };
    record.camera.iter().for_each(|camera| row(&format!("camera {}", camera.serial), &camera.delay));
    for (name, delay) in [("arm", &record.arm), ("gripper", &record.gripper), ("link", &record.link)] {
        delay.iter().for_each(|delay| row(name, delay));
    }
    table.html()
}

fn noise(known: &RigCalibration) -> String {
    if known.noise.is_empty() {
        return "<h2>Noise at rest</h2><p>Not measured.</p>".to_owned();
    }
    let columns = ["part", "poses", "x, y, z (mm)", "about x, y, z (degrees)", "date"];
    let mut table = Table::new("Noise at rest, standard deviations", &columns);
    for record in &known.noise {
        let [x, y, z] = record.position_std_m.map(|v| 1e3 * v);
        let [a, b, c] = record.rotation_std_rad.map(f64::to_degrees);
        let (position, rotation) = (format!("{x:.3}, {y:.3}, {z:.3}"), format!("{a:.3}, {b:.3}, {c:.3}"));
        table.row(&[&record.part, &record.samples.to_string(), &position, &rotation, &record.date]);
    }
    table.html()
}

/// Pictures of the steps, and the first of each camera's views of the board.
fn pictures(folder: &Path) -> String {
    let mut files = Vec::new();
    let mut entries: Vec<_> =
        std::fs::read_dir(folder.join("pictures")).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())).collect();
    entries.sort();
    for path in entries {
        let first = if path.is_dir() { path.join("0001.png") } else { path };
        if first.extension().is_some_and(|e| e == "png") && first.is_file() {
            files.push(first);
        }
    }
    let mut out = String::from("<h2>Pictures</h2>");
    for file in files.iter().take(MAX_PICTURES) {
        let Some(uri) = data_uri(file, SHOWN_PX) else { continue };
        let name = file.strip_prefix(folder).unwrap_or(file).display().to_string();
        let _ =
            write!(out, "<figure><img alt=\"{0}\" src=\"{uri}\"><figcaption>{0}</figcaption></figure>", escape(&name));
    }
    out
}

/// Results with their hashes; the manifest has those of all files.
fn files(folder: &Path) -> String {
    let mut table = Table::new("Results in this folder", &["file", "SHA-256"]);
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<_> = entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_file()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || name == REPORT {
            continue;
        }
        if let Ok(bytes) = std::fs::read(&path) {
            let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            table.row(&[&name, &hash]);
        }
    }
    table.html()
}
