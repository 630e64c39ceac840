//! `tenon bench hand-over`: how evenly the arm is commanded where one chunk takes over from another, in every mode that the policy's
//! horizons allow.
//!
//! The controller and the policy of a bundle run against an arm that is where it was told to be a lead ago, on a clock of their own, so the
//! result is the same on any machine. A chunk is there one tick after it was asked for.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tenon_core::action::ActionChunk;
use tenon_core::diffusion::Denoiser;
use tenon_core::safety::JointMotion;
use tenon_core::time::MonotonicTime;
use tenon_core::timeline::HandOver;
use tenon_policy::{Bundle, Engine};

use crate::inference::ChunkSampler;
use crate::machine::{Controller, Event, Inputs, Order, Settings};
use crate::perfect_arm::PerfectArm;
use crate::processes::shipped;
use crate::run::program::Program;
use crate::run::{load_config, settings};

#[derive(Debug, Clone, clap::Args)]
pub struct HandOverArgs {
    /// The policy bundle.
    #[arg(long)]
    pub bundle: PathBuf,
    #[arg(long, default_value = "configs/robot.toml")]
    pub config: PathBuf,
    #[arg(long, default_value = "tract")]
    pub engine: Engine,
    /// Episodes in each mode.
    #[arg(long, default_value_t = 10)]
    pub episodes: u64,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// What was seen in one mode.
#[derive(Debug, Clone, Serialize)]
struct Line {
    bench: &'static str,
    mode: HandOver,
    ticks: u64,
    chunks: u64,
    /// Largest change of a joint's commanded velocity from tick to tick, rad/s, where a chunk takes over and elsewhere.
    velocity_step_at_hand_over: f64,
    velocity_step_elsewhere: f64,
    /// The same of its acceleration, rad/s².
    acceleration_step_at_hand_over: f64,
    acceleration_step_elsewhere: f64,
    /// Largest commanded acceleration of a joint, as a part of its limit.
    acceleration_of_limit: f64,
    /// Actions that were dropped because their instant had passed.
    late_actions: u64,
    /// Episodes that a fault ended.
    faults: u64,
}

/// Runs `tenon bench hand-over`.
pub fn hand_over(args: &HandOverArgs) -> Result<ExitCode> {
    let config = load_config(&shipped(&args.config))?;
    let bundle =
        Bundle::open(&args.bundle).with_context(|| format!("opening the policy bundle {}", args.bundle.display()))?;
    let spec = bundle.spec();
    let base = settings(&config);
    let most = spec.prediction_horizon.saturating_sub(base.inference_periods(spec.period_s)).min(spec.action_horizon);
    let mut modes = vec![HandOver::Sequential];
    if most > 0 {
        modes.push(HandOver::Blend { executed: most, periods: 2 });
        modes.push(HandOver::Ensemble { executed: 1, decay: 0.01 });
        modes.push(HandOver::Inpaint { executed: most });
    }
    for mode in modes {
        let line = measure(args, &bundle, Settings { hand_over: mode, ..base })?;
        if args.json {
            println!("{}", serde_json::to_string(&line).context("the line is plain data")?);
        } else {
            println!(
                "{:<48} velocity step {:.4} rad/s at a hand-over, {:.4} elsewhere; acceleration step {:.2} and {:.2} rad/s²; \
                 {:.0} % of the limit; {} chunks, {} late actions, {} faults",
                format!("{mode:?}"),
                line.velocity_step_at_hand_over,
                line.velocity_step_elsewhere,
                line.acceleration_step_at_hand_over,
                line.acceleration_step_elsewhere,
                line.acceleration_of_limit * 100.0,
                line.chunks,
                line.late_actions,
                line.faults
            );
        }
    }
    if most == 0 && !args.json {
        println!("the policy predicts no more than it executes: only the sequential mode fits it");
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(args: &HandOverArgs, bundle: &Bundle, settings: Settings) -> Result<Line> {
    let spec = bundle.spec();
    let program = Program::of(spec).with_context(|| format!("task {} has no start that this knows", spec.task))?;
    let mut line = Line {
        bench: "hand-over",
        mode: settings.hand_over,
        ticks: 0,
        chunks: 0,
        velocity_step_at_hand_over: 0.0,
        velocity_step_elsewhere: 0.0,
        acceleration_step_at_hand_over: 0.0,
        acceleration_step_elsewhere: 0.0,
        acceleration_of_limit: 0.0,
        late_actions: 0,
        faults: 0,
    };
    for episode in 0..args.episodes {
        let denoiser = bundle.denoiser(args.engine).context("loading the networks")?;
        let mut sampler = ChunkSampler::new(spec.clone(), bundle.denoising(), denoiser, 7 + episode);
        let controller = Controller::new(settings, spec)?;
        run_episode(controller, &mut sampler, &settings, &program, &mut line)?;
    }
    Ok(line)
}

fn run_episode<D>(
    mut controller: Controller,
    sampler: &mut ChunkSampler<D>,
    settings: &Settings,
    program: &Program,
    line: &mut Line,
) -> Result<()>
where
    D: Denoiser,
    D::Error: std::error::Error + Send + Sync + 'static,
{
    let period = controller.tick_period();
    let behind = (settings.lead_s / period.as_secs_f64()).round() as usize;
    let mut arm = PerfectArm::at(program.start_joints_rad).behind(behind);
    let mut last = None;
    let mut now = MonotonicTime::from_nanos(0);
    let mut chunk: Option<ActionChunk> = None;
    let mut order = Some(Order::Arm { session: 1 });
    // Ticks since a chunk took over; what it changes is commanded within a few.
    let mut since = usize::MAX;
    let mut running = false;
    let limit = program.actions * settings.targets_per_action * 4 + 1000;
    for sequence in 0..limit as u64 {
        now = now + period;
        let inputs = Inputs {
            due: now,
            state: Some(arm.state(now)),
            status: Some(arm.status(now)),
            chunk: chunk.as_ref(),
            parts: None,
            order: order.take(),
            late_ticks: 0,
        };
        let outcome = controller.tick(now, &inputs);
        since = since.saturating_add(1);
        arm.follow(&outcome);
        if let Some(motion) = outcome.target
            && let Some(before) = last.replace(motion).filter(|_| running)
        {
            note(line, &before, &motion, settings, since <= settings.targets_per_action);
        }
        if let Some(request) = outcome.infer {
            chunk = Some(sampler.sample(&request, usize::MAX).context("running the policy")?);
            line.chunks += 1;
            since = 0;
        }
        match outcome.event {
            Some(Event::Armed) => order = Some(Order::Run { actions: program.actions }),
            Some(Event::RunStarted) => running = true,
            Some(Event::Faulted(_)) => {
                line.faults += 1;
                break;
            }
            Some(Event::RunEnded { .. }) => break,
            _ => {}
        }
        if sequence + 1 == limit as u64 {
            bail!("the episode did not end within {:?} of its own time", period * limit as u32);
        }
    }
    line.late_actions += controller.counts().late_actions;
    Ok(())
}

fn note(line: &mut Line, last: &[JointMotion; 7], motion: &[JointMotion; 7], settings: &Settings, at_hand_over: bool) {
    line.ticks += 1;
    for (i, (a, b)) in last.iter().zip(motion).enumerate() {
        let velocity = (b.velocity_rad_s - a.velocity_rad_s).abs();
        let acceleration = (b.acceleration_rad_s2 - a.acceleration_rad_s2).abs();
        let (v, acc) = if at_hand_over {
            (&mut line.velocity_step_at_hand_over, &mut line.acceleration_step_at_hand_over)
        } else {
            (&mut line.velocity_step_elsewhere, &mut line.acceleration_step_elsewhere)
        };
        (*v, *acc) = (v.max(velocity), acc.max(acceleration));
        let part = b.acceleration_rad_s2.abs() / settings.safety.bounds(i).acceleration_rad_s2;
        line.acceleration_of_limit = line.acceleration_of_limit.max(part);
    }
}
