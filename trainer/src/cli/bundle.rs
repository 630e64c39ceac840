//! `tenon-train bundle`.

use std::path::PathBuf;

use clap::Args;
use tenon_policy::Bundle;

use super::{Ending, Speech};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    tenon-train bundle bundles/avoid_m1\n  \
    tenon-train bundle bundles/avoid_m1 --json | jq .spec.normalizer\n\n\
    Reads the bundle with every check that a run makes first: versions, hashes, sizes, what the graphs take and give.\n\
    Limits are those of the training data in physical units (m, m/s, rad/s; robot base frame), [lowest, highest] of each\n\
    value in its order. --json prints the manifest, policy.json, as it was read.")]
pub struct BundleArgs {
    /// Policy bundle: the folder that `tenon-train export` writes.
    #[arg(value_name = "DIR")]
    bundle: PathBuf,
    #[command(flatten)]
    speech: Speech,
}

pub fn run(args: BundleArgs) -> anyhow::Result<Ending> {
    let bundle = Bundle::open(&args.bundle)?;
    args.speech.print(bundle.manifest(), &bundle.describe())?;
    Ok(Ending::Done)
}
