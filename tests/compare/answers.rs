//! What methods answer side by side, and what they share.

use super::runs::{Data, about, answered, comparison, laplace, recipe, run, timeless, unlabelled};
use crate::support::device;
use crate::support::points::{LIMITS, mlp};
use bayes_lora::belief::{LinkApprox, LogitGauge};
use bayes_lora::compare::{Comparison, ExtraData, Report, ReportOptions, Shifted, Splits};
use bayes_lora::curvature::{CurvatureStructure, fit_curvature};
use bayes_lora::lora::attach;
use bayes_lora::methods::{Blob, Ivon, MaximumLikelihood, Method, Named, Swag};
use bayes_lora::models::{Dataset, Mlp, MlpConfig, Points};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::predict_linearized;
use bayes_lora::progress::Control;
use bayes_lora::train::Trainer;

#[test]
fn every_method_answers_about_every_item_and_says_what_it_took() {
    let data = Data::new();
    let run = run(&comparison(), &data, 0).unwrap();
    assert_eq!(run.cells.len(), 10);
    assert_eq!((run.setting.test.len(), run.setting.held_out.len(), run.setting.n_train), (50, 30, 40));
    assert_eq!(run.setting.training.items, 120);
    for cell in &run.cells {
        let answered = answered(cell);
        let sizes = [&answered.test, answered.held_out.as_ref().unwrap(), &answered.shifted[0]].map(|a| a.n_items());
        assert_eq!(sizes, [50, 30, 10], "{}", cell.method);
        let p = answered.test.matrix().unwrap();
        assert!(p.outer_iter().all(|row| (row.sum() - 1.0).abs() < 1e-8), "{}", cell.method);
        assert!(answered.cost.forwards_per_item > 0);
        assert!(answered.machine.as_ref().unwrap().contains("threads"), "{:?}", answered.machine);
    }
    let cost = |name: &str| answered(run.cells.iter().find(|cell| cell.method == name).unwrap()).cost;
    assert_eq!(cost("maximum likelihood").fit_forwards, 0);
    // one more run of 3 epochs, and two more epochs
    assert_eq!((cost("deep ensemble").fit_backwards, cost("SWAG").fit_backwards), (120, 80));
    // one contrast of two classes
    assert_eq!((cost("Laplace Kronecker").backwards_per_item, cost("MC dropout").forwards_per_item), (1, 10));
    // EKFAC goes through the data a second time; an item with three classes goes through the network twice
    let three = |d: &Points| Points { labels: (0..d.n_items()).map(|i| i % 3).collect(), ..d.clone() };
    let data =
        Data { train: three(&data.train), held_out: three(&data.held_out), test: three(&data.test), far: data.far };
    let two = [CurvatureStructure::Kronecker, CurvatureStructure::Ekfac].map(|s| Box::new(laplace(s)) as Box<_>);
    let base = MlpConfig::new([2, 8, 3]).init(&device()).unwrap();
    let counted = Comparison::new(recipe(0.0)).with_methods(two).run(&base, &about(), &data.splits(), 0).unwrap();
    let costs = [0, 1].map(|k| answered(&counted.cells[k]).cost);
    assert_eq!(costs.map(|c| (c.fit_forwards, c.fit_backwards)), [(80, 80), (160, 160)]);
    assert_eq!(costs.map(|c| (c.forwards_per_item, c.backwards_per_item)), [(2, 2), (2, 2)]);
    let extra = |name: &str| run.cells.iter().find(|cell| cell.method == name).unwrap().extra_data;
    assert_eq!(extra("Laplace Kronecker"), ExtraData::None);
    assert_eq!(extra("Laplace Kronecker, held-out prior"), ExtraData::Labelled(30));
}

#[test]
fn shared_passes_give_what_each_method_gives_alone() {
    let data = Data::new();
    let run = run(&comparison(), &data, 2).unwrap();
    // by hand: the adapter, its curvature, its posterior, one method at a time
    let start = attach(mlp(), &recipe(0.2).lora, 2).unwrap();
    let trainer = recipe(0.2).trainer.with_seed(2);
    let control = Control::silent();
    let map = Trainer::new(trainer).unwrap().fit(start, &data.train, None, &control).unwrap().model;
    for structure in [CurvatureStructure::Kronecker, CurvatureStructure::Full] {
        let method = laplace(structure);
        let curvature = fit_curvature(&map, &data.train, &method.curvature, &control).unwrap();
        let posterior = Laplace::new(&map, &curvature, &LaplaceConfig::default()).unwrap();
        let belief = predict_linearized(&map, &posterior, &data.test, LogitGauge::Centred, &LIMITS, &control).unwrap();
        let expected = belief.probabilities(LinkApprox::default()).unwrap();
        let name = Method::<Mlp, Points>::name(&method);
        let cell = run.cells.iter().find(|cell| cell.method == name).unwrap();
        let found = answered(cell).test.matrix().unwrap();
        // kept to nine digits
        assert!((&found - &expected).iter().all(|d| d.abs() < 1e-8), "{name}");
    }
}

#[test]
fn methods_that_train_their_own_adapter_need_no_other() {
    let data = Data::new();
    let own = || Comparison::new(recipe(0.0)).with_method(Ivon::default()).with_method(Blob::default());
    let alone = run(&own(), &data, 0).unwrap();
    assert_eq!(alone.setting.training, Default::default());
    let beside = run(&own().with_method(MaximumLikelihood), &data, 0).unwrap();
    assert_eq!(beside.setting.training.items, 120);
    assert_eq!(timeless(&alone).cells[..], timeless(&beside).cells[..2]);
    assert_eq!(alone.cells[0].sharing.as_deref(), Some("coherent"));
    // what the training took stays known when only such methods are left
    let dir = tempfile::tempdir().unwrap();
    run(&Comparison::new(recipe(0.0)).with_method(MaximumLikelihood).with_dir(dir.path()), &data, 0).unwrap();
    let later = run(&own().with_dir(dir.path()), &data, 0).unwrap();
    assert_eq!(later.setting.training.items, 120);
}

#[test]
fn two_settings_of_one_method_stand_side_by_side_under_names() {
    let data = Data::new();
    let with = |swag: Swag| Comparison::new(recipe(0.0)).with_method(swag.with_n_samples(2));
    let same = with(Swag::default()).with_method(Swag::published());
    assert!(run(&same, &data, 0).unwrap_err().to_string().contains("`SWAG` twice"));
    let named = with(Swag::default()).with_method(Named::new("SWAG, published", Swag::published()));
    let run = run(&named, &data, 0).unwrap();
    let names: Vec<&str> = run.cells.iter().map(|cell| cell.method.as_str()).collect();
    assert_eq!(names, ["SWAG", "SWAG, published"]);
    assert!(run.cells[1].description.contains("covariance times 2"), "{}", run.cells[1].description);
}

#[test]
fn answers_to_labelled_data_from_elsewhere_are_scored() {
    let data = Data::new();
    let comparison = Comparison::new(recipe(0.0)).with_method(MaximumLikelihood);
    let asked = |labelled| {
        let shifted = vec![Shifted { labelled, ..unlabelled("far away", &data.far) }];
        let run = comparison.run(&mlp(), &about(), &Splits { shifted, ..data.splits() }, 0).unwrap();
        let report = Report::new(vec![run.clone()], ReportOptions::default()).unwrap();
        (run, report)
    };
    let (run, report) = asked(true);
    let labels = &run.setting.shifted[0].labels;
    let p = answered(&run.cells[0]).shifted[0].matrix().unwrap();
    let nll = -labels.iter().enumerate().map(|(i, &y)| p[[i, y]].ln()).sum::<f64>() / labels.len() as f64;
    let number = |report: &Report, name: &str| {
        report.groups[0].rows[0].numbers.iter().find(|(found, _)| found == name).map(|(_, spread)| spread.mean)
    };
    assert!((number(&report, "NLL on far away").unwrap() - nll).abs() < 1e-12);
    assert!(report.markdown().contains("NLL ↓ on data from elsewhere"));
    let (run, report) = asked(false);
    assert!(run.setting.shifted[0].labels.is_empty());
    assert_eq!(number(&report, "NLL on far away"), None);
    assert!(!report.markdown().contains("on data from elsewhere, a small network"));
}
