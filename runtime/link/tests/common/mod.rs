//! What the tests of the link share: messages, waiting, and certificates of authorities that are made on the spot.

#![allow(dead_code)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use tenon_core::config::{LinkConfig, LinkTlsConfig};
use tenon_core::message::{BridgeStatus, JointTarget, RobotState};
use tenon_core::time::{MonotonicTime, RobotTime};
use tenon_link::{Clock, Endpoint, RobotKeys, Role};

pub const PATIENCE: Duration = Duration::from_secs(20);
pub const DAY_S: i64 = 86_400;

pub fn clock() -> Clock {
    let start = Instant::now();
    Arc::new(move || MonotonicTime::from_nanos(start.elapsed().as_nanos() as i64))
}

pub fn keys() -> RobotKeys {
    RobotKeys::new("robot").unwrap()
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// On this computer, plain.
pub fn endpoint() -> Endpoint {
    Endpoint::on_one_computer(&format!("tcp/127.0.0.1:{}", free_port())).unwrap()
}

/// With the certificates of `folder`.
pub fn tls_endpoint(port: u16, folder: &Path) -> Endpoint {
    Endpoint::of_config(&LinkConfig {
        endpoint: format!("tls/127.0.0.1:{port}"),
        heartbeat_timeout_s: 0.3,
        tls: Some(LinkTlsConfig { folder: folder.to_owned() }),
        anybody_on_the_network_may_move_the_arm: false,
    })
    .unwrap()
}

pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "no {what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn state(sequence: u64) -> RobotState {
    let robot_time = RobotTime::from_nanos(5);
    RobotState { sequence, robot_time, gripper_width_m: 0.08, ..RobotState::at_rest([0.1; 7]) }
}

pub fn status(sequence: u64) -> BridgeStatus {
    BridgeStatus { sequence, ..BridgeStatus::idle() }
}

pub fn target(sequence: u64) -> JointTarget {
    JointTarget::still(1, sequence, MonotonicTime::from_nanos(0), [0.1; 7])
}

/// An authority of its own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: String,
}

/// What one certificate says; the defaults are those of a role.
pub struct Wanted {
    pub common_name: &'static str,
    pub names: Vec<String>,
    pub purpose: ExtendedKeyUsagePurpose,
    /// Seconds from now.
    pub from_s: i64,
    pub until_s: i64,
}

impl Wanted {
    pub fn of(role: Role) -> Self {
        let bridge = role == Role::Bridge;
        Self {
            common_name: role.common_name(),
            names: if bridge { vec!["127.0.0.1".to_owned()] } else { Vec::new() },
            purpose: if bridge { ExtendedKeyUsagePurpose::ServerAuth } else { ExtendedKeyUsagePurpose::ClientAuth },
            from_s: -DAY_S,
            until_s: 30 * DAY_S,
        }
    }
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Writes `ca.pem`, `cert.pem` and `key.pem` into the folder of a role.
    pub fn write(&self, folder: &Path, role: Role, wanted: Wanted) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(wanted.names).unwrap();
        params.distinguished_name.push(DnType::CommonName, wanted.common_name);
        params.extended_key_usages = vec![wanted.purpose];
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let date = |s: i64| time::OffsetDateTime::from_unix_timestamp(now + s).unwrap();
        (params.not_before, params.not_after) = (date(wanted.from_s), date(wanted.until_s));
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let place = folder.join(role.name());
        std::fs::create_dir_all(&place).unwrap();
        for (name, text) in
            [("ca.pem", &self.certificate), ("cert.pem", &certificate), ("key.pem", &key.serialize_pem())]
        {
            std::fs::write(place.join(name), text).unwrap();
            std::fs::set_permissions(place.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    /// All roles as they should be.
    pub fn write_all(&self, folder: &Path) {
        Role::ALL.into_iter().for_each(|role| self.write(folder, role, Wanted::of(role)));
    }
}
