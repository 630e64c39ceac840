//! Checkpoints: safetensors with a typed header, written beside the target and renamed.
//!
//! Weights keep the names of the public checkpoints behind a prefix (`network.`, `ema.`, `actor.`, `actor_ft.`,
//! `critic.`). The header is JSON under the key `tenon` of the file's metadata and says what the weights are: without
//! architecture and policy, weights are only numbers.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use tenon_core::network::{CriticSpec, PolicyNetwork};
use tenon_core::noise::NoiseState;
use tenon_core::spec::PolicySpec;

use crate::error::TrainError;
use crate::network::ParameterTable;
use crate::optimizer::AdamW;

/// Version of the checkpoint layout. A file with another version is refused.
pub const CHECKPOINT_VERSION: u32 = 2;
const HEADER_KEY: &str = "tenon";

/// Which stage wrote a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Pretrain,
    Finetune,
}

/// What a run is about: the part of a header that does not change while it trains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunInfo {
    pub network: PolicyNetwork,
    pub policy: PolicySpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critic: Option<CriticSpec>,
    /// The resolved configuration, as text.
    pub config: String,
    /// Seed, commit, hash of the data and whatever else tells where the run came from.
    pub provenance: BTreeMap<String, String>,
}

/// The typed header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub version: u32,
    pub stage: Stage,
    pub run: RunInfo,
    /// Epochs or iterations done, and every other integer that continues a run.
    pub counters: BTreeMap<String, u64>,
    /// Where each random stream stands.
    pub streams: BTreeMap<String, NoiseState>,
}

#[derive(Debug, Clone, PartialEq)]
enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bytes(Vec<u8>),
}

/// Header and named tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    pub header: Header,
    tensors: BTreeMap<String, (Vec<usize>, Values)>,
}

impl Checkpoint {
    /// A checkpoint without tensors.
    pub fn new(stage: Stage, run: RunInfo) -> Self {
        let header =
            Header { version: CHECKPOINT_VERSION, stage, run, counters: BTreeMap::new(), streams: BTreeMap::new() };
        Self { header, tensors: BTreeMap::new() }
    }

    /// Adds the parameters of a flat slice under `prefix` (with its dot).
    pub fn put_parameters(&mut self, prefix: &str, table: &ParameterTable, flat: &[f32]) {
        for (name, shape, range) in table.iter() {
            let tensor = (shape.to_vec(), Values::F32(flat[range].to_vec()));
            self.tensors.insert(format!("{prefix}{name}"), tensor);
        }
    }

    /// The flat slice that [`Checkpoint::put_parameters`] stored, names and shapes checked.
    pub fn parameters(&self, prefix: &str, table: &ParameterTable) -> Result<Vec<f32>, TrainError> {
        table.collect(|name| self.tensor(&format!("{prefix}{name}")))
    }

    /// Shape and values of one tensor of single precision.
    pub fn tensor(&self, name: &str) -> Option<(&[usize], &[f32])> {
        match self.tensors.get(name) {
            Some((shape, Values::F32(values))) => Some((shape, values)),
            _ => None,
        }
    }

    /// Whether any tensor is stored under `prefix`.
    pub fn has(&self, prefix: &str) -> bool {
        self.tensors.keys().any(|k| k.starts_with(prefix))
    }

    /// Adds an optimiser's state under `name`.
    pub fn put_optimizer(&mut self, name: &str, table: &ParameterTable, optimizer: &AdamW) {
        self.put_parameters(&format!("adam_m.{name}."), table, &optimizer.first_moment);
        self.put_parameters(&format!("adam_v.{name}."), table, &optimizer.second_moment);
        self.header.counters.insert(format!("adam_steps.{name}"), optimizer.steps);
    }

    /// Restores an optimiser's state.
    pub fn restore_optimizer(
        &self,
        name: &str,
        table: &ParameterTable,
        optimizer: &mut AdamW,
    ) -> Result<(), TrainError> {
        optimizer.first_moment = self.parameters(&format!("adam_m.{name}."), table)?;
        optimizer.second_moment = self.parameters(&format!("adam_v.{name}."), table)?;
        optimizer.steps = self.counter(&format!("adam_steps.{name}"))?;
        Ok(())
    }

    /// Adds a vector of doubles.
    pub fn put_f64(&mut self, name: &str, values: &[f64]) {
        self.tensors.insert(name.into(), (vec![values.len()], Values::F64(values.to_vec())));
    }

    /// A vector of doubles.
    pub fn f64(&self, name: &str) -> Result<&[f64], TrainError> {
        match self.tensors.get(name) {
            Some((_, Values::F64(values))) => Ok(values),
            _ => Err(TrainError::Parameter { name: name.into(), detail: "missing in the checkpoint".into() }),
        }
    }

    /// Adds bytes that only their writer understands.
    pub fn put_bytes(&mut self, name: &str, bytes: Vec<u8>) {
        self.tensors.insert(name.into(), (vec![bytes.len()], Values::Bytes(bytes)));
    }

    /// What [`Checkpoint::put_bytes`] added.
    pub fn bytes(&self, name: &str) -> Result<&[u8], TrainError> {
        match self.tensors.get(name) {
            Some((_, Values::Bytes(bytes))) => Ok(bytes),
            _ => Err(TrainError::Parameter { name: name.into(), detail: "missing in the checkpoint".into() }),
        }
    }

    /// A counter of the header.
    pub fn counter(&self, name: &str) -> Result<u64, TrainError> {
        self.header.counters.get(name).copied().ok_or_else(|| TrainError::Parameter {
            name: name.into(),
            detail: "the checkpoint's header has no such counter".into(),
        })
    }

    /// A stream of the header.
    pub fn stream(&self, name: &str) -> Result<NoiseState, TrainError> {
        self.header.streams.get(name).copied().ok_or_else(|| TrainError::Parameter {
            name: name.into(),
            detail: "the checkpoint's header has no such random stream".into(),
        })
    }

    /// Writes the file beside `path`, flushes it to the disk and renames it: `path` is never half written.
    pub fn write(&self, path: &Path) -> Result<(), TrainError> {
        let fail = |e: &dyn std::fmt::Display| TrainError::Checkpoint {
            path: path.to_owned(),
            detail: format!("cannot be written: {e}"),
        };
        let header = serde_json::to_string(&self.header).map_err(|e| fail(&e))?;
        let bytes: Vec<(&String, Dtype, &[usize], Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| match values {
                Values::F32(v) => (name, Dtype::F32, &shape[..], v.iter().flat_map(|v| v.to_le_bytes()).collect()),
                Values::F64(v) => (name, Dtype::F64, &shape[..], v.iter().flat_map(|v| v.to_le_bytes()).collect()),
                Values::Bytes(v) => (name, Dtype::U8, &shape[..], v.clone()),
            })
            .collect();
        let views = bytes
            .iter()
            .map(|(name, dtype, shape, data)| Ok((*name, TensorView::new(*dtype, shape.to_vec(), data)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|e| fail(&e))?;
        let metadata = HashMap::from([(HEADER_KEY.to_string(), header)]);
        let file_bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| fail(&e))?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = crate::run_dir::new_file_in(folder).map_err(|e| fail(&e))?;
        file.write_all(&file_bytes).map_err(|e| fail(&e))?;
        file.as_file().sync_all().map_err(|e| fail(&e))?;
        file.persist(path).map_err(|e| fail(&e.error))?;
        Ok(())
    }

    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let fail = |detail: String| TrainError::Checkpoint { path: path.to_owned(), detail };
        let bytes = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
        let damaged = |e: &dyn std::fmt::Display| fail(format!("not a whole safetensors file: {e}"));
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(&e))?;
        let header = metadata
            .metadata()
            .as_ref()
            .and_then(|m| m.get(HEADER_KEY))
            .ok_or_else(|| fail("has no `tenon` header; it was not written by tenon-train".into()))?;
        // The version first: another version's header need not parse as ours.
        let version = serde_json::from_str::<serde_json::Value>(header)
            .ok()
            .and_then(|v| v.get("version").and_then(serde_json::Value::as_u64));
        if version != Some(u64::from(CHECKPOINT_VERSION)) {
            let found = version.map_or_else(|| "none".into(), |v| v.to_string());
            return Err(fail(format!(
                "layout version {found} is not {CHECKPOINT_VERSION}; use the release that wrote it"
            )));
        }
        let header: Header = serde_json::from_str(header).map_err(|e| fail(format!("header: {e}")))?;
        let policy = &header.run.policy;
        let sound = policy.check().and_then(|()| policy.check_pictures(header.run.network.vision()));
        sound.map_err(|e| fail(format!("policy: {e}")))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in SafeTensors::deserialize(&bytes).map_err(|e| damaged(&e))?.tensors() {
            let values = match view.dtype() {
                Dtype::F32 => Values::F32(view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
                Dtype::F64 => Values::F64(view.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()),
                Dtype::U8 => Values::Bytes(view.data().to_vec()),
                other => return Err(fail(format!("tensor `{name}` has type {other:?}"))),
            };
            tensors.insert(name, (view.shape().to_vec(), values));
        }
        Ok(Self { header, tensors })
    }
}
