//! Rotates queries and keys by their positions.

use super::{config::DecoderConfig, rope_scaling::RopeScaling};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use std::f64::consts::PI;

/// Cosines and sines of the rotation angles, broadcast over heads.
#[derive(Debug, Clone)]
pub(super) struct Rotation {
    /// `[rows or 1, 1, tokens, head_dim / 2]`
    cos: Tensor<4>,
    /// `[rows or 1, 1, tokens, head_dim / 2]`
    sin: Tensor<4>,
}

impl Rotation {
    /// Angles of tokens at positions `0..tokens`, the same for all rows, or at `positions` (`[rows · tokens]`).
    pub(super) fn new(
        config: &DecoderConfig,
        tokens: usize,
        positions: Option<&Tensor<1, Int>>,
        device: &Device,
        dtype: DType,
    ) -> Self {
        let frequencies = inverse_frequencies(config);
        let half = frequencies.len();
        let table = |f: fn(f64) -> f64| -> Tensor<2> {
            let values: Vec<f64> = (0..tokens).flat_map(|t| frequencies.iter().map(move |w| f(t as f64 * w))).collect();
            Tensor::from_data(TensorData::new(values, [tokens, half]), (device, dtype))
        };
        let place = |table: Tensor<2>| match positions {
            None => table.reshape([1, 1, tokens, half]),
            Some(index) => {
                let rows = index.dims()[0] / tokens;
                table.select(0, index.clone()).reshape([rows, 1, tokens, half])
            }
        };
        Self { cos: place(table(f64::cos)), sin: place(table(f64::sin)) }
    }

    /// `(x₁, x₂) → (x₁ cos − x₂ sin, x₂ cos + x₁ sin)` with x₁, x₂ the halves of each head.
    ///
    /// # Shapes
    /// - x: `[rows, heads, tokens, head_dim]`, output the same.
    pub(super) fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        let first = a.clone() * cos.clone() - b.clone() * sin.clone();
        let second = b * cos + a * sin;
        Tensor::cat(vec![first, second], 3)
    }
}

/// `θ^(−2i/head_dim)`, stretched where the config says so.
fn inverse_frequencies(config: &DecoderConfig) -> Vec<f64> {
    let dim = config.head_dim as f64;
    (0..config.head_dim / 2)
        .map(|i| config.rope_theta.powf(-2.0 * i as f64 / dim))
        .enumerate()
        .map(|(i, w)| match config.rope_scaling {
            RopeScaling::None => w,
            RopeScaling::Linear { factor } => w / factor,
            RopeScaling::Factors(ref factors) => w / factors[i],
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let turns = original_context * w / (2.0 * PI);
                // the edges come first: a band of no width is a step, not 0/0
                let smooth = match turns {
                    low if low < low_freq_factor => 0.0,
                    high if high >= high_freq_factor => 1.0,
                    between => (between - low_freq_factor) / (high_freq_factor - low_freq_factor),
                };
                w * (smooth + (1.0 - smooth) / factor)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_high_frequencies_and_divides_low_ones() {
        let text = r#"{"model_type": "llama", "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5,
            "num_attention_heads": 1, "vocab_size": 512, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0, "rope_scaling": SCALING}"#;
        let scaling = r#"{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192}"#;
        let plain = DecoderConfig::from_json(&text.replace("SCALING", "null"), "x").unwrap();
        let stretched = DecoderConfig::from_json(&text.replace("SCALING", scaling), "x").unwrap();
        let (plain, stretched) = (inverse_frequencies(&plain), inverse_frequencies(&stretched));
        assert_eq!(plain[0], stretched[0]);
        assert!((plain[31] / stretched[31] - 8.0).abs() < 1e-12); // one division
        assert!(plain.iter().zip(&stretched).all(|(p, s)| s <= p && *s >= p / 8.0));
    }

    #[test]
    fn a_band_of_no_width_is_a_step() {
        // with θ = (2π)² and a head of four, the frequencies are 1 and 1/2π: over 2π² positions, π turns and half a turn
        let text = r#"{"model_type": "llama", "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1,
            "num_attention_heads": 1, "vocab_size": 5, "max_position_embeddings": 9, "rms_norm_eps": 1e-5}"#;
        let config = DecoderConfig::from_json(text, "x").unwrap();
        for (edge, expected) in [(0.4, [1.0, 0.5 / PI]), (1.0, [1.0, 0.125 / PI]), (4.0, [0.25, 0.125 / PI])] {
            let scaling = RopeScaling::Llama3 {
                factor: 4.0,
                low_freq_factor: edge,
                high_freq_factor: edge,
                original_context: 2.0 * PI * PI,
            };
            let config = DecoderConfig { rope_theta: 4.0 * PI * PI, rope_scaling: scaling, ..config.clone() };
            let found = inverse_frequencies(&config);
            let close = |(a, b): (&f64, f64)| (a - b).abs() < 1e-12; // a few roundings
            assert!(found.iter().zip(expected).all(close), "{edge}: {found:?}");
        }
        // exactly at the edge, where the quotient would be 0/0: the first frequency turns 1/2π times in one position
        let edge = 1.0 / (2.0 * PI);
        let scaling =
            RopeScaling::Llama3 { factor: 4.0, low_freq_factor: edge, high_freq_factor: edge, original_context: 1.0 };
        assert_eq!(inverse_frequencies(&DecoderConfig { rope_scaling: scaling, ..config })[0], 1.0);
    }
}
