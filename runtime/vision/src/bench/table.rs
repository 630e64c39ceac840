//! Measurements as text for people.

use super::{AccuracyCell, FusedAccuracy, ThreeCameras, Timing, VisionBench};
use std::fmt;

/// Processors the goal is stated for, and frames a second of three cameras.
const PROCESSORS: f64 = 2.0;
const FRAMES_PER_S: f64 = 90.0;

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, count, p50_ms, p99_ms, max_ms, busy_p50_ms } = self;
        write!(f, "{name:22} {count:5} times  p50 {p50_ms:8.3}  p99 {p99_ms:8.3}  max {max_ms:8.3} ms")?;
        write!(f, "  processor time p50 {busy_p50_ms:7.3} ms")
    }
}

impl fmt::Display for VisionBench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height, processors) = (self.width, self.height, self.processors);
        writeln!(f, "{width} x {height} px, {processors} processors, {:.1} tags in view", self.tags_in_view)?;
        for timing in &self.timings {
            writeln!(f, "{timing}")?;
        }
        writeln!(f, "full search {:.2}x as fast as the library (processor time)", self.full_over_library)?;
        let (full, library) = (self.track_over_full, self.track_over_library);
        writeln!(f, "tracking {full:.1}x as fast as the full search, {library:.1}x as fast as the library")?;
        writeln!(f, "tracking searched {:.1} % of a frame", 100.0 * self.searched_share)?;
        let (missed, all, worst) = (self.missed, self.found_by_library, self.worst_corner_px);
        write!(f, "missed {missed} of {all} tags, corners at most {worst:.4} px from those of the full search")?;
        match &self.three_cameras {
            Some(cameras) => write!(f, "\n{cameras}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ThreeCameras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.frame_to_pose)?;
        let (frames, dropped, ready) = (self.frames, self.dropped, self.parts_ready);
        writeln!(f, "three cameras: {frames} frames became poses, {dropped} were dropped, {ready} of 5 parts ready")?;
        let (tracking, solving) = (self.tracking_ms_per_frame, self.solving_ms_per_frame);
        let (tags, slices) = (self.tags_per_frame, self.slices_per_s);
        writeln!(
            f,
            "a frame: {tags:.1} tags, tracking {tracking:.3} ms and solving {solving:.3} ms of processor time"
        )?;
        writeln!(f, "{slices:.1} searches in the background a second and camera")?;
        let (all, room) = (self.processor_ms_per_frame, PROCESSORS * 1e3 / FRAMES_PER_S);
        write!(
            f,
            "all threads together: {all:.2} ms of processor time a frame, of {room:.1} ms that two processors have ({:.0} %)",
            100.0 * all / room
        )
    }
}

impl AccuracyCell {
    /// Heading of a table of cells.
    pub const HEADING: &str = "size mm  dist m  tilt   edge px  recall (library)  corner px (library)  pos mm (/bound)  \
                               rot deg (/bound)  flips/100k (unflagged)";
}

impl fmt::Display for AccuracyCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:7.1} {:7.2} {:5.0} {:9.1} {:7.3} ({:.3}) {:13.4} ({:.4}) {:10.3} ({:.2}) {:11.3} ({:.2}) {:11.0} ({:.0})",
            1e3 * self.size_m,
            self.distance_m,
            self.tilt_deg,
            self.edge_px,
            self.recall,
            self.library_recall,
            self.corner_px,
            self.library_corner_px,
            self.position_mm,
            self.position_over_bound,
            self.rotation_deg,
            self.rotation_over_bound,
            self.flips_per_100k,
            self.unflagged_flips_per_100k,
        )
    }
}

impl FusedAccuracy {
    /// Heading of a table of parts.
    pub const HEADING: &str = "part               poses   pos mm p50     p99   rot deg p50     p99  in 95 %  flips  one tag only (flips)  no pose";
}

impl fmt::Display for FusedAccuracy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:18} {:5} {:12.3} {:7.3} {:13.3} {:7.3} {:8.3} {:6} {:13} ({}) {:12}",
            self.part,
            self.poses,
            self.position_p50_mm,
            self.position_p99_mm,
            self.rotation_p50_deg,
            self.rotation_p99_deg,
            self.inside_95,
            self.flips,
            self.one_tag,
            self.one_tag_flips,
            self.missing,
        )
    }
}
