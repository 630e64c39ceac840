//! Whether covariances are true, and whether anything at all can break the filter.

use super::*;
use crate::time::Stamped;

/// Squared error of the estimate's pose in units of its covariance.
fn nees(estimate: &PartEstimate, truth: &Pose) -> f64 {
    let e = pose_error(&estimate.T_april_part, truth);
    let P = Cholesky::new(estimate.covariance.unwrap()).expect("a covariance is positive definite");
    e.dot(&P.solve(&e))
}

/// Mean NEES after 20 and 200 frames over many seeds, of a truth that moves by exactly the model's noise.
fn mean_nees(
    config: PartFilterConfig,
    seeds: u64,
    mut step: impl FnMut(&mut ChaCha8Rng, &mut Pose, &mut Vector6<f64>),
) -> [f64; 2] {
    let mut sums = [0.0; 2];
    for seed in 0..seeds {
        let mut rng = rng(1000 + seed);
        let mut filter = PartFilter::new(config, AgeLimits::default(), GripConfig::default(), frame(0));
        let mut truth = random_pose(&mut rng);
        // Twist in its stationary distribution.
        let mut twist = match config.motion {
            MotionConfig::RandomWalk(_) => Vector6::zeros(),
            MotionConfig::ConstantVelocity(c) => Vector6::from_fn(|i, _| {
                let q = if i < 3 { c.moving_m_s2_per_sqrt_hz } else { c.moving_rad_s2_per_sqrt_hz };
                q * (0.5 * c.velocity_memory_s).sqrt() * normal(&mut rng)
            }),
        };
        for n in 0..200 {
            let R = skewed_covariance(&mut rng, 0.002, 1.5);
            filter.update(&measurement(noisy(&mut rng, &truth, &R), R, frame(n)), frame(n));
            let estimate = filter.estimate(frame(n), None).unwrap();
            match n {
                19 => sums[0] += nees(&estimate, &truth),
                199 => sums[1] += nees(&estimate, &truth),
                _ => {}
            }
            step(&mut rng, &mut truth, &mut twist);
        }
    }
    sums.map(|s| s / seeds as f64)
}

#[test]
fn the_covariance_of_a_wandering_part_is_true() {
    let config = PartFilterConfig::default();
    let MotionConfig::RandomWalk(c) = config.motion else { panic!("the default is a random walk") };
    let root_dt = (FRAME_NS as f64 * 1e-9).sqrt();
    let seeds = 1000;
    let mean = mean_nees(config, seeds, |rng, truth, _| {
        let step = Vector6::from_fn(|i, _| {
            root_dt * normal(rng) * if i < 3 { c.rest_m_per_sqrt_s } else { c.rest_rad_per_sqrt_s }
        });
        *truth = moved(truth, &step);
    });
    // χ² with 6 degrees of freedom: mean 6, variance 12; 3.5 standard deviations of the mean.
    let bound = 3.5 * (12.0 / seeds as f64).sqrt();
    println!("mean NEES {:.3} and {:.3}, bounds 6 ± {bound:.3}", mean[0], mean[1]);
    assert!(mean.iter().all(|m| (m - 6.0).abs() < bound), "{mean:?}");
}

#[test]
fn the_covariance_of_a_part_with_velocity_is_true() {
    let c = ConstantVelocityConfig {
        rest_m_s2_per_sqrt_hz: 0.1,
        rest_rad_s2_per_sqrt_hz: 0.6,
        moving_m_s2_per_sqrt_hz: 0.1,
        moving_rad_s2_per_sqrt_hz: 0.6,
        velocity_memory_s: 0.5,
    };
    let config = PartFilterConfig { motion: MotionConfig::ConstantVelocity(c), ..Default::default() };
    let seeds = 1000;
    let substeps = 50;
    let h = FRAME_NS as f64 * 1e-9 / f64::from(substeps);
    let mean = mean_nees(config, seeds, |rng, truth, twist| {
        for _ in 0..substeps {
            *truth = moved(truth, &(*twist * h));
            *twist *= (-h / c.velocity_memory_s).exp();
            *twist += Vector6::from_fn(|i, _| {
                let q = if i < 3 { c.rest_m_s2_per_sqrt_hz } else { c.rest_rad_s2_per_sqrt_hz };
                q * h.sqrt() * normal(rng)
            });
        }
    });
    let bound = 3.5 * (12.0 / seeds as f64).sqrt();
    println!("mean NEES {:.3} and {:.3}, bounds 6 ± {bound:.3}", mean[0], mean[1]);
    assert!(mean.iter().all(|m| (m - 6.0).abs() < bound), "{mean:?}");
}

#[test]
fn at_rest_the_covariance_is_no_smaller_than_the_errors() {
    let mean = mean_nees(PartFilterConfig::default(), 300, |_, _, _| {});
    println!("mean NEES at rest {:.3} and {:.3}", mean[0], mean[1]);
    assert!(mean.iter().all(|m| *m < 6.0 + 3.5 * (12.0f64 / 300.0).sqrt()), "{mean:?}");
}

/// Any sequence of measurements and events, good or broken, in any order of times.
#[test]
fn no_sequence_of_inputs_ends_in_a_number_that_is_not_finite_or_in_an_old_pose() {
    for (seed, config) in
        (0..200).map(|s| (s, if s % 2 == 0 { PartFilterConfig::default() } else { constant_velocity() }))
    {
        let mut rng = rng(seed);
        let mut filter = PartFilter::new(config, AgeLimits::default(), GripConfig::default(), millis(0));
        let (mut truth, mut now_ms, mut outcomes) = (random_pose(&mut rng), 0i64, 0u64);
        for _ in 0..500 {
            now_ms += rng.random_range(-5..60);
            if rng.random_bool(0.02) {
                truth = random_pose(&mut rng);
            }
            let size_m = 10f64.powf(rng.random_range(-5.0..-1.0));
            let R = skewed_covariance(&mut rng, size_m, 1.0);
            let mut m = measurement(
                noisy(&mut rng, &truth, &covariance(0.002, 2.0)),
                R,
                millis(now_ms - rng.random_range(-3..80)),
            );
            m.ambiguous = rng.random_bool(0.3);
            if rng.random_bool(0.5) {
                m.other = Some((random_pose(&mut rng), R));
            }
            if rng.random_bool(0.5) {
                let sources = rng.random_range(0..4);
                m.systematic = Some(random_systematic(&mut rng, sources, size_m, 1.0));
                m.other_systematic = m.systematic.filter(|_| sources > 1);
            }
            match rng.random_range(0..13) {
                4 => {
                    let wrong = Matrix6::identity() * [f64::NAN, 1e300, f64::INFINITY][rng.random_range(0..3)];
                    m.systematic.get_or_insert_default().set(2, &wrong);
                }
                0 => m.T_april_part.translation.x = [f64::NAN, f64::INFINITY, 1e300, -1e9][rng.random_range(0..4)],
                1 => m.covariance = -m.covariance,
                2 => m.covariance *= [0.0, 1e300, 1e-300, f64::NAN][rng.random_range(0..4)],
                3 => {
                    let zero = nalgebra::Quaternion::new(0.0, 0.0, 0.0, 0.0);
                    m.T_april_part.rotation = UnitQuaternion::new_unchecked(zero);
                }
                _ => {}
            }
            filter.update(&m, millis(now_ms));
            outcomes += 1;
            let tool = Stamped {
                time: millis(now_ms - rng.random_range(0..600)),
                value: moved(&truth, &Vector6::repeat(0.01)),
            };
            if rng.random_bool(0.05) {
                let width_m = [0.03, 0.0, f64::NAN][rng.random_range(0..3)];
                let event = if rng.random_bool(0.5) { GripperEvent::Opening } else { GripperEvent::Closed { width_m } };
                filter.on_gripper_event(event, millis(now_ms), rng.random_bool(0.8).then_some(&tool.value));
            }
            let later = millis(now_ms + rng.random_range(0..700));
            if let Ok(e) = filter.estimate(later, rng.random_bool(0.8).then_some(&tool)) {
                let T = e.T_april_part;
                assert!(T.translation.vector.iter().chain(T.rotation.coords.iter()).all(|v| v.is_finite()), "{e:?}");
                assert!((T.rotation.norm() - 1.0).abs() < 1e-6);
                assert!(e.covariance.unwrap().iter().all(|v| v.is_finite()));
                assert!((0.0..=1.0).contains(&e.confidence), "{e:?}");
                assert!(e.age.as_secs_f64() <= 0.5 && e.state != PartState::Lost);
            }
        }
        let c = filter.counts();
        let refused = c.not_finite
            + c.covariance
            + c.duplicate
            + c.out_of_order
            + c.from_the_future
            + c.too_old
            + c.clock_reversed
            + c.gate
            + c.jump
            + c.ambiguous_start
            + c.held
            + c.other_refusals;
        assert_eq!(c.initialised + c.accepted + c.reacquired + refused, outcomes);
    }
}

#[test]
fn the_mean_of_poses_moves_with_them_whatever_their_order_and_signs() {
    let mut rng = rng(31);
    for _ in 0..2000 {
        let (centre, by) = (random_pose(&mut rng), random_pose(&mut rng));
        let spread = covariance(0.02, rng.random_range(0.1..30.0));
        let mut poses: [Pose; 5] = std::array::from_fn(|_| noisy(&mut rng, &centre, &spread));
        let mean = average_poses(&poses).unwrap();
        poses.reverse();
        for T in &mut poses {
            let sign = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
            T.rotation = UnitQuaternion::new_unchecked(T.rotation.into_inner() * sign);
            *T = by * *T;
        }
        let moved_mean = average_poses(&poses).unwrap();
        assert!(pose_error(&moved_mean, &(by * mean)).norm() < 1e-9);
        // No pose has a smaller sum of squared chords than Markley's mean.
        let cost = |q: &UnitQuaternion<f64>| -> f64 {
            poses.iter().map(|T| 1.0 - T.rotation.coords.dot(&q.coords).powi(2)).sum()
        };
        let beside = UnitQuaternion::from_scaled_axis(Vector3::from_fn(|_, _| 0.01 * normal(&mut rng)));
        assert!(cost(&moved_mean.rotation) <= cost(&(beside * moved_mean.rotation)) + 1e-12);
    }
}
