//! Animated PNG: a picture file that every browser plays (PNG specification, third edition, chunks acTL, fcTL, fdAT).
//!
//! Each frame is compressed alone by the `png` crate; this module puts the frames into one file as they come, and writes
//! their number into its beginning at the end.

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
}

impl<W: Write + Seek> ApngWriter<W> {
    /// Begins a file for pictures of `width` × `height` pixels, RGB.
    pub fn new(mut to: W, width: u32, height: u32, time: FrameTime) -> io::Result<Self> {
        to.write_all(&SIGNATURE)?;
        let mut header = [0; HEADER_LEN];
        header[..4].copy_from_slice(&width.to_be_bytes());
        header[4..8].copy_from_slice(&height.to_be_bytes());
        // Eight bits, colours, the only compression, filter method and order that there are.
        header[8..].copy_from_slice(&[8, 2, 0, 0, 0]);
        chunk(&mut to, b"IHDR", &[&header])?;
        let count_at = to.stream_position()?;
        chunk(&mut to, b"acTL", &[&0_u32.to_be_bytes(), &PLAYS.to_be_bytes()])?;
        Ok(Self { to, width, height, time, frames: 0, sequence: 0, count_at })
    }

    /// Adds a frame, `[height, width, 3]`, row 0 at the top.
    pub fn add(&mut self, picture: &[u8]) -> io::Result<()> {
        let compressed = self.compress(picture)?;
        let mut control = Vec::with_capacity(26);
        control.extend(self.next_number().to_be_bytes());
        control.extend(self.width.to_be_bytes());
        control.extend(self.height.to_be_bytes());
        // At the left upper corner; what is there is neither cleared nor blended.
        control.extend([0; 8]);
        control.extend(self.time.numerator.to_be_bytes());
        control.extend(self.time.denominator.to_be_bytes());
        control.extend([0, 0]);
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
        Ok(())
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

    /// The data of the frame's IDAT chunks.
    fn compress(&self, picture: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Balanced);
        let mut writer = encoder.write_header().map_err(io::Error::other)?;
        writer.write_image_data(picture).map_err(io::Error::other)?;
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

    fn picture(number: u8) -> Vec<u8> {
        (0..4 * 2 * 3).map(|i: u8| i.wrapping_mul(number.wrapping_mul(31).wrapping_add(7))).collect()
    }

    fn film(frames: u8) -> Vec<u8> {
        let mut writer = ApngWriter::new(Cursor::new(Vec::new()), 4, 2, FrameTime::milliseconds(35)).unwrap();
        (0..frames).for_each(|number| writer.add(&picture(number)).unwrap());
        let (file, count) = writer.finish().unwrap();
        assert_eq!(count, u32::from(frames));
        file.into_inner()
    }

    #[test]
    fn frames_come_back_in_order_with_their_time() {
        let file = film(5);
        let mut reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
        let animation = *reader.info().animation_control().unwrap();
        assert_eq!([animation.num_frames, animation.num_plays], [5, 0]);
        let mut frame = vec![0; 4 * 2 * 3];
        for number in 0..5 {
            reader.next_frame(&mut frame).unwrap();
            assert_eq!(frame, picture(number), "frame {number}");
            let control = reader.info().frame_control().unwrap();
            assert_eq!([control.delay_num, control.delay_den], [35, 1000]);
        }
        assert!(reader.next_frame(&mut frame).is_err(), "no sixth frame");
    }

    #[test]
    fn a_film_without_a_frame_is_refused() {
        let writer = ApngWriter::new(Cursor::new(Vec::new()), 4, 2, FrameTime::milliseconds(35)).unwrap();
        assert!(writer.finish().is_err());
    }
}
