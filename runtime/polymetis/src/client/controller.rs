//! Client of the controller server.

use std::time::Duration;

use tonic::Request;
use tonic::transport::Channel;

use super::connection::{ControllerSet, lazy_channel};
use super::{ClientError, Deadlines, answer, request, require_finite};
use crate::archive::{ParameterArchive, TensorValue, write_parameters};
use crate::chunks;
use crate::proto::polymetis_controller_server_client::PolymetisControllerServerClient;
use crate::proto::{Empty, LogInterval, RobotClientMetadata, RobotState};
use crate::status::ServerError;
use crate::waypoints::{PLAN, Plan};

/// A stream of upload messages.
type Upload = tokio_stream::Iter<std::vec::IntoIter<crate::proto::ControllerChunk>>;

/// Client of the controller server's user side. Clones share its two connections: one for what
/// changes the controller, guarded against silent reconnects, and one for queries. Were they one, a
/// query could open the way for an update that was checked against the old connection.
///
/// What it adds to the generated client: deadlines, errors that say what they mean, exactly seven
/// finite joint targets, `start = −1` as a failure, and no update to a server that this client has not
/// set a controller on over the present connection (it would kill a freshly started server).
/// What it leaves to its user: limits of joints and steps, freshness of states, and asking for a live
/// robot before [`set_controller`](Self::set_controller) and [`terminate`](Self::terminate), which
/// otherwise hang and take the server's mutex with them (spec §10).
#[derive(Debug, Clone)]
pub struct ControllerClient {
    control: PolymetisControllerServerClient<Channel>,
    query: PolymetisControllerServerClient<Channel>,
    deadlines: Deadlines,
    controller_set: ControllerSet,
    joint_targets: ParameterArchive,
}

impl ControllerClient {
    /// A client of the server at `host:port`. Connects at the first call, and again after a loss.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::Address`]
    pub fn new(address: &str, deadlines: Deadlines) -> Result<Self, ClientError> {
        let controller_set = ControllerSet::default();
        let control = lazy_channel(address, controller_set.clone())?;
        let query = lazy_channel(address, ControllerSet::default())?;
        Ok(Self {
            control: PolymetisControllerServerClient::new(control),
            query: PolymetisControllerServerClient::new(query),
            deadlines,
            controller_set,
            joint_targets: ParameterArchive::joint_pos_desired(),
        })
    }

    /// What the robot client says about itself. Fails with [`ServerError::NoRobotClient`] unless it
    /// called within the last second: the cheapest probe for a live robot.
    ///
    /// # Errors
    /// [`ClientError::Server`]
    pub async fn metadata(&mut self) -> Result<RobotClientMetadata, ClientError> {
        let deadline = self.deadlines.metadata;
        let call = self.query.get_robot_client_metadata(request(Empty {}, deadline));
        answer("GetRobotClientMetadata", deadline, call).await
    }

    /// The state recorded last. It may be old: check that its timestamp moves.
    ///
    /// # Errors
    /// [`ClientError::Server`]
    pub async fn robot_state(&mut self) -> Result<RobotState, ClientError> {
        let deadline = self.deadlines.get;
        let call = self.query.get_robot_state(request(Empty {}, deadline));
        answer("GetRobotState", deadline, call).await
    }

    /// First and last log index of the present or last controller, −1 for "not set": running is
    /// `start != -1 && end == -1`. Also answers while the robot client is dead.
    ///
    /// # Errors
    /// [`ClientError::Server`]
    pub async fn episode_interval(&mut self) -> Result<LogInterval, ClientError> {
        let deadline = self.deadlines.get;
        let call = self.query.get_episode_interval(request(Empty {}, deadline));
        answer("GetEpisodeInterval", deadline, call).await
    }

    /// Uploads a controller archive; returns the log index of its first step. It replaces a running
    /// one at once, without interpolation: its target should equal the measured joint positions.
    ///
    /// Ask for [`metadata`](Self::metadata) first: without a live robot client the server hangs.
    ///
    /// # Errors
    /// [`ClientError::NeverRan`] where the server says OK with `start = −1`, [`ClientError::Server`]
    pub async fn set_controller(&mut self, archive: &[u8]) -> Result<i32, ClientError> {
        let deadline = self.deadlines.set;
        let call = self.control.set_controller(upload(archive, deadline));
        let result = answer("SetController", deadline, call).await;
        let interval = self.watch(result)?;
        if interval.start < 0 {
            self.controller_set.set(false);
            return Err(ClientError::NeverRan);
        }
        self.controller_set.set(true);
        Ok(interval.start)
    }

    /// Sends joint targets (rad) to the running controller as `joint_pos_desired`; returns the log
    /// index of the first step that uses them.
    ///
    /// # Errors
    /// [`ClientError::JointCount`] and [`ClientError::NotFinite`] before anything is sent,
    /// [`ClientError::NoControllerSet`], [`ClientError::Server`]
    pub async fn update_joint_targets(&mut self, joints: &[f32]) -> Result<i32, ClientError> {
        let joints: &[f32; 7] = joints.try_into().map_err(|_| ClientError::JointCount { got: joints.len() })?;
        require_finite("joint targets", joints)?;
        let upload = upload(self.joint_targets.patch(joints), self.deadlines.update);
        self.update(upload).await
    }

    /// Sends any parameters to the running controller; they are applied in the order given.
    ///
    /// # Errors
    /// As [`update_joint_targets`](Self::update_joint_targets); also [`ClientError::Archive`]. Shapes
    /// are not known here; mind that the server broadcasts a vector of one value.
    pub async fn update_parameters(&mut self, parameters: &[(&str, &TensorValue)]) -> Result<i32, ClientError> {
        for (name, tensor) in parameters {
            // As float32, because the controller's own tensors are: 1e300 would arrive as infinity.
            require_finite(name, &tensor.to_f32_vec())?;
        }
        let upload = upload(&write_parameters(parameters)?, self.deadlines.update);
        self.update(upload).await
    }

    /// Sends a plan to [Tenon's controller](crate::waypoints); returns the log index of the first step that follows it,
    /// from which a [`StepClock`](crate::waypoints::StepClock) learns the present step. Nothing but its numbers is looked
    /// at: [`Plan::check`] is the sender's.
    ///
    /// # Errors
    /// As [`update_parameters`](Self::update_parameters); a refused plan is
    /// [`ServerError::InvalidParameters`] with the text of a [`Refusal`](crate::waypoints::Refusal).
    pub async fn update_plan(&mut self, plan: &Plan) -> Result<i32, ClientError> {
        self.update_parameters(&[(PLAN, &plan.to_tensor())]).await
    }

    async fn update(&mut self, upload: Request<Upload>) -> Result<i32, ClientError> {
        if !self.controller_set.get() {
            return Err(ClientError::NoControllerSet);
        }
        let call = self.control.update_controller(upload);
        let result = answer("UpdateController", self.deadlines.update, call).await;
        Ok(self.watch(result)?.start)
    }

    /// Ends the running controller; the default one holds the arm. Returns its first and last step.
    ///
    /// Ask for [`metadata`](Self::metadata) first: without a live robot client the server hangs.
    ///
    /// # Errors
    /// [`ClientError::Server`]
    pub async fn terminate(&mut self) -> Result<LogInterval, ClientError> {
        let deadline = self.deadlines.terminate;
        let call = self.control.terminate_controller(request(Empty {}, deadline));
        let result = answer("TerminateController", deadline, call).await;
        let interval = self.watch(result)?;
        self.controller_set.set(false);
        Ok(interval)
    }

    /// Whether this client set a controller and no later upload or termination said that it is gone.
    pub fn has_set_controller(&self) -> bool {
        self.controller_set.get()
    }

    /// Forgets the controller when an answer says that it, or the connection, is gone.
    fn watch<T>(&self, result: Result<T, ClientError>) -> Result<T, ClientError> {
        if let Err(ClientError::Server {
            error: ServerError::NoControllerRunning | ServerError::Unavailable(_), ..
        }) = result
        {
            self.controller_set.set(false);
        }
        result
    }
}

fn upload(archive: &[u8], deadline: Duration) -> Request<Upload> {
    let messages: Vec<_> = chunks(archive).collect();
    request(tokio_stream::iter(messages), deadline)
}
