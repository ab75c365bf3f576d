//! Predictions of numbers side by side: densities, errors and intervals, with noise that held-out items choose.

use super::runs::{about, files, laplace};
use crate::support::device;
use crate::support::points::{LIMITS, Regression, blobs, quick};
use bayes_lora::belief::LogitBelief;
use bayes_lora::compare::{
    About, Cell, Comparison, ExtraData, Outcome, Report, ReportOptions, RowOutcome, Run, Shifted, Splits, read_runs,
};
use bayes_lora::curvature::{CurvatureStructure, fit_curvature};
use bayes_lora::error::Result;
use bayes_lora::likelihood::{Gaussian, Likelihood, Target};
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::methods::{
    AnchoredEnsemble, Blob, CheckpointEnsemble, DeepEnsemble, HeadLaplace, Ivon, MaximumLikelihood, McDropout,
    MethodFit, Recipe, Swag, Tfb,
};
use bayes_lora::metrics::ValuePredictions;
use bayes_lora::models::{Mlp, MlpConfig};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::{Predictive, predict_linearized, predict_map};
use bayes_lora::prior::{PriorChoice, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::train::{Snapshots, Trainer};
use ndarray::{Array2, Axis};
use std::f64::consts::TAU;

/// What a model that has learned nothing takes for noise.
const BEGIN: f64 = 2.0;

/// The first coordinate of points in two blobs, bent, and a disturbance that nothing tells.
fn numbers(n: usize, seed: u64) -> Regression {
    let (points, other) = (blobs(n, seed), blobs(n, seed + 100));
    let value =
        |i: usize| points.features[[i, 0]] - 0.3 * points.features[[i, 1]].powi(2) + 0.4 * other.features[[i, 1]];
    let values = Array2::from_shape_fn((n, 1), |(i, _)| value(i));
    Regression::new(points.features.clone(), values)
}

struct Data {
    train: Regression,
    held_out: Regression,
    test: Regression,
}

impl Data {
    fn new() -> Self {
        Self { train: numbers(40, 1), held_out: numbers(30, 2), test: numbers(50, 3) }
    }

    fn splits(&self) -> Splits<'_, Regression> {
        Splits { train: &self.train, held_out: Some(&self.held_out), test: &self.test, shifted: Vec::new() }
    }
}

fn base() -> Mlp {
    MlpConfig::new([2, 8, 1]).init(&device()).unwrap()
}

fn recipe() -> Recipe {
    let trainer = quick(6).with_snapshots(Snapshots { count: 3, from: 0.5 });
    let trainer = trainer.with_likelihood(Gaussian { noise_variance: BEGIN });
    Recipe::new(LoraConfig::new(2).with_dropout(0.1)).with_trainer(trainer)
}

fn described() -> About {
    About { classes: Vec::new(), ..about() }
}

fn comparison() -> Comparison<Mlp, Regression> {
    Comparison::new(recipe())
        .with_method(MaximumLikelihood)
        .with_method(laplace(CurvatureStructure::Kronecker))
        .with_method(laplace(CurvatureStructure::FunctionSpace).with_prior(PriorChoice::Matched))
        .with_method(laplace(CurvatureStructure::Core).with_predictive(Predictive::Sampled { n_samples: 5, seed: 0 }))
        .with_method(McDropout::default())
        .with_method(CheckpointEnsemble::default())
        .with_method(DeepEnsemble::default().with_n_members(2))
        .with_method(AnchoredEnsemble::new(PriorPrecision::new(10.0).unwrap()).with_n_members(2))
        .with_method(Swag::default().with_n_snapshots(4).with_rank(3))
        .with_method(Ivon::default().with_n_samples(3))
        .with_method(Blob::default().with_n_samples(3))
}

fn run(comparison: &Comparison<Mlp, Regression>, data: &Data, seed: u64) -> Result<Run> {
    comparison.run(&base(), &described(), &data.splits(), seed)
}

fn predicted(cell: &Cell) -> &bayes_lora::compare::Answered<ValuePredictions> {
    match &cell.outcome {
        Outcome::Predicted(predicted) => predicted,
        other => panic!("{}: {other:?}", cell.method),
    }
}

/// `−Σ ln p(y | f)` with noise, in closed form where the belief is a point or a Gaussian.
fn nll(belief: &LogitBelief, values: &Array2<f64>, noise: f64) -> f64 {
    let (mean, covariance) = belief.moments();
    let one = |i: usize| {
        let v = covariance[[i, 0, 0]] + noise;
        0.5 * ((values[[i, 0]] - mean[[i, 0]]).powi(2) / v + (TAU * v).ln())
    };
    (0..values.nrows()).map(one).sum()
}

#[test]
fn every_method_with_a_meaning_predicts_every_number_with_noise_of_its_own() {
    let data = Data::new();
    let run = run(&comparison(), &data, 0).unwrap();
    assert_eq!(run.cells.len(), 11);
    let values = run.setting.values.as_ref().unwrap();
    assert_eq!((values.test.len(), values.held_out.len(), run.setting.n_test()), (50, 30, 50));
    assert!(run.setting.test.is_empty() && run.setting.held_out.is_empty() && run.setting.classes.is_empty());
    for cell in &run.cells {
        let predicted = predicted(cell);
        assert_eq!(predicted.test.n_items(), 50, "{}", cell.method);
        let noise = predicted.found["noise variance"];
        assert!(noise > 0.1 && noise < 10.0 && noise != BEGIN, "{}: {noise}", cell.method);
        assert_eq!(cell.extra_data, ExtraData::Labelled(30), "{}", cell.method);
        assert!(predicted.test.ranks.iter().all(|rank| (0.0..=1.0).contains(rank)));
        assert!(predicted.cost.forwards_per_item > 0);
    }
}

#[test]
fn a_point_and_a_laplace_posterior_say_what_they_say_alone() {
    let (data, control) = (Data::new(), Control::silent());
    let run = run(&comparison(), &data, 2).unwrap();
    let start = attach(base(), &recipe().lora, 2).unwrap();
    let trainer = Trainer::new(recipe().trainer.with_seed(2)).unwrap();
    let map = trainer.fit(start, &data.train, None, &control).unwrap().model;
    let believe = |data: &Regression| predict_map(&map, data, &LIMITS, &control).unwrap();
    // a point's noise is its squared error on the held-out items
    let rest = &believe(&data.held_out).moments().0 - &data.held_out.values;
    let noise = rest.mapv(|r| r * r).mean().unwrap();
    let point = predicted(&run.cells[0]);
    // kept to nine digits
    assert!((point.found["noise variance"] / noise - 1.0).abs() < 1e-8);
    let (mean, _) = believe(&data.test).moments();
    for (i, y) in data.test.values.column(0).iter().enumerate() {
        let density = -0.5 * ((y - mean[[i, 0]]).powi(2) / noise + (TAU * noise).ln());
        assert!(
            (point.test.log_densities[i] - density).abs() < 1e-7 && (point.test.means[i] - mean[[i, 0]]).abs() < 1e-8
        );
        assert!((point.test.deviations[i] - noise.sqrt()).abs() < 1e-8);
    }
    // the posterior is that of this noise; its own noise is what the held-out items want beside its doubt
    let mut curvature = laplace(CurvatureStructure::Kronecker).curvature;
    curvature.likelihood = Some(Gaussian { noise_variance: noise }.into());
    let curvature = fit_curvature(&map, &data.train, &curvature, &control).unwrap();
    let posterior = Laplace::new(&map, &curvature, &LaplaceConfig::default()).unwrap();
    let believe = |data: &Regression| {
        predict_linearized(&map, &posterior, data, posterior.gauge(Default::default()), &LIMITS, &control).unwrap()
    };
    let (held_out, test) = (believe(&data.held_out), believe(&data.test));
    let found = predicted(&run.cells[1]);
    let own = found.found["noise variance"];
    assert!(own < noise);
    let at = |factor: f64| nll(&held_out, &data.held_out.values, own * factor);
    assert!(at(1.0) < at(1.01) && at(1.0) < at(0.99));
    let expected = nll(&test, &data.test.values, own);
    let sum: f64 = found.test.log_densities.iter().sum();
    // nine digits of each
    assert!((sum + expected).abs() < 1e-5 * expected.abs().max(1.0), "{sum} {expected}");
    let variances = test.moments().1;
    for (item, deviation) in variances.axis_iter(Axis(0)).zip(&found.test.deviations) {
        assert!((deviation - (item[[0, 0]] + own).sqrt()).abs() < 1e-7);
    }
}

#[test]
fn without_held_out_numbers_the_noise_is_that_of_the_training_items() {
    let (data, control) = (Data::new(), Control::silent());
    let comparison = Comparison::new(recipe()).with_method(MaximumLikelihood).with_method(Ivon::default());
    let splits = Splits { held_out: None, ..data.splits() };
    let run = comparison.run(&base(), &described(), &splits, 0).unwrap();
    let start = attach(base(), &recipe().lora, 0).unwrap();
    let trainer = Trainer::new(recipe().trainer.with_seed(0)).unwrap();
    let map = trainer.fit(start, &data.train, None, &control).unwrap().model;
    let belief = predict_map(&map, &data.train, &LIMITS, &control).unwrap();
    let rest = &belief.moments().0 - &data.train.values;
    let noise = rest.mapv(|r| r * r).mean().unwrap();
    for cell in &run.cells {
        assert!((predicted(cell).found["noise variance"] / noise - 1.0).abs() < 1e-8, "{}", cell.method);
        assert_eq!(cell.extra_data, ExtraData::None);
    }
    // also beside no method that starts from that adapter
    let alone = Comparison::new(recipe()).with_method(Ivon::default());
    let alone = alone.run(&base(), &described(), &splits, 0).unwrap();
    assert_eq!(predicted(&alone.cells[0]).test, predicted(&run.cells[1]).test);
}

#[test]
fn cells_are_taken_up_and_make_a_report_of_densities_errors_and_intervals() {
    let (data, dir) = (Data::new(), tempfile::tempdir().unwrap());
    let some = || {
        Comparison::new(recipe())
            .with_method(MaximumLikelihood)
            .with_method(laplace(CurvatureStructure::Kronecker))
            .with_dir(dir.path())
    };
    let first: Vec<Run> = [0, 1].map(|seed| run(&some(), &data, seed).unwrap()).into();
    let cells = |run: &Run| run.cells.iter().map(|cell| serde_json::to_string(cell).unwrap()).collect::<Vec<_>>();
    let again = run(&some().with_method(McDropout::default()), &data, 0).unwrap();
    // not run again: the clock says the same
    assert_eq!((&cells(&again)[..2], again.cells.len()), (&cells(&first[0])[..], 3));
    assert_eq!(files(&dir.path().join("two-blobs/seed-1")).len(), 3);
    let other = Data { test: numbers(50, 9), ..Data::new() };
    let error = run(&some(), &other, 0).unwrap_err().to_string();
    assert!(error.contains("test data") && error.contains("another run"), "{error}");

    let kept = read_runs(dir.path()).unwrap();
    assert_eq!((kept.len(), kept[0].cells.len()), (2, 3));
    let mut options = ReportOptions::default();
    options.scores.n_draws = 100;
    let report = Report::new(first, options.clone()).unwrap();
    let run = &report.runs[0];
    assert_eq!((run.rows.len(), run.info.n_test, run.info.n_calibration), (2, 50, 30));
    let RowOutcome::Predicted(scores) = &run.rows[1].outcome else { panic!("it predicts") };
    let of = |name: &str| run.rows[1].outcome.estimate(name).unwrap();
    assert_eq!((of("RMSE"), of("inside 90 %")), (scores.rmse, scores.coverage[1]));
    let p = run.p_better("Laplace Kronecker", "maximum likelihood", "CRPS").unwrap();
    assert!((p + run.p_better("maximum likelihood", "Laplace Kronecker", "CRPS").unwrap() - 1.0).abs() < 1e-12);
    let spread = report.groups[0].rows[0].numbers.iter().find(|(name, _)| name == "RMSE").unwrap().1;
    assert_eq!(spread.n_seeds, 2);
    let (page, tables) = (report.html().unwrap(), report.markdown());
    for words in ["RMSE ↓", "CRPS ↓", "inside 95 %", "Laplace Kronecker", "Δ CRPS", "held-out for the noise"] {
        assert!(tables.contains(words) && page.contains(words), "{words}");
    }
    assert!(page.contains("has the least NLL") && !page.contains("calibrated rows") && !page.contains("ECE"));
    let read = Report::from_json(&report.json().unwrap()).unwrap();
    assert_eq!(read.runs[0].rows[0].name, "maximum likelihood");
    assert!(read.runs[0].predicted.is_some() && read.runs[0].paired.is_none());
    // classes and numbers never share a report's run
    let mut mixed = kept[0].clone();
    mixed.setting.values = None;
    (mixed.setting.test, mixed.setting.classes) = (vec![0; 50], about().classes);
    assert!(Report::new(vec![mixed], options).unwrap_err().to_string().contains("classes and numbers are mixed"));
}

#[test]
fn what_is_about_classes_alone_is_refused_by_name() {
    let data = Data::new();
    let some = Comparison::new(recipe())
        .with_method(MaximumLikelihood)
        .with_method(HeadLaplace::default())
        .with_method(Tfb::default())
        .with_method(laplace(CurvatureStructure::Kronecker).with_leave_one_out_temperature());
    let run = run(&some, &data, 0).unwrap();
    predicted(&run.cells[0]);
    for cell in &run.cells[1..] {
        let Outcome::Failed(reason) = &cell.outcome else { panic!("{} answered", cell.method) };
        assert!(reason.contains(&cell.method) && reason.contains("classes") && reason.contains("gaussian"), "{reason}");
    }
    let elsewhere = Shifted { name: "far".into(), data: &data.train, labelled: false };
    let splits = Splits { shifted: vec![elsewhere], ..data.splits() };
    let error = some.run(&base(), &described(), &splits, 0).unwrap_err().to_string();
    assert!(error.contains("`far`") && error.contains("numbers"), "{error}");
    let two = MlpConfig::new([2, 8, 2]).init(&device()).unwrap();
    let error = some.run(&two, &described(), &data.splits(), 0).unwrap_err().to_string();
    assert!(error.contains("outputs") && error.contains("expected 1, found 2"), "{error}");
    // a fitted method predicts classes
    let error = MethodFit::new(&base(), &recipe(), &data.train).fit(&MaximumLikelihood).err().unwrap().to_string();
    assert!(error.contains("`Comparison`") && error.contains("gaussian"), "{error}");
}

#[test]
fn noise_that_a_likelihood_of_classes_has_not_is_not_tuned() {
    let belief = LogitBelief::Point { logits: Array2::zeros((1, 2)) };
    let tuned = bayes_lora::likelihood::Categorical.tuned(&belief, &[Target::Class(0)], Default::default());
    assert!(tuned.unwrap().is_none());
}
