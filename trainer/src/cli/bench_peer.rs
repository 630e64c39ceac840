//! A bench's peer: a program that repeats the same work on request (one JSON object a line, see trainer/peer).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tenon_train::bench::{Sizes, Timing};

/// A running peer.
pub struct Peer {
    program: String,
    name: String,
    child: Child,
    /// None once the peer is told to end.
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

#[derive(Serialize)]
struct Request<'a> {
    bench: &'a str,
    threads: usize,
    repetitions: usize,
    rows: usize,
    environments: usize,
    quick: bool,
}

/// Either what was asked for, or why not.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<A> {
    Error { error: String },
    Done(A),
}

#[derive(Deserialize)]
struct Repeated {
    peer: String,
    repetitions: Vec<BTreeMap<String, Seconds>>,
}

#[derive(Deserialize)]
struct Seconds {
    wall: f64,
    cpu: f64,
}

impl Peer {
    /// Starts `program`; it waits for requests.
    pub fn start(program: &str, arguments: &[String]) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting the peer `{program}`: `make bench-trainer` sets it up"))?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("the peer has no standard output")?);
        Ok(Self { program: program.into(), name: "peer".into(), child, requests, answers })
    }

    /// What the peer calls itself; known after the first answer.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Has the peer repeat `bench`: the timings of the parts of each repetition.
    pub fn repeat(
        &mut self,
        bench: &str,
        sizes: &Sizes,
        repetitions: usize,
    ) -> anyhow::Result<Vec<Vec<(String, Timing)>>> {
        let &Sizes { threads, rows, environments, quick, .. } = sizes;
        let request = Request { bench, threads, repetitions, rows, environments, quick };
        let Repeated { peer, repetitions: answered } =
            self.ask(&request).with_context(|| format!("running {bench}"))?;
        ensure!(
            answered.len() == repetitions && answered.iter().all(|parts| !parts.is_empty()),
            "the peer `{}` answered {} of {repetitions} repetitions of {bench}",
            self.program,
            answered.len()
        );
        self.name = peer;
        answered.into_iter().map(|parts| parts.into_iter().map(timing).collect()).collect()
    }

    /// The answer to one request.
    pub fn ask<A: DeserializeOwned>(&mut self, request: &impl Serialize) -> anyhow::Result<A> {
        let program = self.program.clone();
        match self.exchange(request).with_context(|| format!("the peer `{program}`"))? {
            Answer::Done(answer) => Ok(answer),
            Answer::Error { error } => bail!("the peer `{program}` cannot do this: {error}"),
        }
    }

    fn exchange<A: DeserializeOwned>(&mut self, request: &impl Serialize) -> anyhow::Result<Answer<A>> {
        let requests = self.requests.as_mut().context("was told to end")?;
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        requests.write_all(line.as_bytes()).context("has ended; its own message stands above")?;
        requests.flush().context("has ended; its own message stands above")?;
        line.clear();
        ensure!(self.answers.read_line(&mut line)? > 0, "has ended without an answer; its own message stands above");
        serde_json::from_str(&line).with_context(|| format!("answered what cannot be read: {}", line.trim_end()))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends with its input; one that does not is ended.
        drop(self.requests.take());
        for _ in 0..20 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn timing((part, seconds): (String, Seconds)) -> anyhow::Result<(String, Timing)> {
    let duration = |s: f64| {
        Duration::try_from_secs_f64(s).with_context(|| format!("the peer's time of {part} is {s} s: must be a time"))
    };
    let timing = Timing { wall: duration(seconds.wall)?, cpu: duration(seconds.cpu)? };
    Ok((part, timing))
}
