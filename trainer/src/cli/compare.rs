//! `tenon-train compare`.

use std::path::PathBuf;

use clap::Args;
use tenon_train::run_dir::write_text;
use tenon_train::watch::{Comparison, Run, compare::render};

use super::{Ending, Speech};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    tenon-train compare runs/seed42 runs/seed43 --out comparison.html\n\n\
    Prints each metric's last value and, in brackets, its mean over the last tenth of the run, and the settings that \
    differ. The page shows all curves side by side on the same axes.")]
pub struct CompareArgs {
    /// Folders of runs, two or more.
    #[arg(value_name = "RUN", num_args = 2.., required = true)]
    runs: Vec<PathBuf>,
    /// Page to write.
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
    #[command(flatten)]
    speech: Speech,
}

pub fn run(args: CompareArgs) -> anyhow::Result<Ending> {
    let runs: Vec<Run> = args.runs.iter().map(|folder| Run::read(folder)).collect::<Result<_, _>>()?;
    let comparison = Comparison::of(&runs);
    let mut text = comparison.text();
    if let Some(path) = &args.out {
        write_text(path, &render(&runs))?;
        text += &format!("\nwritten to {}", path.display());
    }
    args.speech.print(&comparison, &text)?;
    Ok(Ending::Done)
}
