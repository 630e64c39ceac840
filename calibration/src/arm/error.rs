use tenon_link::LinkError;

use super::still::Refusal;

/// Why there is no pose of the arm.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ArmError {
    #[error(transparent)]
    Link(#[from] LinkError),

    #[error("link at {endpoint}: {refusal}{bridge}")]
    Refused { endpoint: String, refusal: Refusal, bridge: String },

    #[error(
        "link at {endpoint}: the arm did not come to rest within {waited_s:.0} s (joint {} moved with {velocity_rad_s:.3} rad/s, at most \
         {limit_rad_s} for {still_for_s} s are wanted): let go of it and try again",
        joint + 1
    )]
    NotStill { endpoint: String, waited_s: f64, joint: usize, velocity_rad_s: f64, limit_rad_s: f64, still_for_s: f64 },

    #[error(
        "link at {endpoint}: the arm drifted for {waited_s:.0} s without coming to rest (at most {limit_rad} rad a joint in \
         {still_for_s} s are wanted): let go of it and try again"
    )]
    Drifting { endpoint: String, waited_s: f64, limit_rad: f64, still_for_s: f64 },

    #[error(
        "the arm moved by {moved_mm:.1} mm and {turned_deg:.2} degrees while the pictures were taken: hold it still until the next \
         question, and take this pose again"
    )]
    MovedMeanwhile { moved_mm: f64, turned_deg: f64 },

    #[error(
        "the hand moved by {moved_mm:.0} mm in {seconds:.0} s, {wanted_mm:.0} mm are wanted: swing it while the cameras look"
    )]
    NoSwing { moved_mm: f64, seconds: f64, wanted_mm: f64 },

    #[error("the recording of the hand ended early: {reason}")]
    Recorder { reason: String },

    #[error("nobody said where the arm stands at picture {picture}: type its pose")]
    NotTyped { picture: String },
}
