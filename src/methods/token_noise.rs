//! Noise of its own for every token: what every [`TokenNoise`] believes, and Flipout.

use super::belief::{Belief, Needs};
use crate::belief::LogitBelief;
use crate::data::BatchLimits;
use crate::draws::{generator, keyed, normals};
use crate::error::Result;
use crate::hash::{fnv1a, fnv1a_words};
use crate::models::{Classifier, Dataset};
use crate::predict::{RowKeys, predict_noisy};
use crate::progress::Control;
use crate::tape::SiteNoise;
use burn::tensor::{Tensor, TensorData};
use ndarray::Array2;
use rand::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Makes the noise of one pass.
pub trait TokenNoise: Send + Sync {
    /// All that the noise depends on besides seed, pass and rows, in one line.
    fn describe(&self) -> String;

    /// The noise of pass `index` over the rows of a batch: at each row a function of (seed, site, index, row's key) alone.
    fn noise(&self, seed: u64, index: u64, rows: RowKeys) -> Box<dyn SiteNoise>;
}

/// The network in several passes with noise.
#[derive(Debug, Clone)]
pub struct NoisyBelief<N> {
    /// The noise.
    pub noise: N,
    /// Number of passes.
    pub n_samples: usize,
    /// Seed of the noise.
    pub seed: u64,
    /// Bytes that the noise keeps.
    pub bytes: usize,
}

impl<M: Classifier, D: Dataset<Input = M::Input>, N: TokenNoise> Belief<M, D> for NoisyBelief<N> {
    fn believe(&self, model: &M, data: &D, limits: &BatchLimits, control: &Control) -> Result<LogitBelief> {
        let name = format!("{}, seed {}", self.noise.describe(), self.seed);
        let noise = |index, rows| self.noise.noise(self.seed, index, rows);
        predict_noisy(model, data, (&name, noise), self.n_samples, limits, control)
    }

    fn needs(&self, _n_classes: usize) -> Needs {
        Needs { forwards: self.n_samples, backwards: 0, bytes: self.bytes }
    }
}

/// Gaussian noise on A of each module: `ΔA = L (σ∘E)` with standard normal E.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseOfA {
    /// `L: [r, r]`, where the noise is not in A's own frame.
    pub frame: Option<Array2<f64>>,
    /// `σ: [r, d_in]`
    pub deviations: Array2<f64>,
}

impl NoiseOfA {
    /// `σ∘E` of draw `index`.
    pub(super) fn drawn(&self, module: &str, seed: u64, index: u64) -> Array2<f64> {
        &self.deviations * &normals(&mut generator(seed, module, index), self.deviations.dim())
    }

    /// `L (σ∘E)` of draw `index`.
    pub(super) fn delta(&self, module: &str, seed: u64, index: u64) -> Array2<f64> {
        let drawn = self.drawn(module, seed, index);
        match &self.frame {
            None => drawn,
            Some(frame) => frame.dot(&drawn),
        }
    }
}

/// Flipout: one draw `Ê = σ∘E` a pass, its signs flipped for every token, `u_t += L (s_t∘(Ê (r_t∘x_t)))` with
/// `r_t ∈ {±1}^d_in`, `s_t ∈ {±1}^r`. At each token the noise has the variance of a draw of A; between two tokens it has no
/// covariance, so that no single network gives these outputs.
///
/// Wen et al. (2018), arXiv 1803.04386; as BLoB, TFB and C-LoRA predict.
#[derive(Debug, Clone)]
pub struct Flipout(pub Arc<BTreeMap<String, NoiseOfA>>);

impl TokenNoise for Flipout {
    fn describe(&self) -> String {
        let hash = |noise: &NoiseOfA| {
            let values = noise.frame.iter().flatten().chain(&noise.deviations);
            fnv1a_words(values.map(|v| v.to_bits()))
        };
        let parts = self.0.iter().flat_map(|(module, noise)| [fnv1a(module.bytes()), hash(noise)]);
        format!("Flipout {:016x}", fnv1a_words(parts))
    }

    fn noise(&self, seed: u64, index: u64, rows: RowKeys) -> Box<dyn SiteNoise> {
        Box::new(FlipoutPass { of: self.0.clone(), seed, index, rows })
    }
}

#[derive(Debug)]
struct FlipoutPass {
    of: Arc<BTreeMap<String, NoiseOfA>>,
    seed: u64,
    index: u64,
    rows: RowKeys,
}

impl FlipoutPass {
    /// Signs `[rows, width]` of a module's rows.
    fn signs(&self, module: &str, width: usize, like: &Tensor<2>) -> Tensor<2> {
        let keys = self.rows.of_rows(like.dims()[0]);
        let name = fnv1a(module.bytes());
        let mut values = Vec::with_capacity(keys.len() * width);
        let mut bits = vec![0u8; width.div_ceil(8)];
        for key in &keys {
            keyed(self.seed, fnv1a_words([name, *key]), self.index).fill_bytes(&mut bits);
            values.extend((0..width).map(|k| if bits[k / 8] >> (k % 8) & 1 == 0 { 1.0f32 } else { -1.0 }));
        }
        Tensor::from_data(TensorData::new(values, [keys.len(), width]), (&like.device(), like.dtype()))
    }
}

impl SiteNoise for FlipoutPass {
    fn hidden(&mut self, module: &str, x: &Tensor<2>, hidden: Tensor<2>) -> Tensor<2> {
        let Some(noise) = self.of.get(module) else { return hidden };
        let [rank, d_in] = [noise.deviations.nrows(), noise.deviations.ncols()];
        // of one generator: first the signs of the inputs, then those of the outputs
        let signs = self.signs(module, d_in + rank, x);
        let flipped = x.clone() * signs.clone().narrow(1, 0, d_in);
        let to_tensor = |matrix: &Array2<f64>| {
            let data = TensorData::new(matrix.iter().copied().collect::<Vec<f64>>(), [matrix.nrows(), matrix.ncols()]);
            Tensor::<2>::from_data(data, (&x.device(), x.dtype()))
        };
        let drawn = to_tensor(&noise.drawn(module, self.seed, self.index));
        let delta = flipped.matmul(drawn.transpose()) * signs.narrow(1, d_in, rank);
        match &noise.frame {
            None => hidden + delta,
            Some(frame) => hidden + delta.matmul(to_tensor(frame).transpose()),
        }
    }
}
