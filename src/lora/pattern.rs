//! Matches patterns as PEFT does with Python's `re`, in bounded time.
//!
//! What `regex` and Python read alike, which is most of what people write, runs in `regex`, in linear time. The rest (look-around,
//! references, conditions, flags) runs in Oniguruma with its syntax for Python, and is an error where it goes back too often. It has
//! no groups in a negated look-behind and repeats no places (`(?:^|a)?`). Some of what Python refuses has the library's meaning
//! (`a**`). Beyond ASCII, classes are the library's; `$` before a line break at the end is the end in Oniguruma alone.

use crate::error::{Error, Result};
use onig::{MatchParam, RegexOptions, Region, SearchOptions, Syntax, SyntaxOperator};
use regex::{Captures, Regex, RegexBuilder};
use std::{result, sync::LazyLock};

/// Characters of a pattern that an error shows.
const MAX_SHOWN: usize = 500;
/// Most bytes of a compiled `regex`, and its deepest nesting: `(a{500}){500}` would have 250,000 states.
const MAX_COMPILED: usize = 1 << 20;
const MAX_DEPTH: u32 = 50;
/// Most bytes and groups of a pattern for Oniguruma, whose compiler has no such bounds and takes stack for every level.
const MAX_BYTES: usize = 4096;
const MAX_GROUPS: usize = 100;
/// How often Oniguruma may go back, and the places that it may keep for it: ordinary targets take hundreds for a path, and every one
/// more of `(?=(a+)+b)` doubles them. A step may search the places, so that both bound the time.
const MAX_STEPS: u32 = 100_000;
const MAX_PLACES: u32 = 10_000;

type Compiled = LazyLock<result::Result<Regex, regex::Error>>;

/// Expressions that `regex` and Python read alike.
static READ_ALIKE: Compiled = LazyLock::new(|| {
    let set = r"\[\^?(?:\\[dw.]|[A-Za-z0-9_](?:-[A-Za-z0-9_])?|\.)+\]";
    let repeat = r"(?:(?:[*+?]|\{[0-9]{1,4}(?:,[0-9]{0,4})?\})\??)?";
    Regex::new(&format!(r"\A(?:(?:\\[dDwWsS.]|{set}|[\w./:-]|\)){repeat}|\((?:\?:|\?P<[a-z]\w*>)?|[|^$])*\z"))
});

/// What Oniguruma reads and Python does not, flags for the whole, conditions on names, and what may hide them: escapes and sets.
static UNITS: Compiled = LazyLock::new(|| {
    let foreign = r"\\[a-zA-Z&&[^abABdDfnrsStuUvwWxZ]]|\(\*|\(\?P>|\(\?\(\W";
    let (flags, name) = (r"\(\?[a-zA-Z]+\)", r"\(\?\((?<name>[^\W\d]\w*)\)");
    Regex::new(&format!(r"(?s)(?<foreign>{foreign})|(?<flags>{flags})|{name}|\\.|\[\^?\]?(?:\\.|[^\\\]])*"))
});

/// Python's `re.fullmatch` of the value of a configuration's `field`.
///
/// # Errors
/// If `source` is no regular expression of Python, too large, or takes too many steps; all are named.
pub(super) fn matches_whole(field: &str, source: &str, text: &str) -> Result<bool> {
    Ok(find(field, source, true, "", text)?.is_some())
}

/// Python's `re.match`; errors as [`matches_whole`].
pub(super) fn matches_start(field: &str, source: &str, text: &str) -> Result<bool> {
    Ok(captured(field, source, "", text)?.is_some())
}

/// What the group `name` captured, where `re.match` finds a match: `Some(None)` if nothing. Errors as [`matches_whole`].
pub(super) fn captured(field: &str, source: &str, name: &str, text: &str) -> Result<Option<Option<String>>> {
    find(field, source, false, name, text)
}

fn find(field: &str, source: &str, is_whole: bool, name: &str, text: &str) -> Result<Option<Option<String>>> {
    let invalid = |reason: String| {
        let reason = reason.lines().last().unwrap_or_default();
        Error::config(field, "a regular expression of Python's `re`", format!("`{}`: {reason}", shown(source)))
    };
    if READ_ALIKE.as_ref().is_ok_and(|alike| alike.is_match(source)) {
        let regex = linear(source, is_whole).map_err(|error| invalid(error.to_string()))?;
        return Ok(regex.captures(text).map(|all| Some(all.name(name)?.as_str().to_string())));
    }
    let regex = bounded(source).map_err(invalid)?;
    let (mut all, mut bounds) = (Region::new(), MatchParam::default());
    bounds.set_retry_limit_in_match(MAX_STEPS);
    bounds.set_match_stack_limit(MAX_PLACES);
    let whole = if is_whole { SearchOptions::SEARCH_OPTION_WHOLE_STRING } else { SearchOptions::SEARCH_OPTION_NONE };
    let found = regex.match_with_param(text, 0, whole, Some(&mut all), bounds).map_err(|error| {
        let reason = format!("it takes more than {MAX_STEPS} steps ({})", error.description());
        let value = format!("`{}` on `{text}`: {reason}", shown(source));
        Error::config(field, "a regular expression whose matches are found soon", value)
    })?;
    let mut span = None;
    regex.foreach_name(|found, groups| {
        span = span.or(groups.first().filter(|_| found == name).and_then(|group| all.pos(*group as usize)));
        true
    });
    Ok(found.map(|_| span.and_then(|(start, end)| text.get(start..end)).map(str::to_string)))
}

/// `source` alone first, because `a)(b` is an expression only where parentheses are put around it.
fn linear(source: &str, is_whole: bool) -> result::Result<Regex, regex::Error> {
    let compile = |source: &str| RegexBuilder::new(source).size_limit(MAX_COMPILED).nest_limit(MAX_DEPTH).build();
    compile(source).and_then(|_| compile(&format!(r"\A(?:{source}){}", if is_whole { r"\z" } else { "" })))
}

fn bounded(source: &str) -> result::Result<onig::Regex, String> {
    let (bytes, groups) = (source.len(), source.matches('(').count());
    if bytes > MAX_BYTES || groups > MAX_GROUPS {
        return Err(format!("its {bytes} bytes and {groups} groups are more than {MAX_BYTES} or {MAX_GROUPS}"));
    }
    let units = UNITS.as_ref().map_err(|error| error.to_string())?;
    for unit in units.captures_iter(source) {
        if let Some(found) = unit.name("foreign").or(unit.name("flags").filter(|flags| flags.start() > 0)) {
            return Err(format!("`{}` at byte {} is not known or not at the start", found.as_str(), found.start()));
        }
    }
    let spelled = units.replace_all(source, |unit: &Captures<'_>| match unit.name("name") {
        Some(name) => format!("(?(<{}>)", name.as_str()),
        None => unit[0].to_string(),
    });
    let mut syntax = *Syntax::python();
    syntax.enable_operators(SyntaxOperator::SYNTAX_OPERATOR_PLUS_POSSESSIVE_REPEAT);
    syntax.enable_operators(SyntaxOperator::SYNTAX_OPERATOR_PLUS_POSSESSIVE_INTERVAL);
    let compiled = onig::Regex::with_options(&spelled, RegexOptions::REGEX_OPTION_NONE, &syntax);
    compiled.map_err(|error| error.description().to_string())
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
            ("(?!.*b).*", "aaa", "aba"),
            ("(?=a.*c$)...", "abc", "abd"),
            (r"\w+(?<!_proj)", "q_norm", "q_proj"),
            (r"(a|b)\1", "bb", "ab"),
            (r"(?P<x>a+)-(?P=x)", "aa-aa", "aa-a"),
            ("(a)?(?(1)b|c)", "ab", "ac"),
            ("(?P<x>a)?(?(x)b|c)", "c", "ac"),
            (r"\(?(x)", "(x", "("),
            ("(?>a|ab)c", "ac", "abc"),
            ("a*+b", "aab", "aa"),
            ("a{,2}b", "aab", "aaab"),
            ("[]a]+", "a]", "b"),
            ("[a&&b]+", "a&b", "c"),
            (r"\<a\>", "<a>", "a"),
            ("(?i)Q_Proj", "q_pROJ", "q-proj"),
            ("^a$", "a", "a\n"),
            (r"\Aab\Z", "ab", "ab\n"),
            (r".*layers\.[01]\.(q|v)_proj", "a.layers.1.v_proj", "a.layers.2.v_proj"),
        ] {
            for (text, expected) in [(yes, true), (no, false)] {
                let found = matches_whole("field", pattern, text).unwrap();
                assert_eq!(found, expected, "`{pattern}` on `{text}`");
            }
        }
    }

    #[test]
    fn what_python_refuses_and_reads_otherwise_is_refused_with_its_reason() {
        let long = format!("(?=a){}", "a".repeat(4096));
        for (pattern, reason) in [
            ("(", "unclosed"),
            ("a)(b", "unopened"),
            ("^*", "repeat"),
            ("a{2,1}", "range"),
            ("(?=a)[b-a]", "range"),
            (r"\q", r"`\q` at byte 0"),
            ("(?P<x>a(?P>x)?)", "`(?P>` at byte 7"),
            (r"\1", "backref"),
            ("a(?i)b", "`(?i)` at byte 1"),
            ("(?(?=a)b|c)", "`(?(?`"),
            ("(*FAIL)", "`(*`"),
            ("(?<=a|bc)d", "look-behind"),
            (&long[..], "4101 bytes and 1 groups are more than 4096 or 100"),
        ] {
            let error = matches_start("target_modules", pattern, "a").unwrap_err().to_string();
            let pattern = pattern.get(..MAX_SHOWN).unwrap_or(pattern);
            assert!(["target_modules", pattern, reason].iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn a_match_that_would_take_for_ever_is_an_error_or_needs_no_going_back() {
        let long = "a".repeat(60);
        for pattern in ["(?=(a+)+b)a*", r"(a*)*\1b", "(?>(a*)*b)", "(?=a)((a?){1000}){1000}b"] {
            let error = matches_whole("exclude_modules", pattern, &long).unwrap_err().to_string();
            assert!(["exclude_modules", pattern, &long, "steps"].iter().all(|part| error.contains(part)), "{error}");
        }
        assert!(!matches_whole("exclude_modules", "(a+)+b", &long).unwrap());
    }

    #[test]
    fn groups_are_found_by_name_in_both_engines() {
        for more in ["", "(?!b)"] {
            let pattern = format!(r"(?:^|.*?\.)h\.(?P<idx>\d+)\.{more}");
            let found = |name, text| captured("layers_pattern", &pattern, name, text).unwrap();
            assert_eq!(found("idx", "a.h.12.c"), Some(Some("12".into())));
            assert_eq!((found("idx", "a.i.12.c"), found("other", "h.12.c")), (None, Some(None)));
        }
    }
}
