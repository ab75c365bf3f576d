//! Flags that say how a question is put to the model.

use bayes_lora::data::{AnswerForm, BatchLimits, Encoding, Normalization, PromptTemplate, Truncation};
use clap::{Args, ValueEnum};

#[derive(Clone, Copy, ValueEnum)]
pub enum Form {
    /// One token a class after the prompt (`--classes`).
    Tokens,
    /// The log-likelihood of each choice's text.
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

#[derive(Args)]
pub struct QuestionArguments {
    /// How a class is asked for.
    #[arg(long, value_enum, default_value = "tokens")]
    pub form: Form,
    /// The prompt.
    #[arg(long, value_enum, default_value = "choices")]
    pub prompt: Prompt,
    /// Class tokens in the order of the choices.
    #[arg(long, value_delimiter = ',', default_value = " A, B, C, D")]
    pub classes: Vec<String>,
    /// Divide a choice's log-likelihood by its number of characters.
    #[arg(long)]
    pub per_character: bool,
    /// Wrap prompts in the model's chat template.
    #[arg(long)]
    pub chat: bool,
    /// Longest prompt in tokens; longer ones lose the start of their body.
    #[arg(long, default_value_t = 256)]
    pub max_tokens: usize,
    /// Items of a batch.
    #[arg(long, default_value_t = 8)]
    pub batch: usize,
}

impl QuestionArguments {
    /// The way of asking that the flags say.
    pub fn encoding(&self) -> Encoding {
        let template = match self.prompt {
            Prompt::Choices => PromptTemplate::multiple_choice(),
            Prompt::Question => PromptTemplate::question_answer(),
            Prompt::Passage => PromptTemplate::passage_question(),
            Prompt::Area => PromptTemplate::question_area(),
        };
        let normalization = if self.per_character { Normalization::PerCharacter } else { Normalization::Sum };
        let answers = match self.form {
            Form::Tokens => AnswerForm::class_tokens(self.classes.clone()),
            Form::Continuation => AnswerForm::Continuation { normalization },
        };
        Encoding::new(template, answers)
            .with_max_tokens(self.max_tokens)
            .with_truncation(Truncation::Start)
            .with_chat(self.chat)
    }

    pub fn limits(&self) -> BatchLimits {
        BatchLimits { max_items: self.batch, max_tokens: 4096 }
    }
}
