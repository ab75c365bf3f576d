//! Texts with a number: a regression by a head of one output.

use super::answers::{Answered, Answerer, Block, Known, json};
use super::choices::about;
use super::heads::{self, Asking, Reading, with_head};
use super::opening::Opening;
use super::{Data, Job, Source, Splits};
use crate::base::tokenizer;
use crate::kind::Kind;
use crate::session::Outcome;
use bayes_lora::data::{AnswerForm, Encoding, Item, Task, Tokenizer, ValuedDataset, ValuedTask};
use bayes_lora::error::Result;
use bayes_lora::likelihood::Gaussian;
use bayes_lora::models::{LanguageModel, SequenceClassifier};
use bayes_lora::predict::predict_targets;
use serde::Serialize;

pub fn with_subject<J: Job>(source: &Source, job: J) -> Outcome<J::Result> {
    let tokenizer = tokenizer(source.model)?;
    let read = |file: &_| {
        let ValuedTask { texts, values } = ValuedTask::from_jsonl(file)?;
        Ok(texts.items.into_iter().zip(values).collect::<Vec<_>>())
    };
    let items = Splits::read(source, read)?;
    let noise_variance = match source.items.noise_variance {
        Some(variance) => variance,
        None => variance(items.train.iter().map(|(_, value)| *value)),
    };
    let encoding = source.questions.of_texts(AnswerForm::Value);
    let splits = items.map(|name, items| encode(name, items, &encoding, &tokenizer))?;
    let train = splits.train.encoded();
    source.session.say(train.example(0, &tokenizer)?);
    let about = about(train, Kind::Values);
    source.session.say(&about);
    let data = Data { splits, likelihood: Gaussian { noise_variance }.into(), about };
    with_head(source, data, ValuedDataset::encoded, job)
}

/// The variance of the known numbers: what a model that has learned nothing takes for noise.
pub fn variance(values: impl Iterator<Item = Option<f64>>) -> f64 {
    let known: Vec<f64> = values.flatten().collect();
    let mean = known.iter().sum::<f64>() / known.len() as f64;
    known.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / known.len() as f64
}

fn encode(
    name: &str,
    items: Vec<(Item, Option<f64>)>,
    encoding: &Encoding,
    tokenizer: &Tokenizer,
) -> Outcome<ValuedDataset> {
    let (items, values) = items.into_iter().unzip();
    Ok(ValuedTask { texts: Task { name: name.into(), items }, values }.encode(encoding, tokenizer)?)
}

pub fn answerer(opening: &Opening) -> Outcome<Box<dyn Answerer>> {
    heads::answerer(opening, Values)
}

struct Values;

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    value: f64,
    standard_deviation: f64,
    uncertainty: Uncertainty<'a>,
}

/// Standard deviations: of the noise, and of the model's own number.
#[derive(Serialize)]
struct Uncertainty<'a> {
    method: &'a str,
    aleatoric: f64,
    epistemic: f64,
    source: &'static str,
}

impl Reading for Values {
    fn answer<L: LanguageModel>(
        &self,
        model: &SequenceClassifier<L>,
        asking: &Asking,
        block: &Block,
    ) -> Result<Answered> {
        let Asking { tokenizer, encoding, believer } = asking;
        let (items, values) = block.read(ValuedTask::read_line)?.into_iter().unzip();
        let task = ValuedTask { texts: Task { name: block.file.into(), items }, values };
        let data = task.encode(encoding, tokenizer)?;
        let laplace = believer.laplace()?;
        let predicted =
            predict_targets(model, laplace, &data, believer.predictive, &believer.limits, &believer.control)?;
        let (_, own) = predicted.belief.moments();
        let n_shortened = data.encoded().n_truncated;
        let mut answered = Answered { lines: Vec::new(), n_shortened, known: Vec::new() };
        for (index, (item, value)) in task.texts.items.iter().zip(&task.values).enumerate() {
            let mean = predicted.moments.mean[[index, 0]];
            // rounding may leave −1e-17
            let (all, own) = (predicted.moments.covariance[[index, 0, 0]].max(0.0), own[[index, 0, 0]].max(0.0));
            let (aleatoric, epistemic) = ((all - own).max(0.0).sqrt(), own.sqrt());
            let uncertainty = Uncertainty { method: &believer.method(), aleatoric, epistemic, source: "measured" };
            answered.lines.push(json(&Answer {
                id: &item.id,
                value: mean,
                standard_deviation: all.sqrt(),
                uncertainty,
            })?);
            answered.known.extend(value.map(|value| Known::Value { mean, deviation: all.sqrt(), value }));
        }
        Ok(answered)
    }
}
