//! Holds texts as token ids with the tokens that count: what a language model is trained on.

use super::batch::{BatchLimits, BatchOrder, ItemSize, plan_batches, plan_in};
use super::packing::PackedRows;
use super::tokens::Tokenizer;
use crate::draws::{Purpose, generator, place, within};
use crate::error::{Error, Result};
use crate::hash::{fnv1a, fnv1a_words};
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// One text: `x` and `y` of `p(y | x)` in one row of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextExample {
    /// Its name, such as the line that it was read from.
    pub id: String,
    /// The token ids.
    pub ids: Vec<u32>,
    /// The places in `ids` of the scored tokens, in rising ranges: each is predicted from all tokens before it. Never 0.
    pub scored: Vec<Range<usize>>,
}

impl TextExample {
    /// The places of the scored tokens, in order.
    pub fn scored_places(&self) -> impl Iterator<Item = usize> {
        self.scored.iter().flat_map(Clone::clone)
    }

    /// The number of scored tokens.
    pub fn n_scored(&self) -> usize {
        self.scored.iter().map(ExactSizeIterator::len).sum()
    }

    /// What names the text wherever it stands: its name and its tokens.
    pub(crate) fn key(&self) -> u64 {
        within(place(&self.id), fnv1a_words(self.ids.iter().map(|id| u64::from(*id))))
    }

    /// Checks that something is scored, in rising ranges of the text's own tokens, and never the first token.
    ///
    /// # Errors
    /// Names the text and the range.
    pub fn check(&self) -> Result<()> {
        let mut end = 1;
        for range in &self.scored {
            if range.start < end || range.is_empty() || range.end > self.ids.len() {
                let bound = format!("rising ranges of 1..{}", self.ids.len());
                return Err(Error::config(
                    format!("scored tokens of text `{}`", self.id),
                    bound,
                    format!("{:?}", self.scored),
                ));
            }
            end = range.end;
        }
        if self.scored.is_empty() {
            return Err(Error::empty(format!("list of scored tokens of text `{}`", self.id)));
        }
        Ok(())
    }
}

/// Texts as token ids.
///
/// ```
/// use bayes_lora::data::{TextDataset, TextExample};
///
/// let text = TextExample { id: "1".into(), ids: vec![1, 2, 3, 4, 5], scored: vec![1..3, 4..5] };
/// let data = TextDataset::new("demo", vec![text])?;
/// assert_eq!((data.len(), data.n_tokens(), data.n_scored()), (1, 5, 3));
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextDataset {
    /// A name for reports.
    pub name: String,
    /// The texts.
    pub examples: Vec<TextExample>,
    /// How many of them were cut off at the limit.
    pub n_truncated: usize,
}

impl TextDataset {
    /// Takes texts whose tokens are known.
    ///
    /// # Errors
    /// As [`TextExample::check`].
    pub fn new(name: impl Into<String>, examples: Vec<TextExample>) -> Result<Self> {
        examples.iter().try_for_each(TextExample::check)?;
        Ok(Self { name: name.into(), examples, n_truncated: 0 })
    }

    /// The number of texts.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// The number of tokens.
    pub fn n_tokens(&self) -> usize {
        self.examples.iter().map(|text| text.ids.len()).sum()
    }

    /// The number of scored tokens.
    pub fn n_scored(&self) -> usize {
        self.examples.iter().map(TextExample::n_scored).sum()
    }

    /// The length of the longest text.
    pub fn longest(&self) -> usize {
        self.examples.iter().map(|text| text.ids.len()).max().unwrap_or(0)
    }

    /// Plans the batches, texts of similar length together; see [`plan_batches`].
    ///
    /// # Errors
    /// [`Error::Config`] for a limit of 0.
    pub fn plan(&self, limits: BatchLimits, order: BatchOrder) -> Result<Vec<Vec<usize>>> {
        plan_batches(&self.sizes(), limits, order)
    }

    /// The same where several texts of a batch share a row of at most `row_tokens` ([`PackedRows`]). Texts come in the same order, so
    /// that the batches are those of [`TextDataset::plan`] unless it was `max_tokens` that ended one: packed it holds more.
    ///
    /// # Errors
    /// [`Error::Config`] for a limit of 0.
    pub fn plan_packed(&self, limits: BatchLimits, order: BatchOrder, row_tokens: usize) -> Result<Vec<Vec<usize>>> {
        plan_in(&PackedRows::new(row_tokens), &self.sizes(), limits, order)
    }

    /// The share of pads among all places of the batches of a plan, whose rows hold one text each or, packed, several in at most so many
    /// tokens.
    ///
    /// # Panics
    /// For an index beyond the texts.
    pub fn share_of_pads(&self, batches: &[Vec<usize>], row_tokens: Option<usize>) -> f64 {
        let length = |item: &usize| self.examples[*item].ids.len();
        let (mut places, mut tokens) = (0, 0);
        for batch in batches {
            // rows that hold nothing have room for one text each
            let mut rows = PackedRows::new(row_tokens.unwrap_or(0));
            batch.iter().map(length).for_each(|length| rows.push(length));
            places += rows.n_places();
            tokens += batch.iter().map(length).sum::<usize>();
        }
        if places == 0 { 0.0 } else { (places - tokens) as f64 / places as f64 }
    }

    fn sizes(&self) -> Vec<ItemSize> {
        let size =
            |text: &TextExample| ItemSize { n_rows: 1, longest: text.ids.len(), key: fnv1a(text.key().to_le_bytes()) };
        self.examples.iter().map(size).collect()
    }

    /// Splits off `n` texts, drawn by their keys and `seed`: (the others, these), each in their order.
    ///
    /// # Errors
    /// If there are not more than `n`.
    pub fn split(self, n: usize, seed: u64) -> Result<(Self, Self)> {
        if n >= self.len() {
            return Err(Error::config("texts to split off", format!("fewer than the {}", self.len()), n));
        }
        let mut order: Vec<usize> = (0..self.len()).collect();
        let draw = |&i: &usize| generator(seed, Purpose::TaskSplit, self.examples[i].key(), 0).next_u64();
        order.sort_by_cached_key(draw);
        let mut is_off = vec![false; self.len()];
        order[..n].iter().for_each(|&i| is_off[i] = true);
        let (name, n_truncated) = (self.name, self.n_truncated);
        let (off, kept): (Vec<_>, Vec<_>) = self.examples.into_iter().zip(is_off).partition(|(_, off)| *off);
        let part = |examples: Vec<(TextExample, bool)>| Self {
            name: name.clone(),
            examples: examples.into_iter().map(|(text, _)| text).collect(),
            n_truncated,
        };
        Ok((part(kept), part(off)))
    }

    /// Writes text `i` as the trainer sees it: what is scored stands in ⟦ and ⟧.
    ///
    /// # Errors
    /// [`Error::Count`] for an index beyond the texts, [`Error::Tokenizer`].
    pub fn example(&self, i: usize, tokenizer: &Tokenizer) -> Result<String> {
        let text = self.examples.get(i).ok_or_else(|| Error::Count {
            what: format!("texts of `{}` up to the example", self.name),
            expected: i.saturating_add(1),
            found: self.len(),
        })?;
        let head = format!("text `{}`: {} tokens, {} scored\n", text.id, text.ids.len(), text.n_scored());
        let mut shown = String::new();
        // decoded as a whole up to every border: a token alone may be half a character, and loses a leading space
        let (mut from, mut written) = (0, String::new());
        let mut go_to = |to: usize, mark: &str, shown: &mut String| -> Result<()> {
            let whole = tokenizer.decode(&text.ids[..to])?;
            let new =
                whole.strip_prefix(&written).map_or_else(|| tokenizer.decode(&text.ids[from..to]), |t| Ok(t.into()));
            shown.push_str(&new?);
            shown.push_str(mark);
            (from, written) = (to, whole);
            Ok(())
        };
        for range in &text.scored {
            go_to(range.start, "⟦", &mut shown)?;
            go_to(range.end, "⟧", &mut shown)?;
        }
        go_to(text.ids.len(), "\n", &mut shown)?;
        Ok(head + &shown)
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a text may have one range of scored tokens")]
mod tests {
    use super::*;
    use crate::data::tiny;

    fn text(id: &str, ids: &[u32], scored: &[Range<usize>]) -> TextExample {
        TextExample { id: id.into(), ids: ids.to_vec(), scored: scored.to_vec() }
    }

    #[test]
    fn what_cannot_be_scored_is_refused_with_the_text_and_the_ranges() {
        for scored in [&[0..2][..], &[2..2], &[1..4], &[2..3, 1..2], &[1..2, 1..3]] {
            let error = TextDataset::new("t", vec![text("q7", &[1, 2, 3], scored)]).unwrap_err().to_string();
            assert!(error.contains("`q7`") && error.contains("1..3"), "{error}");
        }
        assert!(TextDataset::new("t", vec![text("q7", &[1, 2, 3], &[])]).unwrap_err().to_string().contains("q7"));
        assert!(TextDataset::new("t", vec![text("q7", &[1, 2, 3], &[1..2, 2..3])]).is_ok());
    }

    #[test]
    fn an_example_shows_what_is_scored() {
        let data = TextDataset::new("t", vec![text("7", &[1, 2, 0, 3, 4, 7], &[3..4, 5..6])]).unwrap();
        let shown = data.example(0, &tiny::words()).unwrap();
        assert!(shown.starts_with("text `7`: 6 tokens, 2 scored\n"), "{shown}");
        assert!(shown.contains("is it ?⟦ yes⟧ no⟦ one⟧"), "{shown}");
        assert!(data.example(1, &tiny::words()).is_err());
    }

    #[test]
    fn packed_batches_hold_the_same_texts_in_fewer_places() {
        let lengths = [9, 2, 4, 3, 8, 2, 5, 7, 3, 2];
        let all = (0..10).map(|i| text(&i.to_string(), &vec![i as u32; lengths[i]], &[1..2])).collect();
        let data = TextDataset::new("t", all).unwrap();
        let limits = BatchLimits { max_items: 5, max_tokens: 1000 };
        for order in [BatchOrder::Sequential, BatchOrder::ByLength, BatchOrder::Shuffled { seed: 1, epoch: 3, step: 2 }]
        {
            let (apart, packed) = (data.plan(limits, order).unwrap(), data.plan_packed(limits, order, 12).unwrap());
            assert_eq!(apart, packed);
            assert!(data.share_of_pads(&packed, Some(12)) < data.share_of_pads(&apart, None));
        }
        // apart 5 rows of 9 and 5 rows of 7; packed 3 rows of 11 (9 + 2, 4 + 3, 8) and 2 rows of 12 (2 + 5 + 3 + 2, 7)
        let plan = data.plan(limits, BatchOrder::Sequential).unwrap();
        assert_eq!(data.share_of_pads(&plan, None), (80.0 - 45.0) / 80.0);
        assert_eq!(data.share_of_pads(&plan, Some(12)), (33.0 + 24.0 - 45.0) / 57.0);
        // where the tokens end a batch, packed it holds more texts
        let tight = BatchLimits { max_items: 10, max_tokens: 24 };
        let n = |packing: Option<usize>| match packing {
            None => data.plan(tight, BatchOrder::Sequential).unwrap().len(),
            Some(row) => data.plan_packed(tight, BatchOrder::Sequential, row).unwrap().len(),
        };
        assert!(n(Some(12)) < n(None));
        assert!(data.plan_packed(BatchLimits { max_items: 0, max_tokens: 1 }, BatchOrder::ByLength, 12).is_err());
    }

    #[test]
    fn a_split_is_a_function_of_the_seed_and_the_texts() {
        let all: Vec<TextExample> = (0..40).map(|i| text(&i.to_string(), &[i, i + 1], &[1..2])).collect();
        let ids = |data: &TextDataset| data.examples.iter().map(|t| t.id.clone()).collect::<Vec<_>>();
        let split = |seed| TextDataset::new("t", all.clone()).unwrap().split(10, seed).unwrap();
        let (kept, off) = split(1);
        assert_eq!((kept.len(), off.len()), (30, 10));
        assert!(ids(&off).iter().all(|id| !ids(&kept).contains(id)));
        assert_eq!(ids(&off), ids(&split(1).1));
        assert_ne!(ids(&off), ids(&split(2).1));
        assert!(TextDataset::new("t", all.clone()).unwrap().split(40, 1).is_err());
    }
}
