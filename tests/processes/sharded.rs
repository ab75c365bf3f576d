//! One posterior from two processes: each sums the curvature of half of the data, and the sums are saved, loaded and merged.

use super::{LIMITS, bare_model, finish, questions, start, told};
use bayes_lora::belief::LogitBelief;
use bayes_lora::curvature::{Curvature, CurvatureConfig, CurvatureStructure, fit_curvature};
use bayes_lora::data::EncodedDataset;
use bayes_lora::lora::{LoraConfig, attach, load_peft, save_peft};
use bayes_lora::models::PromptClassifier;
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::{Predictive, predict};
use bayes_lora::progress::Control;
use bayes_lora::train::{Trainer, TrainerConfig};
use ndarray::Array3;
use std::path::{Path, PathBuf};

const TEST: &str = "processes::sharded::two_processes_sum_to_the_posterior_of_one";
const N_TRAIN: usize = 64;
const N_SHARDS: usize = 2;
/// Largest relative difference that sums in f32 batches of other sizes may leave in the posterior.
const TOLERANCE: f64 = 1e-4;
const STRUCTURES: [CurvatureStructure; 3] =
    [CurvatureStructure::Kronecker, CurvatureStructure::Core, CurvatureStructure::FunctionSpace];

/// The model with the adapter that the parent saved.
fn adapted_model(data: &EncodedDataset, out: &Path) -> PromptClassifier {
    load_peft(bare_model(data), out.join("adapter")).unwrap().0
}

fn curvature(model: &PromptClassifier, data: &EncodedDataset, structure: CurvatureStructure) -> Curvature {
    fit_curvature(model, data, &CurvatureConfig::new(structure).with_limits(LIMITS), &Control::silent()).unwrap()
}

fn shard_file(out: &Path, shard: usize, structure: CurvatureStructure) -> PathBuf {
    out.join(format!("shard-{shard}-{structure}.safetensors"))
}

/// A child: sums items `shard`, `shard + N_SHARDS`, … at the parent's adapter.
fn sum_shard(shard: usize, out: &Path) {
    let train = questions("train", N_TRAIN, 0);
    let items = train.items.iter().skip(shard).step_by(N_SHARDS).cloned().collect();
    let part = EncodedDataset { items, ..train };
    let model = adapted_model(&part, out);
    for structure in STRUCTURES {
        curvature(&model, &part, structure).save(shard_file(out, shard, structure)).unwrap();
    }
}

/// Predictive covariances and log evidence at the prior precision of the most evidence.
fn posterior(model: &PromptClassifier, curvature: &Curvature, test: &EncodedDataset) -> (Array3<f64>, f64) {
    let laplace = Laplace::new(model, curvature, &LaplaceConfig::default()).unwrap();
    let prediction = predict(model, &laplace, test, Predictive::default(), &LIMITS, &Control::silent()).unwrap();
    let LogitBelief::Gaussian { covariance, .. } = prediction.belief else {
        panic!("a linearised prediction is Gaussian");
    };
    (covariance, laplace.log_marginal_likelihood(laplace.prior_precisions().clone()).unwrap())
}

#[test]
fn two_processes_sum_to_the_posterior_of_one() {
    if let Some((shard, out)) = told() {
        return sum_shard(shard.to_string_lossy().parse().unwrap(), &out);
    }
    let dir = tempfile::tempdir().unwrap();
    let (train, test) = (questions("train", N_TRAIN, 0), questions("test", 32, 0));
    let lora = LoraConfig::new(4).with_target_modules(["q_proj", "v_proj"]);
    let trainer = TrainerConfig::default().with_epochs(1).with_learning_rate(2e-3).with_limits(LIMITS);
    let start_of_training = attach(bare_model(&train), &lora, 0).unwrap();
    let trained = Trainer::new(trainer).unwrap().fit(start_of_training, &train, None, &Control::silent()).unwrap();
    save_peft(&trained.model, &lora, "stories260K", dir.path().join("adapter")).unwrap();

    let children: Vec<_> = (0..N_SHARDS).map(|shard| start(TEST, shard.to_string(), dir.path())).collect();
    children.into_iter().for_each(finish);

    let model = adapted_model(&train, dir.path());
    for structure in STRUCTURES {
        let load = |shard| Curvature::load(shard_file(dir.path(), shard, structure)).unwrap();
        let merged = (1..N_SHARDS).fold(load(0), |sum, shard| sum.merge(load(shard)).unwrap());
        let (found, evidence) = posterior(&model, &merged, &test);
        let (expected, alone) = posterior(&model, &curvature(&model, &train, structure), &test);
        let largest = expected.iter().fold(0.0f64, |most, v| most.max(v.abs()));
        let differences = (&found - &expected).mapv(|v| v.abs() / largest);
        assert!(differences.iter().all(|d| *d <= TOLERANCE), "{structure}: {differences}");
        assert!((evidence / alone - 1.0).abs() <= TOLERANCE, "{structure}: {evidence} and {alone}");
    }
}
