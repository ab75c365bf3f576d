//! Draws the weights of a network that is not pretrained.

use crate::draws::{Purpose, generator, place};
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand_distr::{Distribution, StandardNormal};

/// Standard deviation of a matrix's entries, as transformers' `initializer_range`.
const DEVIATION: f64 = 0.02;
/// Numbers drawn for one tensor; a larger one repeats them, so that models of billions of weights take seconds.
const PERIOD: usize = 1 << 20;

/// Draws a tensor by its name: gains of norms are 1, other vectors 0, entries of matrices `N(0, 0.02²)`.
pub(super) fn tensor<const D: usize>(
    seed: u64,
    name: &str,
    shape: [usize; D],
    (device, dtype): (&Device, DType),
) -> Tensor<D> {
    if D == 1 {
        let constant = if name.contains("norm") { 1.0 } else { 0.0 };
        return Tensor::full(shape, constant, (device, dtype));
    }
    let n: usize = shape.iter().product();
    let generator = &mut generator(seed, Purpose::NetworkStart, place(name), 0);
    let values = StandardNormal.sample_iter(generator).take(n.min(PERIOD)).map(|z: f64| (DEVIATION * z) as f32);
    let values: Vec<f32> = values.collect();
    let drawn = values.len();
    let values = Tensor::<1>::from_data(TensorData::new(values, [drawn]), (device, dtype));
    values.repeat(&[n.div_ceil(drawn)]).narrow(0, 0, n).reshape(shape)
}
