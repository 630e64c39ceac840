//! What was measured on one picture, as it goes out with `--json`.

use nalgebra::Matrix6;
use serde::Serialize;
use tenon_vision::refine::covariance;
use tenon_vision::{Hypothesis, Pose};

/// Name and version of the JSON layout.
pub const SCHEMA: &str = "tenon.photo/1";

/// One picture.
#[derive(Debug, Clone, Serialize)]
pub struct PhotoReport {
    pub schema: &'static str,
    pub file: String,
    pub width_px: usize,
    pub height_px: usize,
    pub camera: CameraReport,
    pub detector: DetectorReport,
    /// Which published place of the base board `robot` poses assume.
    pub frame_variant: &'static str,
    pub frame_meaning: String,
    pub tags: Vec<TagReport>,
    /// Camera pose from the base board; `error` says why there is none.
    pub board: BoardReport,
    pub parts: Vec<PartReport>,
    /// Annotated picture, where one was written.
    pub picture: Option<String>,
    /// Only where no tag was found: what was tried and what to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_tags: Option<NoTagsReport>,
}

#[derive(Debug, Clone, Serialize)]
pub struct CameraReport {
    pub focal_px: [f64; 2],
    pub principal_px: [f64; 2],
    /// k1, k2, p1, p2, k3.
    pub distortion: Option<[f64; 5]>,
    /// Values nobody gave, with what that means.
    pub assumptions: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct DetectorReport {
    pub family: &'static str,
    pub quad_decimate: f32,
    pub quad_sigma: f32,
    pub refine_edges: bool,
    pub decode_sharpening: f64,
    pub max_hamming: u32,
    pub min_decision_margin: f32,
    pub min_edge_px: f64,
    pub threads: usize,
    /// Quadrilaterals that were tried as tags.
    pub quads_tried: usize,
    /// Decoded tags that the limits above dropped.
    pub tags_dropped: usize,
}

#[derive(Debug, Clone, Serialize)]
pub struct TagReport {
    pub id: u32,
    pub hamming: u32,
    pub decision_margin: f32,
    pub centre_px: [f64; 2],
    /// Lower left, lower right, upper right, upper left of the upright print.
    pub corners_px: [[f64; 2]; 4],
    pub shortest_edge_px: f64,
    /// `base_board`, a part's name, or `null` for an id the layout does not know.
    pub belongs_to: Option<String>,
    /// Edge of the black border; `null` for an id the layout does not know.
    pub size_m: Option<f64>,
    pub pose: Option<TagPoseReport>,
    /// Why there is no pose, or why it is not used.
    pub note: Option<String>,
}

/// Both explanations of one tag's corners, better one first.
#[derive(Debug, Clone, Serialize)]
pub struct TagPoseReport {
    pub hypotheses: [HypothesisReport; 2],
    /// Error of the second over error of the first; `null` when infinite.
    pub ratio: Option<f64>,
    /// The ratio is below 2 and the orientations differ: one tag cannot tell which is true.
    pub ambiguous: bool,
    /// Angle between the two orientations, degrees.
    pub apart_deg: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct HypothesisReport {
    pub in_camera: PoseReport,
    /// Needs the camera pose from the base board.
    pub in_april: Option<PoseReport>,
    /// As above, with the frame variant named in the report.
    pub in_robot: Option<PoseReport>,
    pub reprojection_rms_px: f64,
    /// `false`: not a minimum of the reprojection error, the closed-form mirror pose is shown.
    pub is_minimum: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct BoardReport {
    pub error: Option<String>,
    pub camera_in_april: Option<PoseReport>,
    pub camera_in_robot: Option<PoseReport>,
    /// Root mean square distance between seen and projected corners, all tags together.
    pub residual_rms_px: Option<f64>,
    /// Same for each tag.
    pub tags: Vec<TagResidualReport>,
    /// One standard deviation of the camera's position in the april frame along its axes, m, when corner errors are
    /// independent and as large as the residual. Wrong intrinsics or a bent board come on top.
    pub position_std_m: Option<[f64; 3]>,
    /// Error of the best other orientation over the error of this one; `null` when there is no other.
    pub ratio: Option<f64>,
    pub ambiguous: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct TagResidualReport {
    pub id: u32,
    pub rms_px: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct PartReport {
    pub name: String,
    pub furniture: Vec<String>,
    pub index: usize,
    pub tag_ids: Vec<u32>,
    pub error: Option<String>,
    pub in_camera: Option<PoseReport>,
    pub in_april: Option<PoseReport>,
    pub in_robot: Option<PoseReport>,
    pub residual_rms_px: Option<f64>,
    pub ratio: Option<f64>,
    pub ambiguous: bool,
}

/// Filled when a picture shows no tag.
#[derive(Debug, Clone, Serialize)]
pub struct NoTagsReport {
    pub tried: Vec<String>,
    pub advice: Vec<String>,
}

/// A rigid transform.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PoseReport {
    pub position_m: [f64; 3],
    /// Sign such that w is not negative.
    pub quat_xyzw: [f64; 4],
    /// Rz(z) Ry(y) Rx(x).
    pub euler_xyz_deg: [f64; 3],
}

impl From<&Pose> for PoseReport {
    fn from(pose: &Pose) -> Self {
        let q = pose.rotation.coords;
        let sign = if q.w < 0.0 { -1.0 } else { 1.0 };
        let (x, y, z) = pose.rotation.euler_angles();
        Self {
            position_m: pose.translation.vector.into(),
            quat_xyzw: [sign * q.x, sign * q.y, sign * q.z, sign * q.w],
            euler_xyz_deg: [x.to_degrees(), y.to_degrees(), z.to_degrees()],
        }
    }
}

/// JSON has no infinity.
pub fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Standard deviations of the camera's position in the body frame, m, from the residual of `corners` corners.
pub fn camera_position_std(best: &Hypothesis, corners: usize) -> Option<[f64; 3]> {
    let freedom = (2 * corners).checked_sub(6).filter(|&freedom| freedom > 0)?;
    let sigma_px = best.rms_px * (corners as f64 / freedom as f64).sqrt();
    let covariance: Matrix6<f64> = covariance(&best.normal_matrix, sigma_px)?;
    // T_camera_body ← exp(ξ) T moves the camera's centre in the body frame by −Rᵀ v.
    let R = best.T_camera_body.rotation.to_rotation_matrix();
    let of_v = covariance.fixed_view::<3, 3>(0, 0).into_owned();
    let in_body = R.matrix().transpose() * of_v * R.matrix();
    let std = [0, 1, 2].map(|i| in_body[(i, i)].max(0.0).sqrt());
    std.iter().all(|v| v.is_finite()).then_some(std)
}
