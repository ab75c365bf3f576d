//! Heads on encoders and decoders: which network gets which, and how they are asked from their files.

use super::answers::{Answered, Answerer, Block};
use super::opening::{Believer, Opening};
use super::{AdaptedJob, Data, Job, Source, Subject};
use crate::base::{load_network, start_of, tokenizer, with_network};
use crate::session::Outcome;
use bayes_lora::data::{AnswerForm, EncodedDataset, Encoding, ResolvedAnswers, Tokenizer};
use bayes_lora::error::Result;
use bayes_lora::identity::Identity;
use bayes_lora::lora::TrainedHead;
use bayes_lora::models::{Dataset, LanguageModel, SequenceClassifier, TokenBatch};

/// Does the job with a head on the network that the directory has; `encoded` are the token ids of a part.
pub fn with_head<J: Job, D: Dataset<Input = TokenBatch>>(
    source: &Source,
    data: Data<D>,
    encoded: impl Fn(&D) -> &EncodedDataset,
    job: J,
) -> Outcome<J::Result> {
    let train = encoded(&data.splits.train);
    with_network!(load_network(source.model, source.session)?, |network, head| {
        let model = classifier(network, head, train, source.start_seed())?;
        job.run(Subject { model, data })
    })
}

/// A network with the head of its checkpoint, where that is about as many classes, or with a fresh one.
pub fn classifier<L: LanguageModel>(
    network: L,
    head: Option<TrainedHead>,
    data: &EncodedDataset,
    seed: u64,
) -> Outcome<SequenceClassifier<L>> {
    Ok(match head.filter(|head| head.d_out() == data.n_classes) {
        Some(head) => SequenceClassifier::with_head(network, head, data)?,
        None => SequenceClassifier::new(network, data, seed)?,
    })
}

/// Nothing yet of what a head is asked.
fn nothing(answers: &AnswerForm) -> EncodedDataset {
    let (answers, n_classes) = match answers {
        AnswerForm::Labels { names } => (ResolvedAnswers::Labels, names.len()),
        _ => (ResolvedAnswers::Value, 1),
    };
    EncodedDataset { name: "nothing".into(), items: Vec::new(), answers, n_classes, n_truncated: 0, asked: None }
}

/// How the head is asked, as the posterior remembers it.
pub fn encoding(opening: &Opening, tokenizer: &Tokenizer) -> Outcome<Encoding> {
    let forgotten =
        "the names of the labels, and how texts were read, are in the posterior: `bayes-lora fit` makes one";
    let own = opening.asked().ok_or(forgotten)?.encoding.clone();
    opening.encoding(tokenizer, own)
}

/// Does the job with the network, its head and its adapter.
pub fn with_adapted<J: AdaptedJob>(opening: &Opening, job: J) -> Outcome<J::Result> {
    let encoding = encoding(opening, &tokenizer(opening.model)?)?;
    let (nothing, seed) = (nothing(&encoding.answers), start_of(opening.adapter).unwrap_or(0));
    with_network!(load_network(opening.model, opening.session)?, |network, head| {
        job.run(opening.adapted(classifier(network, head, &nothing, seed)?)?)
    })
}

/// How a model with a head is asked.
pub struct Asking {
    pub tokenizer: Tokenizer,
    pub encoding: Encoding,
    pub believer: Believer,
}

/// How lines are read whose answer is a head's.
pub trait Reading: 'static {
    fn answer<L: LanguageModel>(
        &self,
        model: &SequenceClassifier<L>,
        asking: &Asking,
        block: &Block,
    ) -> Result<Answered>;
}

struct Answers<L: LanguageModel, R> {
    model: SequenceClassifier<L>,
    asking: Asking,
    reading: R,
}

/// What answers by the head that the posterior remembers.
pub fn answerer(opening: &Opening, reading: impl Reading) -> Outcome<Box<dyn Answerer>> {
    let tokenizer = tokenizer(opening.model)?;
    let encoding = encoding(opening, &tokenizer)?;
    let nothing = nothing(&encoding.answers);
    let asked = (tokenizer, encoding);
    with_network!(load_network(opening.model, opening.session)?, |network, head| {
        answers(opening, classifier(network, head, &nothing, 0)?, asked, reading)
    })
}

fn answers<L: LanguageModel + 'static>(
    opening: &Opening,
    base: SequenceClassifier<L>,
    (tokenizer, encoding): (Tokenizer, Encoding),
    reading: impl Reading,
) -> Outcome<Box<dyn Answerer>> {
    let model = opening.adapted(base)?;
    let believer = opening.believer(&model, &encoding)?;
    Ok(Box::new(Answers { model, asking: Asking { tokenizer, encoding, believer }, reading }))
}

impl<L: LanguageModel, R: Reading> Answerer for Answers<L, R> {
    fn identity(&self) -> &Identity {
        &self.asking.believer.identity
    }

    fn answer(&self, block: &Block) -> Result<Answered> {
        self.reading.answer(&self.model, &self.asking, block)
    }
}
