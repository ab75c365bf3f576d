//! One transformer block: attention and a gated MLP, each behind an RMS norm and a residual connection.

use super::{
    activation::silu,
    attention::{Attention, Context},
};
use crate::lora::LoraLinear;
use crate::tape::Tape;
use burn::module::Module;
use burn::nn::RmsNorm;
use burn::tensor::{DType, Tensor};

#[derive(Module, Debug)]
pub(super) struct Block {
    pub(super) input_norm: RmsNorm,
    pub(super) attention: Attention,
    pub(super) mlp_norm: RmsNorm,
    pub(super) gate_proj: LoraLinear,
    pub(super) up_proj: LoraLinear,
    pub(super) down_proj: LoraLinear,
}

impl Block {
    /// # Shapes
    /// - x: `[rows · tokens, hidden]`, output the same.
    pub(super) fn forward(&self, x: Tensor<2>, context: &Context, tape: &mut Tape) -> Tensor<2> {
        let x = x.clone() + self.attention.forward(rms_norm(&self.input_norm, x), context, tape);
        let h = rms_norm(&self.mlp_norm, x.clone());
        let gate = silu(self.gate_proj.forward(h.clone(), tape));
        let up = self.up_proj.forward(h, tape);
        x + self.down_proj.forward(gate * up, tape)
    }

    /// With their names in Hugging Face's checkpoints.
    pub(super) fn norms(&self) -> [(&'static str, &RmsNorm); 2] {
        [("input_layernorm", &self.input_norm), ("post_attention_layernorm", &self.mlp_norm)]
    }

    pub(super) fn norm_mut(&mut self, name: &str) -> Option<&mut RmsNorm> {
        match name {
            "input_layernorm" => Some(&mut self.input_norm),
            "post_attention_layernorm" => Some(&mut self.mlp_norm),
            _ => None,
        }
    }

    pub(super) fn linears(&self) -> [&LoraLinear; 7] {
        let a = &self.attention;
        [&a.q_proj, &a.k_proj, &a.v_proj, &a.o_proj, &self.gate_proj, &self.up_proj, &self.down_proj]
    }

    pub(super) fn linears_mut(&mut self) -> [&mut LoraLinear; 7] {
        let a = &mut self.attention;
        [
            &mut a.q_proj,
            &mut a.k_proj,
            &mut a.v_proj,
            &mut a.o_proj,
            &mut self.gate_proj,
            &mut self.up_proj,
            &mut self.down_proj,
        ]
    }
}

/// `x / √(mean x² + ε) · γ` over the last dimension; all but the product with γ is in f32 for half precision, as in
/// transformers.
///
/// Burn's own forward averages in f32 always, which leaves an f64 model exact to 1e-8 only.
pub(super) fn rms_norm(norm: &RmsNorm, x: Tensor<2>) -> Tensor<2> {
    let dtype = x.dtype();
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let x = x.cast(wide);
    let rms = (x.clone().square().mean_dim(1) + norm.epsilon).sqrt();
    (x / rms).cast(dtype) * norm.gamma.val().unsqueeze()
}
