//! A comparison: cells are kept and taken up, failures are rows, and what methods share changes no number.

use crate::support::device;
use crate::support::points::{LIMITS, blobs, flipped, mlp, quick};
use bayes_lora::belief::{LinkApprox, LogitGauge};
use bayes_lora::compare::{
    About, Cell, ClassName, Comparison, ExtraData, Outcome, Report, ReportOptions, Run, Shifted, Splits, read_runs,
};
use bayes_lora::curvature::{AdapterSubset, CurvatureStructure, RandomProjection, estimate_cost, fit_curvature};
use bayes_lora::data::BatchLimits;
use bayes_lora::error::{Error, Result};
use bayes_lora::identity::Identity;
use bayes_lora::likelihood::Gaussian;
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::methods::{
    Blob, CheckpointEnsemble, DeepEnsemble, FitContext, Fitted, HeadLaplace, Ivon, LaplaceMethod, MaximumLikelihood,
    McDropout, Method, Named, Recipe, Swag, Tfb,
};
use bayes_lora::models::{Dataset, Mlp, MlpConfig, Points};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::predict_linearized;
use bayes_lora::progress::Control;
use bayes_lora::train::{Snapshots, Trainer};
use std::path::{Path, PathBuf};

fn recipe(dropout: f64) -> Recipe {
    Recipe::new(LoraConfig::new(2).with_dropout(dropout))
        .with_trainer(quick(3).with_snapshots(Snapshots { count: 3, from: 0.5 }))
}

fn about() -> About {
    let class = |name: &str| ClassName { name: name.into(), token: None };
    About {
        protocol: "clean".into(),
        task: "two blobs".into(),
        model: "a small network".into(),
        prompt_hash: "0".repeat(16),
        prompt_example: "(x, y)".into(),
        classes: vec![class("left"), class("right")],
    }
}

struct Data {
    train: Points,
    held_out: Points,
    test: Points,
    far: Points,
}

impl Data {
    fn new() -> Self {
        let mut far = blobs(10, 9);
        far.features += 20.0;
        Self { train: blobs(40, 1), held_out: blobs(30, 2), test: blobs(50, 3), far }
    }

    fn splits(&self) -> Splits<'_, Points> {
        Splits {
            train: &self.train,
            held_out: Some(&self.held_out),
            test: &self.test,
            shifted: vec![unlabelled("far away", &self.far)],
        }
    }
}

fn unlabelled<'a>(name: &str, data: &'a Points) -> Shifted<'a, Points> {
    Shifted { name: name.into(), data, labelled: false }
}

fn laplace(structure: CurvatureStructure) -> LaplaceMethod {
    let mut method = LaplaceMethod::new(structure);
    method.curvature.limits = Some(LIMITS);
    method
}

fn comparison() -> Comparison<Mlp, Points> {
    Comparison::new(recipe(0.2))
        .with_method(MaximumLikelihood)
        .with_method(McDropout::default())
        .with_method(CheckpointEnsemble::default())
        .with_method(DeepEnsemble::default().with_n_members(2))
        .with_method(Swag::default().with_n_snapshots(4).with_rank(3))
        .with_method(Tfb::default().with_n_samples(3).with_n_anchors(20).with_width(0.5))
        .with_method(HeadLaplace::default())
        .with_method(laplace(CurvatureStructure::Kronecker))
        .with_method(laplace(CurvatureStructure::Full))
        .with_method(laplace(CurvatureStructure::Kronecker).with_held_out_prior(true))
}

fn run(comparison: &Comparison<Mlp, Points>, data: &Data, seed: u64) -> Result<Run> {
    comparison.run(&mlp(), &about(), &data.splits(), seed)
}

fn answered(cell: &Cell) -> &bayes_lora::compare::Answered {
    match &cell.outcome {
        Outcome::Answered(answered) => answered,
        Outcome::Failed(reason) => panic!("{}: {reason}", cell.method),
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files
}

/// Without what a clock says.
fn timeless(run: &Run) -> Run {
    let mut run = run.clone();
    run.setting.training.seconds = 0.0;
    for cell in &mut run.cells {
        if let Outcome::Answered(answered) = &mut cell.outcome {
            (answered.cost.fit_seconds, answered.cost.predict_seconds) = (0.0, 0.0);
        }
    }
    run
}

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
fn a_run_goes_on_where_it_stopped_and_trains_nothing_twice() {
    let (data, dir) = (Data::new(), tempfile::tempdir().unwrap());
    let kept = comparison().with_dir(dir.path());
    let first = run(&kept, &data, 4).unwrap();
    let folder = dir.path().join("two-blobs/seed-4");
    let all = files(&folder);
    assert_eq!(all.len(), 11);
    // nothing is left to do: even the clocks stand still
    assert!(run(&kept, &data, 4).unwrap() == first);
    std::fs::remove_file(folder.join("tfb.json")).unwrap();
    std::fs::remove_file(folder.join("laplace-full.json")).unwrap();
    let again = run(&kept, &data, 4).unwrap();
    assert!(timeless(&again) == timeless(&first));
    assert_eq!(again.cells[0], first.cells[0]);
    // without its training's checkpoint the adapter is trained again, to the same bits
    std::fs::remove_dir_all(folder.join("unfinished")).unwrap();
    std::fs::remove_file(folder.join("swag.json")).unwrap();
    assert!(timeless(&run(&kept, &data, 4).unwrap()) == timeless(&first));
    assert!(timeless(&run(&comparison(), &data, 4).unwrap()) == timeless(&first));
    // the same cells by name
    let mut read = read_runs(dir.path()).unwrap();
    assert_eq!(read.len(), 1);
    let read = read.remove(0);
    assert_eq!((read.setting.seed, read.cells.len()), (4, 10));
    assert!(first.cells.iter().all(|cell| read.cells.iter().any(|other| other.method == cell.method)));
}

#[test]
fn another_run_in_the_same_place_is_refused_by_what_differs() {
    let (data, dir) = (Data::new(), tempfile::tempdir().unwrap());
    let one = |recipe: Recipe| Comparison::new(recipe).with_method(MaximumLikelihood).with_dir(dir.path());
    run(&one(recipe(0.2)), &data, 0).unwrap();
    let longer = recipe(0.2).with_trainer(recipe(0.2).trainer.with_epochs(4));
    let other = Data { train: flipped(&data.train), ..Data::new() };
    for (error, parts) in [
        (run(&one(longer), &data, 0).unwrap_err(), ["recipe.trainer.epochs is 3 there", "4 here"]),
        (run(&one(recipe(0.2)), &other, 0).unwrap_err(), ["training data", "40 items"]),
    ] {
        let error = error.to_string();
        parts.into_iter().for_each(|part| assert!(error.contains(part), "{error} lacks {part}"));
    }
    let method = |n_samples| one(recipe(0.2)).with_method(McDropout::default().with_n_samples(n_samples));
    run(&method(4), &data, 0).unwrap();
    let error = run(&method(5), &data, 0).unwrap_err().to_string();
    assert!(error.contains("mc-dropout.json") && error.contains("n_samples is 4 there and 5 here"), "{error}");
    // answers are kept by the place of their data
    let near = blobs(10, 4);
    let place = tempfile::tempdir().unwrap();
    let ordered = |shifted: Vec<Shifted<Points>>| {
        let comparison = Comparison::new(recipe(0.2)).with_method(MaximumLikelihood).with_dir(place.path());
        comparison.run(&mlp(), &about(), &Splits { shifted, ..data.splits() }, 0)
    };
    ordered(vec![unlabelled("far", &data.far), unlabelled("near", &near)]).unwrap();
    let error = ordered(vec![unlabelled("near", &near), unlabelled("far", &data.far)]).unwrap_err().to_string();
    assert!(error.contains("shifted data is") && error.contains("here"), "{error}");
    std::fs::write(dir.path().join("two-blobs/seed-0/mc-dropout.json"), b"{").unwrap();
    let error = run(&method(4), &data, 0).unwrap_err().to_string();
    assert!(error.contains("mc-dropout.json"), "{error}");
}

#[test]
fn methods_that_would_share_a_file_are_refused_before_anything_runs() {
    let (data, dir) = (Data::new(), tempfile::tempdir().unwrap());
    let of = |pattern: &str| {
        let mut method = laplace(CurvatureStructure::Diagonal);
        method.curvature.subset = AdapterSubset::Pattern(pattern.into());
        method
    };
    let both = comparison().with_method(of("0")).with_method(of(".*0.*"));
    let error = run(&both.with_dir(dir.path()), &data, 0).unwrap_err().to_string();
    assert!(error.contains("laplace-diagonal-0.json") && error.contains(".*0.*"), "{error}");
    assert!(!dir.path().join("two-blobs").exists());
}

#[test]
fn identities_tell_every_setting_that_changes_answers() {
    let identity = |method: LaplaceMethod| Method::<Mlp, Points>::identity(&method).unwrap();
    let usual = laplace(CurvatureStructure::Kronecker);
    let mut seen = vec![identity(usual.clone())];
    let changes: [fn(&mut LaplaceMethod); 7] = [
        |m| m.curvature.structure = CurvatureStructure::FunctionSpace,
        |m| m.curvature.projection = Some(RandomProjection { width: 100, seed: 0 }),
        |m| m.curvature.low_rank = 3,
        |m| m.curvature.dense_limit = Some(4),
        |m| m.curvature.likelihood = Some(Gaussian { noise_variance: 1.0 }.into()),
        |m| m.laplace.without_residual = true,
        |m| m.laplace.temperature = 0.5,
    ];
    for change in changes {
        let mut other = usual.clone();
        change(&mut other);
        let other = identity(other);
        assert!(!seen.contains(&other), "{other:?}");
        seen.push(other);
    }
    // batches change what low-rank factors discard, and no other answer
    for (structure, is_changed) in [(CurvatureStructure::Kronecker, true), (CurvatureStructure::Core, false)] {
        let mut batched = laplace(structure);
        batched.curvature.limits = Some(BatchLimits { max_items: LIMITS.max_items + 1, ..LIMITS });
        assert_eq!(identity(batched) != identity(laplace(structure)), is_changed, "{structure}");
    }
    let of_tfb = |method: Tfb| Method::<Mlp, Points>::identity(&method).unwrap();
    assert_ne!(of_tfb(Tfb::published()), of_tfb(Tfb::default().with_tolerance(Tfb::published().tolerance)));
}

/// Maximum likelihood, in any words, with a setting; fails if it may not be fitted.
struct Worded {
    words: &'static str,
    setting: u32,
    fits: bool,
}

impl Method<Mlp, Points> for Worded {
    fn name(&self) -> String {
        "worded".into()
    }

    fn describe(&self) -> String {
        self.words.into()
    }

    fn identity(&self) -> Result<Identity> {
        Ok(Identity::new().with("setting", self.setting))
    }

    fn fit(&self, context: &FitContext<Mlp, Points>) -> Result<Fitted<Mlp, Points>> {
        if self.fits { MaximumLikelihood.fit(context) } else { Err(Error::Incompatible("it was fitted again".into())) }
    }
}

#[test]
fn other_words_refuse_nothing_and_another_setting_is_named() {
    let (data, dir) = (Data::new(), tempfile::tempdir().unwrap());
    let with = |method: Worded| run(&comparison().with_method(method).with_dir(dir.path()), &data, 0);
    let first = with(Worded { words: "as it was", setting: 1, fits: true }).unwrap();
    let again = with(Worded { words: "in other words", setting: 1, fits: false }).unwrap();
    assert_eq!(again.cells, first.cells);
    let error = with(Worded { words: "as it was", setting: 2, fits: true }).unwrap_err().to_string();
    assert!(error.contains("worded.json") && error.contains("setting is 1 there and 2 here"), "{error}");
}

/// Fails when it is fitted.
struct Broken;

impl Method<Mlp, Points> for Broken {
    fn name(&self) -> String {
        "broken".into()
    }

    fn describe(&self) -> String {
        "fails".into()
    }

    fn identity(&self) -> Result<Identity> {
        Ok(Identity::new())
    }

    fn fit(&self, _context: &FitContext<Mlp, Points>) -> Result<Fitted<Mlp, Points>> {
        Err(Error::Incompatible("it always fails".into()))
    }
}

#[test]
fn a_method_that_fails_is_a_row_that_says_why_and_is_tried_again() {
    let (data, dir) = (Data::new(), tempfile::tempdir().unwrap());
    let with_broken = |dropout| {
        Comparison::new(recipe(dropout))
            .with_method(MaximumLikelihood)
            .with_method(Broken)
            .with_method(McDropout::default())
            .with_method(CheckpointEnsemble::default().with_n_members(9))
            .with_method(laplace(CurvatureStructure::Kronecker).with_held_out_prior(true))
            .with_dir(dir.path())
    };
    let splits = Splits { held_out: None, ..data.splits() };
    let run = with_broken(0.0).run(&mlp(), &about(), &splits, 0).unwrap();
    let reasons = ["it always fails", "dropout", "9 snapshots", "held-out items with labels"];
    assert!(matches!(run.cells[0].outcome, Outcome::Answered(_)));
    for (cell, part) in run.cells[1..].iter().zip(reasons) {
        match &cell.outcome {
            Outcome::Failed(reason) => assert!(reason.contains(part), "{reason} lacks {part}"),
            Outcome::Answered(_) => panic!("{} answered", cell.method),
        }
    }
    let again = with_broken(0.0).run(&mlp(), &about(), &splits, 0).unwrap();
    assert!(matches!(&again.cells[1].outcome, Outcome::Failed(_)));
    // the reasons are kept, also of what was never begun
    let kept = read_runs(dir.path()).unwrap().remove(0);
    assert_eq!(kept.cells.iter().filter(|cell| matches!(cell.outcome, Outcome::Failed(_))).count(), 4);
    let place = tempfile::tempdir().unwrap();
    let never = Comparison::new(recipe(0.0)).with_method(McDropout::default()).with_dir(place.path());
    let run = never.run(&mlp(), &about(), &splits, 0).unwrap();
    assert!(matches!(&run.cells[0].outcome, Outcome::Failed(reason) if reason.contains("dropout")));
    // a run that stopped before its first cell is none yet
    std::fs::remove_file(place.path().join("two-blobs/seed-0/mc-dropout.json")).unwrap();
    assert!(read_runs(place.path()).unwrap().is_empty());
    let twice = Comparison::new(recipe(0.0)).with_method(Broken).with_method(Broken);
    let error = twice.run(&mlp(), &about(), &splits, 0).unwrap_err().to_string();
    assert!(error.contains("`broken` twice"), "{error}");
}

#[test]
fn a_curvature_that_is_too_large_by_itself_stops_no_other() {
    let data = Data::new();
    let mut full = laplace(CurvatureStructure::Full);
    full.curvature.memory_limit = Some(1000);
    let alone = Comparison::new(recipe(0.0)).with_method(laplace(CurvatureStructure::Kronecker));
    let both = Comparison::new(recipe(0.0)).with_method(full).with_method(laplace(CurvatureStructure::Kronecker));
    let cells = run(&both, &data, 0).unwrap().cells;
    let Outcome::Failed(reason) = &cells[0].outcome else { panic!("1,000 bytes are not enough") };
    assert!(reason.contains("memory_limit") && reason.contains("1000"), "{reason}");
    assert_eq!(answered(&cells[1]).test, answered(&run(&alone, &data, 0).unwrap().cells[0]).test);
}

#[test]
fn curvatures_that_do_not_fit_together_are_summed_one_after_the_other() {
    let data = Data::new();
    let model = attach(mlp(), &recipe(0.0).lora, 0).unwrap();
    let bytes = |method: &LaplaceMethod| estimate_cost(&model, &data.train, &method.curvature).unwrap().bytes;
    let both = [CurvatureStructure::Kronecker, CurvatureStructure::Full].map(laplace);
    let limit = both.iter().map(bytes).max();
    let tests = |limit: Option<u64>| -> Vec<_> {
        let comparison = both.iter().fold(Comparison::new(recipe(0.0)), |comparison, method| {
            let curvature = method.curvature.clone().with_memory_limit(limit);
            comparison.with_method(method.clone().with_curvature(curvature))
        });
        run(&comparison, &data, 0).unwrap().cells.iter().map(|cell| answered(cell).test.clone()).collect()
    };
    assert_eq!(tests(limit), tests(None));
}

#[test]
fn a_cancelled_comparison_stops_and_keeps_its_cells() {
    let (data, dir) = (Data::new(), tempfile::tempdir().unwrap());
    let control = Control::silent();
    control.cancel();
    let error = run(&comparison().with_dir(dir.path()).with_control(control), &data, 0).unwrap_err();
    assert!(matches!(error, Error::Cancelled { .. }), "{error}");
    assert_eq!(run(&comparison().with_dir(dir.path()), &data, 0).unwrap().cells.len(), 10);
}

/// Takes the place of its own cell while it is fitted.
struct Trespasser(PathBuf);

impl Method<Mlp, Points> for Trespasser {
    fn name(&self) -> String {
        "trespasser".into()
    }

    fn describe(&self) -> String {
        String::new()
    }

    fn identity(&self) -> Result<Identity> {
        Ok(Identity::new())
    }

    fn fit(&self, context: &FitContext<Mlp, Points>) -> Result<Fitted<Mlp, Points>> {
        std::fs::create_dir_all(self.0.join("two-blobs/seed-0/trespasser.json/inside")).unwrap();
        MaximumLikelihood.fit(context)
    }
}

#[test]
fn a_cell_that_the_disk_refuses_is_counted_and_handed_to_the_caller() {
    let (data, dir) = (Data::new(), tempfile::tempdir().unwrap());
    let control = Control::silent();
    let comparison = Comparison::new(recipe(0.0)).with_method(Trespasser(dir.path().into())).with_dir(dir.path());
    let cells = run(&comparison.with_method(MaximumLikelihood).with_control(control.clone()), &data, 0).unwrap().cells;
    assert_eq!(answered(&cells[0]).test, answered(&cells[1]).test);
    let failures = control.save_failures();
    assert!(failures.count == 1 && failures.to_string().contains("trespasser.json"), "{failures}");
    // a directory that refuses from the start is named before anything is trained
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let blocked = Comparison::new(recipe(0.0)).with_method(Trespasser(dir.path().join("never"))).with_dir(&file);
    let error = run(&blocked, &data, 0).unwrap_err().to_string();
    assert!(error.contains(&file.display().to_string()) && !dir.path().join("never").exists(), "{error}");
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
