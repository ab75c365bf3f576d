//! Says which linears are adapted and how, in PEFT's words.

use super::targets::{OneOrMany, TargetModules, in_layers, is_kept_from_adapters, is_saved_whole, key_matches};
use super::whole_numbers::{whole_as_integer, wholes_as_integers};
use crate::error::{Error, Result};
use crate::setters::setters;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Rank, scale and targets of an adapter; serde reads and writes PEFT's field names.
///
/// Where several keys of a pattern match a path, the first in sorted order counts; PEFT writes its files sorted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LoraConfig {
    /// Rank r of the update.
    #[serde(rename = "r", alias = "rank")]
    pub rank: usize,
    /// Numerator α of the scale `s = α/r` (rsLoRA: `α/√r`).
    #[serde(rename = "lora_alpha", alias = "alpha", serialize_with = "whole_as_integer")]
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
    #[serde(default, serialize_with = "wholes_as_integers")]
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Layers that are adapted, where modules are targeted by a suffix of their path; `None` or an empty list for all. A
    /// module that is targeted by its whole path is adapted wherever it lies.
    #[serde(default)]
    pub layers_to_transform: Option<OneOrMany<i64>>,
    /// What stands before the layer's number in a path, as regular expressions: `layers` in `model.layers.3.mlp`. `None` or
    /// empty for any word.
    #[serde(default)]
    pub layers_pattern: Option<OneOrMany<String>>,
    /// Which of the base's biases were trained with the adapter and are in its files.
    #[serde(default)]
    pub bias: TrainedBiases,
    /// Modules, by any end of their path, that were trained whole beside the adapter and are in its files, such as a head, the
    /// embedding or norms. They carry no adapter.
    #[serde(default)]
    pub modules_to_save: Option<Vec<String>>,
    /// True if a head that is tied to the embedding stays so where one of them is among `modules_to_save`; otherwise each is
    /// trained for itself, and the other keeps the base's weight.
    #[serde(default)]
    pub ensure_weight_tying: bool,
    /// True if the base's weights are stored `[d_in, d_out]` in Python. A and B have the same shapes and meaning either way,
    /// so that it changes nothing here but is kept for the files.
    #[serde(default)]
    pub fan_in_fan_out: bool,
    /// What PEFT wraps the model for: `CAUSAL_LM`, `SEQ_CLS` or another of its names.
    #[serde(default)]
    pub task_type: Option<String>,
    /// The class that PEFT wrapped, which it notes where there is no task type. Kept for the files.
    #[serde(default)]
    pub auto_mapping: Option<Value>,
    /// The module that PEFT wrapped: `model` for an adapter of transformers' `AutoModel`, whose paths begin inside it. Empty for
    /// the whole model. It is in the names of the tensors, not in the configuration's file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub root: String,
    /// True if the adapter's files have an embedding or a head that `modules_to_save` does not list: PEFT saves them by itself
    /// where it resized them, or where `save_pretrained` is asked to. It is in the tensors, not in the configuration's file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub save_embedding_layers: bool,
}

/// Which biases of the base an adapter brings with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainedBiases {
    /// None.
    #[default]
    None,
    /// Those of all linears.
    All,
    /// Those of the adapted linears.
    LoraOnly,
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
            layers_to_transform: None,
            layers_pattern: None,
            bias: TrainedBiases::None,
            modules_to_save: None,
            ensure_weight_tying: false,
            fan_in_fan_out: false,
            task_type: Some("CAUSAL_LM".into()),
            auto_mapping: None,
            root: String::new(),
            save_embedding_layers: false,
        }
    }

    setters! {
        /// Sets the rank; α stays.
        with_rank(rank: usize);
        /// Sets α.
        with_alpha(alpha: f64);
        /// Sets the dropout probability of A's inputs.
        with_dropout(dropout: f64);
        /// Sets the modules left alone although targeted.
        with_exclude_modules(exclude_modules: impl Into<Option<TargetModules>>);
        /// Says whether to scale by `α/√r`.
        with_use_rslora(use_rslora: bool);
        /// Sets ranks by pattern.
        with_rank_pattern(rank_pattern: BTreeMap<String, usize>);
        /// Sets α by pattern.
        with_alpha_pattern(alpha_pattern: BTreeMap<String, f64>);
        /// Sets what stands before a layer's number in a path.
        with_layers_pattern(layers_pattern: impl Into<Option<OneOrMany<String>>>);
        /// Sets which biases were trained with the adapter.
        with_bias(bias: TrainedBiases);
        /// Sets the modules that were trained whole.
        with_modules_to_save(modules_to_save: impl Into<Option<Vec<String>>>);
        /// Says whether a tied head stays tied.
        with_ensure_weight_tying(ensure_weight_tying: bool);
        /// Says whether Python stores the base's weights `[d_in, d_out]`.
        with_fan_in_fan_out(fan_in_fan_out: bool);
        /// Sets what PEFT wraps the model for.
        with_task_type(task_type: impl Into<Option<String>>);
        /// Sets the class that PEFT wrapped.
        with_auto_mapping(auto_mapping: impl Into<Option<Value>>);
        /// Sets the path of the module that PEFT wrapped.
        with_root(root: impl Into<String>);
        /// Says whether embedding or head are saved though not listed.
        with_save_embedding_layers(save_embedding_layers: bool);
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

    /// Adapts these layers only; the targets must be names.
    pub fn with_layers_to_transform(mut self, layers: impl IntoIterator<Item = i64>) -> Self {
        self.layers_to_transform = Some(OneOrMany::Many(layers.into_iter().collect()));
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
        for (key, rank) in &self.rank_pattern {
            let field = format!("rank_pattern[{key}]");
            key_matches(&field, key, "")?;
            if *rank == 0 {
                return Err(Error::config(field, "at least 1", rank));
            }
        }
        for key in self.alpha_pattern.keys() {
            key_matches(&format!("alpha_pattern[{key}]"), key, "")?;
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
        self.target_modules.matches("", false)?;
        if let Some(exclude) = &self.exclude_modules {
            exclude.names("exclude_modules", "")?;
        }
        for name in self.modules_to_save.iter().flatten() {
            is_kept_from_adapters("", name)?;
        }
        self.validate_layers()?;
        if self.fan_in_fan_out && self.modules_to_save.as_ref().is_some_and(|names| !names.is_empty()) {
            // a square weight would not show whether it lies as `[d_in, d_out]` or as `[d_out, d_in]`
            return Err(Error::config("fan_in_fan_out", "false where modules_to_save names modules", true));
        }
        Ok(())
    }

    /// PEFT's own conditions on the two fields.
    fn validate_layers(&self) -> Result<()> {
        let patterns = self.layers_pattern.as_ref();
        let given = [
            ("layers_to_transform", self.layers_to_transform.as_ref().map(|layers| format!("{:?}", layers.as_slice()))),
            ("layers_pattern", patterns.map(|patterns| format!("{:?}", patterns.as_slice()))),
        ];
        if let TargetModules::Pattern(_) = &self.target_modules
            && let Some((field, Some(found))) = given.iter().find(|(_, value)| value.is_some())
        {
            return Err(Error::config(*field, "unset where target_modules is no list of names", found));
        }
        let named = self.layer_patterns();
        if !named.is_empty() && self.layers_to_transform.is_none() {
            return Err(Error::config("layers_pattern", "unset without layers_to_transform", format!("{named:?}")));
        }
        in_layers("", &[0], named).map(|_| ())
    }

    /// An empty text is no pattern, as in PEFT.
    fn layer_patterns(&self) -> &[String] {
        match &self.layers_pattern {
            Some(OneOrMany::One(pattern)) if pattern.is_empty() => &[],
            Some(patterns) => patterns.as_slice(),
            None => &[],
        }
    }

    /// The path as PEFT has it, from the module on that it wrapped; `None` outside.
    pub(super) fn inside<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.root.as_str() {
            "" => Some(path),
            root => path.strip_prefix(root)?.strip_prefix('.'),
        }
    }

    /// True if the module at `path` is adapted.
    ///
    /// # Errors
    /// If a pattern is no regular expression of Python's, or takes too many steps.
    pub fn targets(&self, path: &str, is_head: bool) -> Result<bool> {
        let Some(path) = self.inside(path) else { return Ok(false) };
        if let Some(exclude) = &self.exclude_modules
            && exclude.names("exclude_modules", path)?
        {
            return Ok(false);
        }
        for name in self.modules_to_save.iter().flatten() {
            if is_saved_whole(path, name) || is_kept_from_adapters(path, name)? {
                return Ok(false);
            }
        }
        if !self.target_modules.matches(path, is_head)? {
            return Ok(false);
        }
        match (&self.target_modules, &self.layers_to_transform) {
            (TargetModules::Names(names), Some(layers)) if !names.iter().any(|name| name == path) => {
                in_layers(path, layers.as_slice(), self.layer_patterns())
            }
            _ => Ok(true),
        }
    }

    /// True if the module at `path` is, or lies in, one of `modules_to_save`.
    pub fn saves_whole(&self, path: &str) -> bool {
        let Some(path) = self.inside(path) else { return false };
        self.modules_to_save.iter().flatten().any(|name| is_saved_whole(path, name))
    }

    /// Rank at `path`, by `rank_pattern` or the common rank.
    ///
    /// # Errors
    /// As [`LoraConfig::targets`].
    pub fn rank_at(&self, path: &str) -> Result<usize> {
        Ok(self.lookup("rank_pattern", &self.rank_pattern, path)?.copied().unwrap_or(self.rank))
    }

    /// The scale `s` at `path`: `α/r`, or `α/√r` with rsLoRA.
    ///
    /// # Errors
    /// As [`LoraConfig::targets`].
    pub fn scale(&self, path: &str) -> Result<f64> {
        let alpha = self.lookup("alpha_pattern", &self.alpha_pattern, path)?.copied().unwrap_or(self.alpha);
        let rank = self.rank_at(path)? as f64;
        Ok(if self.use_rslora { alpha / rank.sqrt() } else { alpha / rank })
    }

    /// The value of the first key that matches.
    fn lookup<'a, T>(&self, field: &str, patterns: &'a BTreeMap<String, T>, path: &str) -> Result<Option<&'a T>> {
        let path = self.inside(path).unwrap_or(path);
        for (key, value) in patterns {
            if key_matches(&format!("{field}[{key}]"), key, path)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_scales_follow_their_patterns() {
        let mut config = LoraConfig::new(8).with_alpha(16.0);
        config.rank_pattern.insert("layers.1.self_attn.q_proj".into(), 4);
        config.alpha_pattern.insert("v_proj".into(), 32.0);
        assert_eq!(config.scale("model.layers.0.self_attn.q_proj").unwrap(), 2.0);
        assert_eq!(config.scale("model.layers.1.self_attn.q_proj").unwrap(), 4.0);
        assert_eq!(config.scale("model.layers.0.self_attn.v_proj").unwrap(), 4.0);
        config.use_rslora = true;
        assert_eq!(config.scale("model.layers.1.self_attn.q_proj").unwrap(), 8.0);
    }

    #[test]
    fn peft_field_names_are_read() {
        let json = r#"{"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": ["q_proj"]}"#;
        let config: LoraConfig = serde_json::from_str(json).unwrap();
        assert_eq!((config.rank, config.alpha, config.dropout), (4, 8.0, 0.1));
    }

    #[test]
    fn a_layer_is_left_out_unless_its_module_is_named_in_full() {
        let full = "model.layers.2.self_attn.q_proj";
        let mut config = LoraConfig::new(2).with_target_modules(["q_proj", full]).with_layers_to_transform([1]);
        for (layer, expected) in [(0, false), (1, true), (2, true)] {
            let path = format!("model.layers.{layer}.self_attn.q_proj");
            assert_eq!(config.targets(&path, false).unwrap(), expected, "{path}");
        }
        config.layers_to_transform = Some(OneOrMany::Many(vec![]));
        assert!(config.targets("model.layers.0.self_attn.q_proj", false).unwrap());
    }

    #[test]
    fn a_module_that_is_saved_whole_carries_no_adapter() {
        let mut config = LoraConfig::new(2).with_target_modules(["q_proj", "lm_head"]);
        config.modules_to_save = Some(vec!["lm_head".into()]);
        assert!(config.saves_whole("lm_head") && !config.targets("lm_head", true).unwrap());
        assert!(config.targets("model.layers.0.self_attn.q_proj", false).unwrap());
    }

    #[test]
    fn paths_begin_inside_the_module_that_was_wrapped() {
        let mut config = LoraConfig { root: "model".into(), ..LoraConfig::new(2) };
        config = config.with_target_pattern(r"layers\.0\..*q_proj|lm_head");
        config.rank_pattern.insert("^layers.0.self_attn.q_proj".into(), 3);
        let q = "model.layers.0.self_attn.q_proj";
        assert!(config.targets(q, false).unwrap() && !config.targets("lm_head", true).unwrap());
        assert!(!config.targets("models.layers.0.self_attn.q_proj", false).unwrap());
        // PEFT puts `(.*\.)?` before a key, so that `^` is right for the first part of a path alone
        assert_eq!(config.rank_at(q).unwrap(), 3);
        let whole = LoraConfig { root: String::new(), ..config };
        assert!(!whole.targets(q, false).unwrap());
        assert_eq!(whole.rank_at(q).unwrap(), 2);
    }

    #[test]
    fn whole_alphas_are_written_as_integers_like_in_peft() {
        let mut config = LoraConfig::new(2).with_alpha(16.0);
        config.alpha_pattern = BTreeMap::from([("a".into(), 8.0), ("b".into(), 0.5)]);
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""lora_alpha":16,"#) && text.contains(r#"{"a":8,"b":0.5}"#), "{text}");
        assert_eq!(serde_json::from_str::<LoraConfig>(&text).unwrap(), config);
    }
}
