//! Noise schedules and step coefficients of the core.

use tenon_core::diffusion::{NoiseSchedule, StepNoise};

use crate::load::{case, compare_f64};

#[test]
fn golden_ddpm_schedule() {
    let Some(c) = case("schedule") else { return };
    for k in c.dims("K") {
        let s = NoiseSchedule::cosine(k);
        let of = |f: &dyn Fn(f64) -> f64| s.alphas_cumprod.iter().map(|&a| f(a)).collect::<Vec<_>>();
        for (name, ours) in [
            ("betas", s.betas.clone()),
            ("alphas", s.alphas.clone()),
            ("alphas_cumprod", s.alphas_cumprod.clone()),
            ("alphas_cumprod_prev", s.alphas_cumprod_prev.clone()),
            ("sqrt_alphas_cumprod", of(&f64::sqrt)),
            ("sqrt_one_minus_alphas_cumprod", of(&|a| (1.0 - a).sqrt())),
            ("sqrt_recip_alphas_cumprod", of(&|a| (1.0 / a).sqrt())),
            ("sqrt_recipm1_alphas_cumprod", of(&|a| (1.0 / a - 1.0).sqrt())),
            ("ddpm_var", s.posterior_variance.clone()),
            ("ddpm_logvar_clipped", s.log_variance_clipped.clone()),
            ("ddpm_mu_coef1", s.mean_from_x0.clone()),
            ("ddpm_mu_coef2", s.mean_from_x.clone()),
        ] {
            let name = format!("ddpm{k}.{name}");
            compare_f64(&name, &ours, &c.f64(&format!("{name}.f64")), 1e-12);
        }
        // What the networks get are these numbers in f32, in execution order.
        let steps = s.ddpm_steps(StepNoise::Bare { eta: 1.0 });
        let reversed = |name: &str| -> Vec<f64> {
            let mut v = c.f64(&format!("ddpm{k}.{name}.f64"));
            v.reverse();
            v
        };
        let ours = |f: &dyn Fn(usize) -> f32| -> Vec<f32> { (0..k).map(f).collect() };
        c.compare("x0_from_x", &ours(&|i| steps[i].x0_from_x), &reversed("sqrt_recip_alphas_cumprod"), 1e-7);
        c.compare("x0_from_noise", &ours(&|i| steps[i].x0_from_noise), &reversed("sqrt_recipm1_alphas_cumprod"), 1e-7);
        c.compare("mean_from_x0", &ours(&|i| steps[i].mean_from_x0), &reversed("ddpm_mu_coef1"), 1e-7);
        c.compare("mean_from_x", &ours(&|i| steps[i].mean_from_x), &reversed("ddpm_mu_coef2"), 1e-7);
    }
}

#[test]
fn golden_ddim_schedule() {
    let Some(c) = case("schedule") else { return };
    for pair in c.config["ddim"].as_array().expect("pairs of K and S") {
        let (k, n) = (pair[0].as_u64().expect("K") as usize, pair[1].as_u64().expect("S") as usize);
        let prefix = format!("ddim{n}of{k}");
        let ddim = NoiseSchedule::cosine(k).ddim(n);
        assert_eq!(ddim.t, c.indices(&format!("{prefix}.ddim_t")));
        let of = |f: &dyn Fn(usize) -> f64| (0..n).map(f).collect::<Vec<_>>();
        for (name, ours) in [
            ("ddim_alphas", ddim.alphas.clone()),
            ("ddim_alphas_sqrt", of(&|i| ddim.alphas[i].sqrt())),
            ("ddim_alphas_prev", ddim.alphas_prev.clone()),
            ("ddim_sqrt_one_minus_alphas", of(&|i| (1.0 - ddim.alphas[i]).sqrt())),
        ] {
            let name = format!("{prefix}.{name}");
            compare_f64(&name, &ours, &c.f64(&format!("{name}.f64")), 1e-12);
        }
        let mut etas = 0;
        for name in c.names() {
            let Some(eta) = name.strip_prefix(&format!("{prefix}.sigma_eta")).and_then(|e| e.strip_suffix(".f64"))
            else {
                continue;
            };
            etas += 1;
            let direction = format!("{prefix}.dir_coef_eta{eta}.f64");
            let eta: f64 = eta.parse().expect("the name ends in a number");
            compare_f64(&name, &of(&|i| ddim.sigma(i, eta)), &c.f64(&name), 1e-12);
            compare_f64(&direction, &of(&|i| ddim.direction(i, eta)), &c.f64(&direction), 1e-12);
        }
        assert!(etas > 0, "{prefix} has sigmas for some eta");
    }
}
