//! Reads tasks and turns them into token ids and batches: host code, without tensors.
//!
//! ```text
//! .jsonl(.gz) ──── task ───┐
//! template ─────── prompt ─┼─ encode → EncodedDataset ─ batch → indices ─ padding → ids and mask
//! tokenizer.json ─ tokens ─┘
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`jsonl`] | reads lines, plain or gzipped, within limits |
//! | [`task`] | questions, choices, answers; samples and splits |
//! | [`routing`] | questions by subject → questions about their area |
//! | [`prompt`] | Jinja wording: a body and a cue |
//! | [`special`] | special tokens and chat template of a Hugging Face directory |
//! | [`tokens`] | text ↔ ids |
//! | [`classes`] | the one token that each class is |
//! | [`chat`] | the chat template of an instruct model |
//! | [`encoding`] | how to ask: wording, form of the answers, limit, chat or not |
//! | [`encode`] | task → ids, by class tokens or continuations |
//! | [`truncate`] | shortens a prompt's body, when asked to |
//! | [`encoded`] | the result: items, rows, scored positions |
//! | [`asked`] | the way of asking, as a posterior remembers it |
//! | [`batch`] | batches of similar length |
//! | [`padding`] | rectangles of ids and masks |
//!
//! ```
//! use bayes_lora::data::{
//!     AnswerForm, BatchLimits, BatchOrder, EncodedItem, Encoding, Item, PaddedRows, PaddingSide, PromptTemplate, Task,
//!     Tokenizer,
//! };
//!
//! let tokenizer = Tokenizer::from_bytes(
//!     br#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
//!         "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
//!         "model": {"type": "WordLevel", "unk_token": "?",
//!                   "vocab": {"?": 0, "Question": 1, ":": 2, "Answer": 3, "no": 4, "yes": 5}}}"#,
//! )?;
//! let items = ["is it?", "is it so?"].map(|q| Item::new(q, q, ["no", "yes"]).with_answer(1));
//! let task = Task::new("demo", items.to_vec())?;
//! let encoding = Encoding::new(PromptTemplate::question_answer(), AnswerForm::class_tokens([" no", " yes"]));
//! let data = encoding.encode(&task, &tokenizer)?;
//!
//! for batch in data.plan(BatchLimits { max_items: 8, max_tokens: 4096 }, BatchOrder::ByLength)? {
//!     let items: Vec<&EncodedItem> = batch.iter().map(|i| &data.items[*i]).collect();
//!     let rows = PaddedRows::from_items(&items, tokenizer.pad_id(), PaddingSide::Right)?;
//!     assert_eq!((rows.n_rows, rows.n_tokens), (2, 8));
//! }
//! # Ok::<(), bayes_lora::error::Error>(())
//! ```

pub mod asked;
pub mod batch;
pub mod chat;
pub mod classes;
pub mod encode;
pub mod encoded;
pub mod encoding;
pub mod jsonl;
pub mod padding;
pub mod prompt;
#[cfg(test)]
mod real_files;
pub mod routing;
pub mod special;
pub mod task;
#[cfg(test)]
mod tiny;
pub mod tokens;
pub mod truncate;
mod wording;

pub use self::asked::Asked;
pub use self::batch::{BatchLimits, BatchOrder, ItemSize, plan_batches};
pub use self::encoded::{EncodedDataset, EncodedItem, EncodedRow, ResolvedAnswers};
pub use self::encoding::{AnswerForm, Encoding, Normalization};
pub use self::padding::{PaddedRows, PaddingSide};
pub use self::prompt::{Prompt, PromptTemplate};
pub use self::routing::read_areas;
pub use self::task::{Item, Task};
pub use self::tokens::{Tokenizer, TokenizerFiles};
pub use self::truncate::Truncation;
