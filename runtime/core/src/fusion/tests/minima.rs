//! The choice between the two minima of small planar tags.

use super::*;

/// An ambiguous picture: the truth and its mirror image in the view, vision's favourite first.
fn ambiguous(truth: Pose, false_one: Pose, R: Matrix6<f64>, favours_truth: bool, at: MonotonicTime) -> PartMeasurement {
    let (best, other) = if favours_truth { (truth, false_one) } else { (false_one, truth) };
    PartMeasurement { other: Some((other, R)), ambiguous: true, tags: 1, cameras: 1, ..measurement(best, R, at) }
}

fn unit_vector(rng: &mut ChaCha8Rng) -> Vector3<f64> {
    Vector3::new(normal(rng), normal(rng), normal(rng)).normalize()
}

fn flipped(T: &Pose, axis: &Vector3<f64>, angle_rad: f64, shift_m: f64) -> Pose {
    let w = axis * angle_rad;
    moved(T, &Vector6::new(shift_m, -shift_m, shift_m, w.x, w.y, w.z))
}

#[test]
fn a_hundred_thousand_ambiguous_observations_of_a_correct_state_never_flip() {
    let (mut filter, mut rng, truth) = (filter(), rng(11), part());
    let R = covariance(0.002, 2.5);
    filter.update(&measurement(noisy(&mut rng, &truth, &R), R, frame(0)), frame(0));
    let (mut wrong, mut clear, mut worst_deg) = (0u32, 0u32, 0f64);
    for n in 1..=100_000 {
        let angle_deg = rng.random_range(8.0..80.0f64);
        let away = flipped(&truth, &unit_vector(&mut rng), angle_deg.to_radians(), 0.001);
        let favours_truth = rng.random_bool(0.5);
        let m = ambiguous(noisy(&mut rng, &truth, &R), noisy(&mut rng, &away, &R), R, favours_truth, frame(n));
        let outcome = filter.update(&m, frame(n));
        if angle_deg > 20.0 {
            clear += 1;
            let took_truth = match outcome {
                Outcome::Accepted => favours_truth,
                Outcome::AcceptedOtherMinimum => !favours_truth,
                _ => true,
            };
            wrong += u32::from(!took_truth);
        }
        worst_deg = worst_deg.max(errors(&filter.estimate(frame(n), None).unwrap(), &truth).1);
    }
    println!("{clear} pairs more than 20° apart: {wrong} wrong choices; worst rotation {worst_deg:.2}°");
    println!("{:?}", filter.counts());
    assert_eq!(wrong, 0);
    assert!(worst_deg < 6.0, "{worst_deg}°");
    assert_eq!(filter.counts().reacquired, 0);
    assert!(filter.counts().accepted > 99_000, "{:?}", filter.counts());
}

#[test]
fn an_ambiguous_view_starts_nothing_however_often_it_is_seen() {
    let (mut filter, mut rng, truth, R) = (filter(), rng(12), part(), covariance(0.001, 2.0));
    let away = flipped(&truth, &Vector3::x(), 0.9, 0.001);
    for n in 0..20_000 {
        let favours_truth = rng.random_bool(0.5);
        let m = ambiguous(noisy(&mut rng, &truth, &R), noisy(&mut rng, &away, &R), R, favours_truth, frame(n));
        assert_eq!(filter.update(&m, frame(n)), Outcome::Refused(Refusal::AmbiguousStart));
    }
    assert_eq!(filter.counts().ambiguous_start, 20_000);
    let missing = filter.estimate(frame(20_000), None).unwrap_err();
    assert_eq!(missing, Missing { since: frame(0), why: Why::OnlyAmbiguous });
}

#[test]
fn two_views_whose_false_minima_differ_start_at_the_pose_they_share() {
    let mut rng = rng(13);
    let (R, mut resolved) = (covariance(0.001, 1.0), 0);
    for _ in 0..500 {
        let (mut filter, truth) = (filter(), random_pose(&mut rng));
        for n in 0..2 {
            let away = flipped(&truth, &unit_vector(&mut rng), rng.random_range(0.4..1.2), 0.001);
            let favours_truth = rng.random_bool(0.5);
            let m = ambiguous(noisy(&mut rng, &truth, &R), noisy(&mut rng, &away, &R), R, favours_truth, frame(n));
            filter.update(&m, frame(n));
        }
        if let Ok(estimate) = filter.estimate(frame(1), None) {
            let (mm, deg) = errors(&estimate, &truth);
            assert!(mm < 10.0 && deg < 8.0, "{mm} mm, {deg}°");
            resolved += 1;
        }
    }
    println!("{resolved} of 500 pairs of views resolved");
    assert!(resolved > 400);
}

#[test]
fn an_ambiguous_picture_without_its_second_minimum_proves_nothing() {
    let (mut filter, R) = (filter(), covariance(0.001, 1.0));
    for n in 0..10 {
        let m = PartMeasurement { ambiguous: true, ..measurement(part(), R, frame(n)) };
        assert_eq!(filter.update(&m, frame(n)), Outcome::Refused(Refusal::AmbiguousStart));
    }
}

#[test]
fn minima_closer_than_poses_that_agree_start_with_a_covariance_over_both() {
    let (mut filter, truth, R) = (filter(), part(), covariance(0.001, 1.0));
    let near = flipped(&truth, &Vector3::y(), 6f64.to_radians(), 0.0);
    let m = ambiguous(truth, near, R, true, frame(0));
    assert_eq!(filter.update(&m, frame(0)), Outcome::Initialised);
    let covariance = filter.estimate(frame(0), None).unwrap().covariance.unwrap();
    assert!((covariance[(4, 4)].sqrt().to_degrees() - 37f64.sqrt()).abs() < 1e-3);
}

#[test]
fn ambiguous_pictures_do_not_reacquire_a_part_that_jumped() {
    let (mut filter, R) = (filter(), covariance(0.001, 1.0));
    filter.update(&measurement(part(), R, frame(0)), frame(0));
    let there = moved(&part(), &Vector6::new(0.1, 0.0, 0.0, 0.0, 0.0, 0.0));
    let away = flipped(&there, &Vector3::x(), 0.9, 0.001);
    for n in 1..=15 {
        let outcome = filter.update(&ambiguous(there, away, R, true, frame(n)), frame(n));
        assert_eq!(outcome, Outcome::Refused(Refusal::Jump), "frame {n}");
    }
    let outcome = filter.update(&ambiguous(there, away, R, true, frame(16)), frame(16));
    assert_eq!(outcome, Outcome::Refused(Refusal::AmbiguousStart));
    assert_eq!(filter.state(frame(16)), PartState::Lost);
}

#[test]
fn where_vision_is_sure_of_the_wrong_minimum_the_other_one_is_used_if_it_fits() {
    let (mut filter, R, truth) = (filter(), covariance(0.001, 1.0), part());
    for n in 0..60 {
        filter.update(&measurement(truth, R, frame(n)), frame(n));
    }
    let away = flipped(&truth, &Vector3::x(), 0.9, 0.001);
    let sure = PartMeasurement { ambiguous: false, ..ambiguous(truth, away, R, false, frame(60)) };
    assert_eq!(filter.update(&sure, frame(60)), Outcome::AcceptedOtherMinimum);
    assert_eq!(filter.counts().other_minimum, 1);
    assert!(errors(&filter.estimate(frame(60), None).unwrap(), &truth).1 < 0.1);
}
