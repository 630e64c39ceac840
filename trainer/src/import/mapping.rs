//! State dicts onto the parameters of our networks.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tenon_core::config::TaskConfig;
use tenon_core::network::{CriticSpec, GaussianSpec, PolicyNetwork, StdSpec};
use tenon_core::normalizer::Normalizer;
use tenon_core::spec::PolicySpec;

use super::checkpoint::{Kind, Progress, StateDict, TorchCheckpoint, Weights};
use super::contents::Contents;
use crate::checkpoint::{Checkpoint, RunInfo, Stage};
use crate::dppo::{EtaModule, LARGEST_LOGIT};
use crate::error::TrainError;
use crate::network::{Critic, ParameterTable};
use crate::seeds::Stream;
use crate::settings::dppo_config;

/// Most names of a list in a message.
const LISTED: usize = 40;
/// Prefix of the η module. At its fixed value it is part of the settings and not of the weights (spec §1.6).
const ETA: &str = "eta.";

/// Name of a learned constant η.
const ETA_LOGIT: &str = "eta.eta_logit";

/// The bounds of a Gaussian's deviation lie among its weights as log-variances, but are never trained (spec dppo.md §4).
const STD_BOUNDS: [&str; 2] = ["logvar_min", "logvar_max"];
/// Log-variances that differ by less are the same number, formed in f32 here and in f64 there.
const SAME_LOG_VARIANCE: f32 = 2e-6;

/// What an import took over.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Imported {
    pub kind: Kind,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Key of the state dict that was taken: `ema`, `model`, or none where the file is one by itself.
    pub weights: &'static str,
    pub parts: Vec<Part>,
    /// Bounds of a Gaussian's deviation, where those of the file are not those of the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std_bounds: Option<StdBounds>,
    /// What the file holds and a checkpoint of ours does not need.
    pub unused: Vec<String>,
}

/// A network that was taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Its prefix in our checkpoint, without the dot.
    pub name: &'static str,
    pub tensors: usize,
    pub parameters: usize,
}

/// Smallest and largest deviation of a Gaussian.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StdBounds {
    /// What the imported policy has, so that it says what the authors' says.
    pub file: [f64; 2],
    pub configuration: [f64; 2],
}

/// Makes a checkpoint of ours.
///
/// A pre-trained file gives `network.` (the last weights) and `ema.` (what fine-tuning starts from: the average, or with
/// [`Weights::Raw`] the last weights again); a fine-tuned one `actor.`, `actor_ft.` and `critic.`. Optimisers are not in
/// these files as ours are, so a run cannot be continued from an import, only started.
///
/// `config_text`: the configuration as it is kept in the header. `provenance`: where the file comes from.
///
/// # Errors
/// [`TrainError::Checkpoint`] listing every name that is missing, superfluous or of another shape, or naming a value
/// that is not finite; [`TrainError::Config`] for a configuration that describes no network.
pub fn import(
    contents: &Contents,
    config: &TaskConfig,
    config_text: String,
    normalizer: Normalizer,
    weights: Weights,
    provenance: BTreeMap<String, String>,
) -> Result<(Checkpoint, Imported), TrainError> {
    let fail = |detail: String| TrainError::Checkpoint { path: contents.path().to_owned(), detail };
    let found = TorchCheckpoint::find(contents)?;
    let kind = found.kind();
    let Some((key, chosen)) = found.weights(weights) else {
        return Err(fail("has no `model`; leave out --raw to take its moving average".into()));
    };
    let (stage, finetuned_steps) = match kind {
        Kind::Pretrained => (Stage::Pretrain, 0),
        Kind::Finetuned => (Stage::Finetune, config.policy.finetuned_steps()),
    };
    let policy = config.policy_spec(normalizer, finetuned_steps);
    policy.check().map_err(|e| TrainError::Config { key: "policy", detail: e.to_string() })?;
    let mut network_spec = config.policy.model.network();
    let network = table(&network_spec, &policy)?;

    let mut fit = Fit::default();
    let mut parts: Vec<(&'static str, &ParameterTable, Vec<f32>)> = Vec::new();
    let critic_spec: Option<CriticSpec> = config.finetune.as_ref().map(|c| c.critic.clone());
    let critic = critic_spec.as_ref().map(|spec| Critic::new(spec, policy.state_len())).transpose()?;
    let eta = learned_eta(config, &policy)?;
    match kind {
        Kind::Pretrained => {
            let average = fit.collect(&network, key, chosen, only_prefix(chosen));
            fit.refuse_others(key, chosen, &[only_prefix(chosen)]);
            let last = match &found.model {
                Some(model) if key == "ema" => {
                    fit.refuse_others("model", model, &[only_prefix(model)]);
                    fit.collect(&network, "model", model, only_prefix(model))
                }
                _ => average.clone(),
            };
            parts.extend([("network", &network, last), ("ema", &network, average)]);
        }
        Kind::Finetuned => {
            // `network` is a second name, of a diffusion policy's frozen network and of a Gaussian's trained one. A
            // mixture has no frozen network.
            let frozen = ["actor.", "network."].into_iter().find(|prefix| has(chosen, prefix)).unwrap_or("actor_ft.");
            parts.push(("actor", &network, fit.collect(&network, key, chosen, frozen)));
            parts.push(("actor_ft", &network, fit.collect(&network, key, chosen, "actor_ft.")));
            if has(chosen, "critic.") {
                let Some(critic) = &critic else {
                    return Err(TrainError::Config {
                        key: "finetune.critic",
                        detail: "the file has a critic: give a configuration with [finetune]".into(),
                    });
                };
                parts.push(("critic", critic.table(), fit.collect(critic.table(), key, chosen, "critic.")));
            }
            if let Some(eta) = &eta {
                parts.push(("eta", eta.table(), fit.collect(eta.table(), key, chosen, ETA)));
            }
            fit.refuse_others(key, chosen, &["network.", "actor.", "actor_ft.", "critic.", ETA]);
        }
    }
    fit.finish().map_err(fail)?;
    let prefix = if kind == Kind::Finetuned { "actor_ft." } else { only_prefix(chosen) };
    let std_bounds = take_std_bounds(&mut network_spec, key, chosen, prefix).map_err(fail)?;

    let has_critic = parts.iter().any(|(name, ..)| *name == "critic");
    let run = RunInfo {
        network: network_spec,
        policy,
        critic: critic_spec.filter(|_| has_critic),
        config: config_text,
        provenance,
    };
    let mut checkpoint = Checkpoint::new(stage, run);
    for (name, table, values) in &parts {
        checkpoint.put_parameters(&format!("{name}."), table, values);
    }
    if let Some(Progress::Epoch(n) | Progress::Iteration(n)) = found.progress {
        let name = if kind == Kind::Pretrained { "epoch" } else { "iteration" };
        checkpoint.header.counters.insert(name.into(), n);
    }
    let mut unused = found.unused.clone();
    unused.extend((eta.is_none() && has(chosen, ETA)).then(|| format!("{}*", path(key, ETA))));
    let part = |(name, table, _): &(&'static str, &ParameterTable, Vec<f32>)| Part {
        name,
        tensors: table.iter().count(),
        parameters: table.len(),
    };
    let parts = parts.iter().map(part).collect();
    let imported = Imported { kind, progress: found.progress, weights: key, parts, std_bounds, unused };
    Ok((checkpoint, imported))
}

/// The parameters that a policy's network must have.
fn table(network: &PolicyNetwork, policy: &PolicySpec) -> Result<ParameterTable, TrainError> {
    let (state_len, horizon, action_dim) = (policy.state_len(), policy.prediction_horizon, policy.action_dim());
    network.check(state_len, horizon, action_dim).map_err(TrainError::Network)?;
    Ok(ParameterTable::new(network.parameters(state_len, horizon, action_dim)))
}

/// The η module of a policy that learns it (spec dppo.md §1.6).
fn learned_eta(config: &TaskConfig, policy: &PolicySpec) -> Result<Option<EtaModule>, TrainError> {
    if config.finetune.as_ref().is_none_or(|c| c.diffusion.is_none()) {
        return Ok(None);
    }
    let settings = dppo_config(config)?.eta;
    settings.check()?;
    // Every weight comes from the file.
    let module =
        || EtaModule::new(&settings.module, policy.state_len(), policy.action_dim(), &mut Stream::EtaWeights.of(0));
    Ok(settings.constant().is_none().then(module))
}

/// Gives a Gaussian the bounds that the file has for its deviation, for they are part of what its policy says. The
/// authors' fine-tuning loads those of pre-training with the weights, so they need not be the configuration's (spec
/// dppo.md §4).
fn take_std_bounds(
    network: &mut PolicyNetwork,
    key: &str,
    dict: &StateDict,
    prefix: &str,
) -> Result<Option<StdBounds>, String> {
    let PolicyNetwork::Gaussian(GaussianSpec { std, .. }) = network else { return Ok(None) };
    let (start, bounds) = match std {
        StdSpec::Fixed { .. } => return Ok(None),
        StdSpec::Learned { std, min, max } => (Some(std), [min, max]),
        StdSpec::PerState { min, max } => (None, [min, max]),
    };
    let configuration = [*bounds[0], *bounds[1]];
    let mut file = configuration;
    for (name, bound) in STD_BOUNDS.into_iter().zip(&mut file) {
        let name = format!("{prefix}{name}");
        let Some(tensor) = dict.get(&name) else { continue };
        let &[log_variance] = &tensor.to_f32_vec()[..] else {
            return Err(format!("{} is {:?}, it should be one number", path(key, &name), tensor.shape()));
        };
        let std = (0.5 * f64::from(log_variance)).exp();
        if !(std.is_finite() && std > 0.0) {
            return Err(format!("{} is {log_variance}: no deviation has this log-variance", path(key, &name)));
        }
        if (log_variance - (2.0 * bound.ln()) as f32).abs() > SAME_LOG_VARIANCE {
            *bound = std;
        }
    }
    if file[0] > file[1] {
        let [min, max] = STD_BOUNDS.map(|name| path(key, &format!("{prefix}{name}")));
        return Err(format!("{min} is above {max}: deviations of {} to {}", file[0], file[1]));
    }
    if file == configuration {
        return Ok(None);
    }
    if let Some(start) = start {
        *start = start.clamp(file[0], file[1]);
    }
    bounds.into_iter().zip(file).for_each(|(to, bound)| *to = bound);
    Ok(Some(StdBounds { file, configuration }))
}

fn has(dict: &StateDict, prefix: &str) -> bool {
    dict.keys().any(|name| name.starts_with(prefix))
}

/// Where a tensor lies in the file.
fn path(key: &str, name: &str) -> String {
    if key.is_empty() { name.to_string() } else { format!("{key}.{name}") }
}

/// Pre-trained weights lie under `network.`, or bare where only the network was saved.
fn only_prefix(dict: &StateDict) -> &'static str {
    if has(dict, "network.") { "network." } else { "" }
}

/// Collects what does not fit, over all networks, so that one message tells everything.
#[derive(Debug, Default)]
struct Fit {
    missing: Vec<String>,
    superfluous: Vec<String>,
    misshapen: Vec<String>,
    not_finite: Vec<String>,
}

impl Fit {
    /// The flat parameters under a prefix; empty where something does not fit.
    fn collect(&mut self, table: &ParameterTable, key: &str, dict: &StateDict, prefix: &str) -> Vec<f32> {
        let mut flat = vec![0.0; table.len()];
        for (name, shape, range) in table.iter() {
            let name = format!("{prefix}{name}");
            let full = path(key, &name);
            let Some(tensor) = dict.get(&name) else {
                self.missing.push(format!("{full} {shape:?}"));
                continue;
            };
            if tensor.shape() != shape {
                self.misshapen.push(format!("{full} is {:?}, the configuration wants {shape:?}", tensor.shape()));
                continue;
            }
            let mut values = tensor.to_f32_vec();
            if full.ends_with(ETA_LOGIT) {
                // At a bound of η the authors' logit is infinite.
                values.iter_mut().for_each(|v| *v = v.clamp(-LARGEST_LOGIT, LARGEST_LOGIT));
            }
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                self.not_finite.push(format!("{full}: value {i} is {}", values[i]));
            }
            flat[range].copy_from_slice(&values);
        }
        let known: BTreeSet<&str> = table.iter().map(|(name, ..)| name).collect();
        for (name, tensor) in dict {
            if let Some(rest) = name.strip_prefix(prefix)
                && !known.contains(rest)
                && !STD_BOUNDS.contains(&rest)
            {
                self.superfluous.push(format!("{} {:?}", path(key, name), tensor.shape()));
            }
        }
        flat
    }

    /// Names outside the prefixes are superfluous too.
    fn refuse_others(&mut self, key: &str, dict: &StateDict, prefixes: &[&str]) {
        let others = dict.iter().filter(|(name, _)| !prefixes.iter().any(|prefix| name.starts_with(prefix)));
        self.superfluous.extend(others.map(|(name, tensor)| format!("{} {:?}", path(key, name), tensor.shape())));
    }

    fn finish(self) -> Result<(), String> {
        let mut detail = String::new();
        for (what, names) in [
            ("missing", self.missing),
            ("not in the configuration's network", self.superfluous),
            ("of another shape", self.misshapen),
            ("not finite", self.not_finite),
        ] {
            if names.is_empty() {
                continue;
            }
            detail += &format!("\n  {what}, {}:", names.len());
            detail.extend(names.iter().take(LISTED).map(|name| format!("\n    {name}")));
            if names.len() > LISTED {
                detail += &format!("\n    and {} more", names.len() - LISTED);
            }
        }
        if detail.is_empty() {
            return Ok(());
        }
        Err(format!(
            "does not fit [policy] of the configuration; is it the task and network it was trained for?{detail}"
        ))
    }
}
