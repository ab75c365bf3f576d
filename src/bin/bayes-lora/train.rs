//! `bayes-lora train`.

use crate::fitting::{Fitting, PosteriorReport, found_by};
use crate::flags::{AdapterArguments, ItemArguments, PosteriorArguments, QuestionArguments, TrainingArguments};
use crate::kinds::{About, Job, Source, Subject, with_subject};
use crate::session::{Outcome, Session};
use bayes_lora::POSTERIOR_FILE;
use bayes_lora::lora::{attach, save_peft, summarize};
use bayes_lora::models::{Classifier, Dataset};
use bayes_lora::number::significant;
use bayes_lora::outputs::{claim_dir, save_or_rescue};
use bayes_lora::train::{EpochRecord, TrainOutcome, Trainer};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Fine-tune an adapter, then find its posterior
///
/// What lines hold says what is learned: questions with choices, texts with a class or a number, preferences, texts.
/// The directory gets the adapter as PEFT writes it, `posterior.safetensors` and `run.toml`, which repeats the run.
/// Ctrl-C keeps the work in `unfinished` there, and the same command goes on from it.
#[derive(Args)]
#[command(
    after_help = "Example:\n  bayes-lora train --model SmolLM2-135M --train arc_easy.jsonl --form continuation --prompt question --out my_adapter"
)]
pub struct Train {
    /// The base: a Hugging Face directory (config.json, safetensors, tokenizer.json), or a GGUF file
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Items to learn, JSONL or JSONL.gz
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    /// Items to validate on after every epoch
    #[arg(long, value_name = "FILE")]
    validation: Option<PathBuf>,
    /// Directory for the adapter and its posterior
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Leave the posterior out
    #[arg(long, conflicts_with_all = ["structure", "prior", "held_out", "n_held_out", "fisher"])]
    no_posterior: bool,
    /// Keep unfinished work in a folder there, instead of in OUT/unfinished
    #[arg(long, value_name = "DIR")]
    unfinished: Option<PathBuf>,
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

impl Train {
    pub fn run(&self, session: &Session) -> Outcome {
        claim_dir(&self.out, 0)?;
        let source = Source {
            model: &self.model,
            train: &self.train,
            validation: self.validation.as_deref(),
            held_out: self.posterior.held_out.as_deref(),
            start: None,
            items: &self.items,
            questions: &self.questions,
            session,
        };
        // a folder of the program's own, which it may remove
        let unfinished = match &self.unfinished {
            Some(dir) => dir.join("train"),
            None => self.out.join("unfinished"),
        };
        let trained = with_subject(&source, Training { train: self, session, unfinished: unfinished.clone() })?;
        if unfinished.try_exists()? {
            std::fs::remove_dir_all(&unfinished)?;
        }
        session.show(&trained)
    }
}

struct Training<'a> {
    train: &'a Train,
    session: &'a Session,
    unfinished: PathBuf,
}

impl Job for Training<'_> {
    type Result = Trained;

    fn run<M: Classifier + 'static, D: Dataset<Input = M::Input>>(self, subject: Subject<M, D>) -> Outcome<Trained> {
        let Self { train: Train { out, items, questions, .. }, session, unfinished } = self;
        let Subject { model, data } = subject;
        let (limits, seed) = (questions.limits(), items.seed);
        let control = session.control_with(&unfinished)?;
        let lora = self.train.adapter.lora();
        let trainer = self.train.training.trainer(limits, seed).with_likelihood(data.likelihood.clone());
        let start = attach(model, &lora, seed)?;
        let summary = summarize(&start);
        session.say(&summary);
        claim_dir(out, 4 * summary.n_adapter as u64)?;
        let (items, validation) = (&data.splits.train, data.splits.validation.as_ref());
        let TrainOutcome { model, report, .. } = Trainer::new(trainer)?.fit(start, items, validation, &control)?;
        let base = self.train.model.display().to_string();
        // kept before anything else can fail
        save_or_rescue(out, |dir| save_peft(&model, &lora, &base, dir))?;
        // by which `fit` knows the start of this adapter
        session.keep_settings(&out.join("run.toml"))?;
        report.epochs.iter().for_each(|epoch| session.say(in_words(epoch)));
        let posterior = match self.train.no_posterior {
            true => None,
            false => {
                let flags = &self.train.posterior;
                let fitting = Fitting { flags, limits, seed, noise_variance: self.train.items.noise_variance };
                let file = out.join(POSTERIOR_FILE);
                let fitted = fitting.fit(model.valid(), lora, &data, &file, (session, &control)).map_err(|error| {
                    format!("the adapter is trained and kept in {}, but has no posterior: {error}", out.display())
                })?;
                let by = found_by(flags, data.splits.held_out.is_some());
                let told = (by, fitted.remarks());
                Some(PosteriorReport::save(&fitted.model, &fitted.laplace, &file, told)?)
            }
        };
        Ok(Trained {
            adapter: out.clone(),
            about: data.about,
            weights: summary.n_adapter,
            steps: report.steps,
            skipped_steps: report.skipped_steps,
            seconds: report.seconds,
            epochs: report.epochs,
            posterior,
        })
    }
}

fn in_words(epoch: &EpochRecord) -> String {
    let EpochRecord { epoch, train_nll, validation_nll, validation_accuracy } = epoch;
    let mut words = format!("epoch {epoch}: training NLL {}", significant(*train_nll));
    for (name, value) in [("NLL", validation_nll), ("accuracy", validation_accuracy)] {
        words += &value.map_or_else(String::new, |value| format!(", validation {name} {}", significant(value)));
    }
    words
}

/// What training made.
#[derive(Serialize)]
struct Trained {
    adapter: PathBuf,
    #[serde(flatten)]
    about: About,
    weights: usize,
    steps: usize,
    skipped_steps: usize,
    /// Of the training passes alone, over all starts of a run that was resumed.
    seconds: f64,
    epochs: Vec<EpochRecord>,
    posterior: Option<PosteriorReport>,
}

impl std::fmt::Display for Trained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (dir, weights, steps) = (self.adapter.display(), self.weights, self.steps);
        let seconds = significant(self.seconds);
        write!(f, "adapter: {dir}, {weights} weights, {steps} steps in {seconds} s")?;
        if self.skipped_steps > 0 {
            write!(f, "\nnote: {} steps were skipped, as a loss or gradient was not finite", self.skipped_steps)?;
        }
        self.posterior.as_ref().map_or(Ok(()), |posterior| write!(f, "\n{posterior}"))
    }
}
