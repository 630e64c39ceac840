//! Does what the wizard asks for: takes pictures, works out steps, writes the draft.

use std::collections::BTreeMap;

use image::GrayImage;
use tenon_core::config::rig::{Delay, NoiseRecord};
use tenon_vision::rig::Part;
use tenon_vision::{Detector, DetectorSettings, GreyImage, Pose, Rig, TagOnBody};

use super::bench::{Bench, Shot, Subject};
use super::turn::{Plan, Report, Task};
use super::worker_intrinsics::BoardViews;
use crate::boards::Board;
use crate::measure::latency::LatencySettings;
use crate::report_page;
use crate::rig::{Draft, Ended, RigFolder, Step, StoreError};
use crate::steps::latency::{Delayed, TagTrack};
use crate::steps::pictures::{Picture, Pictures};
use crate::steps::proof::ProofInput;
use crate::steps::{Finding, Grade, Limits, StepError, latency, noise, proof};

/// What a session works with besides its cameras.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    pub layout: Rig,
    /// The calibration board.
    pub board: Board,
    /// Tags in the gripper.
    pub hand: Vec<TagOnBody>,
    pub limits: Limits,
    /// Focal length for cameras whose intrinsics are left out, px.
    pub assume_focal_px: Option<f64>,
    /// Name and version of the program, for the file.
    pub program: String,
    /// The time, RFC 3339, UTC.
    pub now: fn() -> String,
}

/// One session's hands.
pub struct Worker<'a> {
    pub(super) bench: &'a mut dyn Bench,
    pub(super) settings: WorkerSettings,
    folder: RigFolder,
    draft: Option<Draft>,
    detector: Detector,
    /// For the hundreds of pictures of a swing, where a tenth of a pixel does not count.
    fast_detector: Detector,
    pub(super) views: Vec<BoardViews>,
    /// Pictures of the base board at rest, for the placing.
    pub(super) rest: Vec<Pictures>,
    /// Pictures with the arm at its poses, for the step at work.
    pub(super) posed: Vec<Pictures>,
    pub(super) arm_poses: BTreeMap<String, Pose>,
    /// Where the arm should go next.
    pub(super) next_hand: Option<Pose>,
    /// The version that was published.
    published: Option<String>,
}

impl<'a> Worker<'a> {
    /// Opens the draft, or goes on with it.
    pub fn new(bench: &'a mut dyn Bench, folder: RigFolder, settings: WorkerSettings) -> anyhow::Result<Self> {
        let draft = folder.draft(&settings.program, &(settings.now)())?;
        let layout = &settings.layout;
        let detection =
            DetectorSettings { family: layout.family, max_hamming: layout.max_hamming, ..DetectorSettings::default() };
        let detector = Detector::new(detection)?;
        let fast_detector = Detector::new(DetectorSettings { quad_decimate: 2.0, ..detection })?;
        let keep = bench.is_live();
        let mut views = Vec::with_capacity(bench.cameras().len());
        for camera in bench.cameras() {
            views.push(BoardViews::open(draft.folder(), camera, &settings.board, keep)?);
        }
        Ok(Self {
            bench,
            settings,
            folder,
            draft: Some(draft),
            detector,
            fast_detector,
            views,
            rest: Vec::new(),
            posed: Vec::new(),
            arm_poses: BTreeMap::new(),
            next_hand: None,
            published: None,
        })
    }

    /// Where the session stands. A proof that failed is to be done again.
    pub fn plan(&self) -> Result<Plan, StoreError> {
        let draft = self.draft()?;
        let counts = self.bench.counts();
        let failed = draft.calibration().proof.as_ref().is_some_and(|proof| !proof.passed);
        let mut ended = draft.steps().clone();
        if failed {
            ended.retain(|step, _| *step < Step::Proof);
        }
        let proved = matches!(ended.get(&Step::Proof), Some(Ended::Done { .. }));
        Ok(Plan {
            rig: self.folder.name().to_owned(),
            cameras: self.bench.cameras().iter().map(|camera| camera.name.clone()).collect(),
            arm: self.bench.arm(),
            board_views: counts.board_views,
            arm_poses: counts.arm_poses,
            most_arm_poses: counts.most_arm_poses,
            proof_poses: counts.proof_poses,
            solved: self.views.iter().map(|views| views.solved).collect(),
            views: self.views.iter().map(BoardViews::len).collect(),
            proof_passed: proved.then_some(true),
            ended,
        })
    }

    pub fn published(&self) -> Option<&str> {
        self.published.as_deref()
    }

    /// Does a task. What goes wrong is a report, because a person can do something about it.
    pub fn work(&mut self, task: &Task) -> Report {
        let done = match task {
            Task::BoardView { camera } => self.board_view(*camera),
            Task::Intrinsics { camera } => self.intrinsics(*camera),
            Task::Rest => self.rest(),
            Task::Pose { step, index, text } => self.pose(*step, *index, *text),
            Task::Place => self.place(),
            Task::Proof => self.proof(),
            Task::Latency => self.latency(),
            Task::Noise => self.noise(),
            Task::Skip { step, reason } => self.skip(*step, reason),
            Task::Forget { step } => self.forget(*step),
            Task::Publish { take_into_use } => self.publish(*take_into_use),
        };
        done.unwrap_or_else(|error| Report::Failed(format!("{error:#}")))
    }

    pub(super) fn draft(&self) -> Result<&Draft, StoreError> {
        self.draft.as_ref().ok_or_else(|| StoreError::NoDraft { rig: self.folder.name().to_owned() })
    }

    pub(super) fn draft_mut(&mut self) -> Result<&mut Draft, StoreError> {
        let rig = self.folder.name().to_owned();
        self.draft.as_mut().ok_or(StoreError::NoDraft { rig })
    }

    pub(super) fn end(&mut self, step: Step) -> anyhow::Result<()> {
        let date = (self.settings.now)();
        Ok(self.draft_mut()?.end_step(step, Ended::Done { date })?)
    }

    pub(super) fn end_intrinsics(&mut self) -> anyhow::Result<()> {
        self.end(Step::Intrinsics)
    }

    /// Tags in a picture of a camera; the first picture of a kind is kept for the report.
    pub(super) fn look(&mut self, camera: usize, shot: &Shot, keep_as: Option<&str>) -> anyhow::Result<Picture> {
        let detections = self.detector.detect(shot.grey.view())?;
        if let Some(kind) = keep_as {
            let name = format!("pictures/{}-{kind}.png", self.bench.cameras()[camera].name);
            let png = png(&shot.grey)?;
            self.draft_mut()?.write_file(&name, &png)?;
        }
        Ok(Picture { name: shot.name.clone(), detections })
    }

    pub(super) fn no_pictures(&self, kind: &str) -> Vec<Pictures> {
        let empty = |camera: &super::BenchCamera| Pictures {
            serial: camera.serial.clone(),
            name: camera.name.clone(),
            folder: kind.into(),
            size_px: [0, 0],
            pictures: Vec::new(),
        };
        self.bench.cameras().iter().map(empty).collect()
    }

    /// Pictures of all cameras, one after the other in time, at most `count`. Where one camera's end, all do.
    pub(super) fn take(&mut self, subject: Subject, kind: &str, count: usize) -> anyhow::Result<Vec<Pictures>> {
        let mut all = self.no_pictures(kind);
        for index in 0..count {
            let mut shots = Vec::with_capacity(all.len());
            for camera in 0..all.len() {
                shots.extend(self.bench.shoot(camera, subject, index)?);
            }
            if shots.len() < all.len() {
                break;
            }
            for (camera, shot) in shots.iter().enumerate() {
                self.arm_poses.extend(shot.T_base_hand.map(|pose| (shot.name.clone(), pose)));
                let picture = self.look(camera, shot, (index == 0).then_some(kind))?;
                all[camera].size_px = [shot.grey.width(), shot.grey.height()];
                all[camera].pictures.push(picture);
            }
        }
        Ok(all)
    }

    fn proof(&mut self) -> anyhow::Result<Report> {
        if self.bench.counts().proof_poses == 0 {
            self.arm_poses.clear();
            self.posed = self.take(Subject::Pose(Step::Proof), "proof", usize::MAX)?;
        }
        let date = (self.settings.now)();
        let input = ProofInput {
            cameras: &self.posed,
            parts: &self.settings.layout.parts,
            hand: &self.settings.hand,
            arm_poses: &self.arm_poses,
        };
        let limits = &self.settings.limits;
        let proved = proof::prove(self.draft()?.calibration(), &input, &limits.proof(), &date)?;
        let report = serde_json::to_vec_pretty(&proved.report(&limits.origin))?;
        let mut lines = finding_lines(&proved.findings);
        if let Some(worst) = proved.proof.views.first() {
            lines.push(format!("     worst: {}, {:.2} mm", worst.name, 1e3 * worst.position_m));
        }
        lines.push(format!("     limits of {}", limits.origin));
        let passed = proved.proof.passed;
        let draft = self.draft_mut()?;
        draft.write_file("proof.json", &report)?;
        draft.change(|calibration| calibration.proof = Some(proved.record))?;
        if passed {
            self.end(Step::Proof)?;
        }
        Ok(Report::Result { grade: if passed { Grade::Pass } else { Grade::Fail }, lines })
    }

    fn latency(&mut self) -> anyhow::Result<Report> {
        let settings = LatencySettings::default();
        let mut found: Vec<(Delayed, Delay)> = Vec::new();
        if self.bench.begin_swing()? {
            let tag = self.settings.hand.first().map(|tag| tag.id);
            let tag = tag.ok_or_else(|| anyhow::anyhow!("give --hand-tag: the tag that moves before the cameras"))?;
            let mut tracks = Vec::with_capacity(self.bench.cameras().len());
            for camera in 0..self.bench.cameras().len() {
                let mut track = TagTrack::default();
                for index in 0..self.bench.counts().swing {
                    let Some(shot) = self.bench.shoot(camera, Subject::Swing, index)? else { break };
                    track.add(shot.arrived_s, &self.fast_detector.detect(shot.grey.view())?, tag);
                }
                tracks.push(track);
            }
            let cause = self.bench.swing()?;
            for (camera, track) in self.bench.cameras().iter().zip(&tracks) {
                let response = track.along_motion(&camera.name)?;
                let what = Delayed::Camera(camera.serial.clone());
                found.push((what.clone(), latency::measure(&what, &cause, &response, &settings)?));
            }
        }
        for motion in self.bench.motions()? {
            let delay = latency::measure(&motion.what, &motion.cause, &motion.response, &settings)?;
            found.push((motion.what, delay));
        }
        if found.is_empty() {
            anyhow::bail!(
                "no motion was recorded: skip this and give records to `tenon-calibrate latency` later, or give --arm-link or --swing \
                 FILE"
            );
        }
        let date = (self.settings.now)();
        let lines = found.iter().map(|(what, delay)| delay_line(what, delay)).collect();
        self.draft_mut()?.change(|calibration| {
            for (what, delay) in &found {
                latency::put(&mut calibration.latency, what, *delay, &date);
            }
        })?;
        self.end(Step::Latency)?;
        Ok(Report::Result { grade: Grade::Pass, lines })
    }

    fn noise(&mut self) -> anyhow::Result<Report> {
        let cameras = self.take(Subject::Parts, "parts", self.bench.counts().parts)?;
        let ids: Vec<u32> =
            cameras.iter().flat_map(|c| &c.pictures).flat_map(|p| &p.detections).map(|d| d.id).collect();
        let in_view = |part: &&Part| part.tags.iter().any(|tag| ids.contains(&tag.id));
        let parts: Vec<Part> = self.settings.layout.parts.iter().filter(in_view).cloned().collect();
        let date = (self.settings.now)();
        let rate_hz = self.bench.rate_hz();
        let (mut measured, mut lines) = (Vec::new(), Vec::new());
        for part in parts {
            let name = part.name.clone();
            match noise::noise(self.draft()?.calibration(), &cameras, &[part], rate_hz, &date) {
                Ok(found) => measured.extend(found),
                // One part that is hidden half of the time must not spoil the others.
                Err(StepError::Noise(reason)) => lines.push(format!("warn {reason}")),
                Err(error) => return Err(anyhow::Error::from(error).context(name)),
            }
        }
        anyhow::ensure!(
            !measured.is_empty(),
            "no part was seen often enough: put parts in view of the cameras{}",
            lines.iter().map(|line| format!("; {line}")).collect::<String>()
        );
        for part in &measured {
            let record = &part.record;
            let [x, y, z] = record.position_std_m.map(|v| 1e3 * v);
            let [a, b, c] = record.rotation_std_rad.map(f64::to_degrees);
            lines.push(format!(
                "ok   {}: {} poses, standard deviation {x:.3}, {y:.3}, {z:.3} mm; {a:.3}, {b:.3}, {c:.3} degrees",
                record.part, record.samples
            ));
            lines.extend(part.ratio_line().map(|line| format!("     {line}")));
        }
        let report = serde_json::to_vec_pretty(&noise::report(&measured))?;
        let records: Vec<NoiseRecord> = measured.into_iter().map(|part| part.record).collect();
        self.draft_mut()?.write_file("noise.json", &report)?;
        self.draft_mut()?.change(|calibration| {
            calibration.noise.retain(|known| records.iter().all(|record| record.part != known.part));
            calibration.noise.extend(records);
        })?;
        self.end(Step::Noise)?;
        Ok(Report::Result { grade: Grade::Pass, lines })
    }

    fn skip(&mut self, step: Step, reason: &str) -> anyhow::Result<Report> {
        let date = (self.settings.now)();
        let draft = self.draft_mut()?;
        if step == Step::Proof {
            // A failed one is no reason to say that there was none, but one that is left out proves nothing.
            draft.change(|calibration| calibration.proof = None)?;
        }
        draft.end_step(step, Ended::Skipped { date, reason: reason.to_owned() })?;
        Ok(Report::Result { grade: Grade::Pass, lines: vec![format!("left out: {}", step.title())] })
    }

    fn forget(&mut self, step: Step) -> anyhow::Result<Report> {
        if step == Step::Intrinsics {
            for views in self.views.iter_mut().filter(|views| !views.solved) {
                views.forget()?;
            }
        }
        self.rest.clear();
        self.posed.clear();
        self.arm_poses.clear();
        self.next_hand = None;
        Ok(Report::Result { grade: Grade::Pass, lines: Vec::new() })
    }

    fn publish(&mut self, take_into_use: bool) -> anyhow::Result<Report> {
        let date = (self.settings.now)();
        report_page::write(self.draft_mut()?, &date)?;
        let rig = self.folder.name().to_owned();
        let draft = self.draft.take().ok_or(StoreError::NoDraft { rig })?;
        let version = self.folder.publish(draft, &date, take_into_use)?;
        let lines = vec![
            format!("version {}", version.path.display()),
            format!("report  {}", version.path.join("report.html").display()),
        ];
        self.published = Some(version.name);
        Ok(Report::Published { lines })
    }
}

/// Findings as the commands print them.
pub fn finding_lines(findings: &[Finding]) -> Vec<String> {
    let line = |finding: &Finding| {
        let mark = match finding.grade {
            Grade::Pass => "ok  ",
            Grade::Warn => "warn",
            Grade::Fail => "FAIL",
        };
        format!("{mark} {}", finding.text)
    };
    findings.iter().map(line).collect()
}

/// A delay in one line.
pub fn delay_line(what: &Delayed, delay: &Delay) -> String {
    let [p50, p95, std, max] = [delay.p50_s, delay.p95_s, delay.std_s, delay.max_s].map(|s| 1e3 * s);
    let what = what.to_string();
    format!(
        "ok   {what:<16} median {p50:>6.1} ms, 95 % below {p95:>6.1} ms, largest {max:>6.1} ms, standard deviation {std:.1} ms ({} stretches)",
        delay.samples
    )
}

/// A picture as a PNG file.
pub(super) fn png(grey: &GreyImage) -> anyhow::Result<Vec<u8>> {
    let picture = GrayImage::from_raw(grey.width() as u32, grey.height() as u32, grey.pixels().to_vec())
        .ok_or_else(|| anyhow::anyhow!("a picture of {}x{} px has too few pixels", grey.width(), grey.height()))?;
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png)?;
    Ok(bytes.into_inner())
}
