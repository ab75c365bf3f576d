//! Every method behind the same trait: what all beliefs have in common, where a belief is known exactly, how rules train.

mod calibrated;
mod door;
mod exactness;
mod properties;
mod refusals;
mod rules;
mod saved;

use crate::support::points::{LIMITS, blobs, quick};
use crate::support::{Fixture, device};
use bayes_lora::belief::LinkApprox;
use bayes_lora::curvature::{Curvature, CurvatureConfig, CurvatureStructure, fit_curvatures};
use bayes_lora::data::EncodedDataset;
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::methods::{
    AnchoredEnsemble, Blob, BlobObjective, CheckpointEnsemble, DeepEnsemble, FitContext, HeadLaplace, Ivon,
    LaplaceMethod, MaximumLikelihood, McDropout, Method, MonteClora, NoiseSharing, Recipe, Swag, Tfb,
};
use bayes_lora::models::{Classifier, Dataset, Mlp, MlpConfig, Points, PromptClassifier};
use bayes_lora::predict::Predictive;
use bayes_lora::prior::{PriorChoice, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::train::{Snapshot, Snapshots, Trainer};
use burn::tensor::DType;
use ndarray::{Array2, Axis};

/// Every method; one more joins with a line.
fn methods<M: Classifier, D: Dataset<Input = M::Input>>() -> Vec<Box<dyn Method<M, D>>> {
    let per_token = NoiseSharing::PerToken;
    vec![
        Box::new(MaximumLikelihood),
        Box::new(McDropout::default()),
        Box::new(McDropout::default().with_sharing(per_token)),
        Box::new(CheckpointEnsemble::default()),
        Box::new(DeepEnsemble::default()),
        Box::new(AnchoredEnsemble::new(PriorPrecision::new(4.0).unwrap())),
        Box::new(ivon()),
        Box::new(Blob::default()),
        Box::new(Blob::default().with_objective(BlobObjective::Elbo { kl_weight: 1.0 }).with_sharing(per_token)),
        Box::new(Blob::published()),
        Box::new(MonteClora::default()),
        Box::new(Swag::default().with_n_snapshots(6).with_rank(3)),
        Box::new(tfb()),
        Box::new(tfb().with_sharing(per_token)),
        Box::new(Tfb::published().with_n_anchors(16).with_width(0.2)),
        Box::new(HeadLaplace::default()),
        Box::new(laplace(CurvatureStructure::Kronecker)),
        Box::new(laplace(CurvatureStructure::Core)),
        Box::new(laplace(CurvatureStructure::Core).with_prior(PriorChoice::EvidenceAtMode)),
        Box::new(laplace(CurvatureStructure::Kronecker).with_prior(PriorChoice::Matched)),
        Box::new(laplace(CurvatureStructure::Kronecker).with_leave_one_out_temperature()),
        Box::new(
            laplace(CurvatureStructure::Kronecker).with_leave_one_out_temperature().with_predictive(Predictive::Map),
        ),
        Box::new(laplace(CurvatureStructure::Core).with_predictive(Predictive::Sampled { n_samples: 10, seed: 0 })),
    ]
}

fn tfb() -> Tfb {
    Tfb::default().with_n_samples(4).with_n_anchors(16).with_width(0.2)
}

fn laplace(structure: CurvatureStructure) -> LaplaceMethod {
    let mut method = LaplaceMethod::new(structure);
    method.curvature.limits = Some(LIMITS);
    method
}

/// IVON for networks of a few weights and runs of a few steps.
fn ivon() -> Ivon {
    let bayes = Ivon::at_temperature_1(5.0);
    bayes.with_learning_rate(0.1).with_initial_hessian(0.1).with_beta_2(0.99).with_clip(None)
}

/// All that a comparison has before its methods are fitted.
struct Case<M, D> {
    name: &'static str,
    base: M,
    map: M,
    snapshots: Vec<Snapshot>,
    curvatures: Vec<(CurvatureConfig, Curvature)>,
    recipe: Recipe,
    train: D,
    /// Items to predict, with labels.
    test: D,
    /// The training items and those to predict, the last one first.
    reversed_train: D,
    reversed: D,
    /// What another order of sums may change of a probability.
    rounding: f64,
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Case<M, D> {
    fn new(
        name: &'static str,
        (base, recipe): (M, Recipe),
        (train, test): (D, D),
        backwards: impl Fn(&D) -> D,
        rounding: f64,
    ) -> Self {
        let start = attach(base.clone(), &recipe.lora, 3).unwrap();
        let trainer = Trainer::new(recipe.trainer.clone()).unwrap();
        let outcome = trainer.fit(start, &train, None, &Control::silent()).unwrap();
        let (map, snapshots) = (outcome.model, outcome.snapshots);
        let configs = [CurvatureStructure::Kronecker, CurvatureStructure::Core].map(|s| laplace(s).curvature);
        let curvatures = fit_curvatures(&map, &train, &configs, &Control::silent()).unwrap();
        let curvatures = configs.into_iter().zip(curvatures).collect();
        let (reversed_train, reversed) = (backwards(&train), backwards(&test));
        Self { name, base, map, snapshots, curvatures, recipe, train, test, reversed_train, reversed, rounding }
    }

    fn context<'a>(&'a self, seed: u64, control: &'a Control) -> FitContext<'a, M, D> {
        FitContext {
            base: &self.base,
            map: &self.map,
            snapshots: &self.snapshots,
            recipe: &self.recipe,
            curvatures: &self.curvatures,
            train: &self.train,
            held_out: None,
            limits: LIMITS,
            seed,
            control,
        }
    }
}

fn recipe(lora: LoraConfig, epochs: usize) -> Recipe {
    let snapshots = Snapshots { count: 3, from: 0.25 };
    Recipe::new(lora).with_trainer(quick(epochs).with_snapshots(snapshots))
}

fn mlp(dtype: DType) -> Mlp {
    MlpConfig::new([2, 8, 2]).with_dtype(dtype).init(&device()).unwrap()
}

/// Two blobs of points.
fn points(dtype: DType) -> Case<Mlp, Points> {
    let backwards = |points: &Points| {
        let mut features = points.features.clone();
        features.invert_axis(Axis(0));
        // in standard layout, as any other points
        let features = Array2::from_shape_fn(features.dim(), |at| features[at]);
        Points::new(features, points.labels.iter().rev().copied().collect()).unwrap()
    };
    let recipe = recipe(LoraConfig::new(2).with_dropout(0.2), 4);
    // f64: sums of at most 8 products, 16 ulp or so, over logits of size 10; f32: the same with its ulp of 1e-7
    let (name, rounding) = if dtype == DType::F64 { ("points in f64", 1e-12) } else { ("points in f32", 1e-4) };
    Case::new(name, (mlp(dtype), recipe), (blobs(44, 1), blobs(11, 2)), backwards, rounding)
}

/// A language model of two layers, in f64.
fn llama() -> Case<PromptClassifier, EncodedDataset> {
    let fixture = Fixture::load("tiny_llama");
    let backwards =
        |data: &EncodedDataset| EncodedDataset { items: data.items.iter().rev().cloned().collect(), ..data.clone() };
    let lora = LoraConfig::new(2).with_target_modules(["q_proj", "v_proj"]).with_dropout(0.2);
    let data = (fixture.train.clone(), fixture.train.clone());
    // rows are padded to other lengths in other batches, and two layers of attention carry the rounding on
    Case::new("tiny_llama", (fixture.bare(DType::F64), recipe(lora, 2)), data, backwards, 1e-10)
}

/// NLL of each item's label in nats.
fn item_nlls<D: Dataset>(probabilities: &Array2<f64>, data: &D) -> Vec<f64> {
    (0..data.n_items()).map(|i| -probabilities[[i, data.label(i).unwrap()]].ln()).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The way from beliefs to probabilities that no test here depends on: none of these beliefs is a Gaussian over logits.
fn link() -> LinkApprox {
    LinkApprox::default()
}
