//! Encodes two texts as one row, by the tokenizer's own template for pairs.

use tokenizers::utils::truncation::truncate_encodings;
use tokenizers::{PostProcessor, TruncationDirection, TruncationParams, TruncationStrategy};

use super::encoded::EncodedRow;
use super::tokens::{Tokenizer, guarded};
use super::truncate::Truncation;
use crate::error::{Error, Result};

/// The row of the pair of texts of an item, and whether it was shortened: as transformers has it, with special tokens on all sides, a
/// kind for the tokens of each text, and where it is too long, without tokens of the longer text.
///
/// The library's own `encode` of a pair cuts each text to the limit before it compares their lengths (0.23.2), so that of two texts
/// beyond it the second counts as the longer one; here they are compared whole.
///
/// # Errors
/// [`Error::PromptTooLong`] and [`Error::PromptCannotShrink`]; [`Error::Tokenizer`], also for a template that begins in another way than
/// `add_bos_token` says; [`Error::Empty`] for a row without tokens.
pub(crate) fn encode_pair(
    tokenizer: &Tokenizer,
    item: &str,
    [first, second]: [&str; 2],
    (limit, truncation): (Option<usize>, Truncation),
) -> Result<(EncodedRow, bool)> {
    let (inner, location) = (&tokenizer.inner, tokenizer.location());
    let n_added = inner.get_post_processor().map_or(0, |processor| processor.added_tokens(true));
    let encode = |text: &str| guarded(location, || inner.encode(text, false));
    let (mut first, mut second) = (encode(first)?, encode(second)?);
    // what a template does not say otherwise
    second.set_type_ids(vec![1; second.len()]);
    let tokens = first.len() + second.len() + n_added;
    let too_long = limit.filter(|limit| tokens > *limit);
    if let Some(limit) = too_long {
        let item = item.to_string();
        let direction = match truncation {
            Truncation::Refuse => return Err(Error::PromptTooLong { item, tokens, limit }),
            Truncation::Start => TruncationDirection::Left,
            Truncation::End => TruncationDirection::Right,
        };
        let max_length = limit.checked_sub(n_added).filter(|left| *left > 0);
        let max_length = max_length.ok_or(Error::PromptCannotShrink { item, tokens: n_added + 1, limit })?;
        let strategy = TruncationStrategy::LongestFirst;
        let params = TruncationParams { direction, max_length, strategy, stride: 0 };
        let (a, b) = guarded(location, || truncate_encodings(first, Some(second), &params))?;
        (first, second) = (a, b.unwrap_or_default());
    }
    let encoding = guarded(location, || inner.post_process(first, Some(second), true))?;
    let ids = encoding.get_ids().to_vec();
    let Some(begin) = ids.first() else { return Err(Error::empty(format!("the pair of texts of item `{item}`"))) };
    if let (Some(add), Some(bos)) = (tokenizer.add_bos, tokenizer.bos)
        && add != (*begin == bos)
    {
        let is = if add { "does not begin" } else { "begins" };
        let reason = format!("the template for pairs {is} with token {bos}, and `add_bos_token` is {add}");
        return Err(Error::Tokenizer { location: location.to_string(), reason });
    }
    let mut types = encoding.get_type_ids().to_vec();
    if types.iter().all(|kind| *kind == 0) {
        types.clear();
    }
    Ok((EncodedRow { ids, scored: 0..0, weight: 1.0, types }, too_long.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{AnswerForm, Encoding, Item, Normalization, PromptTemplate, Task, tiny};

    fn pair() -> Task {
        Task::new("t", vec![Item::new("q", "is it", ["no", "yes"]).with_second("yes no one")]).unwrap()
    }

    fn labels() -> Encoding {
        Encoding::new(PromptTemplate::text(), AnswerForm::labels(["no", "yes"]))
    }

    #[test]
    fn a_pair_follows_the_template_of_the_file_and_is_one_row_with_kinds_of_tokens() {
        let data = labels().encode(&pair(), &tiny::words()).unwrap();
        // without a template the texts stand behind each other
        assert_eq!(
            (&data.items[0].rows[0].ids[..], &data.items[0].rows[0].types[..]),
            (&[1, 2, 3, 4, 7][..], &[0, 0, 1, 1, 1][..])
        );
        let task = Task::new("t", vec![Item::new("q", "a", ["no", "yes"]).with_second("b")]).unwrap();
        let data = labels().encode(&task, &tiny::pieces()).unwrap();
        // ▁ a ▁ b, of which the template takes the kinds and to which this one adds nothing
        assert_eq!(data.items[0].rows[0].ids, [3, 4, 3, 5]);
        assert_eq!(data.items[0].rows[0].types, [0, 0, 1, 1]);
    }

    #[test]
    fn a_pair_that_is_too_long_is_refused_or_loses_the_end_of_its_longer_text() {
        let refused = labels().with_max_tokens(4).encode(&pair(), &tiny::words()).unwrap_err();
        assert!(matches!(refused, Error::PromptTooLong { tokens: 5, limit: 4, .. }), "{refused}");
        let short =
            labels().with_max_tokens(4).with_truncation(Truncation::End).encode(&pair(), &tiny::words()).unwrap();
        assert_eq!((&short.items[0].rows[0].ids[..], short.n_truncated), (&[1, 2, 3, 4][..], 1));
        let short =
            labels().with_max_tokens(4).with_truncation(Truncation::Start).encode(&pair(), &tiny::words()).unwrap();
        assert_eq!(short.items[0].rows[0].ids, [1, 2, 4, 7]);
    }

    #[test]
    fn only_a_head_for_labels_reads_pairs() {
        for form in
            [AnswerForm::class_tokens(["no", "yes"]), AnswerForm::Continuation { normalization: Normalization::Sum }]
        {
            let error = Encoding::new(PromptTemplate::text(), form).encode(&pair(), &tiny::words()).unwrap_err();
            assert!(error.to_string().contains("`q`") && error.to_string().contains("second"), "{error}");
        }
    }
}
