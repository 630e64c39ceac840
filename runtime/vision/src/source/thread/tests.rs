use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::super::clock::{ManualClock, Pace, SystemClock};
use super::super::frame::SourceDescription;
use super::super::simulated::{Injection, SimulatedDevice, SimulatedSettings};
use super::*;
use crate::GreyImage;

const LONG: Duration = Duration::from_secs(20);

fn settings() -> CameraThreadSettings {
    let backoff = Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(4) };
    CameraThreadSettings { backoff, ..CameraThreadSettings::of_rate(200.0, Expected::default()) }
}

/// A camera at 200 Hz whose pictures count.
fn device(script: Vec<(u64, Injection)>, frames: Option<u64>, clock: Arc<dyn Clock>) -> SimulatedDevice {
    let serial = Serial::new("SIM1").unwrap();
    let sized = SimulatedSettings::of_size("front", serial, 64, 48, 200.0, Pace::RealTime);
    let exposure = Duration::from_millis(1);
    let settings = SimulatedSettings { frames, exposure, transport_delay: Duration::from_millis(2), ..sized };
    let mut count = 0u64;
    let scene = move |_: MonotonicTime, grey: &mut GreyImage| {
        count += 1;
        grey.pixels_mut()[..8].copy_from_slice(&count.to_le_bytes());
    };
    SimulatedDevice::new(settings, scene, script, clock).unwrap()
}

fn opener(device: SimulatedDevice) -> impl Opener {
    move || device.open().map(|camera| Box::new(camera) as Box<dyn FrameSource>)
}

fn until(mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < LONG, "it takes too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A source whose frames are made one by one, by hand.
struct Stepped {
    description: SourceDescription,
    permits: Receiver<()>,
    made: Arc<AtomicU64>,
}

impl FrameSource for Stepped {
    fn description(&self) -> &SourceDescription {
        &self.description
    }

    fn next_frame(&mut self, into: &mut Frame, timeout: Duration) -> Result<(), SourceError> {
        if self.permits.recv_timeout(timeout).is_err() {
            return Err(SourceError::TimedOut { source_name: "stepped".to_owned(), waited: timeout });
        }
        into.grey.resize(8, 8);
        into.sequence = self.made.fetch_add(1, Ordering::SeqCst) + 1;
        into.stamps = super::super::still_files::stamps_at(SystemClock.now());
        Ok(())
    }
}

#[test]
fn the_newest_frame_wins_and_is_given_once() {
    let (permit, permits) = bounded(16);
    let made = Arc::<AtomicU64>::default();
    let description = SourceDescription {
        name: "stepped".to_owned(),
        serial: None,
        width: 8,
        height: 8,
        nominal_rate_hz: 200.0,
        intrinsics: None,
    };
    let source = Mutex::new(Some(Stepped { description, permits, made: Arc::clone(&made) }));
    let opener = move || Ok(Box::new(source.lock().unwrap().take().unwrap()) as Box<dyn FrameSource>);
    let mut reader = spawn(opener, settings(), Arc::new(SystemClock), &Doorbell::default()).unwrap();
    assert!(reader.newest().is_none() && reader.current().is_none());
    permit.send(()).unwrap();
    assert_eq!(reader.wait(LONG).unwrap().sequence, 1);
    for _ in 0..5 {
        permit.send(()).unwrap();
    }
    until(|| reader.status(SystemClock.now()).counters.frames == 6);
    assert_eq!(reader.wait(LONG).unwrap().sequence, 6, "five came, one is left");
    assert!(reader.newest().is_none(), "it was given already");
    assert_eq!(reader.current().unwrap().sequence, 6);
    assert!(reader.wait(Duration::from_millis(5)).is_none());
}

#[test]
fn a_waiting_reader_is_woken_by_the_frame() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let device = device(vec![], None, Arc::clone(&clock));
    let mut reader = spawn(opener(device), settings(), Arc::clone(&clock), &Doorbell::default()).unwrap();
    let mut delays: Vec<Duration> = Vec::new();
    for _ in 0..100 {
        let arrived = reader.wait(LONG).unwrap().stamps.arrived;
        delays.push(clock.now().since(arrived));
    }
    delays.sort();
    eprintln!("arrival to reader: median {:?}, p90 {:?}, max {:?}", delays[50], delays[90], delays[99]);
    // A polling reader would be late by half its interval; the bound is loose because the machine may be busy.
    assert!(delays[50] < Duration::from_millis(4), "{:?}", delays[50]);
}

#[test]
fn several_cameras_share_a_doorbell() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let bell = Doorbell::default();
    let mut readers: Vec<CameraReader> = (0..3)
        .map(|_| {
            let device = device(vec![], None, Arc::clone(&clock));
            spawn(opener(device), settings(), Arc::clone(&clock), &bell).unwrap()
        })
        .collect();
    let mut seen = [0; 3];
    while seen.iter().any(|&count| count < 10) {
        assert!(bell.wait(LONG), "some camera has a frame");
        for (reader, seen) in readers.iter_mut().zip(&mut seen) {
            *seen += u32::from(reader.newest().is_some());
        }
    }
}

#[test]
fn a_lost_camera_is_opened_again_with_its_faults_named_meanwhile() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let device = device(vec![(20, Injection::Disconnect { failed_opens: 3 })], None, Arc::clone(&clock));
    let mut reader = spawn(opener(device), settings(), Arc::clone(&clock), &Doorbell::default()).unwrap();
    let mut seen = Vec::new();
    until(|| {
        let status = reader.status(clock.now());
        seen.extend(status.faults.iter().filter(|f| f.kind.index() == 1).map(|f| f.kind));
        status.counters.opened == 2 && status.counters.frames > 25
    });
    assert!(!seen.is_empty(), "the disconnection was to be seen");
    until(|| reader.status(clock.now()).faults.spoiling().is_none());
    assert!(reader.trusted(clock.now()).is_ok());
    let errors: Vec<String> = std::iter::from_fn(|| reader.next_error()).map(|error| error.to_string()).collect();
    assert_eq!(errors.len(), 4, "{errors:?}");
    assert!(errors[0].contains("front: disconnected (it was unplugged)"), "{}", errors[0]);
    assert!(errors[3].contains("cannot open camera front"), "{}", errors[3]);
}

#[test]
fn another_camera_in_its_place_is_refused_by_its_serial_number() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let serial = Serial::new("SIM2").unwrap();
    let device = device(vec![(10, Injection::Exchange { serial })], None, Arc::clone(&clock));
    let mut reader = spawn(opener(device), settings(), Arc::clone(&clock), &Doorbell::default()).unwrap();
    until(|| reader.status(clock.now()).serial == Some(serial));
    let expected = Serial::new("SIM1").unwrap();
    until(|| {
        let kind = reader.trusted(clock.now()).err().map(|fault| fault.kind);
        kind == Some(FaultKind::SerialChanged { expected, found: Some(serial) })
    });
}

#[test]
fn a_file_that_ends_is_no_fault_and_a_thread_that_panics_is_one() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let mut reader =
        spawn(opener(device(vec![], Some(5), Arc::clone(&clock))), settings(), clock, &Doorbell::default()).unwrap();
    until(|| reader.status(MonotonicTime::from_nanos(1 << 60)).ended);
    until(|| reader.thread.as_ref().unwrap().is_finished());
    assert!(reader.status(MonotonicTime::from_nanos(1 << 60)).faults.is_empty());
    assert_eq!(reader.newest().unwrap().sequence, 4);

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let opener = || -> Result<Box<dyn FrameSource>, SourceError> { panic!("a driver's mistake") };
    let mut reader = spawn(opener, settings(), Arc::clone(&clock), &Doorbell::default()).unwrap();
    until(|| reader.status(clock.now()).faults.worst().is_some_and(|f| f.kind == FaultKind::Stopped));
}

#[test]
fn a_thread_that_hangs_in_a_driver_cannot_hide_its_age() {
    let (release, hang) = bounded::<()>(0);
    let opener = move || -> Result<Box<dyn FrameSource>, SourceError> {
        let _ = hang.recv();
        Err(SourceError::NoCamera { wanted: "x".to_owned(), reason: "it hung".to_owned() })
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut reader = spawn(opener, settings(), Arc::clone(&clock), &Doorbell::default()).unwrap();
    let later = clock.now() + Duration::from_secs(1);
    assert!(matches!(reader.trusted(later), Err(CameraFault { kind: FaultKind::Stale { .. }, .. })));
    drop(release);
}

#[test]
fn stopping_is_quick_while_a_camera_streams_stalls_or_cannot_be_opened() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let stall = Injection::Stall { time: Duration::from_secs(3600) };
    let gone = Injection::Disconnect { failed_opens: u32::MAX };
    for script in [vec![], vec![(2, stall)], vec![(2, gone)]] {
        let mut settings = settings();
        settings.backoff = Backoff { first: LONG, longest: LONG };
        let device = device(script, None, Arc::clone(&clock));
        let mut reader = spawn(opener(device), settings, Arc::clone(&clock), &Doorbell::default()).unwrap();
        reader.wait(LONG).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        let began = Instant::now();
        drop(reader);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

#[test]
fn the_pause_between_attempts_grows_to_its_limit() {
    let opens = Arc::<AtomicU32>::default();
    let counted = Arc::clone(&opens);
    let opener = move || -> Result<Box<dyn FrameSource>, SourceError> {
        counted.fetch_add(1, Ordering::SeqCst);
        Err(SourceError::NoCamera { wanted: "x".to_owned(), reason: "unplugged".to_owned() })
    };
    let mut settings = settings();
    settings.backoff = Backoff { first: Duration::from_millis(10), longest: Duration::from_millis(80) };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut reader = spawn(opener, settings, Arc::clone(&clock), &Doorbell::default()).unwrap();
    std::thread::sleep(Duration::from_millis(400));
    let status = reader.status(clock.now());
    // 10 + 20 + 40 + 80 + 80 + 80 ms: at most seven in 400 ms; forty without the growth.
    assert!((2..=8).contains(&opens.load(Ordering::SeqCst)), "{opens:?}");
    assert!(matches!(status.faults.worst().unwrap().kind, FaultKind::Disconnected { failed_opens: 2..=8 }));
}
