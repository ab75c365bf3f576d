//! Texts and pairs of texts with a class, told by a head on an encoder or a decoder.

use super::answers::{Answered, Answerer, Block};
use super::choices::encoded;
use super::heads::{self, Asking, Reading, with_head};
use super::opening::Opening;
use super::{Job, Source, Splits};
use crate::base::tokenizer;
use crate::kind::Kind;
use crate::session::Outcome;
use bayes_lora::data::{AnswerForm, Item, Task};
use bayes_lora::error::{Error, Result};
use bayes_lora::models::{LanguageModel, SequenceClassifier};

pub fn with_subject<J: Job>(source: &Source, job: J) -> Outcome<J::Result> {
    let tokenizer = tokenizer(source.model)?;
    let mut labels: Option<Vec<String>> = None;
    let items = Splits::read(source, |file| {
        let task = Task::from_labelled_jsonl(file, labels.as_deref())?;
        // the training file's, which is read first, are everybody's
        labels.get_or_insert_with(|| task.items.first().map_or_else(Vec::new, |item| item.choices.clone()));
        Ok(task.items)
    })?;
    let encoding = source.questions.of_texts(AnswerForm::labels(labels.unwrap_or_default()));
    let data = encoded(source, items, &encoding, &tokenizer, Kind::Labels)?;
    with_head(source, data, |part| part, job)
}

pub fn answerer(opening: &Opening) -> Outcome<Box<dyn Answerer>> {
    heads::answerer(opening, Labels)
}

struct Labels;

impl Reading for Labels {
    fn answer<L: LanguageModel>(
        &self,
        model: &SequenceClassifier<L>,
        asking: &Asking,
        block: &Block,
    ) -> Result<Answered> {
        let AnswerForm::Labels { names } = &asking.encoding.answers else {
            return Err(Error::Incompatible("the lines have labels, and the posterior was fitted on none".into()));
        };
        let item = |text: &str, number, place: &str| Item::from_labelled_line(text, number, place, names);
        let task = Task::new(block.file, block.read(item)?)?;
        let data = asking.encoding.encode(&task, &asking.tokenizer)?;
        asking.believer.of_classes(model, &task.items, &data)
    }
}
