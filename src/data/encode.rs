//! Turns a task into token ids: by class tokens, by continuations, by labels, by rewards or by values.

use std::ops::Range;

use super::asked::Asked;
use super::chat::ChatFormat;
use super::classes::common_prefix;
use super::encoded::{EncodedDataset, EncodedItem, EncodedRow, ResolvedAnswers};
use super::encoding::{AnswerForm, Encoding, Normalization};
use super::pairs::encode_pair;
use super::preference_chats::shared;
use super::task::{Item, Task};
use super::texts::ChatTurn;
use super::tokens::{SpannedTokens, Tokenizer};
use super::truncate::{cut, droppable};
use super::wording::{PLACEHOLDER, PromptWriter, Wording};
use crate::error::{Error, Result};

impl Encoding {
    /// Encodes every item.
    ///
    /// A continuation is the prompt, one space (none after a prompt that is empty or ends in white space) and the
    /// trimmed choice, tokenised **together**. Its scored tokens begin where the ids first differ from the prompt's
    /// own: if the tokenizer merges the end of the prompt with the choice, the merged token is scored.
    ///
    /// An item of chats is a row for each, written by the model's chat template whether [`Encoding::chat`] asks for it or not; the way of asking
    /// that is remembered then has it.
    ///
    /// An item with a second text is one row for a head, by the tokenizer's own template for pairs; one that is too long loses tokens of
    /// its longer text.
    ///
    /// # Errors
    /// [`Error::Empty`] for a task without items; [`Error::Config`] for a limit of 0 or fewer than two classes;
    /// [`Error::Count`] for an item with more choices than classes; [`Error::LabelOutOfRange`];
    /// [`Error::PromptTooLong`] and [`Error::PromptCannotShrink`]; [`Error::ClassNotOneToken`] and [`Error::ClassesCollide`]; and those of the
    /// template and the tokenizer.
    pub fn encode(&self, task: &Task, tokenizer: &Tokenizer) -> Result<EncodedDataset> {
        self.check()?;
        if task.is_empty() {
            return Err(Error::empty(format!("task `{}`", task.name)));
        }
        let of_chats = task.items.iter().filter(|item| !item.chats.is_empty()).count();
        if of_chats > 0 && of_chats < task.len() && !self.chat {
            let (n, name) = (task.len(), &task.name);
            return Err(Error::Incompatible(format!(
                "{of_chats} of the {n} items of task `{name}` are chats: the others need the chat template too (`with_chat`)"
            )));
        }
        let mut encoder = Encoder {
            encoding: self,
            tokenizer,
            writer: PromptWriter::new(&self.template, tokenizer, self.chat)?,
            classes: None,
            n_truncated: 0,
        };
        let items = task.items.iter().map(|item| encoder.item(item)).collect::<Result<Vec<EncodedItem>>>()?;
        let (answers, class_tokens, n_classes) = match (encoder.classes, &self.answers) {
            (Some(resolved), _) => {
                let n_classes = resolved.ids.len();
                (ResolvedAnswers::ClassTokens(resolved.ids.clone()), resolved.ids, n_classes)
            }
            (None, AnswerForm::Labels { names }) => (ResolvedAnswers::Labels, Vec::new(), names.len()),
            (None, AnswerForm::Rewards) => (ResolvedAnswers::Rewards, Vec::new(), task.n_classes()),
            (None, AnswerForm::Value) => (ResolvedAnswers::Value, Vec::new(), 1),
            (None, _) => (ResolvedAnswers::Continuation, Vec::new(), task.n_classes()),
        };
        let asked = Some(Asked::new(self.clone().with_chat(self.chat || of_chats > 0), class_tokens, tokenizer));
        let (name, n_truncated) = (task.name.clone(), encoder.n_truncated);
        Ok(EncodedDataset { name, items, answers, n_classes, n_truncated, asked })
    }
}

/// The class tokens and the cue that they were found after.
struct ResolvedClasses {
    ids: Vec<u32>,
    cue: String,
}

struct Encoder<'a> {
    encoding: &'a Encoding,
    tokenizer: &'a Tokenizer,
    writer: PromptWriter<'a>,
    classes: Option<ResolvedClasses>,
    n_truncated: usize,
}

impl Encoder<'_> {
    fn item(&mut self, item: &Item) -> Result<EncodedItem> {
        self.encoding.check_item(item)?;
        if !item.chats.is_empty() {
            return self.chats(item);
        }
        let wording = self.writer.write(item)?;
        if let Some(second) = &item.second {
            let rows = vec![self.pair(item, &wording.text, second)?];
            return Ok(EncodedItem { id: item.id.clone(), rows, label: item.answer, n_choices: item.choices.len() });
        }
        // A chat template writes its special tokens itself.
        let add_special = !self.encoding.chat;
        let prompt = self.tokenizer.encode_with_spans(&wording.text, add_special)?;
        let body = droppable(&prompt, &wording.body);
        let rows = match &self.encoding.answers {
            AnswerForm::ClassTokens { classes } => {
                if item.choices.len() > classes.len() {
                    return Err(Error::Count {
                        what: format!("choices of item `{}`, one class token each", item.id),
                        expected: classes.len(),
                        found: item.choices.len(),
                    });
                }
                self.resolve_classes(item, &wording, classes)?;
                self.shorten(item, vec![unscored(prompt.ids)], body)?
            }
            AnswerForm::Labels { names } => {
                check_labels(item, names)?;
                self.shorten(item, vec![whole(prompt.ids, &prompt.tail)], body)?
            }
            AnswerForm::Value => self.shorten(item, vec![whole(prompt.ids, &prompt.tail)], body)?,
            AnswerForm::Continuation { normalization } => {
                let rows = self.continuations(item, &wording, &prompt, *normalization)?;
                let body = unchanged(&rows, body);
                self.shorten(item, rows, body)?
            }
            AnswerForm::Rewards => {
                let rows = self.continuations(item, &wording, &prompt, Normalization::Sum)?;
                let body = unchanged(&rows, body);
                // nothing is scored, so that the prompt may be empty
                self.shorten(item, rows.into_iter().map(|row| whole(row.ids, &prompt.tail)).collect(), body)?
            }
        };
        let n_choices = item.choices.len().max(1);
        Ok(EncodedItem { id: item.id.clone(), rows, label: item.answer, n_choices })
    }

    fn pair(&mut self, item: &Item, first: &str, second: &str) -> Result<EncodedRow> {
        let Encoding { max_tokens, truncation, .. } = *self.encoding;
        match &self.encoding.answers {
            AnswerForm::Labels { names } if !self.encoding.chat => check_labels(item, names)?,
            _ => {
                let reason = "has a `second` text, which only `AnswerForm::Labels` without a chat template asks about";
                return Err(Error::Incompatible(format!("item `{}` {reason}", item.id)));
            }
        }
        let texts = [first, second];
        let (row, is_shorter) = encode_pair(self.tokenizer, &item.id, texts, (max_tokens, truncation))?;
        self.n_truncated += usize::from(is_shorter);
        Ok(row)
    }

    /// A row for each chat, as the chat template writes it. What may be dropped are words of the last message that all chats share.
    fn chats(&mut self, item: &Item) -> Result<EncodedItem> {
        let about = || format!("item `{}`", item.id);
        if self.encoding.answers != AnswerForm::Rewards {
            let reason = "has `chats`, which only `AnswerForm::Rewards` asks about";
            return Err(Error::Incompatible(format!("{} {reason}", about())));
        }
        let format = self.tokenizer.chat_format()?;
        let texts = item.chats.iter().map(|chat| format.render_turns(chat, false)).collect::<Result<Vec<_>>>()?;
        // a chat template writes its special tokens itself
        let tokens = texts.iter().map(|text| self.tokenizer.encode_with_spans(text, false));
        let tokens = tokens.collect::<Result<Vec<SpannedTokens>>>()?;
        let (first, others) = tokens.split_first().ok_or_else(|| Error::empty(format!("the chats of {}", about())))?;
        if others.iter().any(|other| other.ids == first.ids) {
            return Err(Error::format(about(), "the chat template writes its chats as the same tokens"));
        }
        let shared = others.iter().map(|other| common_prefix(&first.ids, &other.ids)).min().unwrap_or(first.ids.len());
        let body = match last_shared_message(format, &item.chats, &texts[0])? {
            Some(bytes) => droppable(first, &bytes),
            None => 0..0,
        };
        let body = body.start.min(shared)..body.end.min(shared);
        let n_choices = tokens.len();
        let rows = self.shorten(item, tokens.into_iter().map(|tokens| unscored(tokens.ids)).collect(), body)?;
        Ok(EncodedItem { id: item.id.clone(), rows, label: item.answer, n_choices })
    }

    /// Finds the class tokens after the first prompt, and again after every prompt whose end may differ.
    fn resolve_classes(&mut self, item: &Item, wording: &Wording, classes: &[String]) -> Result<()> {
        if let Some(known) = &self.classes
            && known.cue == wording.cue
            && !wording.cue.trim().is_empty()
        {
            return Ok(());
        }
        let ids = self.tokenizer.class_tokens_after(&wording.text, classes, !self.encoding.chat)?;
        match &self.classes {
            Some(known) if known.ids != ids => Err(Error::format(
                format!("item `{}`", item.id),
                format!("its class tokens {ids:?} differ from {:?} of the items before", known.ids),
            )),
            _ => {
                self.classes = Some(ResolvedClasses { ids, cue: wording.cue.clone() });
                Ok(())
            }
        }
    }

    fn continuations(
        &self,
        item: &Item,
        wording: &Wording,
        prompt: &SpannedTokens,
        normalization: Normalization,
    ) -> Result<Vec<EncodedRow>> {
        let joined = wording.text.is_empty() || wording.text.ends_with(char::is_whitespace);
        let separator = if joined { "" } else { " " };
        item.choices
            .iter()
            .map(|choice| {
                let choice = choice.trim();
                let text = format!("{}{separator}{choice}", wording.text);
                let ids = self.tokenizer.encode(&text, !self.encoding.chat)?;
                let start = common_prefix(&prompt.ids, &ids);
                if choice.is_empty() || start == ids.len() {
                    return Err(Error::format(
                        format!("item `{}`", item.id),
                        format!("choice `{choice}` adds no token to the prompt"),
                    ));
                }
                Ok(EncodedRow {
                    scored: start..ids.len(),
                    ids,
                    weight: match normalization {
                        Normalization::Sum => 1.0,
                        Normalization::PerCharacter => 1.0 / choice.chars().count() as f64,
                    },
                    types: Vec::new(),
                })
            })
            .collect()
    }

    /// Drops the same body tokens from all rows of an item, so that its choices are compared after one prompt.
    fn shorten(&mut self, item: &Item, mut rows: Vec<EncodedRow>, body: Range<usize>) -> Result<Vec<EncodedRow>> {
        let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        let Encoding { max_tokens, truncation, .. } = *self.encoding;
        if let Some(dropped) = cut(&item.id, body, longest, max_tokens, truncation)? {
            self.n_truncated += 1;
            for row in &mut rows {
                row.ids.drain(dropped.clone());
                if !row.scored.is_empty() {
                    row.scored = row.scored.start - dropped.len()..row.scored.end - dropped.len();
                }
            }
        }
        for row in &rows {
            if row.ids.is_empty() || (row.scored.start == 0 && !row.scored.is_empty()) {
                return Err(Error::empty(format!("the prompt of item `{}`", item.id)));
            }
        }
        Ok(rows)
    }
}

/// Where the last message that all chats begin with stands in the text of the first; `None` where the template writes it in other words.
fn last_shared_message(format: &ChatFormat, chats: &[Vec<ChatTurn>], text: &str) -> Result<Option<Range<usize>>> {
    let Some(at) = shared(chats).checked_sub(1) else { return Ok(None) };
    let words = chats[0][at].content.trim();
    let mut marked = chats[0].clone();
    marked[at].content = PLACEHOLDER.into();
    let marked = format.render_turns(&marked, false)?;
    let opening = marked.split_once(PLACEHOLDER).map(|(opening, _)| opening);
    let rest = |opening| text.strip_prefix(opening).map(|rest: &str| rest.len() - rest.trim_start().len());
    Ok(opening.and_then(|opening| {
        let start = opening.len() + rest(opening)?;
        text[start..].starts_with(words).then(|| start..start + words.len())
    }))
}

/// The body before the scored tokens: those that a row has changed are no longer the body's to drop.
fn unchanged(rows: &[EncodedRow], body: Range<usize>) -> Range<usize> {
    let shared = rows.iter().map(|r| r.scored.start).min().unwrap_or(0);
    body.start.min(shared)..body.end.min(shared)
}

/// A row that a head reads whole, with what the tokenizer puts behind a text.
fn whole(ids: Vec<u32>, tail: &[u32]) -> EncodedRow {
    unscored([&ids, tail].concat())
}

/// A row of which nothing is scored.
fn unscored(ids: Vec<u32>) -> EncodedRow {
    EncodedRow { ids, scored: 0..0, weight: 1.0, types: Vec::new() }
}

fn check_labels(item: &Item, names: &[String]) -> Result<()> {
    if item.choices == names {
        return Ok(());
    }
    let reason = format!("its choices {:?} are not the labels {names:?}", item.choices);
    Err(Error::format(format!("item `{}`", item.id), reason))
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
