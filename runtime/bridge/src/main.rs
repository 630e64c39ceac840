//! `tenon-bridge`: connects controllers (zenoh) with a Polymetis controller server (gRPC).

use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tenon_bridge::refusals::{self, Refusals};
use tenon_bridge::{Bridge, BridgeOptions};
use tenon_core::config::RobotConfig;
use tenon_link::security::unix_now;
use tenon_link::{Endpoint, Role};
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, registry};

/// How often the parent and the bridge are looked at.
const POLL: Duration = Duration::from_millis(50);

/// Connects controllers (zenoh) with a Polymetis controller server (gRPC). Runs beside the server.
///
/// Emergency stop: the enabling switch or stop button of the Franka. This program is not a safety function. When the
/// controller falls silent, releases the arm, or this program is stopped, the server's default controller holds the arm.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  tenon-bridge --config configs/robot.toml --server 127.0.0.1:50051\n\nCtrl-C or SIGTERM lets the default controller hold the arm and ends it."
)]
struct Options {
    /// The robot's configuration.
    #[arg(long, default_value = "configs/robot.toml", value_name = "FILE")]
    config: PathBuf,
    /// Polymetis controller server instead of the configured one.
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    /// zenoh endpoint to listen at instead of the configured one.
    #[arg(long, value_name = "ENDPOINT")]
    endpoint: Option<String>,
    /// Name of the robot in the link's keys.
    #[arg(long, default_value = tenon_link::DEFAULT_ROBOT)]
    robot: String,
    /// Ready line and statistics as JSON objects.
    #[arg(long)]
    json: bool,
    /// End when the process that started this one ends.
    #[arg(long)]
    die_with_parent: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        // zenoh tells every refused connection twice; our own message names the mend.
        .unwrap_or_else(|_| {
            tracing_subscriber::EnvFilter::new("info,zenoh=off,zenoh_transport=off,zenoh_link_tcp=off")
        });
    let refused = FilterFn::new(|of| of.target().starts_with(refusals::TARGET) && *of.level() <= tracing::Level::WARN);
    registry()
        .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(filter))
        .with(Refusals::default().with_filter(refused))
        .init();
    let parent = parent_id();
    let (stop, stopped) = channel();
    ctrlc::set_handler(move || {
        // A second signal finds nobody who listens, which is fine: we are ending.
        let _ = stop.send(());
    })
    .context("installing the signal handler")?;

    let bridge_options = read_options(&options)?;
    let (server, endpoint) = (bridge_options.server.clone(), bridge_options.endpoint.clone());
    if let Some(warning) = endpoint.warning() {
        tracing::warn!("{warning}");
    }
    if let Some(warning) = endpoint.identity(Role::Bridge)?.and_then(|identity| identity.warning(unix_now())) {
        tracing::warn!("{warning}");
    }
    let servers = [Some(&server), bridge_options.gripper.as_ref().map(|gripper| &gripper.server)];
    for server in servers.into_iter().flatten().filter(|s| !Endpoint::is_on_this_computer(&format!("tcp/{s}"))) {
        tracing::warn!(
            "the Polymetis server {server} is on another computer: its protocol is plain text and asks nobody who he is, so keep it \
             on a cable of its own"
        );
    }
    let bridge = Bridge::listen(bridge_options)?;
    if options.json {
        print_line(
            &serde_json::json!({ "ready": true, "endpoint": endpoint.address(), "server": server }).to_string(),
        )?;
    } else {
        print_line(&format!("ready: listening at {endpoint} for controllers, Polymetis server {server}"))?;
    }
    notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status("disarmed, waiting for a controller")]);

    let cause = loop {
        match stopped.recv_timeout(POLL) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break "signal",
            Err(RecvTimeoutError::Timeout) if options.die_with_parent && parent_id() != parent => break "parent ended",
            Err(RecvTimeoutError::Timeout) if bridge.has_ended() => break "bridge ended",
            Err(RecvTimeoutError::Timeout) => {}
        }
    };
    notify(&[sd_notify::NotifyState::Stopping]);
    let summary = bridge.stop();
    if options.json {
        let mut line = serde_json::to_value(summary).context("statistics as JSON")?;
        line["ended"] = cause.into();
        // Nobody may be left to read it.
        let _ = print_line(&line.to_string());
    } else {
        let (update, counts) = (summary.update_us, summary.counts);
        let _ = print_line(&format!(
            "ended ({cause}): {} updates, p50 {} µs, p99 {} µs, max {} µs; {} states, {} targets refused, {} faults",
            counts.updates,
            update.p50,
            update.p99,
            update.max,
            counts.states_published,
            counts.targets_refused,
            counts.faults,
        ));
    }
    anyhow::ensure!(cause != "bridge ended", "the command task ended by itself; see the log above");
    Ok(())
}

fn read_options(options: &Options) -> anyhow::Result<BridgeOptions> {
    let file = options.config.display().to_string();
    let text = std::fs::read_to_string(&options.config)
        .with_context(|| format!("reading {file}; name the robot's configuration with --config"))?;
    let mut robot: RobotConfig = tenon_core::config::parse(&file, &text)?;
    if let Some(endpoint) = &options.endpoint {
        robot.link.endpoint.clone_from(endpoint);
    }
    let mut bridge_options = BridgeOptions::new(&robot)?;
    bridge_options.robot_name.clone_from(&options.robot);
    if let Some(server) = &options.server {
        bridge_options.server.clone_from(server);
    }
    Ok(bridge_options)
}

fn print_line(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Tells the service manager, if there is one.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("service manager: {error}");
    }
}

/// Polled rather than asked for as a signal (PR_SET_PDEATHSIG): that one comes already when the *thread* ends that
/// started us.
fn parent_id() -> i32 {
    // SAFETY: has no arguments and cannot fail.
    unsafe { libc::getppid() }
}
