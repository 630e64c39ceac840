//! Both servers on one port: a call goes to the service that its path names.
//!
//! tonic's own router would do the same with a web framework behind it; two prefixes do not need one.

use std::convert::Infallible;
use std::task::{Context, Poll};

use tenon_polymetis::proto::gripper_server_server::GripperServerServer;
use tenon_polymetis::proto::polymetis_controller_server_server::PolymetisControllerServerServer;
use tonic::codegen::{Body, BoxFuture, Service, StdError, http};

use super::gripper::GripperMailbox;
use super::service::ControllerService;

/// The services; what neither knows is answered with UNIMPLEMENTED by the controller's.
#[derive(Clone)]
pub struct Services {
    controller: PolymetisControllerServerServer<ControllerService>,
    gripper: GripperServerServer<GripperMailbox>,
}

impl Services {
    pub fn new(controller: ControllerService, gripper: GripperMailbox) -> Self {
        Self {
            controller: PolymetisControllerServerServer::new(controller),
            gripper: GripperServerServer::new(gripper),
        }
    }
}

impl<B> Service<http::Request<B>> for Services
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path().starts_with("/GripperServer/") {
            self.gripper.call(request)
        } else {
            self.controller.call(request)
        }
    }
}
