//! The system calls behind a camera, and nothing else. Tests put another driver in their place.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use super::abi::{self, Buffer, Capability, ControlRange, ControlValue, Format, FormatDescription, PixelLayout};

/// What a capture device can be asked. Errors are those of the kernel.
pub trait Driver: Send {
    fn capability(&mut self) -> io::Result<Capability>;
    /// The format of this index; EINVAL after the last one.
    fn format(&mut self, index: u32) -> io::Result<FormatDescription>;
    /// Sets a format; the driver answers with the one it has taken.
    fn set_format(&mut self, wanted: PixelLayout) -> io::Result<PixelLayout>;
    /// Sets the period of the frames; the driver answers with the one it has taken, `None` if it has no say in it.
    fn set_period(&mut self, numerator: u32, denominator: u32) -> io::Result<Option<(u32, u32)>>;
    /// Asks for buffers and maps them; answers with their number.
    fn map_buffers(&mut self, count: u32) -> io::Result<u32>;
    /// The memory of a buffer that is not queued.
    fn bytes(&self, index: u32) -> &[u8];
    fn queue(&mut self, index: u32) -> io::Result<()>;
    /// The oldest filled buffer; EAGAIN if there is none.
    fn dequeue(&mut self) -> io::Result<Buffer>;
    fn stream(&mut self, on: bool) -> io::Result<()>;
    fn control_range(&mut self, id: u32) -> io::Result<ControlRange>;
    fn control(&mut self, id: u32) -> io::Result<i32>;
    fn set_control(&mut self, id: u32, value: i32) -> io::Result<()>;
    /// Waits until a buffer is filled or something is wrong; false after `timeout`.
    fn wait(&mut self, timeout: Duration) -> io::Result<bool>;
}

/// A video device of the kernel.
pub struct Kernel {
    file: File,
    mappings: Vec<Mapping>,
}

impl Kernel {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(Self { file, mappings: Vec::new() })
    }

    /// `request` must be the number for `T`, which both come from [`abi`].
    fn call<T>(&self, request: u64, argument: &mut T) -> io::Result<()> {
        loop {
            // SAFETY: the descriptor is open; every request of `abi` carries the size of its struct, `T`, which is plain
            // data that the kernel may read and write, and holds no pointer that it would follow.
            let rc = unsafe { libc::ioctl(self.file.as_raw_fd(), request as _, std::ptr::from_mut(argument)) };
            if rc >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

impl Driver for Kernel {
    fn capability(&mut self) -> io::Result<Capability> {
        let mut capability = Capability::default();
        self.call(abi::QUERYCAP, &mut capability)?;
        Ok(capability)
    }

    fn format(&mut self, index: u32) -> io::Result<FormatDescription> {
        let mut format = FormatDescription { index, kind: abi::BUF_TYPE_VIDEO_CAPTURE, ..FormatDescription::default() };
        self.call(abi::ENUM_FMT, &mut format)?;
        Ok(format)
    }

    fn set_format(&mut self, wanted: PixelLayout) -> io::Result<PixelLayout> {
        let mut format = Format::of_capture(wanted);
        self.call(abi::S_FMT, &mut format)?;
        Ok(format.pixels)
    }

    fn set_period(&mut self, numerator: u32, denominator: u32) -> io::Result<Option<(u32, u32)>> {
        let mut parameters = abi::StreamParameters::of_capture(numerator, denominator);
        match self.call(abi::S_PARM, &mut parameters) {
            // Drivers with one fixed rate do not know the request.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) => Ok(None),
            Err(error) => Err(error),
            Ok(()) if parameters.capability & abi::CAP_TIMEPERFRAME == 0 => Ok(None),
            Ok(()) => Ok(Some((parameters.numerator, parameters.denominator))),
        }
    }

    fn map_buffers(&mut self, count: u32) -> io::Result<u32> {
        let (kind, memory) = (abi::BUF_TYPE_VIDEO_CAPTURE, abi::MEMORY_MMAP);
        let mut request = abi::RequestBuffers { count, kind, memory, ..abi::RequestBuffers::default() };
        self.call(abi::REQBUFS, &mut request)?;
        self.mappings.clear();
        for index in 0..request.count {
            let mut buffer = Buffer::of_capture(index);
            self.call(abi::QUERYBUF, &mut buffer)?;
            // The union's member is 32 bits wide; the other half is of no meaning here.
            let offset = i64::from(buffer.offset as u32);
            self.mappings.push(Mapping::new(self.file.as_raw_fd(), offset, buffer.length as usize)?);
        }
        Ok(request.count)
    }

    fn bytes(&self, index: u32) -> &[u8] {
        self.mappings.get(index as usize).map_or(&[], Mapping::bytes)
    }

    fn queue(&mut self, index: u32) -> io::Result<()> {
        self.call(abi::QBUF, &mut Buffer::of_capture(index))
    }

    fn dequeue(&mut self) -> io::Result<Buffer> {
        let mut buffer = Buffer::of_capture(0);
        self.call(abi::DQBUF, &mut buffer)?;
        Ok(buffer)
    }

    fn stream(&mut self, on: bool) -> io::Result<()> {
        let mut kind = abi::BUF_TYPE_VIDEO_CAPTURE as i32;
        self.call(if on { abi::STREAMON } else { abi::STREAMOFF }, &mut kind)
    }

    fn control_range(&mut self, id: u32) -> io::Result<ControlRange> {
        let mut range = ControlRange { id, ..ControlRange::default() };
        self.call(abi::QUERYCTRL, &mut range)?;
        Ok(range)
    }

    fn control(&mut self, id: u32) -> io::Result<i32> {
        let mut control = ControlValue { id, value: 0 };
        self.call(abi::G_CTRL, &mut control)?;
        Ok(control.value)
    }

    fn set_control(&mut self, id: u32, value: i32) -> io::Result<()> {
        self.call(abi::S_CTRL, &mut ControlValue { id, value })
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        wait_readable(self.file.as_raw_fd(), timeout)
    }
}

/// Waits until a descriptor can be read, is at its end or has failed; false after `timeout`.
pub fn wait_readable(descriptor: RawFd, timeout: Duration) -> io::Result<bool> {
    let until = Instant::now() + timeout;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let time = libc::timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ };
        let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd and a valid timespec; no signal mask is given.
        let rc = unsafe { libc::ppoll(&mut poll, 1, &time, std::ptr::null()) };
        if rc >= 0 {
            return Ok(rc > 0);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// A buffer of the driver in our memory.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and only its owner reads it.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(descriptor: RawFd, offset: i64, len: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory of ours.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, descriptor, offset as libc::off_t)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))?;
        Ok(Self { start, len })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped for reading until the drop. The driver writes only into queued buffers, and
        // `Camera` reads only those that it has taken out of the queue.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` has mapped, and nobody holds a borrow of it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
