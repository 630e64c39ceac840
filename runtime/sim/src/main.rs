//! `tenon-sim-server`: a Polymetis controller server with a simulated arm.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use tenon_sim::server::{GripperOptions, ServerOptions, ServerScene, SimGripper, SimServer, UpdateDelay};

/// How often the parent and the server are looked at.
const POLL: Duration = Duration::from_millis(50);

/// A Polymetis controller server whose arm is the MuJoCo Panda at 1 kHz.
///
/// It offers the services of the real controller server without authentication: leave it on the local host. With --gripper
/// a gripper server stands beside it, at a port of its own as on a real robot, with a simulated Franka Hand.
#[derive(Debug, Parser)]
#[command(
    name = "tenon-sim-server",
    version,
    after_help = "Example:\n  tenon-sim-server --scene avoid --truth /tmp/truth.jsonl &\n  tenon-bridge --config configs/robot.toml\n\nCtrl-C ends it."
)]
struct Options {
    /// Address to listen at.
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
    /// Port to listen at; 0 takes a free one, which the ready line names.
    #[arg(long, default_value_t = 50051)]
    port: u16,
    /// What stands around the arm.
    #[arg(long, value_enum, default_value_t = Scene::Avoid)]
    scene: Scene,
    /// Append the true tool point and contacts, one JSON object every 5 ms.
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
    /// Move each start joint by up to this much, drawn with --seed (rad).
    #[arg(long, default_value_t = 0.0, value_name = "RAD")]
    start_spread: f64,
    /// Seed of everything drawn.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Serve a Franka Hand too. Nothing of it is seen in the scene.
    #[arg(long)]
    gripper: bool,
    /// Port of the gripper server; 0 takes a free one, which the ready line names.
    #[arg(long, default_value_t = 50052, requires = "gripper")]
    gripper_port: u16,
    /// Width of what stands between the fingers; 0 for nothing (m).
    #[arg(long, default_value_t = 0.0, value_name = "M", requires = "gripper")]
    object_width: f64,
    /// Time that the hand's homing takes before it reports; 0 skips it (s).
    #[arg(long, default_value_t = 0.0, value_name = "S", requires = "gripper")]
    homing: f64,
    /// How long UpdateController takes: mean and 99th percentile in ms, drawn with --seed. The real server needs about 5.6,15.
    #[arg(long, value_name = "MEAN,P99")]
    update_delay: Option<UpdateDelay>,
    /// The robot client is silent while this file exists, as a robot is after a reflex; if it exists from the start, the robot
    /// client registers once it is gone.
    #[arg(long, value_name = "FILE")]
    silent_while: Option<PathBuf>,
    /// Ready line and statistics as JSON objects.
    #[arg(long)]
    json: bool,
    /// End when the process that started this one ends.
    #[arg(long)]
    die_with_parent: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scene {
    /// D3IL Avoid: rod, table, six cylinders.
    Avoid,
    /// Nothing.
    None,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .init();
    anyhow::ensure!(
        (0.0..=0.5).contains(&options.start_spread),
        "--start-spread {} must be between 0 and 0.5 rad",
        options.start_spread
    );
    anyhow::ensure!(
        (0.0..=0.08).contains(&options.object_width),
        "--object-width {} must be between 0 and 0.08 m, which is as wide as the hand opens",
        options.object_width
    );
    anyhow::ensure!((0.0..=600.0).contains(&options.homing), "--homing {} must be between 0 and 600 s", options.homing);
    // Before anything is started: a parent that ends meanwhile is noticed.
    let parent = parent_id();
    let (stop, stopped) = channel();
    ctrlc::set_handler(move || {
        // A second signal finds nobody who listens, which is fine: we are ending.
        let _ = stop.send(());
    })
    .context("installing the signal handler")?;
    let server = SimServer::start(&ServerOptions {
        address: SocketAddr::new(options.address, options.port),
        scene: match options.scene {
            Scene::Avoid => ServerScene::Avoid,
            Scene::None => ServerScene::None,
        },
        start_spread_rad: options.start_spread,
        seed: options.seed,
        truth: options.truth,
        update_delay: options.update_delay,
        robot_paused: silent(options.silent_while.as_ref()),
    })?;
    let gripper = options.gripper.then(|| {
        SimGripper::start(&GripperOptions {
            address: SocketAddr::new(options.address, options.gripper_port),
            object_m: options.object_width,
            homing: Duration::from_secs_f64(options.homing),
        })
    });
    let gripper = gripper.transpose()?;
    let gripper_address = gripper.as_ref().map(SimGripper::local_address);
    if options.json {
        let mut line = serde_json::json!({ "ready": true, "port": server.local_address().port() });
        if let Some(address) = gripper_address {
            line["gripper_port"] = address.port().into();
        }
        print_line(&line.to_string())?;
    } else {
        let hand = gripper_address.map_or_else(String::new, |address| format!(", a simulated hand at {address}"));
        print_line(&format!("ready: Polymetis server with a simulated Panda at {}{hand}", server.local_address()))?;
    }

    let cause = loop {
        match stopped.recv_timeout(POLL) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break "signal",
            Err(RecvTimeoutError::Timeout) if options.die_with_parent && parent_id() != parent => break "parent ended",
            Err(RecvTimeoutError::Timeout) if server.has_ended() => break "server ended",
            Err(RecvTimeoutError::Timeout) => {}
        }
        if options.silent_while.is_some() {
            server.pause_robot(silent(options.silent_while.as_ref()));
        }
    };
    let statistics = server.statistics();
    drop(gripper);
    drop(server);
    if options.json {
        let line = serde_json::json!({
            "ended": cause,
            "steps": statistics.steps,
            "late_steps": statistics.late_steps,
            "skipped_steps": statistics.skipped_steps,
            "realtime": statistics.realtime,
        });
        // Nobody may be left to read it.
        let _ = print_line(&line.to_string());
    } else {
        let _ = print_line(&format!(
            "ended ({cause}): {} steps, {} late, {} skipped, real-time priority {}",
            statistics.steps,
            statistics.late_steps,
            statistics.skipped_steps,
            if statistics.realtime { "granted" } else { "not permitted" },
        ));
    }
    anyhow::ensure!(cause != "server ended", "the server ended by itself; see the log above");
    Ok(())
}

fn silent(while_there: Option<&PathBuf>) -> bool {
    while_there.is_some_and(|file| file.exists())
}

fn print_line(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Polled rather than asked for as a signal (PR_SET_PDEATHSIG): that one comes already when the *thread* ends that
/// started us.
fn parent_id() -> i32 {
    // SAFETY: has no arguments and cannot fail.
    unsafe { libc::getppid() }
}
