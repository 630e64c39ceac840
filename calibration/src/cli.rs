//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use tenon_vision::FrameVariant;

use crate::commands::{
    ArmPoseArgs, ArmSwingArgs, BoardArgs, CheckArgs, ExportArgs, ImportArgs, IntrinsicsArgs, LatencyArgs, NoiseArgs,
    PlaceArgs, ProofArgs, ShowArgs, TouchOffArgs, WizardArgs,
};

/// Focal length assumed where none is given: a RealSense D435 colour stream at 1280x720 has 900 to 930 px.
pub const ASSUMED_FOCAL_PX: f64 = 915.0;

#[derive(Debug, Parser)]
#[command(
    name = "tenon-calibrate",
    version,
    about = "Measures the rig: where the cameras and the parts are, and how sure that is",
    after_help = "Example:\n  tenon-calibrate photo rig.png"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// All steps one after the other, with questions a newcomer can answer
    Wizard(WizardArgs),
    /// Find AprilTags on still pictures: corners, poses, camera pose from the base board
    Photo(PhotoArgs),
    /// Print a calibration board, true to scale
    Board(BoardArgs),
    /// Focal length, principal point and distortion of a camera, from pictures of a board
    Intrinsics(IntrinsicsArgs),
    /// Take factory values from a file of OpenCV or ROS
    ImportIntrinsics(ImportArgs),
    /// Write the intrinsics in use as a file of OpenCV or ROS
    ExportIntrinsics(ExportArgs),
    /// Where the cameras stand: from the base board and, with the arm's poses, from a tag in the gripper
    Place(PlaceArgs),
    /// Where the arm stands, from the robot itself: one line for each picture of `place` and `proof`
    ArmPose(ArmPoseArgs),
    /// The hand's way while it swings, from the robot itself: the cause in `latency`
    ArmSwing(ArmSwingArgs),
    /// Where the base board lies in the robot's base, from points that the tool touched
    TouchOff(TouchOffArgs),
    /// How wrong the calibration is, on pictures that took no part in it
    Proof(ProofArgs),
    /// Delays of cameras, arm, gripper and link, from records of a motion
    Latency(LatencyArgs),
    /// Has a camera moved since it was calibrated?
    Check(CheckArgs),
    /// Noise of part poses while nothing moves
    Noise(NoiseArgs),
    /// What is known of a rig, and which version is in use
    Show(ShowArgs),
}

const PHOTO_HELP: &str = "\
Examples:
  tenon-calibrate photo rig.png
  tenon-calibrate photo --focal-px 912.3,911.8 --principal 642.1,348.9 --frame-variant benchmark rig.png
  tenon-calibrate photo --json --no-picture *.png | jq .board.camera_in_april.position_m

Pixels: (0, 0) is the outer corner of the top left pixel, so pixel centres lie at .5. OpenCV and librealsense count from
the centre of that pixel: add 0.5 to their principal point.

Frames: 'april' is the centre of the base board (x = robot +y, y = robot +x, z down into the table). A pose in the robot's
base frame needs to know where the board is; --frame-variant says which of the published places is meant.

Exit code: 0 tags were found on every picture; 1 a picture shows no tag (or, with --need-board, gives no camera pose);
2 a file cannot be read or written, or the command line is wrong.";

#[derive(Debug, Args)]
#[command(after_help = PHOTO_HELP)]
pub struct PhotoArgs {
    /// Pictures, PNG or JPEG
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Focal length in pixels, one number or FX,FY. Without it 915 is ASSUMED (typical for a RealSense D435 at 1280x720):
    /// an error of 1 % moves everything 1 % nearer or farther
    #[arg(long, value_name = "PX", value_delimiter = ',', num_args = 1)]
    pub focal_px: Vec<f64>,

    /// Principal point in pixels; without it the middle of the picture is assumed
    #[arg(long, value_name = "CX,CY", value_delimiter = ',', num_args = 1, allow_negative_numbers = true)]
    pub principal: Vec<f64>,

    /// Brown-Conrady distortion in OpenCV's order; without it none
    #[arg(long, value_name = "K1,K2,P1,P2,K3", value_delimiter = ',', num_args = 1, allow_hyphen_values = true)]
    pub distortion: Vec<f64>,

    /// Where the base board sits in the robot's base frame
    #[arg(long, value_enum, default_value_t = VariantArg::Training)]
    pub frame_variant: VariantArg,

    /// Folder for the annotated pictures, <name>_tags.png (made if missing; an existing picture is kept and the new one
    /// numbered)
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,

    /// Replace existing annotated pictures instead of numbering
    #[arg(long)]
    pub overwrite: bool,

    /// Write no annotated pictures
    #[arg(long, conflicts_with_all = ["out", "overwrite", "zoom"])]
    pub no_picture: bool,

    /// Enlarge the annotated picture, 1 to 4 times
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4))]
    pub zoom: u32,

    /// Print one JSON object a line instead of text
    #[arg(long)]
    pub json: bool,

    /// Exit with 1 unless every picture gives a camera pose from the base board
    #[arg(long)]
    pub need_board: bool,

    /// Drop tags whose decision margin is below this (30 is a good start where false tags appear)
    #[arg(long, value_name = "GREY", default_value_t = 0.0)]
    pub margin: f32,

    /// Drop tags with an edge shorter than this
    #[arg(long, value_name = "PX", default_value_t = 0.0)]
    pub min_edge_px: f64,

    /// Accepted bit errors, 0 to 2; without it what the tag layout says (1)
    #[arg(long, value_name = "BITS")]
    pub max_hamming: Option<u32>,

    /// Search on a smaller picture: faster, less exact (1, 1.5, 2, 3 …)
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub decimate: f32,

    /// Blur before searching, for noisy pictures; negative sharpens
    #[arg(long, value_name = "PX", default_value_t = 0.0, allow_negative_numbers = true)]
    pub sigma: f32,

    /// Sharpening before bits are read, for small tags
    #[arg(long, value_name = "AMOUNT", default_value_t = 0.25)]
    pub sharpening: f64,

    /// Threads of the detector
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,

    /// Tag layout of your own (see configs/vision/tags.toml); without it the FurnitureBench rig
    #[arg(long, value_name = "FILE")]
    pub tags: Option<PathBuf>,

    /// Frame variants of your own (see configs/vision/frames.toml)
    #[arg(long, value_name = "FILE")]
    pub frames: Option<PathBuf>,
}

/// [`FrameVariant`] on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum VariantArg {
    /// Robot base flush with the table: what policies were trained with
    Training,
    /// Robot on the benchmark's 15 mm clamp plate
    Benchmark,
    /// Tuned by hand on the authors' bench
    AuthorsHardware,
}

impl From<VariantArg> for FrameVariant {
    fn from(arg: VariantArg) -> Self {
        match arg {
            VariantArg::Training => Self::Training,
            VariantArg::Benchmark => Self::Benchmark,
            VariantArg::AuthorsHardware => Self::AuthorsHardware,
        }
    }
}
