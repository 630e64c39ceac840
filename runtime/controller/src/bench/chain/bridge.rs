//! Part *bridge*: from a target's publication to UpdateController's reply in the bridge, in turn with the bare call of the archive that
//! the bridge has just sent.
//!
//! The server is `tenon-sim-server` as slow as the real one was measured to be; the bridge and its zenoh link are the real ones, and
//! all run on this machine. The bare call sends the same bytes from a client of its own; the law takes them for a plan that it has already.

use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tenon_bridge::{Answered, Bridge, BridgeOptions};
use tenon_core::config::RobotConfig;
use tenon_core::message::{BridgeState, JointTarget, Request};
use tenon_link::{DEFAULT_ROBOT, RobotKeys, RobotLink, ZenohLink};
use tenon_polymetis::chunks;
use tenon_polymetis::proto::polymetis_controller_server_client::PolymetisControllerServerClient;
use tonic::transport::{Channel, Endpoint};

use super::{ChainArgs, Line};
use crate::clock;
use crate::processes::{Service, sibling};

/// Mean and 99th percentile of UpdateController on the real server, ms: the middle of what was measured (spec `polymetis.md` §4.8).
const UPDATE_DELAY: &str = "5.6,15";
/// Pairs of calls; from one to the next at least two periods of Avoid's targets.
const PAIRS: usize = 2000;
const QUICK_PAIRS: usize = 300;
const PAIR_PERIOD: Duration = Duration::from_millis(14);
/// Pairs that are not counted.
const WARM_UP: usize = 20;
/// Longer than any answer takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
pub(super) const SESSION: u64 = 1;

/// A port that was free a moment ago.
pub(super) fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

pub fn measure(args: &ChainArgs, config: &RobotConfig) -> Result<Vec<Line>> {
    let (server_port, link_port) = (free_port()?, free_port()?);
    let mut command = Command::new(sibling("tenon-sim-server")?);
    command.args(["--port", &server_port.to_string(), "--scene", "none", "--json", "--die-with-parent"]);
    command.args(["--update-delay", UPDATE_DELAY]).env("RUST_LOG", "warn");
    let _server = Service::start("tenon-sim-server", command, Duration::from_secs(20))?;
    crate::processes::prefer();
    // The bridge of a bench is here, wherever the configured one is.
    let mut config = config.clone();
    config.link.endpoint = format!("tcp/127.0.0.1:{link_port}");
    let mut options = BridgeOptions::new(&config)?;
    options.server = format!("127.0.0.1:{server_port}");
    options.gripper = None;
    // Bare calls are silence of the commander.
    options.heartbeat_timeout = PATIENCE;
    let endpoint = options.endpoint.clone();
    let bridge = Bridge::listen(options).context("starting the bridge")?;
    let keys = RobotKeys::new(DEFAULT_ROBOT)?;
    let mut link = ZenohLink::connect(&endpoint, &keys, Arc::new(clock::now), PATIENCE).context("connecting to it")?;
    let held = arm(&mut link)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut bare = {
        let _in_runtime = runtime.enter();
        let address = Endpoint::from_shared(format!("http://127.0.0.1:{server_port}"))?.tcp_nodelay(true);
        PolymetisControllerServerClient::new(address.connect_lazy())
    };
    let answers = bridge.watch_updates();
    let pairs = if args.quick { QUICK_PAIRS } else { PAIRS };
    let mut times = Times::default();
    let mut due = Instant::now();
    for number in 0..WARM_UP + pairs {
        due = (due + PAIR_PERIOD).max(Instant::now());
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let pair = one_pair(&mut link, &answers, number as u64 + 1, &held, |archive| {
            runtime.block_on(call(&mut bare, archive))
        })?;
        if number >= WARM_UP {
            times.push(pair);
        }
        if !args.json && (number + 1).is_multiple_of(500) {
            eprintln!("{} of {} pairs", number + 1, WARM_UP + pairs);
        }
    }
    let released = link.send_request(Request::Release { session: SESSION });
    let summary = bridge.stop();
    released.context("releasing the arm")?;
    if summary.counts.faults > 0 {
        bail!("the bridge saw {} faults: {summary:?}", summary.counts.faults);
    }
    times.lines()
}

/// Waits for the bridge, arms, and returns the joints that are to be held.
pub(super) fn arm(link: &mut ZenohLink) -> Result<[f64; 7]> {
    let end = Instant::now() + PATIENCE;
    loop {
        let status = link.latest_status().map(|status| status.value);
        if let (Some(status), Some(state)) = (status, link.latest_state())
            && status.state == BridgeState::Running
            && status.session == SESSION
        {
            return Ok(state.value.joint_positions_rad);
        }
        if Instant::now() >= end {
            bail!("the bridge did not arm within {PATIENCE:?}; its status is {status:?}");
        }
        if status.is_some_and(|status| status.state == BridgeState::Idle) {
            link.send_request(Request::Arm { session: SESSION })?;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The times of a target through the bridge and of the bare call, ms.
struct Pair {
    published_to_reply: f64,
    call_in_bridge: f64,
    bare: f64,
}

/// Publishes a target and waits for its answer, then sends the same archive without the bridge.
fn one_pair(
    link: &mut ZenohLink,
    answers: &Receiver<Answered>,
    sequence: u64,
    held: &[f64; 7],
    mut bare_call: impl FnMut(&[u8]) -> Result<Duration>,
) -> Result<Pair> {
    let published = clock::now();
    link.send_target(&JointTarget::still(SESSION, sequence, published, *held))?;
    let answered = loop {
        let answered = answers.recv_timeout(PATIENCE);
        let answered = answered.with_context(|| {
            format!("target {sequence} was not answered; the bridge says {:?}", link.latest_status())
        })?;
        if answered.sequence == sequence {
            break answered;
        }
    };
    let plan =
        answered.plan.context("bridge.controller = \"stock\": this part measures Tenon's law (\"waypoints\")")?;
    let archive = plan.to_archive()?;
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    Ok(Pair {
        published_to_reply: answered.at.seconds_since(published) * 1e3,
        call_in_bridge: ms(answered.update),
        bare: ms(bare_call(&archive)?),
    })
}

/// The bare call. The archive is cut into its messages before the time is taken.
async fn call(client: &mut PolymetisControllerServerClient<Channel>, archive: &[u8]) -> Result<Duration> {
    let messages: Vec<_> = chunks(archive).collect();
    let begin = Instant::now();
    let answer = tokio::time::timeout(PATIENCE, client.update_controller(tokio_stream::iter(messages))).await;
    let took = begin.elapsed();
    answer.context("the bare UpdateController was not answered")?.context("the bare UpdateController")?;
    Ok(took)
}

#[derive(Default)]
struct Times {
    whole: Vec<f64>,
    call: Vec<f64>,
    bare: Vec<f64>,
    /// Of each target: all but the call.
    ours: Vec<f64>,
}

impl Times {
    fn push(&mut self, pair: Pair) {
        self.whole.push(pair.published_to_reply);
        self.call.push(pair.call_in_bridge);
        self.ours.push(pair.published_to_reply - pair.call_in_bridge);
        self.bare.push(pair.bare);
    }

    fn lines(mut self) -> Result<Vec<Line>> {
        let alone = "UpdateController alone";
        Ok(vec![
            Line::of("chain/bridge", &mut self.whole, Some((alone, &mut self.bare)))?,
            Line::of("chain/bridge/call", &mut self.call, Some((alone, &mut self.bare)))?,
            Line::on_top_of("chain/bridge/ours", &mut self.ours, &mut self.bare)?,
        ])
    }
}
