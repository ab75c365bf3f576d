//! A likelihood that the crate does not have: this file, and the line that registers it.

use super::{LIMITS, Regression, log_likelihood, network, noise};
use crate::support::{f64_or_skip, logits};
use bayes_lora::curvature::{Curvature, CurvatureConfig, CurvatureStructure, FisherKind, fit_curvature};
use bayes_lora::error::{Error, Result};
use bayes_lora::likelihood::{Likelihood, Target, TargetSpace, register};
use bayes_lora::models::{Dataset, Mlp};
use bayes_lora::posterior::{HeldOut, Laplace, LaplaceConfig};
use bayes_lora::predict::{Predictive, predict, predict_targets};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use bayes_lora::train::{Trainer, TrainerConfig};
use ndarray::{Array1, Array2, ArrayView1};
use rand::{Rng, RngExt};

/// Counts: `p(y | f) = Π_c Poisson(y_c; exp f_c)`; `Λ = diag(exp f)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Poisson;

impl Likelihood for Poisson {
    fn name(&self) -> &'static str {
        "poisson"
    }

    fn target_space(&self) -> TargetSpace {
        TargetSpace::Discrete
    }

    fn check_target(&self, item: &str, target: &Target, present: &[bool]) -> Result<()> {
        target.check(item, present)?;
        let is_count = |c: usize| target.component(c) >= 0.0 && target.component(c).fract() == 0.0;
        match (0..present.len()).find(|&c| present[c] && !is_count(c)) {
            None => Ok(()),
            Some(c) => Err(Error::config(format!("target of item `{item}`"), "a count", target.component(c))),
        }
    }

    fn log_density(&self, outputs: ArrayView1<f64>, target: &Target) -> f64 {
        let factorial = |y: f64| (1..=y as usize).map(|k| (k as f64).ln()).sum::<f64>();
        let present = outputs.iter().enumerate().filter(|(_, f)| **f != f64::NEG_INFINITY);
        present.map(|(c, f)| (target.component(c), f)).map(|(y, f)| y * f - f.exp() - factorial(y)).sum()
    }

    fn score(&self, outputs: ArrayView1<f64>, target: &Target) -> Array1<f64> {
        let one = |(c, f): (usize, &f64)| if *f == f64::NEG_INFINITY { 0.0 } else { target.component(c) - f.exp() };
        outputs.iter().enumerate().map(one).collect()
    }

    fn fisher(&self, outputs: ArrayView1<f64>) -> Array2<f64> {
        Array2::from_diag(&outputs.mapv(f64::exp))
    }

    fn sample(&self, outputs: ArrayView1<f64>, rng: &mut dyn Rng) -> Target {
        // Knuth's product of uniforms, for small rates
        let mut count = |f: &f64| {
            let (floor, mut product, mut k) = ((-f.exp()).exp(), rng.random::<f64>(), 0.0);
            while product > floor {
                product *= rng.random::<f64>();
                k += 1.0;
            }
            k
        };
        Target::Values(outputs.iter().map(&mut count).collect())
    }

    fn moments(&self, outputs: ArrayView1<f64>) -> (Array1<f64>, Array2<f64>) {
        (outputs.mapv(f64::exp), self.fisher(outputs))
    }
}

/// Counts whose log rates are linear in the features.
fn counts(n: usize, seed: u64) -> Regression {
    let features = noise(seed, n, 3);
    let rates = features.dot(&noise(50, 3, 2)).mapv(|f| (1.5 * f).exp());
    let mut rng = <rand::rngs::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(seed);
    let mut values = Array2::zeros((n, 2));
    for (rate, mut row) in rates.outer_iter().zip(values.outer_iter_mut()) {
        let Target::Values(drawn) = Poisson.sample(rate.mapv(f64::ln).view(), &mut rng) else { continue };
        row.assign(&Array1::from(drawn));
    }
    Regression::new(features, values)
}

fn curvature(model: &Mlp, data: &Regression, structure: CurvatureStructure, fisher: FisherKind) -> Curvature {
    let config = CurvatureConfig::new(structure).with_likelihood(Poisson).with_limits(LIMITS).with_fisher(fisher);
    fit_curvature(model, data, &config, &Control::silent()).unwrap()
}

#[test]
fn a_likelihood_of_one_s_own_trains_has_a_posterior_and_predicts() {
    if !f64_or_skip("a likelihood of one's own") {
        return;
    }
    let (data, held_out) = (counts(60, 1), counts(40, 2));
    let config =
        TrainerConfig::default().with_likelihood(Poisson).with_epochs(60).with_learning_rate(0.02).with_limits(LIMITS);
    let start = network(&[3, 2]);
    let outcome = Trainer::new(config).unwrap().fit(start.clone(), &data, Some(&held_out), &Control::silent()).unwrap();
    let model = outcome.model;
    assert!(log_likelihood(&model, &data, &Poisson) > log_likelihood(&start, &data, &Poisson) + 1.0);
    let last = outcome.report.epochs.last().unwrap();
    let by_hand = -log_likelihood(&model, &held_out, &Poisson) / held_out.n_items() as f64;
    assert!((last.validation_nll.unwrap() / by_hand - 1.0).abs() < 1e-12); // f64 rounding of sums
    assert_eq!(last.validation_accuracy, None);

    // the evidence starts from the likelihood's own sum
    let exact = curvature(&model, &data, CurvatureStructure::FunctionSpace, FisherKind::Exact);
    let sum = log_likelihood(&model, &data, &Poisson);
    assert!((exact.log_likelihood.unwrap() / sum - 1.0).abs() < 1e-12);

    // every kind of Fisher information: many draws tend to the exact one
    let trace = |fisher| {
        let sums = curvature(&model, &data, CurvatureStructure::Diagonal, fisher).sums;
        let bayes_lora::curvature::CurvatureSums::Diagonal(sums) = sums else { panic!("a diagonal is expected") };
        sums.iter().map(|sum| sum.kept.sum()).sum::<f64>()
    };
    let (of_exact, of_draws) = (trace(FisherKind::Exact), trace(FisherKind::Sampled { n: 400, seed: 1 }));
    // 60 items of 400 draws each, squared scores of relative spread 2: five standard errors are 7 %
    assert!((of_draws / of_exact - 1.0).abs() < 0.07, "{of_draws} against {of_exact}");
    assert!(trace(FisherKind::Empirical) > 0.0);

    // files name it; they are read where it is registered, and refused by its name where it is not
    let dir = tempfile::tempdir().unwrap();
    let (sums, posterior) = (dir.path().join("sums.safetensors"), dir.path().join("posterior.safetensors"));
    let fixed = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(2.0).unwrap());
    let laplace = Laplace::new(&model, &exact, &fixed).unwrap();
    exact.save(&sums).unwrap();
    laplace.save(&posterior, &model).unwrap();
    for error in [Curvature::load(&sums).map(drop), Laplace::load(&posterior, &model).map(drop)] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains("`poisson`") && error.contains("categorical, gaussian"), "{error}");
    }
    register("poisson", |_| Ok(Poisson.into())).unwrap();
    assert_eq!(Curvature::load(&sums).unwrap(), exact);
    let loaded = Laplace::load(&posterior, &model).unwrap();
    assert_eq!(loaded.likelihood(), laplace.likelihood());

    // E[y] and Var[y] under a log-normal rate: e^{m + v/2}, and that plus (e^v − 1) e^{2m + v}
    let how = Predictive::Linearized(bayes_lora::belief::LinkApprox::MonteCarlo { n_samples: 200_000, seed: 0 });
    let answer = predict_targets(&model, &loaded, &held_out, how, &LIMITS, &Control::silent()).unwrap();
    let (mean, covariance) = answer.belief.moments();
    assert!((&mean - &logits(&model, &held_out)).iter().all(|d| d.abs() < 1e-12));
    for ((i, c), m) in mean.indexed_iter() {
        let v = covariance[[i, c, c]];
        let expected = (m + 0.5 * v).exp();
        let variance = expected + v.exp_m1() * (2.0 * m + v).exp();
        let found = (answer.moments.mean[[i, c]], answer.moments.covariance[[i, c, c]]);
        // 200,000 antithetic draws of rates that spread by a fifth: standard errors below a thousandth
        assert!((found.0 / expected - 1.0).abs() < 0.01, "{} against {expected}", found.0);
        assert!((found.1 / variance - 1.0).abs() < 0.03, "{} against {variance}", found.1);
    }

    // held-out items are scored by the same density, averaged over the belief
    let tuned = HeldOut::new(&model, &loaded, &held_out, &LIMITS, &Control::silent()).unwrap();
    let sharp = tuned.mean_nll(&PriorPrecision::new(1e12).unwrap().into(), Default::default()).unwrap();
    assert!((sharp / by_hand - 1.0).abs() < 1e-6, "{sharp} against {by_hand}"); // a variance of 1e-12 is left
    // classes are asked of it in vain
    let error = predict(&model, &loaded, &held_out, how, &LIMITS, &Control::silent()).unwrap_err().to_string();
    assert!(error.contains("poisson") && error.contains("predict_targets"), "{error}");
}

#[test]
fn a_target_that_is_no_count_is_refused_wherever_it_is_read() {
    if !f64_or_skip("targets that are no counts") {
        return;
    }
    let mut data = counts(6, 1);
    data.values[[4, 1]] = 0.5;
    let model = network(&[3, 2]);
    let config = CurvatureConfig::default().with_likelihood(Poisson).with_limits(LIMITS);
    let trainer = Trainer::new(TrainerConfig::default().with_likelihood(Poisson)).unwrap();
    let refused = [
        fit_curvature(&model, &data, &config, &Control::silent()).map(drop),
        trainer.fit(model.clone(), &data, None, &Control::silent()).map(drop),
    ];
    for error in refused {
        let error = error.unwrap_err().to_string();
        assert!(error.contains("`point 4`") && error.contains("a count, got 0.5"), "{error}");
    }
}
