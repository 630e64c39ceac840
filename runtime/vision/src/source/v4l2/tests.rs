use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use super::super::clock::{ManualClock, SystemClock};
use super::*;

const WIDTH: usize = 64;
const HEIGHT: usize = 32;
const PERIOD: Duration = Duration::from_millis(40);
const TIMEOUT: Duration = Duration::from_millis(100);
const MONOTONIC_START: u32 = abi::BUF_FLAG_TIMESTAMP_MONOTONIC | abi::BUF_FLAG_TSTAMP_SRC_SOE;

/// What a driver without hardware does at the next wait.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A frame whose luma is `level`, stamped `age` before it can be taken.
    Frame {
        sequence: u32,
        flags: u32,
        age: Duration,
        level: u8,
        bytes: usize,
    },
    Quiet,
    Errno(i32),
}

fn frame(sequence: u32) -> Event {
    let (age, level) = (Duration::from_millis(12), sequence as u8);
    Event::Frame { sequence, flags: MONOTONIC_START, age, level, bytes: WIDTH * HEIGHT * 2 }
}

#[derive(Default)]
struct Log {
    queued: Vec<u32>,
    streaming: bool,
}

struct Fake {
    clock: ManualClock,
    /// Capabilities of the device.
    abilities: u32,
    formats: Vec<PixelFormat>,
    rate_hz: u32,
    /// Range and value.
    controls: BTreeMap<u32, (i32, i32, i32)>,
    keeps_controls: bool,
    events: VecDeque<Event>,
    memory: Vec<Vec<u8>>,
    log: Arc<Mutex<Log>>,
}

fn errno<T>(code: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(code))
}

impl Driver for Fake {
    fn capability(&mut self) -> io::Result<abi::Capability> {
        let capabilities = abi::CAP_DEVICE_CAPS | abi::CAP_VIDEO_CAPTURE;
        Ok(abi::Capability { capabilities, device_caps: self.abilities, ..abi::Capability::default() })
    }

    fn format(&mut self, index: u32) -> io::Result<abi::FormatDescription> {
        let Some(format) = self.formats.get(index as usize) else { return errno(libc::EINVAL) };
        Ok(abi::FormatDescription { pixelformat: format.fourcc(), ..abi::FormatDescription::default() })
    }

    fn set_format(&mut self, wanted: abi::PixelLayout) -> io::Result<abi::PixelLayout> {
        // As drivers do: the nearest of what there is.
        let known = self.formats.iter().any(|format| format.fourcc() == wanted.pixelformat);
        let pixelformat = if known { wanted.pixelformat } else { self.formats[0].fourcc() };
        let (width, height) = (WIDTH as u32, HEIGHT as u32);
        Ok(abi::PixelLayout { width, height, pixelformat, bytesperline: width * 2, ..wanted })
    }

    fn set_period(&mut self, _: u32, _: u32) -> io::Result<Option<(u32, u32)>> {
        Ok(Some((1, self.rate_hz)))
    }

    fn map_buffers(&mut self, count: u32) -> io::Result<u32> {
        self.memory = vec![vec![0; WIDTH * HEIGHT * 2]; count as usize];
        Ok(count)
    }

    fn bytes(&self, index: u32) -> &[u8] {
        assert!(!self.log.lock().unwrap().queued.contains(&index), "the driver may write into buffer {index}");
        &self.memory[index as usize]
    }

    fn queue(&mut self, index: u32) -> io::Result<()> {
        self.log.lock().unwrap().queued.push(index);
        Ok(())
    }

    fn dequeue(&mut self) -> io::Result<abi::Buffer> {
        match self.events.pop_front() {
            Some(Event::Frame { sequence, flags, age, level, bytes }) => {
                let index = self.log.lock().unwrap().queued.remove(0);
                self.memory[index as usize].fill(level);
                let stamp = self.clock.now().as_nanos() - nanos(age);
                let (seconds, microseconds) = (stamp / 1_000_000_000, stamp % 1_000_000_000 / 1_000);
                let buffer = abi::Buffer::of_capture(index);
                Ok(abi::Buffer { sequence, flags, bytesused: bytes as u32, seconds, microseconds, ..buffer })
            }
            Some(Event::Errno(code)) => errno(code),
            _ => errno(libc::EAGAIN),
        }
    }

    fn stream(&mut self, on: bool) -> io::Result<()> {
        self.log.lock().unwrap().streaming = on;
        Ok(())
    }

    fn control_range(&mut self, id: u32) -> io::Result<abi::ControlRange> {
        let Some(&(minimum, maximum, _)) = self.controls.get(&id) else { return errno(libc::EINVAL) };
        Ok(abi::ControlRange { id, minimum, maximum, step: 1, ..abi::ControlRange::default() })
    }

    fn control(&mut self, id: u32) -> io::Result<i32> {
        self.controls.get(&id).map_or(errno(libc::EINVAL), |&(_, _, value)| Ok(value))
    }

    fn set_control(&mut self, id: u32, value: i32) -> io::Result<()> {
        if self.keeps_controls {
            self.controls.get_mut(&id).unwrap().2 = value;
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        match self.events.front() {
            None => self.clock.advance(timeout),
            Some(Event::Quiet) => {
                self.events.pop_front();
                self.clock.advance(timeout);
            }
            Some(_) => {
                self.clock.advance(PERIOD);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A driver that gives ten frames to throw away, then `events`.
fn fake(events: &[Event]) -> Fake {
    let range = |id, value| (control_id(id), (0, 5000, value));
    Fake {
        clock: ManualClock::at(MonotonicTime::from_nanos(50_000_000_000)),
        abilities: abi::CAP_VIDEO_CAPTURE | abi::CAP_STREAMING,
        formats: vec![PixelFormat::Yuyv, PixelFormat::Grey],
        rate_hz: 25,
        controls: [
            range(Control::AutoExposure, 3),
            range(Control::AutoExposurePriority, 1),
            range(Control::Exposure, 156),
        ]
        .into(),
        keeps_controls: true,
        events: (0..10).map(frame).chain(events.iter().copied()).collect(),
        memory: Vec::new(),
        log: Arc::default(),
    }
}

fn settings() -> V4l2Settings {
    let size =
        V4l2Settings { width: WIDTH, height: HEIGHT, rate_hz: 25.0, ..V4l2Settings::realsense_colour("front", 60) };
    V4l2Settings { keep_colour: true, ..size }
}

fn start(fake: Fake, settings: &V4l2Settings) -> Result<Camera<Fake>, SourceError> {
    let clock = Arc::new(fake.clock.clone());
    Camera::start(fake, "/dev/video9".to_owned(), None, settings, clock)
}

#[test]
fn ten_frames_are_thrown_away_and_the_controls_are_locked() {
    let mut camera = start(fake(&[frame(10), frame(11)]), &settings()).unwrap();
    assert_eq!(camera.locked(), ControlValues::fixed_exposure(60, None));
    assert_eq!(camera.controls().unwrap(), camera.locked());
    let mut into = Frame::of_size(1, 1);
    camera.next_frame(&mut into, TIMEOUT).unwrap();
    assert_eq!((into.sequence, into.grey.pixels()[0], into.grey.width()), (10, 10, WIDTH));
    assert_eq!(into.colour.pixels().len(), WIDTH * HEIGHT * 2);
    // The stamp is of the start of an exposure of 6 ms, 12 ms before the arrival.
    let began = into.stamps.device.unwrap().as_nanos();
    assert_eq!(into.stamps.exposed_at.as_nanos(), began + 3_000_000);
    assert_eq!(into.stamps.arrived.as_nanos(), began + 12_000_000);
}

#[test]
fn every_buffer_goes_back_and_the_stream_stops_with_the_camera() {
    let damaged = Event::Frame {
        sequence: 11,
        flags: MONOTONIC_START | abi::BUF_FLAG_ERROR,
        age: Duration::ZERO,
        level: 0,
        bytes: 100,
    };
    let short = Event::Frame { sequence: 13, flags: MONOTONIC_START, age: Duration::ZERO, level: 0, bytes: 100 };
    let fake = fake(&[frame(10), damaged, frame(12), short, frame(14), Event::Errno(libc::EAGAIN), frame(15)]);
    let log = Arc::clone(&fake.log);
    let mut camera = start(fake, &settings()).unwrap();
    let mut into = Frame::of_size(1, 1);
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(camera.next_frame(&mut into, TIMEOUT).map(|()| into.sequence));
        let mut queued = log.lock().unwrap().queued.clone();
        queued.sort_unstable();
        assert_eq!(queued, [0, 1, 2, 3]);
    }
    assert!(matches!(seen[..], [Ok(10), Ok(12), Err(SourceError::Damaged { .. }), Ok(14), Ok(15)]), "{seen:?}");
    assert!(log.lock().unwrap().streaming);
    drop(camera);
    assert!(!log.lock().unwrap().streaming);
}

#[test]
fn silence_times_out_and_an_unplugged_camera_needs_reopening() {
    let mut camera = start(fake(&[Event::Quiet, frame(10), Event::Errno(libc::ENODEV)]), &settings()).unwrap();
    let mut into = Frame::of_size(1, 1);
    assert!(matches!(camera.next_frame(&mut into, TIMEOUT), Err(SourceError::TimedOut { .. })));
    camera.next_frame(&mut into, TIMEOUT).unwrap();
    let error = camera.next_frame(&mut into, TIMEOUT).unwrap_err();
    assert!(error.needs_reopening() && error.to_string().starts_with("front: disconnected"), "{error}");
}

#[test]
fn stamps_of_another_clock_are_mapped_and_kept() {
    let other = |sequence: u64| {
        let (age, level) = (Duration::from_secs(20) + Duration::from_millis(sequence % 3), 9);
        Event::Frame { sequence: sequence as u32, flags: 0, age, level, bytes: WIDTH * HEIGHT * 2 }
    };
    let events: Vec<Event> = (10..40).map(other).collect();
    let settings = V4l2Settings { stamp_delay: Some(Duration::from_millis(15)), ..settings() };
    let mut camera = start(fake(&events), &settings).unwrap();
    let mut into = Frame::of_size(1, 1);
    for k in 0..30 {
        camera.next_frame(&mut into, TIMEOUT).unwrap();
        let FrameStamps { exposed_at, device, arrived } = into.stamps;
        assert!(arrived.since(MonotonicTime::from_nanos(device.unwrap().as_nanos())) >= Duration::from_secs(20));
        // The fastest frame came 15 ms after the middle of its exposure; one later by 2 ms is known to be so.
        let late_ms = (arrived.since(exposed_at).as_secs_f64() * 1e3 - 15.0).round() as i64;
        if k > 3 {
            assert_eq!(late_ms, (k + 10) % 3, "frame {k}");
        }
    }
}

#[test]
fn what_the_camera_does_not_offer_is_refused_with_what_it_does() {
    let message = |change: &dyn Fn(&mut Fake, &mut V4l2Settings)| {
        let (mut fake, mut settings) = (fake(&[]), settings());
        change(&mut fake, &mut settings);
        start(fake, &settings).err().expect("refused").to_string()
    };
    let text = message(&|_, settings| settings.format = PixelFormat::Mjpeg);
    assert!(text.contains("does not offer MJPG 64x32") && text.contains("formats: YUYV, GREY"), "{text}");
    assert!(message(&|_, settings| settings.width = 128).contains("offers YUYV 64x32"));
    assert!(message(&|fake, _| fake.rate_hz = 15).contains("offers 15.00 Hz"));
    assert!(message(&|fake, _| fake.abilities = 0x0080_0000).contains("does not capture video"));
    assert!(message(&|fake, _| fake.events.clear()).contains("gave 0 frames in 5 s"));
    assert!(message(&|_, settings| settings.width = 0).contains("0x32"));
}

#[test]
fn controls_that_are_missing_out_of_range_or_not_kept_are_named() {
    let message = |controls: ControlValues, keeps: bool| {
        let mut fake = fake(&[]);
        fake.keeps_controls = keeps;
        start(fake, &V4l2Settings { controls, ..settings() }).err().expect("refused").to_string()
    };
    let mut focus = ControlValues::default();
    focus.set(Control::Focus, Some(30));
    assert!(message(focus, true).contains("focus cannot be 30: the camera has no such control"));
    assert!(message(ControlValues::fixed_exposure(9000, None), true).contains("it goes from 0 to 5000"));
    let text = message(ControlValues::fixed_exposure(60, None), false);
    assert!(text.contains("auto_exposure was set to 1 and reads 3"), "{text}");
}

#[test]
fn the_sequence_goes_on_when_32_bits_wrap() {
    let mut counter = SequenceCounter::default();
    let long: Vec<u64> = [u32::MAX - 1, u32::MAX, 0, 2].into_iter().map(|s| counter.extend(s)).collect();
    assert_eq!(long, [0xFFFF_FFFE, 0xFFFF_FFFF, 0x1_0000_0000, 0x1_0000_0002]);
}

#[test]
fn what_is_no_camera_says_so() {
    let open = |choice: CameraChoice| {
        V4l2Camera::open(&choice, &settings(), Arc::new(SystemClock)).err().expect("no camera").to_string()
    };
    let text = open(CameraChoice::Path("/dev/null".into()));
    assert!(text.contains("/dev/null") && text.contains("no video device"), "{text}");
    assert!(open(CameraChoice::Path("/dev/video99999".into())).contains("plug the camera in"));
    let text = open(CameraChoice::Serial(Serial::new("no such serial").unwrap()));
    assert!(text.contains("no such serial") && text.contains("not plugged in"), "{text}");
}

#[test]
fn a_kernel_device_if_there_is_one_streams() {
    let class = Path::new(sysfs::CLASS);
    let mut tried = 0;
    for candidate in sysfs::candidates(class) {
        for format in PixelFormat::ALL {
            let settings = V4l2Settings {
                width: 640,
                height: 480,
                rate_hz: 30.0,
                format,
                controls: ControlValues::default(),
                ..settings()
            };
            let choice = CameraChoice::Path(candidate.node.clone());
            match V4l2Camera::open(&choice, &settings, Arc::new(SystemClock)) {
                Ok(mut camera) => {
                    tried += 1;
                    let (mut into, mut last) = (Frame::of_size(640, 480), None);
                    for _ in 0..20 {
                        camera.next_frame(&mut into, Duration::from_secs(2)).unwrap();
                        assert!(
                            last.is_none_or(|(sequence, at)| into.sequence > sequence && into.stamps.exposed_at > at)
                        );
                        assert!(into.stamps.exposed_at <= into.stamps.arrived);
                        last = Some((into.sequence, into.stamps.exposed_at));
                    }
                }
                Err(error) => eprintln!("{}: {error}", candidate.node.display()),
            }
        }
    }
    if tried == 0 {
        eprintln!(
            "no kernel video device with 640x480 here: the stream was tested with a stand-in for the driver only"
        );
    }
}
