//! `bayes-lora merge curvature`.

use crate::base::{adapted, told_start_of};
use crate::fitting::{Fitting, PosteriorReport, found_by};
use crate::flags::{ItemArguments, PosteriorArguments, QuestionArguments};
use crate::kinds::{AdaptedJob, Job, Opening, Source, Subject, with_adapted, with_subject};
use crate::session::{Outcome, Session};
use bayes_lora::POSTERIOR_FILE;
use bayes_lora::curvature::{Curvature, CurvatureShard};
use bayes_lora::likelihood::{Gaussian, SharedLikelihood};
use bayes_lora::lora::Adaptable;
use bayes_lora::models::{Classifier, Dataset};
use bayes_lora::number::significant;
use bayes_lora::outputs::claim_file;
use bayes_lora::posterior::Laplace;
use clap::Args;
use std::path::{Path, PathBuf};

/// Join the sums that `fit --shard` left into one posterior
///
/// Every shard must be there, once: those that are missing, doubled or of other data are named. A matched prior and one by the evidence at
/// the mode are found on the training items (`--train`, with the flags of the fits); `--prior evidence` and a number need the sums alone.
/// `--structure`, `--fisher` and `--noise-variance` are the sums' own: they may be repeated, and are refused where they differ.
#[derive(Args)]
#[command(
    after_help = "Example:\n  bayes-lora merge curvature my_adapter/posterior.shard-*.safetensors --model SmolLM2-135M --adapter my_adapter --prior evidence"
)]
pub struct MergeCurvature {
    /// Files of sums, in any order
    #[arg(required = true, value_name = "SHARD")]
    shards: Vec<PathBuf>,
    /// The base: a Hugging Face directory (config.json, safetensors, tokenizer.json), or a GGUF file
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The adapter's directory, as PEFT writes it
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// The posterior's file, where it is not to lie beside the adapter
    #[arg(long, value_name = "FILE")]
    posterior: Option<PathBuf>,
    /// The items of all shards, JSONL or JSONL.gz
    #[arg(long, value_name = "FILE")]
    train: Option<PathBuf>,
    #[command(flatten)]
    items: ItemArguments,
    #[command(flatten)]
    questions: QuestionArguments,
    #[command(flatten)]
    fit: PosteriorArguments,
}

impl MergeCurvature {
    pub fn run(&self, session: &Session) -> Outcome {
        let file = self.posterior.clone().unwrap_or_else(|| self.adapter.join(POSTERIOR_FILE));
        claim_file(&file, 0)?;
        let curvature = CurvatureShard::merge(&self.shards)?;
        self.check_against(&curvature)?;
        session.say(format_args!("{} shards, {} items", self.shards.len(), curvature.n_data));
        claim_file(&file, curvature.bytes() as u64)?;
        let start = told_start_of(&self.adapter, session);
        let report = match &self.train {
            Some(train) => {
                let source = Source {
                    model: &self.model,
                    train,
                    validation: None,
                    held_out: self.fit.held_out.as_deref(),
                    start,
                    items: &self.items,
                    questions: &self.questions,
                    session,
                };
                with_subject(&source, Merging { merge: self, start, curvature, file: &file, session })?
            }
            None if self.fit.prior.0.needs_training_items() || self.fit.held_out.is_some() => {
                return Err("a prior that is matched, or found at the mode or on held-out items, needs the training items: give `--train`, or `--prior evidence`".into());
            }
            None if !self.items.choosing().is_empty() => {
                let flags = self.items.choosing().join(", ");
                return Err(format!("{flags}: no items are read without `--train`").into());
            }
            None => {
                let asked = curvature.asked.clone();
                let opening = Opening::of_asked((&self.model, &self.adapter), asked, &self.questions, session);
                with_adapted(&opening, Merging { merge: self, start, curvature, file: &file, session })?
            }
        };
        session.keep_settings(&file.with_extension("run.toml"))?;
        session.show(&report)
    }
}

impl MergeCurvature {
    /// Refuses flags that say otherwise than the sums: what they are of was said when they were summed.
    fn check_against(&self, sums: &Curvature) -> Outcome {
        let mut differences = self.fit.differences(&sums.config);
        let there = sums.config.likelihood_or_default();
        let said = self.items.noise_variance.map(|noise_variance| SharedLikelihood::from(Gaussian { noise_variance }));
        if let Some(said) = said.filter(|said| *said != there) {
            differences.push(format!("`--noise-variance` says {said}, and the sums are of {there}"));
        }
        if differences.is_empty() { Ok(()) } else { Err(differences.join("; ").into()) }
    }
}

struct Merging<'a> {
    merge: &'a MergeCurvature,
    start: Option<u64>,
    curvature: Curvature,
    file: &'a Path,
    session: &'a Session,
}

impl AdaptedJob for Merging<'_> {
    type Result = PosteriorReport;

    fn run<M: Adaptable>(self, model: M) -> Outcome<PosteriorReport> {
        let laplace = Laplace::new(&model, &self.curvature, &self.merge.fit.laplace())?;
        let remarks = laplace.prior_searches().iter().filter_map(|search| search.remark()).collect();
        PosteriorReport::save(&model, &laplace, self.file, (found_by(&self.merge.fit, false), remarks))
    }
}

impl Job for Merging<'_> {
    type Result = PosteriorReport;

    fn run<M: Classifier + 'static, D: Dataset<Input = M::Input>>(
        self,
        Subject { model, data }: Subject<M, D>,
    ) -> Outcome<PosteriorReport> {
        let Self { merge, start, curvature, file, session } = self;
        let (model, lora) = adapted(model, &merge.adapter, start)?;
        let (flags, items) = (&merge.fit, &merge.items);
        let (limits, seed, noise_variance) = (merge.questions.limits(), items.seed, items.noise_variance);
        let fitting = Fitting { flags, limits, seed, noise_variance };
        let likelihood = curvature.config.likelihood_or_default();
        let bayes = fitting.bayes(lora, &likelihood).init()?;
        let fitted = bayes.fit_laplace_on(model, curvature, &data.splits.train, &session.control())?;
        // sums of some items and a prior of others would be nobody's posterior
        fitted.laplace.fitted_on().check(&data.splits.train)?;
        let fitted = match &data.splits.held_out {
            None => fitted,
            Some(held_out) => fitted.tune_prior(held_out, &session.control())?,
        };
        let told = (found_by(flags, data.splits.held_out.is_some()), fitted.remarks());
        session.say(format_args!("posterior in {} s", significant(fitted.curvature_seconds)));
        PosteriorReport::save(&fitted.model, &fitted.laplace, file, told)
    }
}
