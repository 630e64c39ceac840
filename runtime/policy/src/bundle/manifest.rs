//! The manifest of a policy bundle, `policy.json`.

use serde::{Deserialize, Serialize};
use tenon_core::network::NetworkSpec;
use tenon_core::spec::PolicySpec;

/// Name of the manifest inside a bundle.
pub const MANIFEST: &str = "policy.json";

/// Version of the bundle's layout. A bundle with another version is refused.
pub const FORMAT_VERSION: u32 = 1;

/// Everything that a bundle says about itself. Unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format_version: u32,
    pub spec: PolicySpec,
    pub network: NetworkSpec,
    /// The networks that the policy's steps use, each once.
    pub networks: Vec<NetworkFiles>,
    pub provenance: Provenance,
}

/// Which of a policy's two networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The frozen, pre-trained network: every step but the last K'.
    Base,
    /// The fine-tuned network: the last K' steps.
    Finetuned,
}

impl Role {
    /// Its name in manifests and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Finetuned => "finetuned",
        }
    }
}

/// The two graphs of one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkFiles {
    pub role: Role,
    /// t of each step that this network makes, in execution order: the rows of the encoder's features.
    pub steps: Vec<usize>,
    pub encoder: FileEntry,
    pub step: FileEntry,
}

/// A file of the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name inside the bundle's folder.
    pub file: String,
    /// SHA-256 of its content, lower-case hexadecimal.
    pub sha256: String,
}

/// Where a policy comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Seed of the training run.
    pub seed: u64,
    /// The training configuration, whole.
    pub config: String,
    /// SHA-256 of `config`.
    pub config_sha256: String,
    /// SHA-256 of the training data.
    pub data_sha256: String,
    /// Commit of the program that trained, or `unknown`.
    pub commit: String,
    /// Version of the program that exported.
    pub tool_version: String,
    /// When it was exported, UTC, RFC 3339.
    pub created: String,
}

impl Provenance {
    /// Fills in the hash of the configuration.
    pub fn new(
        seed: u64,
        config: String,
        data_sha256: String,
        commit: String,
        tool_version: String,
        created: String,
    ) -> Self {
        let config_sha256 = super::sha256(config.as_bytes());
        Self { seed, config, config_sha256, data_sha256, commit, tool_version, created }
    }
}
