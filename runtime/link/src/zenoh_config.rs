//! Configuration of a zenoh session: one explicit endpoint, nothing discovered.

use std::time::Duration;

use zenoh::Config;

use crate::error::LinkError;

/// A session that connects to the bridge and to nothing else.
pub(crate) fn client(endpoint: &str, connect_timeout: Duration) -> Result<Config, LinkError> {
    check_endpoint(endpoint)?;
    let mut config = quiet()?;
    set(&mut config, "mode", "\"client\"")?;
    set(&mut config, "connect/endpoints", &format!("[\"{endpoint}\"]"))?;
    set(&mut config, "connect/timeout_ms", &connect_timeout.as_millis().to_string())?;
    set(&mut config, "connect/exit_on_failure", "true")?;
    let retry = "{ period_init_ms: 50, period_max_ms: 500, period_increase_factor: 1.5 }";
    set(&mut config, "connect/retry", retry)?;
    Ok(config)
}

/// A session that listens for controllers. A peer, not a router: it never passes on what one client says to another.
pub(crate) fn listener(endpoint: &str) -> Result<Config, LinkError> {
    check_endpoint(endpoint)?;
    let mut config = quiet()?;
    set(&mut config, "mode", "\"peer\"")?;
    set(&mut config, "listen/endpoints", &format!("[\"{endpoint}\"]"))?;
    set(&mut config, "listen/timeout_ms", "0")?;
    set(&mut config, "listen/exit_on_failure", "true")?;
    Ok(config)
}

fn quiet() -> Result<Config, LinkError> {
    let mut config = Config::default();
    set(&mut config, "scouting/multicast/enabled", "false")?;
    set(&mut config, "scouting/gossip/enabled", "false")?;
    // Messages of 200 bytes gain nothing from shared memory, and without it no segment is left behind by a killed process.
    set(&mut config, "transport/shared_memory/enabled", "false")?;
    // Not sent within this time (µs): dropped. The next target is better than a late one.
    set(&mut config, "transport/link/tx/queue/congestion_control/drop/wait_before_drop", "1000")?;
    Ok(config)
}

fn set(config: &mut Config, key: &str, value: &str) -> Result<(), LinkError> {
    config
        .insert_json5(key, value)
        .map_err(|e| LinkError::Zenoh { what: format!("the setting {key} = {value}"), reason: e.to_string() })
}

/// `protocol/address`, without characters that would end the quoted text it is put into.
fn check_endpoint(endpoint: &str) -> Result<(), LinkError> {
    let known = ["tcp", "unixsock-stream", "tls"];
    let good = endpoint.split_once('/').is_some_and(|(protocol, address)| {
        known.contains(&protocol) && !address.is_empty() && (protocol == "unixsock-stream" || address.contains(':'))
    });
    if !good || endpoint.chars().any(|c| c.is_control() || c.is_whitespace() || c == '"' || c == '\\') {
        return Err(LinkError::Endpoint { endpoint: endpoint.to_owned() });
    }
    Ok(())
}

/// zenoh's errors carry source locations and debug text; a person needs the first line.
pub(crate) fn reason(error: &zenoh::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.split(" at /").next().unwrap_or(line).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_endpoints_are_refused_before_zenoh_sees_them() {
        for endpoint in ["", "tcp", "tcp/", "127.0.0.1:7447", "tcp/localhost", "quick/1:2", "tcp/a:1\"]", "tcp/a :1"] {
            assert!(matches!(client(endpoint, Duration::ZERO), Err(LinkError::Endpoint { .. })), "{endpoint}");
        }
    }

    #[test]
    fn zenoh_accepts_every_setting() {
        client("tcp/127.0.0.1:7447", Duration::from_secs(1)).unwrap();
        listener("unixsock-stream//tmp/tenon.sock").unwrap();
    }
}
