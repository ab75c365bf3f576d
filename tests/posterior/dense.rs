//! Small networks, and their posteriors as dense matrices that are written from the formulas.

use crate::support::device;
use bayes_lora::curvature::{
    Cotangents, Curvature, CurvatureConfig, FactorSum, KroneckerFactors, TokenTreatment, fit_curvature, probe,
};
use bayes_lora::data::BatchLimits;
use bayes_lora::linalg::eigh;
use bayes_lora::lora::{Adaptable, AdapterWeights, LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::models::{Classifier, Dataset, Mlp, MlpConfig, Points};
use bayes_lora::posterior::{Laplace, LaplaceConfig, Spectrum};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use burn::tensor::DType;
use ndarray::{Array2, Array3, Array4, s};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

pub(super) const LIMITS: BatchLimits = BatchLimits { max_items: 64, max_tokens: 10_000 };

/// Two algorithms for one f64 result: 4e-14 is seen, through eigendecompositions and the inverse of eigenvalues over λ.
pub(super) const ALGEBRA: f64 = 1e-10;

/// Dense, and cut to one or two directions with and without the residual: what to keep, and whether it may be kept.
pub(super) const KEPT: [(usize, usize, bool); 4] = [(100, 10, true), (0, 1, true), (0, 2, true), (0, 2, false)];

/// Numbers in [−1, 1] that are the same on every run.
pub(super) fn noise(seed: u64, rows: usize, columns: usize) -> Array2<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_fn((rows, columns), |_| rng.random_range(-1.0..1.0))
}

pub(super) fn points(n: usize, d: usize, classes: usize) -> Points {
    Points::new(noise(1, n, d) * 2.0, (0..n).map(|i| (i * 7 + i / 3) % classes).collect()).unwrap()
}

/// The model with every adapter matrix moved away from its start.
pub(super) fn disturbed<M: Adaptable>(model: M) -> M {
    let moved = read_adapter(&model).unwrap().into_iter().enumerate().map(|(k, (site, w))| {
        let (rows, columns) = w.dim();
        (site, w + noise(100 + k as u64, rows, columns) * 0.5)
    });
    let moved: AdapterWeights = moved.collect();
    write_adapter(model, &moved).unwrap()
}

pub(super) fn network(widths: &[usize], rank: usize, dtype: DType) -> Mlp {
    let model = MlpConfig::new(widths).with_dtype(dtype).with_seed(4).init(&device()).unwrap();
    attach(model, &LoraConfig::new(rank), 2).unwrap()
}

pub(super) fn fixed(lambda: f64) -> LaplaceConfig {
    LaplaceConfig::default().with_prior_precision(PriorPrecision::new(lambda).unwrap())
}

pub(super) fn fit<M: Classifier, D: Dataset<Input = M::Input>>(
    model: &M,
    data: &D,
    config: CurvatureConfig,
) -> Curvature {
    fit_curvature(model, data, &config.with_limits(LIMITS), &Control::silent()).unwrap()
}

/// Jacobians `[n, C, d_out, d_in]` of all sites at all items.
pub(super) fn jacobians<M: Classifier, D: Dataset<Input = M::Input>>(model: &M, data: &D) -> Vec<Array4<f64>> {
    let items: Vec<usize> = (0..data.n_items()).collect();
    let input = data.batch(&items, &model.device(), model.dtype()).unwrap();
    let pass = probe(model, &input, Cotangents::Classes).unwrap();
    pass.sites.iter().map(|site| site.jacobians().unwrap()).collect()
}

// ---- dense matrices, written from the formulas -------------------------------------------------------------------

pub(super) fn kron(g: &Array2<f64>, a: &Array2<f64>) -> Array2<f64> {
    let (m, n) = (g.nrows(), a.nrows());
    Array2::from_shape_fn((m * n, m * n), |(i, j)| g[[i / n, j / n]] * a[[i % n, j % n]])
}

fn map_eigenvalues(matrix: &Array2<f64>, f: impl Fn(f64) -> f64) -> Array2<f64> {
    let eigen = eigh(matrix.view()).unwrap();
    (&eigen.vectors * &eigen.values.mapv(f)).dot(&eigen.vectors.t())
}

/// `(M + λI)⁻¹`
pub(super) fn inverse_plus(matrix: &Array2<f64>, lambda: f64) -> Array2<f64> {
    map_eigenvalues(matrix, |e| 1.0 / (e + lambda))
}

/// `log det(M/λ + I)`
pub(super) fn log_det_ratio(matrix: &Array2<f64>, lambda: f64) -> f64 {
    eigh(matrix.view()).unwrap().values.iter().map(|e| (e.max(0.0) / lambda).ln_1p()).sum()
}

/// The whole matrix of a sum; of a low-rank one with the discarded trace spread over the directions left out.
fn whole(sum: &FactorSum, with_residual: bool) -> Array2<f64> {
    match sum {
        FactorSum::Dense(matrix) => matrix.clone(),
        FactorSum::LowRank(sum) => {
            let kept = sum.factor.dot(&sum.factor.t());
            let missing = sum.factor.nrows() - sum.factor.ncols();
            let tau = if with_residual { sum.discarded_trace / missing as f64 } else { 0.0 };
            let outside = map_eigenvalues(&kept, |e| if e > 1e-9 { 0.0 } else { 1.0 });
            kept + outside * tau
        }
    }
}

/// `G ⊗ A` of one site for its weight row by row.
pub(super) fn curvature_matrix(curvature: &Curvature, factors: &KroneckerFactors, with_residual: bool) -> Array2<f64> {
    let count = match curvature.config.treatment {
        TokenTreatment::Expand => factors.n_vectors,
        _ => curvature.n_data,
    };
    kron(&whole(&factors.gradient, with_residual), &(whole(&factors.activation, with_residual) / count as f64))
}

/// `J Σ Jᵀ` of every item.
pub(super) fn pushed(jacobian: &Array4<f64>, sigma: &Array2<f64>) -> Array3<f64> {
    let (n, k, rows, columns) = jacobian.dim();
    let flat = jacobian.to_shape((n, k, rows * columns)).unwrap();
    let mut out = Array3::zeros((n, k, k));
    for (i, mut item) in out.outer_iter_mut().enumerate() {
        let j = flat.slice(s![i, .., ..]);
        item.assign(&j.dot(sigma).dot(&j.t()));
    }
    out
}

/// This site's own part of the library's covariance and log-determinant.
pub(super) fn of_site(laplace: &Laplace, index: usize, jacobian: &Array4<f64>) -> (Array3<f64>, f64) {
    let (block, precision) = (&laplace.blocks()[index], laplace.prior_precisions().of(0));
    let (n, k, _, _) = jacobian.dim();
    let (mut covariance, mut spectrum) = (Array3::zeros((n, k, k)), Spectrum::default());
    let projection = block.project(|_| Ok(jacobian.view())).unwrap();
    block.add_covariance(&projection, precision, &mut covariance);
    block.extend(&mut spectrum);
    (covariance, spectrum.log_det_ratio(precision))
}
