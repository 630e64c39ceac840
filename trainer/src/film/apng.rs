//! Animated PNG: a picture file that every browser plays (PNG specification, third edition, chunks acTL, fcTL, fdAT).
//!
//! Each frame is compressed alone by the `png` crate; this module puts the frames into one file as they come, and writes
//! their number into its beginning at the end. Frames after the first hold the rectangle that changed, and in it the
//! changed pixels only, over transparent ones: a scene at rest before a camera at rest costs next to nothing.

use std::io::{self, Seek, SeekFrom, Write};

const SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', 0x0D, 0x0A, 0x1A, 0x0A];
/// Length of a chunk's data and its name stand before the data, the check sum behind it.
const CHUNK_HEAD: usize = 8;
const CHUNK_FRAME: usize = CHUNK_HEAD + 4;
/// Bytes of an IHDR's data.
const HEADER_LEN: usize = 13;
/// Plays for ever.
const PLAYS: u32 = 0;

/// Time from one frame to the next, seconds, as the file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameTime {
    pub numerator: u16,
    pub denominator: u16,
}

impl FrameTime {
    /// So many milliseconds.
    pub fn milliseconds(milliseconds: u16) -> Self {
        Self { numerator: milliseconds, denominator: 1000 }
    }
}

/// Writes an animation frame by frame.
pub struct ApngWriter<W> {
    to: W,
    width: u32,
    height: u32,
    time: FrameTime,
    frames: u32,
    /// Numbers the chunks fcTL and fdAT together.
    sequence: u32,
    /// Where the chunk stands that says how many frames there are.
    count_at: u64,
    /// The frame before, RGB.
    before: Vec<u8>,
}

/// A part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Area {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

impl<W: Write + Seek> ApngWriter<W> {
    /// Begins a file for pictures of `width` × `height` pixels, RGB.
    pub fn new(mut to: W, width: u32, height: u32, time: FrameTime) -> io::Result<Self> {
        to.write_all(&SIGNATURE)?;
        let mut header = [0; HEADER_LEN];
        header[..4].copy_from_slice(&width.to_be_bytes());
        header[4..8].copy_from_slice(&height.to_be_bytes());
        // Eight bits, colours and opacity, the only compression, filter method and order that there are.
        header[8..].copy_from_slice(&[8, 6, 0, 0, 0]);
        chunk(&mut to, b"IHDR", &[&header])?;
        let count_at = to.stream_position()?;
        chunk(&mut to, b"acTL", &[&0_u32.to_be_bytes(), &PLAYS.to_be_bytes()])?;
        Ok(Self { to, width, height, time, frames: 0, sequence: 0, count_at, before: Vec::new() })
    }

    /// Adds a frame, `[height, width, 3]`, row 0 at the top.
    pub fn add(&mut self, picture: &[u8]) -> io::Result<()> {
        let (width, height) = (self.width as usize, self.height as usize);
        if picture.len() != 3 * width * height {
            let bytes = picture.len();
            return Err(io::Error::other(format!("a frame of {bytes} bytes in a film of {width}×{height} pixels")));
        }
        let area = match self.frames {
            0 => Area { x: 0, y: 0, width, height },
            _ => changed(picture, &self.before, width),
        };
        let compressed = compress(area, &self.pixels(picture, area))?;
        let mut control = Vec::with_capacity(26);
        control.extend(self.next_number().to_be_bytes());
        for number in [area.width, area.height, area.x, area.y] {
            control.extend((number as u32).to_be_bytes());
        }
        control.extend(self.time.numerator.to_be_bytes());
        control.extend(self.time.denominator.to_be_bytes());
        // What is there stays, and the frame lies over it.
        control.extend([0, 1]);
        chunk(&mut self.to, b"fcTL", &[&control])?;
        for data in &compressed {
            if self.frames == 0 {
                chunk(&mut self.to, b"IDAT", &[data])?;
            } else {
                let number = self.next_number().to_be_bytes();
                chunk(&mut self.to, b"fdAT", &[&number, data])?;
            }
        }
        self.frames += 1;
        self.before.clear();
        self.before.extend_from_slice(picture);
        Ok(())
    }

    /// An area of a frame as RGBA: what is as before is transparent.
    fn pixels(&self, picture: &[u8], area: Area) -> Vec<u8> {
        let mut pixels = Vec::with_capacity(4 * area.width * area.height);
        for y in area.y..area.y + area.height {
            let row = 3 * (y * self.width as usize + area.x);
            for at in (row..row + 3 * area.width).step_by(3) {
                let now = &picture[at..at + 3];
                match self.before.get(at..at + 3) {
                    Some(before) if before == now => pixels.extend([0; 4]),
                    _ => pixels.extend([now[0], now[1], now[2], u8::MAX]),
                }
            }
        }
        pixels
    }

    /// Ends the file and says how many frames it has; one without any is refused, as it would be no picture.
    pub fn finish(mut self) -> io::Result<(W, u32)> {
        if self.frames == 0 {
            return Err(io::Error::other("an animation without a frame"));
        }
        chunk(&mut self.to, b"IEND", &[])?;
        self.to.seek(SeekFrom::Start(self.count_at))?;
        chunk(&mut self.to, b"acTL", &[&self.frames.to_be_bytes(), &PLAYS.to_be_bytes()])?;
        self.to.seek(SeekFrom::End(0))?;
        self.to.flush()?;
        Ok((self.to, self.frames))
    }

    fn next_number(&mut self) -> u32 {
        let number = self.sequence;
        self.sequence += 1;
        number
    }
}

/// The smallest area that holds all that differs; its first pixel where nothing does.
fn changed(picture: &[u8], before: &[u8], width: usize) -> Area {
    let rows = picture.chunks_exact(3 * width).zip(before.chunks_exact(3 * width));
    let (mut columns, mut lines) = (None::<(usize, usize)>, None::<(usize, usize)>);
    for (y, (now, then)) in rows.enumerate().filter(|(_, (now, then))| now != then) {
        let mut differing = (0..width).filter(|x| now[3 * x..3 * x + 3] != then[3 * x..3 * x + 3]);
        let Some(first) = differing.next() else { continue };
        let last = differing.next_back().unwrap_or(first);
        columns = Some(columns.map_or((first, last), |(from, to)| (from.min(first), to.max(last))));
        lines = Some(lines.map_or((y, y), |(from, _)| (from, y)));
    }
    let ((left, right), (top, bottom)) = (columns.unwrap_or_default(), lines.unwrap_or_default());
    Area { x: left, y: top, width: right - left + 1, height: bottom - top + 1 }
}

/// The data of a frame's IDAT chunks, from RGBA.
fn compress(area: Area, pixels: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, area.width as u32, area.height as u32);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Balanced);
    let mut writer = encoder.write_header().map_err(io::Error::other)?;
    writer.write_image_data(pixels).map_err(io::Error::other)?;
    writer.finish().map_err(io::Error::other)?;
    let mut data = Vec::new();
    let mut rest = &file[SIGNATURE.len()..];
    while rest.len() >= CHUNK_FRAME {
        let (head, body) = rest.split_at(CHUNK_HEAD);
        let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if &head[4..] == b"IDAT" {
            data.push(body[..len].to_vec());
        }
        rest = &rest[CHUNK_FRAME + len..];
    }
    Ok(data)
}

fn chunk(to: &mut impl Write, name: &[u8; 4], parts: &[&[u8]]) -> io::Result<()> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let len = u32::try_from(len).map_err(io::Error::other)?;
    to.write_all(&len.to_be_bytes())?;
    to.write_all(name)?;
    let mut sum = crc32fast::Hasher::new();
    sum.update(name);
    for part in parts {
        to.write_all(part)?;
        sum.update(part);
    }
    to.write_all(&sum.finalize().to_be_bytes())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const WIDTH: usize = 4;
    const HEIGHT: usize = 3;

    fn film(pictures: &[Vec<u8>]) -> Vec<u8> {
        let to = Cursor::new(Vec::new());
        let mut writer = ApngWriter::new(to, WIDTH as u32, HEIGHT as u32, FrameTime::milliseconds(35)).unwrap();
        pictures.iter().for_each(|picture| writer.add(picture).unwrap());
        let (file, count) = writer.finish().unwrap();
        assert_eq!(count as usize, pictures.len());
        file.into_inner()
    }

    /// What a browser shows, RGB, and how large the frames of the file are.
    fn shown(file: Vec<u8>) -> Vec<(Vec<u8>, [u32; 4])> {
        let mut reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
        let animation = *reader.info().animation_control().unwrap();
        assert_eq!(animation.num_plays, 0);
        let mut screen = vec![0; WIDTH * HEIGHT * 3];
        let mut frames = Vec::new();
        for _ in 0..animation.num_frames {
            let mut frame = vec![0; WIDTH * HEIGHT * 4];
            reader.next_frame(&mut frame).unwrap();
            let control = reader.info().frame_control().unwrap();
            assert_eq!([control.delay_num, control.delay_den], [35, 1000]);
            assert_eq!((control.dispose_op, control.blend_op), (png::DisposeOp::None, png::BlendOp::Over));
            for (i, pixel) in frame.chunks_exact(4).take((control.width * control.height) as usize).enumerate() {
                let (x, y) = (i as u32 % control.width + control.x_offset, i as u32 / control.width + control.y_offset);
                if pixel[3] == u8::MAX {
                    let at = 3 * (y as usize * WIDTH + x as usize);
                    screen[at..at + 3].copy_from_slice(&pixel[..3]);
                }
            }
            frames.push((screen.clone(), [control.x_offset, control.y_offset, control.width, control.height]));
        }
        assert!(reader.next_frame(&mut [0; WIDTH * HEIGHT * 4]).is_err(), "no frame more");
        frames
    }

    #[test]
    fn frames_come_back_in_order_with_their_time() {
        let noise = |number: u8| -> Vec<u8> {
            (0..(WIDTH * HEIGHT * 3) as u8).map(|i| i.wrapping_mul(number.wrapping_mul(31).wrapping_add(7))).collect()
        };
        let pictures: Vec<Vec<u8>> = (0..5).map(noise).collect();
        let shown: Vec<Vec<u8>> = shown(film(&pictures)).into_iter().map(|(picture, _)| picture).collect();
        assert_eq!(shown, pictures);
    }

    #[test]
    fn frames_hold_what_changed_and_no_more() {
        let still = vec![9; WIDTH * HEIGHT * 3];
        let with = |pixels: &[(usize, usize)]| {
            let mut picture = still.clone();
            // One channel is enough, black too: it is not taken for what is transparent.
            pixels.iter().for_each(|(x, y)| picture[3 * (y * WIDTH + x)] = 0);
            picture
        };
        let pictures =
            [still.clone(), with(&[(3, 1)]), with(&[(1, 2), (2, 1)]), with(&[(1, 2), (2, 1)]), still.clone()];
        let (seen, areas): (Vec<Vec<u8>>, Vec<[u32; 4]>) = shown(film(&pictures)).into_iter().unzip();
        assert_eq!(seen, pictures);
        assert_eq!(areas, [[0, 0, 4, 3], [3, 1, 1, 1], [1, 1, 3, 2], [0, 0, 1, 1], [1, 1, 2, 2]]);
    }

    #[test]
    fn a_frame_of_another_size_is_refused() {
        let to = Cursor::new(Vec::new());
        let mut writer = ApngWriter::new(to, WIDTH as u32, HEIGHT as u32, FrameTime::milliseconds(35)).unwrap();
        let refused = writer.add(&[0; 5]).unwrap_err().to_string();
        assert!(refused.contains("5 bytes") && refused.contains("4×3"), "{refused}");
    }

    #[test]
    fn a_film_without_a_frame_is_refused() {
        let writer = ApngWriter::new(Cursor::new(Vec::new()), 4, 2, FrameTime::milliseconds(35)).unwrap();
        assert!(writer.finish().is_err());
    }
}
