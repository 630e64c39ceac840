//! How a metric is called, grouped and written for people. Metrics that are not known here are shown all the same.

/// Part of a page that a metric belongs to, in the order of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    Outcome,
    Update,
    Optimizer,
    Time,
    Other,
}

impl Group {
    pub const ALL: [Self; 5] = [Self::Outcome, Self::Update, Self::Optimizer, Self::Time, Self::Other];

    pub fn title(self) -> &'static str {
        match self {
            Self::Outcome => "Outcome",
            Self::Update => "Update",
            Self::Optimizer => "Optimiser",
            Self::Time => "Time and throughput",
            Self::Other => "More",
        }
    }
}

/// How the values of a metric are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Plain,
    /// A share, written in percent.
    Share,
    Seconds,
}

/// What is known about a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    pub title: String,
    pub group: Group,
    pub unit: Unit,
    /// Whether it stands at the top of a page and in the list of runs; and whether more is better.
    pub headline: bool,
    pub higher_is_better: Option<bool>,
}

impl Metric {
    /// Of a family of series (`clip_fraction_per_step`, not `clip_fraction_per_step/00`).
    pub fn of(name: &str) -> Self {
        let known = |title: &str, group, unit, headline, higher_is_better| Self {
            title: title.into(),
            group,
            unit,
            headline,
            higher_is_better,
        };
        use Group::*;
        use Unit::*;
        match name {
            "success_rate" => known("Success", Outcome, Share, true, Some(true)),
            "mean_return" => known("Mean return of an episode", Outcome, Plain, true, Some(true)),
            "loss" => known("Loss", Outcome, Plain, true, Some(false)),
            "faults" => known("Episodes ended by a fault of the simulation", Outcome, Plain, false, Some(false)),
            "approx_kl" => known("Approx. KL", Update, Plain, true, None),
            "clip_fraction" => known("Clip fraction", Update, Share, true, None),
            "clip_fraction_per_step" => known("Clip fraction by denoising step", Update, Share, false, None),
            "ratio_mean" => known("Mean probability ratio", Update, Plain, false, None),
            "explained_variance" => known("Explained variance", Update, Plain, true, Some(true)),
            "stopped_early" => known("Update ended early by the KL", Update, Plain, false, None),
            "eta" => known("η", Update, Plain, false, None),
            _ => Self { title: plain_words(name), ..Self::by_its_words(name) },
        }
    }

    fn by_its_words(name: &str) -> Self {
        let has = |word: &str| name.split(['_', '/']).any(|w| w == word);
        let (group, unit) = if has("seconds") {
            (Group::Time, Unit::Seconds)
        } else if name.ends_with("_per_second") {
            (Group::Time, Unit::Plain)
        } else if name.contains("learning_rate") || has("norm") {
            (Group::Optimizer, Unit::Plain)
        } else if name.ends_with("_loss") || has("entropy") {
            (Group::Update, Unit::Plain)
        } else if has("fraction") {
            (Group::Update, Unit::Share)
        } else if has("success") {
            (Group::Outcome, Unit::Share)
        } else if has("reward") || has("return") {
            (Group::Outcome, Unit::Plain)
        } else {
            (Group::Other, Unit::Plain)
        };
        // A rate of `n_per_second` has the word too.
        let unit = if name.ends_with("_per_second") { Unit::Plain } else { unit };
        Self { title: String::new(), group, unit, headline: false, higher_is_better: None }
    }

    /// A value with its unit.
    pub fn text(&self, value: f64) -> String {
        match self.unit {
            Unit::Plain => number(value),
            Unit::Share => format!("{} %", number(100.0 * value)),
            Unit::Seconds => format!("{} s", number(value)),
        }
    }
}

/// Four digits that matter, and powers of ten where zeros would hide them.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return "–".into();
    }
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text.to_string(),
    };
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        let text = format!("{value:.2e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{power}", trimmed(digits));
    }
    let decimals = if size == 0.0 { 0 } else { (3 - size.log10().floor() as i32).clamp(0, 6) as usize };
    trimmed(&format!("{value:.decimals$}"))
}

fn plain_words(name: &str) -> String {
    let words = name.replace('_', " ");
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_keep_what_matters() {
        let values = [0.0, 1.0, 0.012_34, 1e-5, 1234.567, 2_500_000.0, -0.5, f64::NAN];
        let expected = ["0", "1", "0.01234", "1e-5", "1235", "2.5e6", "-0.5", "–"];
        assert_eq!(values.map(number), expected);
    }

    #[test]
    fn unknown_metrics_get_a_place_by_their_words() {
        let group = |name| Metric::of(name).group;
        assert_eq!(group("seconds_sampling"), Group::Time);
        assert_eq!(group("gradient_norm_actor"), Group::Optimizer);
        assert_eq!(group("bc_loss"), Group::Update);
        assert_eq!(group("something"), Group::Other);
        assert_eq!(Metric::of("gradient_norm_actor").title, "Gradient norm actor");
        assert_eq!(Metric::of("success_rate").text(0.96), "96 %");
        assert_eq!(Metric::of("environment_steps_per_second").text(1500.0), "1500");
        assert_eq!(Metric::of("seconds_update").text(1.5), "1.5 s");
    }
}
