//! A report in words.

use crate::report::{HypothesisReport, PartReport, PhotoReport, PoseReport, TagReport};
use std::io::{self, Write};

/// Prints `report` for a person to read.
pub fn print(out: &mut impl Write, report: &PhotoReport) -> io::Result<()> {
    writeln!(out, "{}  {}x{} px", report.file, report.width_px, report.height_px)?;
    let ([fx, fy], [cx, cy]) = (report.camera.focal_px, report.camera.principal_px);
    let lens = report.camera.distortion.map_or("no distortion".to_owned(), |d| format!("distortion {d:?}"));
    writeln!(out, "  camera model: f = ({fx:.2}, {fy:.2}) px, principal point ({cx:.2}, {cy:.2}) px, {lens}")?;
    for assumption in &report.camera.assumptions {
        writeln!(out, "    ASSUMED: {assumption}")?;
    }
    if let Some(no_tags) = &report.no_tags {
        writeln!(out, "  NO TAGS FOUND. Tried:")?;
        for line in &no_tags.tried {
            writeln!(out, "    - {line}")?;
        }
        writeln!(out, "  What to change:")?;
        for line in &no_tags.advice {
            writeln!(out, "    - {line}")?;
        }
        return Ok(());
    }
    let dropped = match report.detector.tags_dropped {
        0 => String::new(),
        dropped => format!(", {dropped} dropped by the limits given"),
    };
    let (count, family) = (report.tags.len(), report.detector.family);
    let plural = if count == 1 { "" } else { "s" };
    writeln!(out, "  {count} tag{plural} of family {family}{dropped}")?;
    for tag in &report.tags {
        print_tag(out, tag)?;
    }
    print_board(out, report)?;
    for part in &report.parts {
        print_part(out, report, part)?;
    }
    if let Some(picture) = &report.picture {
        writeln!(out, "  picture with tags drawn: {picture}")?;
    }
    Ok(())
}

fn print_tag(out: &mut impl Write, tag: &TagReport) -> io::Result<()> {
    let owner = tag.belongs_to.as_deref().unwrap_or("unknown to the layout");
    let size = tag.size_m.map_or(String::new(), |size| format!(", {:.1} mm", size * 1e3));
    writeln!(
        out,
        "  tag {} ({owner}{size}): hamming {}, decision margin {:.1}, shortest edge {:.1} px",
        tag.id, tag.hamming, tag.decision_margin, tag.shortest_edge_px
    )?;
    write!(out, "    corners px")?;
    for (i, [x, y]) in tag.corners_px.iter().enumerate() {
        write!(out, "  {i}: ({x:.3}, {y:.3})")?;
    }
    writeln!(out)?;
    if let Some(note) = &tag.note {
        writeln!(out, "    {note}")?;
    }
    let Some(pose) = &tag.pose else { return Ok(()) };
    for (name, hypothesis) in ["A", "B"].into_iter().zip(&pose.hypotheses) {
        print_hypothesis(out, name, hypothesis)?;
    }
    let ratio = pose.ratio.map_or("infinite".to_owned(), |ratio| format!("{ratio:.2}"));
    let verdict = if pose.ambiguous { "AMBIGUOUS orientation, this tag alone cannot decide" } else { "A holds" };
    writeln!(out, "    B/A error ratio {ratio}, {:.1} deg apart: {verdict}", pose.apart_deg)
}

fn print_hypothesis(out: &mut impl Write, name: &str, hypothesis: &HypothesisReport) -> io::Result<()> {
    let kind = if hypothesis.is_minimum { "" } else { " (mirror pose, not a minimum)" };
    let error = hypothesis.reprojection_rms_px;
    writeln!(out, "    pose {name} in camera: {}, reprojection {error:.3} px{kind}", short(&hypothesis.in_camera))
}

fn print_board(out: &mut impl Write, report: &PhotoReport) -> io::Result<()> {
    let board = &report.board;
    let (Some(in_april), Some(in_robot), Some(rms)) =
        (&board.camera_in_april, &board.camera_in_robot, board.residual_rms_px)
    else {
        let reason = board.error.as_deref().unwrap_or("unknown reason");
        return writeln!(out, "  NO CAMERA POSE: {reason}");
    };
    let ids: Vec<String> = board.tags.iter().map(|tag| tag.id.to_string()).collect();
    writeln!(out, "  camera pose from the base board (tags {}, {} corners together)", ids.join(", "), 4 * ids.len())?;
    writeln!(out, "    in april: {}", long(in_april))?;
    writeln!(
        out,
        "    in robot base, variant {} ({}): {}",
        report.frame_variant,
        report.frame_meaning,
        long(in_robot)
    )?;
    write!(out, "    residual {rms:.3} px RMS;")?;
    for tag in &board.tags {
        write!(out, " tag {}: {:.3} px", tag.id, tag.rms_px)?;
    }
    writeln!(out)?;
    if let Some([x, y, z]) = board.position_std_m.map(|std| std.map(|v| v * 1e3)) {
        writeln!(
            out,
            "    1 sigma of the position from that residual: ({x:.1}, {y:.1}, {z:.1}) mm, intrinsics taken as true"
        )?;
    }
    if board.ambiguous {
        writeln!(out, "    AMBIGUOUS: another orientation fits almost as well; show more tags or come nearer")?;
    }
    Ok(())
}

fn print_part(out: &mut impl Write, report: &PhotoReport, part: &PartReport) -> io::Result<()> {
    let ids: Vec<String> = part.tag_ids.iter().map(u32::to_string).collect();
    writeln!(out, "  part {} (tags {})", part.name, ids.join(", "))?;
    if let Some(error) = &part.error {
        return writeln!(out, "    no pose: {error}");
    }
    for (pose, frame) in [
        (&part.in_april, "april".to_owned()),
        (&part.in_robot, format!("robot base, variant {}", report.frame_variant)),
    ] {
        match pose {
            Some(pose) => writeln!(out, "    in {frame}: {}", long(pose))?,
            None => writeln!(out, "    in {frame}: unknown without the camera pose")?,
        }
    }
    if let (None, Some(pose)) = (&part.in_april, &part.in_camera) {
        writeln!(out, "    in camera: {}", long(pose))?;
    }
    if let Some(rms) = part.residual_rms_px {
        let warning = if part.ambiguous { "; AMBIGUOUS orientation, the other one fits almost as well" } else { "" };
        writeln!(out, "    residual {rms:.3} px RMS{warning}")?;
    }
    Ok(())
}

fn short(pose: &PoseReport) -> String {
    let ([x, y, z], [a, b, c]) = (pose.position_m, pose.euler_xyz_deg);
    format!("({x:.4}, {y:.4}, {z:.4}) m, Euler xyz ({a:.1}, {b:.1}, {c:.1}) deg")
}

fn long(pose: &PoseReport) -> String {
    let [qx, qy, qz, qw] = pose.quat_xyzw;
    format!("{}, quat xyzw ({qx:.4}, {qy:.4}, {qz:.4}, {qw:.4})", short(pose))
}
