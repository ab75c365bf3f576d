//! Computes `y = W₀x + b + s·B·A·dropout(x)` and shows the inputs and outputs of A and B to a tape.

use crate::tape::{LoraMatrix, Tape};
use burn::module::{Module, Param};
use burn::tensor::{DType, Int, Tensor};

/// The element type of what must not be rounded to half precision: adapters, class logits, losses.
pub(crate) fn at_least_f32(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

/// A view laid out anew, because products of transposed views are slower.
pub(crate) fn laid_out(view: Tensor<2>) -> Tensor<2> {
    let (device, dtype) = (view.device(), view.dtype());
    Tensor::from_data(view.into_data(), (&device, dtype))
}

/// `Σ g·Wᵀ` as `(Σ W·gᵀ)ᵀ`: a CPU's product packs its right operand anew, and one that is transposed takes as long to pack as a few hundred
/// rows to multiply.
///
/// # Shapes
/// - g: `[n, d_out]`, weight: `[d_in, d_out]`, d_out of each its own; output `[n, d_in]`
pub(crate) fn times_transposed(products: impl IntoIterator<Item = (Tensor<2>, Tensor<2>)>) -> Option<Tensor<2>> {
    let products = products.into_iter().map(|(g, weight)| weight.matmul(g.transpose()));
    let sum = products.reduce(|sum, product| sum + product)?;
    let [d_in, n] = sum.dims();
    // through one dimension, so that it is laid out anew
    Some(sum.transpose().reshape([n * d_in]).reshape([n, d_in]))
}

/// A linear layer that may carry a low-rank adapter.
#[derive(Module, Debug)]
pub struct LoraLinear {
    /// `[d_in, d_out]` (the transpose of PyTorch's storage).
    pub weight: Param<Tensor<2>>,
    /// `[d_out]`
    pub bias: Option<Param<Tensor<1>>>,
    /// The adapter, once attached.
    pub adapter: Option<LoraAdapter>,
    /// Path in the model, such as `model.layers.0.self_attn.q_proj`.
    #[module(skip)]
    pub path: String,
    /// True for the output head, which `"all-linear"` leaves alone.
    #[module(skip)]
    pub is_head: bool,
    /// True while the weight in use is another module's (a head tied to the embedding); merging ends it.
    #[module(skip)]
    pub is_tied: bool,
    /// What of the base an adapter's files replaced; saving that adapter writes it again, merging makes it the base's own.
    #[module(skip)]
    pub replaced: Replaced,
}

/// Which tensors of a base linear came with an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replaced {
    /// The weight, by `modules_to_save`.
    pub weight: bool,
    /// The bias, by `modules_to_save` or `bias`.
    pub bias: bool,
}

/// The two factors of a low-rank update.
#[derive(Module, Debug)]
pub struct LoraAdapter {
    /// `A: [r, d_in]`
    pub a: Param<Tensor<2>>,
    /// `B: [d_out, r]`
    pub b: Param<Tensor<2>>,
    /// `s`
    #[module(skip)]
    pub scale: f64,
    /// Probability of dropping an element of A's input while training.
    #[module(skip)]
    pub dropout: f64,
    /// A and B as they were before training, if known: the centre of a prior at initialisation.
    #[module(skip)]
    pub initial: Option<[Tensor<2>; 2]>,
}

impl LoraLinear {
    /// A frozen linear without adapter.
    ///
    /// # Shapes
    /// - weight: `[d_in, d_out]`
    /// - bias: `[d_out]`
    pub fn new(path: impl Into<String>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        Self {
            weight: Param::from_tensor(weight).set_require_grad(false),
            bias: bias.map(|b| Param::from_tensor(b).set_require_grad(false)),
            adapter: None,
            path: path.into(),
            is_head: false,
            is_tied: false,
            replaced: Replaced::default(),
        }
    }

    /// Width of the input.
    pub fn d_in(&self) -> usize {
        self.weight.lazy_shape()[0]
    }

    /// Width of the output.
    pub fn d_out(&self) -> usize {
        self.weight.lazy_shape()[1]
    }

    /// `y = W₀x + b + s·B·A·dropout(x)`.
    ///
    /// # Shapes
    /// - x: `[…, d_in]`, output `[…, d_out]`; all leading dimensions count as tokens.
    pub fn forward<const D: usize>(&self, x: Tensor<D>, tape: &mut Tape) -> Tensor<D> {
        let mut shape = x.dims();
        let tokens: usize = shape[..D - 1].iter().product();
        let x = x.reshape([tokens, shape[D - 1]]);
        shape[D - 1] = self.d_out();
        self.forward_with(self.weight.val(), x, None, tape).reshape(shape)
    }

    /// The same with a weight held elsewhere (a tied head), or with the `columns` alone that the caller took from it. These few are
    /// multiplied in f32 at least, however the weight is held: in half precision two classes whose logits differ would tie.
    ///
    /// # Shapes
    /// - weight: `[d_in, columns or d_out]`, x: `[tokens, d_in]`; output `[tokens, columns or d_out]`
    pub fn forward_with(
        &self,
        weight: Tensor<2>,
        x: Tensor<2>,
        columns: Option<&Tensor<1, Int>>,
        tape: &mut Tape,
    ) -> Tensor<2> {
        // by rows, which lie in one piece
        let pick = |w: Tensor<2>| match columns {
            Some(index) => w.select(0, index.clone()),
            None => w,
        };
        let wide = |t: Tensor<2>| match columns {
            Some(_) => t.clone().cast(at_least_f32(t.dtype())),
            None => t,
        };
        let mut y = wide(x.clone()).matmul(wide(weight));
        if let Some(bias) = &self.bias {
            y = y + wide(pick(bias.val().unsqueeze_dim(1)).transpose());
        }
        let Some(adapter) = &self.adapter else {
            return y;
        };
        // the adapter and what the tape sees of it stay in its own, wider element type on a half-precision base
        let (outer, inner) = (y.dtype(), adapter.a.val().dtype());
        let x = x.cast(inner);
        if let Some(delta) = tape.other_update(&self.path, &x, columns) {
            return y + delta.mul_scalar(adapter.scale).cast(outer);
        }
        let x = tape.disturb_input(&self.path, x, adapter.dropout);
        let hidden = x.clone().matmul(adapter.a.val().transpose());
        let hidden = tape.observe(&self.path, LoraMatrix::A, &x, hidden, None);
        let hidden = tape.disturb_hidden(&self.path, &x, hidden);
        let delta = hidden.clone().matmul(pick(adapter.b.val()).transpose());
        let delta = tape.observe(&self.path, LoraMatrix::B, &hidden, delta, columns);
        y + delta.mul_scalar(adapter.scale).cast(outer)
    }

    /// The merged weight `W₀ + s·(BA)ᵀ`, `[d_in, d_out]`, in the adapter's element type where there is one.
    pub fn merged_weight(&self) -> Tensor<2> {
        match &self.adapter {
            None => self.weight.val(),
            Some(adapter) => {
                let update = adapter.a.val().transpose().matmul(adapter.b.val().transpose());
                self.weight.val().cast(update.dtype()) + update.mul_scalar(adapter.scale)
            }
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::lora::to_array;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn classes_that_tie_in_half_precision_differ_where_their_rows_are_multiplied_in_f32() {
        let device = Device::flex();
        for dtype in [DType::BF16, DType::F16].into_iter().filter(|dtype| device.supports_dtype(*dtype)) {
            let tensor = |values: [f32; 6]| {
                let data = TensorData::new(values.to_vec(), [2, 3]);
                Tensor::<2>::from_data(data, (&device, DType::F32)).cast(dtype)
            };
            // x = (1, 2⁻⁶): logits 1 and 1 + 2⁻¹², which neither half holds apart
            let linear = LoraLinear::new("head", tensor([1.0, 1.0, 0.0, 0.0, 0.015625, 0.0]), None);
            let x = Tensor::<2>::from_data(TensorData::new(vec![1.0f32, 0.015625], [1, 2]), (&device, DType::F32));
            let x = x.cast(dtype);
            let tied = to_array(linear.forward(x.clone(), &mut Tape::off())).unwrap();
            assert_eq!(tied[[0, 0]], tied[[0, 1]], "{dtype:?}");
            let columns = Tensor::<1, Int>::from_data(TensorData::new(vec![0i64, 1], [2]), &device);
            let weight = linear.weight.val().select(1, columns.clone());
            let classes = linear.forward_with(weight, x, Some(&columns), &mut Tape::off());
            assert_eq!(classes.dtype(), DType::F32);
            let classes = to_array(classes).unwrap();
            assert_eq!(classes[[0, 1]] - classes[[0, 0]], 2f64.powi(-12), "{dtype:?}");
        }
    }
}
