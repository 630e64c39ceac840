//! What can go wrong with the link.

use thiserror::Error;

use crate::codec::DecodeError;
use crate::security::SecurityError;

/// Trouble with the link itself. Trouble with single messages is counted, see [`LinkCounters`](crate::LinkCounters).
#[derive(Debug, Clone, PartialEq, Error)]
pub enum LinkError {
    #[error("robot name \"{name}\": use letters, digits, `_` and `-`, at most 64")]
    RobotName { name: String },
    #[error(
        "link endpoint \"{endpoint}\": must look like tcp/127.0.0.1:7447 or tls/192.168.1.10:7447 (see [link] endpoint in robot.toml)"
    )]
    Endpoint { endpoint: String },
    #[error(transparent)]
    Security(#[from] SecurityError),
    #[error(
        "no bridge at {endpoint} (tried for {waited_s:.1} s): start tenon-bridge there or correct [link] endpoint; \
         zenoh says: {reason}"
    )]
    Connect { endpoint: String, waited_s: f64, reason: String },
    #[error(
        "port in use: cannot listen at {endpoint}: another tenon-bridge or program has it; stop that one (`ss -ltnp` \
         names it) or choose another [link] endpoint"
    )]
    PortInUse { endpoint: String },
    #[error(
        "no link to the bridge at {endpoint} (tried for {waited_s:.1} s): {reason}. `tenon secure --check` on both computers says what \
         is there"
    )]
    ConnectProtected { endpoint: String, waited_s: f64, reason: String },
    #[error("cannot listen at {endpoint}: {reason}")]
    Listen { endpoint: String, reason: String },
    #[error("zenoh refused {what}: {reason}")]
    Zenoh { what: String, reason: String },
    #[error("the target's joint {} is not finite; it was not sent", joint + 1)]
    NotFinite { joint: usize },
    #[error("{waiting} requests wait to be sent; the link is stuck or requests come too fast")]
    QueueFull { waiting: usize },
    #[error("this link only listens; it cannot send")]
    ReadOnly,
    #[error("the link is closed")]
    Closed,
    #[error("message refused: {0}")]
    Decode(#[from] DecodeError),
}
