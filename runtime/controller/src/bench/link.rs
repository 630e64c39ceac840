//! `tenon bench link`: what a joint target and the answer to it take on this computer, plain and with certificates, in
//! turns.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tenon_core::config::{LinkConfig, LinkTlsConfig};
use tenon_core::message::{BridgeFault, BridgeState, BridgeStatus, JointTarget};
use tenon_core::time::MonotonicTime;
use tenon_link::security::unix_now;
use tenon_link::{BridgeInbox, BridgeSender, Endpoint, RobotKeys, RobotLink, ZenohLink, open_bridge_link};
use tenon_policy::bench::BenchLine;

use crate::{clock, secure};

/// Targets come at the rate of Avoid; a link that is kept busy answers sooner than one that sleeps in between.
const PERIOD: Duration = Duration::from_millis(7);
/// Longer than any answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Not counted: caches, congestion windows, the first allocation.
const WARM_UP: u64 = 100;
const SESSION: u64 = 1;

#[derive(Debug, Clone, clap::Args)]
pub struct LinkArgs {
    /// Targets over each link.
    #[arg(long, default_value_t = 2000)]
    pub targets: u64,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// Runs `tenon bench link`.
pub fn link(args: &LinkArgs) -> Result<ExitCode> {
    let certificates = Certificates::make()?;
    let mut plain = Pair::open(None).context("the plain link")?;
    let mut protected = Pair::open(Some(&certificates.0)).context("the link with certificates")?;
    let (mut of_plain, mut of_protected) = (Vec::new(), Vec::new());
    let mut next = Instant::now();
    for sequence in 1..=WARM_UP + args.targets {
        for (pair, times) in [(&mut plain, &mut of_plain), (&mut protected, &mut of_protected)] {
            next += PERIOD / 2;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            let took = pair.round_trip(sequence)?;
            if sequence > WARM_UP {
                times.push(1e6 * took.as_secs_f64());
            }
        }
    }
    let plain = line("link/round trip, plain TCP", &mut of_plain, None);
    let protected = line("link/round trip, TLS", &mut of_protected, Some(&plain));
    for line in [&plain, &protected] {
        match args.json {
            true => println!("{}", serde_json::to_string(line).context("a line is plain data")?),
            false => println!("{line}"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(bench: &str, times_us: &mut [f64], peer: Option<&BenchLine>) -> BenchLine {
    times_us.sort_by(f64::total_cmp);
    let at = |part: f64| {
        times_us.get((part * (times_us.len().saturating_sub(1)) as f64) as usize).copied().unwrap_or(f64::NAN)
    };
    BenchLine {
        bench: bench.to_owned(),
        unit: "us",
        n: times_us.len(),
        p50: at(0.5),
        p99: at(0.99),
        max: at(1.0),
        peer: peer.map(|peer| peer.bench.clone()),
        peer_p50: peer.map(|peer| peer.p50),
        ratio: peer.map(|peer| peer.p50 / at(0.5)),
    }
}

/// Certificates for the time of the bench.
struct Certificates(PathBuf);

impl Certificates {
    fn make() -> Result<Self> {
        let made = Self(std::env::temp_dir().join(format!("tenon-bench-link-{}", std::process::id())));
        secure::secure(&secure::Options::new(&made.0, &["127.0.0.1"], 1.0), unix_now())?;
        Ok(made)
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        // What cannot be deleted lies in the folder for that.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A controller's link, and a bridge that answers each target with a status as soon as it arrives.
struct Pair {
    link: ZenohLink,
    ending: Arc<AtomicBool>,
    bridge: Option<JoinHandle<()>>,
}

impl Pair {
    fn open(certificates: Option<&Path>) -> Result<Self> {
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).context("a free port")?.port();
        let protocol = if certificates.is_some() { "tls" } else { "tcp" };
        let endpoint = Endpoint::of_config(&LinkConfig {
            endpoint: format!("{protocol}/127.0.0.1:{port}"),
            heartbeat_timeout_s: 1.0,
            tls: certificates.map(|folder| LinkTlsConfig { folder: folder.to_owned() }),
            anybody_on_the_network_may_move_the_arm: false,
        })?;
        let keys = RobotKeys::new(tenon_link::DEFAULT_ROBOT)?;
        let ending = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&ending);
        let (arrived, arrives) = crossbeam::channel::bounded::<()>(1);
        let wake = move || {
            // Full: the bridge has not looked since the last one, and will.
            let _ = arrived.try_send(());
        };
        let (sender, mut inbox) = open_bridge_link(&endpoint, &keys, Arc::new(clock::now), wake)?;
        inbox.follow(SESSION);
        let bridge = std::thread::Builder::new()
            .name("tenon-bench-link".to_owned())
            .spawn(move || answer(&sender, &mut inbox, &arrives, &ends))
            .context("starting a thread")?;
        let link = ZenohLink::connect(&endpoint, &keys, Arc::new(clock::now), PATIENCE)?;
        Ok(Self { link, ending, bridge: Some(bridge) })
    }

    /// From the moment that a target is handed over until its status is in the slot.
    fn round_trip(&mut self, sequence: u64) -> Result<Duration> {
        let begin = Instant::now();
        let mut sent = begin;
        self.send(sequence)?;
        loop {
            if self.link.latest_status().is_some_and(|status| status.value.acknowledged == sequence) {
                return Ok(begin.elapsed());
            }
            // The first ones are sent before the bridge is known to listen.
            if sequence <= WARM_UP && sent.elapsed() > Duration::from_millis(20) {
                sent = Instant::now();
                self.send(sequence)?;
            }
            if begin.elapsed() > PATIENCE {
                bail!("target {sequence} was not answered within {PATIENCE:?}");
            }
            std::thread::yield_now();
        }
    }

    fn send(&mut self, sequence: u64) -> Result<()> {
        let target = JointTarget::still(SESSION, sequence, MonotonicTime::from_nanos(0), [0.0; 7]);
        Ok(self.link.send_target(&target)?)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        if let Some(bridge) = self.bridge.take() {
            // A panic has been printed.
            let _ = bridge.join();
        }
    }
}

fn answer(
    sender: &BridgeSender,
    inbox: &mut BridgeInbox,
    arrives: &crossbeam::channel::Receiver<()>,
    ends: &AtomicBool,
) {
    let mut sequence = 0;
    while !ends.load(Ordering::Acquire) {
        if arrives.recv_timeout(Duration::from_millis(50)).is_err() {
            continue;
        }
        let Some(target) = inbox.latest_target() else { continue };
        sequence += 1;
        let status = BridgeStatus {
            sequence,
            state: BridgeState::Running,
            fault: BridgeFault::None,
            session: SESSION,
            epoch: 1,
            acknowledged: target.value.sequence,
            update_us: 0,
            robot_hz: 1000,
        };
        // Not sent: the round trip is not answered, which its asker says.
        let _ = sender.publish_status(&status);
    }
}
