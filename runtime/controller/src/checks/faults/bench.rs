//! The processes of a robot at work: simulated server, bridge, service, and between them the proxies of the runs.
//!
//! ```text
//! tenon serve ── link proxy ── tenon-bridge ── wire proxy ── tenon-sim-server
//! ```

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tenon_core::config::RobotConfig;
use tenon_core::time::MonotonicTime;
use tenon_link::security::unix_now;

use super::cameras::Rig;
use super::judge::Truth;
use super::process::Process;
use super::proxy::Proxy;
use crate::clock;
use crate::processes::sibling;
use crate::secure;
use crate::service::client::ask;
use crate::service::protocol::{Answer, Ask, State, Status};

/// Longest wait for a process to be ready.
const READY: Duration = Duration::from_secs(20);
/// Longest wait for the arm to be armed once everything is there.
const ARMING: Duration = Duration::from_secs(12);
/// How long an arm must have been still: soft springs turn back slowly.
const STILL: Duration = Duration::from_millis(500);
/// A tool point that moves as fast moves on purpose, m/s.
const MOVES_M_S: f64 = 0.03;

/// Where server and bridge run.
#[derive(Debug, Clone)]
pub enum Place {
    /// On this machine, behind proxies.
    Here,
    /// In a network namespace, at this address of it.
    Namespace { name: String, address: String },
}

/// What the service is to write where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders {
    /// Episodes and the report.
    pub out: PathBuf,
    /// Folders of records, one for each service.
    pub records: PathBuf,
}

pub struct Bench {
    pub config: RobotConfig,
    config_file: PathBuf,
    bundle: PathBuf,
    /// Cameras, where the policy sees.
    rig: Option<Rig>,
    folder: PathBuf,
    place: Place,
    zenoh: SocketAddr,
    polymetis: SocketAddr,
    /// Between service and bridge.
    pub link: Option<Proxy>,
    /// Where the link's proxy listens.
    near: Option<SocketAddr>,
    /// Between bridge and server.
    pub wire: Option<Proxy>,
    pub server: Option<Process>,
    pub bridge: Option<Process>,
    pub service: Option<Process>,
    folders: Folders,
    /// Folder of the record of the service that runs or ran last.
    pub record: PathBuf,
    /// How many processes were started; each has files of its own.
    started: usize,
    truth: Truth,
    truth_file: Option<(PathBuf, u64)>,
}

fn free_address() -> Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).context("a free port")
}

impl Bench {
    /// Writes the configuration into `folder` and makes the proxies; nothing is started. `text`: robot.toml. `rig`: the cameras, and the
    /// policy before them, in place of `bundle`.
    ///
    /// # Errors
    /// The configuration is not for these runs, or a file cannot be written.
    pub fn new(folder: &Path, text: &str, bundle: &Path, rig: Option<Rig>, place: Place) -> Result<Self> {
        let text = &match &rig {
            Some(_) => Rig::in_config(text)?,
            None => text.to_owned(),
        };
        let given: RobotConfig = tenon_core::config::parse("robot.toml", text)?;
        if given.gripper.is_some() {
            bail!("`tenon test faults` tries an arm without a hand: name a robot.toml without [gripper] (--config)");
        }
        for name in ["logs", "state", "truth"] {
            let path = folder.join(name);
            std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        }
        let (zenoh, polymetis) = (free_address()?, free_address()?);
        let (link, wire) = match &place {
            Place::Here => {
                let near = free_address()?;
                (Some(Proxy::start(near, zenoh)?), Some(Proxy::start(free_address()?, polymetis)?))
            }
            Place::Namespace { .. } => (None, None),
        };
        let endpoint = match (&place, &link) {
            // As between two computers: with certificates.
            (Place::Namespace { address, .. }, _) => format!("tls/{address}:{}", zenoh.port()),
            (Place::Here, Some(link)) => format!("tcp/{}", link.address()),
            (Place::Here, None) => format!("tcp/{zenoh}"),
        };
        let server = wire.as_ref().map_or(polymetis, Proxy::address).to_string();
        let mut text = replace(text, &given.link.endpoint, &endpoint)?;
        if let Place::Namespace { address, .. } = &place {
            let certificates = folder.join("secure");
            secure::secure(&secure::Options::new(&certificates, &[&address.to_string()], 1.0), unix_now())?;
            let certificates = std::path::absolute(&certificates)?.display().to_string();
            match &given.link.tls {
                Some(tls) => text = replace(&text, &tls.folder.display().to_string(), &certificates)?,
                None => text.push_str(&format!("\n[link.tls]\nfolder = \"{}\"\n", certificates.escape_default())),
            }
        }
        if let Some(rig) = &rig {
            rig.calibrate(&folder.join("state"))?;
        }
        let text = replace(&text, &given.bridge.server, &server)?;
        let config_file = folder.join("robot.toml");
        std::fs::write(&config_file, &text).with_context(|| format!("writing {}", config_file.display()))?;
        let config = tenon_core::config::parse(&config_file.display().to_string(), &text)?;
        Ok(Self {
            config,
            config_file,
            bundle: rig.as_ref().map_or(bundle, |rig| rig.bundle.as_path()).to_owned(),
            rig,
            folder: folder.to_owned(),
            place,
            zenoh,
            polymetis,
            near: link.as_ref().map(Proxy::address),
            link,
            wire,
            server: None,
            bridge: None,
            service: None,
            folders: Folders { out: folder.join("service"), records: folder.join("records") },
            record: PathBuf::new(),
            started: 0,
            truth: Truth::default(),
            truth_file: None,
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The cameras, where there are any.
    pub fn rig(&self) -> Option<&Rig> {
        self.rig.as_ref()
    }

    pub fn folders(&self) -> &Folders {
        &self.folders
    }

    /// Ends of the link's proxy, for another one in its place.
    ///
    /// # Errors
    /// The bench has none.
    pub fn link_addresses(&self) -> Result<(SocketAddr, SocketAddr)> {
        Ok((self.near.context("the bench has no proxy of the link")?, self.zenoh))
    }

    /// The service writes there from its next start on.
    pub fn write_to(&mut self, folders: Option<Folders>) {
        self.folders = folders
            .unwrap_or_else(|| Folders { out: self.folder.join("service"), records: self.folder.join("records") });
    }

    /// While this file exists, the robot client is silent.
    pub fn silence(&self) -> PathBuf {
        self.folder.join("silent")
    }

    fn command(&self, program: &str) -> Result<Command> {
        let program = sibling(program)?;
        Ok(match &self.place {
            Place::Here => Command::new(program),
            Place::Namespace { name, .. } => {
                // It replaces itself by the program, so the process is that.
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(program);
                command
            }
        })
    }

    fn log(&mut self, name: &str) -> PathBuf {
        self.started += 1;
        self.folder.join("logs").join(format!("{:03}-{name}.log", self.started))
    }

    /// Starts what does not run, and waits until it is ready; the arm is not armed.
    ///
    /// # Errors
    /// A process does not come up.
    pub fn bring_up(&mut self) -> Result<()> {
        self.start_server()?;
        self.start_bridge()?;
        self.start_service()
    }

    fn runs(process: &mut Option<Process>) -> bool {
        process.as_mut().is_some_and(|process| process.ended().is_none())
    }

    pub fn start_server(&mut self) -> Result<()> {
        if Self::runs(&mut self.server) {
            return Ok(());
        }
        self.server = None;
        let truth = self.folder.join("truth").join(format!("{:03}.jsonl", self.started + 1));
        self.follow_truth()?;
        self.truth_file = Some((truth.clone(), 0));
        let log = self.log("server");
        let mut command = self.command("tenon-sim-server")?;
        let scene = if self.rig.is_some() { "none" } else { "avoid" };
        command.args(["--address", "127.0.0.1", "--port", &self.polymetis.port().to_string(), "--scene", scene]);
        command.args(["--json", "--die-with-parent", "--truth"]).arg(truth);
        command.arg("--silent-while").arg(self.silence());
        let mut server = Process::start("tenon-sim-server", command, log)?;
        server.wait_for("\"ready\":true", READY)?;
        self.server = Some(server);
        Ok(())
    }

    pub fn start_bridge(&mut self) -> Result<()> {
        if Self::runs(&mut self.bridge) {
            return Ok(());
        }
        self.bridge = None;
        let log = self.log("bridge");
        let mut command = self.command("tenon-bridge")?;
        let endpoint = match &self.place {
            Place::Here => format!("tcp/{}", self.zenoh),
            Place::Namespace { address, .. } => format!("tls/{address}:{}", self.zenoh.port()),
        };
        command.arg("--config").arg(&self.config_file).args(["--endpoint", &endpoint, "--json", "--die-with-parent"]);
        let mut bridge = Process::start("tenon-bridge", command, log)?;
        bridge.wait_for("\"ready\":true", READY)?;
        self.bridge = Some(bridge);
        Ok(())
    }

    pub fn start_service(&mut self) -> Result<()> {
        if Self::runs(&mut self.service) {
            return Ok(());
        }
        self.service = None;
        let log = self.log("service");
        self.record = self.folders.records.join(format!("{:03}", self.started));
        let mut command = Command::new(sibling("tenon")?);
        command.args(["serve", "--robot", "panda", "--bundle"]).arg(&self.bundle);
        command.arg("--config").arg(&self.config_file).arg("--out").arg(&self.folders.out);
        command.arg("--record").arg(&self.record).env("TENON_STATE", self.folder.join("state"));
        command.args(self.rig.iter().flat_map(Rig::options));
        let mut service = Process::start("tenon serve", command, log)?;
        service.wait_for("ready: the arm is disarmed", READY)?;
        self.service = Some(service);
        Ok(())
    }

    fn ask(&self, what: &Ask) -> Result<Answer> {
        ask(&self.folder.join("state/control.sock"), what)
    }

    /// # Errors
    /// The service does not answer.
    pub fn status(&self) -> Result<Status> {
        let (Answer::Done { status, .. } | Answer::Refused { status, .. }) = self.ask(&Ask::Status)?;
        Ok(*status)
    }

    /// Asks until it is done, or for as long as arming may take.
    ///
    /// # Errors
    /// The last refusal.
    pub fn arm(&self) -> Result<()> {
        let until = Instant::now() + ARMING;
        loop {
            match self.ask(&Ask::Arm)? {
                Answer::Done { .. } => return Ok(()),
                // Armed means held, too, where a run before went well.
                Answer::Refused { status, .. } if status.state == State::Holding => return Ok(()),
                Answer::Refused { why, .. } if Instant::now() > until => {
                    bail!("the arm cannot be armed within {ARMING:?}: {why}")
                }
                Answer::Refused { .. } => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Starts episodes without an end.
    ///
    /// # Errors
    /// The service refuses.
    pub fn start(&self) -> Result<()> {
        // A stop that is under way ends first.
        let rests = |status: &Status| status.state != State::Stopping;
        self.wait_for("the arm rests", Duration::from_secs(3), rests)?;
        match self.ask(&Ask::Start { episodes: 0 })? {
            Answer::Done { .. } => Ok(()),
            Answer::Refused { why, .. } => bail!("`start` is refused: {why}"),
        }
    }

    /// # Errors
    /// The service refuses.
    pub fn hold(&self) -> Result<()> {
        match self.ask(&Ask::Hold)? {
            Answer::Done { .. } => Ok(()),
            Answer::Refused { why, .. } => bail!("`hold` is refused: {why}"),
        }
    }

    /// Waits for a state.
    ///
    /// # Errors
    /// It is not reached in time; the text says what is instead.
    pub fn wait_for(&self, what: &str, limit: Duration, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
        let until = Instant::now() + limit;
        loop {
            let status = self.status()?;
            if wanted(&status) {
                return Ok(status);
            }
            if Instant::now() > until {
                let fault = status.fault.unwrap_or_default();
                bail!("{what} is not so within {limit:?}: it is {:?} {fault}", status.state);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the simulator has written so far; a moment of it may still be on its way.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn truth(&mut self) -> Result<&Truth> {
        self.follow_truth()?;
        Ok(&self.truth)
    }

    fn follow_truth(&mut self) -> Result<()> {
        if let Some((path, offset)) = &mut self.truth_file {
            *offset = self.truth.read(path, *offset)?;
        }
        Ok(())
    }

    /// Forgets what the simulator wrote before `at`.
    pub fn forget_truth(&mut self, at: MonotonicTime) {
        self.truth.0.retain(|line| line.t_ns >= at.as_nanos());
    }

    /// Waits until the arm has been still for a moment, or until `until`.
    ///
    /// # Errors
    /// What the simulator wrote cannot be read.
    pub fn wait_until_still(&mut self, until: MonotonicTime) -> Result<()> {
        while clock::now() < until {
            let truth = self.truth()?;
            let last = truth.0.last().map_or(0, |line| line.t_ns);
            let from = MonotonicTime::from_nanos(last - STILL.as_nanos() as i64);
            if truth.is_quite_still(from, MonotonicTime::from_nanos(last)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Waits until the simulator has seen the arm move after `from`.
    ///
    /// # Errors
    /// It does not.
    pub fn wait_until_it_moves(&mut self, from: MonotonicTime, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        loop {
            let now = clock::now();
            if self.truth()?.fastest_m_s(from, now) > MOVES_M_S {
                return Ok(());
            }
            if Instant::now() > until {
                let status =
                    self.status().map(|status| format!("{:?} {}", status.state, status.fault.unwrap_or_default()));
                bail!(
                    "the arm does not move within {limit:?}: {}",
                    status.unwrap_or_else(|error| format!("{error:#}"))
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // The service lets the arm go before the bridge, and that before the server.
        self.service = None;
        self.bridge = None;
        self.server = None;
    }
}

/// `text` with the quoted value `from` replaced.
fn replace(text: &str, from: &str, to: &str) -> Result<String> {
    let quoted = |value: &str| format!("\"{value}\"");
    if !text.contains(&quoted(from)) {
        bail!(
            "robot.toml does not have the value \"{from}\" in double quotes, which these runs replace by one of their own"
        );
    }
    Ok(text.replace(&quoted(from), &quoted(to)))
}
