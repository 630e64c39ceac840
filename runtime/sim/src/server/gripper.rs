//! The gripper server: a mailbox of one state and one command (spec `polymetis.md` §7).
//!
//! Like the real one it executes nothing; a hardware client has to attach. The simulated arm has none (its fingers are
//! rigid), so until one attaches the answers are those of a server without hardware. [`SimGripper`](super::SimGripper) has
//! one in its process.

use std::sync::{Arc, Mutex, PoisonError};

use tenon_polymetis::proto::gripper_server_server::GripperServer;
use tenon_polymetis::proto::{Empty, GripperCommand, GripperMetadata, GripperState};
use tonic::{Request, Response, Status};

#[derive(Debug, Default)]
struct Slots {
    metadata: Option<GripperMetadata>,
    state: GripperState,
    command: GripperCommand,
}

/// The mailbox; clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct GripperMailbox(Arc<Mutex<Slots>>);

impl GripperMailbox {
    fn slots(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// InitRobotClient: a hardware client registers.
    pub fn register(&self, metadata: GripperMetadata) {
        self.slots().metadata = Some(metadata);
    }

    /// ControlUpdate: the hand's state for the newest command, however old that is.
    pub fn exchange(&self, state: GripperState) -> GripperCommand {
        let mut slots = self.slots();
        slots.state = state;
        slots.command
    }
}

#[tonic::async_trait]
impl GripperServer for GripperMailbox {
    async fn goto(&self, request: Request<GripperCommand>) -> Result<Response<Empty>, Status> {
        self.slots().command = request.into_inner();
        Ok(Response::new(Empty {}))
    }

    async fn get_state(&self, _: Request<Empty>) -> Result<Response<GripperState>, Status> {
        Ok(Response::new(self.slots().state))
    }

    async fn get_robot_client_metadata(&self, _: Request<Empty>) -> Result<Response<GripperMetadata>, Status> {
        match &self.slots().metadata {
            Some(metadata) => Ok(Response::new(metadata.clone())),
            None => Err(Status::internal("Failed to serialize response!")),
        }
    }

    async fn init_robot_client(&self, request: Request<GripperMetadata>) -> Result<Response<Empty>, Status> {
        self.register(request.into_inner());
        Ok(Response::new(Empty {}))
    }

    async fn control_update(&self, request: Request<GripperState>) -> Result<Response<GripperCommand>, Status> {
        Ok(Response::new(self.exchange(request.into_inner())))
    }
}
