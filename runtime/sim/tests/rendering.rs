//! Pictures of known scenes. Where the machine has no OpenGL library these tests say so and pass.

use tenon_sim::SimError;
use tenon_sim::avoid::{AvoidEnv, AvoidScene};
use tenon_sim::batch::{BatchEnv, BatchOptions, BatchPictures, Environment};
use tenon_sim::gym::{CHUNK_STEPS, GymEnv, GymOptions, GymScene, GymTask};
use tenon_sim::mujoco::{Model, Simulation};
use tenon_sim::render::{Quality, RenderOptions, Renderer, Sight, View, mean_difference};

const SIDE: u32 = 64;

/// A red plate that the camera `front` sees, a green one for `back`, a blue box above both, and before the red plate a
/// white one of group 3 and a yellow site. All light is ambient, so colours come out as they are.
fn plates(red_half_width_m: f64) -> String {
    format!(
        r#"<mujoco>
<visual><headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/></visual>
<worldbody>
<camera name="front" pos="0 -2 0" xyaxes="1 0 0 0 0 1"/>
<camera name="back" pos="0 2 0" xyaxes="-1 0 0 0 0 1"/>
<geom name="red" type="box" size="{red_half_width_m} 0.01 0.3" pos="0 -0.1 0" rgba="1 0 0 1"/>
<geom type="box" size="0.3 0.01 0.3" pos="0 0.1 0" rgba="0 1 0 1"/>
<geom type="box" size="0.1 0.1 0.1" pos="0 0 0.7" rgba="0 0 1 1"/>
<geom type="box" size="0.5 0.01 0.5" pos="0 -0.5 0" rgba="1 1 1 1" group="3"/>
<site type="box" size="0.4 0.01 0.4" pos="0 -0.4 0" rgba="1 1 0 1"/>
<body pos="0 0 -0.7"><joint name="slide" type="slide" axis="1 0 0"/>
<geom type="box" size="0.1 0.1 0.1" rgba="0 1 1 1"/></body>
</worldbody></mujoco>"#
    )
}

fn options(cameras: &[&str]) -> RenderOptions {
    RenderOptions {
        quality: Quality::Exact,
        width: SIDE,
        height: SIDE,
        views: cameras.iter().map(|name| View::Camera((*name).to_owned())).collect(),
        geom_groups: Sight::USUAL_GROUPS,
        sites: false,
    }
}

/// `None`, with a line that says why, on a machine that cannot draw.
fn renderer(model: &Model, options: &RenderOptions) -> Option<Renderer> {
    match Renderer::new(model, options) {
        Ok(renderer) => Some(renderer),
        Err(error @ SimError::NoGl { .. }) => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn world(model: &Model) -> Simulation {
    let mut world = Simulation::new(model);
    world.forward();
    world
}

fn draw(renderer: &mut Renderer, world: &mut Simulation, view: usize) -> Vec<u8> {
    let mut picture = vec![0; renderer.picture_len()];
    renderer.render(world, view, &mut picture).unwrap();
    picture
}

fn pixel(picture: &[u8], row: u32, column: u32) -> [u8; 3] {
    let at = ((row * SIDE + column) * 3) as usize;
    [picture[at], picture[at + 1], picture[at + 2]]
}

const MIDDLE: u32 = SIDE / 2;

#[test]
fn a_red_plate_is_red_in_the_middle_and_row_0_is_the_top() {
    let model = Model::from_mjcf(&plates(0.3)).unwrap();
    let Some(mut renderer) = renderer(&model, &options(&["front", "back"])) else { return };
    let mut world = world(&model);
    let front = draw(&mut renderer, &mut world, 0);
    assert_eq!(pixel(&front, MIDDLE, MIDDLE), [255, 0, 0]);
    assert_eq!(pixel(&front, 5, MIDDLE), [0, 0, 255], "the blue box is above");
    assert_eq!(pixel(&front, SIDE - 6, MIDDLE), [0, 255, 255], "the other one below");
    assert_eq!(pixel(&front, MIDDLE, 2), [0, 0, 0], "nothing at the side");
    let back = draw(&mut renderer, &mut world, 1);
    assert_eq!(pixel(&back, MIDDLE, MIDDLE), [0, 255, 0]);
    assert!(!renderer.backend().is_empty());
}

#[test]
fn what_moves_to_the_right_is_drawn_further_to_the_right() {
    let model = Model::from_mjcf(&plates(0.3)).unwrap();
    let Some(mut renderer) = renderer(&model, &options(&["front", "back"])) else { return };
    let mut world = world(&model);
    world.qpos_mut()[0] = 0.5;
    world.place();
    let cyan_columns = |picture: &[u8]| -> Vec<u32> {
        (0..SIDE).filter(|&column| pixel(picture, SIDE - 6, column) == [0, 255, 255]).collect()
    };
    let (front, back) = (draw(&mut renderer, &mut world, 0), draw(&mut renderer, &mut world, 1));
    let (front, back) = (cyan_columns(&front), cyan_columns(&back));
    assert!(!front.is_empty() && front.iter().all(|&column| column > MIDDLE), "{front:?}");
    assert!(!back.is_empty() && back.iter().all(|&column| column < MIDDLE), "{back:?}");
}

#[test]
fn groups_and_sites_are_drawn_only_when_asked_for() {
    let model = Model::from_mjcf(&plates(0.3)).unwrap();
    let hidden = options(&["front"]);
    let with_group = RenderOptions { geom_groups: [false, false, false, true, false, false], ..hidden.clone() };
    let with_sites = RenderOptions { sites: true, ..hidden.clone() };
    for (options, expected) in [(hidden, [255, 0, 0]), (with_group, [255, 255, 255]), (with_sites, [255, 255, 0])] {
        let Some(mut renderer) = renderer(&model, &options) else { return };
        assert_eq!(pixel(&draw(&mut renderer, &mut world(&model), 0), MIDDLE, MIDDLE), expected, "{options:?}");
    }
}

#[test]
fn views_come_as_planes_of_one_colour_each() {
    let model = Model::from_mjcf(&plates(0.3)).unwrap();
    let Some(mut renderer) = renderer(&model, &options(&["back", "front"])) else { return };
    let mut world = world(&model);
    let plane = (SIDE * SIDE) as usize;
    let mut planes = vec![7; 6 * plane];
    renderer.render_channels(&mut world, &mut planes).unwrap();
    for view in 0..2 {
        let picture = draw(&mut renderer, &mut world, view);
        for (at, value) in picture.iter().enumerate() {
            assert_eq!(planes[(3 * view + at % 3) * plane + at / 3], *value, "view {view}, byte {at}");
        }
    }
}

#[test]
fn bad_requests_say_what_is_wrong() {
    let model = Model::from_mjcf(&plates(0.3)).unwrap();
    let message = |options: &RenderOptions| Renderer::new(&model, options).unwrap_err().to_string();
    let unknown = message(&options(&["side"]));
    assert!(unknown.contains("\"side\"") && unknown.contains("front, back"), "{unknown}");
    let empty = message(&RenderOptions { width: 0, ..options(&["front"]) });
    assert!(empty.contains("0×64"), "{empty}");
    let Some(mut renderer) = renderer(&model, &options(&["front"])) else { return };
    let mut own = world(&model);
    let short = renderer.render(&mut own, 0, &mut [0; 10]).unwrap_err().to_string();
    assert!(short.contains("10 bytes") && short.contains("12288"), "{short}");
    let view = renderer.render(&mut own, 1, &mut vec![0; 12288]).unwrap_err();
    assert!(matches!(view, SimError::UnknownView { view: 1, views: 1 }), "{view}");
}

#[test]
fn worlds_of_a_like_model_are_drawn_with_their_own_sizes_and_others_refused() {
    let model = Model::from_mjcf(&plates(0.3)).unwrap();
    let Some(mut renderer) = renderer(&model, &options(&["front"])) else { return };
    // The red plate's rim stands between columns 16 and 26.
    let probe = MIDDLE - 16;
    assert_eq!(pixel(&draw(&mut renderer, &mut world(&model), 0), MIDDLE, probe), [0, 0, 0]);
    let wider = Model::from_mjcf(&plates(0.5)).unwrap();
    assert_eq!(pixel(&draw(&mut renderer, &mut world(&wider), 0), MIDDLE, probe), [255, 0, 0]);
    // One model for all, and a size of its own in one world.
    let mut own_size = world(&model);
    own_size.draw_as(model.geom("red").unwrap(), [0.5, 0.01, 0.3]);
    assert_eq!(draw(&mut renderer, &mut own_size, 0), draw(&mut renderer, &mut world(&wider), 0));
    assert_eq!(pixel(&draw(&mut renderer, &mut world(&model), 0), MIDDLE, probe), [0, 0, 0], "in that world alone");
    let other = Model::from_mjcf("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>").unwrap();
    let refused = renderer.render(&mut world(&other), 0, &mut vec![0; 12288]).unwrap_err();
    assert!(matches!(refused, SimError::OtherModel), "{refused}");
}

#[test]
fn threads_with_renderers_of_their_own_draw_the_same_and_renderers_may_move() {
    let model = Model::from_mjcf(&plates(0.3)).unwrap();
    let Some(mut first) = renderer(&model, &options(&["front"])) else { return };
    let expected = draw(&mut first, &mut world(&model), 0);
    let pictures: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let moved = scope.spawn(|| draw(&mut first, &mut world(&model), 0));
        let own = || scope.spawn(|| draw(&mut renderer(&model, &options(&["front"])).unwrap(), &mut world(&model), 0));
        let threads = [moved, own(), own()];
        threads.map(|thread| thread.join().unwrap()).into()
    });
    assert!(pictures.iter().all(|picture| *picture == expected));
    assert_eq!(draw(&mut first, &mut world(&model), 0), expected, "back in its first thread");
}

/// A ball as a mesh of 2 · `n`² triangles or so, lit from the side, over a mirror.
fn ball_mesh(n: u32) -> String {
    use std::f64::consts::PI;
    let vertices: String = (0..=n)
        .flat_map(|i| (0..2 * n).map(move |k| (f64::from(i) * PI / f64::from(n), f64::from(k) * PI / f64::from(n))))
        .map(|(polar, around)| {
            let (x, y, z) = (polar.sin() * around.cos(), polar.sin() * around.sin(), polar.cos());
            format!("{:.6} {:.6} {:.6} ", 0.3 * x, 0.3 * y, 0.3 * z)
        })
        .collect();
    let faces: String = (0..n)
        .flat_map(|i| (0..2 * n).map(move |k| (i, k)))
        .map(|(i, k)| {
            let at = |i: u32, k: u32| i * 2 * n + k % (2 * n);
            let (a, b, c, d) = (at(i, k), at(i + 1, k), at(i + 1, k + 1), at(i, k + 1));
            format!("{a} {b} {c} {a} {c} {d} ")
        })
        .collect();
    format!(
        r#"<mujoco>
<asset><mesh name="ball" vertex="{vertices}" face="{faces}"/><material name="mirror" reflectance="0.5" rgba="0.6 0.6 0.6 1"/></asset>
<worldbody>
<light pos="1 -1 2" dir="-0.4 0.4 -1" diffuse="0.8 0.8 0.8"/>
<camera name="front" pos="0 -1.6 0.7" xyaxes="1 0 0 0 0.4 0.9"/>
<geom type="plane" size="2 2 0.1" pos="0 0 -0.3" material="mirror"/>
<geom type="mesh" mesh="ball" rgba="0.9 0.4 0.1 1"/>
</worldbody></mujoco>"#
    )
}

#[test]
fn fast_pictures_have_fewer_triangles_and_neither_shadow_nor_mirror() {
    let model = Model::from_mjcf(&ball_mesh(100)).unwrap();
    let exact_options = options(&["front"]);
    let fast_options = RenderOptions { quality: Quality::Fast, ..exact_options.clone() };
    let Some(mut exact) = renderer(&model, &exact_options) else { return };
    let mut fast = renderer(&model, &fast_options).unwrap();
    let ([whole, drawn], [same, thinned]) = (exact.mesh_triangles(), fast.mesh_triangles());
    assert!(whole == drawn && whole == same && whole > 30_000, "{whole} {drawn} {same}");
    assert!(thinned < whole / 4 && thinned > 500, "{thinned} of {whole}");
    let mut world = world(&model);
    let (exact, fast) = (draw(&mut exact, &mut world, 0), draw(&mut fast, &mut world, 0));
    // The ball itself looks alike …
    for column in [MIDDLE - 4, MIDDLE, MIDDLE + 4] {
        let (a, b) = (pixel(&exact, MIDDLE, column), pixel(&fast, MIDDLE, column));
        assert!(mean_difference(&a, &b) < 12.0, "{a:?} {b:?}");
    }
    // … and the floor does not: its shadow and its mirror image are gone.
    let difference = mean_difference(&exact, &fast);
    assert!((1.0..40.0).contains(&difference), "{difference}");
}

#[test]
fn a_batch_draws_what_each_environment_shows_with_any_number_of_threads() {
    let scene = GymScene::new(GymTask::HOPPER).unwrap();
    let batch = |threads| {
        let environments = (0..5).map(|_| GymEnv::new(&scene, GymOptions::default())).collect();
        let options = BatchOptions { threads, chunk_steps: CHUNK_STEPS, auto_reset: true, seed: 4 };
        let mut batch: BatchEnv<GymEnv> = BatchEnv::new(environments, options).unwrap();
        batch.reset();
        batch
    };
    let look = RenderOptions {
        height: 48,
        ..RenderOptions::of_sight(batch(1).environment_mut(0).sight(), SIDE, SIDE, Quality::Fast)
    };
    assert_eq!(look.views, [View::Camera("track".into())]);
    let Some(mut alone) = renderer(scene.model(), &look) else { return };
    let len = look.picture_len();
    let actions = vec![0.7; 5 * CHUNK_STEPS * GymTask::HOPPER.action_dim()];
    for threads in [1, 3] {
        let (mut seen, mut unseen) = (batch(threads), batch(1));
        let pictures = BatchPictures::new(look.clone(), threads).unwrap();
        let mut shown = vec![0; 5 * len];
        for _ in 0..6 {
            seen.render(&pictures, &mut shown).unwrap();
            unseen.step_chunk(&actions).unwrap();
            seen.step_chunk(&actions).unwrap();
            assert_eq!(seen.observations(), unseen.observations(), "drawing changes nothing");
        }
        seen.render(&pictures, &mut shown).unwrap();
        let mut own = vec![0; len];
        for (index, from_batch) in shown.chunks_exact(len).enumerate() {
            let world = seen.environment_mut(index).world_to_draw().unwrap();
            alone.render_channels(world, &mut own).unwrap();
            assert!(own == from_batch, "{threads} threads, environment {index}");
        }
        assert_ne!(shown[..len], shown[len..2 * len], "two environments look different");
        assert!(pictures.backend().is_some());
        let short = seen.render(&pictures, &mut shown[1..]).unwrap_err();
        assert!(matches!(short, SimError::PictureBuffer { .. }), "{short}");
    }
}

#[test]
fn avoid_shows_the_rod_where_it_is_and_its_physics_is_not_touched() {
    let scene = AvoidScene::new().unwrap();
    let (mut seen, mut unseen) = (AvoidEnv::new(&scene), AvoidEnv::new(&scene));
    let look = RenderOptions::of_sight(seen.sight(), SIDE, SIDE, Quality::Fast);
    let model = seen.world_to_draw().unwrap().model().clone();
    assert_eq!(model.position_dim(), scene.model().position_dim());
    let Some(mut renderer) = renderer(&model, &look) else { return };
    let mut pictures = Vec::new();
    let mut observations = [[0.0; 4]; 2];
    for _ in 0..12 {
        pictures.push(draw(&mut renderer, seen.world_to_draw().unwrap(), 0));
        seen.step(&[0.004, 0.01], &mut observations[0]);
        unseen.step(&[0.004, 0.01], &mut observations[1]);
        assert_eq!(observations[0], observations[1]);
    }
    // The rod is the only thing that is blue; it goes to +y, which is the picture's right.
    let blue_column = |picture: &[u8]| -> f64 {
        let pixels = (0..SIDE * SIDE).map(|i| (i % SIDE, pixel(picture, i / SIDE, i % SIDE)));
        let columns: Vec<f64> = pixels
            .filter(|(_, [r, _, b])| u16::from(*b) > 2 * u16::from(*r) + 30)
            .map(|(column, _)| f64::from(column))
            .collect();
        assert!(columns.len() > 3, "the rod is seen");
        columns.iter().sum::<f64>() / columns.len() as f64
    };
    let (first, last) = (blue_column(&pictures[0]), blue_column(&pictures[11]));
    assert!(last > first + 2.0, "{first} {last}");
}

#[test]
fn a_step_shows_what_is_seen_next_and_what_was_seen_last() {
    let scene = GymScene::new(GymTask::HALF_CHEETAH).unwrap();
    let batch = |auto_reset| {
        let options = GymOptions { episode_steps: 2 * CHUNK_STEPS, ..GymOptions::default() };
        let environments = (0..2).map(|_| GymEnv::new(&scene, options)).collect();
        let options = BatchOptions { threads: 2, chunk_steps: CHUNK_STEPS, auto_reset, seed: 4 };
        let mut batch: BatchEnv<GymEnv> = BatchEnv::new(environments, options).unwrap();
        batch.reset();
        batch
    };
    let look = RenderOptions::of_sight(batch(true).environment_mut(0).sight(), SIDE, SIDE, Quality::Fast);
    if renderer(scene.model(), &look).is_none() {
        return;
    }
    let pictures = BatchPictures::new(look, 2).unwrap();
    let len = 2 * pictures.len_of_one();
    let actions = vec![0.8; 2 * CHUNK_STEPS * GymTask::HALF_CHEETAH.action_dim()];
    let (mut goes_on, mut waits) = (batch(true), batch(false));
    let ([mut now, mut last], [mut seen, mut ended]) = ([vec![0; len], vec![0; len]], [vec![0; len], vec![0; len]]);
    let mut alone = vec![0; len];
    for step in 0..3 {
        goes_on.step_chunk_seen(&actions, &pictures, &mut now, &mut last).unwrap();
        waits.step_chunk_seen(&actions, &pictures, &mut seen, &mut ended).unwrap();
        goes_on.render(&pictures, &mut alone).unwrap();
        assert_eq!(now, alone, "step {step}");
        match step {
            0 => assert_eq!((now == seen, last.iter().all(|&value| value == 0)), (true, true)),
            // The episodes are over: one batch has begun the next, the other shows the end of the last.
            _ => assert_eq!((now == seen, last == ended, seen == ended), (false, true, true), "step {step}"),
        }
    }
}
