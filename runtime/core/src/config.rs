//! Typed TOML configuration: unknown keys and wrong values are errors with file, line, key and the nearest known key.
//!
//! This module parses text; reading the file is the caller's. Physical facts have no defaults.

mod parse;
mod robot;
mod task;

pub use parse::{Check, ConfigError, parse};
pub use robot::{BridgeConfig, ControlConfig, DampingConfig, LinkConfig, RobotConfig, SafetyConfig, ToolConfig};
pub use task::{
    AdvantageConfig, ClipConfig, DemosConfig, DeployConfig, EvaluateConfig, FinetuneConfig, PolicyConfig,
    PretrainConfig, TaskConfig, TaskName,
};
