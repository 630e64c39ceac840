//! Writing a bundle: into a temporary folder beside the destination, renamed when it is whole.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tenon_core::network::NetworkSpec;
use tenon_core::spec::PolicySpec;

use super::{
    Bundle, FORMAT_VERSION, FileEntry, MANIFEST, Manifest, NetworkFiles, Provenance, Role, sha256, step_times,
};
use crate::error::PolicyError;
use crate::graph::{Dims, NetworkGraph, Parameters};

/// What a bundle is made of.
#[derive(Debug, Clone, Copy)]
pub struct BundleContent<'a> {
    pub spec: &'a PolicySpec,
    pub network: &'a NetworkSpec,
    /// The pre-trained network; needed where K' is less than the executed steps.
    pub base: Option<&'a Parameters>,
    /// The fine-tuned network; needed where K' > 0.
    pub finetuned: Option<&'a Parameters>,
    pub provenance: &'a Provenance,
}

/// A bundle that is written but not yet in place. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct BundleWriter {
    temporary: TempDir,
    destination: PathBuf,
    replace: bool,
}

impl BundleWriter {
    /// Writes the bundle beside `destination`. An existing bundle there is an error unless it is to be replaced.
    ///
    /// Between this and [`BundleWriter::commit`] the bundle can be opened and tried ([`BundleWriter::open`]).
    pub fn create(destination: impl AsRef<Path>, replace: bool, content: &BundleContent) -> Result<Self, PolicyError> {
        let destination = destination.as_ref().to_path_buf();
        check_destination(&destination, replace)?;
        let sound = content.spec.check().and_then(|()| content.spec.check_pictures(content.network.vision()));
        sound.map_err(|source| PolicyError::Spec { path: destination.join(MANIFEST), source })?;
        let parent = match destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        fs::create_dir_all(&parent).map_err(PolicyError::io(&parent))?;
        let temporary =
            tempfile::Builder::new().prefix(".policy-").tempdir_in(&parent).map_err(PolicyError::io(&parent))?;
        let writer = Self { temporary, destination, replace };
        writer.write(content)?;
        Ok(writer)
    }

    fn write(&self, content: &BundleContent) -> Result<(), PolicyError> {
        let dims = Dims::of(content.spec);
        let mut networks = Vec::new();
        for (role, steps) in step_times(content.spec) {
            if steps.is_empty() {
                continue;
            }
            let parameters = match role {
                Role::Base => content.base,
                Role::Finetuned => content.finetuned,
            };
            let parameters = parameters.ok_or_else(|| PolicyError::Call {
                detail: format!("the {} network makes steps {steps:?} but was not given", role.name()),
            })?;
            let graphs = NetworkGraph::new(content.network, dims, parameters)?.split(&steps)?;
            networks.push(NetworkFiles {
                role,
                encoder: self.write_file(&format!("{}_encoder.onnx", role.name()), &graphs.encoder)?,
                step: self.write_file(&format!("{}_step.onnx", role.name()), &graphs.step)?,
                steps,
            });
        }
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            spec: content.spec.clone(),
            network: content.network.clone(),
            networks,
            provenance: content.provenance.clone(),
        };
        let text = serde_json::to_string_pretty(&manifest)
            .map_err(|e| PolicyError::Manifest { path: self.destination.join(MANIFEST), detail: e.to_string() })?;
        self.write_file(MANIFEST, format!("{text}\n").as_bytes())?;
        // The temporary folder is private; the bundle is as readable as its files.
        fs::set_permissions(self.folder(), fs::Permissions::from_mode(0o755)).map_err(PolicyError::io(self.folder()))
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<FileEntry, PolicyError> {
        let path = self.folder().join(name);
        let mut file = File::create(&path).map_err(PolicyError::io(&path))?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(PolicyError::io(&path))?;
        Ok(FileEntry { file: name.into(), sha256: sha256(bytes) })
    }

    fn folder(&self) -> &Path {
        self.temporary.path()
    }

    /// Opens the written bundle, with every check of [`Bundle::open`].
    pub fn open(&self) -> Result<Bundle, PolicyError> {
        Bundle::open(self.folder())
    }

    /// Puts the bundle in place.
    pub fn commit(self) -> Result<PathBuf, PolicyError> {
        let destination = self.destination;
        check_destination(&destination, self.replace)?;
        let written = self.temporary.path().to_path_buf();
        let old = written.with_extension("old");
        let replaced = destination.exists();
        if replaced {
            fs::rename(&destination, &old).map_err(PolicyError::io(&destination))?;
        }
        if let Err(source) = fs::rename(&written, &destination) {
            if replaced {
                // The old bundle goes back; if that fails too, it is whole under its other name, which the error tells.
                fs::rename(&old, &destination).map_err(PolicyError::io(&old))?;
            }
            return Err(PolicyError::Io { path: destination, source });
        }
        // Nothing is left under the temporary name, so there is nothing to clean up.
        let _ = self.temporary.keep();
        if replaced {
            fs::remove_dir_all(&old).map_err(PolicyError::io(&old))?;
        }
        Ok(destination)
    }

    /// Drops the written bundle; the destination stays as it was.
    pub fn discard(self) -> Result<(), PolicyError> {
        let path = self.folder().to_path_buf();
        self.temporary.close().map_err(PolicyError::io(&path))
    }
}

/// Only a bundle (or an empty folder) may be replaced, and only where that was asked for.
fn check_destination(destination: &Path, replace: bool) -> Result<(), PolicyError> {
    let Ok(mut entries) = fs::read_dir(destination) else {
        return match destination.exists() {
            true => Err(PolicyError::Exists { path: destination.into() }),
            false => Ok(()),
        };
    };
    let empty = entries.next().is_none();
    if empty || (replace && destination.join(MANIFEST).is_file()) {
        return Ok(());
    }
    Err(PolicyError::Exists { path: destination.into() })
}
