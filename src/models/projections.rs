//! Projects one input in several ways, by a linear each or by one for all.

use crate::lora::LoraLinear;
use crate::tape::Tape;
use burn::module::Module;
use burn::tensor::Tensor;

/// Query, key and value, or gate and up. Fused ones are one linear with one adapter, as in PEFT.
#[derive(Module, Debug)]
pub(super) struct Projections {
    pub(super) linears: Vec<LoraLinear>,
    /// Widths of the outputs.
    #[module(skip)]
    widths: Vec<usize>,
}

impl Projections {
    /// One linear an output, or one for all of them, behind each other.
    pub(super) fn new(linears: Vec<LoraLinear>, widths: &[usize]) -> Self {
        Self { linears, widths: widths.to_vec() }
    }

    /// # Shapes
    /// - x: `[tokens, hidden]`; outputs `[tokens, width]`, N of them as the widths say
    pub(super) fn forward<const N: usize>(&self, x: Tensor<2>, tape: &mut Tape) -> [Tensor<2>; N] {
        match &*self.linears {
            [all] => {
                let all = all.forward(x, tape);
                let start = |i: usize| self.widths[..i].iter().sum();
                std::array::from_fn(|i| all.clone().narrow(1, start(i), self.widths[i]))
            }
            each => std::array::from_fn(|i| each[i].forward(x.clone(), tape)),
        }
    }
}
