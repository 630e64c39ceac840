//! What the parts *bridge* and *lag* are measured on: a simulated server, the real bridge before it and a zenoh link to that, all on this
//! machine, with the arm armed.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tenon_bridge::{Bridge, BridgeOptions, Summary};
use tenon_core::arm::Joints;
use tenon_core::config::RobotConfig;
use tenon_core::message::{BridgeState, Request};
use tenon_link::{DEFAULT_ROBOT, RobotKeys, RobotLink, ZenohLink};

use crate::clock;
use crate::processes::{Service, sibling};

/// Longer than any answer takes.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// The lease under which the arm is armed.
pub const SESSION: u64 = 1;
/// Until a release has left.
const RELEASING: Duration = Duration::from_millis(100);

/// Dropped in this order: the bridge lets go before the server ends.
pub struct Rig {
    pub link: ZenohLink,
    pub bridge: Bridge,
    /// Where the arm was armed, rad.
    pub held: Joints,
    pub server_port: u16,
    _server: Service,
}

impl Rig {
    /// Starts everything and arms. `of_server`: further options of `tenon-sim-server`; `change`: what is different about the bridge.
    ///
    /// # Errors
    /// A part does not start, or the bridge does not arm.
    pub fn start(config: &RobotConfig, of_server: &[&str], change: impl FnOnce(&mut BridgeOptions)) -> Result<Self> {
        let (server_port, link_port) = (free_port()?, free_port()?);
        let mut command = Command::new(sibling("tenon-sim-server")?);
        command.args(["--port", &server_port.to_string(), "--scene", "none", "--json", "--die-with-parent"]);
        command.args(of_server).env("RUST_LOG", "warn");
        let server = Service::start("tenon-sim-server", command, Duration::from_secs(20))?;
        crate::processes::prefer();
        // The bridge of a bench is here, wherever the configured one is.
        let mut config = config.clone();
        config.link.endpoint = format!("tcp/127.0.0.1:{link_port}");
        let mut options = BridgeOptions::new(&config)?;
        options.server = format!("127.0.0.1:{server_port}");
        options.gripper = None;
        change(&mut options);
        let endpoint = options.endpoint.clone();
        let bridge = Bridge::listen(options).context("starting the bridge")?;
        let keys = RobotKeys::new(DEFAULT_ROBOT)?;
        let link = ZenohLink::connect(&endpoint, &keys, Arc::new(clock::now), PATIENCE);
        let mut link = link.context("connecting to it")?;
        let held = arm(&mut link)?;
        Ok(Self { link, bridge, held, server_port, _server: server })
    }

    /// Gives the arm back and ends everything.
    ///
    /// # Errors
    /// The arm cannot be given back.
    pub fn finish(mut self) -> Result<Summary> {
        let released = self.link.send_request(Request::Release { session: SESSION });
        std::thread::sleep(RELEASING);
        let summary = self.bridge.stop();
        released.context("releasing the arm")?;
        Ok(summary)
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

/// Waits for the bridge, arms, and returns the joints that are to be held.
fn arm(link: &mut ZenohLink) -> Result<Joints> {
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
