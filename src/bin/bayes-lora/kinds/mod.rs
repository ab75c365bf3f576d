//! What the kinds of data have in common, so that everything but their lines is written once: one file a kind, which says how its
//! lines are read and encoded, which model learns them, and how an answer looks.

mod answers;
mod choices;
pub mod heads;
mod labels;
mod opening;
pub mod preferences;
mod splits;
mod texts;
pub mod values;

use crate::base::{load_base, tokenizer};
use crate::flags::{ItemArguments, QuestionArguments};
use crate::kind::Kind;
use crate::session::{Outcome, Session};
pub use answers::{Answered, Answerer, Block, Known};
use bayes_lora::data::Tokenizer;
use bayes_lora::likelihood::SharedLikelihood;
use bayes_lora::models::{CausalLm, Classifier, Dataset};
pub use opening::Opening;
pub use splits::Splits;
use std::path::Path;

/// Work that is the same for every kind of data.
pub trait Job {
    type Result;

    fn run<M: Classifier + 'static, D: Dataset<Input = M::Input>>(
        self,
        subject: Subject<M, D>,
    ) -> Outcome<Self::Result>;
}

/// A model without adapter, and the data that it is about.
pub struct Subject<M, D> {
    pub model: M,
    pub data: Data<D>,
}

/// The data of a kind.
pub struct Data<D> {
    pub splits: Splits<D>,
    pub likelihood: SharedLikelihood,
    pub about: About,
}

/// What to tell of the training items.
#[derive(Clone, serde::Serialize)]
pub struct About {
    pub kind: Kind,
    pub items: usize,
    pub tokens: usize,
    pub longest: usize,
    pub shortened: usize,
}

impl std::fmt::Display for About {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, items, tokens, longest, shortened } = self;
        write!(f, "{items} items ({kind}), {tokens} tokens, the longest row {longest}; {shortened} shortened")
    }
}

/// Where a model and its data come from.
pub struct Source<'a> {
    pub model: &'a Path,
    pub train: &'a Path,
    pub validation: Option<&'a Path>,
    pub held_out: Option<&'a Path>,
    /// The seed from which the adapter was trained, where it is there already and that is known.
    pub start: Option<u64>,
    pub items: &'a ItemArguments,
    pub questions: &'a QuestionArguments,
    pub session: &'a Session,
}

impl Source<'_> {
    /// The seed of what an adapter starts from.
    fn start_seed(&self) -> u64 {
        self.start.unwrap_or(self.items.seed)
    }

    /// A language model and its tokenizer.
    fn language_model(&self) -> Outcome<(CausalLm, Tokenizer)> {
        Ok((load_base(self.model, self.session)?, tokenizer(self.model)?))
    }
}

/// Opens model and data of the kind that they are of, and does the job with them.
pub fn with_subject<J: Job>(source: &Source, job: J) -> Outcome<J::Result> {
    let kind = Kind::of(source.items.task, source.train)?;
    check_foreign(source.train, kind, &[source.items.foreign(kind), source.questions.foreign(kind)].concat())?;
    match kind {
        Kind::Choices => choices::with_subject(source, job),
        Kind::Labels => labels::with_subject(source, job),
        Kind::Values => values::with_subject(source, job),
        Kind::Preferences => preferences::with_subject(source, job),
        Kind::Texts => texts::with_subject(source, job),
    }
}

/// Refuses flags that mean nothing for what a file holds.
pub fn check_foreign(file: &Path, kind: Kind, flags: &[&str]) -> Outcome {
    match flags {
        [] => Ok(()),
        flags => {
            Err(format!("{} holds {kind}, for which {} is without meaning", file.display(), flags.join(", ")).into())
        }
    }
}

/// What answers lines of the kind that the posterior is of, or the flag says, or `data` holds.
pub fn answerer(opening: &Opening, task: Option<Kind>, data: Option<&Path>) -> Outcome<Box<dyn Answerer>> {
    let said = task.or(opening.kind());
    let kind = match (said, data) {
        (Some(kind), _) => kind,
        (None, Some(file)) => Kind::of(None, file)?,
        (None, None) => return Err("neither the posterior nor `--task` says what the lines are".into()),
    };
    check_foreign(data.unwrap_or(Path::new("standard input")), kind, &opening.questions.foreign(kind))?;
    match kind {
        Kind::Choices => choices::answerer(opening),
        Kind::Labels => labels::answerer(opening),
        Kind::Values => values::answerer(opening),
        Kind::Preferences => preferences::answerer(opening),
        Kind::Texts => Err("texts are scored, not answered: `bayes-lora score`".into()),
    }
}

/// The model that an adapter belongs to, without its data: what sums and posteriors of files are about.
pub fn with_adapted<J: AdaptedJob>(opening: &Opening, job: J) -> Outcome<J::Result> {
    // flags that say how items are asked may be repeated, and are refused where they differ
    if let (Some(kind), Some(asked)) = (opening.kind(), opening.asked()) {
        check_foreign(opening.adapter, kind, &opening.questions.foreign(kind))?;
        opening.encoding(&tokenizer(opening.model)?, asked.encoding.clone())?;
    }
    match opening.kind().unwrap_or(Kind::Choices) {
        Kind::Labels | Kind::Values => heads::with_adapted(opening, job),
        Kind::Preferences => preferences::with_adapted(opening, job),
        // a posterior over a language model does not know what it is asked
        _ => job.run(opening.adapted(load_base(opening.model, opening.session)?)?),
    }
}

/// Work with an adapter that needs no data.
pub trait AdaptedJob {
    type Result;

    fn run<M: bayes_lora::lora::Adaptable>(self, model: M) -> Outcome<Self::Result>;
}
