//! How far a hidden state is from those of the training set.

use crate::Outcome;
use bayes_lora::data::TextDataset;
use bayes_lora::linalg::CholeskyFactor;
use bayes_lora::models::{TextModel, TokenBatch};
use bayes_lora::tape::Tape;
use burn::tensor::{DType, Device};
use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate};

/// Mean and covariance of hidden states, the covariance shrunk to a multiple of the identity.
pub struct Familiar {
    mean: Array1<f64>,
    factor: CholeskyFactor,
}

impl Familiar {
    /// `Σ = (1 − ρ) S + ρ m I`, with m the mean variance and ρ by Ledoit & Wolf (2004), J. Multivariate Analysis 88, eq. 14.
    ///
    /// # Shapes
    /// - states: `[n, width]`
    fn new(states: ArrayView2<f64>) -> Outcome<Self> {
        let (n, width) = (states.nrows() as f64, states.ncols());
        let mean = states.mean_axis(Axis(0)).ok_or("there are no hidden states")?;
        let centred = &states - &mean;
        let sample = centred.t().dot(&centred) / n;
        let scale = sample.diag().sum() / width as f64;
        let norm: f64 = sample.iter().map(|v| v * v).sum();
        let away = norm - width as f64 * scale * scale;
        // ‖x xᵀ − S‖² = |x|⁴ − 2 xᵀ S x + ‖S‖²
        let quadratic = (&centred.dot(&sample) * &centred).sum_axis(Axis(1));
        let lengths = centred.map_axis(Axis(1), |x| x.dot(&x));
        let noise = lengths.iter().zip(&quadratic).map(|(x, q)| x * x - 2.0 * q + norm).sum::<f64>() / (n * n);
        let shrinkage = if away > 0.0 { (noise / away).clamp(0.0, 1.0) } else { 1.0 };
        let shrunk = sample * (1.0 - shrinkage) + Array2::<f64>::eye(width) * (shrinkage * scale);
        Ok(Self { mean, factor: CholeskyFactor::new(shrunk.view())? })
    }

    /// `√((h − μ)ᵀ Σ⁻¹ (h − μ))` of each state.
    fn distances(&self, states: ArrayView2<f64>) -> Array1<f64> {
        let centred = &states - &self.mean;
        self.factor.half_solve(centred.t()).map_axis(Axis(0), |x| x.dot(&x).sqrt())
    }
}

/// Mahalanobis distances of answers to the training set: at the end of the prompt, and at every place that predicts a token of the answer.
pub struct Distances {
    of_prompt: Familiar,
    of_answer: Familiar,
}

impl Distances {
    pub fn new(model: &TextModel, train: &TextDataset) -> Outcome<Self> {
        let states = predicting(model, train)?;
        let first: Vec<ArrayView2<f64>> = states.iter().map(|of| of.slice(ndarray::s![..1, ..])).collect();
        let all: Vec<ArrayView2<f64>> = states.iter().map(|of| of.view()).collect();
        Ok(Self {
            of_prompt: Familiar::new(concatenate(Axis(0), &first)?.view())?,
            of_answer: Familiar::new(concatenate(Axis(0), &all)?.view())?,
        })
    }

    /// Of each text: at its prompt's end, the sum over its answer, and the mean over it.
    pub fn of(&self, model: &TextModel, data: &TextDataset) -> Outcome<Vec<[f64; 3]>> {
        let of_text = |states: Array2<f64>| {
            let prompt = self.of_prompt.distances(states.slice(ndarray::s![..1, ..]))[0];
            let answer = self.of_answer.distances(states.view());
            [prompt, answer.sum(), answer.sum() / answer.len() as f64]
        };
        Ok(predicting(model, data)?.into_iter().map(of_text).collect())
    }
}

/// Of each text the last layer's hidden states before its scored tokens, `[n_scored, width]`; the first is that of the last prompt token.
fn predicting(model: &TextModel, data: &TextDataset) -> Outcome<Vec<Array2<f64>>> {
    let mut all = Vec::with_capacity(data.len());
    for example in &data.examples {
        let batch = TokenBatch::of_row(&example.ids, &Device::flex(), DType::F32)?;
        let hidden = model.lm.hidden(&batch, &mut Tape::off());
        let [tokens, width] = hidden.dims();
        let values = hidden.into_data().convert::<f64>().try_into_vec::<f64>().map_err(|e| format!("{e:?}"))?;
        let states = Array2::from_shape_vec((tokens, width), values)?;
        let places: Vec<usize> = example.scored_places().map(|place| place - 1).collect();
        all.push(states.select(Axis(0), &places));
    }
    Ok(all)
}
