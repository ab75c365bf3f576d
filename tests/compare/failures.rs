//! Methods that fail are rows, and stop no other.

use super::runs::{Data, about, answered, laplace, recipe, run};
use crate::support::points::mlp;
use bayes_lora::compare::{Comparison, Outcome, Splits, read_runs};
use bayes_lora::curvature::{CurvatureStructure, estimate_cost};
use bayes_lora::error::{Error, Result};
use bayes_lora::identity::Identity;
use bayes_lora::lora::attach;
use bayes_lora::methods::{
    CheckpointEnsemble, FitContext, Fitted, LaplaceMethod, MaximumLikelihood, McDropout, Method,
};
use bayes_lora::models::{Mlp, Points};

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
            _ => panic!("{} answered", cell.method),
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
