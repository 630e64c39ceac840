//! What a bundle says of itself, in lines for people.

use std::fmt::{Display, Write};

use tenon_core::normalizer::{Limits, ZeroRange};
use tenon_core::spec::{ActionField, ObservationField, PolicySpec, Sampler};

use super::Bundle;

/// Columns that lines of limits are kept to.
const COLUMNS: usize = 120;

/// Where the second column of a description begins.
const INDENT: usize = 15;

impl Bundle {
    /// Policy, network, pictures, limits of the normaliser (in physical units, a line for each block of the observation
    /// and of the action) and origin.
    pub fn describe(&self) -> String {
        let (spec, manifest) = (self.spec(), self.manifest());
        let origin = &manifest.provenance;
        let mut text = format!("{}: a policy for {}\n", self.folder().display(), spec.task);
        let mut line = |about: &str, what: String| {
            let _ = writeln!(text, "  {about:<12} {what}");
        };
        line(
            "chunks",
            format!(
                "{} actions, {} of them executed, one every {} ms; from {} observation(s), {} period(s) old",
                spec.prediction_horizon,
                spec.action_horizon,
                (1e5 * spec.period_s).round() / 100.0,
                spec.observation_horizon,
                spec.observation_delay_steps
            ),
        );
        line("denoising", denoising(self));
        line("network", network(self));
        line("pictures", pictures(self));
        let normalizer = &spec.normalizer;
        let zero_range = match normalizer.zero_range {
            ZeroRange::AddEpsilon => "1e-6 is added to every range",
            ZeroRange::Widen => "a value that never changed has ±1 about it",
        };
        let clip = normalizer.observation_clip.map_or(String::new(), |c| format!("; observations are clamped at ±{c}"));
        line("normaliser", format!("limits of the training data become -1 and 1; {zero_range}{clip}"));
        line("observation", observation_limits(spec));
        line("action", action_limits(spec));
        line(
            "origin",
            format!(
                "seed {}, commit {}, exported {} by tenon-train {}",
                origin.seed, origin.commit, origin.created, origin.tool_version
            ),
        );
        line("data", if origin.data_sha256.is_empty() { "unknown".into() } else { origin.data_sha256.clone() });
        text.truncate(text.trim_end().len());
        text
    }
}

fn denoising(bundle: &Bundle) -> String {
    let denoising = bundle.denoising();
    let how = match denoising.sampler {
        Sampler::Ddpm => format!("DDPM, {} steps", denoising.denoising_steps),
        Sampler::Ddim { steps } => format!("DDIM, {steps} of {} steps", denoising.denoising_steps),
    };
    let fewer = match &denoising.step_counts[..] {
        [] => String::new(),
        counts => format!("; where time is short, in {} steps", list(counts)),
    };
    format!("{how}, the last {} fine-tuned{fewer}", denoising.finetuned_steps)
}

fn network(bundle: &Bundle) -> String {
    let manifest = bundle.manifest();
    // The tag that manifests have.
    let kind = serde_json::to_value(&manifest.network).ok();
    let kind = kind.as_ref().and_then(|value| value.get("kind")?.as_str()).unwrap_or("network").to_owned();
    let roles: Vec<&str> = manifest.networks.iter().map(|network| network.role.name()).collect();
    format!("{kind} ({})", roles.join(", "))
}

fn pictures(bundle: &Bundle) -> String {
    match (bundle.manifest().network.vision(), &bundle.spec().pictures) {
        (None, _) => "none".into(),
        (Some(vision), None) => format!(
            "{}×{px}×{px} pixels; which quality the policy saw is not recorded: taken for exact",
            vision.cameras,
            px = vision.image_px
        ),
        (Some(vision), Some(seen)) => {
            format!("{px}×{px} pixels of {}, {}", list(&seen.cameras), seen.quality, px = vision.image_px)
        }
    }
}

fn list(items: &[impl Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn observation_limits(spec: &PolicySpec) -> String {
    let blocks = spec.observation.iter().map(|&field| {
        let (name, unit) = match field {
            ObservationField::CommandedPosition2 => ("commanded x, y", "m"),
            ObservationField::TcpPosition2 => ("tool point x, y", "m"),
            ObservationField::TcpPosition => ("tool point", "m"),
            ObservationField::TcpRotation6d => ("tool rotation", ""),
            ObservationField::TcpLinearVelocity => ("tool velocity", "m/s"),
            ObservationField::TcpAngularVelocity => ("tool turning", "rad/s"),
            ObservationField::GripperWidth => ("gripper width", "m"),
            ObservationField::PartPoses(_) => ("part poses", "m and quaternion"),
            ObservationField::Task(_) => ("of the task", ""),
        };
        (name, unit, field.dim())
    });
    limits(&spec.normalizer.observation, blocks)
}

fn action_limits(spec: &PolicySpec) -> String {
    let blocks = spec.action.iter().map(|&field| {
        let (name, unit) = match field {
            ActionField::PlanarIncrement { .. } => ("increment x, y", "m"),
            ActionField::TcpPosition => ("tool point", "m"),
            ActionField::TcpRotation6d => ("tool rotation", ""),
            ActionField::Gripper => ("gripper", "-1 open, 1 close"),
            ActionField::Task(_) => ("of the task", ""),
        };
        (name, unit, field.dim())
    });
    limits(&spec.normalizer.action, blocks)
}

/// `[lowest, highest]` of each value, block by block.
fn limits(limits: &Limits, blocks: impl Iterator<Item = (&'static str, &'static str, usize)>) -> String {
    let mut values = limits.min.iter().zip(&limits.max);
    let mut lines = Vec::new();
    for (name, unit, dim) in blocks {
        let mut line = if unit.is_empty() { format!("{name}:") } else { format!("{name}, {unit}:") };
        for (low, high) in values.by_ref().take(dim) {
            let range = format!(" [{}, {}]", short(*low), short(*high));
            if INDENT + line.len() + range.len() > COLUMNS {
                lines.push(std::mem::replace(&mut line, "   ".into()));
            }
            line += &range;
        }
        lines.push(line);
    }
    lines.join(&format!("\n{:INDENT$}", ""))
}

/// Four digits behind the point; powers of ten for what would lose its digits or be long.
fn short(value: f32) -> String {
    match value.abs() {
        size if size == 0.0 || (1e-2..1e4).contains(&size) => {
            let text = format!("{value:.4}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => format!("{value:.3e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_short_and_lose_no_digits_that_matter() {
        let texts = [0.0, -0.0101, 1.0, 0.55, -0.3149, 1234.5, 2.5e-5, -7e8].map(short);
        assert_eq!(texts, ["0", "-0.0101", "1", "0.55", "-0.3149", "1234.5", "2.500e-5", "-7.000e8"]);
    }

    #[test]
    fn every_value_has_its_limits_and_long_blocks_are_wrapped() {
        let many = Limits::symmetric(0.25, 60);
        let text = limits(&many, [("of the task", "", 59), ("gripper width", "m", 1)].into_iter());
        assert_eq!(text.matches("[-0.25, 0.25]").count(), 60);
        assert!(text.lines().count() > 5 && text.lines().all(|line| line.len() <= COLUMNS), "{text}");
        assert!(text.ends_with("gripper width, m: [-0.25, 0.25]"), "{text}");
    }
}
