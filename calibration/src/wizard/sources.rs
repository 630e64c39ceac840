//! Cameras of a real rig, recorded runs, and folders of pictures as a [`Bench`].

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tenon_vision::source::{
    CameraChoice as Device, Clock, Frame, FrameSource, Pace, RecordedRun, Serial, SourceError, SystemClock, V4l2Camera,
    V4l2Settings,
};
use tenon_vision::{Pose, StillImage};

use super::bench::{Bench, BenchCamera, Counts, Motion, Shot, Subject};
use super::turn::Arm;
use crate::arm::{ArmPoseSource, Asked, Need};
use crate::measure::latency::Sample;
use crate::rig::Step;
use crate::steps::pictures::list;
use crate::steps::{StepError, latency};

/// `front=v4l2:822512060853`, `front=recorded:runs/front`, `front=images:822512060853:pictures/front`, `front=simulated`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraChoice {
    pub name: String,
    pub kind: Kind,
}

/// Where a camera's pictures come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    V4l2 {
        serial: String,
    },
    /// A folder with a recording for each step (`intrinsics`, `place`, `proof`, `latency`, `noise`), or one for all.
    Recorded {
        folder: PathBuf,
    },
    /// The same with pictures.
    Images {
        serial: String,
        folder: PathBuf,
    },
    Simulated,
}

impl FromStr for CameraChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted =
            || "write NAME=v4l2:SERIAL, NAME=recorded:DIR, NAME=images:SERIAL:DIR or NAME=simulated".to_owned();
        let (name, kind) = text.split_once('=').ok_or_else(wanted)?;
        let plain = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        let (source, rest) = kind.split_once(':').unwrap_or((kind, ""));
        let kind = match source {
            "v4l2" if plain(rest) => Kind::V4l2 { serial: rest.to_owned() },
            "recorded" if !rest.is_empty() => Kind::Recorded { folder: rest.into() },
            "images" => match rest.split_once(':') {
                Some((serial, folder)) if plain(serial) && !folder.is_empty() => {
                    Kind::Images { serial: serial.to_owned(), folder: folder.into() }
                }
                _ => return Err(wanted()),
            },
            "simulated" if rest.is_empty() => Kind::Simulated,
            _ => return Err(wanted()),
        };
        if !plain(name) {
            return Err(wanted());
        }
        Ok(Self { name: name.to_owned(), kind })
    }
}

/// What real cameras and an arm need to be told.
#[derive(Default)]
pub struct SourceSettings {
    /// Fixed exposure of V4L2 cameras, in units of 100 µs.
    pub exposure_100us: Option<i64>,
    /// Who knows the arm's poses; `None` where it takes no part.
    pub arm: Option<Box<dyn ArmPoseSource>>,
    /// Record of the hand along its swing, for `latency`.
    pub swing: Option<PathBuf>,
}

/// How long a live camera may keep us waiting.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of live cameras: what spec perception.md §7.3 asks for.
const REST: usize = 60;
const PARTS: usize = 300;
const SWING: usize = 300;
const LIVE_RATE_HZ: f64 = 30.0;

enum Feed {
    Live { source: Box<dyn FrameSource>, frame: Frame },
    Recorded { folder: PathBuf, open: Option<(Step, RecordedRun, Frame)> },
    Images { folder: PathBuf, listed: Option<(Step, Vec<PathBuf>)> },
}

/// Cameras from devices and files.
pub struct SourceBench {
    cameras: Vec<BenchCamera>,
    feeds: Vec<Feed>,
    settings: SourceSettings,
    live: bool,
}

impl SourceBench {
    /// Opens the cameras.
    ///
    /// # Errors
    /// What a camera says that cannot be opened; live cameras and files mixed; a recording without a serial number.
    pub fn open(choices: &[CameraChoice], settings: SourceSettings) -> Result<Self, StepError> {
        let wrong = |reason: &str| StepError::Picture { what: "the cameras".into(), reason: reason.into() };
        let (mut cameras, mut feeds) = (Vec::with_capacity(choices.len()), Vec::with_capacity(choices.len()));
        for choice in choices {
            let (serial, feed) = match &choice.kind {
                Kind::V4l2 { serial } => (serial.clone(), live(&choice.name, serial, &settings)?),
                Kind::Images { serial, folder } => {
                    (serial.clone(), Feed::Images { folder: folder.clone(), listed: None })
                }
                Kind::Recorded { folder } => {
                    let step_folder = of_step(folder, Step::Place);
                    let run = RecordedRun::open(&step_folder, Pace::AsFastAsPossible, false, Arc::new(SystemClock))?;
                    let serial = run.description().serial.ok_or_else(|| StepError::Read {
                        path: step_folder,
                        reason: "the recording does not name its camera's serial number".into(),
                    })?;
                    (serial.to_string(), Feed::Recorded { folder: folder.clone(), open: None })
                }
                Kind::Simulated => return Err(wrong("simulated and real ones do not go together")),
            };
            cameras.push(BenchCamera { name: choice.name.clone(), serial });
            feeds.push(feed);
        }
        for (i, camera) in cameras.iter().enumerate() {
            if cameras[..i].iter().any(|other| other.name == camera.name || other.serial == camera.serial) {
                return Err(wrong(&format!("{} ({}) is named twice", camera.name, camera.serial)));
            }
        }
        let need = settings.arm.as_ref().map(|arm| arm.need());
        let living = feeds.iter().filter(|feed| matches!(feed, Feed::Live { .. })).count();
        if living != 0 && living != feeds.len() {
            return Err(wrong("live ones and files do not go together"));
        }
        if cameras.is_empty() {
            return Err(wrong("there is none: give --camera NAME=v4l2:SERIAL, or --simulated to try the wizard"));
        }
        match need {
            Some(Need::Nothing) if living > 0 => {
                return Err(wrong(
                    "poses of a file belong to pictures of files: with live ones give --arm-link or --guided-arm",
                ));
            }
            Some(Need::Numbers | Need::Stillness) if living == 0 => {
                return Err(wrong(
                    "pictures of files were taken before, where the arm is now does not matter: give --arm-poses FILE",
                ));
            }
            _ => {}
        }
        Ok(Self { cameras, feeds, settings, live: living > 0 })
    }
}

fn live(name: &str, serial: &str, settings: &SourceSettings) -> Result<Feed, StepError> {
    let exposure_100us = settings.exposure_100us.ok_or_else(|| StepError::Picture {
        what: format!("camera {name}"),
        reason: "give --exposure-100us: poses need a fixed exposure, e.g. 80 for 8 ms in a lit room".into(),
    })?;
    let device = Device::Serial(Serial::new(serial)?);
    let camera =
        V4l2Camera::open(&device, &V4l2Settings::realsense_colour(name, exposure_100us), Arc::new(SystemClock))?;
    let (width, height) = (camera.description().width, camera.description().height);
    Ok(Feed::Live { source: Box::new(camera), frame: Frame::of_size(width, height) })
}

/// The folder of a step, where the camera's folder has one.
fn of_step(folder: &Path, step: Step) -> PathBuf {
    let name = match step {
        Step::Intrinsics => "intrinsics",
        Step::Place => "place",
        Step::Proof => "proof",
        Step::Latency => "latency",
        Step::Noise => "noise",
    };
    let own = folder.join(name);
    if own.is_dir() { own } else { folder.to_owned() }
}

impl Feed {
    /// `anew`: what a live camera saw before now does not count.
    fn next(&mut self, step: Step, index: usize, anew: bool) -> Result<Option<Shot>, StepError> {
        match self {
            Self::Live { source, frame } => {
                let asked = SystemClock.now();
                // A driver keeps the frames that nobody fetched, from before the arm was moved here.
                loop {
                    source.next_frame(frame, PATIENCE)?;
                    if !anew || frame.stamps.exposed_at >= asked {
                        break;
                    }
                    if SystemClock.now().since(asked) > PATIENCE {
                        let what = source.description().name.clone();
                        let reason =
                            format!("only frames from before have come for {} s: plug it in again", PATIENCE.as_secs());
                        return Err(StepError::Picture { what, reason });
                    }
                }
                let arrived_s = frame.stamps.arrived.as_nanos() as f64 * 1e-9;
                Ok(Some(Shot { name: format!("{index:04}"), grey: frame.grey.clone(), arrived_s, T_base_hand: None }))
            }
            Self::Images { folder, listed } => {
                if listed.as_ref().is_none_or(|(of, _)| *of != step) {
                    *listed = Some((step, list(&of_step(folder, step))?));
                }
                let Some(file) = listed.as_ref().and_then(|(_, files)| files.get(index)) else { return Ok(None) };
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let grey = StillImage::load(file)?.grey;
                Ok(Some(Shot { name, grey, arrived_s: 0.0, T_base_hand: None }))
            }
            Self::Recorded { folder, open } => {
                // The worker counts from 0 for every subject: a recording is played from its beginning then.
                if index == 0 || open.as_ref().is_none_or(|(of, ..)| *of != step) {
                    let clock = Arc::new(SystemClock);
                    let run = RecordedRun::open(&of_step(folder, step), Pace::AsFastAsPossible, false, clock)?;
                    let (width, height) = (run.description().width, run.description().height);
                    *open = Some((step, run, Frame::of_size(width, height)));
                }
                let Some((_, run, frame)) = open else { return Ok(None) };
                match run.next_frame(frame, PATIENCE) {
                    Ok(()) => {}
                    Err(SourceError::Ended { .. }) => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
                let arrived_s = frame.stamps.arrived.as_nanos() as f64 * 1e-9;
                Ok(Some(Shot { name: format!("{index:06}"), grey: frame.grey.clone(), arrived_s, T_base_hand: None }))
            }
        }
    }
}

impl Bench for SourceBench {
    fn cameras(&self) -> &[BenchCamera] {
        &self.cameras
    }

    fn arm(&self) -> Arm {
        match self.settings.arm.as_ref().map(|arm| arm.need()) {
            None => Arm::None,
            Some(Need::Numbers) => Arm::Guided,
            Some(Need::Stillness) => Arm::Linked,
            Some(Need::Nothing) => Arm::Recorded,
        }
    }

    fn counts(&self) -> Counts {
        // Of files all pictures are taken.
        let (rest, swing, parts) = if self.live { (REST, SWING, PARTS) } else { (usize::MAX, usize::MAX, usize::MAX) };
        let guided = matches!(self.arm(), Arm::Guided | Arm::Linked);
        let (arm_poses, most_arm_poses) = if guided { (10, 20) } else { (0, 0) };
        let proof_poses = if self.live { 12 } else { 0 };
        Counts { board_views: 15, rest, arm_poses, most_arm_poses, proof_poses, swing, parts }
    }

    fn is_live(&self) -> bool {
        self.live
    }

    fn rate_hz(&self) -> f64 {
        LIVE_RATE_HZ
    }

    fn shoot(&mut self, camera: usize, subject: Subject, index: usize) -> Result<Option<Shot>, StepError> {
        let anew = index == 0 || matches!(subject, Subject::Pose(_));
        let Some(shot) = self.feeds[camera].next(subject.step(), index, anew)? else { return Ok(None) };
        let T_base_hand = match &mut self.settings.arm {
            Some(arm) if arm.need() == Need::Nothing => arm.pose(&Asked { picture: &shot.name, typed: None })?,
            _ => None,
        };
        Ok(Some(Shot { T_base_hand, ..shot }))
    }

    fn arm_pose(&mut self, asked: &Asked<'_>) -> Result<Option<Pose>, StepError> {
        match &mut self.settings.arm {
            Some(arm) if arm.need() != Need::Nothing => Ok(arm.pose(asked)?),
            _ => Ok(None),
        }
    }

    fn confirm_arm(&mut self, T_base_hand: &Pose) -> Result<(), StepError> {
        Ok(self.settings.arm.as_mut().map_or(Ok(()), |arm| arm.confirm(T_base_hand))?)
    }

    fn begin_swing(&mut self) -> Result<bool, StepError> {
        if self.settings.swing.is_some() {
            return Ok(true);
        }
        Ok(self.settings.arm.as_mut().map_or(Ok(false), |arm| arm.begin_swing())?)
    }

    fn swing(&mut self) -> Result<Vec<Sample>, StepError> {
        match (&self.settings.swing, &mut self.settings.arm) {
            (Some(path), _) => latency::read(path),
            (None, Some(arm)) => Ok(arm.end_swing()?),
            (None, None) => Ok(Vec::new()),
        }
    }

    fn motions(&mut self) -> Result<Vec<Motion>, StepError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arm::{FilePoses, TypedPoses};
    use tenon_core::time::MonotonicTime;
    use tenon_vision::source::SourceDescription;

    #[test]
    fn cameras_are_named_with_where_their_pictures_come_from() {
        let parsed = |text: &str| text.parse::<CameraChoice>().map(|choice| (choice.name, choice.kind));
        let front = || "front".to_owned();
        assert_eq!(parsed("front=v4l2:82251"), Ok((front(), Kind::V4l2 { serial: "82251".into() })));
        assert_eq!(parsed("front=recorded:a/b"), Ok((front(), Kind::Recorded { folder: "a/b".into() })));
        let images = Kind::Images { serial: "82251".into(), folder: "a:b".into() };
        assert_eq!(parsed("front=images:82251:a:b"), Ok((front(), images)));
        assert_eq!(parsed("front=simulated"), Ok((front(), Kind::Simulated)));
        for wrong in
            ["front", "front=", "=simulated", "front=images:dir", "front=v4l2:", "a b=simulated", "f=simulated:1"]
        {
            assert!(parsed(wrong).unwrap_err().contains("NAME=images:SERIAL:DIR"), "{wrong}");
        }
    }

    #[test]
    fn cameras_that_do_not_go_together_are_refused() {
        let open = |texts: &[&str]| {
            let choices: Vec<CameraChoice> = texts.iter().map(|text| text.parse().unwrap()).collect();
            SourceBench::open(&choices, SourceSettings::default()).err().unwrap().to_string()
        };
        assert!(open(&["a=images:1:x", "b=images:1:y"]).contains("named twice"));
        assert!(open(&["a=simulated"]).contains("simulated and real"));
        assert!(open(&[]).contains("--simulated"));
        assert!(open(&["a=v4l2:1"]).contains("--exposure-100us"));
    }

    #[test]
    fn an_arm_that_is_guided_now_does_not_belong_to_pictures_of_yesterday() {
        let arm: Option<Box<dyn ArmPoseSource>> = Some(Box::new(TypedPoses));
        let settings = SourceSettings { arm, ..SourceSettings::default() };
        let said = SourceBench::open(&["a=images:1:x".parse().unwrap()], settings).err().unwrap().to_string();
        assert!(said.contains("--arm-poses FILE"), "{said}");
        let file: Option<Box<dyn ArmPoseSource>> = Some(Box::new(FilePoses::default()));
        let bench =
            SourceBench::open(&["a=images:1:x".parse().unwrap()], SourceSettings { arm: file, ..Default::default() });
        assert_eq!(bench.unwrap().arm(), Arm::Recorded);
    }

    /// A camera whose driver kept frames that were exposed before anybody asked.
    struct Queue {
        description: SourceDescription,
        exposed: Vec<MonotonicTime>,
    }

    impl FrameSource for Queue {
        fn description(&self) -> &SourceDescription {
            &self.description
        }

        fn next_frame(&mut self, into: &mut Frame, timeout: Duration) -> Result<(), SourceError> {
            if self.exposed.is_empty() {
                return Err(SourceError::TimedOut { source_name: self.description.name.clone(), waited: timeout });
            }
            into.stamps.exposed_at = self.exposed.remove(0);
            into.stamps.arrived = SystemClock.now();
            Ok(())
        }
    }

    #[test]
    fn frames_from_before_the_arm_came_here_are_passed_over() {
        let (now, ages_s) = (SystemClock.now(), [-3, -2, 60, 120, -1]);
        let at = |s: &i64| MonotonicTime::from_nanos(now.as_nanos() + s * 1_000_000_000);
        let description = SourceDescription {
            name: "front".into(),
            serial: None,
            width: 8,
            height: 8,
            nominal_rate_hz: 30.0,
            intrinsics: None,
        };
        let source = Box::new(Queue { description, exposed: ages_s.iter().map(at).collect() });
        let mut bench = SourceBench {
            cameras: vec![BenchCamera { name: "front".into(), serial: "1".into() }],
            feeds: vec![Feed::Live { source, frame: Frame::of_size(8, 8) }],
            settings: SourceSettings::default(),
            live: true,
        };
        let left = |bench: &SourceBench| match &bench.feeds[0] {
            Feed::Live { frame, .. } => frame.stamps.exposed_at.seconds_since(now).round(),
            _ => unreachable!(),
        };
        bench.shoot(0, Subject::Pose(Step::Place), 3).unwrap();
        assert_eq!(left(&bench), 60.0);
        // In a row of pictures every one counts.
        bench.shoot(0, Subject::Rest, 7).unwrap();
        assert_eq!(left(&bench), 120.0);
        bench.shoot(0, Subject::Rest, 8).unwrap();
        assert_eq!(left(&bench), -1.0);
    }
}
