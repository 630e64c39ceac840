//! A network namespace with a cable to it, where the kernel has them and we may.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A network of our own inside 198.18.0.0/15, which is for tests of networks (RFC 2544).
const NEAR: &str = "198.18.77.1";
const FAR: &str = "198.18.77.2";
const CABLE: &str = "tenon-faults";
const CABLE_FAR: &str = "tenon-faultsf";
const NAME: &str = "tenon-faults";

/// The namespace and its cable; removed when dropped.
#[derive(Debug)]
pub struct Namespace(());

impl Namespace {
    /// # Errors
    /// The kernel has none, or we may not, or another run has it.
    pub fn new() -> Result<Self> {
        run("ip", &["netns", "add", NAME])?;
        // From here on it is removed again, whatever fails.
        let made = Self(());
        run("ip", &["link", "add", CABLE, "type", "veth", "peer", "name", CABLE_FAR, "netns", NAME])?;
        run("ip", &["addr", "add", &format!("{NEAR}/30"), "dev", CABLE])?;
        run("ip", &["link", "set", CABLE, "up"])?;
        run("ip", &["-n", NAME, "addr", "add", &format!("{FAR}/30"), "dev", CABLE_FAR])?;
        run("ip", &["-n", NAME, "link", "set", CABLE_FAR, "up"])?;
        run("ip", &["-n", NAME, "link", "set", "lo", "up"])?;
        Ok(made)
    }

    pub fn name(&self) -> &'static str {
        NAME
    }

    /// Address of what runs in it.
    pub fn address(&self) -> &'static str {
        FAR
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The cable goes with its far end, at the latest now.
        let _ = run("ip", &["link", "del", CABLE]);
        if let Err(error) = run("ip", &["netns", "del", NAME]) {
            eprintln!("warning: {error:#}");
        }
    }
}

/// Takes the far end of the cable down, or up again. The near end would lose its address's route only for a moment.
///
/// # Errors
/// As running `ip`.
pub fn set_down(down: bool) -> Result<()> {
    run("ip", &["-n", NAME, "link", "set", CABLE_FAR, if down { "down" } else { "up" }])
}

/// Delays both directions, or none any more.
///
/// # Errors
/// The kernel has no netem.
pub fn delay(delay: Option<Duration>) -> Result<()> {
    let time = delay.map(|delay| format!("{}ms", delay.as_millis()));
    for device in [&["-n", NAME][..], &[]] {
        let dev = if device.is_empty() { CABLE } else { CABLE_FAR };
        let what: Vec<&str> = match &time {
            Some(time) => vec!["qdisc", "add", "dev", dev, "root", "netem", "delay", time],
            None => vec!["qdisc", "del", "dev", dev, "root"],
        };
        run("tc", &[device, &what].concat())?;
    }
    Ok(())
}

/// Whether delays are to be had; tried and taken back.
///
/// # Errors
/// As [`delay`].
pub fn try_delay() -> Result<()> {
    delay(Some(Duration::from_millis(1))).and_then(|()| delay(None))
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
