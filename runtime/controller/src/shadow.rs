//! Shadow mode: a candidate policy is asked what the driving one is asked; only how its answers differ is logged.
//!
//! ```text
//! control thread ─ request ─► policy thread ─ chunk ─► control thread
//!                                  └─ request, noise, chunk ─► candidate's thread ─► shadow.jsonl, summary
//! ```
//!
//! The candidate has no way to the arm: it is told over a queue, works on a thread of low priority, and where it does
//! not keep up chunks are left out and counted. It draws the same noise as the driving policy, so two equal policies do not differ.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use crossbeam::channel::{Receiver, bounded};
use serde::{Deserialize, Serialize};
use tenon_core::action::{ActionChunk, decode_action};
use tenon_core::geometry::Pose;
use tenon_core::spec::{ActionField, PolicySpec};
use tenon_policy::{Bundle, Engine, OnnxDenoiser};

use crate::clock;
use crate::inference::{ChunkSampler, Shadowing, Told};

/// Chunks that the candidate may lag behind.
const WAITING: usize = 4;

/// How one chunk of the candidate differs from what the arm followed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The request that both answered.
    pub chunk: u64,
    /// Largest distance between the two tool points over the actions that are executed, m.
    pub most_m: f64,
    /// Mean of the same.
    pub mean_m: f64,
    /// Largest angle between the two orientations, degrees.
    pub most_deg: f64,
    /// Actions in which one would open the gripper and the other close it.
    pub gripper: usize,
    /// The candidate's first action that is not finite or no pose; the numbers above are of the actions before it.
    pub unusable: Option<usize>,
    /// Time that the candidate took, ms, beside the driving policy and at low priority.
    pub took_ms: f64,
}

/// What became of all chunks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShadowReport {
    pub candidate: String,
    /// One JSON object a line.
    pub log: PathBuf,
    pub chunks: u64,
    /// Chunks for which the candidate had no time.
    pub missed: u64,
    pub most_m: f64,
    pub mean_m: f64,
    pub most_deg: f64,
    pub gripper: usize,
    pub unusable: u64,
    /// Why it ended before the run.
    pub trouble: Option<String>,
}

/// A candidate that runs along.
pub struct Shadow {
    report: Arc<Mutex<ShadowReport>>,
    missed: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Shadow {
    /// Loads the candidate and starts its thread, which ends with the [`Shadowing`] (that is, with the policy's thread).
    ///
    /// # Errors
    /// The bundle cannot be read, or it does not answer the driving policy's questions; what differs is named.
    pub fn start(candidate: &Path, driving: &PolicySpec, engine: Engine, log: &Path) -> Result<(Self, Shadowing)> {
        let bundle = Bundle::open(candidate).context("opening the bundle")?;
        let spec = bundle.spec().clone();
        comparable(driving, &spec)?;
        let denoiser = bundle.denoiser(engine).with_context(|| format!("loading the networks with {engine}"))?;
        let sampler = ChunkSampler::new(spec.clone(), bundle.denoising(), denoiser, 0);
        let file = std::fs::File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let (told, receive) = bounded(WAITING);
        let missed = Arc::<AtomicU64>::default();
        let report = Arc::new(Mutex::new(ShadowReport {
            candidate: candidate.display().to_string(),
            log: log.to_owned(),
            ..ShadowReport::default()
        }));
        let worker = Worker {
            sampler,
            action: spec.action.clone(),
            executed: driving.action_horizon.min(spec.action_horizon),
            report: report.clone(),
            log: file,
        };
        let thread = std::thread::Builder::new()
            .name("tenon-shadow".into())
            .spawn(move || worker.run(&receive))
            .context("starting the candidate's thread")?;
        Ok((Self { report, missed: missed.clone(), thread }, Shadowing { told, missed }))
    }

    /// For who wants to know how it stands.
    pub fn watch(&self) -> impl Fn() -> ShadowReport + use<> {
        let (report, missed) = (self.report.clone(), self.missed.clone());
        move || {
            let report = report.lock().unwrap_or_else(PoisonError::into_inner).clone();
            ShadowReport { missed: missed.load(Ordering::Relaxed), ..report }
        }
    }

    /// Waits until what was handed over has been compared. The policy's thread must have ended.
    pub fn finish(self) -> ShadowReport {
        let watch = self.watch();
        let panicked = self.thread.join().is_err();
        let mut report = watch();
        if panicked {
            report.trouble.get_or_insert_with(|| "the candidate's thread panicked; its message is above".to_owned());
        }
        report
    }
}

/// Whether both policies can be asked the same and their answers compared.
fn comparable(driving: &PolicySpec, candidate: &PolicySpec) -> Result<()> {
    if driving.observation != candidate.observation {
        bail!("it observes {:?}, the driving policy {:?}", candidate.observation, driving.observation);
    }
    if driving.action != candidate.action {
        bail!("it acts through {:?}, the driving policy through {:?}", candidate.action, driving.action);
    }
    for (what, found, wanted) in [
        ("observation_horizon", candidate.observation_horizon, driving.observation_horizon),
        ("observation_delay_steps", candidate.observation_delay_steps, driving.observation_delay_steps),
    ] {
        if found != wanted {
            bail!("its {what} is {found}, the driving policy's {wanted}");
        }
    }
    if driving.period_s != candidate.period_s {
        bail!("it acts every {} s, the driving policy every {} s", candidate.period_s, driving.period_s);
    }
    Ok(())
}

struct Worker {
    sampler: ChunkSampler<OnnxDenoiser>,
    action: Vec<ActionField>,
    executed: usize,
    report: Arc<Mutex<ShadowReport>>,
    log: std::fs::File,
}

impl Worker {
    fn run(mut self, told: &Receiver<Told>) {
        // SAFETY: no pointers are involved; on Linux it is this thread that is made nicer.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 15) };
        while let Ok(said) = told.recv() {
            if let Err(error) = self.compare(&said) {
                let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
                report.trouble = Some(format!("{error:#}"));
                eprintln!("warning: the candidate {} no longer runs along: {error:#}", report.candidate);
                return;
            }
        }
    }

    fn compare(&mut self, said: &Told) -> Result<()> {
        let started = clock::now();
        self.sampler.set_noise(said.noise);
        // With as many steps as it has: time is what its line says.
        let candidate = self.sampler.sample(&said.request, usize::MAX).context("sampling a chunk")?;
        let difference = difference(&self.action, self.executed, &said.chunk, &candidate, clock::elapsed(started));
        let line = serde_json::to_string(&difference).context("a difference is plain data")? + "\n";
        self.log.write_all(line.as_bytes()).context("writing its log")?;
        self.report.lock().unwrap_or_else(PoisonError::into_inner).add(&difference);
        Ok(())
    }
}

impl ShadowReport {
    fn add(&mut self, difference: &Difference) {
        self.most_m = self.most_m.max(difference.most_m);
        self.mean_m += (difference.mean_m - self.mean_m) / (self.chunks + 1) as f64;
        self.most_deg = self.most_deg.max(difference.most_deg);
        self.gripper += difference.gripper;
        self.unusable += u64::from(difference.unusable.is_some());
        self.chunks += 1;
    }
}

/// Over the first `executed` actions; increments add up from one common pose.
fn difference(
    fields: &[ActionField],
    executed: usize,
    driving: &ActionChunk,
    candidate: &ActionChunk,
    took: Duration,
) -> Difference {
    let mut found = Difference {
        chunk: driving.request,
        most_m: 0.0,
        mean_m: 0.0,
        most_deg: 0.0,
        gripper: 0,
        unusable: None,
        took_ms: took.as_secs_f64() * 1e3,
    };
    let (mut led, mut would) = (Pose::identity(), Pose::identity());
    let mut compared = 0;
    for step in 0..executed {
        let decode = |chunk: &ActionChunk, from: &Pose| decode_action(fields, from, chunk.action(step)?);
        // What the driving policy cannot mean is the controller's business.
        let Some(a) = decode(driving, &led) else { break };
        let Some(b) = decode(candidate, &would) else {
            found.unusable = Some(step);
            break;
        };
        (led, would) = (a.T_base_tcp, b.T_base_tcp);
        let apart_m = (led.translation.vector - would.translation.vector).norm();
        found.most_m = found.most_m.max(apart_m);
        found.mean_m += apart_m;
        found.most_deg = found.most_deg.max(led.rotation.angle_to(&would.rotation).to_degrees());
        found.gripper += usize::from(matches!((a.gripper, b.gripper), (Some(a), Some(b)) if a * b < 0.0));
        compared += 1;
    }
    found.mean_m /= f64::from(compared.max(1));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLANAR: [ActionField; 1] = [ActionField::PlanarIncrement { z_m: 0.1, quat_wxyz: [0.0, 1.0, 0.0, 0.0] }];

    fn chunk(actions: &[[f32; 2]]) -> ActionChunk {
        ActionChunk::new(7, 2, actions.as_flattened()).unwrap()
    }

    #[test]
    fn increments_add_up_and_only_executed_actions_count() {
        let driving = chunk(&[[0.01, 0.0], [0.01, 0.0], [0.0, 0.0]]);
        let candidate = chunk(&[[0.01, 0.003], [0.01, 0.001], [9.0, 9.0]]);
        let found = difference(&PLANAR, 2, &driving, &candidate, Duration::from_millis(3));
        assert!((found.most_m - 0.004).abs() < 1e-8, "{found:?}");
        assert!((found.mean_m - 0.0035).abs() < 1e-8, "{found:?}");
        assert_eq!((found.most_deg, found.gripper, found.unusable, found.took_ms), (0.0, 0, None, 3.0));
        assert_eq!(difference(&PLANAR, 3, &driving, &driving, Duration::ZERO).most_m, 0.0);
    }

    #[test]
    fn a_candidate_that_cannot_be_meant_is_named() {
        let driving = chunk(&[[0.01, 0.0]; 3]);
        let candidate = chunk(&[[0.01, 0.0], [f32::NAN, 0.0], [0.01, 0.0]]);
        let found = difference(&PLANAR, 3, &driving, &candidate, Duration::ZERO);
        assert_eq!((found.unusable, found.most_m), (Some(1), 0.0));
        let mut report = ShadowReport::default();
        report.add(&found);
        report.add(&Difference { most_m: 0.2, mean_m: 0.1, unusable: None, ..found });
        assert_eq!((report.chunks, report.unusable, report.most_m, report.mean_m), (2, 1, 0.2, 0.05));
    }

    #[test]
    fn turns_and_grippers_are_compared() {
        let fields = [ActionField::TcpPosition, ActionField::TcpRotation6d, ActionField::Gripper];
        let action = |yaw: f32, grip: f32| {
            let (s, c) = yaw.sin_cos();
            [0.5, 0.0, 0.1, c, -s, 0.0, s, c, 0.0, grip]
        };
        let of = |yaw, grip| ActionChunk::new(1, 10, &action(yaw, grip)).unwrap();
        let found = difference(&fields, 1, &of(0.1, -1.0), &of(0.3, 1.0), Duration::ZERO);
        assert!((found.most_deg - 0.2f64.to_degrees()).abs() < 1e-4, "{found:?}");
        assert_eq!((found.most_m, found.gripper), (0.0, 1));
    }
}
