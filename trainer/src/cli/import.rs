//! `tenon-train import`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use clap::Args;
use serde::Serialize;
use tenon_core::config::{TaskConfig, Values};
use tenon_core::normalizer::{Limits, Normalizer, ZeroRange};
use tenon_train::import::{Contents, Entry, Imported, Kind, Number, Progress, StdBounds, TorchCheckpoint, Weights};
use tenon_train::import::{import, read_normalizer};
use tenon_train::run_dir::{CHECKPOINT_FILE, KeepCheckpoints, RunDir, commit, sha256_of, write_json, write_text};

use super::{Ending, Speech, config_text, read_config};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    tenon-train import state_3000.pt --list\n  \
    tenon-train import state_3000.pt --config configs/tasks/avoid_m1.toml \\\n    \
    --normalization normalization.npz --out runs/pretrain\n\n\
    Reads files of torch.save (PyTorch 1.6 and later) without PyTorch and executes nothing in\n\
    them: whatever is not plain data is refused by its name and place. Names and shapes must be\n\
    those of the configuration's network.\n\
    A pre-trained file becomes a folder that `finetune --from` takes; a fine-tuned one, with both\n\
    networks, the critic and a learned η, can be evaluated and exported.\n\
    Writes config.toml, checkpoint.safetensors and summary.json.")]
pub struct ImportArgs {
    /// Checkpoint of PyTorch; with --list also a file of statistics (.pth, .pkl).
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only say what is in the file.
    #[arg(long, visible_alias = "dry-run")]
    list: bool,
    /// Task configuration whose network the checkpoint has.
    #[arg(long, value_name = "FILE", required_unless_present = "list")]
    config: Option<PathBuf>,
    /// Take the configuration's values of [paper] where it has some.
    #[arg(long)]
    paper: bool,
    /// Limits of the training data: .npz, .pth or .pkl.
    #[arg(long, value_name = "FILE")]
    normalization: Option<PathBuf>,
    /// The policy works on normalised values already: limits of -1 and 1.
    #[arg(long, conflicts_with = "normalization")]
    no_normalization: bool,
    /// Folder of the imported run.
    #[arg(long, value_name = "DIR", required_unless_present = "list")]
    out: Option<PathBuf>,
    /// Take the last weights even where the file has their moving average.
    #[arg(long)]
    raw: bool,
    /// Replace a checkpoint that is already there.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    speech: Speech,
}

/// What `--list` tells.
#[derive(Debug, Serialize)]
struct Listing {
    file: PathBuf,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
    parameters: usize,
    tensors: Vec<Entry>,
    numbers: BTreeMap<String, Number>,
}

/// `summary.json` of an import.
#[derive(Debug, Serialize)]
struct Summary {
    file: PathBuf,
    sha256: String,
    #[serde(flatten)]
    imported: Imported,
    /// How the limits of the data are used.
    normalization: NormalizerSummary,
    checkpoint: PathBuf,
    checkpoint_sha256: String,
}

#[derive(Debug, Serialize)]
struct NormalizerSummary {
    file: Option<PathBuf>,
    observation_values: usize,
    action_values: usize,
    zero_range: ZeroRange,
    observation_clip: Option<f32>,
}

pub fn run(args: ImportArgs) -> anyhow::Result<Ending> {
    let output = &args.speech;
    let contents = Contents::open(&args.file)?;
    if args.list {
        let listing = list(&contents)?;
        output.print(&listing, &describe(&listing))?;
        return Ok(Ending::Done);
    }
    let (Some(config_path), Some(out)) = (&args.config, &args.out) else {
        bail!("give --config and --out, or --list");
    };
    let config = read_config(config_path, if args.paper { Values::Paper } else { Values::Latest })?;
    let normalizer = normalizer(&args, &config)?;
    let target = out.join(CHECKPOINT_FILE);
    ensure!(args.replace || !target.exists(), "{} is already there: give --replace or another --out", target.display());

    let sha256 = sha256_of(&args.file)?;
    let weights = if args.raw { Weights::Raw } else { Weights::Average };
    let text = config_text(&config)?;
    let provenance = provenance(&args, &sha256)?;
    let (checkpoint, imported) = import(&contents, &config, text.clone(), normalizer, weights, provenance)?;
    let folder = RunDir::hold(out, KeepCheckpoints { last: 1, every: 0 })?;
    folder.begin_anew()?;
    write_text(&out.join("config.toml"), &text)?;
    folder.save(0, &checkpoint)?;
    let normalizer = &checkpoint.header.run.policy.normalizer;
    let summary = Summary {
        file: args.file.clone(),
        sha256,
        imported,
        normalization: NormalizerSummary {
            file: args.normalization.clone(),
            observation_values: normalizer.observation.min.len(),
            action_values: normalizer.action.min.len(),
            zero_range: normalizer.zero_range,
            observation_clip: normalizer.observation_clip,
        },
        checkpoint_sha256: sha256_of(&target)?,
        checkpoint: target,
    };
    write_json(&out.join("summary.json"), &summary)?;
    output.print(&summary, &summary.describe())?;
    Ok(Ending::Done)
}

/// The policy's normaliser, and that it is one of this task.
fn normalizer(args: &ImportArgs, config: &TaskConfig) -> anyhow::Result<Normalizer> {
    let unit = |n| Limits::symmetric(1.0, n);
    let policy = config.policy_spec(Normalizer::new(unit(0), unit(0)), 0);
    let dims = [policy.observation_dim(), policy.action_dim()];
    let Some(path) = &args.normalization else {
        ensure!(
            args.no_normalization,
            "give --normalization FILE, the limits of the data that the checkpoint was trained on (normalization.npz, \
             .pth or .pkl), or --no-normalization if its policy works on normalised values"
        );
        return Ok(Normalizer::new(unit(dims[0]), unit(dims[1])));
    };
    let normalizer = read_normalizer(path)?;
    for (name, limits, wanted) in
        [("observation", &normalizer.observation, dims[0]), ("action", &normalizer.action, dims[1])]
    {
        let found = limits.min.len();
        ensure!(
            found == wanted,
            "{}: limits of {found} {name} values, {} has {wanted}; are these statistics of another task?",
            path.display(),
            config.task.as_str()
        );
    }
    Ok(normalizer)
}

fn provenance(args: &ImportArgs, sha256: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut provenance = BTreeMap::from([
        ("commit".to_string(), commit()),
        ("imported".to_string(), args.file.display().to_string()),
        ("imported_sha256".to_string(), sha256.to_string()),
    ]);
    let normalization = match &args.normalization {
        Some(path) => {
            provenance.insert("normalization_sha256".into(), sha256_of(path)?);
            path.display().to_string()
        }
        None => "none".into(),
    };
    provenance.insert("normalization".into(), normalization);
    Ok(provenance)
}

fn list(contents: &Contents) -> anyhow::Result<Listing> {
    let tensors = contents.entries()?;
    // A file of statistics is no checkpoint, and is listed all the same.
    let checkpoint = TorchCheckpoint::find(contents).ok().filter(|c| c.progress.is_some() || c.ema.is_some());
    Ok(Listing {
        file: contents.path().to_owned(),
        bytes: contents.file_bytes(),
        kind: checkpoint.as_ref().map(TorchCheckpoint::kind),
        progress: checkpoint.and_then(|c| c.progress),
        parameters: tensors.iter().map(|t| t.shape.iter().product::<usize>()).sum(),
        tensors,
        numbers: contents.numbers()?.into_iter().collect(),
    })
}

fn describe(listing: &Listing) -> String {
    let kind = listing.kind.map_or_else(String::new, |kind| format!("{kind} checkpoint, "));
    let progress = listing.progress.map_or_else(String::new, |progress| format!("{progress}, "));
    let mut text = format!(
        "{}: {kind}{progress}{} tensors, {} values, {} bytes",
        listing.file.display(),
        listing.tensors.len(),
        listing.parameters,
        listing.bytes
    );
    let width = listing.tensors.iter().map(|t| t.name.chars().count()).max().unwrap_or(0);
    for Entry { name, element_type, shape } in &listing.tensors {
        text += &format!("\n  {name:width$}  {element_type:8}  {shape:?}");
    }
    for (name, number) in &listing.numbers {
        let value = match number {
            Number::Bool(v) => v.to_string(),
            Number::Int(v) => v.to_string(),
            Number::Float(v) => v.to_string(),
        };
        text += &format!("\n  {name} = {value}");
    }
    text
}

impl Summary {
    fn describe(&self) -> String {
        let Imported { kind, progress, weights, parts, std_bounds, unused } = &self.imported;
        let progress = progress.map_or_else(String::new, |progress| format!(" of {progress}"));
        let weights =
            if weights.is_empty() { "a state dict by itself".into() } else { format!("weights of `{weights}`") };
        let mut text = format!("{}: {kind} checkpoint{progress}, {weights}", self.file.display());
        for part in parts {
            text += &format!("\n  {}: {} tensors, {} parameters", part.name, part.tensors, part.parameters);
        }
        if let Some(StdBounds { file: [min, max], configuration: [low, high] }) = std_bounds {
            text += &format!(
                "\n  deviations of {min} to {max}, as the file has them; the configuration says {low} to {high}"
            );
        }
        let n = &self.normalization;
        let (observations, actions) = (n.observation_values, n.action_values);
        text += &match &n.file {
            Some(file) => {
                format!("\n  limits of {observations} observation and {actions} action values: {}", file.display())
            }
            None => "\n  no limits: the policy works on normalised values".into(),
        };
        if n.zero_range == ZeroRange::Widen {
            text += ", constant values widened";
        }
        if let Some(clip) = n.observation_clip {
            text += &format!(", normalised observations clamped to ±{clip}");
        }
        if !unused.is_empty() {
            text += &format!("\n  not needed: {}", unused.join(", "));
        }
        text + &format!("\nwritten to {}", parent(&self.checkpoint).display())
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}
