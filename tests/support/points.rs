//! Two blobs of points, a small classifier and its training.

use super::{device, logits};
use bayes_lora::belief::log_softmax;
use bayes_lora::data::{BatchLimits, BatchOrder};
use bayes_lora::error::Result;
use bayes_lora::likelihood::Target;
use bayes_lora::lora::{AdapterWeights, LoraConfig, attach};
use bayes_lora::models::{Classifier, Dataset, Mlp, MlpConfig, Points, PointsBatch};
use bayes_lora::progress::Control;
use bayes_lora::train::{TrainOutcome, Trainer, TrainerConfig};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor};
use ndarray::Array2;
use rand::{SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};
use std::collections::{BTreeMap, BTreeSet};

pub const LIMITS: BatchLimits = BatchLimits { max_items: 8, max_tokens: 1000 };

/// Two Gaussian blobs of unit variance, 3 apart: about 7 % of the points lie on the wrong side.
pub fn blobs(n: usize, seed: u64) -> Points {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let labels: Vec<usize> = (0..n).map(|i| i % 2).collect();
    let features = Array2::from_shape_fn((n, 2), |(i, _)| {
        let z: f64 = StandardNormal.sample(&mut rng);
        z + if labels[i] == 0 { -1.06 } else { 1.06 }
    });
    Points::new(features, labels).unwrap()
}

pub fn flipped(points: &Points) -> Points {
    Points { labels: points.labels.iter().map(|y| 1 - y).collect(), ..points.clone() }
}

pub fn mlp() -> Mlp {
    MlpConfig::new([2, 8, 2]).init(&device()).unwrap()
}

pub fn adapted(dropout: f64) -> Mlp {
    attach(mlp(), &LoraConfig::new(2).with_dropout(dropout), 3).unwrap()
}

pub fn quick(epochs: usize) -> TrainerConfig {
    TrainerConfig::default().with_epochs(epochs).with_learning_rate(0.01).with_limits(LIMITS)
}

pub fn train<M: Classifier, D: Dataset<Input = M::Input>>(
    config: TrainerConfig,
    model: M,
    data: &D,
    validation: Option<&D>,
) -> TrainOutcome<M> {
    Trainer::new(config).unwrap().fit(model, data, validation, &Control::silent()).unwrap()
}

/// Points that can tell nothing of what they hold, whose labels may be withheld, and of whose batches each calls `before_batch` first.
pub struct Watched<F> {
    pub points: Points,
    pub has_labels: bool,
    pub before_batch: F,
}

impl<F: Fn() + Send + Sync> Dataset for Watched<F> {
    type Input = PointsBatch;

    fn n_items(&self) -> usize {
        self.points.n_items()
    }

    fn label(&self, item: usize) -> Option<usize> {
        self.points.label(item).filter(|_| self.has_labels)
    }

    fn item_id(&self, item: usize) -> String {
        self.points.item_id(item)
    }

    fn plan(&self, limits: BatchLimits, order: BatchOrder) -> Result<Vec<Vec<usize>>> {
        self.points.plan(limits, order)
    }

    fn batch(&self, indices: &[usize], device: &Device, dtype: DType) -> Result<PointsBatch> {
        (self.before_batch)();
        self.points.batch(indices, device, dtype)
    }
}

/// Points with real values as targets: a data set of one's own gives them by `target`, and needs nothing else.
#[derive(Clone)]
pub struct Regression {
    pub points: Points,
    pub values: Array2<f64>,
}

impl Regression {
    pub fn new(features: Array2<f64>, values: Array2<f64>) -> Self {
        Self { points: Points::new(features, vec![]).unwrap(), values }
    }
}

impl Dataset for Regression {
    type Input = PointsBatch;

    fn n_items(&self) -> usize {
        self.points.n_items()
    }

    fn label(&self, _item: usize) -> Option<usize> {
        None
    }

    fn target(&self, item: usize) -> Option<Target> {
        Some(Target::Values(self.values.row(item).to_vec()))
    }

    fn item_id(&self, item: usize) -> String {
        self.points.item_id(item)
    }

    fn item_key(&self, item: usize) -> u64 {
        self.points.item_key(item)
    }

    fn content_hash(&self, item: usize) -> Option<u64> {
        let targets =
            self.values.row(item).iter().fold(self.points.item_key(item), |h, v| h.rotate_left(9) ^ v.to_bits());
        Some(targets)
    }

    fn plan(&self, limits: BatchLimits, order: BatchOrder) -> Result<Vec<Vec<usize>>> {
        self.points.plan(limits, order)
    }

    fn batch(&self, indices: &[usize], device: &Device, dtype: DType) -> Result<PointsBatch> {
        self.points.batch(indices, device, dtype)
    }
}

/// Mean NLL in nats.
pub fn nll<M: Classifier, D: Dataset<Input = M::Input>>(model: &M, data: &D) -> f64 {
    let log_p = log_softmax(logits(model, data).view());
    -(0..data.n_items()).map(|i| log_p[[i, data.label(i).unwrap()]]).sum::<f64>() / data.n_items() as f64
}

pub fn distance(a: &AdapterWeights, b: &AdapterWeights) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().map(|(site, w)| (w - &b[site]).mapv(|v| v * v).sum()).sum::<f64>().sqrt()
}

pub fn log_lines(path: &std::path::Path) -> Vec<serde_json::Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// All values of a model by path.
#[derive(Default)]
struct Values {
    path: Vec<String>,
    found: BTreeMap<String, Vec<f64>>,
}

impl ModuleVisitor for Values {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values = param.val().into_data().convert::<f64>().try_into_vec::<f64>().unwrap();
        self.found.insert(self.path.join("."), values);
    }
}

pub fn values<M: Module>(model: &M) -> BTreeMap<String, Vec<f64>> {
    let mut visitor = Values::default();
    model.visit(&mut visitor);
    visitor.found
}

pub fn changed<M: Module>(before: &M, after: &M) -> BTreeSet<String> {
    let after = values(after);
    values(before).into_iter().filter(|(path, v)| after[path] != *v).map(|(path, _)| path).collect()
}
