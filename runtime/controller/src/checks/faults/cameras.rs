//! Kinds in which cameras fail: the bench's own cameras, what is done to them, and what must be said of it.
//!
//! The cameras are recordings of a rendered bench that the service plays with the sources and threads of a run; the `play.json` beside
//! their frames makes them fail ([`tenon_vision::source::Playback`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tenon_core::calendar::rfc3339;
use tenon_core::config::{CameraWatchConfig, CamerasConfig, RobotConfig};
use tenon_core::spec::PolicySpec;
use tenon_vision::source::{Condition, Playback, WatchConfig};

use super::bench::Bench;
use super::kinds::{Expected, Kind, Times};
use super::policy::{self, Round};
use crate::seeing::fitness::today;
use crate::seeing::rendered::{self, CAMERAS};
use crate::service::protocol::Status;

/// The rig's cameras, by number.
const ALL: [usize; 2] = [0, 1];
/// Half of what the rig's cameras do: two of them share this machine with the simulated arm.
const RATE_HZ: f64 = 15.0;
/// A lap of the recordings, which are played again and again.
const FRAMES: u64 = 8;
/// How long one of two cameras fails, and a clock that has jumped is listened to.
const ONE_FAILS: Duration = Duration::from_secs(3);
/// How often the service is asked what is wrong.
const LISTEN: Duration = Duration::from_millis(20);
/// Longest until cameras are there again: a lost one is looked for every 5 s.
const BACK: Duration = Duration::from_secs(15);

/// Times that bounds are made of where a policy sees, s.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct SeenTimes {
    /// Between two pictures.
    pub frame_s: f64,
    /// A pose that is older is none.
    pub pose_age_s: f64,
    /// From an observation to the end of what it led to.
    pub chunk_s: f64,
    /// Until a picture that stands still is one that is frozen.
    pub frozen_s: f64,
    /// How long the arm waits for parts.
    pub missing_s: f64,
}

impl SeenTimes {
    pub fn of(config: &RobotConfig, spec: &PolicySpec) -> Self {
        let (cameras, fusion) = (of_runs(config), &config.fusion);
        let watch = WatchConfig::of_rate(RATE_HZ);
        let frozen = cameras.watch.frozen_frames.unwrap_or(watch.frozen_frames);
        Self {
            frame_s: 1.0 / RATE_HZ,
            pose_age_s: fusion.max_age_s.min(fusion.ages.lost_after_s),
            chunk_s: (spec.action_horizon + spec.observation_delay_steps) as f64 * spec.period_s,
            frozen_s: f64::from(frozen) / RATE_HZ,
            missing_s: cameras.max_missing_s,
        }
    }

    /// From the last picture until nothing is commanded that comes from it, apart from the stop: a picture is on its way, and the next
    /// was asked for already.
    pub fn blind_s(&self) -> f64 {
        2.0 * self.frame_s + self.pose_age_s + self.chunk_s
    }
}

/// `[cameras]` of the runs: the limits of robot.toml, for the rendered rig.
fn of_runs(config: &RobotConfig) -> CamerasConfig {
    let given = config.cameras.as_ref();
    CamerasConfig {
        rig: rendered::RIG.to_owned(),
        exposure_100us: 80,
        rate_hz: RATE_HZ,
        max_calibration_age_days: 30.0,
        ready_within_s: given.map_or(5.0, |cameras| cameras.ready_within_s),
        max_missing_s: given.map_or(2.0, |cameras| cameras.max_missing_s),
        realtime_priority: given.map_or(0, |cameras| cameras.realtime_priority),
        watch: CameraWatchConfig {
            // These pictures have noise: two that are equal are one.
            frozen_frames: given.and_then(|cameras| cameras.watch.frozen_frames).filter(|frames| *frames > 0),
            ..given.map_or_else(Default::default, |cameras| cameras.watch.clone())
        },
    }
}

/// What the runs with cameras need on top: recordings, a policy that observes.
#[derive(Debug, Clone)]
pub struct Rig {
    folder: PathBuf,
    pub bundle: PathBuf,
    /// What the cameras' clocks have jumped by so far, ms.
    jumped_ms: Arc<AtomicI64>,
}

impl Rig {
    /// Renders what the cameras see, into `folder`.
    ///
    /// # Errors
    /// As rendering and writing.
    pub fn new(folder: &Path, config: &RobotConfig) -> Result<Self> {
        rendered::record(folder, RATE_HZ, FRAMES, None).context("rendering what the cameras see")?;
        let bundle = policy::write(&Round::of_one_leg(&config.arm())?, folder)?;
        let rig = Self { folder: folder.to_owned(), bundle, jumped_ms: Arc::default() };
        rig.play(&ALL, Condition::Works)?;
        Ok(rig)
    }

    /// robot.toml with these cameras.
    ///
    /// # Errors
    /// As parsing `text`.
    pub fn in_config(text: &str) -> Result<String> {
        let cameras = of_runs(&tenon_core::config::parse("robot.toml", text)?);
        let mut table: toml::Table = text.parse().context("robot.toml")?;
        table.insert("cameras".to_owned(), toml::Value::try_from(&cameras).context("the cameras of the runs")?);
        toml::to_string(&table).context("robot.toml with the cameras of the runs")
    }

    /// Calibrates the cameras, in the folder of state that the service has.
    ///
    /// # Errors
    /// As writing a rig's folder.
    pub fn calibrate(&self, state: &Path) -> Result<()> {
        rendered::publish(state, rendered::calibration(&rfc3339(today())))
    }

    /// Options that name the cameras.
    pub fn options(&self) -> Vec<String> {
        let of = |(name, _): (&str, &str)| {
            ["--camera".to_owned(), format!("{name}=recorded:{}", self.folder.join(name).display())]
        };
        CAMERAS.into_iter().flat_map(of).collect()
    }

    fn play(&self, cameras: &[usize], camera: Condition) -> Result<()> {
        let clock_ms = self.jumped_ms.load(Ordering::Relaxed);
        for &index in cameras {
            let playback = Playback { camera, repeat: true, clock_ms };
            playback.write(&self.folder.join(CAMERAS[index].0)).context("telling a camera what to do")?;
        }
        Ok(())
    }
}

/// What was done to cameras, and what was said meanwhile.
#[derive(Debug, Clone, Default)]
pub struct Struck {
    /// Those that failed, by number.
    cameras: Vec<usize>,
    /// All that `tenon status` said of cameras.
    said: Vec<String>,
    pub detail: String,
}

/// Makes cameras fail for as long as `kind` has it, and listens; [`mend`] makes them work again.
///
/// # Errors
/// A camera cannot be told, or the service does not answer.
pub fn strike(kind: Kind, bench: &Bench, times: &Times, random: &mut ChaCha8Rng) -> Result<Struck> {
    let rig = bench.rig().context("this bench has no cameras")?;
    let one = random.random_range(0..CAMERAS.len());
    let (shortly, jump_s) = (random.random_range(0.8..1.1), 10f64.powf(random.random_range(-0.3..1.78)));
    let jump_ms = (1e3 * if random.random_bool(0.5) { jump_s } else { -jump_s }) as i64;
    let cameras = match kind {
        Kind::CameraGone | Kind::CameraFrozen => vec![one],
        _ => ALL.to_vec(),
    };
    let mut struck = Struck { cameras, said: Vec::new(), detail: String::new() };
    let (condition, lasts) = match kind {
        Kind::CameraGone => (Condition::Unplugged, ONE_FAILS),
        Kind::CameraFrozen => (Condition::Frozen, ONE_FAILS),
        Kind::CamerasClock => (Condition::Works, ONE_FAILS),
        Kind::CamerasHangShortly => (Condition::Hangs, Duration::from_secs_f64(shortly)),
        _ => {
            let condition = match kind {
                Kind::CamerasGone => Condition::Unplugged,
                Kind::CamerasFrozen => Condition::Frozen,
                Kind::CamerasEnded => Condition::Ended,
                _ => Condition::Hangs,
            };
            // Until the run must have ended by itself, and a while longer.
            let ends_s = kind.ends_within_s(times).unwrap_or_default();
            (condition, Duration::from_secs_f64(ends_s + 0.3))
        }
    };
    match kind {
        Kind::CameraGone | Kind::CameraFrozen => struck.detail = format!("the {} one", CAMERAS[one].0),
        Kind::CamerasClock => struck.detail = format!("by {:+.2} s", jump_ms as f64 * 1e-3),
        Kind::CamerasHangShortly => struck.detail = format!("for {shortly:.2} s"),
        _ => {}
    }
    if kind == Kind::CamerasClock {
        rig.jumped_ms.fetch_add(jump_ms, Ordering::Relaxed);
    }
    rig.play(&struck.cameras, condition)?;
    let until = Instant::now() + lasts;
    while Instant::now() < until {
        struck.listen(&bench.status()?);
        std::thread::sleep(LISTEN);
    }
    Ok(struck)
}

/// Makes all cameras work again, and waits until nothing is said against them. One whose recording has ended needs another service.
///
/// # Errors
/// They do not come back.
pub fn mend(kind: Kind, bench: &mut Bench) -> Result<()> {
    let rig = bench.rig().context("this bench has no cameras")?;
    rig.play(&ALL, Condition::Works)?;
    if kind == Kind::CamerasEnded {
        bench.service = None;
        return Ok(());
    }
    let word = said_of(kind).unwrap_or_default();
    let works = |status: &Status| status.cameras.iter().all(|line| !line.contains(word));
    bench.wait_for("the cameras work again", BACK, works)?;
    Ok(())
}

/// What must be said of a camera that fails so.
pub fn said_of(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::CameraGone | Kind::CamerasGone => "disconnected",
        Kind::CameraFrozen | Kind::CamerasFrozen => "the same picture",
        Kind::CamerasHang | Kind::CamerasHangShortly => "no frame for",
        Kind::CamerasEnded => "its recording has ended",
        Kind::CamerasClock => "its clock stepped",
        _ => return None,
    })
}

impl Struck {
    fn listen(&mut self, status: &Status) {
        // The last of each camera and kind of fault would do; a few hundred lines are no matter.
        self.said.extend(status.cameras.iter().cloned());
    }

    /// The words with which the cameras that failed were named, and what should have been said instead of what was.
    pub fn names(&self, kind: Kind) -> (Option<String>, Vec<String>) {
        let Some(word) = said_of(kind) else { return (None, Vec::new()) };
        let (mut named, mut wrong) = (Vec::new(), Vec::new());
        for (index, (name, _)) in CAMERAS.into_iter().enumerate() {
            let camera = format!("camera {name}");
            let said = self.said.iter().any(|line| line.starts_with(&camera) && line.contains(word));
            match (said, self.cameras.contains(&index)) {
                (true, true) => named.push(format!("{camera}: {word}")),
                (false, false) => {}
                (true, false) => wrong.push(format!("{camera} did not fail, and it is said: {word}")),
                (false, true) => {
                    let last: Vec<&String> = self.said.iter().rev().take(2).collect();
                    wrong.push(format!("not named: nobody says \"{word}\" of {camera}, but {last:?}"));
                }
            }
        }
        (Some(named.join(" + ")), wrong)
    }
}

/// Whether the controller waited for its parts as long as it should, and ended the run for that cause: `fault` is the first of the record,
/// `after_s` when, after the cameras had failed. In words what is wrong.
pub fn judge_end(kind: Kind, times: &Times, fault: Option<(f64, &str)>) -> Option<String> {
    let most_s = kind.ends_within_s(times)?;
    if kind.expected() != Expected::Stop && fault.is_none() {
        return None;
    }
    let Some((after_s, cause)) = fault else { return Some("the record has no fault".to_owned()) };
    if !cause.contains("PartMissing") {
        return Some(format!("the run ended for another cause: {cause}"));
    }
    let least_s = times.seen.missing_s;
    (!(least_s..=most_s).contains(&after_s)).then(|| {
        format!("the run ended {after_s:.3} s after the cameras failed, not within {least_s:.3} to {most_s:.3}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> RobotConfig {
        tenon_core::config::parse("robot.toml", TEXT).unwrap()
    }

    const TEXT: &str = include_str!("../../../../../configs/robot.toml");

    fn times() -> Times {
        let spec = Round::of_one_leg(&config().arm()).unwrap().spec;
        Times::of(&config(), 0.007, &spec)
    }

    #[test]
    fn the_limits_of_the_runs_are_those_of_robot_toml() {
        let text = Rig::in_config(TEXT).unwrap();
        let with: RobotConfig = tenon_core::config::parse("robot.toml", &text).unwrap();
        let cameras = with.cameras.clone().unwrap();
        assert_eq!((cameras.rig.as_str(), cameras.max_missing_s, cameras.rate_hz), ("bench", 2.0, RATE_HZ));
        assert_eq!(RobotConfig { cameras: None, ..with }, config());
        let given =
            format!("{TEXT}\n[cameras]\nrig = \"mine\"\nexposure_100us = 40\nrate_hz = 30.0\nmax_missing_s = 0.5\n");
        let given: RobotConfig = tenon_core::config::parse("robot.toml", &given).unwrap();
        assert_eq!(of_runs(&given).max_missing_s, 0.5);
    }

    #[test]
    fn each_camera_that_failed_has_to_be_named_with_its_fault_and_no_other() {
        let names = |cameras: &[usize], said: &[&str]| {
            let said = said.iter().map(|line| (*line).to_owned()).collect();
            Struck { cameras: cameras.to_vec(), said, detail: String::new() }.names(Kind::CamerasFrozen)
        };
        let (left, right) =
            ("camera left, for 0.1 s: the same picture 6 times", "camera right, for 0.2 s: the same picture 7 times");
        let (named, wrong) = names(&[0, 1], &[left, right]);
        assert_eq!(wrong, [""; 0]);
        assert_eq!(named.unwrap(), "camera left: the same picture + camera right: the same picture");
        assert!(names(&[0, 1], &[left]).1[0].contains("of camera right"));
        assert!(names(&[0], &[left, right]).1[0].contains("camera right did not fail"));
        assert!(names(&[0], &["camera left, for 0.4 s: no frame for 400 ms"]).1[0].contains("not named"));
        assert_eq!(names(&[0], &[left]).1, [""; 0]);
    }

    #[test]
    fn a_run_that_ends_too_early_too_late_or_for_another_cause_is_told() {
        let (times, kind) = (times(), Kind::CamerasGone);
        let judge = |after_s, cause| judge_end(kind, &times, Some((after_s, cause))).unwrap_or_default();
        let missing = "Faulted(PartMissing(NotReady { part: \"square_table_top\" }))";
        let most_s = kind.ends_within_s(&times).unwrap();
        assert_eq!(judge(2.6, missing), "");
        assert!(judge(1.9, missing).contains("1.900 s") && judge(most_s + 0.01, missing).contains("not within"));
        assert!(judge(2.6, "Faulted(StateStale { age_ms: 251 })").contains("another cause"));
        assert!(judge_end(kind, &times, None).is_some() && judge_end(Kind::CameraGone, &times, None).is_none());
        assert_eq!(judge_end(Kind::LinkCut, &times, None), None);
    }
}
