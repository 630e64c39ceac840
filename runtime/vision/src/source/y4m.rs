//! YUV4MPEG2 (`.y4m`), the plain video format that every converter writes: a text header, then planes of eight bits.
//!
//! The reader can be interrupted anywhere by an input that has nothing to give at the moment.

use std::io::{BufReader, ErrorKind, Read};

use super::convert::rgb_of_yuv;
use super::error::SourceError;
use super::frame::{Colour, ColourFormat, check_frame_size};
use crate::GreyImage;

pub(super) const MAGIC: &[u8] = b"YUV4MPEG2";
/// Longest header line, bytes; the ones in use have 60.
const MAX_LINE_BYTES: usize = 512;

/// Sampling of the chroma planes: how many luma samples share one, in x and y. `None`: there are none.
type Subsampling = Option<(usize, usize)>;

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Y4mHeader {
    pub width: usize,
    pub height: usize,
    /// `None` if the file leaves it open.
    pub rate_hz: Option<f64>,
    chroma: Subsampling,
}

impl Y4mHeader {
    fn parse(line: &str, place: &str) -> Result<Self, SourceError> {
        let damaged = |message: String| SourceError::damaged(place, message);
        let mut words = line.split(' ');
        if words.next().map(str::as_bytes) != Some(MAGIC) {
            return Err(damaged("it does not begin with YUV4MPEG2, so it is no Y4M video".to_owned()));
        }
        let (mut width, mut height, mut rate_hz, mut chroma) = (0, 0, None, Some((2, 2)));
        for word in words.filter(|word| !word.is_empty()) {
            let mut characters = word.chars();
            let (key, value) = (characters.next(), characters.as_str());
            let number = || value.parse::<usize>().map_err(|_| damaged(format!("{word:?} is no size")));
            match key {
                Some('W') => width = number()?,
                Some('H') => height = number()?,
                Some('F') => {
                    let parsed = value.split_once(':').and_then(|(n, d)| Some((n.parse().ok()?, d.parse().ok()?)));
                    let (n, d): (u32, u32) = parsed.ok_or_else(|| damaged(format!("{word:?} is no frame rate")))?;
                    let rate = f64::from(n) / f64::from(d);
                    rate_hz = (n > 0 && d > 0 && (0.001..=10_000.0).contains(&rate)).then_some(rate);
                }
                Some('C') => {
                    chroma = match value {
                        "420" | "420jpeg" | "420mpeg2" | "420paldv" => Some((2, 2)),
                        "422" => Some((2, 1)),
                        "444" => Some((1, 1)),
                        "mono" => None,
                        _ => return Err(damaged(format!("pixels {value:?} are not read; convert to 8-bit 4:2:0"))),
                    };
                }
                // Interlacing, aspect and extensions do not change where the bytes are.
                _ => {}
            }
        }
        check_frame_size(place, width, height)?;
        Ok(Self { width, height, rate_hz, chroma })
    }

    fn chroma_size(&self) -> (usize, usize) {
        self.chroma.map_or((0, 0), |(x, y)| (self.width.div_ceil(x), self.height.div_ceil(y)))
    }

    fn frame_bytes(&self) -> usize {
        let (width, height) = self.chroma_size();
        self.width * self.height + 2 * width * height
    }
}

/// How far the reader has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// A frame is complete.
    Frame,
    /// The input has nothing at the moment; call again.
    Waiting,
    End,
}

pub(super) struct Y4mReader<R> {
    input: BufReader<R>,
    place: String,
    header: Option<Y4mHeader>,
    line: Vec<u8>,
    planes: Vec<u8>,
    /// Bytes of `planes` that have come; `None` while the line before them is read.
    filled: Option<usize>,
    frames: u64,
    broken: bool,
}

impl<R: Read> Y4mReader<R> {
    /// `place`: the file in messages.
    pub fn new(input: R, place: &str) -> Self {
        Self {
            input: BufReader::with_capacity(1 << 16, input),
            place: place.to_owned(),
            header: None,
            line: Vec::with_capacity(MAX_LINE_BYTES),
            planes: Vec::new(),
            filled: None,
            frames: 0,
            broken: false,
        }
    }

    pub fn input_mut(&mut self) -> &mut R {
        self.input.get_mut()
    }

    /// Frames that were complete.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Reads the header; `None` while the input has not given all of it.
    pub fn read_header(&mut self) -> Result<Option<Y4mHeader>, SourceError> {
        if self.header.is_none() {
            match self.read_line()? {
                Progress::Waiting => return Ok(None),
                Progress::End => return Err(self.damaged("the file is empty")),
                Progress::Frame => {}
            }
            let line = String::from_utf8_lossy(&self.line).into_owned();
            let header = Y4mHeader::parse(&line, &self.place)?;
            self.planes.resize(header.frame_bytes(), 0);
            self.line.clear();
            self.header = Some(header);
        }
        Ok(self.header)
    }

    /// Reads on until a frame is complete. After an error there is only the end: nobody knows where a next frame begins.
    pub fn advance(&mut self) -> Result<Progress, SourceError> {
        if self.broken {
            return Ok(Progress::End);
        }
        let progress = self.try_advance();
        self.broken = progress.is_err();
        progress
    }

    fn try_advance(&mut self) -> Result<Progress, SourceError> {
        if self.read_header()?.is_none() {
            return Ok(Progress::Waiting);
        }
        if self.filled.is_none() {
            match self.read_line()? {
                Progress::Frame => {}
                other => return Ok(other),
            }
            if self.line != b"FRAME" && !self.line.starts_with(b"FRAME ") {
                return Err(self.damaged("FRAME is missing where a frame should begin"));
            }
            self.line.clear();
            self.filled = Some(0);
        }
        let mut filled = self.filled.unwrap_or(0);
        while filled < self.planes.len() {
            match self.input.read(&mut self.planes[filled..]) {
                Ok(0) => return Err(self.damaged("it is cut short")),
                Ok(read) => filled += read,
                Err(error) if is_waiting(&error) => {
                    self.filled = Some(filled);
                    return Ok(Progress::Waiting);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.damaged(&error.to_string())),
            }
        }
        self.filled = None;
        self.frames += 1;
        Ok(Progress::Frame)
    }

    /// Grey is the luma plane; colour becomes RGB8 (BT.601, limited range).
    pub fn unpack(&self, keep_colour: bool, grey: &mut GreyImage, colour: &mut Colour) {
        let Some(header) = self.header else { return };
        let Y4mHeader { width, height, .. } = header;
        let (luma, chroma) = self.planes.split_at(width * height);
        grey.resize(width, height);
        grey.pixels_mut().copy_from_slice(luma);
        let Some((step_x, step_y)) = header.chroma.filter(|_| keep_colour) else {
            return colour.clear();
        };
        let (chroma_width, _) = header.chroma_size();
        let (u, v) = chroma.split_at(chroma.len() / 2);
        let out = colour.prepare(ColourFormat::Rgb8, width, height);
        for (y, out) in out.chunks_exact_mut(width * 3).enumerate() {
            let row = y / step_y * chroma_width;
            for (x, out) in out.chunks_exact_mut(3).enumerate() {
                let at = row + x / step_x;
                out.copy_from_slice(&rgb_of_yuv(luma[y * width + x], u[at], v[at]));
            }
        }
    }

    /// Appends to `line` until its end, which is not kept.
    fn read_line(&mut self) -> Result<Progress, SourceError> {
        let mut byte = [0];
        loop {
            match self.input.read(&mut byte) {
                Ok(0) if self.line.is_empty() => return Ok(Progress::End),
                Ok(0) => return Err(self.damaged("it is cut short")),
                Ok(_) if byte[0] == b'\n' => return Ok(Progress::Frame),
                Ok(_) if self.line.len() == MAX_LINE_BYTES => return Err(self.damaged("a header line has no end")),
                Ok(_) => self.line.push(byte[0]),
                Err(error) if is_waiting(&error) => return Ok(Progress::Waiting),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.damaged(&error.to_string())),
            }
        }
    }

    fn damaged(&self, message: &str) -> SourceError {
        SourceError::damaged(&self.place, format!("{message} (after {} whole frames)", self.frames))
    }
}

fn is_waiting(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// `frames` frames of `width`x`height`; the luma of frame k is k+1 plus its column.
    pub fn sample(width: usize, height: usize, chroma: &str, frames: usize) -> Vec<u8> {
        let mut bytes = format!("YUV4MPEG2 W{width} H{height} F30:1 Ip A1:1 C{chroma} XNOTE=1\n").into_bytes();
        let chroma_samples = match chroma {
            "mono" => 0,
            "422" => width.div_ceil(2) * height,
            "444" => width * height,
            _ => width.div_ceil(2) * height.div_ceil(2),
        };
        for k in 0..frames {
            bytes.extend(b"FRAME\n");
            bytes.extend((0..width * height).map(|i| (k + 1 + i % width) as u8));
            bytes.extend(std::iter::repeat_n(128, 2 * chroma_samples));
        }
        bytes
    }

    fn read_all(bytes: &[u8]) -> Result<(Y4mHeader, Vec<GreyImage>), SourceError> {
        let mut reader = Y4mReader::new(bytes, "a.y4m");
        let header = reader.read_header()?.expect("a slice never waits");
        let (mut grey, mut colour, mut frames) = (GreyImage::filled(1, 1, 0), Colour::default(), Vec::new());
        while reader.advance()? == Progress::Frame {
            reader.unpack(true, &mut grey, &mut colour);
            frames.push(grey.clone());
        }
        Ok((header, frames))
    }

    #[test]
    fn every_chroma_layout_gives_its_luma_plane_also_with_odd_sizes() {
        for chroma in ["420", "420jpeg", "422", "444", "mono"] {
            let (header, frames) = read_all(&sample(7, 5, chroma, 3)).unwrap();
            assert_eq!((header.width, header.height, header.rate_hz), (7, 5, Some(30.0)));
            assert_eq!(frames.len(), 3, "{chroma}");
            assert_eq!(frames[2].pixels()[..8], [3, 4, 5, 6, 7, 8, 9, 3]);
        }
    }

    #[test]
    fn colour_follows_its_chroma_sample() {
        let mut bytes = b"YUV4MPEG2 W4 H2 F25:1 C420jpeg\nFRAME\n".to_vec();
        bytes.extend([81; 8]);
        bytes.extend([90, 128, 240, 128]);
        let mut reader = Y4mReader::new(&bytes[..], "x");
        assert_eq!(reader.advance().unwrap(), Progress::Frame);
        let (mut grey, mut colour) = (GreyImage::filled(1, 1, 0), Colour::default());
        reader.unpack(true, &mut grey, &mut colour);
        let (red, grey) = (&colour.pixels()[3..6], &colour.pixels()[6..9]);
        assert!(red[0] > 250 && red[1] < 5 && red[2] < 5, "{red:?}");
        assert!(grey[0] == grey[1] && grey[1] == grey[2], "{grey:?}");
    }

    #[test]
    fn cuts_are_errors_or_lose_whole_frames_only() {
        let bytes = sample(8, 4, "420jpeg", 3);
        let header = bytes.iter().position(|&b| b == b'\n').unwrap() + 1;
        let frame = (bytes.len() - header) / 3;
        for cut in 0..bytes.len() {
            match read_all(&bytes[..cut]) {
                Ok((_, frames)) => {
                    assert_eq!(cut, header + frames.len() * frame);
                }
                Err(error) => assert!(error.to_string().starts_with("a.y4m: "), "{error}"),
            }
        }
    }

    #[test]
    fn flipped_bits_and_giant_sizes_never_panic() {
        let bytes = sample(8, 4, "420jpeg", 2);
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[place] ^= 1 << bit;
                let _ = read_all(&damaged);
            }
        }
        for header in
            ["W99999999999 H2", "W16384 H16384", "W0 H4", "W-1 H4", "W4", "W4 H4 C420p10", "W4 H4 F30", "W4 H4 Fx:1"]
        {
            assert!(read_all(format!("YUV4MPEG2 {header}\n").as_bytes()).is_err(), "{header}");
        }
        assert!(read_all(&[b'x'; 4096]).unwrap_err().to_string().contains("no end"));
        assert_eq!(read_all(b"YUV4MPEG2 W4 H4 F0:0\n").unwrap().0.rate_hz, None);
    }

    /// Gives one byte, then nothing, in turn.
    struct Hesitant<'a>(&'a [u8], bool);

    impl Read for Hesitant<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(ErrorKind::TimedOut.into());
            }
            self.0.read(&mut into[..1])
        }
    }

    #[test]
    fn an_input_that_hesitates_after_every_byte_loses_nothing() {
        let bytes = sample(6, 4, "422", 3);
        let mut reader = Y4mReader::new(Hesitant(&bytes, false), "x");
        let (mut waits, mut frames) = (0, 0);
        loop {
            match reader.advance().unwrap() {
                Progress::Waiting => waits += 1,
                Progress::Frame => frames += 1,
                Progress::End => break,
            }
        }
        assert_eq!((frames, waits), (3, bytes.len() + 1));
    }

    #[test]
    fn after_damage_there_is_only_the_end() {
        let mut bytes = sample(8, 4, "mono", 2);
        let second = bytes.len() - 32 - 6;
        bytes[second] = b'X';
        let mut reader = Y4mReader::new(&bytes[..], "x");
        assert_eq!(reader.advance().unwrap(), Progress::Frame);
        assert!(reader.advance().unwrap_err().to_string().contains("after 1 whole frames"));
        assert_eq!(reader.advance().unwrap(), Progress::End);
    }
}
