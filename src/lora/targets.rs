//! Chooses modules by their paths with PEFT's rules: names, patterns, and the layers they lie in.
//!
//! `check_target_module_exists` of PEFT 0.21 (`peft/tuners/tuners_utils.py`) is the reference.

use super::pattern::{captured, matches_start, matches_whole};
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// Adapts every linear but the output head, whatever the letters' case.
const ALL_LINEAR: &str = "all-linear";

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
    /// If the pattern is no regular expression of Python's, or takes too many steps.
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
            Self::Pattern(p) => matches_whole(field, p, path),
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
        if let Some(found) = captured("layers_pattern", pattern, "idx", path)? {
            let layer = found.and_then(|digits| digits.parse().ok());
            return Ok(layer.is_some_and(|layer: i64| layers.contains(&layer)));
        }
    }
    Ok(false)
}

/// True if the module at `path` is, or lies in, one that is saved whole as `name`: PEFT takes any end of a path for it, so that
/// `norm` is every norm of a Llama.
pub(super) fn is_saved_whole(path: &str, name: &str) -> bool {
    let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
    ends.into_iter().any(|end| path[..end].ends_with(name))
}

/// True if no adapter lies at `path` because of `name` in `modules_to_save`, which PEFT reads as a regular expression here.
pub(super) fn is_kept_from_adapters(path: &str, name: &str) -> Result<bool> {
    matches_start("modules_to_save", &format!(r"(^|.*\.){name}($|\..*)"), path)
}

/// True if a key of `rank_pattern` or `alpha_pattern` matches `path` or a dotted suffix of it.
pub(super) fn key_matches(field: &str, key: &str, path: &str) -> Result<bool> {
    matches_start(field, &format!(r"(.*\.)?({key})$"), path)
}

fn is_path_or_suffix(path: &str, name: &str) -> bool {
    path == name || path.strip_suffix(name).is_some_and(|prefix| prefix.ends_with('.'))
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

    /// What PEFT 0.21.2's `_set_trainable` and `check_target_module_exists` do with these names.
    #[test]
    fn a_name_to_save_takes_any_end_of_a_path_and_keeps_adapters_from_whole_words() {
        for (path, name, saved, kept) in [
            ("lm_head", "lm_head", true, true),
            ("lm_head", "head", true, false),
            ("model.layers.0.mlp.up_proj", "mlp", true, true),
            ("model.layers.0.mlp.up_proj", "layers.0", true, true),
            ("model.layers.0.mlp.up_proj", "up", false, false),
            ("model.layers.0.input_layernorm", "norm", true, false),
            ("model.norm", "norm", true, true),
            ("model.lm_header", "lm_head", false, false),
            ("model.layers.1.x", "layers.[01]", false, true),
        ] {
            assert_eq!(is_saved_whole(path, name), saved, "{path} {name}");
            assert_eq!(is_kept_from_adapters(path, name).unwrap(), kept, "{path} {name}");
        }
    }

    #[test]
    fn modules_are_left_out_by_look_ahead_and_found_again_by_reference() {
        let path = |layer: usize, name: &str| format!("model.layers.{layer}.self_attn.{name}");
        let matches = |pattern: &str, path: &str| TargetModules::Pattern(pattern.into()).matches(path, false).unwrap();
        let not_first = r"^(?!.*layers\.0\.).*\.(q|v)_proj$";
        assert!(matches(not_first, &path(1, "q_proj")) && !matches(not_first, &path(0, "q_proj")));
        assert!(!matches(not_first, &path(1, "k_proj")));
        assert!(matches(r".*(?<!k)_proj", &path(1, "q_proj")) && !matches(r".*(?<!k)_proj", &path(1, "k_proj")));
        assert!(matches(r".*(l).*\1f_attn.*", &path(1, "q_proj")) && !matches(r".*(m).*\1_proj", &path(1, "q_proj")));
    }

    /// The pattern of a key stands in group 2 behind group 1, both PEFT's.
    #[test]
    fn references_in_keys_count_the_groups_that_peft_adds() {
        let matches = |key: &str, path: &str| key_matches("rank_pattern", key, path).unwrap();
        assert!(matches("q_proj", "a.q_proj") && !matches("q_proj", "a.q_proj.b") && !matches("q_proj", "eq_proj"));
        assert!(matches(r"(b)\3", "a.bb") && !matches(r"(b)\1", "a.bb"));
    }
}
