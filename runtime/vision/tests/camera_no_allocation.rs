//! After warm-up, a frame's way from a source through the camera's thread to its reader allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tenon_core::time::MonotonicTime;
use tenon_vision::GreyImage;
use tenon_vision::source::{
    CameraThreadSettings, Clock, Colour, ControlValues, Doorbell, Expected, FrameSource, Pace, PixelFormat, Serial,
    SimulatedDevice, SimulatedSettings, SystemClock, convert, spawn,
};

struct Counting;

/// Of all threads while `COUNTS`, since the camera's thread is what is looked at.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static COUNTS: AtomicBool = AtomicBool::new(false);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTS.load(Ordering::Relaxed) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn counted(work: impl FnOnce()) -> u64 {
    ALLOCATIONS.store(0, Ordering::SeqCst);
    COUNTS.store(true, Ordering::SeqCst);
    work();
    COUNTS.store(false, Ordering::SeqCst);
    ALLOCATIONS.load(Ordering::SeqCst)
}

// One test, because the harness and a second test would allocate on threads of their own meanwhile.
#[test]
fn frames_allocate_nothing_after_warm_up() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let sized = SimulatedSettings::of_size("front", Serial::new("SIM1").unwrap(), 640, 480, 100.0, Pace::RealTime);
    let settings = SimulatedSettings { locked: ControlValues::fixed_exposure(60, Some(16)), ..sized };
    let mut level = 0u8;
    let scene = move |_: MonotonicTime, grey: &mut GreyImage| {
        level = level.wrapping_add(1);
        grey.pixels_mut().fill(level);
    };
    let device = SimulatedDevice::new(settings, scene, vec![], Arc::clone(&clock)).unwrap();
    let mut of_thread = CameraThreadSettings::of_rate(100.0, Expected::default());
    of_thread.control_period = Duration::from_millis(50);
    // A late frame on a busy machine must not end in the path that builds messages.
    of_thread.frame_timeout = Duration::from_secs(5);
    let opener = move || device.open().map(|camera| Box::new(camera) as Box<dyn FrameSource>);
    let mut reader = spawn(opener, of_thread, Arc::clone(&clock), &Doorbell::default()).unwrap();
    let mut take = |frames: usize| {
        for _ in 0..frames {
            let frame = reader.wait(Duration::from_secs(20)).expect("a frame comes");
            assert_eq!(frame.grey.width(), 640);
            let _ = reader.status(clock.now());
        }
    };
    take(150);
    let of_frames = counted(|| take(150));
    assert_eq!(of_frames, 0, "150 frames through the thread");

    let yuyv = vec![120; 640 * 480 * 2];
    let (mut grey, mut colour) = (GreyImage::filled(1, 1, 0), Colour::default());
    let mut unpack = || {
        let raw =
            convert::RawFrame { format: PixelFormat::Yuyv, width: 640, height: 480, stride_bytes: 1280, bytes: &yuyv };
        convert::unpack(&raw, true, &mut grey, &mut colour, "test").unwrap();
    };
    unpack();
    assert_eq!(counted(unpack), 0, "unpacking YUYV");
}
