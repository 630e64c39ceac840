//! The files below `configs/paper` hold what the tables of spec dppo.md say, and no file is missing.

mod paper_tables;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tenon_core::config::{BatchUnit, FinetuneConfig, PolicyModel, TaskConfig, Values};
use tenon_core::network::{PolicyNetwork, StdSpec, count};
use tenon_core::spec::Sampler;
use tenon_core::task::TaskFamily;

use paper_tables::{ACTORS, AVOID, FILES, FINETUNING, ITERATIONS, PRETRAIN_AND_FINETUNE, PRETRAINING};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/paper")
}

/// Names of a folder's entries.
fn entries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Every listed file, `task/method.stage`.
fn listed() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (tasks, methods, stages) in FILES {
        for task in *tasks {
            for method in *methods {
                names.extend(stages.iter().map(|stage| format!("{task}/{method}.{stage}")));
            }
        }
    }
    names
}

fn text(name: &str) -> String {
    let path = folder().join(format!("{name}.toml"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn read(name: &str, values: Values) -> TaskConfig {
    TaskConfig::parse(&format!("configs/paper/{name}.toml"), &text(name), values).unwrap_or_else(|e| panic!("{e}"))
}

fn finetune_of(config: &TaskConfig) -> &FinetuneConfig {
    config.finetune().expect("the file describes fine-tuning")
}

/// [task, method, stage] of `task/method.stage`.
fn parts(name: &str) -> [&str; 3] {
    let (task, file) = name.split_once('/').unwrap();
    let (method, stage) = file.split_once('.').unwrap();
    [task, method, stage]
}

#[test]
fn the_folder_holds_the_listed_files_and_no_other() {
    let mut found = BTreeSet::new();
    for task in entries(&folder()) {
        if task == "README.md" {
            continue;
        }
        for file in entries(&folder().join(&task)) {
            let name = file.strip_suffix(".toml").unwrap_or_else(|| panic!("{task}/{file} is no configuration"));
            found.insert(format!("{task}/{name}"));
        }
    }
    assert_eq!(found, listed());
    assert_eq!(found.len(), 151);
}

#[test]
fn every_file_reads_back_as_it_was_written() {
    for name in listed() {
        for values in [Values::Latest, Values::Paper] {
            let config = read(&name, values);
            let written = toml::to_string(&config).unwrap();
            assert_eq!(TaskConfig::parse(&name, &written, Values::Latest).unwrap(), config, "{name}");
        }
    }
}

#[test]
fn a_file_describes_its_own_task_and_stage_only() {
    for name in listed() {
        let config = read(&name, Values::Latest);
        let [task, method, stage] = parts(&name);
        assert_eq!(config.task.as_str(), task);
        assert_eq!((config.pretrain.is_some(), config.finetune.is_some()), (stage == "pretrain", stage != "pretrain"));
        assert!(config.demos.is_none() && config.deploy.is_none(), "{name}");
        assert_eq!(config.policy.limits.is_some(), stage == "scratch", "{name}");
        let gaussian = method.starts_with("gaussian") || method.starts_with("gmm");
        assert_eq!(matches!(config.policy.model, PolicyModel::Gaussian(_)), gaussian, "{name}");
        let Some(model) = config.policy.diffusion() else { continue };
        let few = config.task.cameras() > 0 || config.task.family() == TaskFamily::Furniture;
        let (k, finetuned, sampled) = match stage {
            "scratch" => (10, 10, 10),
            _ if few => (100, 5, 5),
            _ => (20, 10, 20),
        };
        let executed = match model.sampler {
            Sampler::Ddpm => model.denoising_steps,
            Sampler::Ddim { steps } => steps,
        };
        let finetuned = if stage == "pretrain" { 0 } else { finetuned };
        assert_eq!((model.denoising_steps, model.finetuned_steps, executed), (k, finetuned, sampled), "{name}");
    }
}

/// The networks of both stages are one, whichever values are meant; else the second could not take the first's weights.
#[test]
fn fine_tuning_continues_its_pre_training() {
    for name in listed() {
        let Some(start) = name.strip_suffix(".finetune") else { continue };
        for values in [Values::Latest, Values::Paper] {
            let (before, now) = (read(&format!("{start}.pretrain"), values), read(&name, values));
            assert!(now.policy.model.network().continues(&before.policy.model.network()), "{name}");
            let shared = |c: &TaskConfig| {
                let model = c.policy.diffusion().map(|m| (m.denoising_steps, m.sampler, m.denoised_clip.to_bits()));
                (c.policy.prediction_horizon, c.policy.action_horizon, model)
            };
            assert_eq!(shared(&before), shared(&now), "{name}");
        }
    }
    let network = |name: &str| read(name, Values::Latest).policy.model.network();
    let (low, med) = (network("one_leg_med/unet.finetune"), network("one_leg_med/unet.pretrain"));
    assert!(low != med, "the group normalisation of fine-tuning has another epsilon");
    for (one, other) in [("diffusion_mlp", "unet"), ("diffusion_mlp", "gaussian_mlp"), ("gaussian_mlp", "gmm_mlp")] {
        let [one, other] = [one, other].map(|method| network(&format!("lift/{method}.pretrain")));
        assert!(!one.continues(&other) && !other.continues(&one), "{one:?} is not {other:?}");
    }
    assert!(!network("lift/unet.finetune").continues(&network("square/unet.pretrain")));
}

#[test]
fn parameter_counts_are_those_of_the_paper() {
    for (tasks, method, parameters, deviation_included) in ACTORS {
        for task in *tasks {
            for stage in PRETRAIN_AND_FINETUNE {
                let name = format!("{task}/{method}.{stage}");
                let config = read(&name, Values::Latest);
                let network = config.policy.model.network();
                let [state, action] = [config.task.observation_dim(), config.task.action_dim()];
                let found = count(&network.parameters(state, config.policy.prediction_horizon, action));
                let deviations = match &network {
                    PolicyNetwork::Gaussian(spec) => spec.modes.max(1) * action,
                    PolicyNetwork::Diffusion(_) => 0,
                };
                // One for each action (and mode) is learned from fine-tuning on, but not on Avoid (spec dppo.md §4).
                let learned = *stage == "finetune" && !AVOID.contains(task);
                let expected =
                    parameters + deviations * usize::from(learned) - deviations * usize::from(*deviation_included);
                assert_eq!(found, expected, "{name}");
            }
        }
    }
}

#[test]
fn parameter_counts_of_critics_are_those_of_the_paper() {
    let critics: BTreeMap<&str, usize> = [
        ("hopper", 134_913),
        ("can", 137_985),
        ("transport", 147_201),
        ("one_leg_low", 556_033),
        ("one_leg_med", 556_033),
        ("can_pixels", 586_881),
    ]
    .into();
    let mut seen = BTreeSet::new();
    for name in listed() {
        let [task, _, stage] = parts(&name);
        let (Some(&expected), true) = (critics.get(task), stage != "pretrain") else { continue };
        let config = read(&name, Values::Latest);
        assert_eq!(count(&finetune_of(&config).critic.parameters(config.task.observation_dim())), expected, "{name}");
        seen.insert(task.to_string());
    }
    assert_eq!(seen.len(), critics.len());
}

#[test]
fn an_iteration_has_the_samples_minibatches_and_steps_of_the_tables() {
    let mut rest: BTreeSet<String> = listed().into_iter().filter(|name| !name.ends_with(".pretrain")).collect();
    for (tasks, files, rows, minibatches, steps) in ITERATIONS {
        for name in tasks.iter().flat_map(|task| files.iter().map(move |file| format!("{task}/{file}"))) {
            for (values, minibatches) in [Values::Latest, Values::Paper].into_iter().zip(minibatches) {
                let config = read(&name, values);
                let c = finetune_of(&config);
                let (samples, kept) = (c.environments * c.chunk_steps, config.policy.finetuned_steps());
                assert_eq!(samples * kept.max(1), *rows, "{name}");
                assert_eq!(rows / c.batch_rows(kept), *minibatches, "{name}, {values:?}");
                assert_eq!(samples * config.policy.action_horizon, *steps, "{name}");
            }
            assert!(rest.remove(&name), "{name} is listed twice");
        }
    }
    assert!(rest.is_empty(), "no expectation for {rest:?}");
}

#[test]
fn pre_training_is_that_of_the_table() {
    let mut rest: BTreeSet<String> = listed().into_iter().filter(|name| name.ends_with(".pretrain")).collect();
    for (tasks, methods, batch, rates, epochs) in PRETRAINING {
        for name in tasks.iter().flat_map(|task| methods.iter().map(move |m| format!("{task}/{m}.pretrain"))) {
            let [latest, paper] = [Values::Latest, Values::Paper].map(|values| read(&name, values));
            let (c, p) = (latest.pretrain().unwrap(), paper.pretrain().unwrap());
            assert_eq!((c.batch_size, [c.learning_rate, c.min_learning_rate]), (*batch, *rates), "{name}");
            assert_eq!([c.epochs, p.epochs], *epochs, "{name}");
            assert_eq!(
                (c.weight_decay, c.ema_decay, c.ema_start_epoch, c.ema_every_batches),
                (1e-6, 0.995, 20, 10),
                "{name}"
            );
            let gym = latest.task.family() == TaskFamily::Gym;
            assert_eq!(c.warmup_epochs, if gym { 1 } else { 100 }, "{name}");
            assert_eq!(c.max_episodes, (latest.task.cameras() > 0).then_some(100), "{name}");
            assert!(rest.remove(&name), "{name} is listed twice");
        }
    }
    assert!(rest.is_empty(), "no expectation for {rest:?}");
    // What of the paper's is not in the table above.
    let batches = |name: &str| [Values::Latest, Values::Paper].map(|v| read(name, v).pretrain().unwrap().batch_size);
    assert_eq!(batches("can/diffusion_mlp.pretrain"), [256, 128]);
    assert_eq!(batches("avoid_m2/gmm_mlp.pretrain"), [16, 32]);
    assert_eq!(read("square/unet.pretrain", Values::Paper).pretrain().unwrap().cycle_epochs, Some(10_000));
}

/// σ of exploration: σ_exp of a diffusion policy, the first deviation of a Gaussian one.
fn exploration(config: &TaskConfig) -> f64 {
    match &config.policy.model {
        PolicyModel::Diffusion(_) => finetune_of(config).diffusion.as_ref().unwrap().min_sampling_std,
        PolicyModel::Gaussian(spec) => match spec.std {
            StdSpec::Fixed { std } | StdSpec::Learned { std, .. } => std,
            StdSpec::PerState { .. } => f64::NAN,
        },
    }
}

#[test]
fn fine_tuning_is_that_of_the_tables() {
    for (name, iterations, epochs, rates, sigma, gamma, epsilon) in FINETUNING {
        for (i, values) in [Values::Latest, Values::Paper].into_iter().enumerate() {
            let config = read(&format!("{name}.finetune"), values);
            let c = finetune_of(&config);
            assert_eq!((c.iterations, c.update_epochs), (iterations[i], epochs[i]), "{name}, {values:?}");
            assert_eq!([c.actor_learning_rate, c.actor_min_learning_rate], rates[i], "{name}, {values:?}");
            assert_eq!((exploration(&config), c.clip_epsilon), (sigma[i], epsilon[i]), "{name}, {values:?}");
            assert_eq!(c.diffusion.as_ref().map_or(0.0, |d| d.gamma_denoising), gamma[i], "{name}, {values:?}");
        }
    }
}

/// Spec dppo.md §6.1, §6.3: what all rows of the tables share, or all of a kind of task.
#[test]
fn fine_tuning_has_what_its_kind_of_task_has_in_common() {
    for name in listed().iter().filter(|name| !name.ends_with(".pretrain")) {
        let config = read(name, Values::Latest);
        let c = finetune_of(&config);
        let family = config.task.family();
        assert_eq!((c.vf_coef, c.target_kl, c.critic_learning_rate, c.advantage.gae_lambda), (0.5, 1.0, 1e-3, 0.95));
        assert!(c.advantage.reward_scale_running && config.policy.noise_clip == 3.0, "{name}");
        let (gamma, warmup, episodes, evaluate_every) = match family {
            TaskFamily::Gym => (0.99, 0, 40, 10),
            TaskFamily::Robomimic => (0.999, 2, 50, 10),
            TaskFamily::Furniture => (0.999, 1, 1000, 10),
            TaskFamily::Avoid => (0.99, 1, 50, 0),
        };
        assert_eq!((c.advantage.gamma, c.critic_warmup_iterations), (gamma, warmup), "{name}");
        assert_eq!((config.evaluate.episodes, c.evaluate_every), (episodes, evaluate_every), "{name}");
        assert_eq!(c.reset_every_iteration, family != TaskFamily::Gym, "{name}");
        assert_eq!(
            (c.augment, c.grad_accumulate > 1),
            (config.task.cameras() > 0, config.task.cameras() > 0),
            "{name}"
        );
        assert!(c.actor_min_learning_rate <= c.actor_learning_rate, "{name}: the rate runs backwards");
        if c.actor_min_learning_rate < c.actor_learning_rate {
            assert_eq!((family, c.actor_cycle_iterations), (TaskFamily::Furniture, Some(10_000)), "{name}");
        }
    }
}

/// The leaves of a table, `a.b.c`.
fn leaves(table: &toml::Table, prefix: &str, into: &mut BTreeMap<String, toml::Value>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => leaves(inner, &format!("{prefix}{key}."), into),
            value => drop(into.insert(format!("{prefix}{key}"), value.clone())),
        }
    }
}

/// What stands under `[paper]` is another value than the authors' last, or one of a key that those leave to itself.
#[test]
fn values_of_the_paper_are_others() {
    let mut files = 0;
    for name in listed() {
        let mut table: toml::Table = toml::from_str(&text(&name)).unwrap();
        let paper = table.remove("paper");
        assert_eq!(paper.is_some(), read(&name, Values::Latest) != read(&name, Values::Paper), "{name}");
        let Some(toml::Value::Table(paper)) = paper else { continue };
        let (mut latest, mut others) = (BTreeMap::new(), BTreeMap::new());
        leaves(&table, "", &mut latest);
        leaves(&paper, "", &mut others);
        for (key, value) in others {
            assert_ne!(latest.get(&key), Some(&value), "{name}: {key}");
        }
        files += 1;
    }
    assert_eq!(files, 108);
    // The paper's batches are of samples with their whole chains (§2): 5000 with K' = 10 are 50 000 rows.
    let config = read("hopper/diffusion_mlp.finetune", Values::Paper);
    let c = finetune_of(&config);
    assert_eq!((c.batch_size, c.batch_unit, c.batch_rows(10)), (5000, BatchUnit::Chain, 50_000));
}

/// Every value says where it comes from; the limits of training from scratch say so once for all.
#[test]
fn every_value_names_its_source_on_a_line_of_readable_length() {
    for name in listed() {
        for (i, line) in text(&name).lines().enumerate() {
            assert!(line.chars().count() <= 120, "{name}:{}: too long", i + 1);
            let limits = line.starts_with("min = [") || line.starts_with("max = [");
            let Some((value, comment)) =
                line.split_once(" = ").map(|(_, rest)| rest.split_once('#').unwrap_or((rest, "")))
            else {
                continue;
            };
            let source = ["§", "[R]", "[I]"].iter().any(|mark| comment.contains(mark));
            assert!(source || limits || line.starts_with('#'), "{name}:{}: {value} has no source", i + 1);
        }
    }
}

#[test]
fn a_batch_unit_or_a_cycle_that_means_nothing_is_refused() {
    let wrong = |name: &str, from: &str, to: &str| {
        let text = text(name);
        assert!(text.contains(from), "{name} has no {from}");
        TaskConfig::parse(name, &text.replacen(from, to, 1), Values::Latest).expect_err("must not pass").message
    };
    let unit = wrong("lift/gaussian_mlp.finetune", "\nupdate_epochs", "\nbatch_unit = \"chain\"\nupdate_epochs");
    assert!(unit.contains("finetune.batch_unit"), "{unit}");
    let unit = wrong("lift/gaussian_mlp.finetune", "\nupdate_epochs", "\nbatch_unit = \"whole_chain\"\nupdate_epochs");
    assert!(unit.contains("finetune.batch_unit"), "{unit}");
    let cycle = wrong("lift/gaussian_mlp.pretrain", "\nepochs", "\ncycle_epochs = 100\nepochs");
    assert!(cycle.contains("pretrain.cycle_epochs"), "{cycle}");
}
