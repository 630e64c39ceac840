//! The folder that `tenon secure` keeps.
//!
//! ```text
//! <folder>/                      0700
//!   authority/                   stays on the computer that makes certificates
//!     ca.pem  key.pem            what signs
//!     before.pem  cross.pem      while two authorities are believed: the one before, and the new one signed by it
//!   bridge/  controller/  observer/
//!     ca.pem                     whom this role believes
//!     cert.pem  key.pem          what it proves itself with
//!   previous/<time>/…            what was replaced
//! ```
//!
//! All files are 0600. A set is written beside the one in use and takes its place folder by folder; what it replaces
//! goes to `previous`, so nothing is ever overwritten.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tenon_link::Role;
use tenon_link::security::{CERTIFICATE_FILE, KEY_FILE, TRUST_FILE, role_folder};

use super::authority::Pair;

pub const AUTHORITY: &str = "authority";
const BEFORE_FILE: &str = "before.pem";
const CROSS_FILE: &str = "cross.pem";
const PREVIOUS: &str = "previous";
/// Where a new set is written; that it is there keeps a second program out.
const NEW: &str = ".new";

/// The authority before the one in use, as long as it is believed too.
#[derive(Clone)]
pub struct Before {
    /// Its certificate.
    pub certificate: String,
    /// The authority in use, signed by it.
    pub cross: String,
}

/// An authority as it is kept.
#[derive(Clone)]
pub struct Kept {
    pub pair: Pair,
    pub before: Option<Before>,
}

impl Kept {
    /// Whom everybody believes.
    fn trust(&self) -> String {
        self.before
            .as_ref()
            .map_or_else(|| self.pair.certificate.clone(), |b| join(&self.pair.certificate, &b.certificate))
    }

    /// A certificate with what leads to it from the authority before.
    fn chain(&self, certificate: &str) -> String {
        self.before.as_ref().map_or_else(|| certificate.to_owned(), |b| join(certificate, &b.cross))
    }

    /// Reads `authority` of a folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let place = folder.join(AUTHORITY);
        let text = |name: &str| {
            let path = place.join(name);
            fs::read_to_string(&path).with_context(|| {
                format!("reading {}: certificates can only be made where the authority is", path.display())
            })
        };
        let before = match place.join(BEFORE_FILE).exists() {
            false => None,
            true => Some(Before { certificate: text(BEFORE_FILE)?, cross: text(CROSS_FILE)? }),
        };
        Ok(Self { pair: Pair { certificate: text(TRUST_FILE)?, key: text(KEY_FILE)? }, before })
    }
}

/// Two PEM texts, one behind the other.
fn join(first: &str, second: &str) -> String {
    format!("{}\n{}", first.trim_end(), second)
}

/// Whether certificates were made here, or copied here.
pub fn is_in_use(folder: &Path) -> bool {
    folder.join(AUTHORITY).exists() || Role::ALL.iter().any(|role| role_folder(folder, *role).exists())
}

/// The certificate and key of a role as they are now, without what leads to an older authority.
pub fn read_role(folder: &Path, role: Role) -> Result<Pair> {
    let place = role_folder(folder, role);
    let text = |name: &str| {
        let path = place.join(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let chain = text(CERTIFICATE_FILE)?;
    const END: &str = "-----END CERTIFICATE-----";
    let Some(end) = chain.find(END) else { bail!("{} holds no certificate", place.join(CERTIFICATE_FILE).display()) };
    Ok(Pair { certificate: format!("{}\n", &chain[..end + END.len()]), key: text(KEY_FILE)? })
}

/// Puts a whole set in place. `stamp` names the folder in `previous`, which is returned where something was replaced.
pub fn put(folder: &Path, authority: &Kept, roles: &[(Role, Pair)], stamp: &str) -> Result<Option<PathBuf>> {
    private_folder(folder)?;
    let new = folder.join(NEW);
    if let Err(error) = DirBuilder::new().mode(0o700).create(&new) {
        match error.kind() {
            ErrorKind::AlreadyExists => bail!(
                "{} exists: another `tenon secure` is at work, or one was interrupted; if none runs, delete that folder and try again",
                new.display()
            ),
            _ => return Err(error).with_context(|| format!("creating {}", new.display())),
        }
    }
    let done = write_set(&new, authority, roles).and_then(|()| {
        let names = std::iter::once(AUTHORITY).chain(roles.iter().map(|(role, _)| role.name()));
        exchange(folder, &new, names, &folder.join(PREVIOUS).join(stamp))
    });
    // What is left in there is of no use to anybody.
    let removed = fs::remove_dir_all(&new).with_context(|| format!("removing {}", new.display()));
    let previous = done?;
    removed?;
    give_to_service(folder, roles)?;
    Ok(previous)
}

fn write_set(new: &Path, authority: &Kept, roles: &[(Role, Pair)]) -> Result<()> {
    let place = new.join(AUTHORITY);
    private_folder(&place)?;
    private_file(&place.join(TRUST_FILE), &authority.pair.certificate)?;
    private_file(&place.join(KEY_FILE), &authority.pair.key)?;
    if let Some(before) = &authority.before {
        private_file(&place.join(BEFORE_FILE), &before.certificate)?;
        private_file(&place.join(CROSS_FILE), &before.cross)?;
    }
    for (role, pair) in roles {
        let place = role_folder(new, *role);
        private_folder(&place)?;
        private_file(&place.join(TRUST_FILE), &authority.trust())?;
        private_file(&place.join(CERTIFICATE_FILE), &authority.chain(&pair.certificate))?;
        private_file(&place.join(KEY_FILE), &pair.key)?;
    }
    Ok(())
}

/// Moves what is there aside and the new folders in.
fn exchange<'a>(
    folder: &Path,
    new: &Path,
    names: impl Iterator<Item = &'a str>,
    previous: &Path,
) -> Result<Option<PathBuf>> {
    let rename = |from: &Path, to: &Path| {
        fs::rename(from, to).with_context(|| format!("moving {} to {}", from.display(), to.display()))
    };
    let mut replaced = false;
    for name in names {
        let in_use = folder.join(name);
        if in_use.exists() {
            if !replaced {
                private_folder(&folder.join(PREVIOUS))?;
                DirBuilder::new()
                    .mode(0o700)
                    .create(previous)
                    .with_context(|| format!("creating {} for what is replaced", previous.display()))?;
                replaced = true;
            }
            rename(&in_use, &previous.join(name))?;
        }
        rename(&new.join(name), &in_use)?;
    }
    Ok(replaced.then(|| previous.to_owned()))
}

/// A folder that only its owner enters; one that is there already is closed to others.
fn private_folder(path: &Path) -> Result<()> {
    let wrong = || format!("creating {}", path.display());
    match path.is_dir() {
        true => fs::set_permissions(path, fs::Permissions::from_mode(0o700)).with_context(wrong),
        false => DirBuilder::new().mode(0o700).recursive(true).create(path).with_context(wrong),
    }
}

/// Created with its mode, so that nobody can open it in between; synced, so that a key is not lost after it was
/// announced.
fn private_file(path: &Path, text: &str) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("creating {}", path.display()))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("writing {}", path.display()))
}

/// Root makes them below the state folder of the services' user: they are that user's then. The authority stays root's.
fn give_to_service(folder: &Path, roles: &[(Role, Pair)]) -> Result<()> {
    // SAFETY: has no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Ok(());
    }
    let Some(above) = folder.parent().filter(|p| !p.as_os_str().is_empty()) else { return Ok(()) };
    let owner = fs::metadata(above).with_context(|| format!("looking at {}", above.display()))?;
    if owner.uid() == 0 {
        return Ok(());
    }
    let give = |path: &Path| {
        chown(path, Some(owner.uid()), Some(owner.gid()))
            .with_context(|| format!("giving {} to its user", path.display()))
    };
    give(folder)?;
    for (role, _) in roles {
        let place = role_folder(folder, *role);
        give(&place)?;
        for file in [TRUST_FILE, CERTIFICATE_FILE, KEY_FILE] {
            give(&place.join(file))?;
        }
    }
    Ok(())
}
