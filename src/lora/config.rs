//! Says which linears are adapted and how, in PEFT's words.

use crate::error::{Error, Result};
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Rank, scale and targets of an adapter; serde reads and writes PEFT's field names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank r of the update.
    #[serde(rename = "r", alias = "rank")]
    pub rank: usize,
    /// Numerator α of the scale `s = α/r` (rsLoRA: `α/√r`).
    #[serde(rename = "lora_alpha", alias = "alpha")]
    pub alpha: f64,
    /// Probability of zeroing an input element of A while training.
    #[serde(rename = "lora_dropout", alias = "dropout", default)]
    pub dropout: f64,
    /// Which modules are adapted.
    pub target_modules: TargetModules,
    /// Modules left alone although targeted.
    #[serde(default)]
    pub exclude_modules: Option<TargetModules>,
    /// Scale by `α/√r` instead of `α/r`.
    #[serde(default)]
    pub use_rslora: bool,
    /// Ranks of modules whose path ends in a match of the key.
    #[serde(default)]
    pub rank_pattern: BTreeMap<String, usize>,
    /// α of modules whose path ends in a match of the key.
    #[serde(default)]
    pub alpha_pattern: BTreeMap<String, f64>,
}

/// PEFT's two ways of naming modules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    /// Exact paths or dotted suffixes: `q_proj` is `….q_proj`, never `….eq_proj`.
    Names(Vec<String>),
    /// `"all-linear"` (every linear but the output head), or a regular expression for the whole path.
    Pattern(String),
}

impl TargetModules {
    /// True if the module at `path` is named.
    ///
    /// # Errors
    /// If the pattern is not a valid regular expression.
    pub fn matches(&self, path: &str, is_head: bool) -> Result<bool> {
        match self {
            Self::Names(names) => Ok(names.iter().any(|n| is_path_or_suffix(path, n))),
            Self::Pattern(p) if p == "all-linear" => Ok(!is_head),
            Self::Pattern(p) => Ok(whole_match(p)?.is_match(path)),
        }
    }

    /// The names or the pattern, one at a time.
    pub(super) fn entries(&self) -> Vec<&str> {
        match self {
            Self::Names(names) => names.iter().map(String::as_str).collect(),
            Self::Pattern(p) => vec![p],
        }
    }
}

fn is_path_or_suffix(path: &str, name: &str) -> bool {
    path == name || path.strip_suffix(name).is_some_and(|prefix| prefix.ends_with('.'))
}

fn whole_match(pattern: &str) -> Result<Regex> {
    Regex::new(&format!("^(?:{pattern})$"))
        .map_err(|e| Error::config("target_modules", "a valid regular expression", e))
}

impl LoraConfig {
    /// Rank r, α = 2r, no dropout, every linear but the head.
    pub fn new(rank: usize) -> Self {
        Self {
            rank,
            alpha: 2.0 * rank as f64,
            dropout: 0.0,
            target_modules: TargetModules::Pattern("all-linear".into()),
            exclude_modules: None,
            use_rslora: false,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
        }
    }

    /// Sets α.
    pub fn with_alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }

    /// Sets the dropout probability of A's inputs.
    pub fn with_dropout(mut self, dropout: f64) -> Self {
        self.dropout = dropout;
        self
    }

    /// Targets modules by exact path or dotted suffix.
    pub fn with_target_modules<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.target_modules = TargetModules::Names(names.into_iter().map(Into::into).collect());
        self
    }

    /// Targets modules by a regular expression for the whole path, or `"all-linear"`.
    pub fn with_target_pattern(mut self, pattern: impl Into<String>) -> Self {
        self.target_modules = TargetModules::Pattern(pattern.into());
        self
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        if self.rank == 0 {
            return Err(Error::config("rank", "at least 1", self.rank));
        }
        if let Some((pattern, rank)) = self.rank_pattern.iter().find(|(_, r)| **r == 0) {
            return Err(Error::config(format!("rank_pattern[{pattern}]"), "at least 1", rank));
        }
        for (field, alpha) in std::iter::once(("alpha".to_string(), self.alpha))
            .chain(self.alpha_pattern.iter().map(|(k, v)| (format!("alpha_pattern[{k}]"), *v)))
        {
            if !(alpha > 0.0 && alpha.is_finite()) {
                return Err(Error::config(field, "positive and finite", alpha));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config("dropout", "in [0, 1)", self.dropout));
        }
        if self.target_modules.entries().is_empty() {
            return Err(Error::empty("target_modules"));
        }
        Ok(())
    }

    /// True if the module at `path` is adapted.
    ///
    /// # Errors
    /// If a pattern is not a valid regular expression.
    pub fn targets(&self, path: &str, is_head: bool) -> Result<bool> {
        let excluded = match &self.exclude_modules {
            Some(exclude) => exclude.matches(path, false)?,
            None => false,
        };
        Ok(!excluded && self.target_modules.matches(path, is_head)?)
    }

    /// Rank at `path`, by `rank_pattern` or the common rank.
    pub fn rank_at(&self, path: &str) -> usize {
        lookup(&self.rank_pattern, path).copied().unwrap_or(self.rank)
    }

    /// The scale `s` at `path`: `α/r`, or `α/√r` with rsLoRA.
    pub fn scale(&self, path: &str) -> f64 {
        let alpha = lookup(&self.alpha_pattern, path).copied().unwrap_or(self.alpha);
        let rank = self.rank_at(path) as f64;
        if self.use_rslora { alpha / rank.sqrt() } else { alpha / rank }
    }
}

/// PEFT's rule for patterns: the key, a regular expression, matches the path or a dotted suffix of it.
fn lookup<'a, T>(patterns: &'a BTreeMap<String, T>, path: &str) -> Option<&'a T> {
    patterns.iter().find_map(|(key, value)| {
        let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{key})$")).ok()?;
        regex.is_match(path).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_whole_components_only() {
        let names = TargetModules::Names(vec!["q_proj".into(), "lm_head".into()]);
        assert!(names.matches("model.layers.0.self_attn.q_proj", false).unwrap());
        assert!(names.matches("lm_head", true).unwrap());
        assert!(!names.matches("model.layers.0.self_attn.eq_proj", false).unwrap());
        assert!(!names.matches("model.q_proj.inner", false).unwrap());
    }

    #[test]
    fn patterns_must_match_the_whole_path() {
        let pattern = TargetModules::Pattern(r".*layers\.[01]\..*(q|v)_proj".into());
        assert!(pattern.matches("model.layers.1.self_attn.v_proj", false).unwrap());
        assert!(!pattern.matches("model.layers.2.self_attn.v_proj", false).unwrap());
        assert!(!pattern.matches("model.layers.1.self_attn.v_proj.x", false).unwrap());
        assert!(TargetModules::Pattern("(".into()).matches("x", false).is_err());
    }

    #[test]
    fn ranks_and_scales_follow_their_patterns() {
        let mut config = LoraConfig::new(8).with_alpha(16.0);
        config.rank_pattern.insert("layers.1.self_attn.q_proj".into(), 4);
        config.alpha_pattern.insert("v_proj".into(), 32.0);
        assert_eq!(config.scale("model.layers.0.self_attn.q_proj"), 2.0);
        assert_eq!(config.scale("model.layers.1.self_attn.q_proj"), 4.0);
        assert_eq!(config.scale("model.layers.0.self_attn.v_proj"), 4.0);
        config.use_rslora = true;
        assert_eq!(config.scale("model.layers.1.self_attn.q_proj"), 8.0);
    }

    #[test]
    fn peft_field_names_are_read() {
        let json = r#"{"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": ["q_proj"]}"#;
        let config: LoraConfig = serde_json::from_str(json).unwrap();
        assert_eq!((config.rank, config.alpha, config.dropout), (4, 8.0, 0.1));
    }
}
