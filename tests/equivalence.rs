//! What must not matter does not: batch size, order, padding side, workers, frozen adapters, the way a factor is kept.
//!
//! Everything here is f64 on the CPU, where equal sums in another order differ by rounding alone: 1e-10 relative leaves
//! four digits over what is seen.

mod support;

use bayes_lora::belief::softmax;
use bayes_lora::curvature::{
    Cotangents, CurvatureConfig, FactorSum, FisherKind, KroneckerCurvature, Probe, TokenTreatment, fit_kronecker, probe,
};
use bayes_lora::data::{BatchLimits, EncodedDataset, PaddingSide};
use bayes_lora::likelihood::categorical_fisher;
use bayes_lora::lora::{LoraConfig, attach, load_peft, write_adapter};
use bayes_lora::models::{Classifier, Dataset, PromptClassifier};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::{Predictive, contrasts_to_classes, predict};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use bayes_lora::train::{TrainingMode, set_trainable};
use burn::module::Module;
use burn::tensor::DType;
use ndarray::{Array1, Array2, Array3, Array4, Axis, s};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use support::{
    FIXTURES, Fixture, Padded, central_difference, continuation_dataset, f64_or_skip, host, logits, relative_error,
};

/// Rounding of sums in another order, with a wide margin.
const ROUNDING: f64 = 1e-10;

const TREATMENTS: [TokenTreatment; 3] = [TokenTreatment::Expand, TokenTreatment::Reduce, TokenTreatment::Last];

/// Batches of so many items with C − 1 = 3 gradients each (of more items where there is one pass for all).
fn batches_of(items: usize) -> BatchLimits {
    BatchLimits { max_items: 3 * items, max_tokens: 100_000 }
}

fn exact(treatment: TokenTreatment) -> CurvatureConfig {
    CurvatureConfig { treatment, limits: batches_of(5), ..CurvatureConfig::default() }
}

fn fit<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    config: &CurvatureConfig,
) -> KroneckerCurvature {
    fit_kronecker(model, data, config, &Control::silent()).unwrap()
}

fn dense(sum: &FactorSum) -> Array2<f64> {
    match sum {
        FactorSum::Dense(matrix) => matrix.clone(),
        FactorSum::LowRank(sum) => sum.factor.dot(&sum.factor.t()),
    }
}

/// Largest relative difference of all sums of two fits, whose counts must be the same.
fn difference(a: &KroneckerCurvature, b: &KroneckerCurvature) -> f64 {
    assert_eq!((a.n_data, a.factors.len()), (b.n_data, b.factors.len()));
    let likelihoods = (a.log_likelihood.unwrap(), b.log_likelihood.unwrap());
    let mut worst = (likelihoods.0 / likelihoods.1 - 1.0).abs();
    for (x, y) in a.factors.iter().zip(&b.factors) {
        assert_eq!((&x.site, x.n_vectors), (&y.site, y.n_vectors));
        worst = worst.max(relative_error(&dense(&x.activation), &dense(&y.activation)));
        worst = worst.max(relative_error(&dense(&x.gradient), &dense(&y.gradient)));
    }
    worst
}

fn laplace<M: Classifier>(model: &M, curvature: &KroneckerCurvature, lambda: f64) -> Laplace {
    let prior_precision = Some(PriorPrecision::new(lambda).unwrap());
    Laplace::new(model, curvature, &LaplaceConfig { prior_precision, ..LaplaceConfig::default() }).unwrap()
}

fn pass<M: Classifier, D: Dataset<Input = M::Input>>(model: &M, data: &D, items: &[usize], of: Cotangents) -> Probe {
    probe(model, &data.batch(items, &model.device(), model.dtype()).unwrap(), of).unwrap()
}

fn covariance(laplace: &Laplace, pass: &Probe) -> Array3<f64> {
    laplace.covariance(&laplace.project(pass).unwrap(), laplace.prior_precision())
}

fn all(data: &EncodedDataset) -> Vec<usize> {
    (0..data.len()).collect()
}

fn reversed(data: &EncodedDataset) -> EncodedDataset {
    let mut data = data.clone();
    data.items.reverse();
    data
}

/// A task with continuations, and the fixture's model with its adapter to answer it.
fn continuations(name: &'static str) -> (PromptClassifier, EncodedDataset) {
    let (fixture, data) = (Fixture::load(name), continuation_dataset());
    let model = load_peft(fixture.model_for(&data, DType::F64), fixture.dir().join("adapter")).unwrap().0;
    (model, data)
}

// ---- batches, order, padding, workers ----------------------------------------------------------------------------

#[test]
fn sums_do_not_depend_on_batch_size_order_padding_side_or_workers() {
    if !f64_or_skip("sums") {
        return;
    }
    for name in FIXTURES {
        let fixture = Fixture::load(name);
        let (model, data) = (fixture.model(DType::F64), &fixture.train);
        for treatment in TREATMENTS {
            for fisher in [FisherKind::Exact, FisherKind::Sampled { n: 3, seed: 5 }, FisherKind::Empirical] {
                let config = CurvatureConfig { fisher, ..exact(treatment) };
                let reference = fit(&model, data, &config);
                let alone = CurvatureConfig { limits: batches_of(1), ..config };
                let together = CurvatureConfig { limits: batches_of(12), ..config };
                let left = Padded(data, PaddingSide::Left);
                for (what, other) in [
                    ("batches of one", fit(&model, data, &alone)),
                    ("one batch", fit(&model, data, &together)),
                    ("reversed order", fit(&model, &reversed(data), &config)),
                    ("left padding", fit(&model, &left, &together)),
                ] {
                    let worst = difference(&other, &reference);
                    assert!(worst < ROUNDING, "{name} {treatment:?} {fisher:?}, {what}: {worst:e}");
                }
                let control = Control::silent().with_workers(3).unwrap();
                let parallel = fit_kronecker(&model, data, &config, &control).unwrap();
                assert!(parallel == reference, "{name}: three workers changed bits");
            }
        }
    }
}

#[test]
fn logits_and_jacobians_do_not_depend_on_the_padding_side_or_the_neighbours() {
    if !f64_or_skip("padding") {
        return;
    }
    for name in FIXTURES {
        let fixture = Fixture::load(name);
        let (model, data) = (fixture.model(DType::F64), &fixture.test);
        let right = pass(&model, data, &all(data), Cotangents::Classes);
        let left = pass(&model, &Padded(data, PaddingSide::Left), &all(data), Cotangents::Classes);
        assert!(relative_error(&left.logits, &right.logits) < ROUNDING);
        for (l, r) in left.sites.iter().zip(&right.sites) {
            assert!(l.mask != r.mask, "the padding side made no difference to the layout");
            assert!(relative_error(&l.jacobians().unwrap(), &r.jacobians().unwrap()) < ROUNDING, "{name} {}", r.site);
        }
        for item in all(data) {
            let alone = pass(&model, data, &[item], Cotangents::Classes);
            for (a, r) in alone.sites.iter().zip(&right.sites) {
                let expected = r.jacobians().unwrap().slice_move(s![item..item + 1, .., .., ..]);
                assert!(relative_error(&a.jacobians().unwrap(), &expected) < ROUNDING, "{name} {}", r.site);
            }
        }
    }
}

#[test]
fn predictions_do_not_depend_on_batch_size_order_or_workers() {
    if !f64_or_skip("predictions") {
        return;
    }
    let fixture = Fixture::load(FIXTURES[0]);
    let (model, data) = (fixture.model(DType::F64), &fixture.test);
    let posterior = laplace(&model, &fit(&model, &fixture.train, &exact(TokenTreatment::Expand)), 1.0);
    for how in [Predictive::Map, Predictive::Sampled { n_samples: 3, seed: 1 }, Predictive::default()] {
        let run = |data: &EncodedDataset, size, workers| {
            let control = Control::silent().with_workers(workers).unwrap();
            predict(&model, &posterior, data, how, &batches_of(size), &control).unwrap()
        };
        let reference = run(data, 5, 1);
        assert_eq!(run(data, 5, 3), reference, "workers changed bits");
        let error = relative_error(&run(data, 1, 1).probabilities, &reference.probabilities);
        assert!(error < ROUNDING, "{how:?} alone: {error:e}");
        let mut backwards = run(&reversed(data), 2, 1).probabilities;
        backwards.invert_axis(Axis(0));
        let error = relative_error(&backwards, &reference.probabilities);
        assert!(error < ROUNDING, "{how:?} backwards: {error:e}");
    }
}

#[test]
fn it_does_not_matter_whether_the_adapter_or_the_base_is_frozen() {
    if !f64_or_skip("frozen") {
        return;
    }
    for name in FIXTURES {
        let fixture = Fixture::load(name);
        let frozen = fixture.model(DType::F64).no_grad();
        let lora = set_trainable(fixture.model(DType::F64), &TrainingMode::Lora).unwrap().train();
        let full = set_trainable(fixture.model(DType::F64), &TrainingMode::Full).unwrap().train();
        let config = exact(TokenTreatment::Expand);
        let reference = fit(&frozen, &fixture.train, &config);
        for model in [lora, full] {
            assert!(difference(&fit(&model, &fixture.train, &config), &reference) < ROUNDING);
            let passes = [&frozen, &model].map(|m| pass(m, &fixture.test, &[0, 1], Cotangents::Classes));
            for (a, b) in passes[0].sites.iter().zip(&passes[1].sites) {
                assert!(relative_error(&b.jacobians().unwrap(), &a.jacobians().unwrap()) < ROUNDING);
            }
        }
    }
}

// ---- low rank ----------------------------------------------------------------------------------------------------

#[test]
fn low_rank_at_full_rank_equals_dense() {
    if !f64_or_skip("full rank") {
        return;
    }
    for name in FIXTURES {
        let fixture = Fixture::load(name);
        let model = fixture.model(DType::F64);
        let test = pass(&model, &fixture.test, &all(&fixture.test), Cotangents::Classes);
        for treatment in TREATMENTS {
            let config = CurvatureConfig { dense_limit: 0, low_rank: 1000, ..exact(treatment) };
            let low = fit(&model, &fixture.train, &config);
            let full = fit(&model, &fixture.train, &exact(treatment));
            for lambda in [0.1, 10.0] {
                let (low, full) = (laplace(&model, &low, lambda), laplace(&model, &full, lambda));
                let error = relative_error(&covariance(&low, &test), &covariance(&full, &test));
                let precision = PriorPrecision::new(lambda).unwrap();
                let evidence = |l: &Laplace| l.log_marginal_likelihood(precision).unwrap();
                let log_det = (low.log_det_ratio() / full.log_det_ratio() - 1.0).abs();
                let evidence = (evidence(&low) / evidence(&full) - 1.0).abs();
                println!("{name} {treatment:?} λ = {lambda}: {error:.1e}, {log_det:.1e}, {evidence:.1e}");
                // directions are dropped below 1e-12 of the largest eigenvalue, and the rest go through a Gram matrix
                for error in [error, log_det, evidence] {
                    assert!(error < 1e-8, "{name} {treatment:?} λ = {lambda}: {error:e}");
                }
            }
        }
    }
}

#[test]
fn low_rank_at_full_rank_equals_dense_where_the_data_do_not_span_the_space() {
    if !f64_or_skip("rank-deficient") {
        return;
    }
    let fixture = Fixture::load(FIXTURES[0]);
    // fresh adapters have B = 0, so no gradient reaches A; four items span less than the 32 dimensions
    let fresh =
        attach(fixture.bare(DType::F64), &LoraConfig::new(4).with_target_modules(["q_proj", "v_proj"]), 1).unwrap();
    let mut few = fixture.train.clone();
    few.items.truncate(4);
    for model in [fresh, fixture.model(DType::F64)] {
        let test = pass(&model, &fixture.test, &all(&fixture.test), Cotangents::Classes);
        for treatment in TREATMENTS {
            let config = CurvatureConfig { dense_limit: 0, low_rank: 1000, ..exact(treatment) };
            let low = laplace(&model, &fit(&model, &few, &config), 0.1);
            let full = laplace(&model, &fit(&model, &few, &exact(treatment)), 0.1);
            let error = relative_error(&covariance(&low, &test), &covariance(&full, &test));
            let log_det = (low.log_det_ratio() / full.log_det_ratio() - 1.0).abs();
            println!("{treatment:?}: {error:.1e}, {log_det:.1e}");
            assert!(error < 1e-8 && log_det < 1e-8, "{treatment:?}: {error:e}, {log_det:e}"); // as above
        }
    }
}

#[test]
fn a_strong_prior_leaves_its_own_variance_however_little_of_the_factors_is_kept() {
    if !f64_or_skip("strong prior") {
        return;
    }
    let fixture = Fixture::load(FIXTURES[0]);
    let model = fixture.model(DType::F64);
    let test = pass(&model, &fixture.test, &all(&fixture.test), Cotangents::Classes);
    // rank 4: the narrow side is wider than what is kept, too
    for low_rank in [1, 2, 1000] {
        let config = CurvatureConfig { dense_limit: 0, low_rank, ..exact(TokenTreatment::Expand) };
        let posterior = laplace(&model, &fit(&model, &fixture.train, &config), 1e12);
        let found = covariance(&posterior, &test) * 1e12;
        let mut gram = &found * 0.0;
        for site in &test.sites {
            let j = site.jacobians().unwrap();
            for ((i, c, e), sum) in gram.indexed_iter_mut() {
                *sum += (&j.slice(s![i, c, .., ..]) * &j.slice(s![i, e, .., ..])).sum();
            }
        }
        let error = relative_error(&found, &gram);
        // eigenvalues of the curvature, below 1e3 here, over λ
        assert!(error < 1e-8, "{low_rank} kept: {error:e}");
    }
}

#[test]
fn truncation_conserves_the_trace_and_its_residual_only_adds_curvature() {
    if !f64_or_skip("truncation") {
        return;
    }
    for name in FIXTURES {
        let fixture = Fixture::load(name);
        let model = fixture.model(DType::F64);
        let test = pass(&model, &fixture.test, &all(&fixture.test), Cotangents::Classes);
        for treatment in TREATMENTS {
            let config = CurvatureConfig { dense_limit: 8, low_rank: 3, ..exact(treatment) };
            let low = fit(&model, &fixture.train, &config);
            let full = fit(&model, &fixture.train, &exact(treatment));
            let mut n_truncated = 0;
            for (low, full) in low.factors.iter().zip(&full.factors) {
                for (low, full) in [(&low.activation, &full.activation), (&low.gradient, &full.gradient)] {
                    let trace = dense(full).diag().sum();
                    let kept = match low {
                        FactorSum::Dense(matrix) => matrix.diag().sum(),
                        FactorSum::LowRank(sum) => {
                            n_truncated += 1;
                            assert!(sum.factor.ncols() == 3 && sum.discarded_trace > 0.0);
                            sum.trace()
                        }
                    };
                    assert!((kept / trace - 1.0).abs() < ROUNDING, "{name} {treatment:?}: {kept} of {trace}");
                }
            }
            // the wide side of every site, and nothing else
            assert_eq!(n_truncated, full.factors.len());

            let fixed =
                LaplaceConfig { prior_precision: Some(PriorPrecision::new(0.1).unwrap()), ..LaplaceConfig::default() };
            let with = Laplace::new(&model, &low, &fixed).unwrap();
            let without = Laplace::new(&model, &low, &LaplaceConfig { without_residual: true, ..fixed }).unwrap();
            assert!(with.log_det_ratio() > without.log_det_ratio());
            let (with, without) = (covariance(&with, &test), covariance(&without, &test));
            for (with, without) in with.outer_iter().zip(without.outer_iter()) {
                let scale = without.diag().sum();
                for (a, b) in with.diag().iter().zip(without.diag()) {
                    assert!(a < b, "{name} {treatment:?}: {a} with, {b} without the residual");
                }
                // the whole difference is positive semi-definite, to rounding
                let lowest = bayes_lora::linalg::eigh((&without - &with).view()).unwrap().values[0];
                assert!(lowest > -ROUNDING * scale, "{name} {treatment:?}: {lowest:e}");
            }
        }
    }
}

// ---- which gradients ---------------------------------------------------------------------------------------------

#[test]
fn contrasts_say_what_classes_say_about_differences() {
    if !f64_or_skip("contrasts") {
        return;
    }
    for name in FIXTURES {
        let fixture = Fixture::load(name);
        let model = fixture.model(DType::F64);
        for low_rank in [false, true] {
            let mut config = exact(TokenTreatment::Expand);
            if low_rank {
                (config.dense_limit, config.low_rank) = (8, 3);
            }
            let posterior = laplace(&model, &fit(&model, &fixture.train, &config), 1.0);
            let by = |of| covariance(&posterior, &pass(&model, &fixture.test, &all(&fixture.test), of));
            let (classes, contrasts) = (by(Cotangents::Classes), by(Cotangents::Contrasts));
            let expected = Array3::from_shape_fn(contrasts.dim(), |(i, a, b)| {
                classes[[i, a + 1, b + 1]] - classes[[i, a + 1, 0]] - classes[[i, 0, b + 1]] + classes[[i, 0, 0]]
            });
            let error = relative_error(&contrasts, &expected);
            assert!(error < ROUNDING, "{name}, low rank {low_rank}: {error:e}");
            let padded = contrasts_to_classes(contrasts.view());
            assert!(padded.slice(s![.., 0, ..]).iter().chain(padded.slice(s![.., .., 0]).iter()).all(|v| *v == 0.0));
            assert_eq!(padded.slice(s![.., 1.., 1..]), contrasts);
        }
    }
}

#[test]
fn sampled_labels_average_to_the_exact_sums() {
    if !f64_or_skip("sampled labels") {
        return;
    }
    for name in FIXTURES {
        let fixture = Fixture::load(name);
        let model = fixture.model(DType::F64);
        // two numbers of every gradient sum: its trace, and uᵀGu for one direction
        let numbers = |fisher| -> Array1<f64> {
            let config = CurvatureConfig { fisher, limits: batches_of(12), ..exact(TokenTreatment::Expand) };
            let curvature = fit(&model, &fixture.train, &config);
            let sums = curvature.factors.iter().map(|f| dense(&f.gradient));
            let pair = |g: Array2<f64>| {
                let u = Array1::from_shape_fn(g.nrows(), |i| (1.0 + i as f64).sin());
                [g.diag().sum(), u.dot(&g).dot(&u)]
            };
            sums.flat_map(pair).collect()
        };
        let exact = numbers(FisherKind::Exact);
        let runs: Vec<Array1<f64>> = (0..40).map(|seed| numbers(FisherKind::Sampled { n: 1, seed })).collect();
        let n = runs.len() as f64;
        let mean = runs.iter().fold(&exact * 0.0, |sum, run| sum + run) / n;
        let variance = runs.iter().fold(&exact * 0.0, |sum, run| sum + (run - &mean).mapv(|v| v * v)) / (n - 1.0);
        let sd = variance.mapv(f64::sqrt);
        let many = numbers(FisherKind::Sampled { n: 256, seed: 99 });
        for k in 0..exact.len() {
            assert!(sd[k] > 0.0, "the draws do not differ");
            // five standard errors of means over 40 and over 256 independent draws
            assert!((mean[k] - exact[k]).abs() < 5.0 * sd[k] / n.sqrt(), "{name} number {k} over seeds");
            assert!((many[k] - exact[k]).abs() < 5.0 * sd[k] / 16.0, "{name} number {k} over labels");
        }
    }
}

// ---- items that lack classes, and continuations ------------------------------------------------------------------

#[test]
fn classes_that_an_item_lacks_have_no_probability_and_no_say() {
    if !f64_or_skip("class mask") {
        return;
    }
    let mut fixture = Fixture::load(FIXTURES[0]);
    for (i, item) in fixture.train.items.iter_mut().enumerate().filter(|(_, item)| item.label != Some(3)) {
        item.n_choices = if i % 2 == 0 { 3 } else { 4 };
    }
    let data = &fixture.train;
    let model = fixture.model(DType::F64);
    let config = exact(TokenTreatment::Expand);
    let curvature = fit(&model, data, &config);
    let alone = fit(&model, data, &CurvatureConfig { limits: batches_of(1), ..config });
    assert!(difference(&alone, &curvature) < ROUNDING);
    let posterior = laplace(&model, &curvature, 1.0);
    let raw = Predictive::Linearized(bayes_lora::belief::LinkApprox::RawProbit);
    let mut n_lacking = 0;
    for how in [Predictive::Map, Predictive::Sampled { n_samples: 4, seed: 0 }, Predictive::default(), raw] {
        let found = predict(&model, &posterior, data, how, &batches_of(5), &Control::silent()).unwrap();
        for (item, p) in data.items.iter().zip(found.probabilities.outer_iter()) {
            assert!((p.sum() - 1.0).abs() < 1e-12); // rounding of four terms
            assert_eq!(p[3] == 0.0, item.n_choices == 3, "{how:?}");
            n_lacking += usize::from(item.n_choices == 3);
        }
    }
    assert!(n_lacking > 0);
}

#[test]
fn continuations_respect_the_class_mask_and_do_not_depend_on_their_batch() {
    if !f64_or_skip("continuations") {
        return;
    }
    for name in FIXTURES {
        let (model, data) = continuations(name);
        for treatment in [TokenTreatment::Expand, TokenTreatment::Reduce] {
            for fisher in [FisherKind::Exact, FisherKind::Sampled { n: 2, seed: 3 }, FisherKind::Empirical] {
                let config = CurvatureConfig { fisher, ..exact(treatment) };
                let reference = fit(&model, &data, &config);
                let limits = batches_of(1);
                for (what, other) in [
                    ("alone", fit(&model, &data, &CurvatureConfig { limits, ..config })),
                    ("reversed", fit(&model, &reversed(&data), &config)),
                    ("left padding", fit(&model, &Padded(&data, PaddingSide::Left), &config)),
                ] {
                    let worst = difference(&other, &reference);
                    assert!(worst < ROUNDING, "{name} {treatment:?} {fisher:?} {what}: {worst:e}");
                }
            }
        }
        let posterior = laplace(&model, &fit(&model, &data, &exact(TokenTreatment::Reduce)), 1.0);
        for how in [Predictive::Map, Predictive::Sampled { n_samples: 3, seed: 0 }, Predictive::default()] {
            let run = |limits| predict(&model, &posterior, &data, how, &limits, &Control::silent()).unwrap();
            let (one, many) = (run(batches_of(1)), run(batches_of(7)));
            assert!(relative_error(&one.probabilities, &many.probabilities) < ROUNDING, "{name} {how:?}");
            let (_, covariance) = many.belief.moments();
            for (i, item) in data.items.iter().enumerate() {
                assert_eq!(many.probabilities[[i, 3]] == 0.0, item.n_choices == 3);
                assert!((many.probabilities.row(i).sum() - 1.0).abs() < 1e-12); // rounding of four terms
                if item.n_choices == 3 {
                    assert!(covariance.slice(s![i, 3, ..]).iter().all(|v| *v == 0.0));
                }
            }
        }
    }
}

#[test]
fn jacobians_of_continuations_equal_central_differences_choice_by_choice() {
    if !f64_or_skip("continuation Jacobians") {
        return;
    }
    for name in FIXTURES {
        let (model, data) = continuations(name);
        let together = pass(&model, &data, &all(&data), Cotangents::Classes);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for site in &together.sites {
            let jacobians = site.jacobians().unwrap();
            let (_, choices, rows, columns) = jacobians.dim();
            assert_eq!(choices, 4);
            let scale = jacobians.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            assert!(scale > 0.0, "{name} {} has no gradient", site.site);
            for _ in 0..2 {
                let at = [rng.random_range(0..rows), rng.random_range(0..columns)];
                let expected = central_difference(&model, &data, &site.site, at);
                for (i, item) in data.items.iter().enumerate() {
                    for c in 0..4 {
                        let found = jacobians[[i, c, at[0], at[1]]];
                        if c >= item.n_choices {
                            assert_eq!(found, 0.0, "a choice that is not there has a gradient");
                        } else {
                            let error = (found - expected[[i, c]]).abs() / scale;
                            println!("{} {i} {c} {found} {}", site.site, expected[[i, c]]);
                            assert!(error < 1e-7, "{name} {} item {i} class {c}: {error:e}", site.site); // see support
                        }
                    }
                }
            }
        }
        // a choice alone, as an item of its own, has the same logit and the same gradients
        let mut alone = data.clone();
        alone.items.iter_mut().for_each(|item| (item.rows, item.n_choices) = (vec![item.rows[2].clone()], 1));
        let alone = pass(&model, &alone, &all(&data), Cotangents::Classes);
        assert!(relative_error(&alone.logits.column(0).to_owned(), &together.logits.column(2).to_owned()) < ROUNDING);
        for (a, t) in alone.sites.iter().zip(&together.sites) {
            let expected = t.jacobians().unwrap().slice_move(s![.., 2..3, .., ..]);
            assert!(relative_error(&a.jacobians().unwrap(), &expected) < ROUNDING, "{name} {}", t.site);
        }
    }
}

/// The sums of `design/laplace.md` for continuations, written as loops: `Expand` takes every row by itself, `Reduce` the
/// item's mean input and each row's summed gradient under the whole Λ.
fn naive_sums(pass: &Probe, item: usize, treatment: TokenTreatment) -> Vec<(Array2<f64>, Array2<f64>)> {
    let p = softmax(pass.logits.view());
    let fisher = categorical_fisher(p.row(item));
    pass.sites
        .iter()
        .map(|site| {
            let (x, g): (Array4<f64>, Array4<f64>) = (host(site.inputs.clone()), host(site.gradients.clone()));
            let (_, rows, tokens, d_in) = x.dim();
            let d_out = g.dim().3;
            let (mut a, mut b) = (Array2::zeros((d_in, d_in)), Array2::zeros((d_out, d_out)));
            let outer =
                |u: &Array1<f64>, v: &Array1<f64>| Array2::from_shape_fn((u.len(), v.len()), |(i, j)| u[i] * v[j]);
            let real: Vec<(usize, usize)> = (0..rows)
                .flat_map(|r| (0..tokens).map(move |t| (r, t)))
                .filter(|&(r, t)| site.mask[[item, r, t]])
                .collect();
            let input = |(r, t): (usize, usize)| x.slice(s![item, r, t, ..]).to_owned();
            let gradient = |(r, t): (usize, usize)| g.slice(s![item, r, t, ..]).to_owned();
            match treatment {
                TokenTreatment::Expand => {
                    for &at in &real {
                        a += &outer(&input(at), &input(at));
                        b += &(outer(&gradient(at), &gradient(at)) * fisher[[at.0, at.0]]);
                    }
                }
                _ => {
                    let mean = real.iter().fold(Array1::zeros(d_in), |sum, &at| sum + input(at)) / real.len() as f64;
                    a += &outer(&mean, &mean);
                    let sums: Vec<Array1<f64>> = (0..rows)
                        .map(|r| {
                            real.iter().filter(|at| at.0 == r).fold(Array1::zeros(d_out), |sum, &at| sum + gradient(at))
                        })
                        .collect();
                    for c in 0..rows {
                        for e in 0..rows {
                            b += &(outer(&sums[c], &sums[e]) * fisher[[c, e]]);
                        }
                    }
                }
            }
            (a, b)
        })
        .collect()
}

#[test]
fn sums_of_continuations_equal_the_naive_loops() {
    if !f64_or_skip("naive sums") {
        return;
    }
    for name in FIXTURES {
        let (model, data) = continuations(name);
        for treatment in [TokenTreatment::Expand, TokenTreatment::Reduce] {
            let found = fit(&model, &data, &exact(treatment));
            let together = pass(&model, &data, &all(&data), Cotangents::Classes);
            let mut expected = naive_sums(&together, 0, treatment);
            for item in 1..data.len() {
                for (sum, new) in expected.iter_mut().zip(naive_sums(&together, item, treatment)) {
                    sum.0 += &new.0;
                    sum.1 += &new.1;
                }
            }
            assert_eq!((found.n_data, found.factors[0].n_vectors), (data.len(), data.n_tokens()));
            for (factors, (a, g)) in found.factors.iter().zip(&expected) {
                assert!(
                    relative_error(&dense(&factors.activation), a) < ROUNDING,
                    "{name} {treatment:?} {}",
                    factors.site
                );
                assert!(
                    relative_error(&dense(&factors.gradient), g) < ROUNDING,
                    "{name} {treatment:?} {}",
                    factors.site
                );
            }
        }
    }
}

#[test]
fn a_moved_adapter_moves_the_logits() {
    // guards the finite differences above: had write_adapter no effect, every derivative would be zero
    let fixture = Fixture::load(FIXTURES[0]);
    let model = fixture.model(DType::F32);
    let weights = bayes_lora::lora::read_adapter(&model).unwrap().into_iter().map(|(site, w)| (site, w * 2.0));
    let moved = write_adapter(model.clone(), &weights.collect()).unwrap();
    let (before, after) = (logits(&model, &fixture.test), logits(&moved, &fixture.test));
    assert!(relative_error(&after, &before) > 0.01); // far above f32 rounding
}
