//! The wizard's first step: views of the printed board, kept as pictures in the draft, and what is worked out of them.

use std::path::{Path, PathBuf};

use tenon_core::config::rig::CameraRecord;
use tenon_vision::{StillImage, VisionError};

use super::bench::{BenchCamera, Subject};
use super::turn::Report;
use super::worker::{Worker, finding_lines, png};
use crate::boards::{Board, BoardDetector, BoardError, BoardView};
use crate::intrinsics::{Coverage, Options, View, calibrate};
use crate::steps::intrinsics::{findings, record};
use crate::steps::pictures::list;
use crate::steps::worst;
use crate::steps::{Grade, StepError};

/// A board whose corners moved less than this since the last frame is held still, px.
const STILL_PX: f64 = 1.5;
/// A view that differs less than this from every kept one says nothing new, px.
const NEW_PX: f64 = 40.0;
/// Frames without the board after which it is said, at 30 Hz.
const SAY_EVERY: usize = 90;

/// Views of one camera.
pub(super) struct BoardViews {
    folder: PathBuf,
    detector: BoardDetector,
    views: Vec<View>,
    /// Pictures looked at, kept or not.
    tried: usize,
    last: Option<BoardView>,
    without: usize,
    pub solved: bool,
}

fn result_name(serial: &str) -> String {
    format!("intrinsics-{serial}.json")
}

impl BoardViews {
    /// What a draft has of a camera. `keep`: views of an interrupted session count (of a live camera; pictures from files are simply
    /// read again).
    pub fn open(draft: &Path, camera: &BenchCamera, board: &Board, keep: bool) -> anyhow::Result<Self> {
        let folder = draft.join("pictures").join(format!("board-{}", camera.serial));
        let solved = draft.join(result_name(&camera.serial)).is_file();
        let mut own = Self {
            folder,
            detector: BoardDetector::new(board)?,
            views: Vec::new(),
            tried: 0,
            last: None,
            without: 0,
            solved,
        };
        if !solved && own.folder.is_dir() {
            if keep {
                own.read()?;
            } else {
                own.forget()?;
            }
        }
        Ok(own)
    }

    pub fn len(&self) -> usize {
        self.views.len()
    }

    fn read(&mut self) -> anyhow::Result<()> {
        for file in list(&self.folder)? {
            let image = StillImage::load(&file)?;
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.views.push(View { name, view: self.detector.detect(image.grey.view())? });
        }
        self.tried = self.views.len();
        Ok(())
    }

    /// Throws the views away.
    pub fn forget(&mut self) -> Result<(), StepError> {
        let fail = |e: std::io::Error| StepError::Read { path: self.folder.clone(), reason: e.to_string() };
        if self.folder.is_dir() {
            std::fs::remove_dir_all(&self.folder).map_err(fail)?;
        }
        self.views.clear();
        (self.tried, self.last, self.without, self.solved) = (0, None, 0, false);
        Ok(())
    }

    /// Whether a view of a live camera is worth keeping: held still, and unlike the others.
    fn is_new_and_still(&self, view: &BoardView) -> bool {
        let still = self.last.as_ref().is_some_and(|last| distance_px(last, view) < STILL_PX);
        still && self.views.iter().all(|known| distance_px(&known.view, view) > NEW_PX)
    }
}

/// Mean distance of the points that both views have; infinite where there is none.
fn distance_px(a: &BoardView, b: &BoardView) -> f64 {
    let (mut sum, mut count) = (0.0, 0usize);
    for (index, point) in b.indices.iter().zip(&b.points) {
        if let Ok(k) = a.indices.binary_search(index) {
            let [u, v] = a.points[k].pixel;
            sum += (u - point.pixel[0]).hypot(v - point.pixel[1]);
            count += 1;
        }
    }
    if count == 0 { f64::INFINITY } else { sum / count as f64 }
}

impl Worker<'_> {
    /// Looks for the board until a view is kept or there is something to say.
    pub(super) fn board_view(&mut self, camera: usize) -> anyhow::Result<Report> {
        let live = self.bench.is_live();
        let name = self.bench.cameras()[camera].name.clone();
        loop {
            let index = self.views[camera].tried;
            let Some(shot) = self.bench.shoot(camera, Subject::Board, index)? else {
                let missing = missing(&self.views[camera].views);
                return Ok(Report::View { kept: false, lines: Vec::new(), missing, last: true });
            };
            let own = &mut self.views[camera];
            own.tried += 1;
            let found = match own.detector.detect(shot.grey.view()) {
                Ok(view) => Ok(view),
                Err(BoardError::Vision(error @ VisionError::ImageSize { .. })) => return Err(error.into()),
                Err(error) => Err(error.to_string()),
            };
            match found {
                Ok(view) if !live || own.is_new_and_still(&view) => {
                    let points = view.points.len();
                    let file = format!("{:04}.png", own.views.len() + 1);
                    let path = format!("pictures/board-{}/{file}", self.bench.cameras()[camera].serial);
                    own.views.push(View { name: file, view });
                    let lines = coverage_lines(&name, points, &own.views);
                    let missing = missing(&own.views);
                    let bytes = png(&shot.grey)?;
                    self.draft_mut()?.write_file(&path, &bytes)?;
                    return Ok(Report::View { kept: true, lines, missing, last: false });
                }
                Ok(view) => {
                    own.without = 0;
                    own.last = Some(view);
                }
                Err(reason) => {
                    own.last = None;
                    own.without += 1;
                    if !live || own.without.is_multiple_of(SAY_EVERY) {
                        let missing = missing(&own.views);
                        let lines = vec![format!("  {name} {}: {reason}", shot.name)];
                        return Ok(Report::View { kept: false, lines, missing, last: false });
                    }
                }
            }
        }
    }

    pub(super) fn intrinsics(&mut self, camera: usize) -> anyhow::Result<Report> {
        let found = calibrate(&self.settings.board, &self.views[camera].views, &Options::default())?;
        let findings = findings(&found);
        let grade = worst(&findings);
        let mut lines = finding_lines(&findings);
        for (parameter, std) in found.report().parameters.iter().zip(found.std()).filter(|(p, _)| p.std.is_some()) {
            lines.push(format!("     {:<3} {:>11.5} ± {:.5}", parameter.name, parameter.value, 1.96 * std));
        }
        for view in &found.dropped {
            lines.push(format!(
                "warn {} was left out: {:.2} px off, usual are {:.2}",
                view.name, view.held_out_px, view.typical_px
            ));
        }
        if let Some(next) = found.next_view.as_ref().filter(|_| grade != Grade::Pass) {
            lines.push(format!("     the view to add next: {}", next.advice));
        }
        let date = (self.settings.now)();
        let BenchCamera { name, serial } = self.bench.cameras()[camera].clone();
        let report = serde_json::to_vec_pretty(&found.report())?;
        let draft = self.draft_mut()?;
        if grade != Grade::Fail {
            draft.change(|calibration| {
                calibration.put_camera(CameraRecord {
                    name,
                    serial: serial.clone(),
                    resolution_px: [found.width as u32, found.height as u32],
                    intrinsics: record(&found, &date),
                    place: None,
                });
                // It rested on other intrinsics.
                calibration.proof = None;
            })?;
            draft.write_file(&result_name(&serial), &report)?;
            self.views[camera].solved = true;
            if self.views.iter().all(|views| views.solved) {
                self.end_intrinsics()?;
            }
        }
        Ok(Report::Result { grade, lines })
    }
}

/// What is missing, in words. Before there are three views everything is.
fn missing(views: &[View]) -> Option<String> {
    Coverage::new(views, None).advice()
}

/// One line a view: points, and how much of the picture, which distances and tilts are covered.
fn coverage_lines(name: &str, points: usize, views: &[View]) -> Vec<String> {
    let coverage = Coverage::new(views, None);
    let tilts = coverage.tilts;
    let mark = |n: usize, letter: char| if n > 0 { letter } else { '.' };
    let cells: Vec<String> = coverage
        .points_in_cells
        .iter()
        .map(|row| row.iter().map(|n| if *n >= 4 { '#' } else { '.' }).collect())
        .collect();
    let [far, middle, near] = coverage.distances;
    vec![format!(
        "  {name} view {}: {points} points | picture {} {:3.0} % | far {far} middle {middle} near {near} | tilts {}{}{}{}",
        views.len(),
        cells.join("/"),
        100.0 * coverage.area,
        mark(tilts.left_away, 'L'),
        mark(tilts.right_away, 'R'),
        mark(tilts.top_away, 'T'),
        mark(tilts.bottom_away, 'B'),
    )]
}
