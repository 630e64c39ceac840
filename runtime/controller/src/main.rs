//! `tenon`: the front door. Each subcommand does one thing; `train` and `calibrate` hand over to their programs.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use tenon_calibrate::wizard::CameraChoice;
use tenon_controller::allocations::CountingAllocator;
use tenon_controller::run::{Options, RecordTo, Robot, Setup};
use tenon_controller::service::client;
use tenon_controller::{bench, checks, demo, doctor, processes, replay, report, run, secure, service, top};
use tenon_policy::Engine;

/// Counts for `tenon bench tick`; everything else is the system's.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// From demonstrations to a moving arm.
///
/// The emergency stop is the robot's own button, and a person holds it: Tenon is not a certified safety function.
#[derive(Parser)]
#[command(name = "tenon", version, after_help = "Example:\n  tenon demo --quick")]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// The whole path in one go: demonstrations, training, export, deployment on the simulated robot, report.
    #[command(after_help = "Example:\n  tenon demo --quick --work runs/demo --report report")]
    Demo(demo::Options),
    /// Run a policy bundle in real time.
    #[command(after_help = "Example:\n  tenon run --robot sim --bundle bundles/avoid_m1 --episodes 20")]
    Run(RunArgs),
    /// Keep a policy ready for the arm, disarmed, until a person says otherwise (`arm`, `start`, `hold`, `stop`); the systemd unit.
    #[command(
        after_help = "Examples:\n  tenon serve --robot sim --bundle bundles/avoid_m1\n  tenon serve --robot readonly --bundle bundles/one_leg\n\nExit code: 130 told to end; 1 the policy failed, or something refused."
    )]
    Serve(ServeArgs),
    /// Take the arm: it holds its position, and `start` may move it. Says first where the emergency stop is.
    #[command(after_help = "Example:\n  tenon arm")]
    Arm(client::ArmOptions),
    /// Run the policy on the armed arm.
    #[command(after_help = "Example:\n  tenon start --episodes 5")]
    Start(client::StartOptions),
    /// Bring the arm to rest; it stays armed. No substitute for the emergency stop.
    #[command(after_help = "Example:\n  tenon hold")]
    Hold(client::Options),
    /// Bring the arm to rest and give it back. No substitute for the emergency stop.
    #[command(after_help = "Example:\n  tenon stop")]
    Stop(client::Options),
    /// What the service does, what it sees of bridge and arm, and what happened lately.
    #[command(
        after_help = "Example:\n  tenon status --json\n\nExit code: 0; 1 in a fault, or where no service answers."
    )]
    Status(client::Options),
    /// What a recorded run shows; with --verify every tick and chunk of it is computed again, to the bit.
    #[command(
        after_help = "Examples:\n  tenon replay state/runs/20261128T165053Z-000002d6ca3d34f1\n  tenon replay runs/demo/deploy/record --verify --json\n\nExit code: 0; 1 where --verify finds a difference, or cannot compare everything. The .mcap files open in Foxglove as they are."
    )]
    Replay(replay::Options),
    /// Put the results of the steps on one self-contained page.
    #[command(after_help = "Example:\n  tenon report --deploy runs/demo/deploy --out report")]
    Report(report::Options),
    /// Is everything fit for a run? Calibration, cameras, whether one has moved, the bridge and the arm behind it; nothing moves.
    #[command(
        after_help = "Examples:\n  tenon doctor\n  tenon doctor --bundle bundles/one_leg --json\n\nExit code: 0 fit (perhaps with warnings); 1 something fails; 2 the question cannot be asked."
    )]
    Doctor(doctor::Options),
    /// Rates, ages, latencies and states on the terminal, while others run the arm; it listens and never sends.
    #[command(after_help = "Examples:\n  tenon top\n  tenon top --endpoint tls/192.168.1.10:7447 --once --json")]
    Top(top::Options),
    /// Certificates for the link between the robot's computers: make them, rotate them, check them.
    #[command(
        after_help = "Examples:\n  tenon secure --bridge 192.168.1.10 --bridge nuc.local\n  tenon secure --check\n  tenon secure --rotate\n\nExit code: 0 (perhaps with warnings); 1 something fails."
    )]
    Secure(secure::Options),
    /// Measure the parts; one JSON object a line with --json.
    #[command(subcommand, after_help = "Example:\n  tenon bench infer --json")]
    Bench(Bench),
    /// Try what this release promises, and what it relies on; no robot moves.
    #[command(subcommand, after_help = "Example:\n  tenon test limits --commands 1e7")]
    Test(checks::Test),
    /// Hand over to tenon-train.
    #[command(disable_help_flag = true)]
    Train(Rest),
    /// Hand over to tenon-calibrate.
    #[command(disable_help_flag = true)]
    Calibrate(Rest),
}

#[derive(Args)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

#[derive(Subcommand)]
enum Bench {
    /// Inference: each network as one step and as a whole chunk, tract and ONNX Runtime.
    #[command(after_help = "Example:\n  tenon bench infer --quick --json")]
    Infer(bench::InferArgs),
    /// Vision on rendered pictures: the whole search and tracking beside the C library used plainly, and three cameras at
    /// 30 Hz from frames to fused poses.
    #[command(after_help = "Example:\n  tenon bench vision --quick\n  tenon bench vision --accuracy --json")]
    Vision(bench::VisionArgs),
    /// How punctual the control loop is beside cyclictest, idle and under load, and that it neither allocates nor waits.
    #[command(
        after_help = "Examples:\n  tenon bench tick --quick\n  tenon bench tick --minutes 10 --cpu 3 --json\n\nNeeds cyclictest (Debian, Ubuntu: apt-get install rt-tests) or --no-peer.\nExit code: 0; 1 where the control thread allocated or made a system call that it may not."
    )]
    Tick(bench::TickArgs),
    /// How evenly the arm is commanded where one chunk takes over from another, in every mode.
    #[command(after_help = "Example:\n  tenon bench hand-over --bundle bundles/avoid_m1")]
    HandOver(bench::HandOverArgs),
    /// A target and its answer over the link on this computer, plain and with certificates.
    #[command(after_help = "Example:\n  tenon bench link --targets 1000")]
    Link(bench::LinkArgs),
    /// The way of a command through the programs, in parts: what the bridge adds to the server's own time.
    #[command(after_help = "Example:\n  tenon bench chain --quick\n  tenon bench chain --part bridge --json")]
    Chain(bench::ChainArgs),
}

/// What `run` and `serve` have in common.
#[derive(Args)]
struct SetupArgs {
    /// The arm.
    #[arg(long, value_enum)]
    robot: Robot,
    /// The policy bundle (a folder that `tenon-train export` wrote).
    #[arg(long)]
    bundle: PathBuf,
    /// The robot's configuration.
    #[arg(long, default_value = "configs/robot.toml")]
    config: PathBuf,
    /// The engine that runs the networks, tract or onnxruntime; one that is not there is an error, never replaced.
    #[arg(long, default_value = "tract")]
    engine: Engine,
    /// Seed of the sampling noise.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// End each episode after that many actions, where the task's own number is larger.
    #[arg(long, value_name = "N")]
    actions: Option<usize>,
    /// Rig whose calibration is used, instead of the one in the configuration.
    #[arg(long, value_name = "NAME")]
    rig: Option<String>,
    /// Where a camera's pictures come from (v4l2:SERIAL or recorded:DIR), once for each; without it every calibrated camera
    /// by its serial number. A recording is played once; with {"repeat":true} in DIR/play.json it begins again.
    #[arg(long = "camera", value_name = "NAME=SOURCE")]
    cameras: Vec<CameraChoice>,
    /// A candidate bundle that is asked what the policy is asked; it moves nothing, and how it differs goes to shadow.jsonl.
    #[arg(long, value_name = "BUNDLE")]
    shadow: Option<PathBuf>,
    /// Folder for run.json, the candidate's differences and, with the simulated robot, its record.
    #[arg(long, default_value = "runs/deploy")]
    out: PathBuf,
    /// Folder of the flight recorder's files; without it $TENON_STATE/runs/<time>-<session>.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Record nothing.
    #[arg(long, conflicts_with = "record")]
    no_record: bool,
}

impl SetupArgs {
    fn setup(self, quiet: bool) -> Setup {
        let record = match (self.no_record, self.record) {
            (true, _) => RecordTo::Nowhere,
            (false, Some(folder)) => RecordTo::Folder(folder),
            (false, None) => RecordTo::State,
        };
        Setup {
            robot: self.robot,
            bundle: self.bundle,
            config: self.config,
            engine: self.engine,
            seed: self.seed,
            actions: self.actions,
            rig: self.rig,
            cameras: self.cameras,
            shadow: self.shadow,
            out: self.out,
            record,
            quiet,
        }
    }
}

#[derive(Args)]
struct ServeArgs {
    #[command(flatten)]
    setup: SetupArgs,
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    setup: SetupArgs,
    /// Episodes, the way back to the start after each included.
    #[arg(long, default_value_t = 20)]
    episodes: usize,
    /// With --robot panda: somebody holds the emergency stop, and nobody is asked whether.
    #[arg(long)]
    yes: bool,
    /// Print the result as one line of JSON on standard output.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    if let Err(e) = ctrlc::set_handler(move || flag.store(true, Ordering::Release)) {
        eprintln!("error: cannot watch for Ctrl-C: {e}");
        return ExitCode::FAILURE;
    }
    match dispatch(cli.command, &interrupted) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e:#}");
            if interrupted.load(Ordering::Acquire) { ExitCode::from(130) } else { ExitCode::FAILURE }
        }
    }
}

fn dispatch(command: Cmd, interrupted: &Arc<AtomicBool>) -> Result<ExitCode> {
    match command {
        Cmd::Demo(options) => demo::run(&options, interrupted),
        Cmd::Run(args) => run_episodes(args, interrupted),
        Cmd::Serve(args) => service::serve(&args.setup.setup(false), interrupted),
        Cmd::Arm(options) => client::arm(&options),
        Cmd::Start(options) => client::start(&options),
        Cmd::Hold(options) => client::hold(&options),
        Cmd::Stop(options) => client::stop(&options),
        Cmd::Status(options) => client::status(&options),
        Cmd::Doctor(options) => doctor::run(&options),
        Cmd::Replay(options) => replay::run(&options),
        Cmd::Report(options) => report::run(&options),
        Cmd::Test(test) => checks::run(&test, interrupted),
        Cmd::Secure(options) => secure::run(&options),
        Cmd::Top(options) => top::run(&options, interrupted),
        Cmd::Bench(Bench::Infer(args)) => bench::infer(&args),
        Cmd::Bench(Bench::Vision(args)) => bench::vision(&args),
        Cmd::Bench(Bench::Tick(args)) => bench::tick(&args, interrupted),
        Cmd::Bench(Bench::HandOver(args)) => bench::hand_over(&args),
        Cmd::Bench(Bench::Link(args)) => bench::link(&args),
        Cmd::Bench(Bench::Chain(args)) => bench::chain(&args),
        Cmd::Train(rest) => hand_over("tenon-train", &rest.args),
        Cmd::Calibrate(rest) => hand_over("tenon-calibrate", &rest.args),
    }
}

fn run_episodes(args: RunArgs, interrupted: &Arc<AtomicBool>) -> Result<ExitCode> {
    if args.setup.robot == Robot::Panda {
        eprintln!("{}", client::EMERGENCY_STOP);
        let question = "The arm will be armed and moved. Does a person hold the emergency stop?";
        client::confirm(args.yes, question)?;
    }
    let options = Options { setup: args.setup.setup(args.json), episodes: args.episodes };
    let report = run::run(&options, interrupted)?;
    if args.json {
        println!("{}", serde_json::to_string(&report).context("the report is plain data")?);
    } else {
        report::print_run(&report);
    }
    if let Some(fault) = &report.fault {
        eprintln!("error: {fault}");
        return Ok(if interrupted.load(Ordering::Acquire) { ExitCode::from(130) } else { ExitCode::FAILURE });
    }
    Ok(ExitCode::SUCCESS)
}

fn hand_over(program: &str, args: &[OsString]) -> Result<ExitCode> {
    let path = processes::sibling(program)?;
    // exec returns only if it failed.
    let error = Command::new(&path).args(args).exec();
    Err(error).with_context(|| format!("starting {}", path.display()))
}
