//! The sequencer: gives orders to the control thread, waits for its events, remembers when episodes were.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use crossbeam::channel::Receiver;
use rtrb::Producer;
use tenon_core::safety::WorkspaceBox;
use tenon_core::spec::PolicySpec;
use tenon_core::time::MonotonicTime;

use super::gate::{Gate, Taken};
use super::program::Program;
use crate::control_loop::{Handles, View};
use crate::machine::{Event, FaultCause, Order, Phase};
use crate::seeing::Seeing;

/// Longest wait for the bridge to grant the lease and upload the controller.
const ARMING: Duration = Duration::from_secs(8);
/// Happenings that are remembered for who asks.
const HAPPENINGS: usize = 8;

/// An episode: when it was, and what the policy saw at each chunk (physical units).
pub struct Window {
    pub start: MonotonicTime,
    pub end: MonotonicTime,
    pub observations: Vec<Vec<f32>>,
    /// The episode ran to its end.
    pub complete: bool,
}

/// What a session is made with.
pub struct Ends {
    pub handles: Handles,
    pub policy_errors: Receiver<String>,
    pub interrupted: Arc<AtomicBool>,
    /// With how long a start waits for the parts.
    pub seeing: Option<(Seeing, Duration)>,
    pub quiet: bool,
    /// See [`Session::recover`].
    pub rearm: bool,
    /// Lease under which the arm is armed first, of [`session_id`].
    pub session: u64,
    /// The arm does not follow: it is not led to the start of an episode.
    pub readonly: bool,
}

/// How a run stands.
pub struct Standing<'a> {
    pub view: &'a View,
    /// Ticks so far.
    pub ticks: u64,
    /// What happened lately, the newest last.
    pub happenings: &'a VecDeque<(MonotonicTime, String)>,
    /// What is wrong with the cameras now, a line for each fault.
    pub cameras: &'a [String],
}

/// Told how the run stands.
pub type Watcher = dyn FnMut(&Standing);

/// A run in progress.
pub struct Session {
    ends: Ends,
    gate: Gate,
    watchdog: Watchdog,
    happenings: VecDeque<(MonotonicTime, String)>,
    /// What was wrong with the cameras when they were looked at last.
    cameras: Vec<String>,
    /// Told as often as there is a look.
    watcher: Option<Box<Watcher>>,
    narrating: bool,
    pub windows: Vec<Window>,
    pub late_chunks: u64,
}

impl Session {
    /// `orders`: the way to the control thread, which the gate guards from now on.
    pub fn new(ends: Ends, orders: Producer<Order>) -> Self {
        Self {
            gate: Gate::new(orders),
            ends,
            watchdog: Watchdog::default(),
            happenings: VecDeque::with_capacity(HAPPENINGS),
            cameras: Vec::new(),
            watcher: None,
            narrating: false,
            windows: Vec::new(),
            late_chunks: 0,
        }
    }

    /// The way of orders, for who stands at the arm.
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// `watcher` is told how the run stands, as long as the session waits for anything.
    pub fn watch(&mut self, watcher: Box<Watcher>) {
        self.watcher = Some(watcher);
    }

    /// From now on everything that happens is a line on standard error.
    pub fn narrate(&mut self) {
        self.narrating = true;
    }

    pub fn view(&mut self) -> View {
        *self.ends.handles.view.read()
    }

    /// Takes the lease and has the arm hold its position.
    pub fn arm(&mut self) -> Result<()> {
        // An earlier try's event would be taken for this one's.
        self.look();
        self.order(Order::Arm { session: self.ends.session })?;
        self.wait(ARMING, "arming", |e| matches!(e, Event::Armed))?;
        Ok(())
    }

    /// Waits until every part that the policy observes has a pose.
    pub fn await_parts(&mut self) -> Result<()> {
        let Some((mut seeing, limit)) = self.ends.seeing.take() else { return Ok(()) };
        let ready = seeing.wait_ready(limit, |seeing| {
            self.cameras = seeing.faults();
            self.check()
        });
        self.ends.seeing = Some((seeing, limit));
        ready.map(|_| ())
    }

    /// One episode of an armed arm: back to the start, then the policy. An error names the fault; the windows of what was run stay.
    pub fn episode(&mut self, spec: &PolicySpec, program: &Program, workspace: &WorkspaceBox) -> Result<Duration> {
        // What was ignored or ended before is no answer to what is ordered now.
        self.look();
        self.settle()?;
        if !self.ends.readonly {
            let from = self.view().commanded_pose;
            for motion in program.return_motions(&from, workspace).into_iter().flatten() {
                self.settle()?;
                self.order(Order::Move(motion))?;
                self.wait(Duration::from_secs(20), "moving to the start", |e| matches!(e, Event::MotionEnded))?;
            }
        }
        self.pause(Duration::from_millis(300))?;
        self.await_parts()?;
        self.settle()?;
        self.order(Order::Run { actions: program.actions })?;
        let limit = Duration::from_secs_f64(spec.period_s * program.actions as f64 * 3.0 + 5.0);
        let (start, ended) = match self.wait(limit, "the first action", |e| matches!(e, Event::RunStarted)) {
            Ok(start) => (start, self.wait(limit, "the episode", |e| matches!(e, Event::RunEnded { .. }))),
            Err(error) => (crate::clock::now(), Err(error)),
        };
        let requests = &mut self.ends.handles.requests;
        let observations =
            std::iter::from_fn(|| requests.pop().ok()).map(|r| r.observation[..r.len].to_vec()).collect();
        let end = *ended.as_ref().unwrap_or(&crate::clock::now());
        self.windows.push(Window { start, end, observations, complete: ended.is_ok() });
        if let Err(error) = ended {
            self.recover(error)?;
        }
        Ok(end.since(start))
    }

    /// After an episode that the controller stopped because of what the policy asked for: on the simulated robot, where
    /// no person stands, arms again and goes on; the episode counts as failed. On a robot only a person re-arms.
    fn recover(&mut self, error: anyhow::Error) -> Result<()> {
        let by_the_policy = matches!(
            self.view().phase,
            Phase::Fault(FaultCause::Refused { .. } | FaultCause::BadAction { .. } | FaultCause::Singular(_))
        );
        if !(self.ends.rearm && by_the_policy) {
            return Err(error);
        }
        eprintln!("episode stopped: {error:#} It counts as failed; the simulated arm is armed again.");
        self.order(Order::Arm { session: session_id() })?;
        self.wait(ARMING, "arming again", |e| matches!(e, Event::Armed))?;
        Ok(())
    }

    /// Holds, hands the arm back and ends the control thread.
    pub fn finish(&mut self) {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        self.gate.take("the program ends", &[Order::Hold, Order::Disarm]);
        let until = Instant::now() + Duration::from_millis(1000);
        while Instant::now() < until && !matches!(self.view().phase, Phase::Disarmed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Two more ticks let the release leave.
        std::thread::sleep(Duration::from_millis(50));
        self.ends.handles.stop.store(true, Ordering::Release);
    }

    fn order(&self, order: Order) -> Result<()> {
        self.gate.give(order).map_err(|Taken(how)| anyhow!("{how}"))
    }

    /// Takes what has happened out of the queue.
    pub fn look(&mut self) {
        while let Ok((time, event)) = self.ends.handles.events.pop() {
            self.remember(time, event);
        }
    }

    /// What is wrong with the cameras now, in brackets behind what a missing part has led to; empty where nothing is.
    fn cameras_in_words(&mut self) -> String {
        self.look_at_cameras();
        if self.cameras.is_empty() { String::new() } else { format!(" ({})", self.cameras.join("; ")) }
    }

    fn look_at_cameras(&mut self) {
        // While a start waits for the parts, that looks at them.
        if let Some((seeing, _)) = &mut self.ends.seeing {
            self.cameras = seeing.faults();
        }
    }

    /// A cause as people are told it: with the cameras, where a part is missing.
    fn cause_in_words(&mut self, cause: FaultCause) -> String {
        let cameras = match cause {
            FaultCause::PartMissing(_) | FaultCause::PartsStale { .. } => self.cameras_in_words(),
            _ => String::new(),
        };
        format!("{cause}{cameras}")
    }

    fn remember(&mut self, time: MonotonicTime, event: Event) {
        let words = match event {
            Event::Faulted(cause) => format!("fault: {}", self.cause_in_words(cause)),
            Event::PartAwaited(part) => format!("the arm holds: {part}{}", self.cameras_in_words()),
            Event::RunRefused(part) => format!("an episode was not begun: {part}{}", self.cameras_in_words()),
            Event::Armed => "armed".to_owned(),
            Event::Disarmed => "disarmed".to_owned(),
            Event::RunStarted => "an episode begins".to_owned(),
            Event::RunEnded { actions } => format!("an episode has ended after {actions} actions"),
            Event::ChunkLate { .. } => {
                self.late_chunks += 1;
                return;
            }
            Event::OrderIgnored | Event::MotionEnded => return,
        };
        self.note(time, words);
    }

    /// Among what happened: this.
    pub fn note(&mut self, time: MonotonicTime, words: String) {
        if self.narrating {
            eprintln!("{words}");
        }
        if self.happenings.len() == HAPPENINGS {
            self.happenings.pop_front();
        }
        self.happenings.push_back((time, words));
    }

    fn wait(&mut self, limit: Duration, what: &str, wanted: impl Fn(Event) -> bool) -> Result<MonotonicTime> {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            while let Ok((time, event)) = self.ends.handles.events.pop() {
                self.remember(time, event);
                match event {
                    Event::Faulted(cause) => {
                        bail!("while {what}: {}. The arm holds.", self.cause_in_words(cause))
                    }
                    Event::RunRefused(part) => bail!("{what}: {part}{}. The arm holds.", self.cameras_in_words()),
                    Event::PartAwaited(part) if !self.ends.quiet => {
                        eprintln!("note: the arm holds: {part}{}", self.cameras_in_words());
                    }
                    Event::OrderIgnored => bail!("{what}: the controller was not ready for this order"),
                    _ => {}
                }
                if wanted(event) {
                    return Ok(time);
                }
            }
            self.check()?;
            std::thread::sleep(Duration::from_millis(2));
        }
        bail!("{what} did not end within {limit:?}");
    }

    /// Waits until the arm rests: a run ends in a stop.
    fn settle(&mut self) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(2);
        // The event of a run's end may be here before the view of it.
        while !matches!(self.view().phase, Phase::Holding | Phase::Fault(_)) {
            self.check()?;
            if Instant::now() > until {
                bail!("the arm does not come to rest");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn pause(&mut self, duration: Duration) -> Result<()> {
        let until = Instant::now() + duration;
        while Instant::now() < until {
            self.check()?;
            if let Phase::Fault(cause) = self.view().phase {
                bail!("while holding: {cause}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Whether the run may go on; feeds the watchdog.
    pub fn check(&mut self) -> Result<()> {
        self.attend()?;
        self.gate.check().map_err(|Taken(how)| anyhow!("{how}"))
    }

    /// What has to be done all the time, whoever commands.
    ///
    /// # Errors
    /// The program is to end, or the policy has failed.
    pub fn attend(&mut self) -> Result<()> {
        let ticks = self.ends.handles.ticks.load(Ordering::Acquire);
        self.watchdog.feed(ticks);
        let view = self.view();
        self.look_at_cameras();
        if let Some(watcher) = &mut self.watcher {
            watcher(&Standing { view: &view, ticks, happenings: &self.happenings, cameras: &self.cameras });
        }
        if self.ends.interrupted.load(Ordering::Acquire) {
            bail!("interrupted; the arm holds");
        }
        if let Ok(error) = self.ends.policy_errors.try_recv() {
            bail!("the policy failed: {error}");
        }
        Ok(())
    }
}

/// Feeds systemd's watchdog while the control thread makes progress, and only then.
#[derive(Default)]
struct Watchdog {
    ticks: u64,
    fed: Option<Instant>,
}

impl Watchdog {
    fn feed(&mut self, ticks: u64) {
        if ticks != self.ticks && self.fed.is_none_or(|t| t.elapsed() > Duration::from_millis(100)) {
            self.ticks = ticks;
            self.fed = Some(Instant::now());
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }
}

/// A lease number that no other run has: time and process. Never 0, which means "no lease".
pub fn session_id() -> u64 {
    let nanos = crate::clock::now().as_nanos() as u64;
    ((u64::from(std::process::id()) << 40) ^ nanos).max(1)
}
