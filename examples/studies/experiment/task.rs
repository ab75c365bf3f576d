//! Flags that say which model learns which task, and what they make.

use super::base::load_base;
use super::items::ItemArguments;
use super::questions::QuestionArguments;
use super::splits::Splits;
use crate::Outcome;
use bayes_lora::data::{BatchLimits, EncodedDataset, Task, Tokenizer};
use bayes_lora::lora::LoraConfig;
use bayes_lora::models::PromptClassifier;
use bayes_lora::train::TrainerConfig;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub struct TaskArguments {
    /// Hugging Face directory: config.json, safetensors, tokenizer.json.
    #[arg(long)]
    pub model: PathBuf,
    #[command(flatten)]
    pub items: ItemArguments,
    /// Test items.
    #[arg(long)]
    pub test: PathBuf,
    #[command(flatten)]
    pub questions: QuestionArguments,
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
    pub rank: usize,
    #[arg(long, default_value_t = 16.0)]
    pub alpha: f64,
    #[arg(long, default_value_t = 0.0)]
    pub dropout: f64,
    #[arg(long, value_delimiter = ',', default_value = "q_proj,v_proj")]
    pub targets: Vec<String>,
}

impl TaskArguments {
    /// Encoded training, validation and test items; prints one as the model sees it.
    pub fn splits(&self) -> Outcome<Splits> {
        let tokenizer = Tokenizer::from_dir(&self.model)?;
        let encoding = self.questions.encoding();
        let (items, seed) = (&self.items, self.items.seed);
        let encode = |task: &Task| -> Outcome<EncodedDataset> { Ok(encoding.encode(task, &tokenizer)?) };
        let (train, rest) = items.read(&items.train)?.split(self.n_train, seed)?;
        let test = items.read(&self.test)?.sample(self.n_test, seed)?;
        let all = [train, rest.sample(self.n_validation, seed)?, test].each_ref().map(encode);
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
    pub fn model(&self, data: &EncodedDataset) -> Outcome<PromptClassifier> {
        let lm = load_base(&self.model)?;
        Ok(PromptClassifier::new(lm, data)?)
    }

    pub fn lora(&self) -> LoraConfig {
        LoraConfig::new(self.rank)
            .with_alpha(self.alpha)
            .with_dropout(self.dropout)
            .with_target_modules(self.targets.clone())
    }

    pub fn trainer(&self) -> TrainerConfig {
        TrainerConfig::default()
            .with_epochs(self.epochs)
            .with_learning_rate(self.learning_rate)
            // two micro-batches a step, so that two workers share it
            .with_limits(BatchLimits { max_items: self.questions.batch.div_ceil(2), ..self.questions.limits() })
            .with_accumulation(2)
            .with_seed(self.items.seed)
    }
}
