//! What a method lacks is said by name, before anything is spent.

use super::{Case, ivon, laplace, points, recipe};
use crate::support::{Fixture, continuation_dataset, relative_error};
use bayes_lora::curvature::CurvatureStructure;
use bayes_lora::data::BatchLimits;
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::methods::{
    AnchoredEnsemble, Blob, CheckpointEnsemble, DeepEnsemble, HeadLaplace, LaplaceMethod, McDropout, Method,
    MonteClora, NoiseSharing, Recipe, Requirements, Swag, Tfb,
};
use bayes_lora::models::{Mlp, Points};
use bayes_lora::posterior::LaplaceConfig;
use bayes_lora::predict::Predictive;
use bayes_lora::prior::{PriorChoice, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::train::{Snapshots, TrainingMode};
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
    let base = case.base.clone();
    let check = |requirements: Requirements, recipe: &Recipe, held_out: Option<&Points>| {
        requirements.check("the method", &base, recipe, held_out)
    };
    let of = |method: &OfPoints| method.requirements();
    let dry = case.recipe.clone().with_lora(LoraConfig::new(2));
    let few = case.recipe.trainer.clone().with_snapshots(Snapshots { count: 2, from: 0.0 });
    let few = case.recipe.clone().with_trainer(few);

    for sharing in [NoiseSharing::Coherent, NoiseSharing::PerToken] {
        let method = McDropout::default().with_sharing(sharing);
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
    refused(&CheckpointEnsemble::default().with_n_members(0), &case, &["n_members"]);
    refused(&DeepEnsemble::default().with_n_members(0), &case, &["n_members"]);
    let anchored = AnchoredEnsemble::new(PriorPrecision::new(1.0).unwrap());
    refused(&anchored.with_n_members(0), &case, &["n_members"]);
    let map = attach(case.base.clone(), &dry.lora, 3).unwrap();
    refused(&McDropout::default(), &Case { map, ..case }, &["MC dropout", "trained with dropout"]);
}

#[test]
fn methods_that_keep_a_and_b_alone_refuse_a_recipe_that_trains_more() {
    let mut case = points(DType::F32);
    case.recipe.trainer.mode = TrainingMode::Full;
    let methods: [(&str, &OfPoints); 7] = [
        ("IVON", &ivon()),
        ("BLoB", &Blob::default()),
        ("MonteCLoRA", &MonteClora::default()),
        ("deep ensemble", &DeepEnsemble::default()),
        ("anchored ensemble", &AnchoredEnsemble::new(PriorPrecision::new(1.0).unwrap())),
        ("checkpoint ensemble", &CheckpointEnsemble::default()),
        ("SWAG", &Swag::default()),
    ];
    for (name, method) in methods {
        refused(method, &case, &[name, "A and B alone", "Full"]);
        let error =
            method.requirements().check::<Mlp, Points>(name, &case.base, &case.recipe, None).unwrap_err().to_string();
        contains(&error, &["A and B alone"]);
    }
}

#[test]
fn what_continuations_do_not_allow_is_refused() {
    let data = continuation_dataset();
    let lora = LoraConfig::new(2).with_target_modules(["q_proj", "lm_head"]).with_dropout(0.2);
    let base = Fixture::load("tiny_llama").model_for(&data, DType::F64);
    let case = Case {
        name: "an adapted head",
        map: attach(base.clone(), &lora, 3).unwrap(),
        base,
        snapshots: Vec::new(),
        curvatures: Vec::new(),
        recipe: recipe(lora, 2),
        train: data.clone(),
        test: data.clone(),
        reversed_train: data.clone(),
        reversed: data,
        rounding: 1e-10,
    };
    let control = Control::silent();
    // a head that scores continuations has the noise of the tokens that it reads, in any batch
    for sharing in [NoiseSharing::PerToken, NoiseSharing::Coherent] {
        let method = McDropout::default().with_sharing(sharing).with_n_samples(2);
        let fitted = method.fit(&case.context(1, &control)).unwrap();
        let believe = |max_items| {
            let limits = BatchLimits { max_items, max_tokens: 1000 };
            let belief = fitted.belief.believe(&case.map, &case.test, &limits, &control).unwrap();
            belief.log_probabilities(fitted.belief.link()).unwrap().mapv(f64::exp)
        };
        assert!(relative_error(&believe(3), &believe(1)) < case.rounding, "{sharing:?}");
    }
    // such a task has no output layer with a row for each class
    let error = HeadLaplace::default().fit(&case.context(1, &control)).err().unwrap().to_string();
    contains(&error, &["output layer", "linear", "one a class"]);
}

#[test]
fn settings_out_of_bounds_are_refused_before_training() {
    let case = points(DType::F32);
    refused(&MonteClora::default().with_n_draws(0), &case, &["n_draws"]);
    refused(&MonteClora::default().with_sample_scale(-1.0), &case, &["sample_scale"]);
    refused(&Blob::default().with_prior_sd(0.0), &case, &["prior_sd"]);
    refused(&ivon().with_beta_2(1.0), &case, &["beta_2"]);
    refused(&Swag::default().with_rank(1), &case, &["rank", "1"]);
    refused(&Swag::default().with_scale(f64::NAN), &case, &["scale", "NaN"]);
    refused(&Swag::default().with_n_snapshots(1), &case, &["n_snapshots", "1"]);
    refused(&Swag::default().with_rate_share(0.0), &case, &["rate_share"]);
    let curved = LaplaceMethod::new(CurvatureStructure::Diagonal);
    refused(&curved.clone().with_predictive(Predictive::Map), &case, &["predictive"]);
    let matched = laplace(CurvatureStructure::Kronecker).with_prior(PriorChoice::Matched);
    refused(&matched.clone().with_held_out_prior(true), &case, &["held-out labels choose", "matched"]);
    let tempered = LaplaceConfig::default().with_leave_one_out_temperature(true);
    refused(&matched.with_laplace(tempered), &case, &["leave-one-out temperature", "by evidence"]);
    let none: [&OfPoints; 6] = [
        &ivon().with_n_samples(0),
        &Blob::default().with_n_samples(0),
        &Swag::default().with_n_samples(0),
        &Tfb::default().with_n_samples(0),
        &McDropout::default().with_n_samples(0),
        &curved.with_predictive(Predictive::Sampled { n_samples: 0, seed: 0 }),
    ];
    none.into_iter().for_each(|method| refused(method, &case, &["n_samples", "at least 1"]));
    let blob = Blob::default();
    for (n_items, batch, peak, field) in [(0, 4, 0.1, "n_items"), (9, 0, 0.1, "batch"), (9, 4, f64::NAN, "peak")] {
        contains(&blob.rule(n_items, batch, peak, 0).expect_err(field).to_string(), &[field]);
    }
}
