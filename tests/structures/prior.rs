//! Prior precisions by group, and where their evidence is largest.

use super::{LIMITS, adapted_for, cases, config, fit, fixed};
use crate::support::{continuation_dataset, device, relative_error};
use bayes_lora::belief::{LinkApprox, LogitGauge};
use bayes_lora::curvature::{AdapterSubset, CurvatureStructure, fit_curvature};
use bayes_lora::likelihood::Gaussian;
use bayes_lora::linalg::eigh;
use bayes_lora::lora::{Adaptable, LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::models::{MlpConfig, Points};
use bayes_lora::posterior::{HeldOut, Laplace, LaplaceConfig, Spectrum};
use bayes_lora::predict::predict_linearized;
use bayes_lora::prior::{PriorGrouping, PriorMean, PriorPrecision, PriorPrecisions};
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Site};
use ndarray::Array2;
use rand::{SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};

const GROUPINGS: [PriorGrouping; 4] =
    [PriorGrouping::Scalar, PriorGrouping::PerLayer, PriorGrouping::PerMatrix, PriorGrouping::PerSite];

fn times(precisions: &PriorPrecisions, group: usize, factor: f64) -> PriorPrecisions {
    let mut values = precisions.values().to_vec();
    values[group] = PriorPrecision::new(values[group].value() * factor).unwrap();
    PriorPrecisions::new(values).unwrap()
}

#[test]
fn no_neighbour_of_any_group_has_more_evidence() {
    for (fixture, model) in cases("groups") {
        for structure in [CurvatureStructure::Kronecker, CurvatureStructure::Diagonal, CurvatureStructure::SiteBlock] {
            let curvature = fit(&model, &fixture.train, structure);
            let mut last = f64::NEG_INFINITY;
            for prior_grouping in GROUPINGS {
                let config = LaplaceConfig::default().with_prior_grouping(prior_grouping);
                let laplace = Laplace::new(&model, &curvature, &config).unwrap();
                let evidence = |p: &PriorPrecisions| laplace.log_marginal_likelihood(p).unwrap();
                let best = evidence(laplace.prior_precisions());
                for group in 0..laplace.groups().len() {
                    for step in [1e-3f64, 0.1, 2.0] {
                        for factor in [step.exp(), (-step).exp()] {
                            let there = evidence(&times(laplace.prior_precisions(), group, factor));
                            assert!(there < best, "{} {structure} {prior_grouping:?}", fixture.name);
                        }
                    }
                }
                // finer groups can only do better than the scalar prior
                if prior_grouping == PriorGrouping::Scalar {
                    last = best;
                }
                assert!(best >= last - 1e-9);
            }
        }
    }
}

#[test]
fn coupled_structures_refuse_grouped_priors_and_cores_have_neither_a_nor_b() {
    for (fixture, model) in cases("refused groups").take(1) {
        for (structure, grouping, word) in [
            (CurvatureStructure::Full, PriorGrouping::PerSite, "couples"),
            (CurvatureStructure::FunctionSpace, PriorGrouping::PerMatrix, "couples"),
            (CurvatureStructure::Core, PriorGrouping::PerMatrix, "a core has no"),
        ] {
            let curvature = fit(&model, &fixture.train, structure);
            let config = fixed(1.0).with_prior_grouping(grouping);
            let error = Laplace::new(&model, &curvature, &config).unwrap_err().to_string();
            assert!(error.contains(word), "{structure}: {error}");
        }
    }
}

#[test]
fn the_number_of_precisions_must_be_that_of_the_groups() {
    for (fixture, model) in cases("counts").take(1) {
        let curvature =
            fit_curvature(&model, &fixture.train, &config(CurvatureStructure::Kronecker), &Control::silent()).unwrap();
        let config = fixed(1.0).with_prior_grouping(PriorGrouping::PerMatrix);
        let laplace = Laplace::new(&model, &curvature, &config).unwrap();
        let three = PriorPrecisions::new(vec![PriorPrecision::new(1.0).unwrap(); 3]).unwrap();
        let error = laplace.with_prior_precisions(three).unwrap_err().to_string();
        assert!(error.contains("expected 2, found 3"), "{error}");
    }
}

/// Held-out covariances are read off levels of nearly equal eigenvalues, 2 % wide.
const LEVELS: f64 = 1e-3;

#[test]
fn held_out_beliefs_equal_those_of_prediction_at_any_prior() {
    for (fixture, _) in cases("held-out beliefs") {
        for data in [fixture.train.clone(), continuation_dataset()] {
            let model = adapted_for(&fixture, &data);
            for structure in
                [CurvatureStructure::Kronecker, CurvatureStructure::Core, CurvatureStructure::FunctionSpace]
            {
                let laplace = Laplace::new(&model, &fit(&model, &data, structure), &fixed(1.0)).unwrap();
                let held_out = HeldOut::new(&model, &laplace, &data, &LIMITS, &Control::silent()).unwrap();
                for lambda in [1e-3, 1.0, 50.0] {
                    let precision = PriorPrecision::new(lambda).unwrap();
                    let laplace = laplace.clone().with_prior_precisions(precision).unwrap();
                    let expected =
                        predict_linearized(&model, &laplace, &data, LogitGauge::Centred, &LIMITS, &Control::silent());
                    let (mean, covariance) = expected.unwrap().moments();
                    let (found_mean, found) = held_out.belief(&precision.into()).unwrap().moments();
                    assert_eq!(found_mean, mean);
                    let error = relative_error(&found, &covariance);
                    assert!(error < LEVELS, "{} {structure} λ = {lambda}: {error:e}", fixture.name);
                }
            }
        }
    }
}

#[test]
fn no_prior_on_a_grid_beats_the_one_tuned_on_held_out_items() {
    for (fixture, model) in cases("held-out tuning") {
        let data = &fixture.train;
        let link = LinkApprox::PairwiseProbit;
        for prior_grouping in [PriorGrouping::Scalar, PriorGrouping::PerMatrix] {
            let config = LaplaceConfig::default().with_prior_grouping(prior_grouping);
            let laplace = Laplace::new(&model, &fit(&model, data, CurvatureStructure::Kronecker), &config).unwrap();
            let held_out = HeldOut::new(&model, &laplace, data, &LIMITS, &Control::silent()).unwrap();
            let tuned = held_out.tune(laplace.prior_precisions(), link).unwrap();
            assert_eq!(tuned.precisions.len(), laplace.groups().len());
            for step in -60..=60 {
                let shifted = laplace.prior_precisions().scaled((0.2 * f64::from(step)).exp()).unwrap();
                let there = held_out.mean_nll(&shifted, link).unwrap();
                assert!(
                    tuned.mean_nll <= there + 1e-7,
                    "{}: {} at {shifted}, {} tuned",
                    fixture.name,
                    there,
                    tuned.mean_nll
                );
            }
        }
    }
}

/// Bayesian linear regression whose λ is known: B drawn from the prior, labels with Gaussian noise.
///
/// `f(x) = W₀x + s·B·A·x` is linear in B, so that with only B uncertain Laplace is exact and log λ has the posterior that
/// the evidence says.
#[test]
fn the_laplace_interval_of_log_lambda_covers_the_truth() {
    let mut covered = 0;
    for seed in 0..20 {
        let (n, d, c, rank, lambda, noise_variance) = (60, 8, 3, 4, 3.0f64, 0.05);
        let base = MlpConfig::new([d, c]).with_seed(seed).init(&device()).unwrap();
        let model = attach(base, &LoraConfig::new(rank), seed).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(100 + seed);
        let mut normal = || -> f64 { StandardNormal.sample(&mut rng) };
        let features = Array2::from_shape_fn((n, d), |_| normal());
        let truth = Array2::from_shape_fn((c, rank), |_| normal() / lambda.sqrt());
        let mut weights = read_adapter(&model).unwrap();
        let a = weights[&Site { module: "layers.0".into(), matrix: LoraMatrix::A }].clone();
        let scale = model.linears()[0].adapter.as_ref().unwrap().scale;
        let hidden = features.dot(&a.t()) * scale;
        let targets = hidden.dot(&truth.t()) + Array2::from_shape_fn((n, c), |_| normal() * f64::sqrt(noise_variance));
        // the mode at the λ of the evidence, found by alternating: linear regression needs no network for it
        let gram = hidden.t().dot(&hidden) / noise_variance;
        let eigen = eigh(gram.view()).unwrap();
        let spectrum = Spectrum { values: eigen.values.iter().map(|e| (e.max(0.0), c as f64)).collect() };
        let right = targets.t().dot(&hidden) / noise_variance;
        let mode = |lambda: f64| {
            let inverse = (&eigen.vectors / &eigen.values.mapv(|e| e + lambda)).dot(&eigen.vectors.t());
            right.dot(&inverse)
        };
        let mut log = 0.0f64;
        let mut optimum = None;
        for _ in 0..200 {
            let b = mode(log.exp());
            let found = spectrum.maximize(b.iter().map(|v| v * v).sum()).unwrap();
            log = found.precision.value().ln();
            optimum = Some(found);
        }
        let optimum = optimum.unwrap();
        // the library's posterior over B alone at that mode has this very spectrum and optimum
        weights.insert(Site { module: "layers.0".into(), matrix: LoraMatrix::B }, mode(log.exp()));
        let model = write_adapter(model, &weights).unwrap();
        let curvature = config(CurvatureStructure::Full)
            .with_subset(AdapterSubset::OnlyB)
            .with_likelihood(Gaussian { noise_variance });
        let data = Points::new(features, vec![0; n]).unwrap();
        let curvature = fit_curvature(&model, &data, &curvature, &Control::silent()).unwrap();
        let zero = LaplaceConfig::default().with_prior_mean(PriorMean::Zero);
        let laplace = Laplace::new(&model, &curvature, &zero).unwrap();
        let found = laplace.prior_precisions().of(0).value().ln();
        assert!((found - log).abs() < 1e-3, "{found} against {log}"); // the network runs in f32
        // equal-tailed 90 % of a normal in log λ
        covered += usize::from((log - lambda.ln()).abs() < 1.645 * optimum.log_sd);
    }
    println!("{covered} of 20 intervals cover the λ that made the data");
    assert!(covered >= 15, "{covered} of 20");
}

#[test]
fn tuning_refuses_raw_links_wrong_counts_and_labels_that_an_item_lacks() {
    for (fixture, _) in cases("refused tuning").take(1) {
        let data = continuation_dataset();
        let model = adapted_for(&fixture, &data);
        let laplace = Laplace::new(&model, &fit(&model, &data, CurvatureStructure::Kronecker), &fixed(1.0)).unwrap();
        let held_out = HeldOut::new(&model, &laplace, &data, &LIMITS, &Control::silent()).unwrap();
        let precision = PriorPrecision::new(1.0).unwrap();
        let raw = held_out.tune(&precision.into(), LinkApprox::RawProbit).unwrap_err().to_string();
        assert!(raw.contains("RawProbit"), "{raw}");
        let two = PriorPrecisions::new(vec![precision; 2]).unwrap();
        let count = held_out.tune(&two, LinkApprox::PairwiseProbit).unwrap_err().to_string();
        assert!(count.contains("expected 1, found 2"), "{count}");
        let mut wrong = data.clone();
        wrong.items[0].label = Some(3); // of three choices
        let label = HeldOut::new(&model, &laplace, &wrong, &LIMITS, &Control::silent()).unwrap_err().to_string();
        assert!(label.contains("continuation-0") && label.contains("label 3"), "{label}");
    }
}
