//! The wizard's poses of the arm and its second step: the board at rest, the tag in the gripper at pose after pose with a look ahead at
//! what they come to, and the places of the cameras.

use tenon_core::geometry::pose_from_wxyz;
use tenon_vision::{Pose, TagDetection};

use super::bench::Subject;
use super::directions::way;
use super::turn::{Outlook, Report};
use super::worker::{Worker, finding_lines};
use crate::arm::Asked;
use crate::extrinsics::SolveSettings;
use crate::rig::Step;
use crate::steps::outlook::{self, outlook};
use crate::steps::pictures::Pictures;
use crate::steps::place::PlaceInput;
use crate::steps::{Grade, StepError, place, worst};

impl Worker<'_> {
    /// The base board, nothing moves. Pictures from files may come with poses of the arm.
    pub(super) fn rest(&mut self) -> anyhow::Result<Report> {
        self.arm_poses.clear();
        self.posed = self.no_pictures(Step::Place.title());
        self.next_hand = None;
        self.rest = self.take(Subject::Rest, "place", self.bench.counts().rest)?;
        Ok(Report::Rest { lines: Vec::new() })
    }

    pub(super) fn pose(&mut self, step: Step, index: usize, text: Option<[f64; 7]>) -> anyhow::Result<Report> {
        if index == 0 {
            self.posed = self.no_pictures(step.title());
            self.arm_poses.clear();
            self.next_hand = None;
        }
        let kind = if step == Step::Proof { "proof" } else { "arm" };
        let name = format!("{kind} {index:04}");
        let typed = text.map(|[x, y, z, w, i, j, k]| pose_from_wxyz([x, y, z], [w, i, j, k]));
        self.bench.guide(self.next_hand.as_ref());
        let guided = match self.bench.arm_pose(&Asked { picture: &name, typed }) {
            Ok(pose) => pose,
            Err(StepError::Arm(error)) => return Ok(Report::PoseRefused(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let mut shots = Vec::with_capacity(self.posed.len());
        for camera in 0..self.posed.len() {
            let shot = self.bench.shoot(camera, Subject::Pose(step), index)?;
            shots.push(shot.ok_or_else(|| anyhow::anyhow!("there are no more pictures"))?);
        }
        match guided.map_or(Ok(()), |pose| self.bench.confirm_arm(&pose)) {
            Ok(()) => {}
            Err(StepError::Arm(error)) => return Ok(Report::PoseRefused(error.to_string())),
            Err(error) => return Err(error.into()),
        }
        let mut lines = Vec::new();
        let mut hand = guided;
        for (camera, mut shot) in shots.into_iter().enumerate() {
            shot.name.clone_from(&name);
            hand = hand.or(shot.T_base_hand);
            let picture = self.look(camera, &shot, (index == 0).then_some(kind))?;
            let tags = &self.settings.hand;
            let of_hand = |d: &TagDetection| tags.iter().any(|tag| tag.id == d.id);
            if !tags.is_empty() && hand.is_some() && !picture.detections.iter().any(of_hand) {
                lines.push(format!("  {}: the tag in the gripper is not in view", self.posed[camera].name));
            }
            self.posed[camera].size_px = [shot.grey.width(), shot.grey.height()];
            self.posed[camera].pictures.push(picture);
        }
        self.arm_poses.extend(hand.map(|pose| (name, pose)));
        let outlook = match hand {
            Some(hand) if step == Step::Place => self.look_ahead(index, &hand, &mut lines)?,
            _ => Outlook::Open,
        };
        Ok(Report::Pose { lines, outlook })
    }

    /// What the poses so far come to, and where the hand should go from `hand`.
    fn look_ahead(&mut self, index: usize, hand: &Pose, lines: &mut Vec<String>) -> anyhow::Result<Outlook> {
        self.next_hand = None;
        let cameras = self.of_placing();
        let sight = outlook(self.draft()?.calibration(), &self.place_input(&cameras))?;
        let found: outlook::Outlook = match sight {
            Ok(found) => found,
            Err(why) => {
                // With fewer poses there is nothing to wonder at.
                if index + 1 >= SolveSettings::default().min_stations {
                    lines.push(format!("  {why}"));
                }
                return Ok(Outlook::Open);
            }
        };
        lines.push(format!("  {}", found.summary()));
        self.next_hand = found.next.as_ref().map(|next| next.T_base_hand());
        let next = self.next_hand.as_ref().map(|next| way(hand, next));
        Ok(Outlook::Seen { missing: found.missing(), next })
    }

    /// All pictures of the placing.
    fn of_placing(&self) -> Vec<Pictures> {
        let mut cameras = self.rest.clone();
        for (camera, posed) in cameras.iter_mut().zip(&self.posed) {
            camera.pictures.extend_from_slice(&posed.pictures);
            if camera.size_px == [0, 0] {
                camera.size_px = posed.size_px;
            }
        }
        cameras
    }

    fn place_input<'a>(&'a self, cameras: &'a [Pictures]) -> PlaceInput<'a> {
        PlaceInput {
            cameras,
            board: &self.settings.layout.base_tags,
            hand: &self.settings.hand,
            arm_poses: &self.arm_poses,
            assume_focal_px: self.settings.assume_focal_px,
        }
    }

    pub(super) fn place(&mut self) -> anyhow::Result<Report> {
        let cameras = self.of_placing();
        let date = (self.settings.now)();
        let placed = place::place(self.draft()?.calibration(), &self.place_input(&cameras), &date)?;
        let grade = worst(&placed.findings);
        let mut lines = finding_lines(&placed.findings);
        for camera in &placed.cameras {
            if let Some(place) = &camera.place {
                let half = |i: usize| 1.96e3 * place.covariance[i][i].max(0.0).sqrt();
                let [x, y, z] = place.position_m;
                lines.push(format!(
                    "     {} in april {x:.4}, {y:.4}, {z:.4} m (95 % within {:.2}, {:.2}, {:.2} mm)",
                    camera.name,
                    half(0),
                    half(1),
                    half(2)
                ));
            }
        }
        let report = serde_json::to_vec_pretty(&placed.report())?;
        let draft = self.draft_mut()?;
        draft.write_file("place.json", &report)?;
        if grade != Grade::Fail {
            draft.change(|calibration| {
                placed.cameras.iter().for_each(|camera| calibration.put_camera(camera.clone()));
                if placed.board.is_some() {
                    calibration.board.clone_from(&placed.board);
                }
                // It was of other places.
                calibration.proof = None;
            })?;
            self.end(Step::Place)?;
        }
        Ok(Report::Result { grade, lines })
    }
}
