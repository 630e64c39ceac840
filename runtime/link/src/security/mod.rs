//! Who may say what over the link, and how each side proves who it is.
//!
//! On one computer (`tcp/127.0.0.1:…`, a Unix socket) the link is plain and every local program counts as the
//! controller. Beyond it there are certificates: `tls/` end points prove both sides with what `tenon secure` made, one
//! [`Role`] a certificate, and zenoh's access control ([`acl`]) lets nothing pass but the four messages, each from the
//! side that may send it. Plain TCP beyond this computer is refused unless the owner of the robot wrote that anybody
//! may move it.

pub(crate) mod acl;
pub(crate) mod diagnosis;
mod identity;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tenon_core::config::LinkConfig;
use thiserror::Error;

use crate::error::LinkError;

pub use identity::{
    CERTIFICATE_FILE, CertificateFacts, Identity, KEY_FILE, TRUST_FILE, WARN_DAYS, key_is_private, unix_now,
};

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Stands beside the arm: sends `state` and `status`, takes `target` and `request`.
    Bridge,
    /// Commands the arm: `tenon run`.
    Controller,
    /// Hears `state` and `status`, and cannot send: `tenon top`, `tenon doctor`, `tenon-calibrate`.
    Observer,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Bridge, Self::Controller, Self::Observer];

    /// Name of its folder.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Controller => "controller",
            Self::Observer => "observer",
        }
    }

    /// Common name in its certificate; the access control goes by it.
    pub const fn common_name(self) -> &'static str {
        match self {
            Self::Bridge => "tenon-bridge",
            Self::Controller => "tenon-controller",
            Self::Observer => "tenon-observer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a link is refused before it is opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SecurityError {
    #[error(
        "link endpoint \"{endpoint}\" is plain TCP beyond this computer: whoever reaches the port could command the arm. Make \
         certificates with `tenon secure --bridge {host}`, add the [link.tls] table that it prints to robot.toml, and write \
         \"tls/{address}\""
    )]
    Unprotected { endpoint: String, host: String, address: String },
    #[error(
        "link endpoint \"{endpoint}\" wants certificates and robot.toml names none: make them with `tenon secure` and add the [link.tls] \
         table that it prints"
    )]
    NoCertificates { endpoint: String },
    #[error(
        "link endpoint \"{endpoint}\": a certificate cannot be checked against an IPv6 address here; use a name or an IPv4 address"
    )]
    Ipv6 { endpoint: String },
    #[error("[link.tls] folder \"{}\": none of the characters {characters} may stand in it", folder.display())]
    Folder { folder: PathBuf, characters: &'static str },
    #[error(
        "no certificate for the role \"{role}\": {}: {reason}. Copy the folder \"{role}\" that `tenon secure` made to {} (`tenon secure \
         --check` says what is there)", path.display(), folder.display()
    )]
    Missing { role: Role, folder: PathBuf, path: PathBuf, reason: String },
    #[error("{} can be read by others (mode {mode:04o}): whoever has this key is the {role}; `chmod 600 {}`", path.display(), path.display())]
    ReadableByOthers { role: Role, path: PathBuf, mode: u32 },
    #[error("{}: {what}; make it again with `tenon secure --rotate`", path.display())]
    File { path: PathBuf, what: String },
    #[error("{} belongs to \"{found}\", \"{}\" is wanted here: copy the folder of the right role", path.display(), role.common_name())]
    WrongRole { role: Role, path: PathBuf, found: String },
    #[error("the certificate {} ended on {until}: make new ones with `tenon secure --rotate` and copy them again", path.display())]
    Expired { path: PathBuf, until: String },
    #[error("the certificate {} is valid from {from} on: this computer's clock says {now}; set it", path.display())]
    NotYetValid { path: PathBuf, from: String, now: String },
}

/// Where the bridge listens, and what protects the way there. Made from the configuration, so that every program judges
/// alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    address: String,
    protection: Protection,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Protection {
    /// The way does not leave this computer.
    OneComputer,
    /// Certificates of both sides; the folder that holds those of each role.
    Certificates(PathBuf),
    /// None, because the owner said so.
    Nothing,
}

impl Endpoint {
    /// The end point of `[link]` in robot.toml.
    ///
    /// # Errors
    /// [`LinkError::Endpoint`] for what is none, [`LinkError::Security`] for plain TCP beyond this computer without the
    /// owner's word, and for `tls/` without certificates. The certificates themselves are read when the link is opened,
    /// or by [`Endpoint::identity`].
    pub fn of_config(link: &LinkConfig) -> Result<Self, LinkError> {
        let endpoint = link.endpoint.clone();
        let Some((protocol, address)) = parts(&endpoint) else { return Err(LinkError::Endpoint { endpoint }) };
        let protection = match (protocol, &link.tls) {
            ("tls", _) if address.starts_with('[') => return Err(SecurityError::Ipv6 { endpoint }.into()),
            ("tls", None) => return Err(SecurityError::NoCertificates { endpoint }.into()),
            ("tls", Some(tls)) => {
                identity::check_folder(&tls.folder)?;
                Protection::Certificates(tls.folder.clone())
            }
            _ if Self::is_on_this_computer(&endpoint) => Protection::OneComputer,
            _ if link.anybody_on_the_network_may_move_the_arm => Protection::Nothing,
            _ => {
                // What listens on every interface is nobody's address.
                let every = host(address).parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
                let (host, address) = (if every { "ADDRESS" } else { host(address) }.to_owned(), address.to_owned());
                return Err(SecurityError::Unprotected { endpoint, host, address }.into());
            }
        };
        Ok(Self { address: endpoint, protection })
    }

    /// An end point that does not leave this computer.
    ///
    /// # Errors
    /// As [`Endpoint::of_config`] without certificates.
    pub fn on_one_computer(address: &str) -> Result<Self, LinkError> {
        Self::of_config(&LinkConfig {
            endpoint: address.to_owned(),
            heartbeat_timeout_s: 1.0,
            tls: None,
            anybody_on_the_network_may_move_the_arm: false,
        })
    }

    /// As zenoh writes it, e.g. `tls/192.168.1.10:7447`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether both sides prove who they are.
    pub fn is_protected(&self) -> bool {
        matches!(self.protection, Protection::Certificates(_))
    }

    /// What must be said at each start: that nothing protects the link.
    pub fn warning(&self) -> Option<String> {
        (self.protection == Protection::Nothing).then(|| {
            format!(
                "{} is plain TCP: ANYBODY ON THE NETWORK MAY MOVE THE ARM, because robot.toml says \
                 link.anybody_on_the_network_may_move_the_arm = true; `tenon secure` makes certificates",
                self.address
            )
        })
    }

    /// What this computer proves itself with in this role; `None` where no certificates are used.
    ///
    /// # Errors
    /// [`SecurityError`] where a file is missing, cannot be used, or is not this role's.
    pub fn identity(&self, role: Role) -> Result<Option<Identity>, SecurityError> {
        match &self.protection {
            Protection::Certificates(folder) => Identity::read(folder, role, unix_now()).map(Some),
            Protection::OneComputer | Protection::Nothing => Ok(None),
        }
    }

    /// Whether what listens at `address` can only be reached from here: a Unix socket, a loopback address, `localhost`.
    pub fn is_on_this_computer(address: &str) -> bool {
        match parts(address) {
            Some(("unixsock-stream", _)) => true,
            Some((_, address)) => {
                let host = host(address);
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
            None => false,
        }
    }

    /// The same port on this computer alone, plain: for a simulated robot, which is here wherever the real one is.
    pub fn loopback_of(address: &str) -> Option<String> {
        let (_, address) = parts(address)?;
        Some(format!("tcp/127.0.0.1:{}", address.rsplit_once(':')?.1))
    }

    /// Why the bridge cannot be reached in this role; `None` where there is nothing to say beyond what zenoh says.
    pub(crate) fn why_not(&self, role: Role) -> Option<String> {
        let Protection::Certificates(folder) = &self.protection else { return None };
        let (_, address) = parts(&self.address)?;
        Some(diagnosis::why_not(address, &role_folder(folder, role)))
    }

    pub(crate) fn protection(&self) -> &Protection {
        &self.protection
    }

    pub(crate) fn protocol(&self) -> &str {
        self.address.split_once('/').map_or("", |(protocol, _)| protocol)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// `protocol/address`. zenoh reads settings behind `?` and `#`, which would overrule ours (`#enable_mtls=false`), and
/// quotes would end the text that the address is put into: neither is an address.
fn parts(endpoint: &str) -> Option<(&str, &str)> {
    let meaning_something = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '"' | '\\' | '?' | '#' | ';');
    if endpoint.chars().any(meaning_something) {
        return None;
    }
    let (protocol, address) = endpoint.split_once('/')?;
    let whole = match protocol {
        "unixsock-stream" => !address.is_empty(),
        "tcp" | "tls" => {
            address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        }
        _ => false,
    };
    whole.then_some((protocol, address))
}

/// The host of `host:port`, an IPv6 address without its brackets.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// The folder of a role.
pub fn role_folder(folder: &Path, role: Role) -> PathBuf {
    folder.join(role.name())
}

#[cfg(test)]
mod tests {
    use tenon_core::config::LinkTlsConfig;

    use super::*;

    fn link(endpoint: &str, tls: bool, anybody: bool) -> LinkConfig {
        LinkConfig {
            endpoint: endpoint.to_owned(),
            heartbeat_timeout_s: 0.3,
            tls: tls.then(|| LinkTlsConfig { folder: "/nowhere/secure".into() }),
            anybody_on_the_network_may_move_the_arm: anybody,
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for endpoint in [
            "",
            "tcp",
            "tcp/",
            "127.0.0.1:7447",
            "tcp/localhost",
            "tcp/:7447",
            "tcp/127.0.0.1:port",
            "quick/1:2",
            "udp/127.0.0.1:7447",
            "tcp/a:1\"]",
            "tcp/a :1",
            "unixsock-stream/",
            // Settings that zenoh would take from the address.
            "tls/robot:7447#enable_mtls=false",
            "tls/robot:7447?rel=0",
            "tcp/127.0.0.1:7447#bind=0.0.0.0:1",
        ] {
            let refused = Endpoint::of_config(&link(endpoint, true, true));
            assert!(matches!(refused, Err(LinkError::Endpoint { .. })), "{endpoint}: {refused:?}");
        }
    }

    #[test]
    fn plain_endpoints_stay_on_this_computer() {
        for endpoint in [
            "tcp/127.0.0.1:7447",
            "tcp/127.1.2.3:1",
            "tcp/localhost:7447",
            "tcp/[::1]:7447",
            "unixsock-stream//run/t.sock",
        ] {
            let endpoint = Endpoint::of_config(&link(endpoint, false, false)).unwrap();
            assert_eq!((endpoint.warning(), endpoint.is_protected()), (None, false), "{endpoint}");
        }
        for endpoint in [
            "tcp/0.0.0.0:7447",
            "tcp/192.168.1.10:7447",
            "tcp/[::]:7447",
            "tcp/[::ffff:127.0.0.1]:7447",
            "tcp/nuc.local:7447",
            "tcp/localhost.example.com:7447",
            "tcp/127.0.0.1.example.com:7447",
        ] {
            let refused = Endpoint::of_config(&link(endpoint, true, false)).unwrap_err();
            assert!(matches!(refused, LinkError::Security(SecurityError::Unprotected { .. })), "{endpoint}: {refused}");
            assert!(refused.to_string().contains("tenon secure --bridge"), "{refused}");
            let allowed = Endpoint::of_config(&link(endpoint, false, true)).unwrap();
            assert!(allowed.warning().unwrap().contains("ANYBODY"), "{endpoint}");
        }
    }

    #[test]
    fn tls_wants_certificates_even_here() {
        let refused = Endpoint::of_config(&link("tls/127.0.0.1:7447", false, true)).unwrap_err();
        assert!(matches!(refused, LinkError::Security(SecurityError::NoCertificates { .. })), "{refused}");
        let refused = Endpoint::of_config(&link("tls/[::1]:7447", true, false)).unwrap_err();
        assert!(matches!(refused, LinkError::Security(SecurityError::Ipv6 { .. })), "{refused}");
        let endpoint = Endpoint::of_config(&link("tls/192.168.1.10:7447", true, false)).unwrap();
        assert!(endpoint.is_protected() && endpoint.warning().is_none());
        let missing = endpoint.identity(Role::Bridge).unwrap_err();
        assert!(matches!(missing, SecurityError::Missing { role: Role::Bridge, .. }), "{missing}");
        // A folder that zenoh would read as settings.
        let odd = LinkConfig {
            tls: Some(LinkTlsConfig { folder: "/a;enable_mtls=false".into() }),
            ..link("tls/a:1", true, false)
        };
        let refused = Endpoint::of_config(&odd).unwrap_err();
        assert!(matches!(refused, LinkError::Security(SecurityError::Folder { .. })), "{refused}");
    }

    #[test]
    fn a_simulated_robot_is_on_this_computer() {
        assert_eq!(Endpoint::loopback_of("tls/192.168.1.10:7448").as_deref(), Some("tcp/127.0.0.1:7448"));
        assert_eq!(Endpoint::loopback_of("nonsense"), None);
    }
}
