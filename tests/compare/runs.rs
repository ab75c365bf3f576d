//! A small comparison of many methods, and what tests ask of its run.

use crate::support::points::{LIMITS, blobs, mlp, quick};
use bayes_lora::compare::{About, Cell, ClassName, Comparison, Outcome, Run, Shifted, Splits};
use bayes_lora::curvature::CurvatureStructure;
use bayes_lora::error::Result;
use bayes_lora::lora::LoraConfig;
use bayes_lora::methods::{
    CheckpointEnsemble, DeepEnsemble, HeadLaplace, LaplaceMethod, MaximumLikelihood, McDropout, Recipe, Swag, Tfb,
};
use bayes_lora::models::{Mlp, Points};
use bayes_lora::train::Snapshots;
use std::path::{Path, PathBuf};

pub fn recipe(dropout: f64) -> Recipe {
    Recipe::new(LoraConfig::new(2).with_dropout(dropout))
        .with_trainer(quick(3).with_snapshots(Snapshots { count: 3, from: 0.5 }))
}

pub fn about() -> About {
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

pub struct Data {
    pub train: Points,
    pub held_out: Points,
    pub test: Points,
    pub far: Points,
}

impl Data {
    pub fn new() -> Self {
        let mut far = blobs(10, 9);
        far.features += 20.0;
        Self { train: blobs(40, 1), held_out: blobs(30, 2), test: blobs(50, 3), far }
    }

    pub fn splits(&self) -> Splits<'_, Points> {
        Splits {
            train: &self.train,
            held_out: Some(&self.held_out),
            test: &self.test,
            shifted: vec![unlabelled("far away", &self.far)],
        }
    }
}

pub fn unlabelled<'a>(name: &str, data: &'a Points) -> Shifted<'a, Points> {
    Shifted { name: name.into(), data, labelled: false }
}

pub fn laplace(structure: CurvatureStructure) -> LaplaceMethod {
    let mut method = LaplaceMethod::new(structure);
    method.curvature.limits = Some(LIMITS);
    method
}

pub fn comparison() -> Comparison<Mlp, Points> {
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

pub fn run(comparison: &Comparison<Mlp, Points>, data: &Data, seed: u64) -> Result<Run> {
    comparison.run(&mlp(), &about(), &data.splits(), seed)
}

pub fn answered(cell: &Cell) -> &bayes_lora::compare::Answered {
    match &cell.outcome {
        Outcome::Answered(answered) => answered,
        other => panic!("{}: {other:?}", cell.method),
    }
}

pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files
}

/// Without what a clock says.
pub fn timeless(run: &Run) -> Run {
    let mut run = run.clone();
    run.setting.training.seconds = 0.0;
    for cell in &mut run.cells {
        if let Outcome::Answered(answered) = &mut cell.outcome {
            (answered.cost.fit_seconds, answered.cost.predict_seconds) = (0.0, 0.0);
        }
    }
    run
}
