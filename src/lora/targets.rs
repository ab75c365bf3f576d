//! Chooses modules by their paths with PEFT's rules: names, patterns, and the layers they lie in.
//!
//! `check_target_module_exists` of PEFT 0.21 (`peft/tuners/tuners_utils.py`) is the reference.

use crate::error::{Error, Result};
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// Adapts every linear but the output head, whatever the letters' case.
const ALL_LINEAR: &str = "all-linear";

/// Largest compiled expression: about twenty of Unicode's `\w`. Each is compiled once for every module, and `(a{500}){500}` would
/// take a tenth of a second every time.
const MAX_EXPRESSION_BYTES: usize = 1 << 20;

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
            Self::Pattern(p) if p.eq_ignore_ascii_case(ALL_LINEAR) => Ok(!is_head),
            named => named.names("target_modules", path),
        }
    }

    /// True if `path` is among the names or is the whole of a match; no word has a meaning of its own here.
    pub(super) fn names(&self, field: &str, path: &str) -> Result<bool> {
        match self {
            Self::Names(names) => Ok(names.iter().any(|name| is_path_or_suffix(path, name))),
            Self::Pattern(p) => Ok(whole_match(field, p)?.is_match(path)),
        }
    }

    /// The names or the pattern, one at a time.
    pub(crate) fn entries(&self) -> Vec<&str> {
        match self {
            Self::Names(names) => names.iter().map(String::as_str).collect(),
            Self::Pattern(p) => vec![p],
        }
    }
}

/// A value alone or a list of them, kept as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// A value without a list around it.
    One(T),
    /// A list, which may be empty.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// The values.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

/// True if a name chosen by its suffix lies in one of `layers`; an empty list chooses all.
///
/// The layer is the first number that follows one of `patterns` in the path (`layers` in `model.layers.3.mlp`); without
/// patterns, the first number after at least two other parts.
pub(super) fn in_layers(path: &str, layers: &[i64], patterns: &[String]) -> Result<bool> {
    if layers.is_empty() {
        return Ok(true);
    }
    let of_any = [r".*?\.[^.]*\.(?P<idx>\d+)\.".to_string()];
    let of_named: Vec<String> = patterns.iter().map(|p| format!(r"(?:^|.*?\.){p}\.(?P<idx>\d+)\.")).collect();
    for pattern in if of_named.is_empty() { of_any.as_slice() } else { &of_named } {
        if let Some(found) = expression("layers_pattern", &format!("^(?:{pattern})"))?.captures(path) {
            let layer = found.name("idx").and_then(|digits| digits.as_str().parse().ok());
            return Ok(layer.is_some_and(|layer: i64| layers.contains(&layer)));
        }
    }
    Ok(false)
}

/// True if `path` is the module `name` (a path or a dotted suffix) or lies inside it.
pub(super) fn is_in_module(path: &str, name: &str) -> bool {
    let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
    ends.into_iter().any(|end| is_path_or_suffix(&path[..end], name))
}

fn is_path_or_suffix(path: &str, name: &str) -> bool {
    path == name || path.strip_suffix(name).is_some_and(|prefix| prefix.ends_with('.'))
}

/// Python's `re.fullmatch`.
pub(super) fn whole_match(field: &str, pattern: &str) -> Result<Regex> {
    expression(field, &format!("^(?:{pattern})$"))
}

/// A key of `rank_pattern` or `alpha_pattern`: it matches the path or a dotted suffix of it.
pub(super) fn suffix_match(field: &str, key: &str) -> Result<Regex> {
    expression(field, &format!(r"^(?:.*\.)?(?:{key})$"))
}

fn expression(field: &str, pattern: &str) -> Result<Regex> {
    let compiled = RegexBuilder::new(pattern).size_limit(MAX_EXPRESSION_BYTES).build();
    compiled.map_err(|e| Error::config(field, "a valid regular expression", e))
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
    fn all_linear_leaves_the_head_alone_and_means_nothing_as_an_exclusion() {
        let all = TargetModules::Pattern("All-Linear".into());
        assert!(all.matches("layers.0", false).unwrap() && !all.matches("lm_head", true).unwrap());
        assert!(!all.names("exclude_modules", "layers.0").unwrap());
    }

    /// What PEFT 0.21.2's `check_target_module_exists` answered for these paths, layers and patterns.
    #[test]
    fn layers_are_found_where_peft_finds_them() {
        let cases: [(&str, &[i64], &[&str], bool); 12] = [
            ("model.layers.1.self_attn.q_proj", &[1], &[], true),
            ("model.layers.1.self_attn.q_proj", &[0, 2], &[], false),
            ("model.layers.1.self_attn.q_proj", &[], &["h"], true),
            ("model.layers.1.self_attn.q_proj", &[1], &["layers"], true),
            ("model.layers.1.self_attn.q_proj", &[1], &["h"], false),
            ("model.layers.1.self_attn.q_proj", &[1], &["h", "layers"], true),
            ("model.layers.11.experts.1.q_proj", &[1], &[], false),
            ("model.layers.11.experts.1.q_proj", &[11], &["layers"], true),
            ("layers.1.q_proj", &[1], &[], false),
            ("layers.1.q_proj", &[1], &["layers"], true),
            ("lm_head", &[0], &[], false),
            ("model.block.3.q_proj", &[3], &["bl.ck"], true),
        ];
        for (path, layers, patterns, expected) in cases {
            let patterns: Vec<String> = patterns.iter().map(|p| p.to_string()).collect();
            assert_eq!(in_layers(path, layers, &patterns).unwrap(), expected, "{path} {layers:?} {patterns:?}");
        }
        assert!(in_layers("model.layers.1.q_proj", &[1], &["(".into()]).is_err());
    }

    #[test]
    fn a_module_holds_itself_and_what_lies_in_it() {
        for (path, name, expected) in [
            ("lm_head", "lm_head", true),
            ("model.layers.0.mlp.up_proj", "mlp", true),
            ("model.layers.0.mlp.up_proj", "layers.0", true),
            ("model.layers.0.mlp.up_proj", "proj", false),
            ("model.lm_header", "lm_head", false),
        ] {
            assert_eq!(is_in_module(path, name), expected, "{path} {name}");
        }
    }
}
