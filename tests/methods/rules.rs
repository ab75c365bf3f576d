//! The rules of variational methods in the trainer: gradients at the right place, checkpoints, limits that are plain training.

use super::{Case, item_nlls, ivon, link, mean, mlp, points};
use crate::support::points::{LIMITS, adapted, blobs, distance, nll, quick, train, values};
use crate::support::{device, f64_or_skip, relative_error};
use bayes_lora::checkpoints::Checkpoints;
use bayes_lora::data::BatchLimits;
use bayes_lora::likelihood::Categorical;
use bayes_lora::lora::{AdapterWeights, LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::methods::{
    AnchoredEnsemble, Blob, BlobObjective, FitContext, Ivon, Method, MonteClora, Recipe, member_seed,
};
use bayes_lora::models::{Dataset, Mlp, Points};
use bayes_lora::posterior::log_likelihood_gradient;
use bayes_lora::prior::{PriorMean, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Site};
use bayes_lora::tensor_file::TensorFile;
use bayes_lora::train::{Decay, StepPosition, TrainOutcome, Trainer, TrainerConfig, UpdateRule};
use burn::tensor::DType;
use ndarray::Array2;
use std::path::Path;
use std::time::Duration;

type Rule = Box<dyn UpdateRule<Mlp>>;

fn fit_by(rule: &mut Rule, config: &TrainerConfig, start: Mlp, data: &Points, control: &Control) -> TrainOutcome<Mlp> {
    Trainer::new(config.clone()).unwrap().fit_by(&mut **rule, start, data, None, control).unwrap()
}

/// Every rule that draws, made anew.
fn rules() -> Vec<(&'static str, Rule)> {
    let noisy = MonteClora::default().with_sample_scale(0.1);
    vec![
        ("IVON", Box::new(ivon().rule(44, 7).unwrap())),
        ("BLoB", Box::new(Blob::default().rule(44, 8, 0.01, 7).unwrap())),
        ("BLoB, published", Box::new(Blob::published().rule(44, 8, 0.01, 7).unwrap())),
        ("MonteCLoRA", Box::new(noisy.rule(0.01, 7).unwrap())),
    ]
}

#[test]
fn a_run_taken_up_after_any_step_ends_in_the_same_bits() {
    let data = blobs(44, 1);
    let config = quick(2);
    let control = |dir: &Path, every| {
        Control::silent().with_checkpoints(Checkpoints::new(dir).with_every(every).with_keep(1000)).unwrap()
    };
    for (index, (name, mut rule)) in rules().into_iter().enumerate() {
        let run = |rule: &mut Rule, control: &Control| fit_by(rule, &config, adapted(0.3), &data, control);
        let whole = run(&mut rule, &Control::silent());
        let state = rule.state().unwrap();
        let fresh = || rules().swap_remove(index).1;
        let dir = tempfile::tempdir().unwrap();
        run(&mut fresh(), &control(dir.path(), Duration::ZERO));
        let mut files: Vec<_> =
            std::fs::read_dir(dir.path().join("train")).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        assert_eq!(files.len(), 12, "{name}");
        for (step, file) in files.iter().enumerate() {
            let one = tempfile::tempdir().unwrap();
            std::fs::create_dir(one.path().join("train")).unwrap();
            std::fs::copy(file, one.path().join("train").join(file.file_name().unwrap())).unwrap();
            let mut rule = fresh();
            let resumed = run(&mut rule, &control(one.path(), Duration::from_secs(3600)));
            assert_eq!(resumed.report.resumed_after, Some(step + 1), "{name}");
            assert_eq!(values(&resumed.model), values(&whole.model), "{name} after step {}", step + 1);
            // burn's optimiser names parameters by identities, which each model draws anew
            let kept = rule.state().unwrap();
            assert!(name == "MonteCLoRA" || kept == state, "{name} after step {}", step + 1);
        }
        // a rule with other settings is another run
        let mut other: Rule = Box::new(ivon().with_prior_precision(9.0).rule(44, 7).unwrap());
        let refused = Trainer::new(config.clone()).unwrap().fit_by(
            &mut *other,
            adapted(0.3),
            &data,
            None,
            &control(dir.path(), Duration::from_secs(3600)),
        );
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("update rule"), "{error}");
    }
}

/// A network in f64 whose B is away from 0, or A would have no gradient.
fn away_from_the_start() -> (Mlp, AdapterWeights) {
    let start = attach(mlp(DType::F64), &LoraConfig::new(2), 3).unwrap();
    let mut weights = read_adapter(&start).unwrap();
    for (site, w) in weights.iter_mut().filter(|(site, _)| site.matrix == LoraMatrix::B) {
        let shift = site.module.len();
        w.indexed_iter_mut().for_each(|((i, j), v)| *v = ((i * 3 + j + shift) % 5) as f64 / 5.0 - 0.4);
    }
    (write_adapter(start, &weights).unwrap(), weights)
}

/// One step over 20 items at once.
fn one_step(rate: f64) -> TrainerConfig {
    TrainerConfig::default()
        .with_epochs(1)
        .with_learning_rate(rate)
        .with_warmup_fraction(0.0)
        .with_decay(Decay::Constant)
        .with_limits(BatchLimits { max_items: 20, ..LIMITS })
        .with_max_grad_norm(None)
}

/// The gradient of the mean NLL by central differences, right to 1e-10.
fn gradient_at(model: &Mlp, weights: &AdapterWeights, site: &Site, data: &Points) -> Array2<f64> {
    Array2::from_shape_fn(weights[site].dim(), |at| {
        let moved = |step: f64| {
            let mut weights = weights.clone();
            weights.get_mut(site).unwrap()[at] += step;
            nll(&write_adapter(model.clone(), &weights).unwrap(), data)
        };
        (moved(1e-5) - moved(-1e-5)) / 2e-5
    })
}

const FIRST: StepPosition = StepPosition { step: 0, total: 1, learning_rate: 0.5 };

#[test]
fn ivon_estimates_its_curvature_from_the_draw_at_which_the_gradient_is() {
    if !f64_or_skip("IVON's estimate") {
        return;
    }
    let data = blobs(20, 1);
    let (ess, beta_2) = (100.0, 0.9);
    let settings = Ivon::default()
        .with_effective_sample_size(ess)
        .with_prior_precision(0.0)
        .with_initial_hessian(1.0)
        .with_beta_2(beta_2)
        .with_clip(None);
    let (start, mean) = away_from_the_start();
    let mut rule = settings.rule(20, 5).unwrap();
    let drawn = read_adapter(&rule.point(&start, FIRST).unwrap()).unwrap();
    let sd = 1.0 / ess.sqrt();
    Trainer::new(one_step(0.5)).unwrap().fit_by(&mut rule, start.clone(), &data, None, &Control::silent()).unwrap();
    let after = rule.deviations(&mean).unwrap();
    for (site, m) in &mean {
        let gradient = gradient_at(&start, &drawn, site, &data);
        let estimate = gradient * (&drawn[site] - m) / (sd * sd);
        let expected =
            estimate.mapv(|e| beta_2 + (1.0 - beta_2) * e + 0.5 * (1.0 - beta_2).powi(2) * (1.0 - e).powi(2));
        let found = after[site].mapv(|sd| 1.0 / (ess * sd * sd));
        assert!(expected.iter().any(|h| (h - beta_2).abs() > 1e-2), "{site}");
        let error = relative_error(&found, &expected);
        println!("{site}: {error:e}");
        assert!(error < 1e-7, "{site}: {error:e}");
    }
}

#[test]
fn blob_moves_its_deviations_by_the_gradient_at_the_draw() {
    if !f64_or_skip("BLoB's gradient of G") {
        return;
    }
    let data = blobs(20, 1);
    // a cycle so long that the divergence has no weight in its first step: G moves by ∂NLL/∂G alone
    let objective = BlobObjective::Published { kl_learning_rate: 0.1, gamma: 1.0 };
    let settings = Blob::default().with_objective(objective).with_initial_root(0.5);
    let (start, mean) = away_from_the_start();
    let mut rule = settings.rule(20, 20, 0.5, 5).unwrap();
    let before = rule.deviations(&mean).unwrap();
    let drawn = read_adapter(&rule.point(&start, FIRST).unwrap()).unwrap();
    Trainer::new(one_step(0.5)).unwrap().fit_by(&mut rule, start.clone(), &data, None, &Control::silent()).unwrap();
    let after = rule.deviations(&mean).unwrap();
    assert!(mean.keys().all(|site| before.contains_key(site) == (site.matrix == LoraMatrix::A)));
    for (site, sd) in &before {
        let e = (&drawn[site] - &mean[site]) / sd;
        // ∂NLL/∂G = 2G ∂NLL/∂A ∘ E
        let root = sd.mapv(f64::sqrt);
        let expected = 2.0 * &root * e * gradient_at(&start, &drawn, site, &data);
        let found = (&root - &after[site].mapv(f64::sqrt)) / 0.1;
        assert!(expected.iter().any(|g| g.abs() > 1e-3), "{site}");
        let error = relative_error(&found, &expected);
        println!("{site}: {error:e}");
        assert!(error < 1e-7, "{site}: {error:e}");
    }
}

#[test]
fn ivon_without_spread_and_momentum_is_gradient_descent_at_every_site() {
    if !f64_or_skip("gradient descent by IVON") {
        return;
    }
    let data = blobs(20, 1);
    // deviations of 1e-8 at h = 1, which does not move
    let rule = Ivon::default()
        .with_effective_sample_size(1e16)
        .with_prior_precision(0.0)
        .with_initial_hessian(1.0)
        .with_beta_1(0.0)
        .with_beta_2(1.0 - f64::EPSILON / 2.0)
        .with_clip(None);
    let (start, weights) = away_from_the_start();
    let rate = 0.5;
    let mut rule: Rule = Box::new(rule.rule(20, 0).unwrap());
    let outcome = fit_by(&mut rule, &one_step(rate), start.clone(), &data, &Control::silent());
    let after = read_adapter(&outcome.model).unwrap();
    for (site, w) in &weights {
        let gradient = gradient_at(&start, &weights, site, &data);
        assert!(gradient.iter().any(|g| g.abs() > 1e-3), "{site}");
        // the draw is 1e-8 away, the differences are right to 1e-10
        let error = relative_error(&((w - &after[site]) / rate), &gradient);
        println!("{site}: {error:e}");
        assert!(error < 1e-6, "{site}: {error:e}");
    }
}

#[test]
fn the_steps_of_an_epoch_of_ivon_hold_every_item_and_the_prior_once() {
    if !f64_or_skip("IVON in uneven steps") {
        return;
    }
    let (data, lambda, rate) = (blobs(44, 1), 20.0, 1e-7);
    // ess = N at a curvature of 1e16: deviations of 1.5e-9, steps of rate·(g + λm/N)
    let curvature = 1e16;
    let rule = Ivon::at_temperature_1(lambda)
        .with_learning_rate(None)
        .with_initial_hessian(curvature)
        .with_beta_1(0.0)
        .with_beta_2(1.0 - f64::EPSILON / 2.0)
        .with_clip(None);
    let (start, weights) = away_from_the_start();
    // five steps of 8 items and one of 4
    let config = one_step(rate * curvature).with_limits(LIMITS);
    let mut rule: Rule = Box::new(rule.rule(44, 0).unwrap());
    let outcome = fit_by(&mut rule, &config, start.clone(), &data, &Control::silent());
    assert_eq!(outcome.report.steps, 6);
    let after = read_adapter(&outcome.model).unwrap();
    for (site, w) in &weights {
        let expected = 6.0 * (gradient_at(&start, &weights, site, &data) + lambda / 44.0 * w);
        let error = relative_error(&((w - &after[site]) / rate), &expected);
        println!("{site}: {error:e}");
        // six steps of 1e-7 move the gradient by about as much
        assert!(error < 1e-5, "{site}: {error:e}");
    }
}

#[test]
fn monte_clora_without_noise_is_plain_training_bit_for_bit() {
    let data = blobs(44, 1);
    let config = quick(3).with_weight_decay(0.01);
    let plain = train(config.clone(), adapted(0.2), &data, None);
    let by = |sample_scale| {
        let mut rule: Rule =
            Box::new(MonteClora::default().with_sample_scale(sample_scale).rule(config.weight_decay, 1).unwrap());
        fit_by(&mut rule, &config, adapted(0.2), &data, &Control::silent())
    };
    assert_eq!(values(&by(0.0).model), values(&plain.model));
    assert_ne!(values(&by(0.1).model), values(&plain.model));
}

#[test]
fn blob_without_spread_and_divergence_is_adam() {
    let data = blobs(44, 1);
    // σ = 1e-24, and nothing moves G or pulls M
    let objective = BlobObjective::Published { kl_learning_rate: 0.0, gamma: 8.0 };
    let blob = Blob::default().with_objective(objective).with_initial_root(1e-12);
    let config = quick(3);
    let mut rule: Rule = Box::new(blob.rule(44, 8, config.learning_rate, 1).unwrap());
    let by_blob = fit_by(&mut rule, &config, adapted(0.0), &data, &Control::silent());
    let by_adam = train(config, adapted(0.0), &data, None);
    let (start, blob, adam) = (
        read_adapter(&adapted(0.0)).unwrap(),
        read_adapter(&by_blob.model).unwrap(),
        read_adapter(&by_adam.model).unwrap(),
    );
    let (apart, moved) = (distance(&blob, &adam), distance(&adam, &start));
    println!("apart {apart:e}, moved {moved:e}");
    // ε of 1e-6 in place of 1e-8, beside gradients that start at 0 for A
    assert!(apart < 1e-2 * moved && moved > 0.1);
}

#[test]
fn every_trained_method_learns() {
    let case = points(DType::F32);
    let control = Control::silent();
    let untrained = nll(&case.base, &case.train);
    let methods: [&dyn Method<Mlp, Points>; 4] =
        [&ivon(), &Blob::default(), &Blob::published(), &MonteClora::default()];
    for method in methods {
        let fitted = method.fit(&case.context(2, &control)).unwrap();
        let belief = fitted.belief.believe(&case.map, &case.train, &LIMITS, &control).unwrap();
        let found = mean(&item_nlls(&belief.probabilities(link()).unwrap(), &case.train));
        println!("{}: {found:.4} nats, {untrained:.4} before; {:?}", method.name(), fitted.found);
        assert!(found < 0.8 * untrained, "{}: {found} after {untrained}", method.name());
        // four epochs over 44 items
        assert_eq!((fitted.spent.forwards, fitted.spent.backwards), (176, 176), "{}", method.name());
    }
}

#[test]
fn an_anchored_member_is_the_mode_around_its_own_anchor() {
    if !f64_or_skip("modes around anchors") {
        return;
    }
    let Case { base, recipe, train: data, .. } = points(DType::F64);
    let precision = PriorPrecision::new(3.0).unwrap();
    let ensemble = AnchoredEnsemble::new(precision).with_n_members(2);
    // to the mode, to the last bits: no dropout, no clipping, whole batches at a rate that falls to nothing
    let trainer = quick(6000).with_learning_rate(0.05).with_max_grad_norm(None).with_accumulation(1);
    let limits = BatchLimits { max_items: data.n_items(), max_tokens: 10_000 };
    let recipe = Recipe::new(recipe.lora.with_dropout(0.0)).with_trainer(trainer.with_limits(limits));
    let control = Control::silent();
    let context = FitContext {
        base: &base,
        map: &base,
        snapshots: &[],
        recipe: &recipe,
        curvatures: &[],
        train: &data,
        held_out: None,
        limits,
        seed: 9,
        control: &control,
    };
    let fitted = ensemble.fit(&context).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // the members as they are kept
    let start = |seed| attach(base.clone(), &recipe.lora, seed).unwrap();
    fitted.save(dir.path(), &start(0)).unwrap();
    let mut file = TensorFile::open(dir.path().join("belief.safetensors")).unwrap();
    let seeds = [9, member_seed(9, 1)];
    let mut anchors = Vec::new();
    for (member, seed) in seeds.into_iter().enumerate() {
        let fresh = start(seed);
        let anchor = ensemble.anchor(&fresh, seed).unwrap();
        let mut weights = anchor.clone();
        for (site, w) in &mut weights {
            let name = format!("member {member}/{site}");
            let kept = file.read(&name, [w.nrows(), w.ncols()], DType::F64, &device()).unwrap();
            *w = Array2::from_shape_vec(w.dim(), kept.into_data().try_into_vec().unwrap()).unwrap();
        }
        let model = write_adapter(fresh, &weights).unwrap();
        let gradient = log_likelihood_gradient(&model, &data, &Categorical, &limits, &control).unwrap();
        let (mut force, mut rest) = (0.0f64, 0.0f64);
        for (site, g) in &gradient {
            let pull = (&weights[site] - &anchor[site]) * precision.value();
            force = force.max(pull.iter().fold(0.0, |m, v| m.max(v.abs())));
            rest = rest.max((g - &pull).iter().fold(0.0, |m, v| m.max(v.abs())));
        }
        println!("member {member}: largest force {force}, what is left {rest:e}");
        assert!(force > 0.3 && rest < 1e-9, "member {member}: {force}, {rest:e}");
        anchors.push(anchor);
    }
    assert_ne!(anchors[0], anchors[1]);
}

#[test]
fn anchors_have_the_law_of_the_prior() {
    let base = mlp(DType::F32);
    let start = attach(base, &LoraConfig::new(2), 1).unwrap();
    let ensemble = AnchoredEnsemble::new(PriorPrecision::new(4.0).unwrap());
    let centre = read_adapter(&start).unwrap();
    let deviations: Vec<f64> = (0..400)
        .flat_map(|seed| {
            let anchor = ensemble.anchor(&start, seed).unwrap();
            centre.iter().flat_map(|(site, w)| (&anchor[site] - w).into_iter()).collect::<Vec<f64>>()
        })
        .collect();
    let n = deviations.len() as f64;
    let variance = deviations.iter().map(|d| d * d).sum::<f64>() / n;
    // standard errors: 0.5/√n of the mean, 0.25·√(2/n) of the variance
    assert!((deviations.iter().sum::<f64>() / n).abs() < 5.0 * 0.5 / n.sqrt());
    assert!((variance - 0.25).abs() < 5.0 * 0.25 * (2.0 / n).sqrt(), "{variance}");
    let zero = ensemble.with_prior_mean(PriorMean::Zero);
    let (a, b) = (ensemble.anchor(&start, 3).unwrap(), zero.anchor(&start, 3).unwrap());
    for (site, w) in &centre {
        assert!((&a[site] - &b[site] - w).iter().all(|d| d.abs() < 1e-12), "{site}");
    }
}
