//! MP4 by an `ffmpeg` program, where there is one.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::NamedTempFile;

use crate::error::TrainError;
use crate::run_dir::new_file_in;

/// Names another program than `ffmpeg`.
pub const FFMPEG_VARIABLE: &str = "TENON_FFMPEG";

fn program() -> PathBuf {
    std::env::var_os(FFMPEG_VARIABLE).filter(|name| !name.is_empty()).map_or("ffmpeg".into(), PathBuf::from)
}

/// Whether the program is there and starts.
pub fn is_available() -> bool {
    let run = Command::new(program())
        .arg("-version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    run.is_ok_and(|status| status.success())
}

/// A film that is being encoded beside its target.
pub struct Mp4Writer {
    child: Child,
    /// Taken when it is put into place.
    file: Option<NamedTempFile>,
    /// What ffmpeg complains about.
    complaints: std::fs::File,
}

impl Mp4Writer {
    /// Starts the encoder for pictures of `width` × `height` pixels (even numbers), RGB.
    pub fn new(folder: &Path, width: u32, height: u32, frames_per_second: f64) -> Result<Self, TrainError> {
        let program = program();
        let fail = |e: std::io::Error| TrainError::file(&program, format!("cannot be used: {e}"));
        let file = new_file_in(folder).map_err(|e| TrainError::file(folder, format!("cannot be written: {e}")))?;
        let complaints = tempfile::tempfile().map_err(fail)?;
        let child = Command::new(&program)
            .args(["-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"])
            .args(["-s", &format!("{width}x{height}"), "-r", &frames_per_second.to_string(), "-i", "-"])
            // Every player knows these colours; the index at the front lets browsers begin at once.
            .args(["-an", "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4"])
            .arg(file.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(complaints.try_clone().map_err(fail)?)
            .spawn()
            .map_err(fail)?;
        Ok(Self { child, file: Some(file), complaints })
    }

    /// Adds a frame, `[height, width, 3]`, row 0 at the top.
    pub fn add(&mut self, picture: &[u8]) -> Result<(), TrainError> {
        let written = match &mut self.child.stdin {
            Some(stdin) => stdin.write_all(picture),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        written.map_err(|e| self.failure(&e.to_string()))
    }

    /// Ends the film and puts it into place.
    pub fn finish(mut self, target: &Path) -> Result<(), TrainError> {
        drop(self.child.stdin.take());
        let status = self.child.wait().map_err(|e| self.failure(&e.to_string()))?;
        if !status.success() {
            return Err(self.failure(&status.to_string()));
        }
        let _writing = crate::run_dir::writing();
        let Some(file) = self.file.take() else { return Err(self.failure("its file is gone")) };
        file.persist(target).map_err(|e| TrainError::file(target, format!("cannot be written: {}", e.error)))?;
        Ok(())
    }

    fn failure(&mut self, what: &str) -> TrainError {
        let mut said = String::new();
        let read = self.complaints.seek(SeekFrom::Start(0)).and_then(|_| self.complaints.read_to_string(&mut said));
        let said = if read.is_ok() { said.split_whitespace().collect::<Vec<_>>().join(" ") } else { String::new() };
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        TrainError::file(
            program(),
            format!("the video could not be encoded ({what}){said}; give --no-mp4 to do without"),
        )
    }
}

impl Drop for Mp4Writer {
    fn drop(&mut self) {
        // Of a film that was given up the encoder would wait for more.
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
