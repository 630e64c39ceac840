//! Typed TOML configuration: unknown keys and wrong values are errors with file, line, key and the nearest known key.
//!
//! This module parses text; reading the file is the caller's. Physical facts have no defaults.

mod cameras;
mod gripper;
mod parse;
mod policy;
pub mod rig;
mod robot;
mod task;
mod training;

pub use cameras::{CameraWatchConfig, CamerasConfig};
pub use gripper::GripperConfig;
pub use parse::{Check, ConfigError, parse};
pub use policy::{DiffusionModel, PolicyConfig, PolicyLimits, PolicyModel};
pub use robot::{
    BridgeConfig, BridgeController, CalibrationConfig, ControlConfig, DampingConfig, DriftConfig, LinkConfig,
    LinkTlsConfig, ProofConfig, RobotConfig, SafetyConfig, ToolConfig,
};
pub use task::{DemosConfig, DeployConfig, MissingStage, TaskConfig, Values};
pub use training::{
    AdvantageConfig, AnnealingConfig, BatchUnit, CompatConfig, DiffusionFinetuneConfig, EtaConfig, EvaluateConfig,
    FieldNoise, FinetuneConfig, NoiseOrigin, OnNumericalError, PartNoise, PretrainConfig, RandomisationConfig,
    ScheduleShape, StdScheduleConfig, TimeOut,
};

pub use crate::task::TaskName;
