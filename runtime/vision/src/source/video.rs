//! Video: Y4M files are read here, anything else through an `ffmpeg` program that is asked for Y4M.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tenon_core::time::MonotonicTime;

use super::clock::{Clock, Timeline, timed_out};
use super::error::SourceError;
use super::frame::{Frame, SourceDescription, check_rate};
use super::y4m::{MAGIC, Progress, Y4mReader};
use super::{FileSettings, FrameSource, still_files};

/// How long a decoder may take until its first bytes.
const DECODER_START: Duration = Duration::from_secs(10);
/// What is kept of a decoder's messages, bytes.
const MAX_MESSAGE_BYTES: u64 = 4096;

/// The frames of a video file, `1 / rate_hz` apart, the first one when it was opened.
///
/// Grey is the luma as stored. A video of changing rate comes out of `ffmpeg` at its constant one, with frames repeated or
/// left out; for stamps that mean something, record a run instead.
pub struct Video {
    path: PathBuf,
    description: SourceDescription,
    keep_colour: bool,
    timeline: Timeline,
    reader: Y4mReader<Input>,
    began: MonotonicTime,
    next: u64,
}

impl Video {
    /// `ffmpeg`: the program for what is not Y4M, by name or path; usually `"ffmpeg"`.
    pub fn open(
        path: &Path,
        settings: FileSettings,
        ffmpeg: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SourceError> {
        let fail = |error: std::io::Error| SourceError::file(path, "read", error);
        let mut magic = Vec::new();
        File::open(path).and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut magic)).map_err(fail)?;
        let input = match magic == MAGIC {
            true => Input::File(File::open(path).map_err(fail)?),
            false => Input::Decoder(Decoder::start(path, ffmpeg)?),
        };
        let mut reader = Y4mReader::new(input, &path.display().to_string());
        reader.input_mut().wait_until(Instant::now() + DECODER_START);
        let header = match reader.read_header() {
            Ok(Some(header)) => header,
            Ok(None) => {
                let reason = format!("{} gave nothing within {} s", ffmpeg.display(), DECODER_START.as_secs());
                return Err(SourceError::Decoder { path: path.to_owned(), reason });
            }
            Err(error) => return Err(reader.input_mut().explain(path, error)),
        };
        let nominal_rate_hz = settings.rate_hz.or(header.rate_hz).ok_or_else(|| SourceError::Setting {
            name: "rate_hz",
            value: "none".to_owned(),
            requirement: "this video does not say its rate, so it has to be given",
        })?;
        check_rate(nominal_rate_hz)?;
        let description = SourceDescription {
            name: settings.name,
            serial: settings.serial,
            width: header.width,
            height: header.height,
            nominal_rate_hz,
            intrinsics: settings.intrinsics,
        };
        let began = clock.now();
        let timeline = Timeline::new(settings.pace, clock);
        let (path, keep_colour) = (path.to_owned(), settings.keep_colour);
        Ok(Self { path, description, keep_colour, timeline, reader, began, next: 0 })
    }
}

impl FrameSource for Video {
    fn description(&self) -> &SourceDescription {
        &self.description
    }

    fn next_frame(&mut self, into: &mut Frame, timeout: Duration) -> Result<(), SourceError> {
        let name = &self.description.name;
        let until = Instant::now() + timeout;
        let due = self.began + Duration::from_secs_f64(self.next as f64 / self.description.nominal_rate_hz);
        let stamps = self.timeline.wait_for(&still_files::stamps_at(due), timeout);
        into.stamps = stamps.ok_or_else(|| timed_out(name, timeout))?;
        self.reader.input_mut().wait_until(until);
        let progress = match self.reader.advance() {
            Ok(progress) => progress,
            Err(error) => return Err(self.reader.input_mut().explain(&self.path, error)),
        };
        match progress {
            Progress::Waiting => Err(timed_out(name, timeout)),
            Progress::End => {
                let frames = self.reader.frames();
                let ended = SourceError::Ended { source_name: name.clone(), frames };
                Err(self.reader.input_mut().explain(&self.path, ended))
            }
            Progress::Frame => {
                self.reader.unpack(self.keep_colour, &mut into.grey, &mut into.colour);
                into.sequence = self.next;
                self.next += 1;
                Ok(())
            }
        }
    }
}

enum Input {
    File(File),
    Decoder(Decoder),
}

impl Input {
    /// Until when a read may wait.
    fn wait_until(&mut self, deadline: Instant) {
        if let Self::Decoder(decoder) = self {
            decoder.deadline = deadline;
        }
    }

    /// What the decoder itself says about an end or an error, once; else the error.
    fn explain(&mut self, path: &Path, error: SourceError) -> SourceError {
        let Self::Decoder(decoder) = self else { return error };
        match decoder.complaint() {
            Some(reason) => SourceError::Decoder { path: path.to_owned(), reason },
            None => error,
        }
    }
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::File(file) => file.read(into),
            Self::Decoder(decoder) => decoder.read(into),
        }
    }
}

/// A running decoder program. It ends when this is dropped.
struct Decoder {
    program: PathBuf,
    child: Child,
    output: ChildStdout,
    deadline: Instant,
    /// Collects its messages, so that a talkative decoder does not stand still.
    messages: Option<JoinHandle<String>>,
}

impl Decoder {
    fn start(path: &Path, program: &Path) -> Result<Self, SourceError> {
        let fail = |reason: String| SourceError::Decoder { path: path.to_owned(), reason };
        // The prefix keeps a name with a colon or a dash from being taken for something else than a file.
        let mut input = std::ffi::OsString::from("file:");
        input.push(path);
        let mut child = Command::new(program)
            .args(["-v", "error", "-nostdin", "-i"])
            .arg(input)
            .args(["-an", "-sn", "-dn", "-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe", "pipe:1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| match error.kind() {
                ErrorKind::NotFound => fail(format!(
                    "the program {} is not installed: install it, or convert the video to Y4M where it is \
                     (ffmpeg -i IN -pix_fmt yuv420p OUT.y4m)",
                    program.display()
                )),
                _ => fail(format!("{} cannot be started ({error})", program.display())),
            })?;
        let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(fail("the decoder has no output".to_owned()));
        };
        let messages = std::thread::Builder::new().name("tenon-decoder".into()).spawn(move || collect(errors));
        let messages = messages.map_err(|error| fail(error.to_string()))?;
        let program = program.to_owned();
        Ok(Self { program, child, output, deadline: Instant::now(), messages: Some(messages) })
    }

    /// Why the decoder failed; `None` if it did not, or has been asked before.
    fn complaint(&mut self) -> Option<String> {
        let messages = self.messages.take()?;
        // Its output is at an end or nonsense; either way there is nothing more to wait for.
        let grace = Instant::now() + Duration::from_secs(1);
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if Instant::now() < grace => std::thread::sleep(Duration::from_millis(5)),
                _ => break None,
            }
        };
        if status.is_none() {
            // Still running after nonsense: end it, or its messages never end.
            let _ = self.child.kill();
        }
        let text = messages.join().unwrap_or_default();
        let failed = status.is_none_or(|status| !status.success());
        let said = if text.is_empty() { "without a message" } else { text.trim() };
        failed.then(|| format!("{} failed: {said}", self.program.display()))
    }
}

/// Reads all messages and keeps the first ones.
fn collect(mut errors: ChildStderr) -> String {
    let mut kept = Vec::new();
    let _ = errors.by_ref().take(MAX_MESSAGE_BYTES).read_to_end(&mut kept);
    let _ = std::io::copy(&mut errors, &mut std::io::sink());
    String::from_utf8_lossy(&kept).into_owned()
}

impl Read for Decoder {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match super::v4l2::wait_readable(self.output.as_raw_fd(), left)? {
            true => self.output.read(into),
            false => Err(ErrorKind::TimedOut.into()),
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // It may have ended by itself; then there is only its status to collect.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests;
