//! The sequencer: gives orders to the control thread, waits for its events, remembers when episodes were.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use crossbeam::channel::Receiver;
use tenon_core::safety::WorkspaceBox;
use tenon_core::spec::PolicySpec;
use tenon_core::time::MonotonicTime;

use super::program::Program;
use crate::control_loop::Handles;
use crate::machine::{Event, FaultCause, Order, Phase};
use crate::seeing::Seeing;

/// An episode: when it was, and what the policy saw at each chunk (physical units).
pub struct Window {
    pub start: MonotonicTime,
    pub end: MonotonicTime,
    pub observations: Vec<Vec<f32>>,
    /// The episode ran to its end.
    pub complete: bool,
}

/// A run in progress.
pub struct Session {
    handles: Handles,
    policy_errors: Receiver<String>,
    interrupted: Arc<AtomicBool>,
    quiet: bool,
    rearm: bool,
    watchdog: Watchdog,
    /// Lease under which the arm is armed first.
    session: u64,
    /// With how long a start waits for the parts.
    seeing: Option<(Seeing, Duration)>,
    pub windows: Vec<Window>,
    pub late_chunks: u64,
}

impl Session {
    /// `rearm`: see [`Session::recover`]. `session`: the lease's number, of [`session_id`].
    pub fn new(
        handles: Handles,
        policy_errors: Receiver<String>,
        interrupted: Arc<AtomicBool>,
        seeing: Option<(Seeing, Duration)>,
        quiet: bool,
        rearm: bool,
        session: u64,
    ) -> Self {
        Self {
            handles,
            policy_errors,
            interrupted,
            quiet,
            rearm,
            watchdog: Watchdog::default(),
            session,
            seeing,
            windows: Vec::new(),
            late_chunks: 0,
        }
    }

    /// Arms and runs the episodes. An error names the fault; the windows of finished episodes stay.
    pub fn episodes(
        &mut self,
        spec: &PolicySpec,
        program: &Program,
        workspace: &WorkspaceBox,
        episodes: usize,
    ) -> Result<()> {
        // Before the arm is armed: without the parts there is nothing to run.
        self.await_parts()?;
        self.order(Order::Arm { session: self.session });
        self.wait(Duration::from_secs(8), "arming", |e| matches!(e, Event::Armed))?;
        // READY only once the arm follows: systemd starts what depends on it then.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        for index in 0..episodes {
            self.settle()?;
            let from = self.handles.view.read().commanded_pose;
            for motion in program.return_motions(&from, workspace).into_iter().flatten() {
                self.settle()?;
                self.order(Order::Move(motion));
                self.wait(Duration::from_secs(20), "moving to the start", |e| matches!(e, Event::MotionEnded))?;
            }
            self.pause(Duration::from_millis(300))?;
            self.await_parts()?;
            self.settle()?;
            self.order(Order::Run { actions: program.actions });
            let limit = Duration::from_secs_f64(spec.period_s * program.actions as f64 * 3.0 + 5.0);
            let (start, ended) = match self.wait(limit, "the first action", |e| matches!(e, Event::RunStarted)) {
                Ok(start) => (start, self.wait(limit, "the episode", |e| matches!(e, Event::RunEnded { .. }))),
                Err(error) => (crate::clock::now(), Err(error)),
            };
            let observations =
                std::iter::from_fn(|| self.handles.requests.pop()).map(|r| r.observation[..r.len].to_vec()).collect();
            let end = *ended.as_ref().unwrap_or(&crate::clock::now());
            self.windows.push(Window { start, end, observations, complete: ended.is_ok() });
            if let Err(error) = ended {
                self.recover(error)?;
            }
            if !self.quiet {
                eprintln!("episode {:>2}/{episodes}: {:.2} s", index + 1, end.seconds_since(start));
            }
        }
        Ok(())
    }

    /// After an episode that the controller stopped because of what the policy asked for: on the simulated robot, where
    /// no person stands, arms again and goes on; the episode counts as failed. On a robot only a person re-arms.
    fn recover(&mut self, error: anyhow::Error) -> Result<()> {
        let by_the_policy = matches!(
            self.handles.view.read().phase,
            Phase::Fault(FaultCause::Refused { .. } | FaultCause::BadAction { .. } | FaultCause::Singular(_))
        );
        if !(self.rearm && by_the_policy) {
            return Err(error);
        }
        eprintln!("episode stopped: {error:#} It counts as failed; the simulated arm is armed again.");
        self.order(Order::Arm { session: session_id() });
        self.wait(Duration::from_secs(8), "arming again", |e| matches!(e, Event::Armed))?;
        Ok(())
    }

    /// Holds, hands the arm back and ends the control thread.
    pub fn finish(&mut self) {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        self.order(Order::Hold);
        self.order(Order::Disarm);
        let until = Instant::now() + Duration::from_millis(1000);
        while Instant::now() < until && !matches!(self.handles.view.read().phase, Phase::Disarmed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Two more ticks let the release leave.
        std::thread::sleep(Duration::from_millis(50));
        self.handles.stop.store(true, Ordering::Release);
    }

    /// Waits until every part that the policy observes has a pose.
    fn await_parts(&mut self) -> Result<()> {
        let Some((mut seeing, limit)) = self.seeing.take() else { return Ok(()) };
        let ready = seeing.wait_ready(limit, || self.check());
        self.seeing = Some((seeing, limit));
        ready.map(|_| ())
    }

    fn order(&self, order: Order) {
        // The queue is longer than all orders that can be outstanding; the newest would replace the oldest.
        self.handles.orders.force_push(order);
    }

    fn wait(&mut self, limit: Duration, what: &str, wanted: impl Fn(Event) -> bool) -> Result<MonotonicTime> {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            while let Some((time, event)) = self.handles.events.pop() {
                match event {
                    Event::Faulted(cause) => bail!("while {what}: {cause}. The arm holds."),
                    Event::ChunkLate { .. } => self.late_chunks += 1,
                    Event::RunRefused(part) => bail!("{what}: {part}. The arm holds."),
                    Event::PartAwaited(part) => {
                        if !self.quiet {
                            eprintln!("note: the arm holds: {part}");
                        }
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
        while !matches!(self.handles.view.read().phase, Phase::Holding | Phase::Fault(_)) {
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
            if let Phase::Fault(cause) = self.handles.view.read().phase {
                bail!("while holding: {cause}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        self.watchdog.feed(self.handles.ticks.load(Ordering::Acquire));
        if self.interrupted.load(Ordering::Acquire) {
            bail!("interrupted; the arm holds");
        }
        if let Ok(error) = self.policy_errors.try_recv() {
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
