//! `tenon secure --check`: what is there, for whom, until when, and what is wrong with it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::Serialize;
use tenon_calibrate::steps::{Finding, Grade};
use tenon_core::calendar::rfc3339;
use tenon_link::security::{
    CERTIFICATE_FILE, CertificateFacts, Identity, KEY_FILE, TRUST_FILE, key_is_private, role_folder,
};
use tenon_link::{Role, SecurityError};

use super::authority::public_key;
use super::folder::AUTHORITY;

/// A certificate as it is reported.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listed {
    pub role: &'static str,
    pub common_name: String,
    /// Names and addresses of the computer, for the bridge.
    pub names: Vec<String>,
    pub issuer: String,
    pub serial: String,
    pub valid_from: String,
    pub valid_until: String,
    pub days_left: f64,
    /// How many authorities this role believes; two while one replaces the other.
    pub authorities: usize,
}

/// A finding and the role, or `authority`, that it is about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    pub about: &'static str,
    #[serde(flatten)]
    pub finding: Finding,
}

/// What is in a folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checked {
    pub certificates: Vec<Listed>,
    pub findings: Vec<Line>,
}

impl Checked {
    pub fn grade(&self) -> Grade {
        self.findings.iter().map(|line| line.finding.grade).max().unwrap_or(Grade::Pass)
    }
}

/// Looks at a folder. `now_s`: seconds since 1970.
pub fn check(folder: &Path, now_s: f64) -> Checked {
    let mut checked = Checked { certificates: Vec::new(), findings: Vec::new() };
    let mut found = false;
    if folder.join(AUTHORITY).exists() {
        found = true;
        let finding =
            authority(folder, now_s).unwrap_or_else(|error| Finding { grade: Grade::Fail, text: error.to_string() });
        checked.findings.push(Line { about: AUTHORITY, finding });
    }
    for role in Role::ALL {
        if !role_folder(folder, role).exists() {
            continue;
        }
        found = true;
        match of_role(folder, role, now_s) {
            Ok((listed, findings)) => {
                checked.certificates.push(listed);
                checked.findings.extend(findings.into_iter().map(|finding| Line { about: role.name(), finding }));
            }
            Err(error) => {
                let finding = Finding { grade: Grade::Fail, text: error.to_string() };
                checked.findings.push(Line { about: role.name(), finding });
            }
        }
    }
    if !found {
        let text = format!(
            "{} holds no certificates: make them with `tenon secure --bridge ADDRESS`, or copy a role's folder here",
            folder.display()
        );
        checked.findings.push(Line { about: "folder", finding: Finding { grade: Grade::Fail, text } });
    }
    checked
}

fn authority(folder: &Path, now_s: f64) -> Result<Finding, SecurityError> {
    let place = folder.join(AUTHORITY);
    let path = place.join(TRUST_FILE);
    let facts = CertificateFacts::read(&path)?.remove(0);
    let key = place.join(KEY_FILE);
    let metadata =
        std::fs::metadata(&key).map_err(|e| SecurityError::File { path: key.clone(), what: e.to_string() })?;
    let mode = metadata.permissions().mode() & 0o7777;
    let until = rfc3339(facts.valid_until_s);
    Ok(if mode & 0o077 != 0 {
        let text = format!(
            "{} can be read by others (mode {mode:04o}): whoever has it can make certificates; `chmod 600 {}`, and `tenon secure \
             --rotate-ca --no-overlap` if somebody may have copied it",
            key.display(),
            key.display()
        );
        Finding { grade: Grade::Fail, text }
    } else if !fits(&key, &facts) {
        Finding { grade: Grade::Fail, text: format!("{} does not belong to {}", key.display(), path.display()) }
    } else if facts.days_left(now_s) < 365.0 {
        Finding {
            grade: Grade::Warn,
            text: format!("{} ends on {until}: `tenon secure --rotate-ca`", facts.common_name),
        }
    } else {
        let text = format!("{}, valid until {until}; keep its key off the robot's computers", facts.common_name);
        Finding { grade: Grade::Pass, text }
    })
}

fn of_role(folder: &Path, role: Role, now_s: f64) -> Result<(Listed, Vec<Finding>), SecurityError> {
    let place = role_folder(folder, role);
    // Judged as the programs judge it; but a certificate that is no longer valid is listed all the same.
    let fit = Identity::read(folder, role, now_s);
    let chain = match &fit {
        Err(error @ SecurityError::Missing { .. }) => return Err(error.clone()),
        _ => CertificateFacts::read(&place.join(CERTIFICATE_FILE))?,
    };
    let trust = CertificateFacts::read(&place.join(TRUST_FILE))?;
    let facts = &chain[0];
    let until_s = chain.iter().map(|c| c.valid_until_s).fold(f64::INFINITY, f64::min);
    let listed = Listed {
        role: role.name(),
        common_name: facts.common_name.clone(),
        names: facts.names.clone(),
        issuer: facts.issuer.clone(),
        serial: facts.serial.clone(),
        valid_from: rfc3339(facts.valid_from_s),
        valid_until: rfc3339(until_s),
        days_left: ((until_s - now_s) / 8640.0).round() / 10.0,
        authorities: trust.len(),
    };
    let mut findings = Vec::new();
    let mut add = |grade, text| findings.push(Finding { grade, text });
    match &fit {
        Err(error) => add(Grade::Fail, error.to_string()),
        Ok(identity) => match identity.warning(now_s) {
            Some(warning) => add(Grade::Warn, warning),
            None => add(Grade::Pass, format!("valid until {}{}", rfc3339(until_s), for_whom(role, facts))),
        },
    }
    if !matches!(fit, Err(SecurityError::ReadableByOthers { .. }))
        && let Err(error) = key_is_private(&place.join(KEY_FILE), role)
    {
        add(Grade::Fail, error.to_string());
    }
    if !fits(&place.join(KEY_FILE), facts) {
        let (key, certificate) = (place.join(KEY_FILE), place.join(CERTIFICATE_FILE));
        add(
            Grade::Fail,
            format!("{} does not belong to {}: copy the whole folder again", key.display(), certificate.display()),
        );
    }
    let mode = std::fs::metadata(&place).map_or(0, |m| m.permissions().mode() & 0o7777);
    if mode & 0o077 != 0 {
        add(
            Grade::Warn,
            format!("{} is open to others (mode {mode:04o}): `chmod 700 {}`", place.display(), place.display()),
        );
    }
    if trust.len() > 1 {
        let who = trust.iter().map(|t| t.common_name.as_str()).collect::<Vec<_>>().join(" and ");
        add(
            Grade::Warn,
            format!(
                "believes {who}: once every computer has its new folder, `tenon secure --end-overlap`, and copy again"
            ),
        );
    }
    Ok((listed, findings))
}

fn for_whom(role: Role, facts: &CertificateFacts) -> String {
    match role {
        Role::Bridge => format!(", for {}", facts.names.join(", ")),
        Role::Controller | Role::Observer => String::new(),
    }
}

/// Whether a key belongs to a certificate.
fn fits(key: &Path, facts: &CertificateFacts) -> bool {
    std::fs::read_to_string(key)
        .ok()
        .and_then(|pem| public_key(&pem).ok())
        .is_some_and(|public| public == facts.public_key)
}
