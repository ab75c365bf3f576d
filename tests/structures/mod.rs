//! Every structure of curvature against dense matrices, PyTorch's values, finite differences and each other.
//!
//! In f64 on the CPU, where two ways of summing differ by rounding alone.

mod averages;
mod determined;
mod draws;
mod exactness;
mod gauge;
mod kronecker;
mod linearized;
mod merging;
mod next_task;
mod plans;
mod prior;
mod regression;
mod several_tasks;
mod sketch;
mod stationarity;
mod storage;

use crate::support::{FIXTURES, Fixture, f64_or_skip};
use bayes_lora::curvature::{
    Cotangents, Curvature, CurvatureConfig, CurvatureStructure, CurvatureSums, fit_curvature, probe,
};
use bayes_lora::data::{BatchLimits, EncodedDataset};
use bayes_lora::linalg::eigh;
use bayes_lora::lora::load_peft;
use bayes_lora::models::{Classifier, Dataset, PromptClassifier};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use bayes_lora::tape::Site;
use burn::tensor::DType;
use ndarray::{Array2, Array3, Array4, s};
use std::collections::BTreeMap;

const LIMITS: BatchLimits = BatchLimits { max_items: 15, max_tokens: 100_000 };

/// Two exact algorithms for one f64 result, through eigendecompositions.
const ALGEBRA: f64 = 1e-8;

fn config(structure: CurvatureStructure) -> CurvatureConfig {
    CurvatureConfig::new(structure).with_limits(LIMITS)
}

fn fit<M: Classifier, D: Dataset<Input = M::Input>>(model: &M, data: &D, structure: CurvatureStructure) -> Curvature {
    fit_curvature(model, data, &config(structure), &Control::silent()).unwrap()
}

fn fixed(lambda: f64) -> LaplaceConfig {
    LaplaceConfig::default().with_prior_precision(PriorPrecision::new(lambda).unwrap())
}

/// The fixture's model in f64 with its adapter, asked in the form of `data`.
fn adapted_for(fixture: &Fixture, data: &EncodedDataset) -> PromptClassifier {
    load_peft(fixture.model_for(data, DType::F64), fixture.dir().join("adapter")).unwrap().0
}

/// Jacobians `[n, C, d_out, d_in]` of all sites at all items.
fn jacobians<M: Classifier, D: Dataset<Input = M::Input>>(model: &M, data: &D) -> BTreeMap<Site, Array4<f64>> {
    let items: Vec<usize> = (0..data.n_items()).collect();
    let input = data.batch(&items, &model.device(), model.dtype()).unwrap();
    let pass = probe(model, &input, Cotangents::Classes).unwrap();
    pass.sites.iter().map(|site| (site.site.clone(), site.jacobians().unwrap())).collect()
}

/// Logits `[n, C]` of all items.
fn probed_logits<M: Classifier, D: Dataset<Input = M::Input>>(model: &M, data: &D) -> Array2<f64> {
    let items: Vec<usize> = (0..data.n_items()).collect();
    let input = data.batch(&items, &model.device(), model.dtype()).unwrap();
    probe(model, &input, Cotangents::Classes).unwrap().logits
}

/// The items of one remainder.
fn half(data: &EncodedDataset, remainder: usize) -> EncodedDataset {
    let mut half = data.clone();
    half.items = data.items.iter().skip(remainder).step_by(2).cloned().collect();
    half
}

fn covariance(laplace: &Laplace, jacobians: &BTreeMap<Site, Array4<f64>>, lambda: f64) -> Array3<f64> {
    let projections = laplace.project_jacobians(jacobians).unwrap();
    laplace.covariance(&projections, PriorPrecision::new(lambda).unwrap()).unwrap()
}

/// The matrix of a sum over all sites jointly.
fn full_matrix(curvature: &Curvature) -> Array2<f64> {
    let CurvatureSums::Joint(blocks) = &curvature.sums else { panic!("a joint structure was asked for") };
    let [block] = blocks.as_slice() else { panic!("{} blocks instead of one", blocks.len()) };
    block.sum.to_matrix(block.spaces.iter().map(|space| space.width()).sum())
}

/// `J (H + λI)⁻¹ Jᵀ` of every item, from a dense H over the sites in forward order.
fn dense_covariance(
    h: &Array2<f64>,
    order: &[Site],
    jacobians: &BTreeMap<Site, Array4<f64>>,
    lambda: f64,
) -> Array3<f64> {
    let eigen = eigh(h.view()).unwrap();
    let inverse = (&eigen.vectors / &eigen.values.mapv(|e| e + lambda)).dot(&eigen.vectors.t());
    let (n, k, _, _) = jacobians[&order[0]].dim();
    let mut covariance = Array3::zeros((n, k, k));
    for i in 0..n {
        let parts: Vec<Array2<f64>> = order
            .iter()
            .map(|site| {
                let part = jacobians[site].slice(s![i, .., .., ..]);
                part.to_owned().into_shape_with_order((k, part.len() / k)).unwrap()
            })
            .collect();
        let views: Vec<_> = parts.iter().map(|p| p.view()).collect();
        let j = ndarray::concatenate(ndarray::Axis(1), &views).unwrap();
        covariance.slice_mut(s![i, .., ..]).assign(&j.dot(&inverse).dot(&j.t()));
    }
    covariance
}

/// All fixtures with their models in f64; none where the device has no f64.
fn cases(test: &str) -> impl Iterator<Item = (Fixture, PromptClassifier)> {
    let runs = f64_or_skip(test);
    FIXTURES.into_iter().filter(move |_| runs).map(|name| {
        let fixture = Fixture::load(name);
        let model = fixture.model(DType::F64);
        (fixture, model)
    })
}
