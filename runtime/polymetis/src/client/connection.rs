//! A lazy connection that does not come back behind our back.
//!
//! gRPC channels reconnect silently. A controller server that was restarted meanwhile has no
//! controller and dies of the first update (spec §4.3), so while a controller of ours is set the
//! connector refuses to connect anew: the call fails as `Unavailable`, the client forgets its
//! controller, and only then may the next call connect.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint, Uri};

use super::ClientError;

/// Whether a controller of ours is set on the server that the connection leads to.
#[derive(Debug, Clone, Default)]
pub(super) struct ControllerSet(Arc<AtomicBool>);

impl ControllerSet {
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub fn set(&self, value: bool) {
        self.0.store(value, Ordering::Release);
    }
}

/// A channel to `host:port` (or `http://host:port`) that connects at its first call.
pub(super) fn lazy_channel(address: &str, controller_set: ControllerSet) -> Result<Channel, ClientError> {
    let refuse = |reason: String| ClientError::Address { address: address.to_owned(), reason };
    let authority = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|error| refuse(error.to_string()))?;
    if endpoint.uri().port_u16().is_none() || endpoint.uri().host().is_none_or(str::is_empty) {
        return Err(refuse("host or port is missing".into()));
    }
    if endpoint.uri().path() != "/" {
        return Err(refuse("there is something after the port".into()));
    }
    let connector = Connector { authority: authority.to_owned(), controller_set };
    Ok(endpoint.connect_with_connector_lazy(connector))
}

struct Connector {
    authority: String,
    controller_set: ControllerSet,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let authority = self.authority.clone();
        let refused = self.controller_set.get();
        Box::pin(async move {
            if refused {
                return Err(io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "the connection was lost while a controller was set; the server may be another one now",
                ));
            }
            let stream = TcpStream::connect(&authority).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}
