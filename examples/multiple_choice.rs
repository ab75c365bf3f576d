//! Any Hugging Face directory (Llama or Qwen2 family), any task file: fine-tune, fit the posterior, predict, compare.
//!
//! ```sh
//! cargo run --release --example multiple_choice -- --model SmolLM2-135M-Instruct \
//!   --train arc_easy/train.jsonl.gz --test arc_easy/test.jsonl.gz --form continuation --n-train 1000 --n-test 500
//! ```

mod experiment;

use bayes_lora::BayesLoraConfig;
use bayes_lora::curvature::{CurvatureConfig, FisherKind};
use bayes_lora::data::{
    AnswerForm, BatchLimits, EncodedDataset, Encoding, Normalization, PromptTemplate, Task, Tokenizer, Truncation,
    read_areas,
};
use bayes_lora::lora::LoraConfig;
use bayes_lora::models::{Pretrained, PromptClassifier};
use bayes_lora::train::TrainerConfig;
use burn::tensor::Device;
use clap::{Parser, ValueEnum};
use std::error::Error;
use std::path::PathBuf;

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    /// One token a class after the prompt (`--classes`).
    Tokens,
    /// The log-likelihood of each choice's text.
    Continuation,
}

#[derive(Clone, Copy, ValueEnum)]
enum Prompt {
    /// Question, lettered choices, `Answer:`
    Choices,
    /// Question, `Answer:`
    Question,
    /// Passage, question, `Answer:`
    Passage,
    /// Question, `Area:`
    Area,
}

#[derive(Parser)]
#[command(
    about = "Bayesian LoRA on a multiple-choice task; defaults of the Laplace-LoRA paper: r = 8, alpha = 16, q_proj and v_proj"
)]
struct Arguments {
    /// Hugging Face directory: config.json, safetensors, tokenizer.json.
    #[arg(long)]
    model: PathBuf,
    /// Training items, JSONL or JSONL.gz.
    #[arg(long)]
    train: PathBuf,
    /// Test items.
    #[arg(long)]
    test: PathBuf,
    /// Route questions by subject with this subject → area table; the areas are the classes.
    #[arg(long)]
    areas: Option<PathBuf>,
    /// How a class is asked for.
    #[arg(long, value_enum, default_value = "tokens")]
    form: Form,
    /// The prompt.
    #[arg(long, value_enum, default_value = "choices")]
    prompt: Prompt,
    /// Class tokens in the order of the choices.
    #[arg(long, value_delimiter = ',', default_value = " A, B, C, D")]
    classes: Vec<String>,
    /// Areas in the order of the class tokens, with `--areas`.
    #[arg(long, value_delimiter = ',', default_value = "STEM,humanities,social sciences,other")]
    area_names: Vec<String>,
    /// Divide a choice's log-likelihood by its number of characters.
    #[arg(long)]
    per_character: bool,
    /// Wrap prompts in the model's chat template.
    #[arg(long)]
    chat: bool,
    /// Longest prompt in tokens; longer ones lose the start of their body.
    #[arg(long, default_value_t = 256)]
    max_tokens: usize,
    /// Keep only items whose passage has at most so many characters.
    #[arg(long)]
    max_passage: Option<usize>,
    #[arg(long, default_value_t = 1000)]
    n_train: usize,
    #[arg(long, default_value_t = 200)]
    n_validation: usize,
    #[arg(long, default_value_t = 500)]
    n_test: usize,
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    #[arg(long, default_value_t = 5e-4)]
    learning_rate: f64,
    #[arg(long, default_value_t = 8)]
    batch: usize,
    #[arg(long, default_value_t = 8)]
    rank: usize,
    #[arg(long, default_value_t = 16.0)]
    alpha: f64,
    #[arg(long, default_value_t = 0.0)]
    dropout: f64,
    #[arg(long, value_delimiter = ',', default_value = "q_proj,v_proj")]
    targets: Vec<String>,
    /// Labels drawn an item for the Fisher information; 0 takes the exact one.
    #[arg(long, default_value_t = 0)]
    fisher_samples: usize,
    /// Draws of the weights for the sampled predictive.
    #[arg(long, default_value_t = 10)]
    draws: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, default_value = "target/multiple_choice")]
    out: PathBuf,
}

impl Arguments {
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
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let Arguments { seed, .. } = arguments;
    let tokenizer = Tokenizer::from_dir(&arguments.model)?;
    let encoding = arguments.encoding();
    let encode = |task: &Task| -> Result<EncodedDataset, Box<dyn Error>> { Ok(encoding.encode(task, &tokenizer)?) };
    let (train, rest) = arguments.task(&arguments.train)?.split(arguments.n_train, seed)?;
    let test = arguments.task(&arguments.test)?.sample(arguments.n_test, seed)?;
    let splits = experiment::Splits {
        task: format!("{} with {}", test.name, arguments.model.display()),
        train: encode(&train)?,
        validation: encode(&rest.sample(arguments.n_validation, seed)?)?,
        test: encode(&test)?,
    };
    println!("{}\n", splits.train.example(0, &tokenizer)?);

    let limits = BatchLimits { max_items: arguments.batch, max_tokens: 4096 };
    let fisher = match arguments.fisher_samples {
        0 => FisherKind::Exact,
        n => FisherKind::Sampled { n, seed },
    };
    let lora = LoraConfig::new(arguments.rank)
        .with_alpha(arguments.alpha)
        .with_dropout(arguments.dropout)
        .with_target_modules(arguments.targets.clone());
    std::fs::create_dir_all(&arguments.out)?;
    let bayes = BayesLoraConfig::new(lora)
        .with_trainer(TrainerConfig {
            epochs: arguments.epochs,
            learning_rate: arguments.learning_rate,
            // two micro-batches a step, so that two workers share it
            limits: BatchLimits { max_items: arguments.batch.div_ceil(2), ..limits },
            accumulation: 2,
            log: Some(arguments.out.join("train.jsonl")),
            ..TrainerConfig::default()
        })
        .with_curvature(CurvatureConfig { fisher, limits, ..CurvatureConfig::default() })
        .with_limits(limits)
        .with_seed(seed);
    let lm = Pretrained::from_dir(&arguments.model)?.load(&Device::flex())?;
    let model = PromptClassifier::new(lm, &splits.train)?;
    experiment::run(model, &splits, &bayes.init()?, limits, arguments.draws, seed, &arguments.out)
}
