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
//! | `jsonl` | reads lines, plain or gzipped, within limits |
//! | `task` | questions, choices, answers; samples and splits |
//! | `labelled`, `values`, `preferences` | texts and pairs of texts with a class, texts with a number; texts of which one is preferred |
//! | `preference_chats` | two chats and the messages that both begin with |
//! | `routing` | questions by subject → questions about their area |
//! | `prompt` | Jinja wording: a body and a cue |
//! | `special` | special tokens and chat template of a Hugging Face directory |
//! | `tokens` | text ↔ ids |
//! | `classes` | the one token that each class is |
//! | `chat` | the chat template of an instruct model |
//! | `encoding` | how to ask: wording, form of the answers, limit, chat or not |
//! | `encode` | task → ids, by class tokens or continuations |
//! | `pairs` | two texts → one row |
//! | `truncate` | shortens a prompt's body, when asked to |
//! | `encoded` | the result: items, rows, scored positions |
//! | `texts` | texts, completions and chats |
//! | `chat_spans` | the assistant's words in a chat |
//! | `chat_marks` | a chat template's own marks of them |
//! | `text_encoding` | texts → ids with the tokens that are scored |
//! | `structured`, `json_leaves` | the tokens of every field of an answer in JSON |
//! | `text_dataset` | the result: texts as the trainer sees them |
//! | `asked` | the way of asking, as a posterior remembers it |
//! | `batch` | batches of similar length |
//! | `packing` | several texts in one row |
//! | `padding` | rectangles of ids and masks |
//! | `shared_prompt` | the rows of an item as one, what they begin with once |
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

mod asked;
mod batch;
mod chat;
mod chat_marks;
mod chat_spans;
mod classes;
mod encode;
mod encoded;
mod encoding;
mod json_leaves;
mod jsonl;
mod labelled;
mod packing;
mod padding;
mod pairs;
mod preference_chats;
mod preferences;
mod prompt;
#[cfg(test)]
mod real_files;
mod routing;
mod shared_prompt;
mod special;
mod structured;
mod task;
mod text_dataset;
mod text_encoding;
mod texts;
#[cfg(test)]
mod tiny;
mod tokens;
mod truncate;
mod values;
mod wording;

pub use asked::Asked;
pub use batch::{BatchLimits, BatchOrder, ItemSize, plan_batches};
pub use chat::{CHAT_DATE, ChatFormat, MAX_CHAT_PROMPT_BYTES, MAX_CHAT_SECONDS, MAX_CHAT_TEMPLATE_BYTES};
pub use encoded::{EncodedDataset, EncodedItem, EncodedRow, ResolvedAnswers};
pub use encoding::{AnswerForm, Encoding, Normalization};
pub use jsonl::{MAX_FILE_BYTES, MAX_LINE_BYTES, for_each_line, for_each_line_of};
pub use packing::PackedRows;
pub use padding::{PaddedRows, PaddingSide};
pub use prompt::{CompiledPrompt, MAX_PROMPT_BYTES, MAX_TEMPLATE_BYTES, PROMPT_FUEL, Prompt, PromptTemplate, letter};
pub use routing::{MAX_AREAS_BYTES, read_areas};
pub use shared_prompt::SharedPrompt;
pub use special::SpecialTokens;
pub use structured::{Field, StructuredText};
pub use task::{Item, Task};
pub use text_dataset::{TextDataset, TextExample};
pub use text_encoding::{ScoredPart, TextEncoding};
pub use texts::{ChatTurn, MAX_CHAT_TURNS, Role, TextContent, TextItem, read_texts};
pub use tokens::{MAX_TOKENIZER_BYTES, Tokenizer, TokenizerFiles};
pub use truncate::Truncation;
pub use values::{ValuedDataset, ValuedTask};
