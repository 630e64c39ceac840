//! Bundles: written whole or not at all, checked before anything runs, each step made by the right network.

mod common;
#[path = "common/policy.rs"]
mod policy;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{engines, relative_error};
use policy::{provenance, spec};
use tenon_core::diffusion::{Denoiser, SampleScratch, StepNoise, denoise, sample};
use tenon_core::network::{Activation, NetworkSpec};
use tenon_core::noise::SeededNoise;
use tenon_core::spec::{PolicySpec, Sampler};
use tenon_policy::bundle::MANIFEST;
use tenon_policy::engine::{Input, Session};
use tenon_policy::graph::{Dims, NetworkGraph, Parameters, random_parameters};
use tenon_policy::parity::{ParityInputs, compare};
use tenon_policy::{Bundle, BundleContent, BundleWriter, Engine, OnnxDenoiser, PolicyError};

fn network() -> NetworkSpec {
    NetworkSpec::diffusion_mlp(16, &[64; 3], &[], Activation::ReLU)
}

struct Policy {
    spec: PolicySpec,
    base: Parameters,
    finetuned: Parameters,
}

impl Policy {
    fn new(spec: PolicySpec) -> Self {
        let dims = Dims::of(&spec);
        Self { base: random_parameters(&network(), &dims, 1), finetuned: random_parameters(&network(), &dims, 2), spec }
    }

    fn write(&self, folder: &Path, replace: bool) -> Result<PathBuf, PolicyError> {
        let content = BundleContent {
            spec: &self.spec,
            network: &network(),
            base: Some(&self.base),
            finetuned: Some(&self.finetuned),
            provenance: &provenance(),
        };
        BundleWriter::create(folder, replace, &content)?.commit()
    }

    /// The single graph of one of its networks as a reference of its own.
    fn single(&self, parameters: &Parameters) -> Session {
        let (network, dims) = (network(), Dims::of(&self.spec));
        let graph = NetworkGraph::new(&network, dims, parameters).unwrap();
        Session::load(Engine::Tract, "single", &graph.single_step(), 1).unwrap()
    }
}

/// DDPM, K = 20, K' = 10: what the demo deploys.
fn demo_policy() -> Policy {
    Policy::new(spec(Sampler::Ddpm, 20, 10))
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn each_step_is_made_by_its_network() {
    let temporary = tempfile::tempdir().unwrap();
    let policy = demo_policy();
    let bundle = Bundle::open(policy.write(&temporary.path().join("p"), false).unwrap()).unwrap();
    let state = [0.3, -0.2, 0.25, -0.1];
    let x = [0.5, -1.0, 0.1, 0.2, -0.3, 0.9, 1.5, -0.7];
    for engine in engines() {
        let mut denoiser = bundle.denoiser(engine).unwrap();
        denoiser.condition(&state).unwrap();
        let (mut base, mut finetuned) = (policy.single(&policy.base), policy.single(&policy.finetuned));
        let mut made_by_finetuned = 0;
        for step in bundle.steps(StepNoise::Evaluation) {
            let (mut found, mut expected, mut other) = ([0.0; 8], [0.0; 8], [0.0; 8]);
            denoiser.predict_noise(&step, &x, &mut found).unwrap();
            let t = [step.t as i64];
            let inputs = [Input::F32(&x), Input::I64(&t), Input::F32(&state)];
            base.run(&inputs, &mut [&mut expected]).unwrap();
            finetuned.run(&inputs, &mut [&mut other]).unwrap();
            if step.t < 10 {
                std::mem::swap(&mut expected, &mut other);
                made_by_finetuned += 1;
            }
            assert!(relative_error(&found, &expected) <= 2e-5, "{engine} t = {}", step.t);
            assert!(relative_error(&found, &other) > 1e-2, "{engine} t = {}: the networks must differ", step.t);
        }
        assert_eq!(made_by_finetuned, 10);
    }
}

#[test]
fn networks_that_no_step_uses_are_left_out() {
    let temporary = tempfile::tempdir().unwrap();
    for (finetuned, files) in [(0, "base"), (5, "finetuned")] {
        let folder = temporary.path().join(files);
        Policy::new(spec(Sampler::Ddim { steps: 5 }, 100, finetuned)).write(&folder, false).unwrap();
        assert_eq!(names(&folder), [format!("{files}_encoder.onnx"), format!("{files}_step.onnx"), MANIFEST.into()]);
        Bundle::open(&folder).unwrap().denoiser(Engine::Tract).unwrap();
    }
}

#[test]
fn a_chunk_is_the_same_every_time_and_the_state_matters() {
    let temporary = tempfile::tempdir().unwrap();
    let bundle = Bundle::open(demo_policy().write(&temporary.path().join("p"), false).unwrap()).unwrap();
    let steps = bundle.steps(StepNoise::Evaluation);
    let chunk = |denoiser: &mut OnnxDenoiser, state: [f32; 4]| {
        let mut x = [0.0; 8];
        denoiser.condition(&state).unwrap();
        let mut scratch = SampleScratch::new(8);
        sample(denoiser, &steps, bundle.clips(), &mut SeededNoise::new(3, 0), &mut scratch, &mut x).unwrap();
        x
    };
    for engine in engines() {
        let mut denoiser = bundle.denoiser(engine).unwrap();
        let first = chunk(&mut denoiser, [0.1; 4]);
        assert_ne!(chunk(&mut denoiser, [-0.6; 4]), first);
        assert_eq!(chunk(&mut denoiser, [0.1; 4]), first);
        assert_eq!(chunk(&mut bundle.denoiser(engine).unwrap(), [0.1; 4]), first);
    }
}

#[test]
fn bad_states_and_a_missing_condition_are_errors() {
    let temporary = tempfile::tempdir().unwrap();
    let bundle = Bundle::open(demo_policy().write(&temporary.path().join("p"), false).unwrap()).unwrap();
    let mut denoiser = bundle.denoiser(Engine::Tract).unwrap();
    let step = bundle.steps(StepNoise::Evaluation)[0];
    let mut noise = [0.0; 8];
    assert!(denoiser.predict_noise(&step, &[0.0; 8], &mut noise).is_err());
    assert!(denoiser.condition(&[0.0; 3]).unwrap_err().to_string().contains("expected 4 values, found 3"));
    assert!(denoiser.condition(&[0.0, f32::NAN, 0.0, 0.0]).unwrap_err().to_string().contains("value 1 is NaN"));
    assert!(denoiser.predict_noise(&step, &[0.0; 8], &mut noise).is_err(), "the failed condition must not be used");
    denoiser.condition(&[0.0; 4]).unwrap();
    assert!(denoiser.predict_noise(&step, &[0.0; 7], &mut noise).is_err());
    assert!(denoiser.predict_noise(&step, &[0.0; 8], &mut noise[..7]).is_err());
}

#[test]
fn an_existing_bundle_is_replaced_only_when_asked_for() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("p");
    let policy = demo_policy();
    policy.write(&folder, false).unwrap();
    let before = fs::read(folder.join(MANIFEST)).unwrap();
    assert!(matches!(policy.write(&folder, false), Err(PolicyError::Exists { .. })));
    let other = Policy::new(spec(Sampler::Ddim { steps: 5 }, 100, 0));
    other.write(&folder, true).unwrap();
    assert_ne!(fs::read(folder.join(MANIFEST)).unwrap(), before);
    assert_eq!(names(&folder), ["base_encoder.onnx", "base_step.onnx", MANIFEST]);
    assert_eq!(names(temporary.path()), ["p"], "nothing is left beside the bundle");
    // A folder of something else is never replaced.
    let foreign = temporary.path().join("photos");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("a.png"), "").unwrap();
    assert!(matches!(policy.write(&foreign, true), Err(PolicyError::Exists { .. })));
    assert_eq!(names(&foreign), ["a.png"]);
}

#[test]
fn a_discarded_or_failed_bundle_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("deep/p");
    let policy = demo_policy();
    let (network, provenance) = (network(), provenance());
    let mut content = BundleContent {
        spec: &policy.spec,
        network: &network,
        base: Some(&policy.base),
        finetuned: Some(&policy.finetuned),
        provenance: &provenance,
    };
    let writer = BundleWriter::create(&folder, false, &content).unwrap();
    writer.open().unwrap().denoiser(Engine::Tract).unwrap();
    writer.discard().unwrap();
    assert!(names(&temporary.path().join("deep")).is_empty());
    content.finetuned = None;
    let error = BundleWriter::create(&folder, false, &content).unwrap_err().to_string();
    assert!(error.contains("finetuned network"), "{error}");
    let mut wrong = policy.finetuned.clone();
    wrong.get_mut("mlp_mean.layers.1.l1.bias").unwrap().data[3] = f32::NAN;
    content.finetuned = Some(&wrong);
    let error = BundleWriter::create(&folder, false, &content).unwrap_err().to_string();
    assert!(error.contains("mlp_mean.layers.1.l1.bias") && error.contains("value 3 is NaN"), "{error}");
    assert!(names(&temporary.path().join("deep")).is_empty());
}

/// Every way to damage a bundle, and what the error must name.
#[test]
fn damaged_bundles_are_refused_by_name() {
    let temporary = tempfile::tempdir().unwrap();
    let policy = demo_policy();
    let edit = |folder: &Path, from: &str, to: &str| {
        let text = fs::read_to_string(folder.join(MANIFEST)).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(folder.join(MANIFEST), text.replacen(from, to, 1)).unwrap();
    };
    // Puts other bytes in place of a file, with the right hash, as a careless tool would.
    let swap = |folder: &Path, file: &str, bytes: &[u8]| {
        let old = tenon_policy::bundle::sha256(&fs::read(folder.join(file)).unwrap());
        fs::write(folder.join(file), bytes).unwrap();
        edit(folder, &old, &tenon_policy::bundle::sha256(bytes));
    };
    let graph = |dims: Dims, mlp: usize| {
        let network = NetworkSpec::diffusion_mlp(16, &[mlp; 3], &[], Activation::ReLU);
        let parameters = random_parameters(&network, &dims, 1);
        NetworkGraph::new(&network, dims, &parameters).unwrap().split(&[0]).unwrap().step
    };
    let dims = Dims::of(&policy.spec);
    type Damage<'a> = Box<dyn Fn(&Path) + 'a>;
    let cases: BTreeMap<&str, (Damage, &[&str])> = BTreeMap::from([
        (
            "no manifest",
            (
                Box::new(|f: &Path| fs::remove_file(f.join(MANIFEST)).unwrap()) as Damage,
                &["policy.json", "no such file"][..],
            ),
        ),
        (
            "missing file",
            (Box::new(|f: &Path| fs::remove_file(f.join("base_step.onnx")).unwrap()), &["base_step.onnx", "not there"]),
        ),
        (
            "changed file",
            (
                Box::new(|f: &Path| {
                    let mut bytes = fs::read(f.join("base_step.onnx")).unwrap();
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    fs::write(f.join("base_step.onnx"), bytes).unwrap();
                }),
                &["base_step.onnx", "SHA-256"],
            ),
        ),
        (
            "truncated file",
            (
                Box::new(|f: &Path| {
                    let bytes = fs::read(f.join("base_step.onnx")).unwrap();
                    swap(f, "base_step.onnx", &bytes[..bytes.len() - 100]);
                }),
                &["base_step.onnx", "not an ONNX file"],
            ),
        ),
        (
            "encoder in place of step",
            (
                Box::new(|f: &Path| {
                    let bytes = fs::read(f.join("base_encoder.onnx")).unwrap();
                    swap(f, "base_step.onnx", &bytes);
                }),
                &["base_step.onnx", "inputs", "x, features", "state"],
            ),
        ),
        (
            "wrong tensor name",
            (
                Box::new(|f: &Path| {
                    let bytes = fs::read(f.join("base_step.onnx")).unwrap();
                    // Same length, so that the file stays valid.
                    let mut renamed = bytes;
                    while let Some(at) = renamed.windows(8).position(|w| w == b"features") {
                        renamed[at..at + 8].copy_from_slice(b"festures");
                    }
                    swap(f, "base_step.onnx", &renamed);
                }),
                &["base_step.onnx", "x, features", "x, festures"],
            ),
        ),
        (
            "wrong chunk shape",
            (
                Box::new(|f: &Path| swap(f, "finetuned_step.onnx", &graph(Dims { action_dim: 3, ..dims }, 64))),
                &["finetuned_step.onnx", "`x`", "[1, 4, 2]", "[1, 4, 3]"],
            ),
        ),
        (
            "wrong width",
            (
                Box::new(|f: &Path| swap(f, "finetuned_step.onnx", &graph(dims, 32))),
                &["finetuned_step.onnx", "`features`", "[1, 64]", "[1, 32]"],
            ),
        ),
        (
            "truncated manifest",
            (
                Box::new(|f: &Path| {
                    let text = fs::read(f.join(MANIFEST)).unwrap();
                    fs::write(f.join(MANIFEST), &text[..text.len() / 2]).unwrap();
                }),
                &["policy.json", "EOF"],
            ),
        ),
        (
            "unknown key",
            (Box::new(|f: &Path| edit(f, "\"seed\"", "\"sead\": 1, \"seed\"")), &["policy.json", "sead", "line"]),
        ),
        (
            "unknown key in the spec",
            (Box::new(|f: &Path| edit(f, "\"period_s\"", "\"periods\": 1, \"period_s\"")), &["policy.json", "periods"]),
        ),
        (
            "pictures of a policy that sees none",
            (
                Box::new(|f: &Path| {
                    let seen = r#""pictures": { "quality": "fast", "cameras": ["front"] }, "period_s""#;
                    edit(f, "\"period_s\"", seen);
                }),
                &["policy.json", "fast", "sees no pictures"],
            ),
        ),
        (
            "unknown quality",
            (
                Box::new(|f: &Path| {
                    let seen = r#""pictures": { "quality": "medium", "cameras": ["front"] }, "period_s""#;
                    edit(f, "\"period_s\"", seen);
                }),
                &["policy.json", "medium", "`exact` or `fast`", "line"],
            ),
        ),
        (
            "other format",
            (
                Box::new(|f: &Path| edit(f, "\"format_version\": 1", "\"format_version\": 9")),
                &["policy.json", "format_version 9"],
            ),
        ),
        (
            "other spec version",
            (
                Box::new(|f: &Path| edit(f, "\"spec_version\": 1", "\"spec_version\": 9, \"new_key\": 1")),
                &["policy.json", "spec version 9"],
            ),
        ),
        (
            "inconsistent spec",
            (
                Box::new(|f: &Path| edit(f, "\"action_horizon\": 4", "\"action_horizon\": 9")),
                &["policy.json", "action horizon 9"],
            ),
        ),
        (
            "other schedule",
            (
                Box::new(|f: &Path| edit(f, "\"finetuned_steps\": 10", "\"finetuned_steps\": 5")),
                &["policy.json", "base network", "exported for steps"],
            ),
        ),
        (
            "path in a file name",
            (
                Box::new(|f: &Path| edit(f, "\"base_step.onnx\"", "\"../base_step.onnx\"")),
                &["policy.json", "plain name"],
            ),
        ),
        (
            "network that cannot be",
            (Box::new(|f: &Path| edit(f, "\"time_dim\": 16", "\"time_dim\": 3")), &["policy.json", "time_dim = 3"]),
        ),
    ]);
    let sound = temporary.path().join("sound");
    policy.write(&sound, false).unwrap();
    for (name, (damage, words)) in &cases {
        let folder = temporary.path().join(name.replace(' ', "_"));
        fs::create_dir(&folder).unwrap();
        for file in names(&sound) {
            fs::copy(sound.join(&file), folder.join(&file)).unwrap();
        }
        Bundle::open(&folder).unwrap_or_else(|e| panic!("{name}, before the damage: {e}"));
        damage(&folder);
        let error = match Bundle::open(&folder) {
            Ok(_) => panic!("{name}: opened"),
            Err(e) => e.to_string(),
        };
        println!("{name}: {error}");
        for word in *words {
            assert!(error.contains(word), "{name}: `{word}` is not in: {error}");
        }
    }
}

/// A denoiser that errs now and then: what parity must catch.
struct Deviating {
    inner: OnnxDenoiser,
    scale: f32,
    every: usize,
    chains: usize,
}

impl Denoiser for Deviating {
    type Error = PolicyError;

    fn condition(&mut self, state: &[f32]) -> Result<(), PolicyError> {
        self.chains += 1;
        self.inner.condition(state)
    }

    fn predict_noise(
        &mut self,
        step: &tenon_core::diffusion::DenoisingStep,
        x: &[f32],
        noise: &mut [f32],
    ) -> Result<(), PolicyError> {
        self.inner.predict_noise(step, x, noise)?;
        if self.chains.is_multiple_of(self.every) {
            noise.iter_mut().for_each(|n| *n *= self.scale);
        }
        Ok(())
    }
}

#[test]
fn parity_passes_between_the_engines_and_catches_a_deviating_network() {
    let temporary = tempfile::tempdir().unwrap();
    let policy = demo_policy();
    let bundle = Bundle::open(policy.write(&temporary.path().join("p"), false).unwrap()).unwrap();
    let inputs = ParityInputs::draw(&policy.spec, policy.spec.diffusion().unwrap(), 1000, 5);
    let tract = || bundle.denoiser(Engine::Tract).unwrap();
    for engine in engines() {
        let report = compare(&inputs, &mut bundle.denoiser(engine).unwrap(), None, &mut tract()).unwrap();
        println!("{engine}: {report}");
        report.check().unwrap();
        assert_eq!((report.chains, report.within + report.outliers), (1000, 1000));
    }
    let deviating = |scale, every| Deviating { inner: tract(), scale, every, chains: 0 };
    // A small error in every step, and a large one in every 50th chain (2 %).
    for mut reference in [deviating(1.001, 1), deviating(1.5, 50)] {
        let report = compare(&inputs, &mut reference, None, &mut tract()).unwrap();
        println!("{report}");
        let error = report.check().unwrap_err().to_string();
        assert!(error.contains("nothing was written") && !report.worst.is_empty(), "{error}");
    }
    let chunks = inputs.run(&mut tract()).unwrap();
    compare(&inputs, &mut tract(), Some(&chunks), &mut tract()).unwrap().check().unwrap();
}

#[test]
fn a_network_asked_for_steps_it_lacks_says_which() {
    let temporary = tempfile::tempdir().unwrap();
    let policy = Policy::new(spec(Sampler::Ddim { steps: 5 }, 100, 0));
    let bundle = Bundle::open(policy.write(&temporary.path().join("p"), false).unwrap()).unwrap();
    let mut denoiser = bundle.denoiser(Engine::Tract).unwrap();
    let mut other = policy.spec.diffusion().unwrap().clone();
    other.sampler = Sampler::Ddim { steps: 4 };
    let mut x = [0.5; 8];
    denoiser.condition(&[0.0; 4]).unwrap();
    let error = denoise(
        &mut denoiser,
        &other.steps(StepNoise::Evaluation),
        bundle.clips(),
        &mut SeededNoise::new(0, 0),
        &mut SampleScratch::new(8),
        &mut x,
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains("t = 75") && error.contains("[80, 60, 40, 20, 0]"), "{error}");
}
