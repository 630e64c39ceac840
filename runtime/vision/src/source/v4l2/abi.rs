//! The part of the kernel's V4L2 interface that capturing by memory mapping needs, as in `linux/videodev2.h` (64-bit).
//!
//! Written by hand rather than generated: it is small and frozen, and a generator would bring libclang into the build.

/// `_IOC` of Linux on x86 and ARM: direction (read 2, write 1), size, type, number.
const fn request<T>(direction: u64, number: u64) -> u64 {
    (direction << 30) | ((size_of::<T>() as u64) << 16) | ((b'V' as u64) << 8) | number
}

pub const QUERYCAP: u64 = request::<Capability>(2, 0);
pub const ENUM_FMT: u64 = request::<FormatDescription>(3, 2);
pub const S_FMT: u64 = request::<Format>(3, 5);
pub const REQBUFS: u64 = request::<RequestBuffers>(3, 8);
pub const QUERYBUF: u64 = request::<Buffer>(3, 9);
pub const QBUF: u64 = request::<Buffer>(3, 15);
pub const DQBUF: u64 = request::<Buffer>(3, 17);
pub const STREAMON: u64 = request::<i32>(1, 18);
pub const STREAMOFF: u64 = request::<i32>(1, 19);
pub const S_PARM: u64 = request::<StreamParameters>(3, 22);
pub const G_CTRL: u64 = request::<ControlValue>(3, 27);
pub const S_CTRL: u64 = request::<ControlValue>(3, 28);
pub const QUERYCTRL: u64 = request::<ControlRange>(3, 36);

pub const BUF_TYPE_VIDEO_CAPTURE: u32 = 1;
pub const MEMORY_MMAP: u32 = 1;
pub const FIELD_NONE: u32 = 1;

pub const CAP_VIDEO_CAPTURE: u32 = 0x0000_0001;
pub const CAP_STREAMING: u32 = 0x0400_0000;
pub const CAP_DEVICE_CAPS: u32 = 0x8000_0000;
pub const CAP_TIMEPERFRAME: u32 = 0x1000;

pub const BUF_FLAG_ERROR: u32 = 0x40;
pub const BUF_FLAG_TIMESTAMP_MASK: u32 = 0xE000;
pub const BUF_FLAG_TIMESTAMP_MONOTONIC: u32 = 0x2000;
pub const BUF_FLAG_TSTAMP_SRC_MASK: u32 = 0x7_0000;
/// The stamp is of the start of the exposure; otherwise of the end of the frame.
pub const BUF_FLAG_TSTAMP_SRC_SOE: u32 = 0x1_0000;

pub const CTRL_FLAG_DISABLED: u32 = 0x1;

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Capability {
    pub driver: [u8; 16],
    pub card: [u8; 32],
    pub bus_info: [u8; 32],
    pub version: u32,
    pub capabilities: u32,
    pub device_caps: u32,
    pub reserved: [u32; 3],
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct FormatDescription {
    pub index: u32,
    pub kind: u32,
    pub flags: u32,
    pub description: [u8; 32],
    pub pixelformat: u32,
    pub mbus_code: u32,
    pub reserved: [u32; 3],
}

/// `v4l2_pix_format`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct PixelLayout {
    pub width: u32,
    pub height: u32,
    pub pixelformat: u32,
    pub field: u32,
    pub bytesperline: u32,
    pub sizeimage: u32,
    pub colorspace: u32,
    pub private: u32,
    pub flags: u32,
    pub encoding: u32,
    pub quantization: u32,
    pub transfer: u32,
}

/// The union of the header is 200 bytes and aligned like a pointer.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy)]
pub struct Format {
    pub kind: u32,
    padding: u32,
    pub pixels: PixelLayout,
    rest: [u64; 19],
}

impl Format {
    pub fn of_capture(pixels: PixelLayout) -> Self {
        Self { kind: BUF_TYPE_VIDEO_CAPTURE, padding: 0, pixels, rest: [0; 19] }
    }
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestBuffers {
    pub count: u32,
    pub kind: u32,
    pub memory: u32,
    pub capabilities: u32,
    pub flags: u32,
}

/// `v4l2_buffer`, with the offset of the memory-mapped one for its union.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Buffer {
    pub index: u32,
    pub kind: u32,
    pub bytesused: u32,
    pub flags: u32,
    pub field: u32,
    pub padding: u32,
    pub seconds: i64,
    pub microseconds: i64,
    pub timecode: [u32; 4],
    pub sequence: u32,
    pub memory: u32,
    pub offset: u64,
    pub length: u32,
    pub reserved: [u32; 3],
}

impl Buffer {
    pub fn of_capture(index: u32) -> Self {
        Self { index, kind: BUF_TYPE_VIDEO_CAPTURE, memory: MEMORY_MMAP, ..Self::default() }
    }
}

/// `v4l2_streamparm`, with its capture part for its union of 200 bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct StreamParameters {
    pub kind: u32,
    pub capability: u32,
    pub mode: u32,
    /// Period of the frames in seconds, as a fraction.
    pub numerator: u32,
    pub denominator: u32,
    rest: [u32; 46],
}

impl StreamParameters {
    pub fn of_capture(numerator: u32, denominator: u32) -> Self {
        Self { kind: BUF_TYPE_VIDEO_CAPTURE, capability: 0, mode: 0, numerator, denominator, rest: [0; 46] }
    }
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct ControlValue {
    pub id: u32,
    pub value: i32,
}

/// `v4l2_queryctrl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct ControlRange {
    pub id: u32,
    pub kind: u32,
    pub name: [u8; 32],
    pub minimum: i32,
    pub maximum: i32,
    pub step: i32,
    pub default_value: i32,
    pub flags: u32,
    pub reserved: [u32; 2],
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    // Origin of the numbers: a C program with linux/videodev2.h of Debian 12 (kernel 6.1), x86-64, gcc.
    #[test]
    fn structs_have_the_kernels_sizes_and_offsets() {
        assert_eq!(size_of::<Capability>(), 104);
        assert_eq!(size_of::<FormatDescription>(), 64);
        assert_eq!(size_of::<PixelLayout>(), 48);
        assert_eq!(size_of::<Format>(), 208);
        assert_eq!(size_of::<RequestBuffers>(), 20);
        assert_eq!(size_of::<Buffer>(), 88);
        assert_eq!(size_of::<StreamParameters>(), 204);
        assert_eq!(size_of::<ControlValue>(), 8);
        assert_eq!(size_of::<ControlRange>(), 68);
        assert_eq!(offset_of!(Capability, device_caps), 88);
        assert_eq!(offset_of!(FormatDescription, pixelformat), 44);
        assert_eq!(offset_of!(Format, pixels), 8);
        assert_eq!(offset_of!(Buffer, seconds), 24);
        assert_eq!(offset_of!(Buffer, timecode), 40);
        assert_eq!(offset_of!(Buffer, sequence), 56);
        assert_eq!(offset_of!(Buffer, offset), 64);
        assert_eq!(offset_of!(Buffer, length), 72);
        assert_eq!(offset_of!(StreamParameters, capability), 4);
        assert_eq!(offset_of!(ControlRange, minimum), 40);
        assert_eq!(offset_of!(ControlRange, flags), 56);
    }

    #[test]
    fn requests_have_the_kernels_numbers() {
        let found = [
            QUERYCAP, ENUM_FMT, S_FMT, REQBUFS, QUERYBUF, QBUF, DQBUF, STREAMON, STREAMOFF, S_PARM, G_CTRL, S_CTRL,
            QUERYCTRL,
        ];
        let header = [
            0x8068_5600,
            0xC040_5602,
            0xC0D0_5605,
            0xC014_5608,
            0xC058_5609,
            0xC058_560F,
            0xC058_5611,
            0x4004_5612,
            0x4004_5613,
            0xC0CC_5616,
            0xC008_561B,
            0xC008_561C,
            0xC044_5624,
        ];
        assert_eq!(found, header);
    }
}
