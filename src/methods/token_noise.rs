//! Noise of its own for every token: what every [`TokenNoise`] believes, and Flipout.

use super::belief::{Belief, Needs};
use super::keep::{Keep, Kept};
use crate::belief::LogitBelief;
use crate::data::BatchLimits;
use crate::draws::{Purpose, generator, normals, place, within};
use crate::error::{Error, Result};
use crate::hash::{fnv1a, fnv1a_words};
use crate::lora::{AdapterWeights, check_same_shapes, from_array, write_adapter};
use crate::models::{Classifier, Dataset};
use crate::predict::predict_noisy;
use crate::progress::Control;
use crate::tape::{LoraMatrix, RowKeys, Site, SiteNoise};
use burn::tensor::{Tensor, TensorData};
use ndarray::Array2;
use rand::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Makes the noise of one pass.
pub trait TokenNoise: Keep + Send + Sync {
    /// All that the noise depends on besides seed, pass and rows, in one line.
    fn describe(&self) -> String;

    /// The noise of pass `index` over the rows of a batch: at each row a function of (seed, site, index, row's key) alone.
    fn noise(&self, seed: u64, index: u64, rows: RowKeys) -> Box<dyn SiteNoise>;
}

/// The network in several passes with noise.
#[derive(Debug, Clone)]
pub struct NoisyBelief<N> {
    /// The adapter that the noise is around; `None` for the model's.
    pub adapter: Option<AdapterWeights>,
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
        let own = self.adapter.as_ref().map(|adapter| write_adapter(model.valid(), adapter)).transpose()?;
        predict_noisy(own.as_ref().unwrap_or(model), data, (&name, noise), self.n_samples, limits, control)
    }

    fn needs(&self, _data: &D, _n_classes: usize) -> Needs {
        Needs { forwards: self.n_samples, backwards: 0, bytes: self.bytes }
    }
}

/// What a noisy belief is, `of` its noise's kind.
pub(super) const NOISY: &str = "noise";

impl<N: TokenNoise> NoisyBelief<N> {
    pub(super) fn restore(noise: N, kept: &mut Kept, map: &AdapterWeights) -> Result<Self> {
        let adapter = Some(kept.take_adapter("adapter")?).filter(|adapter| !adapter.is_empty());
        adapter.iter().try_for_each(|adapter| check_same_shapes("the adapter under the noise", adapter, map))?;
        let (n_samples, seed, bytes) = kept.take_draws()?;
        Ok(Self { adapter, noise, n_samples, seed, bytes })
    }
}

impl<N: Keep> Keep for NoisyBelief<N> {
    fn keep(&self) -> Option<Kept<'_>> {
        let kept = self.noise.keep()?.within(NOISY).with_draws(self.n_samples, self.seed, self.bytes);
        Some(match &self.adapter {
            None => kept,
            Some(adapter) => kept.with_adapter("adapter", adapter),
        })
    }
}

/// Gaussian noise on A of each module: `ΔA = L (σ∘E)` with standard normal E.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseOfA {
    /// `L: [r, k]`, where the noise is not in A's own frame.
    pub frame: Option<Array2<f64>>,
    /// `σ: [k, d_in]`, k = r in A's own frame
    pub deviations: Array2<f64>,
}

impl NoiseOfA {
    /// `σ∘E` of draw `index`.
    pub(super) fn drawn(&self, module: &str, seed: u64, index: u64) -> Array2<f64> {
        &self.deviations
            * &normals(&mut generator(seed, Purpose::NoiseOfA, place(module), index), self.deviations.dim())
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

impl Flipout {
    pub(super) const KIND: &str = "Flipout";

    pub(super) fn restore(kept: &mut Kept, map: &AdapterWeights) -> Result<Self> {
        let mut frames = kept.take_adapter("frame")?;
        let mut of = BTreeMap::new();
        for (site, deviations) in kept.take_adapter("deviation")? {
            let frame = frames.remove(&site);
            let found = match &frame {
                None => vec![deviations.nrows(), deviations.ncols()],
                Some(frame) => vec![frame.nrows(), frame.ncols(), deviations.nrows(), deviations.ncols()],
            };
            let expected = map.get(&site).map(|a| match &frame {
                None => a.shape().to_vec(),
                Some(frame) => vec![a.nrows(), frame.ncols(), frame.ncols(), a.ncols()],
            });
            if site.matrix != LoraMatrix::A || expected.as_ref() != Some(&found) {
                let (what, expected) = (format!("noise at `{site}`"), expected.unwrap_or_default());
                return Err(Error::Shape { what, expected, found });
            }
            of.insert(site.module, NoiseOfA { frame, deviations });
        }
        Ok(Self(Arc::new(of)))
    }
}

impl Keep for Flipout {
    fn keep(&self) -> Option<Kept<'_>> {
        let mut kept = Kept::new(Self::KIND);
        for (module, noise) in &*self.0 {
            let site = Site { module: module.clone(), matrix: LoraMatrix::A };
            kept = kept.with_matrix(format!("deviation/{site}"), noise.deviations.view());
            if let Some(frame) = &noise.frame {
                kept = kept.with_matrix(format!("frame/{site}"), frame.view());
            }
        }
        Some(kept)
    }
}

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
        let mut values = Vec::with_capacity(keys.len() * width);
        let mut bits = vec![0u8; width.div_ceil(8)];
        for key in &keys {
            let of_row = within(place(module), *key);
            generator(self.seed, Purpose::TokenSigns, of_row, self.index).fill_bytes(&mut bits);
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
        let to_tensor = |matrix: &Array2<f64>| from_array(matrix, (&x.device(), x.dtype()));
        let drawn = to_tensor(&noise.drawn(module, self.seed, self.index));
        let delta = flipped(x, drawn, signs);
        match &noise.frame {
            None => hidden + delta,
            Some(frame) => hidden + delta.matmul(to_tensor(frame).transpose()),
        }
    }
}

/// `s_t∘(Ê (r_t∘x_t))` at every row.
///
/// # Shapes
/// - x: `[rows, d_in]`, drawn: `[r, d_in]`, signs: `[rows, d_in + r]`, first those of the inputs; output `[rows, r]`
fn flipped(x: &Tensor<2>, drawn: Tensor<2>, signs: Tensor<2>) -> Tensor<2> {
    let [rank, d_in] = drawn.dims();
    let inputs = x.clone() * signs.clone().narrow(1, 0, d_in);
    inputs.matmul(drawn.transpose()) * signs.narrow(1, d_in, rank)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::lora::to_array;
    use burn::tensor::{DType, Device};
    use ndarray::arr2;

    /// Every pattern of `width` signs, one a row.
    fn patterns(width: usize) -> Array2<f64> {
        Array2::from_shape_fn((1 << width, width), |(k, j)| if k >> j & 1 == 0 { 1.0 } else { -1.0 })
    }

    #[test]
    fn over_all_signs_a_token_has_the_variance_of_a_draw_and_two_tokens_have_no_covariance() {
        let drawn = arr2(&[[0.3, -0.7, 0.2], [1.1, 0.4, -0.5]]);
        let tokens = [[1.0, -2.0, 0.5], [0.3, 4.0, -1.5]];
        let signs = patterns(5);
        let tensor = |values: &Array2<f64>| from_array(values, (&Device::flex(), DType::F64));
        let outputs = tokens.map(|token| {
            let x = Array2::from_shape_fn((signs.nrows(), 3), |(_, j)| token[j]);
            to_array(flipped(&tensor(&x), tensor(&drawn), tensor(&signs))).unwrap()
        });
        let n = signs.nrows() as f64;
        for (token, output) in tokens.iter().zip(&outputs) {
            let within = output.t().dot(output) / n;
            for i in 0..2 {
                // with Ê = σ∘E and E[E²] = 1 this is Σ_j σ_ij² x_j²
                let variance: f64 = (0..3).map(|j| (drawn[[i, j]] * token[j]).powi(2)).sum();
                assert!((within[[i, i]] - variance).abs() < 1e-13 * variance);
                assert!(within[[i, 1 - i]].abs() < 1e-13 * variance);
            }
        }
        // every pattern of the one token with every pattern of the other
        let mut across = Array2::<f64>::zeros((2, 2));
        for one in outputs[0].outer_iter() {
            for other in outputs[1].outer_iter() {
                across += &one.insert_axis(ndarray::Axis(1)).dot(&other.insert_axis(ndarray::Axis(0)));
            }
        }
        assert!(across.iter().all(|v| v.abs() / (n * n) < 1e-13), "{across}");
        // while one draw for both tokens, the same signs, has one
        let coherent = outputs[0].t().dot(&outputs[1]) / n;
        assert!(coherent.diag().iter().all(|v| v.abs() > 0.1), "{coherent}");
    }
}
