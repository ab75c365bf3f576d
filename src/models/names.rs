//! What the tensors of a checkpoint are called: by Hugging Face, and so in PEFT's paths and in merged models; and by llama.cpp.

use super::family::{NormPlacement, QueryKeyNorms, Traits};

/// Where a decoder's modules are, and where those of one in a larger model are.
pub(super) const ROOT: &str = "model.";
pub(super) const INNER_ROOT: &str = "model.language_model.";
/// The second in files.
pub(super) const STORED_INNER_ROOT: &str = "language_model.model.";

pub(super) const EMBEDDING: &str = "embed_tokens";
pub(super) const NORM: &str = "norm";
/// Before the number of a block.
pub(super) const LAYERS: &str = "layers.";
/// Beside the root.
pub(super) const HEAD: &str = "lm_head";
/// The head of a classifier, and its one tensor.
pub(super) const SCORE: &str = "score";
pub(super) const SCORE_WEIGHT: &str = "score.weight";
/// Parts of larger models on which no logit of a text depends.
pub(super) const NOT_OF_TEXT: [&str; 2] = ["vision_tower.", "multi_modal_projector."];

/// Names in a block: query, key and value; apart, or in one.
pub(super) const QUERY_KEY_VALUE: (&[&str], &str) =
    (&["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], "self_attn.qkv_proj");
/// Gate and up; apart, or in one.
pub(super) const GATE_UP: (&[&str], &str) = (&["mlp.gate_proj", "mlp.up_proj"], "mlp.gate_up_proj");
pub(super) const ATTENTION_OUTPUT: &str = "self_attn.o_proj";
pub(super) const DOWN: &str = "mlp.down_proj";
/// Norms of queries and keys.
pub(super) const QUERY_KEY_NORMS: [&str; 2] = ["self_attn.q_norm", "self_attn.k_norm"];

/// Where the modules of a decoder are.
pub(super) fn root(inside: bool) -> &'static str {
    if inside { INNER_ROOT } else { ROOT }
}

impl Traits {
    /// The norms before and behind attention, before and behind the MLP.
    pub(super) fn norm_names(&self) -> [Option<&'static str>; 4] {
        let (first, second) = ("input_layernorm", "post_attention_layernorm");
        let (third, fourth) = ("pre_feedforward_layernorm", "post_feedforward_layernorm");
        match self.norms {
            NormPlacement::Before => [Some(first), None, Some(second), None],
            NormPlacement::Behind => [None, Some(second), None, Some(fourth)],
            NormPlacement::Around => [Some(first), Some(second), Some(third), Some(fourth)],
        }
    }

    /// The norms of queries and keys, where there are any.
    pub(super) fn query_key_norm_names(&self) -> [Option<&'static str>; 2] {
        QUERY_KEY_NORMS.map(|name| (self.query_key_norms != QueryKeyNorms::None).then_some(name))
    }
}

/// llama.cpp's names.
#[cfg(feature = "gguf")]
pub(super) mod gguf {
    use super::Traits;

    pub(in super::super) const EMBEDDING: &str = "token_embd";
    pub(in super::super) const NORM: &str = "output_norm";
    pub(in super::super) const HEAD: &str = "output";
    /// Beside the modules.
    pub(in super::super) const ROPE_FACTORS: &str = "rope_freqs.weight";
    /// For short rows and for long ones.
    pub(in super::super) const LONG_FACTORS: [&str; 2] = ["rope_factors_short.weight", "rope_factors_long.weight"];

    const PARTS: [(&str, &str); 11] = [
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.qkv_proj", "attn_qkv"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.gate_up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    /// In the order of [`Traits::norm_names`].
    const NORMS: [&str; 4] = ["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"];

    /// The name of a tensor; one that has none keeps its own, and is then reported as missing.
    pub(in super::super) fn name(traits: &Traits, hub: &str) -> String {
        renamed(traits, hub).unwrap_or_else(|| hub.to_string())
    }

    fn renamed(traits: &Traits, hub: &str) -> Option<String> {
        let (path, kind) = hub.rsplit_once('.')?;
        let path = path.strip_prefix(super::ROOT).unwrap_or(path);
        let Some((layer, part)) = path.strip_prefix(super::LAYERS).and_then(|rest| rest.split_once('.')) else {
            let ends = [(super::EMBEDDING, EMBEDDING), (super::NORM, NORM), (super::HEAD, HEAD)];
            return ends.iter().find(|(ours, _)| *ours == path).map(|(_, name)| format!("{name}.{kind}"));
        };
        let slots = traits.norm_names().into_iter().zip(NORMS);
        let norms = slots.filter_map(|(ours, name)| Some((ours?, name)));
        let mut all = PARTS.into_iter().chain(norms);
        let (_, name) = all.find(|(ours, _)| *ours == part)?;
        Some(format!("blk.{layer}.{name}.{kind}"))
    }
}

#[cfg(all(test, feature = "gguf"))]
mod tests {
    use super::gguf::name;
    use crate::models::Family;

    #[test]
    fn every_part_of_a_block_has_its_name_in_llama_cpp() {
        let traits = Family::Llama.traits();
        for (hub, expected) in [
            ("model.layers.12.self_attn.q_proj.bias", "blk.12.attn_q.bias"),
            ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
            ("lm_head.weight", "output.weight"),
            ("model.norm.weight", "output_norm.weight"),
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("model.layers.0.self_attn.rotary.weight", "model.layers.0.self_attn.rotary.weight"),
        ] {
            assert_eq!(name(traits, hub), expected);
        }
        let around = name(Family::Gemma2.traits(), "model.layers.3.post_attention_layernorm.weight");
        assert_eq!(around, "blk.3.post_attention_norm.weight");
    }
}
