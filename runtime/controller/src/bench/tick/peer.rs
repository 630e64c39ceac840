//! cyclictest of Debian's rt-tests: a thread that does nothing but wait for deadlines, as near to the machine's own as one gets.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::statistics::Durations;

const PROGRAM: &str = "cyclictest";
/// Longer delays than this (µs) are counted, without their length.
const MOST_US: u64 = 20_000;

/// What cyclictest measured.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerSegment {
    /// Whole microseconds.
    pub wake_up: Durations,
}

/// What cyclictest calls itself.
///
/// # Errors
/// It is not installed; the text says how to get it.
pub fn version() -> Result<String> {
    let output = Command::new(PROGRAM).arg("--help").output().with_context(|| {
        format!("starting {PROGRAM}, which the tick is compared with: install it (Debian, Ubuntu: `apt-get install rt-tests`), or go on without it: --no-peer")
    })?;
    let text = [output.stdout, output.stderr].concat();
    let first = String::from_utf8_lossy(&text).lines().next().unwrap_or(PROGRAM).trim().to_owned();
    Ok(first)
}

/// Runs it: one thread, an interval of 1 ms.
///
/// # Errors
/// What it said where it ended badly; being interrupted.
pub fn run(
    seconds: u64,
    cpu: Option<usize>,
    priority: Option<i32>,
    lock: bool,
    interrupted: &AtomicBool,
) -> Result<PeerSegment> {
    let mut command = Command::new(PROGRAM);
    command.args(["-q", "-t1", "-i1000", &format!("-D{seconds}"), &format!("-h{MOST_US}")]);
    command.args(cpu.map(|cpu| format!("-a{cpu}")));
    command.args(priority.map(|priority| format!("-p{priority}")));
    if lock {
        command.arg("-m");
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.as_mut().map_err(|e| anyhow::anyhow!("starting {PROGRAM}: {e}"))?;
    // Read while it runs: the histogram is longer than a pipe holds.
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let reading = std::thread::spawn(move || (read(out), read(err)));
    let until = Instant::now() + Duration::from_secs(seconds + 10);
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for cyclictest")? {
            break status;
        }
        if interrupted.load(Ordering::Acquire) || Instant::now() > until {
            // It may have ended by itself meanwhile.
            let _ = child.kill();
            let _ = child.wait();
            bail!("{}", if Instant::now() > until { "cyclictest did not end in its time" } else { "interrupted" });
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let Ok((text, errors)) = reading.join() else { bail!("reading what cyclictest printed failed") };
    if !status.success() {
        bail!("cyclictest ended with {status}: {}", errors.trim());
    }
    parse(&text)
}

fn read(pipe: Option<impl std::io::Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What could be read is judged by who parses it.
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads what `cyclictest -q -h` prints: a line `microseconds count` each, and lines `# name: value`.
///
/// # Errors
/// There is no histogram in it, or it contradicts itself.
pub fn parse(text: &str) -> Result<PeerSegment> {
    let mut wake_up = Durations::default();
    let (mut total, mut longest_us, mut overflows) = (None, None, 0_u64);
    for line in text.lines() {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix('#') {
            let Some((name, value)) = rest.split_once(':') else { continue };
            let value = value.split_whitespace().next().and_then(|value| value.parse::<u64>().ok());
            match name.trim() {
                "Total" => total = value,
                "Max Latencies" => longest_us = value,
                "Histogram Overflows" => overflows = value.unwrap_or(0),
                _ => {}
            }
            continue;
        }
        let mut words = line.split_whitespace().map(str::parse::<u64>);
        if let (Some(Ok(us)), Some(Ok(count)), None) = (words.next(), words.next(), words.next()) {
            wake_up.add(us * 1000, count);
        }
    }
    let counted = wake_up.len();
    if counted == 0 {
        bail!("cyclictest printed no histogram");
    }
    if total.is_some_and(|total| total != counted) {
        bail!("cyclictest counts {} delays, its histogram has {counted}", total.unwrap_or_default());
    }
    // Where they are is known of the longest alone.
    wake_up.add(longest_us.unwrap_or(MOST_US).max(MOST_US) * 1000, overflows);
    Ok(PeerSegment { wake_up })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "# /dev/cpu_dma_latency set to 0us
# Histogram
000000 000000
000001 000000
000002 000700
000003 000250
000004 000048
000019 000001
# Total: 000000999
# Min Latencies: 00002
# Avg Latencies: 00002
# Max Latencies: 00025
# Histogram Overflows: 00001
# Histogram Overflow at cycle number:
# Thread 0: 00512

";

    #[test]
    fn a_histogram_is_read_with_what_lies_beyond_it() {
        let segment = parse(PRINTED).unwrap();
        let wake_up = &segment.wake_up;
        assert_eq!((wake_up.len(), wake_up.us(0.5), wake_up.us(0.9), wake_up.us(0.998)), (1000, 2.0, 3.0, 4.0));
        // Beyond the histogram: at least its length.
        assert_eq!(wake_up.max_us(), 20_000.0);
        assert_eq!(wake_up.per_million_from(1_000_000), 1000.0);
    }

    #[test]
    fn what_is_no_histogram_is_refused() {
        assert!(parse("").unwrap_err().to_string().contains("no histogram"));
        assert!(parse("# Histogram\n000001 000000\n# Total: 000000000\n").is_err());
        let cut = PRINTED.replace("000003 000250\n", "");
        assert!(parse(&cut).unwrap_err().to_string().contains("counts 999 delays, its histogram has 749"));
    }
}
