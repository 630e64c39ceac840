//! What one side proves itself with: a certificate, its key, and the authorities that it believes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tenon_core::calendar::rfc3339;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

use super::{Role, SecurityError, role_folder};

/// Certificates of the authorities that this side believes; two of them while one replaces the other.
pub const TRUST_FILE: &str = "ca.pem";
/// The role's certificate, and behind it what leads from an older authority to the one that signed it.
pub const CERTIFICATE_FILE: &str = "cert.pem";
/// Its private key.
pub const KEY_FILE: &str = "key.pem";
/// From that many days before the end on it is said.
pub const WARN_DAYS: f64 = 30.0;

/// zenoh packs paths into a text of settings, where these have a meaning.
const REFUSED_IN_PATHS: &str = "\" \\ ; # ? = | and control characters";

/// Seconds since 1970 by this computer's clock.
pub fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// What stands in a certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct CertificateFacts {
    pub common_name: String,
    /// Of the authority that signed it.
    pub issuer: String,
    /// Names and addresses of the computer, as texts.
    pub names: Vec<String>,
    pub serial: String,
    /// Whether it may sign others.
    pub is_authority: bool,
    /// The bytes of its public key.
    pub public_key: Vec<u8>,
    /// Seconds since 1970.
    pub valid_from_s: f64,
    pub valid_until_s: f64,
}

impl CertificateFacts {
    /// All certificates of a PEM file, in its order.
    ///
    /// # Errors
    /// [`SecurityError::File`] where it cannot be read, holds something else, or holds none.
    pub fn read(path: &Path) -> Result<Vec<Self>, SecurityError> {
        let blocks = blocks(path)?;
        Ok(parsed(&blocks, path)?.iter().map(Self::of).collect())
    }

    /// The first certificate of a PEM text; `path` is only used in messages.
    ///
    /// # Errors
    /// [`SecurityError::File`]
    pub fn of_pem(text: &str, path: &Path) -> Result<Self, SecurityError> {
        let blocks = blocks_of(text.as_bytes(), path)?;
        Ok(Self::of(&parsed(&blocks[..1], path)?[0]))
    }

    fn of(certificate: &X509Certificate<'_>) -> Self {
        let name = |name: &x509_parser::x509::X509Name<'_>| {
            name.iter_common_name().next().and_then(|cn| cn.as_str().ok()).unwrap_or_default().to_owned()
        };
        let names = certificate
            .subject_alternative_name()
            .ok()
            .flatten()
            .map_or_else(Vec::new, |extension| extension.value.general_names.iter().filter_map(name_of).collect());
        Self {
            common_name: name(certificate.subject()),
            issuer: name(certificate.issuer()),
            names,
            serial: certificate.raw_serial_as_string(),
            is_authority: certificate.is_ca(),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
            valid_from_s: certificate.validity().not_before.timestamp() as f64,
            valid_until_s: certificate.validity().not_after.timestamp() as f64,
        }
    }

    /// Days until it ends; negative behind it.
    pub fn days_left(&self, now_s: f64) -> f64 {
        (self.valid_until_s - now_s) / 86_400.0
    }
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| std::net::Ipv4Addr::from(b).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| std::net::Ipv6Addr::from(b).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// The files of a role, looked at and found fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    pub role: Role,
    pub folder: PathBuf,
    /// The role's own certificate.
    pub certificate: CertificateFacts,
    /// When the first certificate of its chain ends: peers close the link then. Seconds since 1970.
    pub valid_until_s: f64,
}

impl Identity {
    /// Reads and judges the folder of `role` below `folder`.
    ///
    /// # Errors
    /// [`SecurityError`] where a file is missing or unfit, the key can be read by others, the certificate is another
    /// role's, has ended, or has not begun.
    pub fn read(folder: &Path, role: Role, now_s: f64) -> Result<Self, SecurityError> {
        check_folder(folder)?;
        let of_role = role_folder(folder, role);
        for file in [TRUST_FILE, CERTIFICATE_FILE, KEY_FILE] {
            let path = of_role.join(file);
            // Opened, not only looked at: what exists may belong to somebody else.
            if let Err(e) = std::fs::File::open(&path) {
                return Err(SecurityError::Missing { role, folder: folder.to_owned(), path, reason: e.to_string() });
            }
        }
        key_is_private(&of_role.join(KEY_FILE), role)?;
        is_believed(&of_role)?;
        let path = of_role.join(CERTIFICATE_FILE);
        let chain = CertificateFacts::read(&path)?;
        let certificate = chain[0].clone();
        if certificate.common_name != role.common_name() {
            return Err(SecurityError::WrongRole { role, path, found: certificate.common_name });
        }
        let valid_until_s = chain.iter().map(|c| c.valid_until_s).fold(f64::INFINITY, f64::min);
        if now_s >= valid_until_s {
            return Err(SecurityError::Expired { path, until: rfc3339(valid_until_s) });
        }
        if now_s < certificate.valid_from_s {
            return Err(SecurityError::NotYetValid {
                path,
                from: rfc3339(certificate.valid_from_s),
                now: rfc3339(now_s),
            });
        }
        Ok(Self { role, folder: of_role, certificate, valid_until_s })
    }

    /// Said when the certificate is about to end.
    pub fn warning(&self, now_s: f64) -> Option<String> {
        let days = (self.valid_until_s - now_s) / 86_400.0;
        (days < WARN_DAYS).then(|| {
            format!(
                "the certificate in {} ends on {} ({days:.0} days): `tenon secure --rotate`",
                self.folder.display(),
                rfc3339(self.valid_until_s)
            )
        })
    }
}

/// Whether the certificate of a role's folder comes from one of the authorities beside it, directly or by the one
/// behind it. A peer judges for itself; this tells a folder whose files do not belong together before a peer refuses
/// it.
///
/// # Errors
/// [`SecurityError::File`]
fn is_believed(folder: &Path) -> Result<(), SecurityError> {
    let (chain_path, trust_path) = (folder.join(CERTIFICATE_FILE), folder.join(TRUST_FILE));
    let (chain, trust) = (blocks(&chain_path)?, blocks(&trust_path)?);
    let signed_by = |subject: &X509Certificate<'_>, issuer: &X509Certificate<'_>| {
        subject.issuer() == issuer.subject() && subject.verify_signature(Some(issuer.public_key())).is_ok()
    };
    let (chain, trust) = (parsed(&chain, &chain_path)?, parsed(&trust, &trust_path)?);
    let authorities = trust.iter();
    let between = chain[1..].iter().filter(|between| trust.iter().any(|issuer| signed_by(between, issuer)));
    if authorities.chain(between).any(|issuer| signed_by(&chain[0], issuer)) {
        return Ok(());
    }
    let what = format!("is signed by no authority of {}", trust_path.display());
    Err(SecurityError::File { path: chain_path, what })
}

fn blocks(path: &Path) -> Result<Vec<Pem>, SecurityError> {
    let bytes = std::fs::read(path).map_err(|e| SecurityError::File { path: path.to_owned(), what: e.to_string() })?;
    blocks_of(&bytes, path)
}

/// At least one.
fn blocks_of(bytes: &[u8], path: &Path) -> Result<Vec<Pem>, SecurityError> {
    let wrong = |what: String| SecurityError::File { path: path.to_owned(), what };
    let blocks: Result<Vec<_>, _> = Pem::iter_from_buffer(bytes).collect();
    let blocks = blocks.map_err(|e| wrong(format!("is no PEM file ({e})")))?;
    if blocks.is_empty() { Err(wrong("holds no certificate".to_owned())) } else { Ok(blocks) }
}

fn parsed<'a>(blocks: &'a [Pem], path: &Path) -> Result<Vec<X509Certificate<'a>>, SecurityError> {
    let parse = |block: &'a Pem| {
        block
            .parse_x509()
            .map_err(|e| SecurityError::File { path: path.to_owned(), what: format!("holds no certificate ({e})") })
    };
    blocks.iter().map(parse).collect()
}

/// # Errors
/// [`SecurityError::ReadableByOthers`], [`SecurityError::File`]
pub fn key_is_private(path: &Path, role: Role) -> Result<(), SecurityError> {
    let metadata =
        std::fs::metadata(path).map_err(|e| SecurityError::File { path: path.to_owned(), what: e.to_string() })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecurityError::ReadableByOthers { role, path: path.to_owned(), mode });
    }
    Ok(())
}

/// # Errors
/// [`SecurityError::Folder`] for a path that zenoh would read as more than one.
pub(super) fn check_folder(folder: &Path) -> Result<(), SecurityError> {
    let refused = |c: char| c.is_control() || "\"\\;#?=|".contains(c);
    match folder.to_str() {
        Some(text) if !text.chars().any(refused) => Ok(()),
        _ => Err(SecurityError::Folder { folder: folder.to_owned(), characters: REFUSED_IN_PATHS }),
    }
}
