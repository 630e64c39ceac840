//! Whether this controller can run a policy at all: asked by a run before it begins, and by the doctor.

use anyhow::{Context, Result, bail};
use tenon_core::config::RobotConfig;
use tenon_policy::Bundle;

use super::program::Program;
use super::settings;
use crate::machine::{Controller, Settings};

/// A policy on this controller.
pub struct Fit {
    pub settings: Settings,
    pub controller: Controller,
    /// How its task is run.
    pub program: Program,
}

/// What this controller makes of a policy. `lead_s`: by how much what is commanded leads, s
/// ([`super::lead_s`]).
///
/// # Errors
/// What of the policy this controller cannot give or understand.
pub fn fit(bundle: &Bundle, config: &RobotConfig, lead_s: f64) -> Result<Fit> {
    let (spec, folder) = (bundle.spec(), bundle.folder().display());
    if bundle.manifest().network.vision().is_some() {
        bail!("the policy {folder} sees pictures: on a robot policies observe parts and the robot's state only");
    }
    let settings = Settings { lead_s, ..settings(config) };
    let controller = Controller::new(settings, spec)
        .with_context(|| format!("the policy {folder} cannot run on this controller"))?;
    let program = Program::of(spec).with_context(|| {
        format!("task {} has no start that `tenon run` knows: it runs the Avoid and furniture tasks", spec.task)
    })?;
    Ok(Fit { settings, controller, program })
}
