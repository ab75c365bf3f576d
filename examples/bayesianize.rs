//! Makes an adapter that exists Bayesian: a PEFT directory, its base model and labelled items in, its posterior out, as
//! `posterior.safetensors` beside the adapter or as `--posterior` says. The adapter's own files are only read.
//!
//! ```sh
//! cargo run --release --example bayesianize -- --model SmolLM2-135M-Instruct --adapter my_adapter \
//!   --train arc_easy/train.jsonl.gz --form continuation --prompt question --n-train 1000
//! ```
//!
//! The items should be those that the adapter was trained on, asked in the same way: the posterior says what they leave open, and
//! remembers how they were asked.
//! Without `--model` it works offline, in seconds: on stories260K and MMLU's areas, with an adapter that it first trains and
//! leaves in `target/bayesianize/adapter`, as if somebody had made it.
//!
//! Ctrl-C ends the fit with its work saved, and the same command goes on from there.

mod answers;
#[path = "experiment/base.rs"]
mod base;
#[path = "experiment/ending.rs"]
mod ending;
#[path = "experiment/items.rs"]
mod items;
#[path = "offline/command_line.rs"]
mod offline;
#[path = "experiment/questions.rs"]
mod questions;

use answers::{Answerer, claim_answers};
use base::load_base;
use bayes_lora::bayes_lora::{BayesLoraConfig, FittedBayesLora};
use bayes_lora::checkpoints::Checkpoints;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure};
use bayes_lora::data::{EncodedDataset, Tokenizer};
use bayes_lora::lora::{LoraConfig, attach, load_peft, save_peft, summarize};
use bayes_lora::models::PromptClassifier;
use bayes_lora::number::significant;
use bayes_lora::outputs::{claim_dir, claim_file, save_or_rescue};
use bayes_lora::posterior::POSTERIOR_FILE;
use bayes_lora::progress::Control;
use bayes_lora::train::{Trainer, TrainerConfig};
use clap::Parser;
use ending::program;
use items::ItemArguments;
use offline::command_line;
use questions::QuestionArguments;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    about = "Put a posterior beside an existing PEFT adapter; without --model, offline on what ships with the crate"
)]
struct Arguments {
    /// Hugging Face directory of the base: config.json, safetensors, tokenizer.json.
    #[arg(long)]
    model: PathBuf,
    /// The adapter's directory, as PEFT writes it.
    #[arg(long)]
    adapter: PathBuf,
    /// The posterior's file, where it is not to lie beside the adapter.
    #[arg(long)]
    posterior: Option<PathBuf>,
    #[command(flatten)]
    items: ItemArguments,
    #[command(flatten)]
    questions: QuestionArguments,
    /// Take so many of the training items, drawn by `--seed` as `multiple_choice` draws them, instead of all.
    #[arg(long)]
    n_train: Option<usize>,
    /// Tune the prior precision on these labelled items, which the adapter was not trained on, instead of by evidence.
    #[arg(long)]
    held_out: Option<PathBuf>,
    /// How the curvature is held: "Kronecker", "EKFAC", "core space", "function space" …
    #[arg(long, default_value_t = CurvatureStructure::Kronecker)]
    structure: CurvatureStructure,
    /// Keep unfinished work in the folder `bayesianize` of this directory, instead of in one beside the
    /// posterior that is named after it, `posterior.unfinished`. The folder is removed when all is done.
    #[arg(long)]
    unfinished: Option<PathBuf>,
    /// Where there is no adapter, train one on the training items for six epochs.
    #[arg(long)]
    train_missing: bool,
    /// Answer the questions of this file too, as `serve_file` does; their choices are the classes.
    #[arg(long, requires = "predictions")]
    predict: Option<PathBuf>,
    /// Where the answers go.
    #[arg(long, requires = "predict")]
    predictions: Option<PathBuf>,
}

fn main() -> ExitCode {
    let more = ["--n-train=256", "--train-missing", "--prompt=area", "--classes=A,B,C,D", "--max-tokens=64"];
    let arguments = Arguments::parse_from(command_line(("--train", "train.jsonl.gz"), &more));
    program(|control| run(&arguments, control))
}

fn run(arguments: &Arguments, control: Control) -> Result<(), Box<dyn Error>> {
    let Arguments { unfinished, questions, .. } = arguments;
    let file = arguments.posterior_file();
    // what is to be written is tried before the work, whatever its size
    claim_file(&file, 0).map_err(|error| match arguments.posterior {
        None => format!("{error}; `--posterior` takes the posterior elsewhere"),
        Some(_) => error.to_string(),
    })?;
    if let (Some(source), Some(out)) = (&arguments.predict, &arguments.predictions) {
        claim_answers(source, out)?;
    }
    let unfinished = match unfinished {
        Some(dir) => dir.join("bayesianize"),
        None => file.with_extension("unfinished"),
    };
    let control = control.with_workers(2)?.with_signals()?;
    let kept = control.clone().with_checkpoints(Checkpoints::new(&unfinished))?;
    let fitted = arguments.fit(&kept).map_err(|error| match kept.is_cancelled() {
        true => format!("{error}; the same command goes on from there").into(),
        false => error,
    })?;
    let laplace = &fitted.laplace;
    save_or_rescue(&file, |path| laplace.save(path, &fitted.model))?;
    let how = if arguments.held_out.is_some() { "held-out items" } else { "evidence" };
    println!("prior precision by {how}: {}", laplace.prior_precisions());
    match laplace.log_likelihood() {
        Some(_) => println!(
            "log evidence: {} nats over the training items",
            significant(laplace.log_marginal_likelihood(laplace.prior_precisions().clone())?)
        ),
        None => println!("log evidence: unknown, as a training item has no label"),
    }
    let n_adapter = summarize(&fitted.model).n_adapter;
    println!("effective dimension: {} of {n_adapter} weights", significant(laplace.effective_dimension()));
    fitted.remarks().iter().for_each(|remark| println!("note: {remark}"));
    let (bytes, seconds) = (fs::metadata(&file)?.len(), significant(fitted.curvature_seconds));
    println!("wrote {}, {bytes} bytes, in {seconds} s", file.display());
    if unfinished.try_exists()? {
        fs::remove_dir_all(&unfinished)?;
    }

    if let (Some(source), Some(out)) = (&arguments.predict, &arguments.predictions) {
        let tokenizer = Tokenizer::from_dir(&arguments.model)?;
        let (encoding, limits) = (questions.encoding(), questions.limits());
        let answerer = Answerer { lm: fitted.model.lm, laplace: fitted.laplace, tokenizer, encoding, limits, control };
        println!("{}: {}", out.display(), answerer.answer_into_file(source, out)?.summary()?);
    }
    Ok(())
}

impl Arguments {
    fn posterior_file(&self) -> PathBuf {
        self.posterior.clone().unwrap_or_else(|| self.adapter.join(POSTERIOR_FILE))
    }

    /// The adapter with its posterior.
    fn fit(&self, control: &Control) -> Result<FittedBayesLora<PromptClassifier>, Box<dyn Error>> {
        let (train, held_out) = self.data()?;
        let lm = load_base(&self.model)?;
        let base = PromptClassifier::new(lm, &train)?;
        if self.train_missing && !self.adapter.join("adapter_config.json").try_exists()? {
            claim_dir(&self.adapter, 0)?;
            self.train_adapter(base.clone(), &train, control)?;
        }
        let (model, lora) = load_peft(base, &self.adapter)?;
        println!("{}", summarize(&model));
        let limits = self.questions.limits();
        let curvature = CurvatureConfig::new(self.structure).with_limits(limits);
        let bayes = BayesLoraConfig::new(lora).with_curvature(curvature).with_limits(limits).init()?;
        let cost = bayes.estimate(&model, &train)?;
        println!("{} items; {cost}", train.len());
        // a posterior takes about the room of its sums, and some for the header and the prior's centre
        claim_file(self.posterior_file(), cost.curvature.bytes + cost.curvature.bytes / 4)?;
        let fitted = bayes.fit_laplace_with(model, &train, control)?;
        match held_out {
            None => Ok(fitted),
            Some(held_out) => Ok(fitted.tune_prior(&held_out, control)?),
        }
    }

    /// Training items, and held-out ones if there are any; prints one as the model sees it.
    fn data(&self) -> Result<(EncodedDataset, Option<EncodedDataset>), Box<dyn Error>> {
        let tokenizer = Tokenizer::from_dir(&self.model)?;
        let encoding = self.questions.encoding();
        let train = self.items.read(&self.items.train)?;
        let train = match self.n_train {
            None => train,
            Some(n) => train.sample(n, self.items.seed)?,
        };
        let train = encoding.encode(&train, &tokenizer)?;
        println!("{}", train.example(0, &tokenizer)?);
        let Some(file) = &self.held_out else { return Ok((train, None)) };
        let held_out = encoding.encode(&self.items.read(file)?, &tokenizer)?;
        // the largest items may lie in one of them only
        let n_classes = train.n_classes.max(held_out.n_classes);
        Ok((train.with_classes(n_classes)?, Some(held_out.with_classes(n_classes)?)))
    }

    fn train_adapter(
        &self,
        base: PromptClassifier,
        train: &EncodedDataset,
        control: &Control,
    ) -> Result<(), Box<dyn Error>> {
        let lora = LoraConfig::new(8).with_target_modules(["q_proj", "v_proj"]);
        let (limits, seed) = (self.questions.limits(), self.items.seed);
        let trainer =
            TrainerConfig::default().with_epochs(6).with_learning_rate(2e-3).with_limits(limits).with_seed(seed);
        let trained = Trainer::new(trainer)?.fit(attach(base, &lora, seed)?, train, None, control)?;
        let base_model = self.model.display().to_string();
        save_or_rescue(&self.adapter, |dir| save_peft(&trained.model, &lora, &base_model, dir))?;
        println!("{} had no adapter: trained one in {} s", self.adapter.display(), significant(trained.report.seconds));
        Ok(())
    }
}
