//! Flags that say which model learns which task, and what they make.

use crate::splits::Splits;
use bayes_lora::data::{
    AnswerForm, BatchLimits, EncodedDataset, Encoding, Normalization, PromptTemplate, Task, Tokenizer, Truncation,
    read_areas,
};
use bayes_lora::lora::LoraConfig;
use bayes_lora::models::{Pretrained, PromptClassifier};
use bayes_lora::train::TrainerConfig;
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use std::error::Error;
use std::path::PathBuf;

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
pub struct TaskArguments {
    /// Hugging Face directory: config.json, safetensors, tokenizer.json.
    #[arg(long)]
    pub model: PathBuf,
    /// Training items, JSONL or JSONL.gz.
    #[arg(long)]
    pub train: PathBuf,
    /// Test items.
    #[arg(long)]
    pub test: PathBuf,
    /// Route questions by subject with this subject → area table; the areas are the classes.
    #[arg(long)]
    pub areas: Option<PathBuf>,
    /// How a class is asked for.
    #[arg(long, value_enum, default_value = "tokens")]
    pub form: Form,
    /// The prompt.
    #[arg(long, value_enum, default_value = "choices")]
    pub prompt: Prompt,
    /// Class tokens in the order of the choices.
    #[arg(long, value_delimiter = ',', default_value = " A, B, C, D")]
    pub classes: Vec<String>,
    /// Areas in the order of the class tokens, with `--areas`.
    #[arg(long, value_delimiter = ',', default_value = "STEM,humanities,social sciences,other")]
    pub area_names: Vec<String>,
    /// Divide a choice's log-likelihood by its number of characters.
    #[arg(long)]
    pub per_character: bool,
    /// Wrap prompts in the model's chat template.
    #[arg(long)]
    pub chat: bool,
    /// Longest prompt in tokens; longer ones lose the start of their body.
    #[arg(long, default_value_t = 256)]
    pub max_tokens: usize,
    /// Keep only items whose passage has at most so many characters.
    #[arg(long)]
    pub max_passage: Option<usize>,
    #[arg(long, default_value_t = 1000)]
    pub n_train: usize,
    #[arg(long, default_value_t = 200)]
    pub n_validation: usize,
    #[arg(long, default_value_t = 500)]
    pub n_test: usize,
    #[arg(long, default_value_t = 3)]
    pub epochs: usize,
    #[arg(long, default_value_t = 5e-4)]
    pub learning_rate: f64,
    #[arg(long, default_value_t = 8)]
    pub batch: usize,
    #[arg(long, default_value_t = 8)]
    pub rank: usize,
    #[arg(long, default_value_t = 16.0)]
    pub alpha: f64,
    #[arg(long, default_value_t = 0.0)]
    pub dropout: f64,
    #[arg(long, value_delimiter = ',', default_value = "q_proj,v_proj")]
    pub targets: Vec<String>,
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

impl TaskArguments {
    fn encoding(&self) -> Encoding {
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

    fn task(&self, path: &PathBuf) -> Result<Task, Box<dyn Error>> {
        let short = |passage: &Option<String>| {
            self.max_passage.is_none_or(|most| passage.as_ref().is_none_or(|text| text.chars().count() <= most))
        };
        let task = Task::from_jsonl(path)?.filter(|item| short(&item.passage));
        match &self.areas {
            None => Ok(task),
            Some(areas) => Ok(task.route_by_subject(&read_areas(areas)?, &self.area_names)?),
        }
    }

    /// Encoded training, validation and test items; prints one as the model sees it.
    pub fn splits(&self) -> Result<Splits, Box<dyn Error>> {
        let tokenizer = Tokenizer::from_dir(&self.model)?;
        let encoding = self.encoding();
        let encode = |task: &Task| -> Result<EncodedDataset, Box<dyn Error>> { Ok(encoding.encode(task, &tokenizer)?) };
        let (train, rest) = self.task(&self.train)?.split(self.n_train, self.seed)?;
        let test = self.task(&self.test)?.sample(self.n_test, self.seed)?;
        let all = [train, rest.sample(self.n_validation, self.seed)?, test].each_ref().map(encode);
        let [train, validation, test] = all;
        let (train, validation, test) = (train?, validation?, test?);
        // the largest items may lie in one split only
        let n_classes = train.n_classes.max(validation.n_classes).max(test.n_classes);
        let splits = Splits {
            task: format!("{} with {}", test.name, self.model.display()),
            train: train.with_classes(n_classes)?,
            validation: validation.with_classes(n_classes)?,
            test: test.with_classes(n_classes)?,
        };
        println!("{}\n", splits.train.example(0, &tokenizer)?);
        Ok(splits)
    }

    /// The pretrained model, asked for answers in the form of the data.
    pub fn model(&self, data: &EncodedDataset) -> Result<PromptClassifier, Box<dyn Error>> {
        let lm = Pretrained::from_dir(&self.model)?.load(&Device::flex())?;
        Ok(PromptClassifier::new(lm, data)?)
    }

    pub fn limits(&self) -> BatchLimits {
        BatchLimits { max_items: self.batch, max_tokens: 4096 }
    }

    pub fn lora(&self) -> LoraConfig {
        LoraConfig::new(self.rank)
            .with_alpha(self.alpha)
            .with_dropout(self.dropout)
            .with_target_modules(self.targets.clone())
    }

    pub fn trainer(&self) -> TrainerConfig {
        TrainerConfig {
            epochs: self.epochs,
            learning_rate: self.learning_rate,
            // two micro-batches a step, so that two workers share it
            limits: BatchLimits { max_items: self.batch.div_ceil(2), ..self.limits() },
            accumulation: 2,
            seed: self.seed,
            ..TrainerConfig::default()
        }
    }
}
