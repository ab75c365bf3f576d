//! The shapes of models that people have.

use bayes_lora::models::DecoderConfig;
use clap::ValueEnum;
use serde_json::json;

#[derive(Clone, Copy, ValueEnum)]
pub enum Size {
    /// For a try.
    Tiny,
    /// SmolLM2-135M.
    #[value(name = "135M")]
    Of135M,
    /// Llama-3.2-1B.
    #[value(name = "1B")]
    Of1B,
    /// Llama-2-7B.
    #[value(name = "7B")]
    Of7B,
}

impl Size {
    pub fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_string())
    }

    /// As `config.json` says it.
    pub fn config(self) -> bayes_lora::Result<DecoderConfig> {
        let [hidden, inner, layers, heads, keys, vocabulary] = match self {
            Self::Tiny => [64, 172, 2, 4, 2, 512],
            Self::Of135M => [576, 1536, 30, 9, 3, 49_152],
            Self::Of1B => [2048, 8192, 16, 32, 8, 128_256],
            Self::Of7B => [4096, 11_008, 32, 32, 32, 32_000],
        };
        let text = json!({
            "model_type": "llama", "hidden_act": "silu", "hidden_size": hidden, "intermediate_size": inner,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": keys, "vocab_size": vocabulary,
            "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": !matches!(self, Self::Of7B),
        });
        DecoderConfig::from_json(&text.to_string(), &self.name())
    }
}
