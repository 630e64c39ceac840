//! The policy bundle: a folder with the manifest `policy.json` and the ONNX graphs of the policy's network(s).
//!
//! The manifest holds the `PolicySpec` (normaliser and denoising included), so weights and everything that gives them
//! meaning travel together. [`Bundle::open`] checks all of it before anything runs; [`BundleWriter`] puts a bundle in
//! place whole or not at all.

mod describe;
mod manifest;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tenon_core::diffusion::{Clips, DenoisingStep, StepNoise};
use tenon_core::spec::{Denoising, PolicySpec};

pub use manifest::{FORMAT_VERSION, FileEntry, MANIFEST, Manifest, NetworkFiles, Provenance, Role};
pub use writer::{BundleContent, BundleWriter};

use crate::denoiser::{OnnxDenoiser, SplitNetwork};
use crate::engine::{Engine, Session};
use crate::error::PolicyError;
use crate::graph::{Dims, check_network, image_shape};
use crate::onnx::{self, ElementType, Interface, TensorInfo};

/// A bundle that has been read and checked.
#[derive(Debug, Clone)]
pub struct Bundle {
    folder: PathBuf,
    manifest: Manifest,
    denoising: Denoising,
    networks: Vec<Graphs>,
}

/// The checked files of one network.
#[derive(Debug, Clone)]
struct Graphs {
    files: NetworkFiles,
    encoder: Vec<u8>,
    step: Vec<u8>,
}

/// SHA-256 as lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// t of the steps that each network of a policy makes: base, fine-tuned.
pub(crate) fn step_times(spec: &PolicySpec) -> [(Role, Vec<usize>); 2] {
    let of_count = |d: &Denoising| -> Vec<DenoisingStep> {
        d.counts().into_iter().rev().filter_map(|count| d.steps_in(count)).flatten().collect()
    };
    let steps = spec.denoising.as_ref().map_or(Vec::new(), of_count);
    let of = |finetuned| {
        let mut times: Vec<usize> = steps.iter().filter(|s| s.finetuned == finetuned).map(|s| s.t).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        times.dedup();
        times
    };
    [(Role::Base, of(false)), (Role::Finetuned, of(true))]
}

impl Bundle {
    /// Reads the bundle in `folder` and checks it: layout and spec versions, every file and its hash, the policy's own
    /// consistency, and names, types and shapes of every tensor.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, PolicyError> {
        let folder = folder.as_ref().to_path_buf();
        let path = folder.join(MANIFEST);
        let text = fs::read(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => PolicyError::Manifest {
                path: path.clone(),
                detail: "no such file: a policy bundle is the folder that `tenon-train export` writes".into(),
            },
            _ => PolicyError::Io { path: path.clone(), source },
        })?;
        let manifest = parse(&path, &text)?;
        let wrong = |detail| PolicyError::Manifest { path: path.clone(), detail };
        manifest.spec.check().map_err(|source| PolicyError::Spec { path: path.clone(), source })?;
        let denoising = match manifest.spec.diffusion() {
            Ok(denoising) => denoising.clone(),
            Err(source) => return Err(PolicyError::Spec { path, source }),
        };
        let seen = manifest.spec.check_pictures(manifest.network.vision());
        seen.map_err(|source| PolicyError::Spec { path: path.clone(), source })?;
        let dims = Dims::of(&manifest.spec);
        check_network(&manifest.network, &dims).map_err(|e| wrong(e.to_string()))?;
        let mut networks = Vec::new();
        for (role, steps) in step_times(&manifest.spec) {
            let mut found = manifest.networks.iter().filter(|n| n.role == role);
            match (found.next(), found.next(), steps.is_empty()) {
                (None, _, true) => {}
                (None, _, false) => {
                    return Err(wrong(format!("the {} network is missing: steps {steps:?} use it", role.name())));
                }
                (Some(_), Some(_), _) => return Err(wrong(format!("two {} networks", role.name()))),
                (Some(_), None, true) => {
                    return Err(wrong(format!("no step uses the {} network that is listed", role.name())));
                }
                (Some(files), None, false) if files.steps != steps => {
                    return Err(wrong(format!(
                        "the {} network was exported for steps {:?}, the policy uses {steps:?}",
                        role.name(),
                        files.steps
                    )));
                }
                (Some(files), None, false) => networks.push(read_network(&folder, &path, files, &manifest)?),
            }
        }
        Ok(Self { folder, manifest, denoising, networks })
    }

    /// Where it was read from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The policy's definition.
    pub fn spec(&self) -> &PolicySpec {
        &self.manifest.spec
    }

    /// How its chunks are denoised.
    pub fn denoising(&self) -> &Denoising {
        &self.denoising
    }

    /// The executed steps, noisiest first.
    pub fn steps(&self, noise: StepNoise) -> Vec<DenoisingStep> {
        self.denoising.steps(noise)
    }

    /// The clamps of the sampling loop.
    pub fn clips(&self) -> Clips {
        self.denoising.clips()
    }

    /// Loads the network(s) into an engine.
    pub fn denoiser(&self, engine: Engine) -> Result<OnnxDenoiser, PolicyError> {
        let dims = Dims::of(&self.manifest.spec);
        let load = |role: Role| -> Result<Option<SplitNetwork>, PolicyError> {
            let Some(graphs) = self.networks.iter().find(|n| n.files.role == role) else { return Ok(None) };
            let session = |entry: &FileEntry, bytes: &[u8]| {
                Session::load(engine, &self.folder.join(&entry.file).display().to_string(), bytes, 1)
            };
            let encoder = session(&graphs.files.encoder, &graphs.encoder)?;
            let step = session(&graphs.files.step, &graphs.step)?;
            Ok(Some(SplitNetwork::new(encoder, step, graphs.files.steps.clone())))
        };
        let image_len = image_shape(self.manifest.network.vision(), &dims).map_or(0, |s| s.iter().product());
        Ok(OnnxDenoiser::split(engine, &dims, image_len, load(Role::Base)?, load(Role::Finetuned)?))
    }
}

/// Reads the manifest; versions first, because another version may have other keys.
fn parse(path: &Path, text: &[u8]) -> Result<Manifest, PolicyError> {
    let wrong = |detail| PolicyError::Manifest { path: path.into(), detail };
    let value: serde_json::Value = serde_json::from_slice(text).map_err(|e| wrong(e.to_string()))?;
    match value.get("format_version").and_then(serde_json::Value::as_u64) {
        Some(version) if version == u64::from(FORMAT_VERSION) => {}
        Some(version) => {
            return Err(wrong(format!(
                "format_version {version} is not {FORMAT_VERSION}: export the policy again with this release"
            )));
        }
        None => return Err(wrong("format_version is missing: this is not the manifest of a policy bundle".into())),
    }
    let spec_version = value.get("spec").and_then(|s| s.get("spec_version")).and_then(serde_json::Value::as_u64);
    if let Some(found) = spec_version.and_then(|v| u32::try_from(v).ok())
        && found != tenon_core::spec::SPEC_VERSION
    {
        let source = tenon_core::spec::SpecError::Version { found };
        return Err(PolicyError::Spec { path: path.into(), source });
    }
    // From the text again, so that errors carry line and column.
    serde_json::from_slice(text).map_err(|e| wrong(e.to_string()))
}

fn read_network(
    folder: &Path,
    manifest_path: &Path,
    files: &NetworkFiles,
    manifest: &Manifest,
) -> Result<Graphs, PolicyError> {
    let dims = Dims::of(&manifest.spec);
    let f32_info = |name: &str, shape: &[usize]| TensorInfo::fixed(name, ElementType::F32, shape);
    let encoder = read_file(folder, manifest_path, &files.encoder)?;
    let mut inputs = vec![f32_info("state", &dims.state_shape())];
    inputs.extend(image_shape(manifest.network.vision(), &dims).map(|shape| f32_info("rgb", &shape)));
    let path = folder.join(&files.encoder.file);
    let found = interface(&path, &encoder)?;
    // How wide the features are is between the two graphs.
    let width = found.outputs.first().and_then(|o| *o.shape.last()?).unwrap_or(0);
    check_interface(&path, &found, &inputs, &[f32_info("features", &[files.steps.len(), width])])?;
    let step = read_file(folder, manifest_path, &files.step)?;
    let path = folder.join(&files.step.file);
    let inputs = [f32_info("x", &dims.chunk_shape()), f32_info("features", &[1, width])];
    check_interface(&path, &interface(&path, &step)?, &inputs, &[f32_info("noise", &dims.chunk_shape())])?;
    Ok(Graphs { files: files.clone(), encoder, step })
}

/// Reads a file of the bundle and checks its hash.
fn read_file(folder: &Path, manifest_path: &Path, entry: &FileEntry) -> Result<Vec<u8>, PolicyError> {
    let plain = Path::new(&entry.file).file_name().is_some_and(|name| name == entry.file.as_str());
    if !plain {
        let detail = format!("file `{}`: must be a plain name inside the bundle", entry.file);
        return Err(PolicyError::Manifest { path: manifest_path.into(), detail });
    }
    let path = folder.join(&entry.file);
    let bytes = fs::read(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => PolicyError::Manifest {
            path: manifest_path.into(),
            detail: format!("lists {}, which is not there: copy the bundle again", entry.file),
        },
        _ => PolicyError::Io { path: path.clone(), source },
    })?;
    let found = sha256(&bytes);
    if found != entry.sha256 {
        return Err(PolicyError::Hash { path, expected: entry.sha256.clone(), found });
    }
    Ok(bytes)
}

fn interface(path: &Path, model: &[u8]) -> Result<Interface, PolicyError> {
    onnx::interface(model).map_err(|detail| PolicyError::Manifest { path: path.into(), detail })
}

/// Compares what a graph takes and gives with what the policy needs: names, order, types, shapes.
fn check_interface(
    path: &Path,
    found: &Interface,
    inputs: &[TensorInfo],
    outputs: &[TensorInfo],
) -> Result<(), PolicyError> {
    let file = path.display().to_string();
    for (kind, expected, found) in [("inputs", inputs, &found.inputs), ("outputs", outputs, &found.outputs)] {
        let names = |infos: &[TensorInfo]| infos.iter().map(|i| i.name.clone()).collect::<Vec<_>>().join(", ");
        if names(expected) != names(found) {
            return Err(PolicyError::Tensor {
                file,
                tensor: kind.into(),
                expected: names(expected),
                found: names(found),
            });
        }
        for (expected, found) in expected.iter().zip(found) {
            if expected != found {
                return Err(PolicyError::Tensor {
                    file,
                    tensor: expected.name.clone(),
                    expected: expected.to_string(),
                    found: found.to_string(),
                });
            }
        }
    }
    Ok(())
}
