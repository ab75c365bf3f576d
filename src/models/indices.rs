//! Puts indices where tensors are.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Indices on a device, `[n]`.
pub(crate) fn indices_on(device: &Device, values: Vec<i64>) -> Tensor<1, Int> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}
