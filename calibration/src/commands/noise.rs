//! `tenon-calibrate noise`.

use std::io::Write;

use clap::Args;
use tenon_core::config::rig::NoiseRecord;
use tenon_vision::rig::Part;

use super::{PicturesArgs, RigArgs, finish, now, program, search_all};
use crate::rig::{Ended, Step};
use crate::run::Outcome;
use crate::steps::noise::Measured;
use crate::steps::{StepError, noise as step};

const HELP: &str = "\
Example:
  tenon-calibrate noise --rig bench --part square_table_top --part square_table_leg4 \\
    --from-images front=still/front --serial front=822512060853 --from-images side:817612070315=still/side --rate-hz 30 --yes

Pictures of parts that nobody touches, some 300 at 30 Hz; those of several cameras belong together by their order. What is found is the
noise that the trainer's domain randomisation takes ([[noise]] in calibration.toml). noise.json beside it says too how much larger the
scatter is than the covariances that came with the poses (covariance_ratio).

Exit code: 0 measured; 2 a part moved, was not seen, or something cannot be read.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct NoiseArgs {
    #[command(flatten)]
    pub rig: RigArgs,

    #[command(flatten)]
    pub pictures: PicturesArgs,

    /// A part to measure, as the tag layout names it
    #[arg(long = "part", value_name = "NAME", required = true)]
    pub parts: Vec<String>,

    /// Pictures a second
    #[arg(long, value_name = "HZ", default_value_t = 30.0)]
    pub rate_hz: f64,

    /// Take the result into use without asking
    #[arg(long)]
    pub yes: bool,
}

/// Runs the step.
pub fn noise(args: &NoiseArgs, out: &mut impl Write) -> anyhow::Result<Outcome> {
    anyhow::ensure!(args.rate_hz.is_finite() && args.rate_hz > 0.0, "--rate-hz {}: must be positive", args.rate_hz);
    let folders = args.pictures.cameras()?;
    let layout = args.rig.layout()?;
    let folder = args.rig.folder()?;
    let parts = args.parts.iter().map(|name| {
        layout.parts.iter().find(|part| part.name == *name).cloned().ok_or_else(|| StepError::NoSuchPart {
            part: name.clone(),
            known: layout.parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    });
    let parts: Vec<Part> = parts.collect::<Result<_, _>>()?;
    let cameras = search_all(&folders, &layout)?;
    let date = now();
    let mut draft = folder.draft(&program(), &date)?;
    let measured = step::noise(draft.calibration(), &cameras, &parts, args.rate_hz, &date)?;
    if args.rig.json {
        writeln!(out, "{}", serde_json::to_string(&step::report(&measured))?)?;
    } else {
        writeln!(out, "{:<20} {:>6}  standard deviation x, y, z in mm; about x, y, z in degrees", "part", "poses")?;
        for Measured { record, .. } in &measured {
            let [x, y, z] = record.position_std_m.map(|v| 1e3 * v);
            let [a, b, c] = record.rotation_std_rad.map(f64::to_degrees);
            writeln!(out, "{:<20} {:>6}  {x:.3} {y:.3} {z:.3}; {a:.3} {b:.3} {c:.3}", record.part, record.samples)?;
        }
        for part in &measured {
            if let Some(line) = part.ratio_line() {
                writeln!(out, "{}: {line}", part.record.part)?;
            }
        }
    }
    draft.write_file("noise.json", &serde_json::to_vec_pretty(&step::report(&measured))?)?;
    let records: Vec<NoiseRecord> = measured.into_iter().map(|part| part.record).collect();
    draft.change(|calibration| {
        calibration.noise.retain(|known| records.iter().all(|record| record.part != known.part));
        calibration.noise.extend(records);
    })?;
    draft.end_step(Step::Noise, Ended::Done { date: date.clone() })?;
    finish(&folder, draft, &date, args.yes)
}
