//! Questions with choices, answered by a language model.

use super::answers::{Answered, Answerer, Block};
use super::opening::{Believer, Opening};
use super::{About, Data, Job, Source, Splits, Subject};
use crate::base::{load_base, tokenizer};
use crate::kind::Kind;
use crate::session::Outcome;
use bayes_lora::data::{EncodedDataset, Encoding, Item, Task, Tokenizer};
use bayes_lora::error::Result;
use bayes_lora::identity::Identity;
use bayes_lora::likelihood::Categorical;
use bayes_lora::models::{CausalLm, PromptClassifier};

pub fn with_subject<J: Job>(source: &Source, job: J) -> Outcome<J::Result> {
    let (lm, tokenizer) = source.language_model()?;
    let read = |file: &_| source.items.routed(Task::from_jsonl(file)?);
    let data = encoded(source, Splits::read(source, read)?, &source.questions.encoding(), &tokenizer, Kind::Choices)?;
    let model = PromptClassifier::new(lm, &data.splits.train)?;
    job.run(Subject { model, data })
}

/// Items as token ids, with as many classes in every part.
pub fn encoded(
    source: &Source,
    items: Splits<Vec<Item>>,
    encoding: &Encoding,
    tokenizer: &Tokenizer,
    kind: Kind,
) -> Outcome<Data<EncodedDataset>> {
    let encode = |name: &str, items| Ok(encoding.encode(&Task::new(name, items)?, tokenizer)?);
    let splits = items.map(encode)?;
    // the largest items may lie in one part only
    let n_classes = splits.iter().map(|part| part.n_classes).max().unwrap_or(0);
    let splits = splits.map(|_, part| Ok(part.with_classes(n_classes)?))?;
    let train = &splits.train;
    source.session.say(train.example(0, tokenizer)?);
    let about = about(train, kind);
    source.session.say(&about);
    Ok(Data { splits, likelihood: Categorical.into(), about })
}

pub fn about(train: &EncodedDataset, kind: Kind) -> About {
    About { kind, items: train.len(), tokens: train.n_tokens(), longest: train.longest(), shortened: train.n_truncated }
}

struct Answers {
    lm: CausalLm,
    tokenizer: Tokenizer,
    encoding: Encoding,
    believer: Believer,
}

pub fn answerer(opening: &Opening) -> Outcome<Box<dyn Answerer>> {
    let tokenizer = tokenizer(opening.model)?;
    // refused before anything is loaded
    let encoding = opening.encoding(&tokenizer, opening.questions.encoding())?;
    let lm = opening.adapted(load_base(opening.model, opening.session)?)?;
    let believer = opening.believer(&lm, &encoding)?;
    Ok(Box::new(Answers { lm, tokenizer, encoding, believer }))
}

impl Answerer for Answers {
    fn identity(&self) -> &Identity {
        &self.believer.identity
    }

    fn answer(&self, block: &Block) -> Result<Answered> {
        let task = Task::new(block.file, block.read(|text, _, place| Item::from_json_line(text, place))?)?;
        let data = self.encoding.encode(&task, &self.tokenizer)?;
        // the number of choices may differ from block to block
        let model = PromptClassifier::new(self.lm.clone(), &data)?;
        self.believer.of_classes(&model, &task.items, &data)
    }
}
