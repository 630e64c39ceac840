//! The connection to the server under test: calls with a deadline, what is known of the arm, and the interlocks.
//!
//! Two rules of safe mode live here and nowhere else: nothing is set or terminated while the robot client is silent, and
//! nothing is updated unless the running controller is the one that this rig has set.

use std::time::{Duration, Instant};

use tenon_bridge::BridgeOptions;
use tenon_polymetis::proto::polymetis_controller_server_client::PolymetisControllerServerClient;
use tenon_polymetis::proto::{ControllerChunk, Empty, LogInterval, RobotClientMetadata, RobotState};
use tenon_polymetis::{CHUNK_BYTES, chunks};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::archives::{self, Law};
use super::restart::ShellCommands;
use super::verdict::{Figure, Outcome, Stop, fail, require, skip, succeeded};

/// Generated client of the controller server: it checks nothing, which is what the suite needs.
pub type Client = PolymetisControllerServerClient<Channel>;

/// Characters shown of each end of an answer: backtraces of several kB occur, and the reason may stand at their end.
const TEXT_CHARS: usize = 150;

/// Why a call brought nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The server's answer.
    Status { code: Code, text: String },
    /// The connection is broken or cannot be made.
    Gone { text: String },
    /// We gave up.
    NoAnswer { after: Duration },
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status { code, text } => write!(f, "{code:?} \"{}\"", shortened(text)),
            Self::Gone { text } => write!(f, "the connection broke: {text}"),
            Self::NoAnswer { after } => write!(f, "no answer within {:.1} s", after.as_secs_f64()),
        }
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        let text: String = status.message().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        // A status with a source was made on this side, of a connection that broke.
        if status.code() == Code::Unavailable || std::error::Error::source(&status).is_some() {
            Self::Gone { text }
        } else {
            Self::Status { code: status.code(), text }
        }
    }
}

/// What a controller of ours holds.
#[derive(Debug, Clone, Copy)]
pub struct Running {
    /// Log index of its first step.
    pub start: i32,
    /// Joints that it holds, rad.
    pub target: [f32; 7],
    /// Number of the upload, which plans for Tenon's law name.
    pub session: u32,
}

/// The server under test.
#[derive(Debug)]
pub struct Rig {
    pub runtime: tokio::runtime::Runtime,
    pub client: Client,
    pub address: String,
    /// Silence after which a call is said to hang.
    pub patience: Duration,
    pub metadata: RobotClientMetadata,
    /// Gains and limits of Tenon's law, as the bridge uploads it.
    pub bridge: BridgeOptions,
    /// Joints at which the arm stood in the beginning, rad.
    pub home: [f32; 7],
    /// Farthest that a target may be from the measured joint 7, rad; 0 without --move.
    pub nudge_rad: f32,
    pub samples: Option<std::path::PathBuf>,
    /// Repetitions of measurements are divided by this.
    pub haste: usize,
    pub commands: ShellCommands,
    pub figures: Vec<Figure>,
    /// Durations of SetController and TerminateController that succeeded, ms.
    pub set_ms: Vec<f64>,
    pub terminate_ms: Vec<f64>,
    /// First step of the controller that we set last; `None` once it was terminated, or the server is another one.
    pub ours: Option<i32>,
    /// An upload of ours was not answered: it may run yet.
    pub unanswered: bool,
    /// The server has to be restarted before anything else is asked of it.
    pub dirty: bool,
    session: u32,
}

impl Rig {
    /// A rig at `host:port`. Nothing is called yet.
    pub fn new(address: &str, patience: Duration, bridge: BridgeOptions) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("tenon-test")
            .enable_all()
            .build()?;
        let client = {
            let _in_runtime = runtime.enter();
            client_of(address)?
        };
        Ok(Self {
            runtime,
            client,
            address: address.to_owned(),
            patience,
            metadata: RobotClientMetadata::default(),
            bridge,
            home: [0.0; 7],
            nudge_rad: 0.0,
            samples: None,
            haste: 1,
            commands: ShellCommands::default(),
            figures: Vec::new(),
            set_ms: Vec::new(),
            terminate_ms: Vec::new(),
            ours: None,
            unanswered: false,
            dirty: false,
            session: 0,
        })
    }

    /// Waits for a call, but not longer than `deadline`; giving up cancels it.
    pub fn wait<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Refusal> {
        match self.runtime.block_on(async { tokio::time::timeout(deadline, call).await }) {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Refusal::from(status)),
            Err(_) => Err(Refusal::NoAnswer { after: deadline }),
        }
    }

    pub fn get_metadata(&self) -> Result<RobotClientMetadata, Refusal> {
        self.wait(self.patience, self.client.clone().get_robot_client_metadata(Empty {}))
    }

    pub fn state(&self) -> Result<RobotState, Refusal> {
        self.wait(self.patience, self.client.clone().get_robot_state(Empty {}))
    }

    pub fn episode(&self) -> Result<LogInterval, Refusal> {
        self.wait(self.patience, self.client.clone().get_episode_interval(Empty {}))
    }

    /// Recorded states of these log indices, both included. A server that does not end the stream is given up.
    pub fn log(&self, start: i32, end: i32) -> Result<Vec<RobotState>, Refusal> {
        let mut client = self.client.clone();
        let all = async move {
            let mut stream = client.get_robot_state_log(LogInterval { start, end }).await?.into_inner();
            let mut states = Vec::new();
            while let Some(state) = stream.message().await? {
                states.push(state);
            }
            Ok(Response::new(states))
        };
        self.wait(self.patience * 2, all)
    }

    /// States as they arrive for so long, each with the time of its arrival.
    pub fn stream(&self, length: Duration) -> Result<Vec<(Instant, RobotState)>, Refusal> {
        let mut client = self.client.clone();
        let end = Instant::now() + length;
        let all = async move {
            let mut stream = client.get_robot_state_stream(Empty {}).await?.into_inner();
            let mut states = Vec::new();
            while let Ok(state) = tokio::time::timeout_at(end.into(), stream.message()).await {
                match state? {
                    Some(state) => states.push((Instant::now(), state)),
                    None => return Err(Status::unknown("the server ended the stream")),
                }
            }
            Ok(Response::new(states))
        };
        self.wait(length + self.patience, all)
    }

    /// Uploads a controller whatever the circumstances: for checks that know them.
    pub fn set_unguarded(&self, messages: Vec<ControllerChunk>, deadline: Duration) -> Result<LogInterval, Refusal> {
        self.wait(deadline, self.client.clone().set_controller(tokio_stream::iter(messages)))
    }

    /// Uploads parameters whatever the circumstances.
    pub fn update_unguarded(&self, messages: Vec<ControllerChunk>, deadline: Duration) -> Result<LogInterval, Refusal> {
        self.wait(deadline, self.client.clone().update_controller(tokio_stream::iter(messages)))
    }

    /// Terminates whatever the circumstances.
    pub fn terminate_unguarded(&self, deadline: Duration) -> Result<LogInterval, Refusal> {
        self.wait(deadline, self.client.clone().terminate_controller(Request::new(Empty {})))
    }

    /// A live robot client, without which SetController and TerminateController would hang.
    pub fn require_robot(&self) -> Outcome {
        match self.get_metadata() {
            Ok(_) => Ok(()),
            Err(refusal) => skip(format!("the robot client is silent ({refusal})")),
        }
    }

    /// How long the robot takes for so many steps.
    pub fn steps(&self, count: u32) -> Duration {
        Duration::from_secs_f64(f64::from(count) / f64::from(self.metadata.hz.max(1)))
    }

    /// Measured joints, rad.
    pub fn measured(&self) -> Outcome<[f32; 7]> {
        let state = succeeded("GetRobotState", self.state())?;
        joints(&state)
    }

    /// Uploads an archive in chunks as clients do and takes note of its first step.
    pub fn set_archive(&mut self, archive: &[u8]) -> Outcome<LogInterval> {
        self.set_messages(chunks(archive).collect())
    }

    /// Uploads a controller in any messages; fails unless it runs.
    pub fn set_messages(&mut self, messages: Vec<ControllerChunk>) -> Outcome<LogInterval> {
        self.require_robot()?;
        let begin = Instant::now();
        let answer = self.set_unguarded(messages, self.patience);
        self.unanswered |= matches!(answer, Err(Refusal::NoAnswer { .. }));
        let interval = succeeded("SetController", answer)?;
        let took_ms = begin.elapsed().as_secs_f64() * 1e3;
        require(interval.start >= 0 && interval.end == -1, "SetController: start >= 0, end = -1", || {
            format!("{interval:?}")
        })?;
        self.ours = Some(interval.start);
        self.set_ms.push(took_ms);
        Ok(interval)
    }

    /// Lets a law hold the measured joints.
    pub fn hold(&mut self, law: Law) -> Outcome<Running> {
        let target = self.measured()?;
        let archive = self.archive_of(law, &target)?;
        let session = self.session;
        let start = self.set_archive(&archive)?.start;
        Ok(Running { start, target, session })
    }

    /// The archive of a law that holds these joints; each of Tenon's has a session of its own.
    pub fn archive_of(&mut self, law: Law, target: &[f32; 7]) -> Outcome<Vec<u8>> {
        self.session += 1;
        archives::of_law(law, target, &self.metadata, &self.bridge, self.session)
    }

    /// Sends parameters to our own controller, and to no other. The round trip before it makes sure of that: an update to a
    /// server without a controller would kill it.
    pub fn update(&self, archive: &[u8]) -> Outcome<Result<LogInterval, Refusal>> {
        self.update_messages(chunks(archive).collect())
    }

    /// The same in any messages.
    pub fn update_messages(&self, messages: Vec<ControllerChunk>) -> Outcome<Result<LogInterval, Refusal>> {
        self.require_ours()?;
        Ok(self.update_unguarded(messages, self.patience))
    }

    /// An update that has to succeed: the log index from which it counts.
    pub fn update_ok(&self, what: &str, archive: &[u8]) -> Outcome<i32> {
        let interval = succeeded(&format!("UpdateController with {what}"), self.update(archive)?)?;
        require(interval.end == -1, "UpdateController: end = -1", || format!("{interval:?}"))?;
        Ok(interval.start)
    }

    /// Our controller runs, as far as the server says.
    pub fn require_ours(&self) -> Outcome {
        let Some(ours) = self.ours else {
            return skip("no controller of ours is set, and an update could kill the server");
        };
        let episode = succeeded("GetEpisodeInterval", self.episode())?;
        require(
            episode.start == ours && episode.end == -1,
            format!("the controller set at step {ours} runs on"),
            || format!("GetEpisodeInterval: {episode:?}"),
        )
    }

    /// Terminates our controller and returns its interval.
    pub fn terminate(&mut self) -> Outcome<LogInterval> {
        self.require_robot()?;
        let begin = Instant::now();
        let interval = succeeded("TerminateController", self.terminate_unguarded(self.patience))?;
        self.terminate_ms.push(begin.elapsed().as_secs_f64() * 1e3);
        self.ours = None;
        Ok(interval)
    }

    /// Lets the default controller hold the arm, if a controller of ours may run.
    pub fn release(&mut self) -> Outcome {
        let episode = succeeded("GetEpisodeInterval", self.episode())?;
        let Some(ours) = self.ours.or(self.unanswered.then_some(episode.start)) else { return Ok(()) };
        if episode.end != -1 || episode.start == -1 {
            self.ours = None;
            return Ok(());
        }
        if episode.start != ours {
            self.ours = None;
            return fail(
                format!("our controller of step {ours}"),
                format!("another one runs since step {}", episode.start),
            );
        }
        self.terminate().map(|_| ())
    }

    /// How far the farthest joint is from where it was in the beginning, rad.
    pub fn strayed_rad(&self) -> Result<f32, Stop> {
        let now = self.measured()?;
        Ok(farthest(&now, &self.home))
    }
}

/// Beginning and end of a long text.
fn shortened(text: &str) -> String {
    let count = text.chars().count();
    if count <= 2 * TEXT_CHARS {
        return text.to_owned();
    }
    let head: String = text.chars().take(TEXT_CHARS).collect();
    let tail: String = text.chars().skip(count - TEXT_CHARS).collect();
    format!("{head} … {tail}")
}

/// Largest difference of a joint, rad.
pub fn farthest(a: &[f32; 7], b: &[f32; 7]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Measured joints of a state, rad.
pub fn joints(state: &RobotState) -> Outcome<[f32; 7]> {
    vector("joint_positions", &state.joint_positions)
}

/// Seven finite numbers.
pub fn vector(name: &str, values: &[f32]) -> Outcome<[f32; 7]> {
    match <[f32; 7]>::try_from(values) {
        Ok(values) if values.iter().all(|x| x.is_finite()) => Ok(values),
        Ok(values) => fail(format!("{name}: finite"), format!("{values:?}")),
        Err(_) => fail(format!("{name}: 7 values"), format!("{} values", values.len())),
    }
}

/// Time of a state on the robot client's clock, s since 1970.
pub fn stamp_s(state: &RobotState) -> f64 {
    state.timestamp.map_or(0.0, |t| t.seconds as f64 + f64::from(t.nanos) * 1e-9)
}

/// The whole archive as one message.
pub fn one_message(archive: &[u8]) -> Vec<ControllerChunk> {
    vec![ControllerChunk { torchscript_binary_chunk: archive.to_vec() }]
}

/// An archive in messages of these sizes, over and over.
pub fn messages_of(archive: &[u8], sizes: &[usize]) -> Vec<ControllerChunk> {
    let mut rest = archive;
    let mut messages = Vec::new();
    let sizes = if sizes.iter().all(|size| *size == 0) { &[CHUNK_BYTES] } else { sizes };
    for size in sizes.iter().cycle() {
        let (chunk, left) = rest.split_at((*size).min(rest.len()));
        messages.push(ControllerChunk { torchscript_binary_chunk: chunk.to_vec() });
        rest = left;
        if rest.is_empty() {
            break;
        }
    }
    messages
}

/// A client that connects at its first call. Must be called inside a runtime.
pub fn client_of(address: &str) -> anyhow::Result<Client> {
    let authority = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|e| anyhow::anyhow!("server address {address:?}: {e}; give host:port, for example 127.0.0.1:50051"))?;
    anyhow::ensure!(
        endpoint.uri().port_u16().is_some() && endpoint.uri().host().is_some_and(|host| !host.is_empty()),
        "server address {address:?}: host or port is missing; give host:port, for example 127.0.0.1:50051"
    );
    Ok(Client::new(endpoint.tcp_nodelay(true).connect_lazy()))
}
