//! `tenon report`: what the steps wrote, on one self-contained page and on the terminal.

mod curves;
mod page;
mod results;
mod svg;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;

pub(crate) use results::latency_table;
pub use results::{Check, Verdict};

use crate::run::RunReport;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Folder of `tenon-train demos`.
    #[arg(long, default_value = "runs/demo/demos")]
    pub demos: PathBuf,
    /// Folder of `tenon-train pretrain`.
    #[arg(long, default_value = "runs/demo/pretrain")]
    pub pretrain: PathBuf,
    /// Folder of `tenon-train finetune`.
    #[arg(long, default_value = "runs/demo/finetune")]
    pub finetune: PathBuf,
    /// Policy bundle.
    #[arg(long, default_value = "runs/demo/bundle")]
    pub bundle: PathBuf,
    /// Folder of `tenon run`.
    #[arg(long, default_value = "runs/demo/deploy")]
    pub deploy: PathBuf,
    /// The task's configuration.
    #[arg(long, default_value = "configs/tasks/avoid_m1.toml")]
    pub config: PathBuf,
    /// Folder of the page.
    #[arg(long, default_value = "report")]
    pub out: PathBuf,
    /// Print the checks as JSON.
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// The folders of `tenon demo`.
    pub fn in_work(work: &Path, config: &Path, out: &Path) -> Self {
        Self {
            demos: work.join("demos"),
            pretrain: work.join("pretrain"),
            finetune: work.join("finetune"),
            bundle: work.join("bundle"),
            deploy: work.join("deploy"),
            config: config.to_path_buf(),
            out: out.to_path_buf(),
            json: false,
        }
    }
}

/// Runs `tenon report`.
pub fn run(options: &Options) -> Result<ExitCode> {
    let verdict = make(options, None, false)?;
    if options.json {
        println!("{}", serde_json::to_string(&verdict).context("a verdict is plain data")?);
    }
    Ok(if verdict.all_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads the results, writes `index.html`, prints the summary (unless --json) and returns the checks.
pub fn make(options: &Options, times: Option<&[(String, f64)]>, quick: bool) -> Result<Verdict> {
    let results = results::Results::read(options)?;
    let verdict = results.verdict();
    let html = page::render(&results, &verdict, times, quick);
    std::fs::create_dir_all(&options.out).with_context(|| format!("creating {}", options.out.display()))?;
    let page = options.out.join("index.html");
    write_beside(&page, html.as_bytes())?;
    if !options.json {
        results.print(&verdict);
        println!("page: {}", page.display());
    }
    Ok(verdict)
}

/// Prints what a run of episodes gave.
pub fn print_run(report: &RunReport) {
    let judged = report.episodes.iter().filter(|e| e.judged.is_some()).count();
    if judged > 0 {
        println!("{} of {judged} episodes succeeded ({} on {})", report.successes, report.task, report.engine);
    } else {
        println!("{} episodes run ({} on {})", report.episodes.len(), report.task, report.engine);
    }
    print!("{}", results::timing_table(&report.timing));
}

/// Writes JSON beside the target and renames it.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("results are plain data")?;
    write_beside(path, text.as_bytes())
}

fn write_beside(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, bytes).with_context(|| format!("writing {}", temporary.display()))?;
    std::fs::rename(&temporary, path).with_context(|| format!("renaming to {}", path.display()))
}
