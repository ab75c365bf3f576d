//! What is peculiar to each family of decoders, a row each: a family is what its row says of one decoder.

use super::settings::{Settings, unsupported};
use crate::error::Result;

/// Which published architecture a checkpoint follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Family {
    /// Llama 1–3, SmolLM, TinyLlama and others with `model_type: llama`.
    Llama,
    /// Qwen2 and Qwen2.5: biases on the query, key and value projections.
    Qwen2,
    /// Qwen3: norms on the queries and keys of each head.
    Qwen3,
    /// Mistral: a window in every layer, or in none.
    Mistral,
    /// Ministral 3: Mistral with YaRN, and queries scaled by their position.
    Ministral3,
    /// SmolLM3: every fourth layer does not rotate.
    SmolLm3,
    /// OLMo 2: norms behind attention and MLP, and on whole queries and keys.
    Olmo2,
    /// OLMo 3: OLMo 2 with a window in three of four layers.
    Olmo3,
    /// Granite 3: four multipliers.
    Granite,
    /// Phi-3 and Phi-4: fused projections, part of each head rotates.
    Phi3,
    /// Gemma 2: norms before and behind, capped scores and logits, a window in every second layer.
    Gemma2,
    /// Gemma 3, its language model: norms on queries and keys, a window and a rotation of its own in five of six layers.
    Gemma3,
}

/// Where a block has norms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NormPlacement {
    /// Before attention and MLP.
    Before,
    /// Behind them, before the residual is added.
    Behind,
    /// Both.
    Around,
}

/// What a norm multiplies by, and in which element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NormKind {
    /// `γ`, after the norm has been rounded to the model's element type.
    Gain,
    /// `γ`, before it is.
    WideGain,
    /// `1 + γ`, before it is.
    OnePlusGain,
}

/// Norms on queries and keys, before they rotate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueryKeyNorms {
    None,
    /// Over each head's width.
    EachHead,
    /// Over the width of all heads.
    AllHeads,
}

/// Which projections of attention have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttentionBias {
    Never,
    /// All four where `attention_bias` says so.
    Asked,
    /// Query, key and value always, the output never.
    QueryKeyValue,
}

/// Which layers look back over a window only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Windows {
    Never,
    /// All, where `sliding_window` is a number.
    Always,
    /// With `use_sliding_window` those from `max_window_layers` on, or as `layer_types` says.
    Switched,
    /// With `use_sliding_window` those that do not rotate, or as `layer_types` says.
    Unrotated,
    /// All but every n-th, where `key` or `layer_types` do not say otherwise.
    AllButEvery {
        n: usize,
        key: Option<&'static str>,
    },
}

/// Rotation that sliding layers have for themselves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SlidingTheta {
    pub(super) default: f64,
    /// Where the older spelling says it.
    pub(super) key: Option<&'static str>,
}

/// Which numbers beside the weights the logits depend on, with their defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Factors {
    None,
    /// Granite's four.
    Multipliers,
    /// Queries by `q^(−1/2)`, embeddings by the root of their width; caps of scores (where there is one) and of logits.
    Gemma {
        score_cap: Option<f64>,
        logit_cap: Option<f64>,
    },
    /// `llama_4_scaling_beta` among the rotary settings.
    Positions,
}

/// A family's row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Traits {
    pub(super) family: Family,
    pub(super) model_type: &'static str,
    /// transformers' class of one with a head for classes, where it has one.
    pub(super) classifier: Option<&'static str>,
    pub(super) norms: NormPlacement,
    pub(super) norm_kind: NormKind,
    pub(super) query_key_norms: QueryKeyNorms,
    /// Query, key and value are one linear, gate and up another.
    pub(super) fused: bool,
    pub(super) attention_bias: AttentionBias,
    /// `mlp_bias` is heard.
    pub(super) mlp_bias: bool,
    /// The key and default of the MLP's activation.
    pub(super) activation: (&'static str, &'static str),
    pub(super) windows: Windows,
    /// `sliding_window` where it is absent.
    pub(super) window: Option<usize>,
    /// One layer in so many does not rotate, where `no_rope_layers` and `no_rope_layer_interval` are absent.
    pub(super) unrotated_every: Option<usize>,
    /// `tie_word_embeddings` where it is absent.
    pub(super) tied: bool,
    /// `head_dim` where it is absent; else the width divided by the heads.
    pub(super) head_dim: Option<usize>,
    /// `rope_theta` where it is absent.
    pub(super) theta: f64,
    pub(super) sliding_theta: Option<SlidingTheta>,
    /// `partial_rotary_factor` is heard.
    pub(super) partial: bool,
    pub(super) factors: Factors,
    /// What else transformers takes where it is absent: files of larger models leave it out.
    pub(super) absent: &'static [(&'static str, f64)],
}

const LLAMA: Traits = Traits {
    family: Family::Llama,
    model_type: "llama",
    classifier: Some("LlamaForSequenceClassification"),
    norms: NormPlacement::Before,
    norm_kind: NormKind::Gain,
    query_key_norms: QueryKeyNorms::None,
    fused: false,
    attention_bias: AttentionBias::Asked,
    mlp_bias: true,
    activation: ("hidden_act", "silu"),
    windows: Windows::Never,
    window: None,
    unrotated_every: None,
    tied: false,
    head_dim: None,
    theta: 10_000.0,
    sliding_theta: None,
    partial: false,
    factors: Factors::None,
    absent: &[],
};

const QWEN2: Traits = Traits {
    family: Family::Qwen2,
    model_type: "qwen2",
    classifier: Some("Qwen2ForSequenceClassification"),
    attention_bias: AttentionBias::QueryKeyValue,
    mlp_bias: false,
    windows: Windows::Switched,
    window: Some(4096),
    absent: &[("num_key_value_heads", 32.0)],
    ..LLAMA
};

const QWEN3: Traits = Traits {
    family: Family::Qwen3,
    model_type: "qwen3",
    classifier: Some("Qwen3ForSequenceClassification"),
    query_key_norms: QueryKeyNorms::EachHead,
    attention_bias: AttentionBias::Asked,
    head_dim: Some(128),
    ..QWEN2
};

const MISTRAL: Traits = Traits {
    family: Family::Mistral,
    model_type: "mistral",
    classifier: Some("MistralForSequenceClassification"),
    attention_bias: AttentionBias::Never,
    mlp_bias: false,
    windows: Windows::Always,
    window: Some(4096),
    absent: &[("num_key_value_heads", 8.0)],
    ..LLAMA
};

const MINISTRAL3: Traits = Traits {
    family: Family::Ministral3,
    model_type: "ministral3",
    classifier: Some("Ministral3ForSequenceClassification"),
    window: None,
    head_dim: Some(128),
    factors: Factors::Positions,
    ..MISTRAL
};

const SMOLLM3: Traits = Traits {
    family: Family::SmolLm3,
    model_type: "smollm3",
    classifier: Some("SmolLM3ForSequenceClassification"),
    windows: Windows::Unrotated,
    unrotated_every: Some(4),
    tied: true,
    theta: 2_000_000.0,
    ..LLAMA
};

const OLMO2: Traits = Traits {
    family: Family::Olmo2,
    model_type: "olmo2",
    classifier: Some("Olmo2ForSequenceClassification"),
    norms: NormPlacement::Behind,
    norm_kind: NormKind::WideGain,
    query_key_norms: QueryKeyNorms::AllHeads,
    mlp_bias: false,
    ..LLAMA
};

const OLMO3: Traits = Traits {
    family: Family::Olmo3,
    model_type: "olmo3",
    classifier: Some("Olmo3ForSequenceClassification"),
    windows: Windows::AllButEvery { n: 4, key: None },
    window: Some(4096),
    theta: 500_000.0,
    sliding_theta: Some(SlidingTheta { default: 500_000.0, key: None }),
    ..OLMO2
};

const GRANITE: Traits =
    Traits { family: Family::Granite, model_type: "granite", classifier: None, factors: Factors::Multipliers, ..LLAMA };

const PHI3: Traits = Traits {
    family: Family::Phi3,
    model_type: "phi3",
    classifier: Some("Phi3ForSequenceClassification"),
    fused: true,
    attention_bias: AttentionBias::Never,
    mlp_bias: false,
    windows: Windows::Always,
    partial: true,
    ..LLAMA
};

const GEMMA2: Traits = Traits {
    family: Family::Gemma2,
    model_type: "gemma2",
    classifier: Some("Gemma2ForSequenceClassification"),
    norms: NormPlacement::Around,
    norm_kind: NormKind::OnePlusGain,
    mlp_bias: false,
    activation: ("hidden_activation", "gelu_pytorch_tanh"),
    windows: Windows::AllButEvery { n: 2, key: None },
    window: Some(4096),
    tied: true,
    head_dim: Some(256),
    factors: Factors::Gemma { score_cap: Some(50.0), logit_cap: Some(30.0) },
    ..LLAMA
};

const GEMMA3: Traits = Traits {
    family: Family::Gemma3,
    model_type: "gemma3_text",
    classifier: Some("Gemma3TextForSequenceClassification"),
    query_key_norms: QueryKeyNorms::EachHead,
    windows: Windows::AllButEvery { n: 6, key: Some("sliding_window_pattern") },
    theta: 1_000_000.0,
    sliding_theta: Some(SlidingTheta { default: 10_000.0, key: Some("rope_local_base_freq") }),
    factors: Factors::Gemma { score_cap: None, logit_cap: None },
    absent: &[
        ("num_attention_heads", 8.0),
        ("num_key_value_heads", 4.0),
        ("vocab_size", 262_208.0),
        ("max_position_embeddings", 131_072.0),
        ("rms_norm_eps", 1e-6),
    ],
    ..GEMMA2
};

/// Every family, in the order of [`Family`].
const FAMILIES: [Traits; 12] =
    [LLAMA, QWEN2, QWEN3, MISTRAL, MINISTRAL3, SMOLLM3, OLMO2, OLMO3, GRANITE, PHI3, GEMMA2, GEMMA3];

/// Larger models whose `text_config` is about a decoder of one of these families.
pub(super) const LARGER: [&str; 2] = ["gemma3", "mistral3"];

/// Families that look like one of these and are not: their name, and the key that says what is not computed.
const OTHERS: [(&str, &str); 14] = [
    ("mixtral", "num_local_experts"),
    ("qwen2_moe", "num_experts"),
    ("qwen3_moe", "num_experts"),
    ("qwen3_next", "linear_num_value_heads"),
    ("qwen3_5", "linear_num_value_heads"),
    ("qwen3_5_text", "linear_num_value_heads"),
    ("olmoe", "num_experts"),
    ("granitemoe", "num_local_experts"),
    ("gpt_oss", "num_local_experts"),
    ("deepseek_v2", "kv_lora_rank"),
    ("deepseek_v3", "kv_lora_rank"),
    ("gemma3n_text", "laurel_rank"),
    ("gemma4", "hidden_size_per_layer_input"),
    ("gemma4_text", "hidden_size_per_layer_input"),
];

impl Family {
    /// The family's row.
    pub(super) fn traits(self) -> &'static Traits {
        &FAMILIES[self as usize]
    }
}

impl Traits {
    /// The row of the family that `model_type` names.
    pub(super) fn of(settings: Settings<'_>) -> Result<&'static Self> {
        let found = settings.text("model_type")?.unwrap_or("(none)");
        if let Some(traits) = FAMILIES.iter().find(|traits| traits.model_type == found) {
            return Ok(traits);
        }
        let known = FAMILIES.map(|traits| traits.model_type).join(", ");
        let found = match OTHERS.iter().find(|(name, _)| *name == found) {
            Some((_, key)) => format!("{found}, which computes with `{key}`"),
            None => found.to_string(),
        };
        Err(unsupported(settings.location, "model_type", &found, &known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_its_row_and_a_name_of_its_own() {
        for (i, row) in FAMILIES.iter().enumerate() {
            assert_eq!(row.family as usize, i);
            assert_eq!(row.family.traits(), row);
            assert!(FAMILIES[..i].iter().all(|other| other.model_type != row.model_type));
            assert!(OTHERS.iter().all(|(other, _)| *other != row.model_type));
        }
    }
}
