//! Times every stage on a Hugging Face model and a multiple-choice task, one JSON line a stage: to be run in turn
//! with another library's program on the same machine, model, data, batch and rank.
//!
//! ```sh
//! cargo run --release --example studies -- throughput --model SmolLM2-135M-Instruct --data arc_easy/train.jsonl.gz
//! cargo run --release --example studies -- throughput --model SmolLM2-135M-Instruct --data arc_easy/train.jsonl.gz --form continuation
//! python3 examples/studies/throughput/peer_continuation.py --model SmolLM2-135M-Instruct --data arc_easy/train.jsonl.gz
//! ```

mod by_copies;

use crate::Outcome;
use crate::experiment::base::load_base;
use crate::process::peak_resident_bytes;
use bayes_lora::belief::LogitGauge;
use bayes_lora::curvature::{CurvatureConfig, FisherKind, fit_curvature};
use bayes_lora::data::{
    AnswerForm, BatchLimits, BatchOrder, EncodedDataset, Encoding, Normalization, PromptTemplate, Task, Tokenizer,
};
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::memory::GradientCheckpointing;
use bayes_lora::models::{Dataset, PromptClassifier, TokenBatch};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::{predict_linearized, predict_map};
use bayes_lora::progress::Control;
use bayes_lora::train::{Trainer, TrainerConfig};
use burn::tensor::{DType, Device};
use by_copies::ByCopies;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// How a question is answered.
#[derive(Clone, Copy, ValueEnum)]
enum Form {
    /// Lettered choices, of which the model says a letter.
    Letters,
    /// Choices as continuations of the question, each scored by its log-likelihood.
    Continuation,
}

#[derive(Args)]
pub struct Arguments {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    data: PathBuf,
    #[arg(long, value_enum, default_value = "letters")]
    form: Form,
    /// Items a training step and a curvature batch.
    #[arg(long, default_value_t = 4)]
    batch: usize,
    #[arg(long, default_value_t = 20)]
    steps: usize,
    #[arg(long, default_value_t = 16)]
    map_batch: usize,
    #[arg(long, default_value_t = 96)]
    map_n: usize,
    #[arg(long, default_value_t = 80)]
    kfac_n: usize,
    #[arg(long, default_value_t = 2)]
    predict_batch: usize,
    #[arg(long, default_value_t = 24)]
    predict_n: usize,
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Only questions of so many characters.
    #[arg(long, default_value_t = 0)]
    min_chars: usize,
    /// Train with the activations of one layer held at a time.
    #[arg(long)]
    gradient_checkpointing: bool,
    /// End after training.
    #[arg(long)]
    train_only: bool,
    /// Put so many worked examples before every question, predict with them read once and in every row, and end there.
    #[arg(long, default_value_t = 0)]
    shots: usize,
    /// Sum the exact Fisher information, by the model's own backward pass and by as many copies of the batch, and end there.
    #[arg(long)]
    exact: bool,
}

fn report(stage: &str, seconds: f64, items: usize, tokens: usize) {
    let line = json!({
        "stage": stage, "seconds": seconds, "items_per_s": items as f64 / seconds,
        "real_tokens_per_s": tokens as f64 / seconds, "peak_rss_mb": peak_resident_bytes().map(|bytes| bytes >> 20),
    });
    println!("{line}");
}

/// What some work on items gives, and reports how long it took.
fn timed<T>(stage: &str, data: &EncodedDataset, work: impl FnOnce() -> bayes_lora::Result<T>) -> Outcome<T> {
    let start = Instant::now();
    let done = work()?;
    report(stage, start.elapsed().as_secs_f64(), data.len(), data.n_tokens());
    Ok(done)
}

/// The template behind some questions with their answers.
fn behind_examples(template: PromptTemplate, task: &Task, a: &Arguments) -> Outcome<PromptTemplate> {
    if a.shots == 0 {
        return Ok(template);
    }
    let mut before = String::new();
    for item in &task.sample(a.shots, 3)?.items {
        let answer = item.answer.ok_or("a worked example has no answer")?;
        let answer = match a.form {
            Form::Letters => ["A", "B", "C", "D"][answer],
            Form::Continuation => item.choices[answer].as_str(),
        };
        before += &format!("{} {answer}\n\n", template.render(item)?.text());
    }
    Ok(PromptTemplate::new(
        "worked examples",
        format!("{{% raw %}}{before}{{% endraw %}}{}", template.body),
        template.cue,
    )?)
}

/// Items that are not known to begin alike, so that every row is read whole.
struct Apart<'a>(&'a EncodedDataset);

impl Dataset for Apart<'_> {
    type Input = TokenBatch;

    fn n_items(&self) -> usize {
        self.0.len()
    }

    fn rows_are_choices(&self) -> bool {
        self.0.rows_are_choices()
    }

    fn label(&self, item: usize) -> Option<usize> {
        self.0.label(item)
    }

    fn item_id(&self, item: usize) -> String {
        self.0.item_id(item)
    }

    fn plan(&self, limits: BatchLimits, order: BatchOrder) -> bayes_lora::Result<Vec<Vec<usize>>> {
        Dataset::plan(self.0, limits, order)
    }

    fn batch(&self, indices: &[usize], device: &Device, dtype: DType) -> bayes_lora::Result<TokenBatch> {
        self.0.batch(indices, device, dtype)
    }
}

pub fn run(a: &Arguments) -> Outcome<()> {
    let tokenizer = Tokenizer::from_dir(&a.model)?;
    let (template, answers) = match a.form {
        Form::Letters => (PromptTemplate::multiple_choice(), AnswerForm::class_tokens([" A", " B", " C", " D"])),
        Form::Continuation => {
            (PromptTemplate::question_answer(), AnswerForm::Continuation { normalization: Normalization::Sum })
        }
    };
    let task = Task::from_jsonl(&a.data)?.filter(|item| item.choices.len() == 4 && item.question.len() >= a.min_chars);
    let encoding = Encoding::new(behind_examples(template, &task, a)?, answers);
    let encode =
        |n: usize, seed: u64| -> Outcome<EncodedDataset> { Ok(encoding.encode(&task.sample(n, seed)?, &tokenizer)?) };
    let checkpointing = if a.gradient_checkpointing { GradientCheckpointing::On } else { GradientCheckpointing::Off };
    let control = Control::silent().with_workers(a.workers)?.with_gradient_checkpointing(checkpointing);
    let limits = |max_items| BatchLimits { max_items, max_tokens: usize::MAX };
    let train = encode(a.steps * a.batch, 0)?;
    let lm = load_base(&a.model)?;
    let lora = LoraConfig::new(8).with_alpha(16.0).with_target_modules(["q_proj", "v_proj"]);
    let model = attach(PromptClassifier::new(lm, &train)?, &lora, 0)?;

    let trainer = Trainer::new(
        TrainerConfig::default()
            .with_epochs(1)
            .with_learning_rate(5e-4)
            // a step's micro-batches are shared by the workers
            .with_limits(limits(a.batch.div_ceil(a.workers)))
            .with_accumulation(a.workers.min(a.batch)),
    )?;
    let outcome = trainer.fit(model, &train, None, &control)?;
    report("train", outcome.report.seconds, outcome.report.items, outcome.report.tokens);
    if a.train_only {
        return Ok(());
    }
    let model = outcome.model;

    let data = encode(a.map_n, 1)?;
    timed("map", &data, || predict_map(&model, &data, &limits(a.map_batch), &control))?;
    if a.shots > 0 {
        timed("map, every row whole", &data, || predict_map(&model, &Apart(&data), &limits(a.map_batch), &control))?;
        return Ok(());
    }

    let data = encode(a.kfac_n, 0)?;
    let fisher = if a.exact { FisherKind::Exact } else { FisherKind::Sampled { n: 1, seed: 0 } };
    let config = CurvatureConfig::default().with_fisher(fisher).with_limits(limits(a.batch));
    let curvature = timed("kfac", &data, || fit_curvature(&model, &data, &config, &control))?;
    if a.exact {
        let model = ByCopies { model };
        timed("kfac, copies of the batch", &data, || fit_curvature(&model, &data, &config, &control))?;
        return Ok(());
    }
    let laplace = timed("eigendecomposition and evidence", &data, || {
        Laplace::new(&model, &curvature, &LaplaceConfig::default())
    })?;

    let data = encode(a.predict_n, 2)?;
    timed("linearized", &data, || {
        predict_linearized(&model, &laplace, &data, LogitGauge::Centred, &limits(a.predict_batch), &control)
    })?;
    Ok(())
}
