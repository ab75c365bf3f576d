//! How text is generated.

use crate::error::{Error, Result};
use crate::setters::setters;
use serde::{Deserialize, Serialize};

/// How text is generated: the names, meanings and order of transformers' `generate`.
///
/// The next token is the likeliest one (`greedy`), or is drawn. Before either, the logit `f` of every token that the prompt or the answer
/// has already is divided by the repetition penalty where `f > 0`, and multiplied by it elsewhere (Keskar et al. 2019, arXiv 1909.05858).
/// Before a draw, in this order:
///
/// 1. `f ← f / temperature`
/// 2. `top_k`: tokens below the k-th largest f are left out; those equal to it stay
/// 3. `top_p`: the least likely tokens are left out as long as their probabilities sum to at most `1 − top_p` (Holtzman et al. 2020, arXiv
///    1904.09751)
/// 4. `min_p`: tokens of a probability below `min_p` times that of the likeliest are left out (Nguyen et al. 2024, arXiv 2407.01082)
///
/// With several draws of an adapter the penalty is of each draw's logits, and the rest of `f = log p̄`, p̄ being the average of the draws'
/// probabilities.
///
/// ```
/// use bayes_lora::generate::GenerationConfig;
///
/// let config = GenerationConfig::default().with_greedy(false).with_temperature(0.7).with_top_p(0.9).with_stop(["\n\n"]);
/// assert!(config.validate().is_ok());
/// let error = config.with_top_p(1.5).validate().unwrap_err();
/// assert_eq!(error.to_string(), "top_p: must be in (0, 1], got 1.5");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct GenerationConfig {
    /// Most tokens of an answer, at least 1; `None` for as many as the context holds.
    pub max_new_tokens: Option<usize>,
    /// The likeliest token each time, of equals the first; otherwise a drawn one.
    pub greedy: bool,
    /// Positive; 1 changes nothing.
    pub temperature: f64,
    /// At least 1; `None` leaves nothing out.
    pub top_k: Option<usize>,
    /// In (0, 1]; 1 leaves nothing out.
    pub top_p: f64,
    /// In [0, 1]; 0 leaves nothing out.
    pub min_p: f64,
    /// Positive; 1 changes nothing.
    pub repetition_penalty: f64,
    /// Texts before which an answer ends, wherever tokens begin and end; they are not part of it.
    pub stop: Vec<String>,
    /// Tokens behind which an answer ends; `None` for the tokenizer's own. They are no part of its text.
    pub end_tokens: Option<Vec<u32>>,
    /// A drawn token is a function of this, the prompt's key, the number of the answer and the token's place in it.
    pub seed: u64,
    /// Prompts that are answered at once.
    pub batch_size: usize,
}

impl Default for GenerationConfig {
    /// The likeliest tokens, at most 256, up to the tokenizer's end token; eight prompts at once.
    fn default() -> Self {
        Self {
            max_new_tokens: Some(256),
            greedy: true,
            temperature: 1.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            stop: Vec::new(),
            end_tokens: None,
            seed: 0,
            batch_size: 8,
        }
    }
}

impl GenerationConfig {
    setters! {
        /// Sets the most tokens of an answer.
        with_max_new_tokens(max_new_tokens: impl Into<Option<usize>>);
        /// Sets whether the likeliest token is taken each time.
        with_greedy(greedy: bool);
        /// Sets the temperature.
        with_temperature(temperature: f64);
        /// Sets how many of the likeliest tokens may be drawn.
        with_top_k(top_k: impl Into<Option<usize>>);
        /// Sets the probability of the tokens that may be drawn.
        with_top_p(top_p: f64);
        /// Sets the least probability of a token that may be drawn, as a share of the largest.
        with_min_p(min_p: f64);
        /// Sets the penalty of tokens that are there already.
        with_repetition_penalty(repetition_penalty: f64);
        /// Sets the tokens behind which an answer ends.
        with_end_tokens(end_tokens: impl Into<Option<Vec<u32>>>);
        /// Sets the seed of drawn tokens.
        with_seed(seed: u64);
        /// Sets how many prompts are answered at once.
        with_batch_size(batch_size: usize);
    }

    /// Sets the texts before which an answer ends.
    pub fn with_stop<S: Into<String>>(mut self, stop: impl IntoIterator<Item = S>) -> Self {
        self.stop = stop.into_iter().map(Into::into).collect();
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        let counts =
            [("max_new_tokens", self.max_new_tokens), ("top_k", self.top_k), ("batch_size", Some(self.batch_size))];
        if let Some((field, _)) = counts.into_iter().find(|(_, value)| *value == Some(0)) {
            return Err(Error::config(field, "at least 1", 0));
        }
        for (field, value) in [("temperature", self.temperature), ("repetition_penalty", self.repetition_penalty)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::config(field, "positive and finite", value));
            }
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Error::config("top_p", "in (0, 1]", self.top_p));
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return Err(Error::config("min_p", "in [0, 1]", self.min_p));
        }
        match self.stop.iter().position(String::is_empty) {
            Some(index) => Err(Error::empty(format!("stop string {index}"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_out_of_its_bounds_is_named_with_its_value() {
        let plain = GenerationConfig::default;
        assert!(plain().validate().is_ok());
        for (config, parts) in [
            (plain().with_max_new_tokens(0), ["max_new_tokens", "got 0"]),
            (plain().with_top_k(0), ["top_k", "got 0"]),
            (plain().with_batch_size(0), ["batch_size", "got 0"]),
            (plain().with_temperature(0.0), ["temperature", "got 0"]),
            (plain().with_temperature(f64::NAN), ["temperature", "NaN"]),
            (plain().with_repetition_penalty(-1.0), ["repetition_penalty", "got -1"]),
            (plain().with_top_p(0.0), ["top_p", "(0, 1]"]),
            (plain().with_min_p(1.5), ["min_p", "got 1.5"]),
            (plain().with_stop(["a", ""]), ["stop string 1", "empty"]),
        ] {
            let error = config.validate().unwrap_err().to_string();
            parts.iter().for_each(|part| assert!(error.contains(part), "{error} lacks {part}"));
        }
    }
}
