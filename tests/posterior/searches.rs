//! Every search says where it ended, and a posterior that ruins its adapter says so: on stories260K, asked whether numbers are even.

use crate::support::{device, root};
use bayes_lora::bayes_lora::{BayesLoraConfig, FittedBayesLora};
use bayes_lora::belief::{LinkApprox, LogitBelief};
use bayes_lora::data::{
    AnswerForm, BatchLimits, EncodedDataset, Encoding, Item, Normalization, PromptTemplate, Task, Tokenizer,
};
use bayes_lora::lora::LoraConfig;
use bayes_lora::models::{Dataset, Pretrained, PromptClassifier};
use bayes_lora::number::significant;
use bayes_lora::posterior::{HeldOut, Laplace};
use bayes_lora::predict::{Predictive, TrainingFit};
use bayes_lora::prior::{PriorGrouping, PriorPrecision, PriorPrecisions};
use bayes_lora::progress::Control;
use bayes_lora::search::{Search, SearchEnd};
use bayes_lora::train::TrainerConfig;
use std::sync::OnceLock;

const LIMITS: BatchLimits = BatchLimits { max_items: 12, max_tokens: 4096 };
const LINK: LinkApprox = LinkApprox::PairwiseProbit;

fn even(n: usize, number: usize) -> Item {
    let mut item = Item::new(format!("q{n}"), format!("Is {number} even? say"), ["no", "yes"]);
    item.answer = Some(usize::from(number.is_multiple_of(2)));
    item
}

fn encoded(items: Vec<Item>) -> EncodedDataset {
    let tokenizer = Tokenizer::from_dir(root().join("assets/stories260K")).unwrap();
    let encoding = Encoding::new(
        PromptTemplate::question_answer(),
        AnswerForm::Continuation { normalization: Normalization::Sum },
    );
    encoding.encode(&Task::new("even", items).unwrap(), &tokenizer).unwrap()
}

fn training() -> EncodedDataset {
    encoded((1..=24).map(|n| even(n, n)).collect())
}

/// Numbers that were not trained on, and an item one of whose choices is far longer than any other.
fn held_out() -> EncodedDataset {
    let mut items: Vec<Item> = (25..=47).map(|n| even(n, n)).collect();
    items.push(Item { choices: vec!["Xylophone! ".repeat(20), "no".into()], answer: Some(0), ..even(99, 3) });
    encoded(items)
}

fn fit(grouping: PriorGrouping) -> FittedBayesLora<PromptClassifier> {
    let train = training();
    let lm = Pretrained::from_dir(root().join("assets/stories260K")).unwrap().load(&device()).unwrap();
    let model = PromptClassifier::new(lm, &train).unwrap();
    let trainer = TrainerConfig::default().with_epochs(40).with_learning_rate(1e-2).with_limits(LIMITS);
    let mut config = BayesLoraConfig::new(LoraConfig::new(8).with_target_modules(["q_proj", "v_proj"]))
        .with_trainer(trainer)
        .with_predictive(Predictive::Linearized(LINK))
        .with_limits(LIMITS);
    config.laplace.prior_grouping = grouping;
    config.init().unwrap().fit(model, &train).unwrap()
}

fn fitted() -> &'static FittedBayesLora<PromptClassifier> {
    static FITTED: OnceLock<FittedBayesLora<PromptClassifier>> = OnceLock::new();
    FITTED.get_or_init(|| fit(PriorGrouping::Scalar))
}

/// What is at an end cannot gain beyond it; what is inside is no worse than its neighbours.
fn check(search: &Search, nll: impl Fn(f64) -> f64) {
    println!("{search}");
    assert!(search.low <= search.value && search.value <= search.high, "{search}");
    let here = nll(search.value);
    let factors = match search.end {
        SearchEnd::AtUpper => [1e2, 1e6, 1e10],
        SearchEnd::AtLower => [1e-2, 1e-6, 1e-10],
        SearchEnd::Inside | SearchEnd::Undetermined => [0.5, 0.97, 1.03],
    };
    for there in factors.map(|factor| nll(search.value * factor)) {
        // the search is level to 1e-7 nats over a factor e⁴, and less than that is left
        assert!(there > here - 2e-7, "{search}: {here} and {there}");
    }
    assert!(!search.to_string().contains("0.000"), "{search}");
}

#[test]
fn a_prior_by_held_out_items_is_inside_its_search_or_at_an_end_beyond_which_nothing_changes() {
    let fitted = fitted();
    for data in [training(), held_out()] {
        let items = HeldOut::new(&fitted.model, &fitted.laplace, &data, &LIMITS, &Control::silent()).unwrap();
        for start in [1e-9, 1.0, 1e12] {
            let tuned = items.tune(&PriorPrecision::new(start).unwrap().into(), LINK).unwrap();
            let nll = |lambda: f64| items.mean_nll(&PriorPrecision::new(lambda).unwrap().into(), LINK).unwrap();
            assert_eq!(tuned.searches.len(), 1);
            assert_eq!(tuned.searches[0].value, tuned.precisions.of(0).value());
            check(&tuned.searches[0], nll);
        }
    }
}

#[test]
fn posteriors_keep_how_their_priors_were_found() {
    let fitted = fitted();
    let by_evidence = fitted.laplace.prior_searches();
    assert!(by_evidence.len() == 1 && by_evidence[0].is_inside(), "{by_evidence:?}");
    assert_eq!(by_evidence[0].value, fitted.laplace.prior_precisions().of(0).value());
    let tuned = fitted.clone().tune_prior(&held_out(), &Control::silent()).unwrap();
    assert!(tuned.training_fit.is_none());
    let search = &tuned.laplace.prior_searches()[0];
    let remarks = tuned.remarks();
    assert_eq!(remarks, search.remark().into_iter().collect::<Vec<_>>());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("posterior.safetensors");
    tuned.laplace.save(&file, &tuned.model).unwrap();
    let loaded = Laplace::load(&file, &tuned.model).unwrap();
    assert_eq!(loaded.prior_searches(), tuned.laplace.prior_searches());
    // a precision that is given was not searched
    let given = loaded.with_prior_precisions(PriorPrecision::new(1.0).unwrap()).unwrap();
    assert!(given.prior_searches().is_empty());
}

#[test]
fn every_group_of_a_prior_has_a_search_of_its_own() {
    let fitted = fit(PriorGrouping::PerMatrix);
    let named = |searches: &[Search]| searches.iter().map(|search| search.quantity.clone()).collect::<Vec<_>>();
    let expected = ["prior precision of `lora_A`", "prior precision of `lora_B`"];
    assert_eq!(named(fitted.laplace.prior_searches()), expected);
    let items = HeldOut::new(&fitted.model, &fitted.laplace, &held_out(), &LIMITS, &Control::silent()).unwrap();
    let tuned = items.tune(fitted.laplace.prior_precisions(), LINK).unwrap();
    assert_eq!(named(&tuned.searches), expected);
    for (group, search) in tuned.searches.iter().enumerate() {
        assert_eq!(search.value, tuned.precisions.of(group).value());
        check(search, |lambda| {
            let mut moved = tuned.precisions.values().to_vec();
            moved[group] = PriorPrecision::new(lambda).unwrap();
            items.mean_nll(&PriorPrecisions::new(moved).unwrap(), LINK).unwrap()
        });
    }
}

#[test]
fn what_the_posterior_makes_of_its_training_items_is_measured_on_them() {
    let fitted = fitted();
    let (train, link) = (training(), LinkApprox::default());
    let labels: Vec<usize> = (0..train.len()).map(|item| train.label(item).unwrap()).collect();
    let mean = |belief: &LogitBelief| {
        let losses = belief.losses(&labels, link).unwrap();
        losses.iter().sum::<f64>() / losses.len() as f64
    };
    let belief = fitted.predict_calibrated(&train).unwrap().belief;
    let point = LogitBelief::Point { logits: belief.moments().0 };
    let found = fitted.training_fit.unwrap();
    println!("{found:?}, {:?}", found.warning());
    assert_eq!(found.n_items, 24);
    // the same numbers in another order
    assert!((found.mle_nll - mean(&point)).abs() < 1e-6, "{}", significant(mean(&point)));
    assert!((found.posterior_nll - mean(&belief)).abs() < 1e-6);
    assert!((found.uniform_nll - 2f64.ln()).abs() < 1e-12);
    // a prior so flat that nothing learned is left
    let flat = fitted.laplace.clone().with_prior_precisions(PriorPrecision::new(1e-9).unwrap()).unwrap();
    let ruined = TrainingFit::measure(&fitted.model, &flat, &train, link, &LIMITS, &Control::silent());
    let ruined = ruined.unwrap().unwrap();
    println!("{ruined:?}");
    assert!(ruined.mle_nll < ruined.uniform_nll - 0.1, "the adapter has learned its items");
    assert!(ruined.warning().is_some_and(|words| words.contains("24 items asked")));
    // and one that is the trained adapter
    let sharp = fitted.laplace.clone().with_prior_precisions(PriorPrecision::new(1e9).unwrap()).unwrap();
    let kept = TrainingFit::measure(&fitted.model, &sharp, &train, link, &LIMITS, &Control::silent());
    assert_eq!(kept.unwrap().unwrap().warning(), None);
}
