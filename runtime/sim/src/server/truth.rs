//! What really happened in the simulation, for those who judge a run from outside.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

/// Lines between the arm's thread and the file: a second of them.
const QUEUE: usize = 200;
/// A reader of the file never lags further behind.
const FLUSH_PERIOD: Duration = Duration::from_millis(250);

/// One line of the truth file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TruthLine {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub t_ns: i64,
    /// Tool point in the base frame, metres.
    pub tcp: [f64; 3],
    /// Joint positions, radians.
    pub q: [f64; 7],
    /// Joint velocities, radians per second.
    pub dq: [f64; 7],
    /// Joint velocities that the uploaded controller commands (its attribute `vs`); absent where the arm is held by the default
    /// controller, or the text says no such thing.
    pub law_dq: Option<[f64; 7]>,
    /// The rod touched an obstacle since the last line.
    pub contact: bool,
}

/// Appends lines in a thread of its own, so that the 1 kHz loop waits for no disk.
#[derive(Debug)]
pub struct TruthWriter {
    queue: Option<SyncSender<TruthLine>>,
    thread: Option<JoinHandle<()>>,
    lost: u64,
}

impl TruthWriter {
    /// Opens (appends to) the file.
    ///
    /// # Errors
    /// As opening it for writing, or as starting a thread.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let (queue, lines) = sync_channel(QUEUE);
        let name = path.display().to_string();
        let thread = std::thread::Builder::new().name("truth".to_owned()).spawn(move || {
            if let Err(error) = write_lines(BufWriter::new(file), &lines) {
                tracing::error!("truth file {name}: {error}; no more lines are written");
            }
        })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), lost: 0 })
    }

    /// Hands a line over; a line that finds the queue full is lost and counted.
    pub fn write(&mut self, line: TruthLine) {
        if self.queue.as_ref().is_none_or(|queue| queue.try_send(line).is_err()) {
            self.lost += 1;
        }
    }
}

impl Drop for TruthWriter {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; all lines that could be written are.
            let _ = thread.join();
        }
        if self.lost > 0 {
            tracing::warn!("{} lines of the truth file were lost: the disk was too slow", self.lost);
        }
    }
}

fn write_lines(mut file: BufWriter<std::fs::File>, lines: &Receiver<TruthLine>) -> std::io::Result<()> {
    let mut flushed = Instant::now();
    loop {
        match lines.recv_timeout(FLUSH_PERIOD) {
            Ok(line) => {
                serde_json::to_writer(&mut file, &line)?;
                file.write_all(b"\n")?;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return file.flush(),
        }
        if flushed.elapsed() >= FLUSH_PERIOD {
            file.flush()?;
            flushed = Instant::now();
        }
    }
}
