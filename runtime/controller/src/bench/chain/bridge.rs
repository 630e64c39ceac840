//! Part *bridge*: from a target's publication to UpdateController's reply in the bridge, in turn with the bare call of the archive that
//! the bridge has just sent.
//!
//! The server is `tenon-sim-server` as slow as the real one was measured to be; the bridge and its zenoh link are the real ones, and
//! all run on this machine. The bare call sends the same bytes from a client of its own; the law takes them for a plan that it has already.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tenon_bridge::Answered;
use tenon_core::config::RobotConfig;
use tenon_core::message::JointTarget;
use tenon_link::RobotLink;
use tenon_polymetis::chunks;
use tenon_polymetis::proto::polymetis_controller_server_client::PolymetisControllerServerClient;
use tonic::transport::{Channel, Endpoint};

use super::rig::{PATIENCE, Rig, SESSION};
use super::{ChainArgs, Line};
use crate::clock;

/// Mean and 99th percentile of UpdateController on the real server, ms: the middle of what was measured (spec `polymetis.md` §4.8).
const UPDATE_DELAY: &str = "5.6,15";
/// Pairs of calls; from one to the next at least two periods of Avoid's targets.
const PAIRS: usize = 2000;
const QUICK_PAIRS: usize = 300;
const PAIR_PERIOD: Duration = Duration::from_millis(14);
/// Pairs that are not counted.
const WARM_UP: usize = 20;

pub fn measure(args: &ChainArgs, config: &RobotConfig) -> Result<Vec<Line>> {
    // Bare calls are silence of the commander.
    let mut rig = Rig::start(config, &["--update-delay", UPDATE_DELAY], |bridge| bridge.heartbeat_timeout = PATIENCE)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut bare = {
        let _in_runtime = runtime.enter();
        let address = Endpoint::from_shared(format!("http://127.0.0.1:{}", rig.server_port))?.tcp_nodelay(true);
        PolymetisControllerServerClient::new(address.connect_lazy())
    };
    let answers = rig.bridge.watch_updates();
    let pairs = if args.quick { QUICK_PAIRS } else { PAIRS };
    let mut times = Times::default();
    let mut due = Instant::now();
    for number in 0..WARM_UP + pairs {
        due = (due + PAIR_PERIOD).max(Instant::now());
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let pair =
            one_pair(&mut rig, &answers, number as u64 + 1, |archive| runtime.block_on(call(&mut bare, archive)))?;
        if number >= WARM_UP {
            times.push(pair);
        }
        if !args.json && (number + 1).is_multiple_of(500) {
            eprintln!("{} of {} pairs", number + 1, WARM_UP + pairs);
        }
    }
    let summary = rig.finish()?;
    if summary.counts.faults > 0 {
        bail!("the bridge saw {} faults: {summary:?}", summary.counts.faults);
    }
    times.lines()
}

/// The times of a target through the bridge and of the bare call, ms.
struct Pair {
    published_to_reply: f64,
    call_in_bridge: f64,
    bare: f64,
}

/// Publishes a target and waits for its answer, then sends the same archive without the bridge.
fn one_pair(
    rig: &mut Rig,
    answers: &Receiver<Answered>,
    sequence: u64,
    mut bare_call: impl FnMut(&[u8]) -> Result<Duration>,
) -> Result<Pair> {
    let published = clock::now();
    rig.link.send_target(&JointTarget::still(SESSION, sequence, published, rig.held))?;
    let answered = loop {
        let answered = answers.recv_timeout(PATIENCE);
        let answered = answered.with_context(|| {
            format!("target {sequence} was not answered; the bridge says {:?}", rig.link.latest_status())
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
