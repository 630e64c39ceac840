//! The state dicts of a checkpoint, and what they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tenon_pickle::{Dict, TensorValue, Value};

use super::contents::{Contents, Tensors};
use crate::error::TrainError;

/// What training a checkpoint comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One network.
    Pretrained,
    /// The frozen network, the fine-tuned one and a critic.
    Finetuned,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pretrained => "pre-trained",
            Self::Finetuned => "fine-tuned",
        })
    }
}

/// How far the training was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Epochs of pre-training.
    Epoch(u64),
    /// Iterations of fine-tuning.
    Iteration(u64),
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Epoch(n) => write!(f, "epoch {n}"),
            Self::Iteration(n) => write!(f, "iteration {n}"),
        }
    }
}

/// Which weights of a pre-trained checkpoint are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// The moving average `ema`, where the file has one: what the authors fine-tune from.
    Average,
    /// The last weights, `model`.
    Raw,
}

/// Tensors by parameter name.
pub type StateDict = BTreeMap<String, Arc<TensorValue>>;

/// A checkpoint: `{epoch | itr, model, ema}`, or a state dict by itself.
#[derive(Debug, Clone)]
pub struct TorchCheckpoint {
    pub progress: Option<Progress>,
    /// The last weights.
    pub model: Option<StateDict>,
    /// Their moving average.
    pub ema: Option<StateDict>,
    /// The file is a state dict by itself, which counts as the last weights.
    pub bare: bool,
    /// Other keys of the outermost dict, e.g. the state of optimisers: not imported.
    pub unused: Vec<String>,
}

impl TorchCheckpoint {
    /// Finds the state dicts.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] where there are no tensors at all.
    pub fn find(contents: &Contents) -> Result<Self, TrainError> {
        let fail = |detail: &str| TrainError::Checkpoint { path: contents.path().to_owned(), detail: detail.into() };
        let Value::Dict(root) = contents.root() else {
            return Err(fail("the file holds no dict; a checkpoint is a dict of state dicts or of tensors"));
        };
        let section = |key: &str| match root.get(key) {
            Some(value @ Value::Dict(_)) => Ok(Some(state_dict(contents.flatten(value)?.0))),
            _ => Ok::<_, TrainError>(None),
        };
        let (mut model, ema) = (section("model")?, section("ema")?);
        let mut unused = Vec::new();
        let bare = model.is_none() && ema.is_none();
        if bare {
            model = Some(state_dict(contents.flatten(contents.root())?.0));
        } else {
            let known = ["epoch", "itr", "model", "ema"];
            unused.extend(root.entries.iter().filter_map(|(key, _)| key.as_str()).filter(|key| !known.contains(key)));
        }
        if model.iter().chain(&ema).all(StateDict::is_empty) {
            return Err(fail("there are no tensors in it"));
        }
        let count = |key| match count(root, key) {
            Some(n) => Ok(Some(n)),
            None if root.get(key).is_some() => Err(fail(&format!("`{key}` is not a number of steps"))),
            None => Ok(None),
        };
        let progress = match (count("epoch")?, count("itr")?) {
            (_, Some(n)) => Some(Progress::Iteration(n)),
            (Some(n), None) => Some(Progress::Epoch(n)),
            (None, None) => None,
        };
        let unused = unused.into_iter().map(|key| key.chars().filter(|c| !c.is_control()).take(64).collect()).collect();
        Ok(Self { progress, model, ema, bare, unused })
    }

    /// What training the weights come from, by their names.
    pub fn kind(&self) -> Kind {
        let mut names = self.model.iter().chain(&self.ema).flat_map(StateDict::keys);
        if names.any(|name| name.starts_with("actor_ft.")) { Kind::Finetuned } else { Kind::Pretrained }
    }

    /// The wanted state dict, with its key in the file (none for a bare one). Without an average the last weights are
    /// all there is.
    pub fn weights(&self, weights: Weights) -> Option<(&'static str, &StateDict)> {
        let key = if self.bare { "" } else { "model" };
        let (model, ema) = (self.model.as_ref().map(|d| (key, d)), self.ema.as_ref().map(|d| ("ema", d)));
        match weights {
            Weights::Average => ema.or(model),
            Weights::Raw => model,
        }
    }
}

fn state_dict(tensors: Tensors) -> StateDict {
    tensors.into_iter().collect()
}

/// A whole number that is not negative, plain or as a tensor of one value.
fn count(root: &Dict, key: &str) -> Option<u64> {
    match root.get(key)? {
        Value::Int(n) => u64::try_from(*n).ok(),
        Value::Tensor(tensor) if tensor.data().len() == 1 => {
            let value = tensor.to_f32_vec()[0];
            // Above 2^24 an f32 no longer tells whole numbers apart.
            (value >= 0.0 && value.fract() == 0.0 && value < 16_777_216.0).then_some(value as u64)
        }
        _ => None,
    }
}
