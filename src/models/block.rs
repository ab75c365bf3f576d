//! One transformer block: attention and a gated MLP, each with its norms and a residual connection.

use super::{
    activation::GateActivation,
    attention::{Attention, Context},
    layer_values::Memory,
    norm::Norm,
    projections::Projections,
};
use crate::lora::LoraLinear;
use crate::tape::Tape;
use burn::module::Module;
use burn::tensor::Tensor;

#[derive(Module, Debug)]
pub(super) struct Block {
    /// Before and behind attention, before and behind the MLP.
    pub(super) norms: [Option<Norm>; 4],
    pub(super) attention: Attention,
    pub(super) gate_up: Projections,
    pub(super) down_proj: LoraLinear,
    #[module(skip)]
    pub(super) activation: GateActivation,
    /// Factor of what is added to the residual stream.
    #[module(skip)]
    pub(super) residual_scale: f64,
}

impl Block {
    /// Of new tokens where a cache has the keys and values of those before them.
    ///
    /// # Shapes
    /// - x: `[rows · tokens, hidden]`, or of distinct tokens; output the same, or tokens that are read.
    pub(super) fn forward(&self, x: Tensor<2>, context: &Context, mut memory: Memory, tape: &mut Tape) -> Tensor<2> {
        let [before_attention, behind_attention, before_mlp, behind_mlp] = &self.norms;
        memory.keep(|kept| kept.start = Some(x.clone()));
        let h = self.attention.forward(normed(before_attention, x.clone()), context, &mut memory, tape);
        let x = match context.read {
            Some(read) => read.pick_from_layers(x),
            None => x,
        };
        memory.keep(|kept| kept.attended = behind_attention.as_ref().map(|_| h.clone()));
        let x = self.added(x, normed(behind_attention, h));
        memory.keep(|kept| kept.middle = Some(x.clone()));
        let [gate, up] = self.gate_up.forward(normed(before_mlp, x.clone()), tape);
        let h = self.down_proj.forward(self.gated(gate, up, &mut memory), tape);
        memory.keep(|kept| kept.down = behind_mlp.as_ref().map(|_| h.clone()));
        self.added(x, normed(behind_mlp, h))
    }

    /// The activated gate times `up`.
    fn gated(&self, gate: Tensor<2>, up: Tensor<2>, memory: &mut Memory) -> Tensor<2> {
        let Memory::Values(kept) = memory else { return self.activation.of(gate) * up };
        let (open, slope) = self.activation.value(gate, true);
        kept.gated_slopes = slope.map(|slope| [slope * up.clone(), open.clone()]);
        open * up
    }

    fn added(&self, x: Tensor<2>, h: Tensor<2>) -> Tensor<2> {
        if self.residual_scale == 1.0 { x + h } else { x + h.mul_scalar(self.residual_scale) }
    }

    pub(super) fn norms(&self) -> impl Iterator<Item = &Norm> {
        self.norms.iter().chain(&self.attention.query_key_norms).flatten()
    }

    pub(super) fn norms_mut(&mut self) -> impl Iterator<Item = &mut Norm> {
        self.norms.iter_mut().chain(&mut self.attention.query_key_norms).flatten()
    }

    pub(super) fn linears(&self) -> impl Iterator<Item = &LoraLinear> {
        self.attention.inputs.linears.iter().chain(self.linears_behind_attention())
    }

    /// The linears behind attention, of which each token's output is its own.
    pub(super) fn linears_behind_attention(&self) -> impl Iterator<Item = &LoraLinear> {
        [&self.attention.o_proj].into_iter().chain(&self.gate_up.linears).chain([&self.down_proj])
    }

    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut LoraLinear> {
        let attention = self.attention.inputs.linears.iter_mut().chain([&mut self.attention.o_proj]);
        attention.chain(&mut self.gate_up.linears).chain([&mut self.down_proj])
    }
}

fn normed(norm: &Option<Norm>, x: Tensor<2>) -> Tensor<2> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}
