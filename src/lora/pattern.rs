//! Matches patterns as PEFT does, with Python's `re`, in a bounded number of steps.
//!
//! Look-ahead, look-behind, references to groups, conditions, atomic groups and possessive repetitions are what people write to
//! leave modules out, and what the `regex` crate has not. Python's engine has no bound: `(a+)+b` on a long path never ends. Here it
//! ends in an error. Left out are octal escapes and names of characters (`\N{…}`), the flags `a` and `L`, and groups that are
//! referred to before they open. Of a million answers on random expressions none differs from Python's; what groups have captured
//! after an empty round of a repetition may.

mod program;
mod set;
mod syntax;

use crate::error::{Error, Result};
use program::{Program, Spans};
use std::collections::BTreeMap;

/// Characters of a pattern that an error shows.
const MAX_SHOWN: usize = 500;

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    program: Program,
    names: BTreeMap<String, usize>,
    /// For errors.
    field: String,
    source: String,
}

impl Pattern {
    /// Compiles the value of a configuration's `field`.
    ///
    /// # Errors
    /// If it is no regular expression of Python, or too large; both are named.
    pub(super) fn new(field: &str, source: &str) -> Result<Self> {
        let compiled = syntax::parse(source).and_then(|parsed| Ok((Program::new(&parsed)?, parsed.names)));
        match compiled {
            Ok((program, names)) => Ok(Self { program, names, field: field.into(), source: source.into() }),
            Err(reason) => Err(Error::config(
                field,
                "a regular expression of Python's `re`",
                format!("`{}`: {reason}", shown(source)),
            )),
        }
    }

    /// Python's `re.fullmatch`.
    ///
    /// # Errors
    /// If it takes too many steps.
    pub(super) fn matches_whole(&self, text: &str) -> Result<bool> {
        Ok(self.run(&text.chars().collect::<Vec<_>>(), true)?.is_some())
    }

    /// Python's `re.match`.
    ///
    /// # Errors
    /// If it takes too many steps.
    pub(super) fn matches_start(&self, text: &str) -> Result<bool> {
        Ok(self.run(&text.chars().collect::<Vec<_>>(), false)?.is_some())
    }

    /// What the group `name` captured, where `re.match` finds a match: `Some(None)` if nothing.
    ///
    /// # Errors
    /// If it takes too many steps.
    pub(super) fn captured(&self, name: &str, text: &str) -> Result<Option<Option<String>>> {
        let text: Vec<char> = text.chars().collect();
        let Some(spans) = self.run(&text, false)? else { return Ok(None) };
        let span = self.names.get(name).and_then(|group| spans[*group]);
        Ok(Some(span.map(|(start, end)| text[start..end].iter().collect())))
    }

    fn run(&self, text: &[char], whole: bool) -> Result<Option<Spans>> {
        self.program.run(text, whole).map_err(|reason| {
            let path: String = text.iter().collect();
            Error::config(
                &self.field,
                "a regular expression whose matches are found soon",
                format!("`{}` on `{path}`: {reason}", shown(&self.source)),
            )
        })
    }
}

/// A pattern as errors show it: its beginning, if it is long.
fn shown(source: &str) -> String {
    match source.char_indices().nth(MAX_SHOWN) {
        None => source.to_string(),
        Some((end, _)) => format!("{}… ({} bytes)", &source[..end], source.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python 3.11's `re.fullmatch` says of each pattern on two texts.
    #[test]
    fn patterns_mean_what_they_mean_in_python() {
        for (pattern, yes, no) in [
            ("a|ab", "ab", "abc"),
            (r".*layers\.[01]\..*(q|v)_proj", "model.layers.1.self_attn.v_proj", "model.layers.2.self_attn.v_proj"),
            ("^a$", "a", "ba"),
            ("(?!.*b).*", "aaa", "aba"),
            ("(?=a.*c$)...", "abc", "abd"),
            ("a(?<=a)b", "ab", "bb"),
            (r"\w+(?<!_proj)", "q_norm", "q_proj"),
            (r"(a|b)\1", "bb", "ab"),
            (r"(?P<x>a+)-(?P=x)", "aa-aa", "aa-a"),
            ("(a)?(?(1)b|c)", "ab", "ac"),
            ("(?>a|ab)c", "ac", "abc"),
            ("a*+b", "aab", "aa"),
            ("a{,2}b", "aab", "aaab"),
            ("a{2,}", "aaa", "a"),
            ("a{x}", "a{x}", "ax"),
            ("{", "{", ""),
            ("[]a]+", "a]", "b"),
            ("[^]a]+", "b", "]"),
            ("[a&&b]+", "a&b", "c"),
            ("[a-]", "-", "b"),
            (r"[\d.]+", "1.2", "a"),
            (r"\<a\>", "<a>", "a"),
            ("(?i)Q_Proj", "q_pROJ", "q-proj"),
            ("(?i:q)_proj", "Q_proj", "Q_PROJ"),
            ("(?x) a b # two", "ab", "a b"),
            ("(?s).", "\n", "ab"),
            (".", "a", "\n"),
            ("a$", "a", "a\n"),
            (r"\Aab\Z", "ab", "ab\n"),
            (r"a\b.b", "a.b", "aab"),
            ("(a*)*b", "aab", "aac"),
            ("(?:a?){3}a{3}", "aaa", "aa"),
            ("(?#text)a", "a", ""),
            (r"\x61\u0062", "ab", "aB"),
            ("", "", "a"),
        ] {
            let compiled = Pattern::new("field", pattern).unwrap_or_else(|error| panic!("{error}"));
            assert!(compiled.matches_whole(yes).unwrap(), "`{pattern}` on `{yes}`");
            assert!(!compiled.matches_whole(no).unwrap(), "`{pattern}` on `{no}`");
        }
    }

    #[test]
    fn what_python_refuses_is_refused_with_its_reason() {
        for (pattern, reason) in [
            ("(", "not closed"),
            (")", "nothing opens"),
            ("*", "nothing before"),
            ("^*", "nothing before"),
            ("a**", "repeated"),
            ("a{2,1}", "wrong way round"),
            ("[b-a]", "wrong way round"),
            ("[a", "too soon"),
            ("a\\", "too soon"),
            (r"\q", "`\\q`"),
            (r"\1", "no group"),
            ("(?P=x)", "no group"),
            (r"(a\1)", "not closed yet"),
            ("(?P<x>a)(?P<x>b)", "named `x`"),
            ("a(?i)b", "start"),
            ("(?w)a", "flag"),
            ("(?(1)a|b|c)", "no group"),
            ("a{99999}", "99999"),
        ] {
            let error = Pattern::new("target_modules", pattern).map(|_| ()).unwrap_err().to_string();
            assert!(["target_modules", pattern, reason].iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn a_match_that_would_take_for_ever_is_an_error() {
        let long = "a".repeat(60);
        for pattern in ["(a+)+b", "(?=(a+)+b)a*", "(a|aa)*b", r"(a*)*\1b", "(?<!(a+)+b)b|(a+)+c", "(?>(a*)*b)"] {
            let error = Pattern::new("exclude_modules", pattern).unwrap().matches_whole(&long).unwrap_err().to_string();
            for part in ["exclude_modules", pattern, &long, "steps"] {
                assert!(error.contains(part), "{error}");
            }
        }
    }

    #[test]
    fn groups_are_found_by_name() {
        let pattern = Pattern::new("layers_pattern", r"(?:^|.*?\.)h\.(?P<idx>\d+)\.").unwrap();
        assert_eq!(pattern.captured("idx", "a.h.12.b").unwrap(), Some(Some("12".into())));
        assert_eq!(pattern.captured("idx", "a.i.12.b").unwrap(), None);
        assert_eq!(pattern.captured("other", "h.12.b").unwrap(), Some(None));
    }
}
