//! Configuration of a zenoh session: one explicit endpoint, nothing discovered, nothing allowed that is not ours.

use std::path::Path;
use std::time::Duration;

use zenoh::Config;

use crate::error::LinkError;
use crate::keys::RobotKeys;
use crate::security::acl::access_control;
use crate::security::{CERTIFICATE_FILE, Endpoint, KEY_FILE, Role, TRUST_FILE};

/// Sessions that a bridge keeps at most: a controller and those who watch.
const MAX_SESSIONS: usize = 32;
/// Bytes that a message in pieces may grow to. Ours have 200 and travel whole; zenoh would take in a gigabyte.
const MAX_MESSAGE_BYTES: usize = 65_536;

/// A session that connects to the bridge and to nothing else.
pub(crate) fn client(
    endpoint: &Endpoint,
    role: Role,
    keys: &RobotKeys,
    connect_timeout: Duration,
) -> Result<Config, LinkError> {
    let mut config = quiet(endpoint, role, keys)?;
    set(&mut config, "mode", "\"client\"")?;
    set(&mut config, "connect/endpoints", &format!("[\"{endpoint}\"]"))?;
    set(&mut config, "connect/timeout_ms", &connect_timeout.as_millis().to_string())?;
    set(&mut config, "connect/exit_on_failure", "true")?;
    let retry = "{ period_init_ms: 50, period_max_ms: 500, period_increase_factor: 1.5 }";
    set(&mut config, "connect/retry", retry)?;
    Ok(config)
}

/// A session that listens for controllers. A peer, not a router: it never passes on what one client says to another.
pub(crate) fn listener(endpoint: &Endpoint, keys: &RobotKeys) -> Result<Config, LinkError> {
    let mut config = quiet(endpoint, Role::Bridge, keys)?;
    set(&mut config, "mode", "\"peer\"")?;
    set(&mut config, "listen/endpoints", &format!("[\"{endpoint}\"]"))?;
    set(&mut config, "listen/timeout_ms", "0")?;
    set(&mut config, "listen/exit_on_failure", "true")?;
    set(&mut config, "transport/unicast/max_sessions", &MAX_SESSIONS.to_string())?;
    Ok(config)
}

fn quiet(endpoint: &Endpoint, role: Role, keys: &RobotKeys) -> Result<Config, LinkError> {
    let mut config = Config::default();
    set(&mut config, "scouting/multicast/enabled", "false")?;
    set(&mut config, "scouting/gossip/enabled", "false")?;
    set(&mut config, "adminspace/enabled", "false")?;
    // Messages of 200 bytes gain nothing from shared memory, and without it no segment is left behind by a killed process.
    set(&mut config, "transport/shared_memory/enabled", "false")?;
    // Not sent within this time (µs): dropped. The next target is better than a late one.
    set(&mut config, "transport/link/tx/queue/congestion_control/drop/wait_before_drop", "1000")?;
    set(&mut config, "transport/link/rx/max_message_size", &MAX_MESSAGE_BYTES.to_string())?;
    set(&mut config, "transport/link/protocols", &format!("[\"{}\"]", endpoint.protocol()))?;
    set(&mut config, "access_control", &access_control(endpoint, role, keys))?;
    if let Some(identity) = endpoint.identity(role)? {
        certificates(&mut config, role, &identity.folder)?;
    }
    Ok(config)
}

/// zenoh reads the files itself: a controller's at each connection, the bridge's when it starts.
fn certificates(config: &mut Config, role: Role, folder: &Path) -> Result<(), LinkError> {
    // The identity was read from this folder, whose path needs no quoting then.
    let file = |name: &str| format!("\"{}\"", folder.join(name).display());
    let side = if role == Role::Bridge { "listen" } else { "connect" };
    for (key, value) in [
        ("root_ca_certificate", file(TRUST_FILE)),
        (&format!("{side}_certificate"), file(CERTIFICATE_FILE)),
        (&format!("{side}_private_key"), file(KEY_FILE)),
        ("enable_mtls", "true".to_owned()),
        ("verify_name_on_connect", "true".to_owned()),
        // The end of a certificate ends its connections too; without targets the arm brakes to rest.
        ("close_link_on_expiration", "true".to_owned()),
    ] {
        set(config, &format!("transport/link/tls/{key}"), &value)?;
    }
    Ok(())
}

fn set(config: &mut Config, key: &str, value: &str) -> Result<(), LinkError> {
    config
        .insert_json5(key, value)
        .map_err(|e| LinkError::Zenoh { what: format!("the setting {key} = {value}"), reason: e.to_string() })
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

    fn keys() -> RobotKeys {
        RobotKeys::new("robot").unwrap()
    }

    #[test]
    fn zenoh_accepts_every_setting() {
        let tcp = Endpoint::on_one_computer("tcp/127.0.0.1:7447").unwrap();
        client(&tcp, Role::Controller, &keys(), Duration::from_secs(1)).unwrap();
        listener(&Endpoint::on_one_computer("unixsock-stream//tmp/tenon.sock").unwrap(), &keys()).unwrap();
    }

    #[test]
    fn every_session_denies_what_is_not_listed() {
        let endpoint = Endpoint::on_one_computer("tcp/127.0.0.1:7447").unwrap();
        for role in [Role::Controller, Role::Observer] {
            let config = client(&endpoint, role, &keys(), Duration::from_secs(1)).unwrap();
            let rules = config.get_json("access_control").unwrap();
            assert!(rules.contains("\"default_permission\":\"deny\"") && rules.contains("\"enabled\":true"), "{rules}");
        }
        let rules = listener(&endpoint, &keys()).unwrap().get_json("access_control").unwrap();
        assert!(rules.contains("\"default_permission\":\"deny\"") && rules.contains("\"enabled\":true"), "{rules}");
    }
}
