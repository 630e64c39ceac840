//! A simulated camera: a scene rendered for the middle of each exposure, with a device clock and faults on order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tenon_core::time::MonotonicTime;

use super::FrameSource;
use super::clock::{Clock, ClockMap, ClockMapSettings, Pace, nanos, timed_out};
use super::controls::{Control, ControlValues};
use super::error::SourceError;
use super::frame::{DeviceTime, Frame, FrameStamps, Serial, SourceDescription, check_frame_size, check_rate};
use crate::GreyImage;

/// What the camera sees. Closures `|at, grey|` are scenes.
pub trait Scene: Send {
    /// Fills `grey`, which has the camera's size, with the picture exposed around `at`.
    fn render(&mut self, at: MonotonicTime, grey: &mut GreyImage);
}

impl<F: FnMut(MonotonicTime, &mut GreyImage) + Send> Scene for F {
    fn render(&mut self, at: MonotonicTime, grey: &mut GreyImage) {
        self(at, grey);
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct SimulatedSettings {
    pub name: String,
    pub serial: Serial,
    pub width: usize,
    pub height: usize,
    pub rate_hz: f64,
    pub exposure: Duration,
    /// From the end of the exposure to the arrival.
    pub transport_delay: Duration,
    /// Reading of the device's clock when ours stands at zero.
    pub device_clock_offset_nanos: i64,
    /// Millionths by which the device's clock runs fast.
    pub device_clock_drift_ppm: f64,
    pub locked: ControlValues,
    pub pace: Pace,
    /// The source ends after that many.
    pub frames: Option<u64>,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Injection {
    /// Frames are taken and never arrive.
    Drop { frames: u32 },
    /// The device repeats its last picture with new stamps.
    Freeze { frames: u32 },
    /// The device's clock jumps.
    ClockStep { nanos: i64 },
    /// Nothing is taken for a while.
    Stall { time: Duration },
    /// One frame arrives late.
    Late { time: Duration },
    /// Pictures have another size from now on.
    Resize { width: usize, height: usize },
    /// A control moves by itself.
    Drift { control: Control, value: i64 },
    /// The device is gone; that many attempts to open it fail.
    Disconnect { failed_opens: u32 },
    /// Another device is plugged in in its place.
    Exchange { serial: Serial },
}

/// The device, which outlives the sources that open it, as a camera outlives its connection.
#[derive(Clone)]
pub struct SimulatedDevice {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
}

struct State {
    settings: SimulatedSettings,
    scene: Box<dyn Scene>,
    /// What is to come, the next one last.
    script: Vec<(u64, Injection)>,
    /// Frame 0 began to be exposed then, had nothing stalled.
    began: MonotonicTime,
    next: u64,
    delivered: u64,
    frozen: u32,
    late: Duration,
    failed_opens: u32,
    controls: ControlValues,
    /// The last picture, kept while the script can freeze it.
    last: Option<GreyImage>,
}

/// Frames that the driver of a real camera holds while nobody takes them.
const QUEUED_FRAMES: u32 = 4;

impl SimulatedDevice {
    /// `script`: what goes wrong from the frame of that number on.
    pub fn new(
        settings: SimulatedSettings,
        scene: impl Scene + 'static,
        mut script: Vec<(u64, Injection)>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SourceError> {
        check_frame_size(&settings.name, settings.width, settings.height)?;
        check_rate(settings.rate_hz)?;
        // The first of the same frame stays first when taken from the end.
        script.reverse();
        script.sort_by_key(|&(frame, _)| std::cmp::Reverse(frame));
        let freezes = script.iter().any(|(_, injection)| matches!(injection, Injection::Freeze { .. }));
        let last = freezes.then(|| GreyImage::filled(settings.width, settings.height, 0));
        let state = State {
            began: clock.now(),
            controls: settings.locked,
            scene: Box::new(scene),
            script,
            next: 0,
            delivered: 0,
            frozen: 0,
            late: Duration::ZERO,
            failed_opens: 0,
            last,
            settings,
        };
        Ok(Self { state: Arc::new(Mutex::new(state)), clock })
    }

    /// Opens the device; a [`CameraThread`](super::spawn) can do so again after a disconnect.
    pub fn open(&self) -> Result<SimulatedCamera, SourceError> {
        let mut state = lock(&self.state);
        let settings = &state.settings;
        if state.failed_opens > 0 {
            let wanted = settings.name.clone();
            state.failed_opens -= 1;
            return Err(SourceError::NoCamera { wanted, reason: "it is unplugged".to_owned() });
        }
        let description = SourceDescription {
            name: settings.name.clone(),
            serial: Some(settings.serial),
            width: settings.width,
            height: settings.height,
            nominal_rate_hz: settings.rate_hz,
            intrinsics: None,
        };
        let map = ClockMap::new(ClockMapSettings {
            least_delay: settings.exposure / 2 + settings.transport_delay,
            ..ClockMapSettings::default()
        });
        // What was exposed while nobody had it open is lost.
        if settings.pace == Pace::RealTime {
            let taken = self.clock.now().since(state.began).as_secs_f64() * settings.rate_hz;
            state.next = state.next.max(taken as u64);
        }
        drop(state);
        Ok(SimulatedCamera { state: Arc::clone(&self.state), clock: Arc::clone(&self.clock), description, map })
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An open [`SimulatedDevice`].
pub struct SimulatedCamera {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
    description: SourceDescription,
    map: ClockMap,
}

impl State {
    /// Lets happen what is due before the next frame.
    fn inject(&mut self) -> Result<(), SourceError> {
        while let Some(&(frame, injection)) = self.script.last()
            && frame <= self.next
        {
            self.script.pop();
            match injection {
                Injection::Drop { frames } => self.next += u64::from(frames),
                Injection::Freeze { frames } => self.frozen = frames,
                Injection::ClockStep { nanos } => self.settings.device_clock_offset_nanos += nanos,
                Injection::Stall { time } => self.began = self.began + time,
                Injection::Late { time } => self.late = time,
                Injection::Resize { width, height } => {
                    (self.settings.width, self.settings.height) = (width, height);
                }
                Injection::Drift { control, value } => self.controls.set(control, Some(value)),
                Injection::Disconnect { failed_opens } => {
                    self.failed_opens = failed_opens;
                    return Err(self.gone());
                }
                Injection::Exchange { serial } => {
                    self.settings.serial = serial;
                    return Err(self.gone());
                }
            }
        }
        Ok(())
    }

    fn gone(&self) -> SourceError {
        let source_name = self.settings.name.clone();
        SourceError::Disconnected { source_name, reason: "it was unplugged".to_owned() }
    }

    /// Middle of the exposure of the next frame, and its arrival.
    fn schedule(&self) -> (MonotonicTime, MonotonicTime) {
        let start = self.began + Duration::from_secs_f64(self.next as f64 / self.settings.rate_hz);
        let middle = start + self.settings.exposure / 2;
        (middle, start + self.settings.exposure + self.settings.transport_delay + self.late)
    }

    fn render(&mut self, at: MonotonicTime, grey: &mut GreyImage) {
        let Self { settings, scene, last, frozen, .. } = self;
        grey.resize(settings.width, settings.height);
        match last {
            Some(last) if *frozen > 0 => {
                *frozen -= 1;
                grey.resize(last.width(), last.height());
                grey.pixels_mut().copy_from_slice(last.pixels());
            }
            Some(last) => {
                scene.render(at, grey);
                last.resize(grey.width(), grey.height());
                last.pixels_mut().copy_from_slice(grey.pixels());
            }
            None => scene.render(at, grey),
        }
    }
}

impl FrameSource for SimulatedCamera {
    fn description(&self) -> &SourceDescription {
        &self.description
    }

    fn next_frame(&mut self, into: &mut Frame, timeout: Duration) -> Result<(), SourceError> {
        let mut state = lock(&self.state);
        if state.settings.frames.is_some_and(|frames| state.delivered >= frames) {
            let (source_name, frames) = (self.description.name.clone(), state.delivered);
            return Err(SourceError::Ended { source_name, frames });
        }
        state.inject()?;
        let (mut exposed, mut arrival) = state.schedule();
        if state.settings.pace == Pace::RealTime {
            let now = self.clock.now();
            let period = Duration::from_secs_f64(1.0 / state.settings.rate_hz);
            let behind = now.since(arrival);
            if behind > period * QUEUED_FRAMES {
                // The driver's queue is full: what came meanwhile is lost.
                state.next += (behind.as_secs_f64() * state.settings.rate_hz) as u64;
                (exposed, arrival) = state.schedule();
            }
            if arrival > now + timeout {
                self.clock.sleep_until(now + timeout);
                return Err(timed_out(&self.description.name, timeout));
            }
            self.clock.sleep_until(arrival);
            arrival = self.clock.now();
        }
        state.late = Duration::ZERO;
        state.render(exposed, &mut into.grey);
        into.colour.clear();
        into.sequence = state.next;
        state.next += 1;
        state.delivered += 1;
        let drift = exposed.as_nanos() as f64 * state.settings.device_clock_drift_ppm * 1e-6;
        let device = exposed.as_nanos() + state.settings.device_clock_offset_nanos + drift as i64;
        let device = DeviceTime::from_nanos(device);
        let exposed_at = self.map.observe(device, arrival).time;
        into.stamps = FrameStamps { exposed_at, device: Some(device), arrived: arrival };
        Ok(())
    }

    fn locked(&self) -> ControlValues {
        lock(&self.state).settings.locked
    }

    fn controls(&mut self) -> Result<ControlValues, SourceError> {
        Ok(lock(&self.state).controls)
    }
}

impl SimulatedSettings {
    /// A camera of this size and rate with 5 ms of exposure, 8 ms of transport and a clock of its own.
    pub fn of_size(name: &str, serial: Serial, width: usize, height: usize, rate_hz: f64, pace: Pace) -> Self {
        Self {
            name: name.to_owned(),
            serial,
            width,
            height,
            rate_hz,
            exposure: Duration::from_millis(5),
            transport_delay: Duration::from_millis(8),
            device_clock_offset_nanos: nanos(Duration::from_secs(1000)),
            device_clock_drift_ppm: 0.0,
            locked: ControlValues::default(),
            pace,
            frames: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::ManualClock;
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(100);

    fn camera(script: Vec<(u64, Injection)>, pace: Pace) -> (SimulatedDevice, ManualClock) {
        let clock = ManualClock::at(MonotonicTime::from_nanos(7_000_000_000));
        let serial = Serial::new("SIM1").unwrap();
        let settings = SimulatedSettings::of_size("front", serial, 16, 8, 50.0, pace);
        let scene =
            |at: MonotonicTime, grey: &mut GreyImage| grey.pixels_mut().fill((at.as_nanos() / 20_000_000) as u8);
        (SimulatedDevice::new(settings, scene, script, Arc::new(clock.clone())).unwrap(), clock)
    }

    #[test]
    fn stamps_are_the_middle_of_the_exposure_whatever_the_devices_clock_says() {
        for pace in [Pace::RealTime, Pace::AsFastAsPossible] {
            let (device, clock) = camera(vec![], pace);
            let mut camera = device.open().unwrap();
            let mut frame = Frame::of_size(1, 1);
            for k in 0..100 {
                camera.next_frame(&mut frame, TIMEOUT).unwrap();
                let began = 7_000_000_000 + k * 20_000_000;
                assert_eq!(frame.stamps.exposed_at.as_nanos(), began + 2_500_000);
                assert_eq!(frame.stamps.arrived.as_nanos(), began + 13_000_000);
                assert_eq!(frame.stamps.device.unwrap().as_nanos(), began + 2_500_000 + 1_000_000_000_000);
                assert_eq!((frame.sequence, frame.grey.width()), (k as u64, 16));
            }
            let moved = clock.now().as_nanos() > 7_000_000_000;
            assert_eq!(moved, pace == Pace::RealTime);
        }
    }

    #[test]
    fn a_stall_times_out_and_goes_on_without_a_gap_and_a_drop_leaves_one() {
        let stall = Injection::Stall { time: Duration::from_millis(250) };
        let (device, _) = camera(vec![(3, stall), (5, Injection::Drop { frames: 4 })], Pace::RealTime);
        let mut camera = device.open().unwrap();
        let mut frame = Frame::of_size(1, 1);
        let mut seen = Vec::new();
        for _ in 0..10 {
            seen.push(camera.next_frame(&mut frame, TIMEOUT).ok().map(|()| frame.sequence));
        }
        let expected = [Some(0), Some(1), Some(2), None, None, Some(3), Some(4), Some(9), Some(10), Some(11)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_reader_that_is_too_slow_loses_frames_as_with_a_driver() {
        let (device, clock) = camera(vec![], Pace::RealTime);
        let mut camera = device.open().unwrap();
        let mut frame = Frame::of_size(1, 1);
        camera.next_frame(&mut frame, TIMEOUT).unwrap();
        clock.advance(Duration::from_millis(60));
        camera.next_frame(&mut frame, TIMEOUT).unwrap();
        assert_eq!(frame.sequence, 1, "the queue still held it");
        clock.advance(Duration::from_millis(500));
        camera.next_frame(&mut frame, TIMEOUT).unwrap();
        assert!((25..=29).contains(&frame.sequence), "{}", frame.sequence);
    }

    #[test]
    fn an_exchanged_device_comes_back_with_its_own_serial_number() {
        let other = Serial::new("SIM2").unwrap();
        let script = vec![(1, Injection::Disconnect { failed_opens: 2 }), (1, Injection::Exchange { serial: other })];
        let (device, _) = camera(script, Pace::AsFastAsPossible);
        let mut frame = Frame::of_size(1, 1);
        let mut first = device.open().unwrap();
        first.next_frame(&mut frame, TIMEOUT).unwrap();
        assert!(first.next_frame(&mut frame, TIMEOUT).unwrap_err().needs_reopening());
        assert!(device.open().is_err() && device.open().is_err());
        let mut second = device.open().unwrap();
        assert_eq!(second.description().serial, Some(Serial::new("SIM1").unwrap()));
        assert!(second.next_frame(&mut frame, TIMEOUT).is_err());
        assert_eq!(device.open().unwrap().description().serial, Some(other));
    }

    #[test]
    fn a_frozen_camera_repeats_its_picture_with_new_stamps() {
        let (device, _) = camera(vec![(2, Injection::Freeze { frames: 3 })], Pace::AsFastAsPossible);
        let mut camera = device.open().unwrap();
        let mut frame = Frame::of_size(1, 1);
        let mut pictures = Vec::new();
        for _ in 0..6 {
            camera.next_frame(&mut frame, TIMEOUT).unwrap();
            pictures.push(frame.grey.pixels()[0]);
        }
        assert!(pictures[1..5].iter().all(|&p| p == pictures[1]));
        assert!(pictures[5] != pictures[1] && pictures[0] != pictures[1]);
    }
}
