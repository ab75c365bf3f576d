//! Flags that say how an item is asked.

use crate::kind::Kind;
use crate::texts::TextArguments;
use bayes_lora::data::{AnswerForm, BatchLimits, Encoding, Normalization, PromptTemplate, TextEncoding, Truncation};
use clap::{Args, ValueEnum};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// One token a class after the prompt (`--classes`)
    Tokens,
    /// The log-likelihood of each choice's text
    Continuation,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Prompt {
    /// Question, lettered choices, `Answer:`
    Choices,
    /// Question, `Answer:`
    Question,
    /// Passage, question, `Answer:`
    Passage,
    /// Question, `Area:`
    Area,
}

/// Tokens of a row where `--max-tokens` says nothing.
const MAX_TOKENS: usize = 256;

/// Tokens of a batch, pads counted in.
const BATCH_TOKENS: usize = 4096;

/// What is not given stays `None`: a posterior remembers how its questions were asked.
#[derive(Args)]
#[command(next_help_heading = "How items are asked")]
pub struct QuestionArguments {
    /// How a question with choices is answered [default: tokens]
    #[arg(long, value_enum)]
    pub form: Option<Form>,
    /// The prompt of a question with choices [default: choices]
    #[arg(long, value_enum)]
    pub prompt: Option<Prompt>,
    /// Class tokens in the order of the choices [default: " A, B, C, D"]
    #[arg(long, value_delimiter = ',', value_name = "TOKENS")]
    pub classes: Option<Vec<String>>,
    /// Divide a choice's log-likelihood by its number of characters
    #[arg(long)]
    pub per_character: bool,
    /// Wrap prompts in the model's chat template
    #[arg(long)]
    pub chat: bool,
    /// Longest row in tokens; questions lose the start of their body, texts their end [default: 256; of texts that are learned, the model's context]
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<usize>,
    /// Of texts that are learned, score prompts too, not only what follows them
    #[arg(long)]
    pub everything: bool,
    /// Items of a batch
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub batch: usize,
}

impl QuestionArguments {
    /// How questions with choices are asked.
    pub fn encoding(&self) -> Encoding {
        self.limited(Encoding::new(self.template(), self.answers()).with_truncation(Truncation::Start))
    }

    /// Flags that were given and mean nothing for this kind.
    pub fn foreign(&self, kind: Kind) -> Vec<&'static str> {
        let (questions, texts) = (kind == Kind::Choices, kind == Kind::Texts);
        let is_continuation = self.per_character || self.form == Some(Form::Continuation);
        let given = [
            (self.form.is_some() && !questions, "--form"),
            (self.prompt.is_some() && !questions, "--prompt"),
            (self.classes.is_some() && (!questions || is_continuation), "--classes"),
            (self.per_character && (!questions || self.form == Some(Form::Tokens)), "--per-character"),
            (self.chat && texts, "--chat"),
            (self.everything && !texts, "--everything"),
        ];
        given.into_iter().filter_map(|(is_foreign, flag)| is_foreign.then_some(flag)).collect()
    }

    /// How texts are read that have no question: for heads.
    pub fn of_texts(&self, answers: AnswerForm) -> Encoding {
        self.limited(Encoding::new(PromptTemplate::text(), answers).with_truncation(Truncation::End))
    }

    /// How texts are read whose next tokens are learned; `context` is the model's.
    pub fn of_next_tokens(&self, context: usize) -> TextEncoding {
        TextArguments { everything: self.everything, max_tokens: self.max_tokens }.encoding(context)
    }

    fn limited(&self, encoding: Encoding) -> Encoding {
        encoding.with_max_tokens(self.max_tokens.unwrap_or(MAX_TOKENS)).with_chat(self.chat)
    }

    /// A way of asking, but for what the flags say otherwise.
    pub fn over(&self, asked: &Encoding) -> Encoding {
        let mut encoding = asked.clone();
        if self.prompt.is_some() {
            encoding.template = self.template();
        }
        if self.form.is_some() || self.classes.is_some() || self.per_character {
            encoding.answers = self.answers();
        }
        if self.max_tokens.is_some() {
            encoding.max_tokens = self.max_tokens;
        }
        encoding.chat |= self.chat;
        encoding
    }

    fn template(&self) -> PromptTemplate {
        match self.prompt.unwrap_or(Prompt::Choices) {
            Prompt::Choices => PromptTemplate::multiple_choice(),
            Prompt::Question => PromptTemplate::question_answer(),
            Prompt::Passage => PromptTemplate::passage_question(),
            Prompt::Area => PromptTemplate::question_area(),
        }
    }

    fn answers(&self) -> AnswerForm {
        let normalization = if self.per_character { Normalization::PerCharacter } else { Normalization::Sum };
        let letters = || [" A", " B", " C", " D"].map(String::from).to_vec();
        let form = if self.per_character { Form::Continuation } else { Form::Tokens };
        match self.form.unwrap_or(form) {
            Form::Tokens => AnswerForm::class_tokens(self.classes.clone().unwrap_or_else(letters)),
            Form::Continuation => AnswerForm::Continuation { normalization },
        }
    }

    pub fn limits(&self) -> BatchLimits {
        BatchLimits { max_items: self.batch, max_tokens: BATCH_TOKENS }
    }
}
