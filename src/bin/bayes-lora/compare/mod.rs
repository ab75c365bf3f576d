//! `bayes-lora compare`.

mod data;
mod methods;
mod verdict;

use crate::base::{load_base, load_network, tokenizer, with_network};
use crate::flags::{AdapterArguments, QuestionArguments, Shard, TrainingArguments};
use crate::kind::Kind;
use crate::kinds::check_foreign;
use crate::kinds::heads::classifier;
use crate::kinds::preferences::rewards;
use crate::session::{Outcome, Session};
use bayes_lora::calibrate::ConformalScore;
use bayes_lora::compare::{About, Comparison, MethodSelection, Protocol, Report, ReportOptions, Run, Shifted, Splits};
use bayes_lora::data::{AnswerForm, EncodedDataset, Encoding, Task, Tokenizer, ValuedDataset, ValuedTask};
use bayes_lora::likelihood::{SharedLikelihood, TargetSpace};
use bayes_lora::methods::Recipe;
use bayes_lora::models::{Classifier, Dataset, PromptClassifier, TokenBatch};
use bayes_lora::outputs::claim_dir;
use bayes_lora::train::Snapshots;
use clap::Args;
use data::{DataArguments, Drawn, Parts};
use methods::{MethodArguments, list};
use serde::Serialize;
use std::path::PathBuf;
use verdict::Verdict;

/// Compare methods of uncertainty on your model and task: one report in HTML, Markdown and JSON
///
/// Lines are questions with choices, texts with labels or with numbers, or preferences; of these a pair counts as a question with two answers.
#[derive(Args)]
#[command(after_help = format!("\
Every finished cell (a method under a seed) is a file in --out, so that a run that was interrupted goes on there. With --shard, several
processes do some of the seeds each; a last call without it makes the report.

{}
Example:
  bayes-lora compare --model SmolLM2-135M --train train.jsonl --test test.jsonl --seeds 0,1,2 --out comparison", list()))]
pub struct Compare {
    /// The base: a Hugging Face directory (config.json, safetensors, tokenizer.json), or a GGUF file
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    data: DataArguments,
    /// Directory for the cells and the report
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Seeds: each draws its items, trains, and has a row of its own
    #[arg(long, value_delimiter = ',', value_name = "SEEDS", default_value = "0")]
    seeds: Vec<u64>,
    /// Do the seeds of one part of several, I/K or auto/K, and make no report
    #[arg(long, value_name = "I/K")]
    shard: Option<Shard>,
    /// A row with vector scaling behind every method too
    #[arg(long)]
    vector_scaling: bool,
    /// Scores of the conformal sets: lac, aps, raps [default: lac]
    #[arg(long, value_delimiter = ',', value_name = "NAMES", value_parser = set_score)]
    sets: Vec<ConformalScore>,
    #[command(flatten)]
    methods: MethodArguments,
    #[command(flatten)]
    questions: QuestionArguments,
    #[command(flatten)]
    adapter: AdapterArguments,
    #[command(flatten)]
    training: TrainingArguments,
}

impl Compare {
    pub fn run(&self, session: &Session) -> Outcome {
        // said before anything is read
        self.methods.check()?;
        claim_dir(&self.out, 0)?;
        session.keeps_work();
        let kind = Kind::of(self.data.task, &self.data.train)?;
        check_foreign(&self.data.train, kind, &[self.questions.foreign(kind), self.foreign(kind)].concat())?;
        match kind {
            Kind::Choices => self.choices(session),
            Kind::Labels => self.labels(session),
            Kind::Values => self.values(session),
            Kind::Preferences => self.preferences(session),
            Kind::Texts => {
                Err("texts: questions with choices, texts with labels or numbers, and preferences can be compared"
                    .into())
            }
        }
    }

    /// Flags that were given and mean nothing for this kind.
    fn foreign(&self, kind: Kind) -> Vec<&'static str> {
        let given = [
            (self.vector_scaling, "--vector-scaling"),
            (!self.sets.is_empty(), "--sets"),
            (self.data.other.is_some(), "--other"),
        ];
        given.into_iter().filter_map(|(is_given, flag)| (is_given && kind == Kind::Values).then_some(flag)).collect()
    }

    fn choices(&self, session: &Session) -> Outcome {
        let tokenizer = tokenizer(&self.model)?;
        let all = self.data.read(|file| Ok(Task::from_jsonl(file)?))?;
        let lm = load_base(&self.model, session)?;
        let base = |train: &EncodedDataset, _| Ok(PromptClassifier::new(lm.clone(), train)?);
        self.compare(&all, &self.questions.encoding(), &tokenizer, base, session)
    }

    fn labels(&self, session: &Session) -> Outcome {
        let tokenizer = tokenizer(&self.model)?;
        let mut labels: Option<Vec<String>> = None;
        let all = self.data.read(|file| {
            let task = Task::from_labelled_jsonl(file, labels.as_deref())?;
            // the training file's, which is read first, are everybody's
            labels.get_or_insert_with(|| task.items.first().map_or_else(Vec::new, |item| item.choices.clone()));
            Ok(task)
        })?;
        let encoding = self.questions.of_texts(AnswerForm::labels(labels.unwrap_or_default()));
        with_network!(load_network(&self.model, session)?, |network, head| {
            let base = |train: &EncodedDataset, seed| classifier(network.clone(), head.clone(), train, seed);
            self.compare(&all, &encoding, &tokenizer, base, session)
        })
    }

    fn values(&self, session: &Session) -> Outcome {
        // said before the network is loaded
        self.methods.check_about(TargetSpace::Continuous)?;
        let tokenizer = tokenizer(&self.model)?;
        let all = self.data.read(|file| Ok(ValuedTask::from_jsonl(file)?))?;
        let encoding = self.questions.of_texts(AnswerForm::Value);
        with_network!(load_network(&self.model, session)?, |network, head| {
            let base = |train: &ValuedDataset, seed| classifier(network.clone(), head.clone(), train.encoded(), seed);
            self.compare(&all, &encoding, &tokenizer, base, session)
        })
    }

    /// Each pair as a question with two answers, whose logits are their rewards.
    fn preferences(&self, session: &Session) -> Outcome {
        let tokenizer = tokenizer(&self.model)?;
        let all = self.data.read(|file| Ok(Task::from_preferences_jsonl(file)?))?;
        let encoding = self.questions.of_texts(AnswerForm::Rewards);
        with_network!(load_network(&self.model, session)?, |network, head| {
            let base = |train: &EncodedDataset, seed| rewards(network.clone(), head.clone(), train, seed);
            self.compare(&all, &encoding, &tokenizer, base, session)
        })
    }

    /// All seeds of this process, and the report where it does all of them.
    fn compare<M: Classifier<Input = TokenBatch>, T: Drawn>(
        &self,
        all: &Parts<T>,
        encoding: &Encoding,
        tokenizer: &Tokenizer,
        base: impl Fn(&T::Data, u64) -> Outcome<M>,
        session: &Session,
    ) -> Outcome {
        let is_mine = |place: usize| self.shard.is_none_or(|shard| shard.takes(place));
        let mut runs = Vec::new();
        for (_, &seed) in self.seeds.iter().enumerate().filter(|(place, _)| is_mine(*place)) {
            let parts = self.data.drawn(all, seed)?;
            let encoded = T::encode(&parts, encoding, tokenizer)?;
            let example = T::encoded(&encoded.train).example(0, tokenizer)?;
            if runs.is_empty() {
                session.say(&example);
            }
            session.say(format_args!("seed {seed}"));
            let about = About {
                protocol: Protocol::Clean.name().into(),
                task: all.train.name().into(),
                model: self.model.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                prompt_hash: encoding.template.fingerprint(),
                prompt_example: example,
                classes: parts.train.classes(&encoded.train),
            };
            let model = base(&encoded.train, seed)?;
            // that of all training items: seeds have one recipe
            let comparison = self.comparison(all.train.likelihood(), session)?;
            runs.push(comparison.run(&model, &about, &splits(&encoded), seed)?);
        }
        self.leave(runs, session)
    }

    fn comparison<M: Classifier, D: Dataset<Input = M::Input>>(
        &self,
        likelihood: SharedLikelihood,
        session: &Session,
    ) -> Outcome<Comparison<M, D>> {
        let (limits, space) = (self.questions.limits(), likelihood.target_space());
        let mut trainer = self.training.trainer(limits, 0).with_likelihood(likelihood);
        // every seed has its own
        trainer.seed = None;
        trainer.snapshots = Snapshots { count: self.methods.members, from: 0.5 };
        Ok(Comparison::new(Recipe::new(self.adapter.lora()).with_trainer(trainer))
            .with_methods(self.methods.methods(space)?)
            .with_limits(limits)
            .with_dir(&self.out)
            .with_control(session.control()))
    }

    fn leave(&self, runs: Vec<Run>, session: &Session) -> Outcome {
        if let Some(shard) = self.shard {
            let seeds = runs.iter().map(|run| run.setting.seed).collect();
            return session.show(&Part { shard: shard.to_string(), seeds, out: self.out.clone() });
        }
        let scaling = if self.vector_scaling { MethodSelection::All } else { MethodSelection::None };
        let title = runs.first().map_or_else(String::new, |run| format!("{}, {}", run.setting.task, run.setting.model));
        let options = ReportOptions::default().with_title(title).with_vector_scaling(scaling);
        let options = if self.sets.is_empty() { options } else { options.with_set_scores(self.sets.clone()) };
        let report = Report::new(runs, options)?;
        let files = report.save(&self.out)?;
        let pictures = report.save_forest_plots(&self.out)?.into_iter().map(|picture| picture.png).collect();
        session.keep_settings(&self.out.join("run.toml"))?;
        match Verdict::new(&report, files.html, pictures) {
            Some(verdict) => session.show(&verdict),
            None => Err("no seed".into()),
        }
    }
}

/// What a shard did.
#[derive(Serialize)]
struct Part {
    shard: String,
    seeds: Vec<u64>,
    out: PathBuf,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (n, out) = (self.seeds.len(), self.out.display());
        write!(f, "shard {}: {n} seeds in {out}; a call without --shard makes the report", self.shard)
    }
}

fn splits<D>(parts: &Parts<D>) -> Splits<'_, D> {
    let other = parts.other.iter().map(|data| Shifted { name: "elsewhere".into(), data, labelled: false });
    Splits { train: &parts.train, held_out: parts.held_out.as_ref(), test: &parts.test, shifted: other.collect() }
}

fn set_score(name: &str) -> Result<ConformalScore, String> {
    match name {
        "lac" => Ok(ConformalScore::LeastAmbiguous),
        "aps" => Ok(ConformalScore::Adaptive { randomized: true }),
        "raps" => Ok(ConformalScore::RegularizedAdaptive { randomized: true, penalty: 0.1, free_ranks: 1 }),
        _ => Err(format!("there are lac, aps and raps, no `{name}`")),
    }
}
