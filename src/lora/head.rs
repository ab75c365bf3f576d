//! A linear that trains whole beside an adapter: the head of a classifier.

use super::linear::at_least_f32;
use crate::draws::{Purpose, generator, place};
use crate::error::{Error, Result};
use crate::tape::{LoraMatrix, Tape};
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand_distr::{Distribution, StandardNormal};

/// Standard deviation of a fresh head's weights, as transformers' `initializer_range`.
const DEVIATION: f64 = 0.02;

/// `y = W x + b` with W and b trained as one matrix, in f32 at least.
///
/// It is a site of its own ([`LoraMatrix::Whole`]): training, posteriors, ensembles and files treat it as they do A and B.
#[derive(Module, Debug)]
pub struct TrainedHead {
    /// `[d_out, d_in + 1]` with b in the last column; `[d_out, d_in]` without b.
    pub weight: Param<Tensor<2>>,
    /// Path in the model, such as `classifier`.
    #[module(skip)]
    pub path: String,
    #[module(skip)]
    has_bias: bool,
    /// The weights before training, if known: the centre of a prior at initialisation.
    #[module(skip)]
    pub(super) initial: Option<Tensor<2>>,
}

impl TrainedHead {
    /// A fresh head: `W ~ N(0, 0.02²)`, a function of (seed, path) alone, and b = 0.
    pub fn fresh(
        path: impl Into<String>,
        (d_in, d_out): (usize, usize),
        has_bias: bool,
        seed: u64,
        (device, dtype): (&Device, DType),
    ) -> Self {
        let path = path.into();
        let mut normals = StandardNormal.sample_iter(generator(seed, Purpose::AdapterStart, place(&path), 0));
        let mut draw = || (DEVIATION * normals.next().unwrap_or(0.0)) as f32;
        let width = d_in + usize::from(has_bias);
        let values: Vec<f32> = (0..d_out * width).map(|i| if i % width < d_in { draw() } else { 0.0 }).collect();
        let weight = Tensor::from_data(TensorData::new(values, [d_out, width]), (device, at_least_f32(dtype)));
        Self { initial: Some(weight.clone()), weight: Param::from_tensor(weight), path, has_bias }
    }

    /// A head that has been trained before.
    ///
    /// # Shapes
    /// - weight: `[d_out, d_in]`, bias: `[d_out]`
    pub fn pretrained(path: impl Into<String>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        let (has_bias, weight) = (bias.is_some(), joined(weight, bias));
        let weight = weight.clone().cast(at_least_f32(weight.dtype()));
        Self { initial: Some(weight.clone()), weight: Param::from_tensor(weight), path: path.into(), has_bias }
    }

    /// Width of the input.
    pub fn d_in(&self) -> usize {
        self.weight.lazy_shape()[1] - usize::from(self.has_bias)
    }

    /// Number of outputs.
    pub fn d_out(&self) -> usize {
        self.weight.lazy_shape()[0]
    }

    /// True if it has a bias.
    pub fn has_bias(&self) -> bool {
        self.has_bias
    }

    /// W, `[d_out, d_in]`.
    pub fn matrix(&self) -> Tensor<2> {
        self.weight.val().narrow(1, 0, self.d_in())
    }

    /// b, `[d_out]`.
    pub fn bias(&self) -> Option<Tensor<1>> {
        self.has_bias.then(|| self.weight.val().narrow(1, self.d_in(), 1).squeeze_dim(1))
    }

    /// # Shapes
    /// - x: `[n, d_in]`, output `[n, d_out]` of f32 at least
    pub fn forward(&self, x: Tensor<2>, tape: &mut Tape) -> Tensor<2> {
        let weight = self.weight.val();
        let mut x = x.cast(weight.dtype());
        if self.has_bias {
            let ones = Tensor::ones([x.dims()[0], 1], (&x.device().without_autodiff(), x.dtype()));
            x = Tensor::cat(vec![x, ones], 1);
        }
        let y = x.clone().matmul(weight.transpose());
        tape.observe(&self.path, LoraMatrix::Whole, &x, y, None)
    }

    /// Takes weights from a file, after which its start is unknown.
    ///
    /// # Errors
    /// If the shape is another.
    pub(super) fn replace(&mut self, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Result<()> {
        let expected = vec![self.d_out(), self.d_in()];
        if weight.dims().to_vec() != expected {
            return Err(Error::Shape { what: self.path.clone(), expected, found: weight.dims().to_vec() });
        }
        let id = self.weight.id;
        self.weight = Param::initialized(id, joined(weight, bias));
        self.initial = None;
        Ok(())
    }
}

fn joined(weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    match bias {
        None => weight,
        Some(bias) => Tensor::cat(vec![weight, bias.unsqueeze_dim(1)], 1),
    }
}
