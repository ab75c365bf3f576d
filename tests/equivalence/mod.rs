//! What must not matter does not: batch size, order, padding side, workers, frozen adapters, the way a factor is kept.
//!
//! Everything here is f64 on the CPU, where equal sums in another order differ by rounding alone: 1e-10 relative leaves
//! four digits over what is seen.

mod batches;
mod common_beginning;
mod continuations;
mod distinct_tokens;
mod gradients;
mod layers;
mod low_rank;
mod pull_back;
mod read_tokens;
mod shared_prompts;

use crate::support::{FIXTURES, Fixture, Padded, continuation_dataset, f64_or_skip, relative_error};
use bayes_lora::curvature::{
    Cotangents, Curvature, CurvatureConfig, FactorSum, Probe, TokenTreatment, fit_curvature, probe,
};
use bayes_lora::data::{BatchLimits, EncodedDataset, PaddingSide};
use bayes_lora::lora::{LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::models::{Classifier, Dataset, PromptClassifier, TokenBatch};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::{Prediction, Predictive, predict};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use burn::tensor::DType;
use ndarray::{Array2, Array3, Array4};

/// Rounding of sums in another order, with a wide margin.
const ROUNDING: f64 = 1e-10;

const TREATMENTS: [TokenTreatment; 3] = [TokenTreatment::Expand, TokenTreatment::Reduce, TokenTreatment::Last];

/// Batches of so many items with C − 1 = 3 gradients each (of more items where there is one pass for all).
fn batches_of(items: usize) -> BatchLimits {
    BatchLimits { max_items: 3 * items, max_tokens: 100_000 }
}

fn control(workers: usize) -> Control {
    Control::silent().with_workers(workers).unwrap()
}

fn exact(treatment: TokenTreatment) -> CurvatureConfig {
    CurvatureConfig::default().with_treatment(treatment).with_limits(batches_of(5))
}

fn at_rank(treatment: TokenTreatment, dense_limit: usize, low_rank: usize) -> CurvatureConfig {
    exact(treatment).with_dense_limit(dense_limit).with_low_rank(low_rank)
}

fn fixed(lambda: f64) -> LaplaceConfig {
    LaplaceConfig::default().with_prior_precision(PriorPrecision::new(lambda).unwrap())
}

// ---- cases ------------------------------------------------------------------------------------------------------

/// A fixture, and its model with the adapter in f64.
struct Case {
    fixture: Fixture,
    model: PromptClassifier,
}

impl Case {
    /// Curvature of the training items.
    fn fit(&self, config: &CurvatureConfig) -> Curvature {
        self.fit_to(&self.fixture.train, config, 1)
    }

    fn fit_to(&self, data: &impl Dataset<Input = TokenBatch>, config: &CurvatureConfig, workers: usize) -> Curvature {
        fit_curvature(&self.model, data, config, &control(workers)).unwrap()
    }

    fn laplace(&self, curvature: &Curvature, lambda: f64) -> Laplace {
        Laplace::new(&self.model, curvature, &fixed(lambda)).unwrap()
    }

    /// A pass over the test items.
    fn pass(&self, of: Cotangents) -> Probe {
        self.pass_over(&self.fixture.test, of)
    }

    fn pass_over(&self, data: &impl Dataset<Input = TokenBatch>, of: Cotangents) -> Probe {
        let items: Vec<usize> = (0..data.n_items()).collect();
        probe(&self.model, &data.batch(&items, &self.model.device(), self.model.dtype()).unwrap(), of).unwrap()
    }

    fn predict(
        &self,
        by: &Laplace,
        data: &EncodedDataset,
        how: Predictive,
        items: usize,
        workers: usize,
    ) -> Prediction {
        predict(&self.model, by, data, how, &batches_of(items), &control(workers)).unwrap()
    }
}

/// All fixtures after a change; none where the device has no f64.
fn cases(test: &str, edit: fn(&mut Fixture)) -> impl Iterator<Item = Case> {
    let runs = f64_or_skip(test);
    FIXTURES.into_iter().filter(move |_| runs).map(move |name| {
        let mut fixture = Fixture::load(name);
        edit(&mut fixture);
        Case { model: fixture.model(DType::F64), fixture }
    })
}

/// The fixtures with their own questions, answered by a class token.
fn question_cases(test: &str) -> impl Iterator<Item = Case> {
    cases(test, |_| ())
}

/// The fixtures with questions that are answered by continuations, also with an adapter on the output head.
fn continuation_cases(test: &str) -> impl Iterator<Item = Case> {
    let with_continuations = |fixture: &mut Fixture| {
        fixture.train = continuation_dataset();
        fixture.test = continuation_dataset();
    };
    cases(test, with_continuations).chain(cases(test, with_continuations).map(headed))
}

/// The same with an adapter on values and the output head that is not at its start.
fn headed(case: Case) -> Case {
    let config = LoraConfig::new(2).with_target_modules(["v_proj", "lm_head"]);
    let model = attach(case.fixture.bare(DType::F64), &config, 3).unwrap();
    let mut weights = read_adapter(&model).unwrap();
    let value = |i: usize| 0.1 * (((i * 37 + 11) % 19) as f64 / 9.5 - 1.0);
    weights.values_mut().for_each(|w| w.iter_mut().enumerate().for_each(|(i, v)| *v += value(i)));
    Case { model: write_adapter(model, &weights).unwrap(), ..case }
}

fn reversed(data: &EncodedDataset) -> EncodedDataset {
    let mut data = data.clone();
    data.items.reverse();
    data
}

fn covariance(laplace: &Laplace, pass: &Probe) -> Array3<f64> {
    laplace.covariance(&laplace.project(pass).unwrap(), laplace.prior_precisions()).unwrap()
}

fn dense(sum: &FactorSum) -> Array2<f64> {
    match sum {
        FactorSum::Dense(matrix) => matrix.clone(),
        FactorSum::LowRank(sum) => sum.factor.dot(&sum.factor.t()),
    }
}

// ---- comparisons ------------------------------------------------------------------------------------------------

/// Largest relative difference of all sums of two fits, whose counts must be the same.
fn difference(a: &Curvature, b: &Curvature) -> f64 {
    assert_eq!((a.n_data, a.kronecker_factors().unwrap().len()), (b.n_data, b.kronecker_factors().unwrap().len()));
    let likelihoods = (a.log_likelihood.unwrap(), b.log_likelihood.unwrap());
    let mut worst = (likelihoods.0 / likelihoods.1 - 1.0).abs();
    for (x, y) in a.kronecker_factors().unwrap().iter().zip(b.kronecker_factors().unwrap()) {
        assert_eq!((&x.site, x.n_vectors), (&y.site, y.n_vectors));
        worst = worst.max(relative_error(&dense(&x.activation), &dense(&y.activation)));
        worst = worst.max(relative_error(&dense(&x.gradient), &dense(&y.gradient)));
    }
    worst
}

/// Other batches, another order and padding on the other side give the same sums; more workers give the same bits.
fn check_sums(case: &Case, config: &CurvatureConfig) {
    let Fixture { name, train, .. } = &case.fixture;
    let (reference, what) = (case.fit(config), format!("{name} {:?} {:?}", config.treatment, config.fisher));
    let [alone, together] = [1, 12].map(|items| config.clone().with_limits(batches_of(items)));
    for (how, other) in [
        ("batches of one", case.fit(&alone)),
        ("one batch", case.fit(&together)),
        ("reversed order", case.fit_to(&reversed(train), config, 1)),
        ("left padding", case.fit_to(&Padded(train, PaddingSide::Left), &together, 1)),
    ] {
        let worst = difference(&other, &reference);
        assert!(worst < ROUNDING, "{what}, {how}: {worst:e}");
    }
    assert!(case.fit_to(train, config, 3) == reference, "{what}: three workers changed bits");
}

/// Every site's Jacobians are those of another pass, or a part of them.
fn check_jacobians(found: &Probe, whole: &Probe, part: impl Fn(Array4<f64>) -> Array4<f64>, what: &str) {
    for (found, whole) in found.sites.iter().zip(&whole.sites) {
        let error = relative_error(&found.jacobians().unwrap(), &part(whole.jacobians().unwrap()));
        assert!(error < ROUNDING, "{what} {}: {error:e}", whole.site);
    }
}
