//! What a method lacks is said by name, before anything is spent.

use crate::{Case, ivon, points};
use bayes_lora::lora::LoraConfig;
use bayes_lora::methods::{
    AnchoredEnsemble, Blob, CheckpointEnsemble, DeepEnsemble, McDropout, Method, MonteClora, NoiseSharing, Recipe,
    Requirements,
};
use bayes_lora::models::{Mlp, Points};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use bayes_lora::train::{Snapshots, TrainerConfig, TrainingMode};
use burn::tensor::DType;

type OfPoints = dyn Method<Mlp, Points>;

fn contains(error: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(error.contains(part), "{error} lacks {part}"));
}

fn refused(method: &OfPoints, case: &Case<Mlp, Points>, parts: &[&str]) {
    let control = Control::silent();
    contains(&method.fit(&case.context(1, &control)).err().expect("it was fitted").to_string(), parts);
}

#[test]
fn what_is_missing_is_named_before_and_while_fitting() {
    let mut case = points(DType::F32);
    let check = |requirements: Requirements, recipe: &Recipe, held_out: Option<&Points>| {
        requirements.check::<Points>("the method", recipe, held_out)
    };
    let of = |method: &OfPoints| method.requirements();
    let dry = Recipe { lora: LoraConfig::new(2), ..case.recipe.clone() };
    let few = TrainerConfig { snapshots: Snapshots { count: 2, from: 0.0 }, ..case.recipe.trainer.clone() };
    let few = Recipe { trainer: few, ..case.recipe.clone() };

    for sharing in [NoiseSharing::Coherent, NoiseSharing::PerToken] {
        let method = McDropout { sharing, ..McDropout::default() };
        assert!(check(of(&method), &case.recipe, None).is_ok());
        contains(&check(of(&method), &dry, None).unwrap_err().to_string(), &["the method", "dropout"]);
    }
    let ensemble = CheckpointEnsemble::default();
    assert!(check(of(&ensemble), &case.recipe, None).is_ok());
    contains(&check(of(&ensemble), &few, None).unwrap_err().to_string(), &["the method", "3 snapshots", "is 2"]);
    let labels = || Requirements { held_out_labels: true, ..Requirements::default() };
    let unlabelled = Points { labels: Vec::new(), ..case.test.clone() };
    assert!(check(labels(), &case.recipe, Some(&case.test)).is_ok());
    for held_out in [None, Some(&unlabelled)] {
        let error = check(labels(), &case.recipe, held_out).unwrap_err().to_string();
        contains(&error, &["the method", "held-out", "labels"]);
    }
    let all = Requirements { dropout: true, snapshots: 9, ..labels() };
    let error = check(all, &dry, None).unwrap_err().to_string();
    contains(&error, &["9 snapshots", "dropout", "held-out"]);

    case.snapshots.pop();
    refused(&ensemble, &case, &["snapshots", "3", "2"]);
    refused(&CheckpointEnsemble { n_members: 0 }, &case, &["snapshots"]);
    refused(&DeepEnsemble { n_members: 0 }, &case, &["n_members"]);
    let anchored = AnchoredEnsemble::new(PriorPrecision::new(1.0).unwrap());
    refused(&AnchoredEnsemble { n_members: 0, ..anchored }, &case, &["n_members"]);
    let map = bayes_lora::lora::attach(case.base.clone(), &dry.lora, 3).unwrap();
    refused(&McDropout::default(), &Case { map, ..case }, &["MC dropout", "trained with dropout"]);
}

#[test]
fn rules_that_know_a_and_b_alone_refuse_to_train_more() {
    let mut case = points(DType::F32);
    case.recipe.trainer.mode = TrainingMode::Full;
    let methods: [(&str, &OfPoints); 3] =
        [("IVON", &ivon()), ("BLoB", &Blob::default()), ("MonteCLoRA", &MonteClora::default())];
    for (name, method) in methods {
        refused(method, &case, &[name, "A and B alone", "Full"]);
    }
}

#[test]
fn settings_out_of_bounds_are_refused_before_training() {
    let case = points(DType::F32);
    refused(&MonteClora { n_draws: 0, ..MonteClora::default() }, &case, &["n_draws"]);
    refused(&MonteClora { sample_scale: -1.0, ..MonteClora::default() }, &case, &["sample_scale"]);
    refused(&Blob { prior_sd: 0.0, ..Blob::default() }, &case, &["prior_sd"]);
    refused(&bayes_lora::methods::Ivon { beta_2: 1.0, ..ivon() }, &case, &["beta_2"]);
}
