//! The simulated robot's processes, for `--robot sim`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tenon_core::config::RobotConfig;

use crate::processes::{Service, sibling};

/// The simulated robot's processes; dropped in this order: the bridge lets go before the server ends.
pub struct Services {
    bridge: Service,
    server: Service,
}

impl Services {
    pub fn start(config_file: &std::path::Path, config: &RobotConfig, truth: &std::path::Path) -> Result<Self> {
        let Some((address, port)) = config.bridge.server.rsplit_once(':') else {
            bail!("{}: bridge.server = \"{}\" is no host:port", config_file.display(), config.bridge.server);
        };
        // A truth file of an earlier run would be judged with this one's.
        if truth.exists() {
            std::fs::remove_file(truth).with_context(|| format!("removing the old {}", truth.display()))?;
        }
        let mut server = Command::new(sibling("tenon-sim-server")?);
        server
            .args(["--address", address, "--port", port, "--scene", "avoid", "--json", "--die-with-parent", "--truth"])
            .arg(truth);
        if let Some(gripper) = &config.gripper {
            let port = gripper.server.rsplit_once(':').map_or("", |(_, port)| port);
            server.args(["--gripper", "--gripper-port", port]);
        }
        let server = Service::start("tenon-sim-server", server, Duration::from_secs(20))?;
        let mut bridge = Command::new(sibling("tenon-bridge")?);
        bridge.arg("--config").arg(config_file).args(["--json", "--die-with-parent"]);
        bridge.args(["--endpoint", &config.link.endpoint]);
        let bridge = Service::start("tenon-bridge", bridge, Duration::from_secs(20))?;
        Ok(Self { bridge, server })
    }

    /// Stops both and returns the bridge's statistics line.
    pub fn stop(self) -> Option<serde_json::Value> {
        let statistics = self.bridge.stop();
        drop(self.server.stop());
        statistics.and_then(|line| serde_json::from_str(&line).ok())
    }
}
