//! Finished cells: kept, taken up, and refused where they are of something else.

use super::runs::{Data, about, answered, comparison, files, laplace, recipe, run, timeless, unlabelled};
use crate::support::points::{LIMITS, blobs, flipped, mlp};
use bayes_lora::compare::{Comparison, Shifted, Splits, read_runs};
use bayes_lora::curvature::{AdapterSubset, CurvatureStructure, RandomProjection};
use bayes_lora::data::BatchLimits;
use bayes_lora::error::{Error, Result};
use bayes_lora::identity::Identity;
use bayes_lora::likelihood::Gaussian;
use bayes_lora::methods::{FitContext, Fitted, LaplaceMethod, MaximumLikelihood, McDropout, Method, Recipe, Tfb};
use bayes_lora::models::{Mlp, Points};
use bayes_lora::progress::Control;
use std::path::PathBuf;

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
