//! `tenon bench chain`: the way of a command through the programs, in parts. Each part has a module of its own and prints lines in the
//! form of all benchmarks.

mod bridge;
mod lag;
mod observe;
mod rig;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tenon_core::config::RobotConfig;
use tenon_policy::bench::BenchLine;

use crate::processes::shipped;
use crate::run::load_config;

#[derive(Debug, Clone, clap::Args)]
pub struct ChainArgs {
    /// Only this part: observe, bridge or lag; once for each [default: all].
    #[arg(long = "part", value_name = "NAME")]
    pub parts: Vec<String>,
    #[arg(long, default_value = "configs/robot.toml")]
    pub config: PathBuf,
    /// The policy that is run for the part observe.
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// A recorded run whose numbers the part observe takes instead.
    #[arg(long, value_name = "RUN")]
    pub record: Option<PathBuf>,
    /// Fewer repetitions.
    #[arg(long)]
    pub quick: bool,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// A part of the chain.
struct Part {
    name: &'static str,
    /// What is measured, between which two events.
    what: &'static str,
    measure: fn(&ChainArgs, &RobotConfig) -> Result<Vec<Line>>,
}

/// In the order of the chain.
const PARTS: &[Part] = &[
    Part {
        name: "observe",
        what: "the tick that observes wakes → the first command of the chunk is handed over; ours: without the inference and the wait for \
               the tick's own instant",
        measure: observe::measure,
    },
    Part {
        name: "bridge",
        what: "a target is published → UpdateController's reply is in the bridge; the server as slow as a real one",
        measure: bridge::measure,
    },
    Part {
        name: "lag",
        what: "the arm behind one and the same way, under Tenon's law and the stock one; law: without the lead, which is made up for",
        measure: lag::measure,
    },
];

/// Times of a part, ms; `peer_` are those of what is compared with, measured in turn with it.
#[derive(Debug, Clone, Serialize)]
struct Line {
    #[serde(flatten)]
    line: BenchLine,
    peer_p99: Option<f64>,
    peer_max: Option<f64>,
    /// p50 above the peer's, as a part of it. Where this is of a time that contains the peer's, chance in the server's own time is in it.
    added: Option<f64>,
    /// Of what comes on top of the server's own time: p50 as a part of that time's.
    of_server: Option<f64>,
}

impl Line {
    /// Of durations in ms; without any it is an error.
    fn of(bench: &str, times_ms: &mut [f64], peer: Option<(&str, &mut [f64])>) -> Result<Self> {
        let [p50, p99, max] = percentiles(times_ms).with_context(|| format!("{bench}: nothing was measured"))?;
        let peer = match peer {
            Some((name, times_ms)) => {
                Some((name, percentiles(times_ms).with_context(|| format!("{name}: nothing was measured"))?))
            }
            None => None,
        };
        let of_peer = |at: usize| peer.map(|(_, values)| values[at]);
        let line = BenchLine {
            bench: bench.to_owned(),
            unit: "ms",
            n: times_ms.len(),
            p50,
            p99,
            max,
            peer: peer.map(|(name, _)| name.to_owned()),
            peer_p50: of_peer(0),
            ratio: of_peer(0).map(|peer| peer / p50),
        };
        Ok(Self {
            line,
            peer_p99: of_peer(1),
            peer_max: of_peer(2),
            added: of_peer(0).map(|peer| p50 / peer - 1.0),
            of_server: None,
        })
    }

    /// Of what comes on top of a server's own time.
    fn on_top_of(bench: &str, times_ms: &mut [f64], server_ms: &mut [f64]) -> Result<Self> {
        let [server_p50, ..] = percentiles(server_ms).with_context(|| format!("{bench}: nothing was measured"))?;
        let line = Self::of(bench, times_ms, None)?;
        Ok(Self { of_server: Some(line.line.p50 / server_p50), ..line })
    }

    fn text(&self) -> String {
        let BenchLine { bench, p50, p99, max, peer, peer_p50, .. } = &self.line;
        let mut text = format!("{bench:<24} p50 {p50:>7.3}  p99 {p99:>7.3}  max {max:>7.3} ms");
        if let (Some(peer), Some(p50), Some(p99), Some(max), Some(added)) =
            (peer, peer_p50, self.peer_p99, self.peer_max, self.added)
        {
            text.push_str(&format!(
                "\n{:<24} p50 {p50:>7.3}  p99 {p99:>7.3}  max {max:>7.3} ms; ours adds {:.1} % (p50)",
                format!("  {peer}"),
                added * 100.0
            ));
        }
        if let Some(share) = self.of_server {
            text.push_str(&format!("; {:.1} % of the server's own time (p50)", share * 100.0));
        }
        text
    }
}

/// p50, p99 and max, each a value that was measured.
fn percentiles(values: &mut [f64]) -> Option<[f64; 3]> {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values.get(((values.len() as f64 * share).ceil() as usize).max(1) - 1).copied();
    Some([at(0.5)?, at(0.99)?, at(1.0)?])
}

/// Runs `tenon bench chain`.
pub fn chain(args: &ChainArgs) -> Result<ExitCode> {
    for name in &args.parts {
        if !PARTS.iter().any(|part| part.name == name) {
            let names: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
            bail!("--part {name}: there is no such part; there are: {}", names.join(", "));
        }
    }
    let config = load_config(&shipped(&args.config))?;
    let chosen = |part: &&Part| args.parts.is_empty() || args.parts.iter().any(|name| name == part.name);
    for part in PARTS.iter().filter(chosen) {
        if !args.json {
            println!("{}: {}", part.name, part.what);
        }
        // Where nothing says which policy, the other parts are measured all the same.
        if part.name == "observe" && args.parts.is_empty() && args.bundle.is_none() && args.record.is_none() {
            eprintln!("observe: left out, --bundle DIR names a policy for it");
            continue;
        }
        for line in (part.measure)(args, &config).with_context(|| format!("measuring the part {}", part.name))? {
            if args.json {
                println!("{}", serde_json::to_string(&line).context("the line is plain data")?);
            } else {
                println!("{}", line.text());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ours_adds_is_told_as_a_part_of_the_peer() {
        let line = Line::of("chain/x", &mut [3.0, 1.1, 2.2], Some(("alone", &mut [2.0, 1.0, 3.0]))).unwrap();
        let json = serde_json::to_value(&line).unwrap();
        assert_eq!(
            (json["n"].as_u64(), json["p50"].as_f64(), json["peer_p50"].as_f64()),
            (Some(3), Some(2.2), Some(2.0))
        );
        assert!((line.added.unwrap() - 0.1).abs() < 1e-9 && json["peer_max"] == 3.0);
        assert!(line.text().contains("ours adds 10.0 %"));
        let line = Line::on_top_of("chain/y", &mut [0.2, 0.1, 0.3], &mut [2.0, 4.0, 1.0]).unwrap();
        assert!((line.of_server.unwrap() - 0.1).abs() < 1e-9 && line.text().contains("10.0 % of the server's"));
        assert!(Line::of("chain/x", &mut [], None).is_err());
    }
}
