//! Rotates queries and keys by their positions.

use super::{
    distinct_tokens::DistinctTokens, indices::indices_on, read_tokens::ReadTokens, rope_scaling::RopeScaling,
    scales::PositionScale,
};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use std::f64::consts::PI;
use std::ops::Range;

/// Cosines and sines of the rotation angles, broadcast over heads.
#[derive(Debug, Clone)]
pub(super) struct Rotation {
    /// `[rows or 1, 1, tokens, pairs]`; the first `2 · pairs` of a head rotate.
    cos: Tensor<4>,
    /// `[rows or 1, 1, tokens, pairs]`
    sin: Tensor<4>,
}

/// Where the tokens of a pass are in their rows.
pub(super) struct Places<'a> {
    /// Tokens of each row in the pass, pads included.
    pub(super) tokens: usize,
    /// The first position of all: 0, but where earlier tokens are in a cache.
    pub(super) first: usize,
    /// Number of positions from there on.
    pub(super) span: usize,
    /// Position of every token behind `first`, `[rows · tokens]`; `None` where rows start at their first one.
    pub(super) positions: Option<&'a Tensor<1, Int>>,
    /// Tokens of each row, those in a cache included.
    pub(super) lengths: &'a [usize],
    /// Where pads and repeated tokens are left out of what is done token by token.
    pub(super) distinct: Option<&'a DistinctTokens>,
    /// Which tokens are read behind the last layer; all where there are none.
    pub(super) read: Option<&'a ReadTokens>,
    pub(super) device: &'a Device,
    pub(super) dtype: DType,
}

impl Places<'_> {
    /// Tokens that are read, where the others are left out behind the layers.
    pub(super) fn read_behind_layers(&self) -> Option<&ReadTokens> {
        self.read.filter(|read| !read.in_last_layer)
    }

    /// All positions.
    fn range(&self) -> Range<usize> {
        self.first..self.first + self.span
    }

    /// Rows of a table with a row for each position, `[rows or 1, 1, tokens, width]`.
    fn pick(&self, table: Vec<f64>, width: usize, index: Option<&Tensor<1, Int>>) -> Tensor<4> {
        let n = table.len() / width.max(1);
        let table = Tensor::<2>::from_data(TensorData::new(table, [n, width]), (self.device, self.dtype));
        match index {
            None => table.reshape([1, 1, self.tokens, width]),
            Some(index) => {
                let rows = index.dims()[0] / self.tokens;
                table.select(0, index.clone()).reshape([rows, 1, self.tokens, width])
            }
        }
    }

    /// The index of positions in two tables behind each other, of which the rows that are `long` read the second.
    fn in_two_tables(&self, long: &[bool]) -> Tensor<1, Int> {
        let own = |t: usize| if self.positions.is_some() { 0 } else { t };
        let start = |long: bool| if long { self.span } else { 0 };
        let index: Vec<i64> =
            long.iter().flat_map(|long| (0..self.tokens).map(move |t| (own(t) + start(*long)) as i64)).collect();
        let index = indices_on(self.device, index);
        match self.positions {
            None => index,
            Some(positions) => index + positions.clone(),
        }
    }
}

impl Rotation {
    /// Angles of the tokens of a batch where `width` elements of each head rotate.
    pub(super) fn new(theta: f64, scaling: &RopeScaling, width: usize, places: &Places) -> Self {
        let (half, size) = (width / 2, attention_factor(scaling));
        let table = |frequencies: Vec<f64>, f: fn(f64) -> f64| -> Vec<f64> {
            let row = |t: usize| frequencies.iter().map(move |w| size * f(t as f64 * w)).collect::<Vec<_>>();
            places.range().flat_map(row).collect()
        };
        let long: Vec<bool> = places.lengths.iter().map(|length| is_long(scaling, *length)).collect();
        let one = |long, f| table(inverse_frequencies(theta, scaling, width, long), f);
        let (both, index) = match long.first() {
            Some(first) if long.contains(&!first) => (true, Some(places.in_two_tables(&long))),
            _ => (false, places.positions.cloned()),
        };
        let of = |f: fn(f64) -> f64| {
            let first = one(!both && long.first() == Some(&true), f);
            let all = if both { [first, one(true, f)].concat() } else { first };
            places.pick(all, half, index.as_ref())
        };
        Self { cos: of(f64::cos), sin: of(f64::sin) }
    }

    /// `(x₁, x₂) → (x₁ cos − x₂ sin, x₂ cos + x₁ sin)` with x₁, x₂ the halves of what rotates of each head.
    ///
    /// # Shapes
    /// - x: `[rows, heads, tokens, head_dim]`, output the same.
    pub(super) fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        self.turn(x, self.sin.clone())
    }

    /// The transpose of [`Rotation::apply`], which turns back: a cotangent of what it gives to one of what it takes.
    pub(super) fn pull_back(&self, g: Tensor<4>) -> Tensor<4> {
        self.turn(g, self.sin.clone().neg())
    }

    fn turn(&self, x: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
        let (half, width) = (self.cos.dims()[3], x.dims()[3]);
        let (a, b) = (x.clone().narrow(3, 0, half), x.clone().narrow(3, half, half));
        let cos = self.cos.clone();
        let first = a.clone() * cos.clone() - b.clone() * sin.clone();
        let mut parts = vec![first, b * cos + a * sin];
        if width > 2 * half {
            parts.push(x.narrow(3, 2 * half, width - 2 * half));
        }
        Tensor::cat(parts, 3)
    }
}

/// `1 + β·ln(1 + ⌊position / context⌋)` for each query, `[rows or 1, 1, tokens, 1]`; `None` where all are 1.
pub(super) fn query_factors(scale: &PositionScale, places: &Places) -> Option<Tensor<4>> {
    if places.range().end as f64 <= scale.context {
        return None;
    }
    let factor = |t: usize| 1.0 + scale.beta * (1.0 + (t as f64 / scale.context).floor()).ln();
    Some(places.pick(places.range().map(factor).collect(), 1, places.positions))
}

/// Whether a row takes LongRoPE's other factors.
fn is_long(scaling: &RopeScaling, length: usize) -> bool {
    matches!(scaling, RopeScaling::LongRope { original_context, .. } if length as f64 > *original_context)
}

/// Whether a row that grows takes other factors than before.
pub(super) fn goes_long(scaling: &RopeScaling, before: usize, after: usize) -> bool {
    is_long(scaling, before) != is_long(scaling, after)
}

/// Of cosines and sines.
fn attention_factor(scaling: &RopeScaling) -> f64 {
    match scaling {
        RopeScaling::Yarn { attention_factor, .. } | RopeScaling::LongRope { attention_factor, .. } => {
            *attention_factor
        }
        _ => 1.0,
    }
}

/// `θ^(−2i/width)`, stretched where the config says so.
fn inverse_frequencies(theta: f64, scaling: &RopeScaling, width: usize, is_long: bool) -> Vec<f64> {
    let dim = width as f64;
    let yarn = yarn_edges(theta, scaling, dim);
    (0..width / 2)
        .map(|i| theta.powf(-2.0 * i as f64 / dim))
        .enumerate()
        .map(|(i, w)| match scaling {
            RopeScaling::None => w,
            RopeScaling::Linear { factor } => w / factor,
            RopeScaling::Factors(factors) => w / factors[i],
            RopeScaling::LongRope { short, long, .. } => w / if is_long { long[i] } else { short[i] },
            RopeScaling::Yarn { factor, .. } => {
                let (low, high) = yarn;
                let divided = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                w * (1.0 - divided + divided / factor)
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let turns = original_context * w / (2.0 * PI);
                // the edges come first: a band of no width is a step, not 0/0
                let smooth = match turns {
                    low if low < *low_freq_factor => 0.0,
                    high if high >= *high_freq_factor => 1.0,
                    between => (between - low_freq_factor) / (high_freq_factor - low_freq_factor),
                };
                w * (smooth + (1.0 - smooth) / factor)
            }
        })
        .collect()
}

/// The places among the frequencies up to which YaRN keeps them and from which on it divides them.
fn yarn_edges(theta: f64, scaling: &RopeScaling, dim: f64) -> (f64, f64) {
    let RopeScaling::Yarn { beta_fast, beta_slow, original_context, truncate, .. } = scaling else { return (0.0, 1.0) };
    let place = |turns: f64| dim * (original_context / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let (mut low, mut high) = (place(*beta_fast), place(*beta_slow));
    if *truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(dim - 1.0));
    // as transformers keeps it from 0/0
    (low, if low == high { high + 0.001 } else { high })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::DecoderConfig;

    fn frequencies(config: &DecoderConfig) -> Vec<f64> {
        inverse_frequencies(config.rope_theta, &config.rope_scaling, config.rotary_dim, false)
    }

    #[test]
    fn llama3_keeps_high_frequencies_and_divides_low_ones() {
        let text = r#"{"model_type": "llama", "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5,
            "num_attention_heads": 1, "vocab_size": 512, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0, "rope_scaling": SCALING}"#;
        let scaling = r#"{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192}"#;
        let plain = DecoderConfig::from_json(&text.replace("SCALING", "null"), "x").unwrap();
        let stretched = DecoderConfig::from_json(&text.replace("SCALING", scaling), "x").unwrap();
        let (plain, stretched) = (frequencies(&plain), frequencies(&stretched));
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
            let found = frequencies(&config);
            let close = |(a, b): (&f64, f64)| (a - b).abs() < 1e-12; // a few roundings
            assert!(found.iter().zip(expected).all(close), "{edge}: {found:?}");
        }
        // exactly at the edge, where the quotient would be 0/0: the first frequency turns 1/2π times in one position
        let edge = 1.0 / (2.0 * PI);
        let scaling =
            RopeScaling::Llama3 { factor: 4.0, low_freq_factor: edge, high_freq_factor: edge, original_context: 1.0 };
        assert_eq!(frequencies(&DecoderConfig { rope_scaling: scaling, ..config })[0], 1.0);
    }
}
