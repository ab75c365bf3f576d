//! Shortens a prompt that does not fit the context, at the cost of its body alone.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::tokens::SpannedTokens;
use crate::error::{Error, Result};

/// What to do with a prompt that is longer than the context.
///
/// Nothing is dropped unless asked for. What may be dropped are whole tokens that lie inside the body; the tokens
/// before it (BOS, a chat template's opening), the cue and a continuation stay.
///
/// ```
/// use bayes_lora::data::{AnswerForm, Encoding, PromptTemplate, Truncation};
///
/// let encoding = Encoding::new(PromptTemplate::question_area(), AnswerForm::class_tokens(["A", "B"]));
/// assert_eq!(encoding.truncation, Truncation::Refuse);
/// let encoding = encoding.with_max_tokens(512).with_truncation(Truncation::End);
/// assert_eq!(serde_json::to_string(&encoding.truncation)?, "\"end\"");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// Return an error.
    #[default]
    Refuse,
    /// Drop tokens from the beginning of the body, after BOS.
    Start,
    /// Drop tokens from the end of the body, before the cue.
    End,
}

/// The tokens that lie wholly inside `body` (a byte range of the text).
///
/// A token that straddles the end of the body belongs to the cue.
pub(crate) fn droppable(tokens: &SpannedTokens, body: &Range<usize>) -> Range<usize> {
    let inside = |span: &Option<(usize, usize)>| {
        span.is_some_and(|(start, end)| {
            // White space may have an empty span where the tokenizer trims: at the very end it may be the cue's.
            body.start <= start && end <= body.end && !(start == end && end == body.end)
        })
    };
    match tokens.spans.iter().position(inside) {
        Some(first) => {
            let n = tokens.spans[first..].iter().take_while(|s| inside(s)).count();
            first..first + n
        }
        None => 0..0,
    }
}

/// Which tokens to drop so that an item whose longest row has `longest` tokens fits `limit`; `None` when it fits.
///
/// # Errors
/// [`Error::PromptTooLong`] under [`Truncation::Refuse`], with the tokens there are; [`Error::PromptCannotShrink`] when even
/// the whole body does not suffice, with the tokens that would remain.
pub(crate) fn cut(
    item: &str,
    droppable: Range<usize>,
    longest: usize,
    limit: Option<usize>,
    truncation: Truncation,
) -> Result<Option<Range<usize>>> {
    let Some(limit) = limit.filter(|limit| longest > *limit) else {
        return Ok(None);
    };
    let (item, excess) = (item.to_owned(), longest - limit);
    if truncation == Truncation::Refuse {
        return Err(Error::PromptTooLong { item, tokens: longest, limit });
    }
    if excess > droppable.len() {
        return Err(Error::PromptCannotShrink { item, tokens: longest - droppable.len(), limit });
    }
    Ok(Some(match truncation {
        Truncation::End => droppable.end - excess..droppable.end,
        _ => droppable.start..droppable.start + excess,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spanned(spans: &[Option<(usize, usize)>]) -> SpannedTokens {
        SpannedTokens { ids: vec![0; spans.len()], spans: spans.to_vec(), tail: Vec::new() }
    }

    #[test]
    fn only_tokens_wholly_inside_the_body_may_go() {
        let tokens = spanned(&[None, Some((0, 2)), Some((2, 4)), Some((4, 6)), Some((6, 8))]);
        assert_eq!(droppable(&tokens, &(0..4)), 1..3);
        assert_eq!(droppable(&tokens, &(0..5)), 1..3, "a straddling token is the cue's");
        assert_eq!(droppable(&tokens, &(2..6)), 2..4, "a chat template's opening stays");
        assert!(droppable(&tokens, &(0..0)).is_empty());
    }

    #[test]
    fn the_named_side_is_cut_by_just_enough() {
        let by = |truncation, limit| cut("q", 1..6, 10, Some(limit), truncation);
        assert_eq!(by(Truncation::Start, 8).unwrap(), Some(1..3));
        assert_eq!(by(Truncation::End, 8).unwrap(), Some(4..6));
        assert_eq!(by(Truncation::End, 5).unwrap(), Some(1..6));
        assert_eq!(by(Truncation::Refuse, 10).unwrap(), None);
        assert_eq!(cut("q", 1..6, 10, None, Truncation::Refuse).unwrap(), None);
    }

    #[test]
    fn what_does_not_fit_names_the_item_and_both_numbers() {
        let refused = cut("q", 1..6, 10, Some(8), Truncation::Refuse);
        assert!(matches!(refused, Err(Error::PromptTooLong { tokens: 10, limit: 8, .. })));
        let fixed = cut("q", 1..6, 10, Some(4), Truncation::Start).unwrap_err();
        assert!(matches!(fixed, Error::PromptCannotShrink { tokens: 5, limit: 4, .. }));
        // what is on already is no advice
        assert!(!fixed.to_string().contains("ask for truncation"), "{fixed}");
    }
}
