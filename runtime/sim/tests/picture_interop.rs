//! Pictures that MuJoCo's Python renderer made of the same scenes: tests/interop/pictures.sh names their folder in
//! TENON_PICTURES and runs this. Without it there is nothing to compare with.

use std::path::Path;

use tenon_sim::mujoco::{Model, Simulation};
use tenon_sim::render::{Quality, RenderOptions, Renderer, View, mean_difference};

/// One picture: what was drawn, and how.
#[derive(Debug, serde::Deserialize)]
struct Case {
    /// The scene's file, beside the case.
    model: String,
    camera: String,
    width: u32,
    height: u32,
    geom_groups: [bool; 6],
    qpos: Vec<f64>,
    /// The picture's file, beside the case: `[height, width, 3]`, row 0 at the top.
    picture: String,
    /// How much `fast` may differ, grey levels.
    fast_difference: f64,
}

fn compare(folder: &Path, name: &str, case: &Case) -> bool {
    let model = Model::from_mjcf_file(&folder.join(&case.model)).unwrap();
    let mut world = Simulation::new(&model);
    world.qpos_mut().copy_from_slice(&case.qpos);
    world.forward();
    let theirs = std::fs::read(folder.join(&case.picture)).unwrap();
    let draw = |world: &mut Simulation, quality| {
        let options = RenderOptions {
            quality,
            width: case.width,
            height: case.height,
            views: vec![View::Camera(case.camera.clone())],
            geom_groups: case.geom_groups,
            sites: false,
        };
        let mut renderer = Renderer::new(&model, &options).unwrap();
        let mut picture = vec![0; renderer.picture_len()];
        renderer.render(world, 0, &mut picture).unwrap();
        (picture, renderer.backend().to_owned())
    };
    let (exact, backend) = draw(&mut world, Quality::Exact);
    let (fast, _) = draw(&mut world, Quality::Fast);
    let differing = exact.iter().zip(&theirs).filter(|(a, b)| a != b).count();
    let (of_exact, of_fast) = (mean_difference(&exact, &theirs), mean_difference(&fast, &theirs));
    eprintln!(
        "{name} ({}×{}, {}): exact differs in {differing} of {} bytes, {of_exact:.4} grey levels; fast by {of_fast:.2}; {backend}",
        case.width,
        case.height,
        case.camera,
        theirs.len()
    );
    // A picture of one colour would agree with anything.
    let varied = theirs.iter().any(|&value| value.abs_diff(theirs[0]) > 40);
    differing == 0 && varied && of_fast <= case.fast_difference
}

#[test]
fn exact_pictures_equal_those_of_mujocos_python_renderer() {
    let Some(folder) = std::env::var_os("TENON_PICTURES") else {
        eprintln!("skipped: TENON_PICTURES names no folder (tests/interop/pictures.sh makes one)");
        return;
    };
    let folder = Path::new(&folder);
    let mut cases: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "no case in {}", folder.display());
    let differing: Vec<String> = cases
        .iter()
        .filter_map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let case: Case = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            (!compare(folder, &name, &case)).then_some(name)
        })
        .collect();
    assert!(differing.is_empty(), "{differing:?} differ");
}
