//! `bayes-lora fit`.

use crate::base::{adapted, told_start_of};
use crate::fitting::{Fitting, PosteriorReport, found_by};
use crate::flags::{ItemArguments, PosteriorArguments, QuestionArguments, Shard};
use crate::kind::Kind;
use crate::kinds::{Job, Source, Subject, with_subject};
use crate::session::{Outcome, Session};
use bayes_lora::POSTERIOR_FILE;
use bayes_lora::curvature::{Curvature, fit_curvature_shard};
use bayes_lora::lora::summarize;
use bayes_lora::models::{Classifier, Dataset};
use bayes_lora::outputs::{claim_file, save_or_rescue};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Find the posterior of an adapter that exists, PEFT's or ours
///
/// The items should be those that the adapter was trained on, asked in the same way: the posterior says what they leave open, and
/// remembers how they were asked. The adapter's own files are only read. Ctrl-C keeps the work, and the same command goes on.
#[derive(Args)]
#[command(
    after_help = "Example:\n  bayes-lora fit --model SmolLM2-135M --adapter my_adapter --train arc_easy.jsonl --form continuation --prompt question"
)]
pub struct Fit {
    /// The base: a Hugging Face directory (config.json, safetensors, tokenizer.json), or a GGUF file
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The adapter's directory, as PEFT writes it
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// The posterior's file, where it is not to lie beside the adapter
    #[arg(long, value_name = "FILE")]
    posterior: Option<PathBuf>,
    /// Items that the adapter was trained on, JSONL or JSONL.gz
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    /// Sum the items I, I + K, … alone, for `merge curvature`: `I/K`, or `auto/K` with the scheduler's index
    #[arg(long, value_name = "I/K", conflicts_with_all = ["held_out", "n_held_out"])]
    shard: Option<Shard>,
    /// Keep unfinished work in a folder there, instead of beside the posterior
    #[arg(long, value_name = "DIR")]
    unfinished: Option<PathBuf>,
    #[command(flatten)]
    items: ItemArguments,
    #[command(flatten)]
    questions: QuestionArguments,
    #[command(flatten)]
    fit: PosteriorArguments,
}

impl Fit {
    pub fn run(&self, session: &Session) -> Outcome {
        let posterior = self.posterior.clone().unwrap_or_else(|| self.adapter.join(POSTERIOR_FILE));
        let file = match self.shard {
            None => posterior,
            Some(shard) => posterior.with_extension(format!("shard-{shard}.safetensors")),
        };
        // what is to be written is tried before the work, whatever its size
        claim_file(&file, 0).map_err(|error| match self.posterior {
            None => format!("{error}; `--posterior` takes the posterior elsewhere"),
            Some(_) => error.to_string(),
        })?;
        let start = told_start_of(&self.adapter, session);
        let source = Source {
            model: &self.model,
            train: &self.train,
            validation: None,
            held_out: self.fit.held_out.as_deref(),
            start,
            items: &self.items,
            questions: &self.questions,
            session,
        };
        // a folder of the program's own, which it may remove
        let unfinished = file.with_extension("unfinished");
        let unfinished = match (&self.unfinished, unfinished.file_name()) {
            (Some(dir), Some(name)) => dir.join(name),
            _ => unfinished,
        };
        let job = Fitted { fit: self, start, session, file: &file, unfinished: &unfinished };
        let made = with_subject(&source, job)?;
        if self.shard.is_none() {
            session.keep_settings(&file.with_extension("run.toml"))?;
        }
        if unfinished.try_exists()? {
            std::fs::remove_dir_all(&unfinished)?;
        }
        session.show(&made)
    }
}

struct Fitted<'a> {
    fit: &'a Fit,
    start: Option<u64>,
    session: &'a Session,
    file: &'a Path,
    unfinished: &'a Path,
}

impl Job for Fitted<'_> {
    type Result = Made;

    fn run<M: Classifier + 'static, D: Dataset<Input = M::Input>>(self, subject: Subject<M, D>) -> Outcome<Made> {
        let Self { fit, start, session, file, unfinished } = self;
        let Subject { model, data } = subject;
        let control = session.control_with(unfinished)?;
        let (model, lora) = adapted(model, &fit.adapter, start)?;
        session.say(summarize(&model));
        let (flags, items) = (&fit.fit, &fit.items);
        let (limits, seed, noise_variance) = (fit.questions.limits(), items.seed, items.noise_variance);
        let fitting = Fitting { flags, limits, seed, noise_variance };
        let Some(shard) = fit.shard else {
            let fitted = fitting.fit(model, lora, &data, file, (session, &control))?;
            let told = (found_by(flags, data.splits.held_out.is_some()), fitted.remarks());
            return Ok(Made::Posterior(PosteriorReport::save(&fitted.model, &fitted.laplace, file, told)?));
        };
        if data.about.kind == Kind::Values && noise_variance.is_none() {
            return Err(
                "the noise variance is found on all items, which a shard does not see: give `--noise-variance`".into(),
            );
        }
        session.say("the prior is found when the sums are merged");
        let bayes = fitting.bayes(lora, &data.likelihood).resolved();
        let train = &data.splits.train;
        let sums = fit_curvature_shard(&model, train, &bayes.curvature, (shard.index, shard.of), &control)?;
        claim_file(file, sums.curvature.bytes() as u64)?;
        save_or_rescue(file, |path| sums.save(path))?;
        Ok(Made::Shard(ShardReport::new(file, shard, &sums.curvature, train.n_items())))
    }
}

/// What a fit made.
#[derive(Serialize)]
#[serde(untagged)]
enum Made {
    Posterior(PosteriorReport),
    Shard(ShardReport),
}

/// What to tell of the sums of one shard.
#[derive(Serialize)]
struct ShardReport {
    shard: PathBuf,
    index: usize,
    of: usize,
    /// Of this shard.
    items: usize,
    /// Of all shards.
    all_items: usize,
    structure: String,
}

impl ShardReport {
    fn new(file: &Path, Shard { index, of }: Shard, sums: &Curvature, all_items: usize) -> Self {
        let structure = sums.config.structure.to_string();
        Self { shard: file.to_path_buf(), index, of, items: sums.n_data, all_items, structure }
    }
}

impl std::fmt::Display for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Posterior(posterior) => posterior.fmt(f),
            Self::Shard(ShardReport { shard, index, of, items, all_items, structure }) => {
                let file = shard.display();
                write!(f, "shard {index} of {of}: {file}, {structure} sums of {items} of {all_items} items")
            }
        }
    }
}
