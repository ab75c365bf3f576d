//! `bayes-lora estimate`.

use crate::base::adapted;
use crate::fitting::Fitting;
use crate::flags::{AdapterArguments, ItemArguments, PosteriorArguments, QuestionArguments, TrainingArguments};
use crate::kinds::{About, Job, Source, Subject, with_subject};
use crate::session::{Outcome, Session};
use bayes_lora::lora::{attach, summarize};
use bayes_lora::memory::Activations;
use bayes_lora::models::{Classifier, Dataset};
use bayes_lora::number::{bytes_text, significant};
use bayes_lora::posterior::PosteriorCost;
use bayes_lora::train::estimate_activations;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Say what training and a posterior will take, before anything runs
///
/// Counts rows through the network and bytes; nothing is trained, and nothing is written. With `--adapter` it is about that adapter, and
/// otherwise about a new one, as the flags say.
#[derive(Args)]
#[command(
    after_help = "Example:\n  bayes-lora estimate --model SmolLM2-135M --train arc_easy.jsonl --form continuation --prompt question --structure \"function space\""
)]
pub struct Estimate {
    /// The base: a Hugging Face directory (config.json, safetensors, tokenizer.json), or a GGUF file
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// An adapter that exists, as PEFT writes it
    #[arg(long = "adapter", value_name = "DIR", conflicts_with_all = ["rank", "alpha", "dropout", "targets", "epochs", "learning_rate", "accumulation"])]
    existing: Option<PathBuf>,
    /// Training items, JSONL or JSONL.gz
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    #[command(flatten)]
    items: ItemArguments,
    #[command(flatten)]
    questions: QuestionArguments,
    #[command(flatten)]
    adapter: AdapterArguments,
    #[command(flatten)]
    training: TrainingArguments,
    #[command(flatten)]
    posterior: PosteriorArguments,
}

impl Estimate {
    pub fn run(&self, session: &Session) -> Outcome {
        if self.posterior.held_out.is_some() || self.items.n_held_out.is_some() {
            return Err("held-out items: what choosing the prior by them takes is not counted".into());
        }
        let source = Source {
            model: &self.model,
            train: &self.train,
            validation: None,
            held_out: None,
            start: None,
            items: &self.items,
            questions: &self.questions,
            session,
        };
        session.show(&with_subject(&source, self)?)
    }
}

impl Job for &Estimate {
    type Result = Estimated;

    fn run<M: Classifier + 'static, D: Dataset<Input = M::Input>>(
        self,
        Subject { model, data }: Subject<M, D>,
    ) -> Outcome<Estimated> {
        let (limits, seed) = (self.questions.limits(), self.items.seed);
        let (model, lora) = match &self.existing {
            Some(dir) => adapted(model, dir, None)?,
            None => {
                let lora = self.adapter.lora();
                (attach(model, &lora, seed)?, lora)
            }
        };
        let fitting = Fitting { flags: &self.posterior, limits, seed, noise_variance: self.items.noise_variance };
        let train = &data.splits.train;
        let cost = fitting.bayes(lora, &data.likelihood).init()?.estimate(&model, train)?;
        let noise = fitting.noise_cost(&model, &data)?;
        let summary = summarize(&model);
        let rows = if train.rows_are_choices() { model.n_classes() } else { 1 };
        let training_rows = (self.existing.is_none()).then_some(train.n_items() * rows * self.training.epochs);
        let activations = match self.existing {
            Some(_) => None,
            None => estimate_activations(&model, train, &self.training.trainer(limits, seed))?,
        };
        let training = (training_rows, activations);
        let weights = (summary.n_adapter, summary.n_total);
        Ok(Estimated::new(data.about, weights, training, (noise.as_ref(), &cost)))
    }
}

/// What will be taken.
#[derive(Serialize)]
pub struct Estimated {
    #[serde(flatten)]
    about: About,
    adapter_weights: usize,
    all_weights: usize,
    /// Rows forward and backward in training.
    training_rows: Option<usize>,
    /// Bytes of a training pass, for each worker.
    activations: Option<Activations>,
    /// To find the noise of numbers, before the posterior.
    #[serde(skip_serializing_if = "Option::is_none")]
    noise: Option<Takes>,
    #[serde(flatten)]
    posterior: Takes,
    /// Bytes held at most, beside the network and a batch.
    peak_bytes: u64,
}

#[derive(Serialize)]
struct Takes {
    curvature: CurvatureTakes,
    linearized: Option<LinearizedTakes>,
    #[serde(skip)]
    words: String,
}

#[derive(Serialize)]
struct CurvatureTakes {
    structure: String,
    bytes: u64,
    unknowns: u64,
    network_rows: u64,
}

#[derive(Serialize)]
struct LinearizedTakes {
    items: u64,
    rows: u64,
    bytes: u64,
    peak_bytes: u64,
    network_rows: u64,
    multiplications: f64,
}

impl Estimated {
    fn new(
        about: About,
        (adapter_weights, all_weights): (usize, usize),
        (training_rows, activations): (Option<usize>, Option<Activations>),
        (noise, cost): (Option<&PosteriorCost>, &PosteriorCost),
    ) -> Self {
        let peaks = [noise.map_or(0, PosteriorCost::peak_bytes), cost.peak_bytes()];
        let (noise, posterior) = (noise.map(Takes::new), Takes::new(cost));
        let peak_bytes = peaks.into_iter().max().unwrap_or(0);
        Self { about, adapter_weights, all_weights, training_rows, activations, noise, posterior, peak_bytes }
    }
}

impl Takes {
    fn new(cost: &PosteriorCost) -> Self {
        let curvature = &cost.curvature;
        Self {
            curvature: CurvatureTakes {
                structure: curvature.structure.to_string(),
                bytes: curvature.bytes,
                unknowns: curvature.n_unknowns,
                network_rows: curvature.network_rows,
            },
            linearized: cost.linearized.as_ref().map(|cost| LinearizedTakes {
                items: cost.n_items,
                rows: cost.n_rows,
                bytes: cost.row_bytes,
                peak_bytes: cost.peak_bytes,
                network_rows: cost.network_rows,
                multiplications: cost.multiplications,
            }),
            words: cost.to_string(),
        }
    }
}

impl std::fmt::Display for Estimated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let share = significant(100.0 * self.adapter_weights as f64 / self.all_weights.max(1) as f64);
        writeln!(f, "items: {}", self.about)?;
        writeln!(f, "adapter: {} of {} weights ({share} %)", self.adapter_weights, self.all_weights)?;
        if let Some(rows) = self.training_rows {
            writeln!(f, "training: {rows} rows forward and backward")?;
        }
        if let Some(activations) = self.activations {
            writeln!(f, "activations: {activations}, for each worker")?;
        }
        if let Some(noise) = &self.noise {
            writeln!(f, "noise: {}", noise.words)?;
        }
        writeln!(f, "posterior: {}", self.posterior.words)?;
        write!(f, "memory: {} at most, beside the network and a batch", bytes_text(self.peak_bytes))
    }
}
