//! What can go wrong with policies: every variant says what, where and what to do.

use std::path::PathBuf;

use tenon_core::spec::SpecError;
use thiserror::Error;

/// Errors of this crate.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// A network description that no network can have.
    #[error("network description: {detail}")]
    Network { detail: String },
    /// Parameters that do not fit the network.
    #[error("parameter `{name}` {detail}; was it trained with these sizes?")]
    Parameter { name: String, detail: String },
    /// A graph that cannot be built as asked.
    #[error("cannot build the graph: {detail}")]
    Graph { detail: String },
    /// An engine name that does not exist.
    #[error("unknown engine `{name}`: use `tract` or `onnxruntime`")]
    UnknownEngine { name: String },
    /// A requested engine that cannot run. There is no fallback to another one.
    #[error("engine `{engine}` is not available: {detail}")]
    EngineUnavailable { engine: &'static str, detail: String },
    /// The engine does not accept a model.
    #[error("{file}: {engine} cannot load it: {detail}; export the policy again")]
    Load { file: String, engine: &'static str, detail: String },
    /// A tensor that is not the one expected.
    #[error("{file}: tensor `{tensor}`: expected {expected}, found {found}")]
    Tensor { file: String, tensor: String, expected: String, found: String },
    /// The engine failed while running.
    #[error("{file}: {engine} failed: {detail}")]
    Run { file: String, engine: &'static str, detail: String },
    /// A call that does not fit the policy.
    #[error("{detail}")]
    Call { detail: String },
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A manifest that is not one.
    #[error("{}: {detail}", path.display())]
    Manifest { path: PathBuf, detail: String },
    /// The specification inside a bundle.
    #[error("{}: policy specification: {source}", path.display())]
    Spec { path: PathBuf, source: SpecError },
    /// A file whose content is not the one exported.
    #[error("{}: SHA-256 is {found}, the manifest says {expected}: the file was changed or damaged, copy the bundle again", path.display())]
    Hash { path: PathBuf, expected: String, found: String },
    /// A destination that must not be replaced.
    #[error("{} exists already: choose another folder or ask for it to be replaced", path.display())]
    Exists { path: PathBuf },
    /// A bundle that does not do what the trainer's network does.
    #[error("the exported policy disagrees with the trainer: {detail}; nothing was written")]
    Parity { detail: String },
}

impl PolicyError {
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
