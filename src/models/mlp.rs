//! A small multilayer perceptron `f(x; W, b) = σ(Wx + b)`, composed L times, and points to classify with it.

use super::classifier::{Classifier, ClassifierInput, HeadFeatures};
use super::dataset::Dataset;
use crate::data::{BatchLimits, BatchOrder, ItemSize, plan_batches};
use crate::draws::{Purpose, generator, normals};
use crate::error::{Error, Result, check_finite};
use crate::float_type::check_float;
use crate::hash::{fnv1a, fnv1a_words};
use crate::lora::{Adaptable, LoraLinear};
use crate::setters::setters;
use crate::tape::Tape;
use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData, activation};
use ndarray::Array2;

/// The nonlinearity between layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `tanh x`
    Tanh,
    /// `max(0, x)`
    Relu,
    /// `x`: a deep linear network.
    Identity,
}

/// Widths and nonlinearity of an [`Mlp`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MlpConfig {
    /// Input width, hidden widths, number of classes.
    pub widths: Vec<usize>,
    /// Nonlinearity after every layer but the last.
    pub activation: Activation,
    /// Seed of the start.
    pub seed: u64,
    /// Element type of the weights.
    pub dtype: DType,
}

impl MlpConfig {
    /// A tanh network of the given widths, seed 0, f32.
    pub fn new(widths: impl Into<Vec<usize>>) -> Self {
        Self { widths: widths.into(), activation: Activation::Tanh, seed: 0, dtype: DType::F32 }
    }

    setters! {
        /// Sets input width, hidden widths and number of classes.
        with_widths(widths: impl Into<Vec<usize>>);
        /// Sets the nonlinearity.
        with_activation(activation: Activation);
        /// Sets the seed of the start.
        with_seed(seed: u64);
        /// Sets the element type of the weights.
        with_dtype(dtype: DType);
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// If there are fewer than two widths, one is zero, or the element type is no float.
    pub fn validate(&self) -> Result<()> {
        if self.widths.len() < 2 || self.widths.contains(&0) {
            return Err(Error::config("widths", "at least two, none of them zero", format!("{:?}", self.widths)));
        }
        check_float("element type of the perceptron", self.dtype)
    }

    /// Draws the weights, `W ~ N(0, 1/d_in)`, `b = 0`.
    ///
    /// # Errors
    /// As [`MlpConfig::validate`].
    pub fn init(&self, device: &Device) -> Result<Mlp> {
        self.validate()?;
        let options = (&device.clone().without_autodiff(), self.dtype);
        let layers = self
            .widths
            .windows(2)
            .enumerate()
            .map(|(i, w)| {
                let sd = 1.0 / (w[0] as f64).sqrt();
                let mut rng = generator(self.seed, Purpose::NetworkStart, i as u64, 0);
                let values = (sd * normals(&mut rng, (w[0], w[1]))).into_raw_vec_and_offset().0;
                let weight = Tensor::from_data(TensorData::new(values, [w[0], w[1]]), options);
                LoraLinear::new(format!("layers.{i}"), weight, Some(Tensor::zeros([w[1]], options)))
            })
            .collect();
        Ok(Mlp { layers, activation: self.activation })
    }
}

/// A multilayer perceptron over feature vectors.
#[derive(Module, Debug)]
pub struct Mlp {
    layers: Vec<LoraLinear>,
    #[module(skip)]
    activation: Activation,
}

impl Adaptable for Mlp {
    fn linears(&self) -> Vec<&LoraLinear> {
        self.layers.iter().collect()
    }

    fn linears_mut(&mut self) -> Vec<&mut LoraLinear> {
        self.layers.iter_mut().collect()
    }
}

impl Classifier for Mlp {
    type Input = PointsBatch;

    fn n_classes(&self) -> usize {
        self.layers.last().map_or(0, LoraLinear::d_out)
    }

    fn check(&self, input: &PointsBatch) -> Result<()> {
        let [n, found] = input.features.dims();
        match self.layers.first().map(LoraLinear::d_in) {
            Some(expected) if expected != found => {
                Err(Error::Shape { what: "features".into(), expected: vec![n, expected], found: vec![n, found] })
            }
            _ => Ok(()),
        }
    }

    fn head_weights(&self) -> Option<Tensor<2>> {
        Some(self.layers.last()?.merged_weight().transpose())
    }

    fn head_features(&self, input: &PointsBatch) -> Option<HeadFeatures> {
        let last = self.layers.last()?;
        let features = self.hidden(input, &mut Tape::off());
        Some(HeadFeatures { logits: last.forward(features.clone(), &mut Tape::off()), features })
    }

    fn logits(&self, input: &PointsBatch, tape: &mut Tape) -> Tensor<2> {
        let hidden = self.hidden(input, tape);
        match self.layers.last() {
            Some(last) => last.forward(hidden, tape),
            None => hidden,
        }
    }
}

impl Mlp {
    /// What the last layer reads, `[n_items, width]`.
    fn hidden(&self, input: &PointsBatch, tape: &mut Tape) -> Tensor<2> {
        let mut x = input.features.clone();
        for layer in &self.layers[..self.layers.len().saturating_sub(1)] {
            x = layer.forward(x, tape);
            x = match self.activation {
                Activation::Tanh => x.tanh(),
                Activation::Relu => activation::relu(x),
                Activation::Identity => x,
            };
        }
        x
    }
}

/// Feature vectors with labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Points {
    /// `[n_items, d]`
    pub features: Array2<f64>,
    /// `[n_items]`, or empty where unknown.
    pub labels: Vec<usize>,
}

impl Points {
    /// Pairs feature vectors with labels (or none).
    ///
    /// # Errors
    /// If there are no points, a feature is not finite, or the counts differ.
    pub fn new(features: Array2<f64>, labels: Vec<usize>) -> Result<Self> {
        if features.is_empty() {
            return Err(Error::empty("set of points"));
        }
        check_finite("features", features.iter().map(|v| v.is_finite()))?;
        if !labels.is_empty() && labels.len() != features.nrows() {
            return Err(Error::Count { what: "labels".into(), expected: features.nrows(), found: labels.len() });
        }
        Ok(Self { features, labels })
    }
}

/// A batch of feature vectors.
#[derive(Debug, Clone)]
pub struct PointsBatch {
    features: Tensor<2>,
}

impl PointsBatch {
    /// `[n_items, d]`, on the model's device: what a [`Classifier`] of your own reads.
    pub fn features(&self) -> &Tensor<2> {
        &self.features
    }
}

impl ClassifierInput for PointsBatch {
    fn n_items(&self) -> usize {
        self.features.dims()[0]
    }

    fn token_mask(&self) -> Array2<bool> {
        Array2::from_elem((self.n_items(), 1), true)
    }

    fn repeat(&self, times: usize) -> Result<Self> {
        Ok(Self { features: self.features.clone().repeat(&[times, 1]) })
    }
}

impl Dataset for Points {
    type Input = PointsBatch;

    fn n_items(&self) -> usize {
        self.features.nrows()
    }

    fn label(&self, item: usize) -> Option<usize> {
        self.labels.get(item).copied()
    }

    fn item_id(&self, item: usize) -> String {
        format!("point {item}")
    }

    /// A point is its features.
    fn item_key(&self, item: usize) -> u64 {
        fnv1a(self.features.row(item).iter().flat_map(|v| v.to_bits().to_le_bytes()))
    }

    fn content_hash(&self, item: usize) -> Option<u64> {
        Some(fnv1a_words([self.item_key(item), self.label(item).map_or(0, |label| label as u64 + 1)]))
    }

    fn plan(&self, limits: BatchLimits, order: BatchOrder) -> Result<Vec<Vec<usize>>> {
        if self.features.is_empty() {
            return Err(Error::empty("set of points"));
        }
        let size = |item| ItemSize { n_rows: 1, longest: 1, key: self.item_key(item) };
        plan_batches(&(0..self.n_items()).map(size).collect::<Vec<_>>(), limits, order)
    }

    fn batch(&self, indices: &[usize], device: &Device, dtype: DType) -> Result<PointsBatch> {
        check_float("element type of a batch", dtype)?;
        let d = self.features.ncols();
        let values: Vec<f64> = indices.iter().flat_map(|&i| self.features.row(i).to_vec()).collect();
        let data = TensorData::new(values, [indices.len(), d]);
        let device = device.clone().without_autodiff();
        Ok(PointsBatch { features: Tensor::from_data(data, (&device, dtype)) })
    }
}
