//! Preferred and rejected answers: rewards by a head of one output.

use super::answers::{Answered, Answerer, Block, Known, Uncertainty, json};
use super::choices::encoded;
use super::heads::encoding;
use super::opening::{Believer, Opening};
use super::{AdaptedJob, Job, Source, Splits, Subject};
use crate::base::{load_network, start_of, tokenizer, with_network};
use crate::kind::Kind;
use crate::session::Outcome;
use bayes_lora::belief::LinkApprox;
use bayes_lora::data::{AnswerForm, EncodedDataset, Encoding, Item, ResolvedAnswers, Task, Tokenizer};
use bayes_lora::error::Result;
use bayes_lora::identity::Identity;
use bayes_lora::lora::TrainedHead;
use bayes_lora::models::{LanguageModel, RewardModel};
use bayes_lora::predict::{Prediction, Predictive, predict, predict_map, predict_rewards};
use ndarray::{Array2, ArrayView1};
use serde::Serialize;

pub fn with_subject<J: Job>(source: &Source, job: J) -> Outcome<J::Result> {
    let tokenizer = tokenizer(source.model)?;
    let items = Splits::read(source, |file| Ok(Task::from_preferences_jsonl(file)?.items))?;
    let encoding = source.questions.of_texts(AnswerForm::Rewards);
    let data = encoded(source, items, &encoding, &tokenizer, Kind::Preferences)?;
    let (train, seed) = (&data.splits.train, source.start_seed());
    with_network!(load_network(source.model, source.session)?, |network, head| {
        let model = rewards(network, head, train, seed)?;
        job.run(Subject { model, data })
    })
}

/// A network with the head of its checkpoint, where that has one output, or with a fresh one.
pub fn rewards<L: LanguageModel>(
    network: L,
    head: Option<TrainedHead>,
    data: &EncodedDataset,
    seed: u64,
) -> Outcome<RewardModel<L>> {
    Ok(match head.filter(|head| head.d_out() == 1) {
        Some(head) => RewardModel::with_head(network, head, data)?,
        None => RewardModel::new(network, data, seed)?,
    })
}

/// No pair yet.
fn no_pair() -> EncodedDataset {
    let answers = ResolvedAnswers::Rewards;
    EncodedDataset { name: "nothing".into(), items: Vec::new(), answers, n_classes: 2, n_truncated: 0, asked: None }
}

/// Does the job with the network, its head and its adapter.
pub fn with_adapted<J: AdaptedJob>(opening: &Opening, job: J) -> Outcome<J::Result> {
    let seed = start_of(opening.adapter).unwrap_or(0);
    with_network!(load_network(opening.model, opening.session)?, |network, head| {
        job.run(opening.adapted(rewards(network, head, &no_pair(), seed)?)?)
    })
}

struct Answers<L: LanguageModel> {
    model: RewardModel<L>,
    tokenizer: Tokenizer,
    encoding: Encoding,
    believer: Believer,
}

pub fn answerer(opening: &Opening) -> Outcome<Box<dyn Answerer>> {
    with_network!(load_network(opening.model, opening.session)?, |network, head| {
        answers(opening, rewards(network, head, &no_pair(), 0)?)
    })
}

fn answers<L: LanguageModel + 'static>(opening: &Opening, base: RewardModel<L>) -> Outcome<Box<dyn Answerer>> {
    let tokenizer = tokenizer(opening.model)?;
    let encoding = encoding(opening, &tokenizer)?;
    let model = opening.adapted(base)?;
    let believer = opening.believer(&model, &encoding)?;
    Ok(Box::new(Answers { model, tokenizer, encoding, believer }))
}

/// What is said of the answers to a prompt. Standard deviations are those of a reward less the mean of all answers' to the prompt: a
/// common shift of all rewards is no doubt about which is larger.
#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    answers: &'a [String],
    rewards: Vec<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    standard_deviations: Option<Vec<f64>>,
    /// That each is preferred to all others.
    probabilities: &'a [f64],
    prediction: usize,
    uncertainty: Uncertainty<'a>,
}

impl<L: LanguageModel> Answerer for Answers<L> {
    fn identity(&self) -> &Identity {
        &self.believer.identity
    }

    /// Lines are preferences, or questions with any number of choices, each of which gets its reward.
    fn answer(&self, block: &Block) -> Result<Answered> {
        let item = |text: &str, number, place: &str| {
            let kind = serde_json::from_str(text).ok().and_then(|line| Kind::of_fields(&line));
            match kind {
                Some(Kind::Preferences) => Item::from_preference_line(text, number, place),
                _ => Item::from_json_line(text, place),
            }
        };
        let task = Task::new(block.file, block.read(item)?)?;
        let data = self.encoding.encode(&task, &self.tokenizer)?;
        let model = self.model.clone().with_choices(data.n_classes);
        let Believer { laplace, predictive, limits, control, .. } = &self.believer;
        let belief = predict_map(&model, &data, limits, control)?;
        let rewards = belief.moments().0;
        let prediction = match laplace {
            Some(laplace) => predict(&model, laplace, &data, *predictive, limits, control)?,
            None => Prediction::new(belief, LinkApprox::default())?,
        };
        let deviations = match (laplace, predictive) {
            (Some(laplace), Predictive::Linearized(_)) => {
                Some(predict_rewards(&model, laplace, &data, limits, control)?.deviations_from_mean())
            }
            _ => None,
        };
        self.lines(&task.items, &data, (&rewards, deviations.as_ref()), &prediction)
    }
}

impl<L: LanguageModel> Answers<L> {
    fn lines(
        &self,
        items: &[Item],
        data: &EncodedDataset,
        (rewards, deviations): (&Array2<f64>, Option<&Array2<f64>>),
        prediction: &Prediction,
    ) -> Result<Answered> {
        let method = self.believer.method();
        let mut answered = Answered { lines: Vec::new(), n_shortened: data.n_truncated, known: Vec::new() };
        for (index, item) in items.iter().enumerate() {
            let own = |row: ArrayView1<f64>| -> Vec<f64> { row.iter().take(item.choices.len()).copied().collect() };
            let probabilities = own(prediction.probabilities.row(index));
            // the first of equals
            let better = |best: usize, c: usize| if probabilities[c] > probabilities[best] { c } else { best };
            answered.lines.push(json(&Answer {
                id: &item.id,
                answers: &item.choices,
                rewards: own(rewards.row(index)),
                standard_deviations: deviations.map(|all| own(all.row(index))),
                prediction: (0..probabilities.len()).fold(0, better),
                probabilities: &probabilities,
                uncertainty: Uncertainty::of(&method, prediction, index, None),
            })?);
            answered.known.extend(item.answer.map(|label| Known::Class { probabilities, label }));
        }
        Ok(answered)
    }
}
