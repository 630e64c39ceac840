//! One segment: the control loop as `tenon run` has it, at 1 kHz, looked at from within.
//!
//! Real are the loop, the controller with inverse kinematics, limits and stops, the link over zenoh with its sending thread, the flight
//! recorder, the policy's thread, priority, memory and processor. Made up are the chunks ([`super::plan::Plan`]) and the arm.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rtrb::Producer;
use tenon_core::config::RobotConfig;
use tenon_core::timeline::HandOver;
use tenon_link::{DEFAULT_ROBOT, Endpoint, RobotKeys, ZenohLink, open_bridge_link};
use tenon_recorder::{Limits, Settings as RecorderSettings};

use super::plan::{Arm, Plan, START_RAD, TARGETS_PER_ACTION, spec};
use super::statistics::Durations;
use crate::control_loop::{self, Handles, TickTimes, Watch};
use crate::machine::{Controller, Event, Order, Phase, Settings};
use crate::motion::Motion;
use crate::realtime::{self, Asked, Granted};
use crate::record::{ControlTap, RunRecorder};
use crate::syscalls::{Seen, SyscallWatch, Watched};
use crate::{allocations, clock, inference, processes, run};

/// Ticks of the run that are not measured: the first chunk comes, the arm begins to move.
const WARM_UP: usize = 500;
/// The bench measures delays; which of them are a fault is the run's business. At 1 kHz this is ten seconds.
const MOST_LATE: usize = 10_000;
const OLDEST_STATE: Duration = Duration::from_secs(1);

/// What a segment is run with.
pub struct SegmentSettings {
    pub config: RobotConfig,
    pub asked: Asked,
    /// Ticks that are measured.
    pub ticks: usize,
    /// For the recorder's files, which are removed afterwards.
    pub folder: PathBuf,
}

/// What a segment has found.
#[derive(Debug, Clone)]
pub struct Segment {
    pub wake_up: Durations,
    /// Of the tick itself, [`Controller::tick`]: inverse kinematics, limits, stops.
    pub work: Durations,
    /// From the wake-up until everything is handed over and recorded.
    pub all: Durations,
    pub granted: Granted,
    /// Calls of the allocator from arming to the loop's end; absent where the program does not count them.
    pub allocations: Option<u64>,
    /// Calls of the operating system that may not be, from arming to the loop's end; an error where nobody could look.
    pub syscalls: Result<Vec<Seen>, String>,
    /// Page faults of the control thread from arming to the loop's end.
    pub page_faults: u64,
    /// Ticks from arming to the loop's end.
    pub watched_ticks: u64,
    pub recorded_ticks: u64,
    pub dropped_records: u64,
}

/// Runs one.
///
/// # Errors
/// What could not be started; a fault of the controller; being interrupted.
pub fn run(settings: &SegmentSettings, interrupted: &AtomicBool) -> Result<Segment> {
    // In a thread of its own, because what it starts is preferred and stays off the control thread's processor, as in a run.
    let joined = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("bench-segment".into());
        let run = thread.spawn_scoped(scope, || {
            // Where there is no other processor they share it.
            settings.asked.cpu.map(realtime::keep_off);
            processes::prefer();
            run_here(settings, interrupted)
        });
        run.map(|thread| thread.join())
    });
    match joined.context("starting the segment's thread")? {
        Ok(found) => found,
        Err(_) => bail!("the segment panicked; its message is above"),
    }
}

fn run_here(settings: &SegmentSettings, interrupted: &AtomicBool) -> Result<Segment> {
    let SegmentSettings { config, asked, ticks, folder } = settings;
    let (ticks, asked) = (*ticks, *asked);
    let spec = spec();
    let plan = Plan::new(config)?;
    let controller = Controller::new(controller_settings(config), &spec)?;
    let arm = config.arm();

    let endpoint = free_endpoint()?;
    let keys = RobotKeys::new(DEFAULT_ROBOT)?;
    let now: tenon_link::Clock = Arc::new(clock::now);
    let (sender, inbox) = open_bridge_link(&endpoint, &keys, Arc::clone(&now), || {}).context("opening the link")?;
    let bench_arm = Arm::start(sender, inbox, config)?;
    let link = ZenohLink::connect(&endpoint, &keys, now, Duration::from_secs(5)).context("connecting the link")?;

    let (mut orders, mut handles, mut ends) = control_loop::handles();
    let record = folder.join("record");
    let (recorder, tap) = RunRecorder::start(RecorderSettings {
        folder: record.clone(),
        metadata: [("task".to_owned(), spec.task.clone())].into(),
        arm,
        wall_offset_ns: 0,
        limits: Limits::default(),
        trouble: Box::new(|text| eprintln!("warning: flight recorder: {text}")),
    })
    .context("beginning the record")?;
    ends.record_to(ControlTap::new(tap));
    let inference =
        inference::spawn_with(move |request| plan.chunk(request.id).ok_or_else(|| "the plan has no chunk".to_owned()))
            .context("starting the policy's thread")?;

    let (watch, watched) = SyscallWatch::start().context("starting the thread that hears of system calls")?;
    let found = Arc::new(Mutex::new(None));
    ends.watch_with(Looking::new(ticks, watched, Arc::clone(&found)));
    let control = std::thread::Builder::new()
        .name("tenon-control".into())
        .spawn(move || {
            let granted = realtime::request(&asked);
            control_loop::run(controller, link, inference, None, ends, arm, Duration::ZERO);
            granted
        })
        .context("starting the control thread")?;
    let sequenced = sequence(&mut orders, &mut handles, ticks, interrupted);
    handles.stop.store(true, Ordering::Release);
    let Ok(granted) = control.join() else { bail!("the control thread panicked; its message is above") };
    drop(bench_arm);
    let recorded = recorder.finish();
    let seen = watch.finish();
    std::fs::remove_dir_all(&record).with_context(|| format!("removing {}", record.display()))?;
    sequenced?;

    let found = found.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Found { samples, allocations, filtered, page_faults, watched_ticks } =
        found.context("the arm was armed, but the loop has told nothing")?;
    let of = |pick: fn(&[u32; 3]) -> u32| Durations::of(samples.iter().map(|times| u64::from(pick(times))));
    Ok(Segment {
        wake_up: of(|times| times[0]),
        work: of(|times| times[1]),
        all: of(|times| times[2]),
        granted,
        allocations,
        syscalls: filtered.map(|()| seen),
        page_faults,
        watched_ticks,
        recorded_ticks: recorded.ticks,
        dropped_records: recorded.dropped,
    })
}

/// Those of the run, but 1 kHz, and the paper's way of handing over: the plan has no opinion on what overlaps.
fn controller_settings(config: &RobotConfig) -> Settings {
    Settings {
        targets_per_action: TARGETS_PER_ACTION,
        hand_over: HandOver::Sequential,
        max_late_ticks: MOST_LATE,
        max_state_age: OLDEST_STATE,
        ..run::settings(config)
    }
}

/// A port of this machine that nobody uses.
fn free_endpoint() -> Result<Endpoint> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port")?;
    let port = listener.local_addr().context("looking for a free port")?.port();
    Ok(Endpoint::on_one_computer(&format!("tcp/127.0.0.1:{port}"))?)
}

/// Arms, runs long enough, comes to rest and disarms.
fn sequence(orders: &mut Producer<Order>, handles: &mut Handles, ticks: usize, interrupted: &AtomicBool) -> Result<()> {
    // The queue is empty, so it takes all of them.
    let _ = orders.push(Order::Arm { session: clock::now().as_nanos().unsigned_abs().max(1) });
    wait(handles, interrupted, Duration::from_secs(10), "arming", |event, _| event == Some(Event::Armed))?;
    // Away from the start and back, so that every kind of motion is watched.
    for goal_rad in [START_RAD.map(|q| q + 0.03), START_RAD] {
        let rests = |_, phase| phase == Phase::Holding;
        wait(handles, interrupted, Duration::from_secs(3), "coming to rest", rests)?;
        let _ = orders.push(Order::Move(Motion::Joints { goal_rad, max_speed_rad_s: 0.8 }));
        let ended = |event, _| event == Some(Event::MotionEnded);
        wait(handles, interrupted, Duration::from_secs(5), "a motion of the joints", ended)?;
    }
    let rests = |_, phase| phase == Phase::Holding;
    wait(handles, interrupted, Duration::from_secs(3), "coming to rest", rests)?;
    let _ = orders.push(Order::Run { actions: usize::MAX >> 1 });
    wait(handles, interrupted, Duration::from_secs(10), "the first action", |event, _| {
        event == Some(Event::RunStarted)
    })?;
    // A little more than what is measured, so that nothing of it is missing.
    let length = Duration::from_millis((ticks + WARM_UP + 200) as u64);
    let until = Instant::now() + length;
    let limit = length + Duration::from_secs(10);
    wait(handles, interrupted, limit, "the segment", |_, _| Instant::now() > until)?;
    let _ = orders.push(Order::Hold);
    wait(handles, interrupted, Duration::from_secs(3), "coming to rest", |_, phase| phase == Phase::Holding)?;
    let _ = orders.push(Order::Disarm);
    wait(handles, interrupted, Duration::from_secs(3), "disarming", |_, phase| phase == Phase::Disarmed)
}

fn wait(
    handles: &mut Handles,
    interrupted: &AtomicBool,
    limit: Duration,
    what: &str,
    mut done: impl FnMut(Option<Event>, Phase) -> bool,
) -> Result<()> {
    let until = Instant::now() + limit;
    loop {
        let event = handles.events.pop().ok().map(|(_, event)| event);
        if let Some(Event::Faulted(cause)) = event {
            bail!("while {what}: {cause}");
        }
        if done(event, handles.view.read().phase) {
            return Ok(());
        }
        if interrupted.load(Ordering::Acquire) {
            bail!("interrupted");
        }
        if Instant::now() > until {
            bail!("{what} did not end within {limit:?}");
        }
        if event.is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What the loop has seen of itself.
struct Found {
    /// Wake-up, work, all; ns.
    samples: Vec<[u32; 3]>,
    allocations: Option<u64>,
    filtered: Result<(), String>,
    page_faults: u64,
    watched_ticks: u64,
}

/// Sits in the loop.
struct Looking {
    samples: Vec<[u32; 3]>,
    skip: usize,
    watched: Watched,
    counted: bool,
    allocations_before: Option<u64>,
    filtered: Option<std::io::Result<()>>,
    page_faults_before: u64,
    watched_ticks: u64,
    out: Arc<Mutex<Option<Found>>>,
}

impl Looking {
    fn new(ticks: usize, watched: Watched, out: Arc<Mutex<Option<Found>>>) -> Self {
        let mut samples = vec![[1; 3]; ticks];
        // Written to already, so that no page has to be fetched while it is measured; and empty again.
        samples.clear();
        Self {
            samples,
            skip: WARM_UP,
            watched,
            counted: allocations::are_counted(),
            allocations_before: None,
            filtered: None,
            page_faults_before: 0,
            watched_ticks: 0,
            out,
        }
    }
}

impl Watch for Looking {
    fn armed(&mut self) {
        self.page_faults_before = realtime::page_faults();
        self.filtered = Some(self.watched.begin());
        self.allocations_before = Some(allocations::of_this_thread());
    }

    fn tick(&mut self, times: TickTimes, phase: Phase) {
        if self.allocations_before.is_some() {
            self.watched_ticks += 1;
        }
        if phase != Phase::Running {
            return;
        }
        if self.skip > 0 {
            self.skip -= 1;
        } else if self.samples.len() < self.samples.capacity() {
            let ns = |d: Duration| u32::try_from(d.as_nanos()).unwrap_or(u32::MAX);
            self.samples.push([ns(times.wake_up), ns(times.work), ns(times.all)]);
        }
    }

    fn ended(&mut self) {
        let now = allocations::of_this_thread();
        self.watched.end();
        let allocations = self.allocations_before.filter(|_| self.counted).map(|before| now - before);
        let filtered = match self.filtered.take() {
            Some(Ok(())) => Ok(()),
            Some(Err(e)) => Err(format!("the kernel grants no seccomp filter with a listener ({e})")),
            None => Err("the arm was never armed".to_owned()),
        };
        let found = Found {
            samples: std::mem::take(&mut self.samples),
            allocations,
            filtered,
            page_faults: realtime::page_faults() - self.page_faults_before,
            watched_ticks: self.watched_ticks,
        };
        *self.out.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
    }
}

/// A folder for what segments write, removed when it is dropped.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Result<Self> {
        let path =
            std::env::temp_dir().join(format!("tenon-bench-tick-{}-{}", std::process::id(), clock::now().as_nanos()));
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed lies in the folder of temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
