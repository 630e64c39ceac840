//! `tenon secure`: certificates for the link between the computers of a robot.
//!
//! [`authority`] makes them, [`folder`] keeps them, [`check`](mod@check) judges them. What they protect stands in
//! [`tenon_link::security`].

mod authority;
mod check;
mod folder;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Serialize;
use tenon_calibrate::rig::state_folder;
use tenon_calibrate::steps::Grade;
use tenon_core::calendar::rfc3339;
use tenon_link::Role;
use tenon_link::security::{CERTIFICATE_FILE, CertificateFacts, TRUST_FILE, role_folder, unix_now};

use authority::{Authority, Pair};
pub use check::{Checked, Line, Listed, check};
use folder::{AUTHORITY, Before, Kept};

/// Always in the bridge's certificate, so that the link can be tried on one computer.
const LOOPBACK: [&str; 2] = ["localhost", "127.0.0.1"];
const DAY_S: f64 = 86_400.0;

#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Folder of the certificates; without it $TENON_STATE/secure.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Address or name by which others reach the bridge's computer, once for each. With --rotate: instead of those so
    /// far.
    #[arg(long = "bridge", value_name = "ADDRESS")]
    pub names: Vec<String>,
    /// How long certificates are valid.
    #[arg(long, value_name = "DAYS", default_value_t = 365.0)]
    pub days: f64,
    /// New certificates and keys from the same authority; those so far stay valid until they end.
    #[arg(long, group = "what")]
    pub rotate: bool,
    /// A new authority as well, believed beside the one so far, so that computers can follow one by one.
    #[arg(long, group = "what")]
    pub rotate_ca: bool,
    /// With --rotate-ca: the authority so far is believed no longer, for when a key was lost or stolen.
    #[arg(long, requires = "rotate_ca")]
    pub no_overlap: bool,
    /// Stop believing the authority before, once every computer has its new folder.
    #[arg(long, group = "what")]
    pub end_overlap: bool,
    /// Only say what is there, for whom and until when.
    #[arg(long, group = "what", conflicts_with = "names")]
    pub check: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// Making certificates in `folder`, for a bridge with these names, valid for so many days.
    pub fn new(folder: &Path, names: &[&str], days: f64) -> Self {
        Self {
            out: Some(folder.to_owned()),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            days,
            rotate: false,
            rotate_ca: false,
            no_overlap: false,
            end_overlap: false,
            check: false,
            json: false,
        }
    }
}

/// What was done, and what is there now.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub folder: PathBuf,
    pub did: &'static str,
    /// Where the files are that were replaced.
    pub previous: Option<PathBuf>,
    pub grade: Grade,
    #[serde(flatten)]
    pub checked: Checked,
    /// What robot.toml needs, on every computer of the robot.
    pub robot_toml: Option<String>,
}

/// Runs `tenon secure`.
pub fn run(options: &Options) -> Result<ExitCode> {
    let report = secure(options, unix_now())?;
    if options.json {
        println!("{}", serde_json::to_string(&report).context("the report is plain data")?);
    } else {
        print!("{}", text(&report));
    }
    Ok(if report.grade == Grade::Fail { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Does what the options say. `now_s`: seconds since 1970.
pub fn secure(options: &Options, now_s: f64) -> Result<Report> {
    let folder = match &options.out {
        Some(folder) => folder.clone(),
        None => state_folder()?.join("secure"),
    };
    let folder = std::path::absolute(&folder).with_context(|| format!("the folder {}", folder.display()))?;
    ensure!(options.days >= 1.0 && options.days <= 3650.0, "--days {}: must be between 1 and 3650", options.days);
    let (did, previous) = match options {
        Options { check: true, .. } => ("checked", None),
        Options { rotate: true, .. } => ("rotated", rotate(&folder, options, now_s)?),
        Options { rotate_ca: true, .. } => ("rotated_authority", rotate_authority(&folder, options, now_s)?),
        Options { end_overlap: true, .. } => ("ended_overlap", end_overlap(&folder, now_s)?),
        _ => ("made", make(&folder, options, now_s)?),
    };
    let checked = check(&folder, now_s);
    let robot_toml = checked.certificates.iter().find(|c| c.role == Role::Bridge.name()).and_then(|bridge| {
        let name = bridge.names.iter().find(|name| !LOOPBACK.contains(&name.as_str())).or(bridge.names.first())?;
        Some(format!(
            "[link]\nendpoint = \"tls/{name}:7447\"\n\n[link.tls]\nfolder = \"{}\"\n",
            folder.display().to_string().escape_default()
        ))
    });
    let grade = checked.grade();
    Ok(Report { schema: "tenon.secure/1", folder, did, previous, grade, checked, robot_toml })
}

fn make(folder: &Path, options: &Options, now_s: f64) -> Result<Option<PathBuf>> {
    if folder::is_in_use(folder) {
        bail!(
            "{} holds certificates already, nothing was changed: `tenon secure --rotate` makes new ones and keeps these apart, --check \
             says what is there, --out DIR takes another folder",
            folder.display()
        );
    }
    ensure!(
        !options.names.is_empty(),
        "say how others reach the bridge's computer, e.g. `tenon secure --bridge 192.168.1.10`; 127.0.0.1 for one computer alone"
    );
    let names = bridge_names(&options.names)?;
    let new = Authority::make(now_s, None)?;
    let authority = Kept { pair: new.pair, before: None };
    certify(folder, &authority, &names, options.days, now_s)
}

fn rotate(folder: &Path, options: &Options, now_s: f64) -> Result<Option<PathBuf>> {
    let authority = Kept::read(folder)?;
    let names = names_in_use(folder, options)?;
    certify(folder, &authority, &names, options.days, now_s)
}

fn rotate_authority(folder: &Path, options: &Options, now_s: f64) -> Result<Option<PathBuf>> {
    let kept = Kept::read(folder)?;
    ensure!(
        kept.before.is_none() || options.no_overlap,
        "{} believes two authorities already: finish with `tenon secure --end-overlap`, or drop both with --no-overlap",
        folder.display()
    );
    let names = names_in_use(folder, options)?;
    let authority = if options.no_overlap {
        Kept { pair: Authority::make(now_s, None)?.pair, before: None }
    } else {
        let signing = signing(folder, &kept)?;
        ensure!(
            signing.until_s() > now_s + DAY_S,
            "the authority in {} ends on {}, too soon to vouch for another: --no-overlap, and copy all folders at once",
            folder.display(),
            rfc3339(signing.until_s())
        );
        let new = Authority::make(now_s, Some(&signing))?;
        let before = new.cross.map(|cross| Before { certificate: kept.pair.certificate, cross });
        Kept { pair: new.pair, before }
    };
    certify(folder, &authority, &names, options.days, now_s)
}

fn end_overlap(folder: &Path, now_s: f64) -> Result<Option<PathBuf>> {
    let kept = Kept::read(folder)?;
    ensure!(kept.before.is_some(), "{} believes one authority only: there is no overlap to end", folder.display());
    let authority = Kept { before: None, ..kept };
    let roles: Vec<(Role, Pair)> =
        Role::ALL.into_iter().map(|role| Ok((role, folder::read_role(folder, role)?))).collect::<Result<_>>()?;
    folder::put(folder, &authority, &roles, &stamp(now_s))
}

/// New keys and certificates for every role.
fn certify(folder: &Path, authority: &Kept, names: &[String], days: f64, now_s: f64) -> Result<Option<PathBuf>> {
    let signing = signing(folder, authority)?;
    let of = |role: Role| {
        let names = if role == Role::Bridge { names } else { &[] };
        Ok((role, signing.certify(role, names, now_s, days * DAY_S)?))
    };
    let roles: Vec<(Role, Pair)> = Role::ALL.into_iter().map(of).collect::<Result<_>>()?;
    folder::put(folder, authority, &roles, &stamp(now_s))
}

fn signing(folder: &Path, kept: &Kept) -> Result<Authority> {
    let path = folder.join(AUTHORITY).join(TRUST_FILE);
    let facts = CertificateFacts::of_pem(&kept.pair.certificate, &path)?;
    Authority::of(&kept.pair, facts.valid_until_s).with_context(|| format!("using {}", path.display()))
}

/// Those of the certificate in use, unless others are named.
fn names_in_use(folder: &Path, options: &Options) -> Result<Vec<String>> {
    if !options.names.is_empty() {
        return bridge_names(&options.names);
    }
    let path = role_folder(folder, Role::Bridge).join(CERTIFICATE_FILE);
    let facts = CertificateFacts::read(&path)
        .with_context(|| "the bridge's names stand in its certificate; name them with --bridge instead".to_owned())?;
    bridge_names(&facts[0].names)
}

fn bridge_names(names: &[String]) -> Result<Vec<String>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
    let mut all: Vec<String> = Vec::new();
    for name in names.iter().map(String::as_str).chain(LOOPBACK) {
        ensure!(
            !name.is_empty() && name.len() <= 253 && name.chars().all(plain),
            "--bridge {name}: must be an address or a name without protocol and port, e.g. 192.168.1.10 or nuc.local"
        );
        let is_address = name.parse::<std::net::IpAddr>().is_ok();
        ensure!(is_address || !name.contains(':'), "--bridge {name}: leave the port away");
        // What a bridge listens at on all interfaces is nobody's address.
        ensure!(
            name != "0.0.0.0" && name != "::",
            "--bridge {name}: name the address by which others reach this computer"
        );
        if !all.iter().any(|known| known == name) {
            all.push(name.to_owned());
        }
    }
    Ok(all)
}

/// A date that sorts and needs no quoting, to the millisecond.
fn stamp(now_s: f64) -> String {
    let plain = rfc3339(now_s).replace([':', '-'], "");
    format!("{}.{:03}Z", plain.trim_end_matches('Z'), (now_s.fract() * 1e3) as u32)
}

fn text(report: &Report) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    let mut line = |text: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{text}");
    };
    line(format!("{}", report.folder.display()));
    for Line { about, finding } in &report.checked.findings {
        let mark = match finding.grade {
            Grade::Pass => "ok  ",
            Grade::Warn => "warn",
            Grade::Fail => "FAIL",
        };
        line(format!("{mark} {about:<11} {}", finding.text));
    }
    if let Some(previous) = &report.previous {
        line(format!("what was replaced is in {}", previous.display()));
    }
    if report.did == "checked" {
        return out;
    }
    line(String::new());
    line("Copy each folder whole, with its modes, and nothing else:".to_owned());
    line("  bridge/      to the computer beside the arm (tenon-bridge)".to_owned());
    line("  controller/  to the computer that commands the arm (tenon run)".to_owned());
    line(
        "  observer/    there too, and to every computer that watches (tenon top, tenon doctor, tenon-calibrate)"
            .to_owned(),
    );
    line("  authority/   nowhere: whoever has its key can make certificates".to_owned());
    if let Some(robot_toml) = &report.robot_toml {
        line("robot.toml of each, with the folder where it was copied to; restart tenon-bridge then:".to_owned());
        robot_toml.lines().for_each(|text| line(format!("  {text}").trim_end().to_owned()));
    }
    out
}
