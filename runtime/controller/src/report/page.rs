//! The page: one HTML file that needs no network.

use std::fmt::Write;

use super::curves;
use super::results::{BothNoises, Evaluation, Results, Verdict, stages};

const STYLE: &str = "
:root{color-scheme:light dark;--fg:#1d2329;--bg:#fff;--line:#d5dbe1;--good:#0b7a4b;--bad:#c23b22;--dim:#667}
@media (prefers-color-scheme:dark){:root{--fg:#e4e8ec;--bg:#14181c;--line:#39424b;--good:#4fc48a;--bad:#ff7a5c;--dim:#9aa5b1}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{margin-top:2.2rem;font-size:1.2rem}
table{border-collapse:collapse;margin:.6rem 0}th,td{padding:.25rem .8rem;border-bottom:1px solid var(--line);text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}.ok{color:var(--good)}.miss{color:var(--bad);font-weight:600}
.row{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0}figcaption{color:var(--dim);font-size:.85rem;max-width:340px}
svg{max-width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:var(--dim)}.grid{stroke:var(--line);stroke-width:.6}
polyline{fill:none;stroke-width:1.6}.good{stroke:var(--good)}.bad{stroke:var(--bad)}.path{opacity:.65}.curve{stroke:#2f6fdb;stroke-width:2}
.finish{stroke:var(--dim);stroke-dasharray:5 4;stroke-width:1}.obstacle{fill:#8a94a0;opacity:.75}pre{overflow-x:auto;font-size:.8rem}
";

/// Renders everything.
pub fn render(results: &Results, verdict: &Verdict, times: Option<&[(String, f64)]>, quick: bool) -> String {
    let mut h = String::new();
    let task = results.config.task.as_str();
    let _ = write!(
        h,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>Tenon: {task}</title><style>{STYLE}</style></head><body>"
    );
    let _ = write!(h, "<h1>{task}: from demonstrations to a moving arm</h1>");
    if quick {
        h.push_str("<p>A quick run: the same steps with fewer iterations and episodes. The goals below are those of the full run and are not demanded here.</p>");
    }
    checks(&mut h, verdict);
    success(&mut h, results);
    trajectories(&mut h, results);
    h.push_str("<h2>Learning curve</h2>");
    h.push_str(&curves::learning(&results.iterations, results.evaluations.goal));
    training(&mut h, results, times);
    deployment(&mut h, results);
    differences(&mut h, results);
    let provenance = serde_json::to_string_pretty(&results.provenance).unwrap_or_default();
    let _ = write!(h, "<h2>Provenance of the bundle</h2><pre>{}</pre></body></html>", escape(&provenance));
    h
}

fn checks(h: &mut String, verdict: &Verdict) {
    h.push_str("<h2>What was to be shown</h2><table><tr><th></th><th>check</th><th>goal</th><th>measured</th></tr>");
    for c in &verdict.checks {
        let (class, mark) = if c.met { ("ok", "met") } else { ("miss", "missed") };
        let _ = write!(
            h,
            "<tr><td class=\"{class}\">{mark}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td></tr>",
            escape(&c.what),
            escape(&c.goal),
            escape(&c.measured)
        );
    }
    h.push_str("</table>");
}

fn success(h: &mut String, results: &Results) {
    let e = &results.evaluations;
    h.push_str("<h2>Success</h2><p>An episode succeeds if the tool point has gone left of the third row (bit 5) and y &gt; 0.4 m for a whole chunk of four steps, with no touch before. Intervals: Wilson, 95 %.</p><table><tr><th>policy</th><th>noise</th><th>episodes</th><th>success</th><th>95 % interval</th><th>mean return</th></tr>");
    let mut row = |policy: &str, noise: &str, e: &Evaluation| {
        let _ = write!(
            h,
            "<tr><td>{policy}</td><td>{noise}</td><td class=\"n\">{}</td><td class=\"n\">{} ({:.1} %)</td><td class=\"n\">{:.1} to {:.1} %</td><td class=\"n\">{:.1}</td></tr>",
            e.episodes,
            e.successes,
            100.0 * e.success_rate,
            100.0 * e.wilson_95[0],
            100.0 * e.wilson_95[1],
            e.mean_return
        );
    };
    let mut both = |policy: &str, b: &BothNoises| {
        row(policy, "evaluation", &b.evaluation_noise);
        row(policy, "training", &b.training_noise);
    };
    both("pre-trained", &e.before);
    both("fine-tuned", &e.after);
    let n = results.run.episodes.len();
    let _ = write!(
        h,
        "<tr><td>fine-tuned, deployed ({} in real time)</td><td>evaluation</td><td class=\"n\">{n}</td><td class=\"n\">{} ({:.1} %)</td><td></td><td></td></tr></table>",
        escape(&results.run.engine),
        results.run.successes,
        if n == 0 { 0.0 } else { 100.0 * results.run.successes as f64 / n as f64 }
    );
}

fn trajectories(h: &mut String, results: &Results) {
    let of = |e: &Evaluation| -> Vec<(Vec<[f64; 2]>, bool)> {
        e.paths_xy_m.iter().cloned().zip(e.path_success.iter().copied()).collect()
    };
    let deployed: Vec<(Vec<[f64; 2]>, bool)> = results
        .run
        .episodes
        .iter()
        .filter_map(|e| e.judged.as_ref().map(|j| (j.path_xy_m.clone(), j.success)))
        .collect();
    h.push_str("<h2>Trajectories</h2><p>Tool point in the robot base frame, metres, over the obstacles; green episodes succeed.</p><div class=\"row\">");
    for (title, set) in [
        ("before fine-tuning (evaluation noise)", of(&results.evaluations.before.evaluation_noise)),
        ("after fine-tuning (evaluation noise)", of(&results.evaluations.after.evaluation_noise)),
        ("deployed: controller, IK, zenoh, bridge, simulated arm", deployed),
    ] {
        h.push_str(&curves::paths(title, set.iter().map(|(p, s)| (p.as_slice(), *s))));
    }
    h.push_str("</div>");
}

fn training(h: &mut String, results: &Results, times: Option<&[(String, f64)]>) {
    let (d, p, e) = (&results.demos, &results.pretrain, &results.evaluations);
    let steps = results.iterations.last().map_or(0, |i| i.environment_steps);
    let last = results.iterations.last();
    h.push_str("<h2>Steps</h2><table>");
    for (name, text) in [
        (
            "demonstrations",
            format!(
                "{} ({}), {} steps; {} of them ({} steps) selected; {} collisions redrawn; {:.1} s; SHA-256 {}",
                d.episodes,
                d.source,
                d.steps,
                d.selected_episodes,
                d.selected_steps,
                d.rejected_collisions,
                d.seconds,
                d.sha256
            ),
        ),
        (
            "pre-training",
            format!("{} epochs, loss {:.4}, {} parameters, {:.1} s", p.epochs, p.final_loss, p.parameters, p.seconds),
        ),
        (
            "fine-tuning",
            format!(
                "{} iterations, {steps} environment steps, {:.1} s; last iteration: approx. KL {:.4}, clip fraction {:.3}, mean return {:.1}",
                e.iterations,
                e.seconds,
                last.map_or(0.0, |i| i.approx_kl),
                last.map_or(0.0, |i| i.clip_fraction),
                last.map_or(0.0, |i| i.mean_return)
            ),
        ),
    ] {
        let _ = write!(h, "<tr><th>{name}</th><td>{}</td></tr>", escape(&text));
    }
    for (name, seconds) in times.unwrap_or_default() {
        let _ = write!(h, "<tr><th>{}, whole command</th><td>{seconds:.1} s</td></tr>", escape(name));
    }
    h.push_str("</table>");
}

fn deployment(h: &mut String, results: &Results) {
    let t = &results.run.timing;
    h.push_str("<h2>Deployment, stage by stage</h2><table><tr><th>stage</th><th>n</th><th>p50 µs</th><th>p99 µs</th><th>max µs</th></tr>");
    for (name, s) in stages(t) {
        let _ = write!(
            h,
            "<tr><td>{name}</td><td class=\"n\">{}</td><td class=\"n\">{:.1}</td><td class=\"n\">{:.1}</td><td class=\"n\">{:.1}</td></tr>",
            s.n, s.p50_us, s.p99_us, s.max_us
        );
    }
    let r = &results.run;
    let _ = write!(
        h,
        "</table><p>{} late ticks of {} ({:.0} per million); {} targets passed, {} limited, {} refused by the safety stage; {} late chunks.</p>",
        t.late_ticks,
        t.ticks,
        t.late_per_million,
        r.targets_passed,
        r.targets_limited,
        r.targets_refused,
        r.late_chunks
    );
}

/// Settings that differ from the paper's (spec dppo.md §6, row Avoid).
fn differences(h: &mut String, results: &Results) {
    let c = &results.config;
    let mut rows: Vec<(&str, String, &str)> = Vec::new();
    if let Some(p) = &c.pretrain {
        rows.extend([
            ("pretrain.epochs", p.epochs.to_string(), "15000 (5000 later)"),
            ("pretrain.batch_size", p.batch_size.to_string(), "16"),
            ("pretrain.learning_rate", p.learning_rate.to_string(), "0.0001"),
            ("pretrain.min_learning_rate", p.min_learning_rate.to_string(), "0.00001"),
            ("pretrain.warmup_epochs", p.warmup_epochs.to_string(), "100"),
        ]);
    }
    rows.push(("finetune.iterations (run)", results.evaluations.iterations.to_string(), "51"));
    if let Some(f) = &c.finetune {
        rows.extend([
            ("finetune.environments", f.environments.to_string(), "50"),
            ("finetune.chunk_steps", f.chunk_steps.to_string(), "25"),
            ("finetune.update_epochs", f.update_epochs.to_string(), "10"),
            ("finetune.batch_size", f.batch_size.to_string(), "6250"),
            ("finetune.actor_learning_rate", f.actor_learning_rate.to_string(), "0.00001"),
            ("finetune.critic_learning_rate", f.critic_learning_rate.to_string(), "0.001"),
            ("finetune.critic_warmup_iterations", f.critic_warmup_iterations.to_string(), "1"),
            ("finetune.clip_epsilon", f.clip_epsilon.to_string(), "0.1"),
        ]);
        if let Some(d) = &f.diffusion {
            rows.push(("finetune.diffusion.min_sampling_std", d.min_sampling_std.to_string(), "0.1"));
            rows.push(("finetune.diffusion.gamma_denoising", d.gamma_denoising.to_string(), "0.95"));
        }
    }
    rows.push(("policy.model.finetuned_steps", c.policy.finetuned_steps().to_string(), "10"));
    rows.retain(|(_, ours, paper)| ours != paper);
    h.push_str(
        "<h2>Settings that differ from the paper's</h2><table><tr><th>setting</th><th>here</th><th>paper</th></tr>",
    );
    for (key, ours, paper) in rows {
        let _ = write!(h, "<tr><td>{key}</td><td class=\"n\">{ours}</td><td class=\"n\">{paper}</td></tr>");
    }
    let source = if results.demos.source == "human" { "the 96 human ones" } else { "scripted ones" };
    let _ = write!(
        h,
        "<tr><td>demonstrations</td><td>{source}</td><td>96 human ones, the selection of the mode set</td></tr></table>"
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
