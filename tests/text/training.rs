//! Training on texts: every scored token weighs the same however batches are cut, and a run that is killed ends in the same bits.

use super::{ALL, bare_mistral, llama, mistral, texts};
use crate::support::{f64_or_skip, logits, relative_error};
use bayes_lora::bayes_lora::BayesLoraConfig;
use bayes_lora::checkpoints::Checkpoints;
use bayes_lora::curvature::{CurvatureConfig, FisherKind};
use bayes_lora::data::{BatchLimits, TextDataset};
use bayes_lora::error::{Error, Result};
use bayes_lora::identity::Identity;
use bayes_lora::likelihood::NextToken;
use bayes_lora::lora::{Adaptable, AdapterWeights, LoraConfig, read_adapter};
use bayes_lora::memory::GradientCheckpointing;
use bayes_lora::models::{Dataset, Subset, TextModel};
use bayes_lora::posterior::log_likelihood_gradient;
use bayes_lora::predict::score_texts;
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Site};
use bayes_lora::train::{StepPosition, TrainOutcome, Trainer, TrainerConfig, TrainingMode, UpdateRule};
use burn::optim::GradientsParams;
use burn::tensor::DType;
use ndarray::{Array1, Array2};
use std::path::Path;
use std::time::Duration;

fn config(epochs: usize) -> TrainerConfig {
    TrainerConfig::default().with_likelihood(NextToken).with_epochs(epochs).with_learning_rate(1e-2)
}

/// Stays where it is and sums the gradients of all steps.
#[derive(Default)]
struct Sum(AdapterWeights);

impl UpdateRule<TextModel> for Sum {
    fn identity(&self) -> Result<Identity> {
        Ok(Identity::new().with("rule", "sum of the gradients"))
    }

    fn point(&mut self, model: &TextModel, _: StepPosition) -> Result<TextModel> {
        Ok(model.clone())
    }

    fn update(&mut self, model: TextModel, found: GradientsParams, _: StepPosition) -> Result<TextModel> {
        for linear in model.linears() {
            let Some(adapter) = &linear.adapter else { continue };
            for (matrix, param) in [(LoraMatrix::A, &adapter.a), (LoraMatrix::B, &adapter.b)] {
                let gradient = found.get::<2>(param.id).unwrap();
                let dims = gradient.dims();
                let values = gradient.into_data().convert::<f64>().try_into_vec::<f64>().unwrap();
                let gradient = Array2::from_shape_vec(dims, values).unwrap();
                let site = Site { module: linear.path.clone(), matrix };
                let sum = self.0.entry(site).or_insert(&gradient * 0.0);
                *sum += &gradient;
            }
        }
        Ok(model)
    }

    fn state(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _: Vec<u8>) -> Result<()> {
        Ok(())
    }
}

/// The sum of the gradients of all steps of an epoch, and its number of steps.
fn summed(model: &TextModel, data: &TextDataset, limits: BatchLimits, accumulation: usize) -> (Array1<f64>, usize) {
    let mut rule = Sum::default();
    let config = config(1).with_limits(limits).with_accumulation(accumulation).with_max_grad_norm(None);
    let trainer = Trainer::new(config.with_shuffle(false)).unwrap();
    let report = trainer.fit_by(&mut rule, model.clone(), data, None, &Control::silent()).unwrap().report;
    (flat(&rule.0), report.steps)
}

fn flat(weights: &AdapterWeights) -> Array1<f64> {
    weights.values().flat_map(|w| w.iter().copied()).collect()
}

#[test]
fn batches_of_different_numbers_of_tokens_accumulate_to_the_gradient_of_the_joined_batch() {
    if !f64_or_skip("accumulation on texts") {
        return;
    }
    let (model, data) = (llama(DType::F64), texts(96));
    let counts: Vec<usize> = (0..data.len()).map(|item| data.units(item)).collect();
    assert!(counts.iter().any(|n| *n != counts[0]), "{counts:?}");
    assert_eq!(counts.iter().sum::<usize>(), data.n_scored());
    let (joined, steps) = summed(&model, &data, ALL, 1);
    assert_eq!(steps, 1);
    // transformers' mean over the scored tokens of the batch
    let sum = log_likelihood_gradient(&model, &data, &NextToken, &ALL, &Control::silent()).unwrap();
    let mean = flat(&sum) / -(data.n_scored() as f64);
    assert!(relative_error(&joined, &mean) < 1e-11); // rounding
    let (accumulated, steps) = summed(&model, &data, BatchLimits { max_items: 3, max_tokens: 1000 }, 3);
    assert_eq!(steps, 1);
    assert!(relative_error(&accumulated, &joined) < 1e-11); // as above
    // over an epoch of several uneven steps every token weighs the same
    let (of_epoch, steps) = summed(&model, &data, BatchLimits { max_items: 3, max_tokens: 1000 }, 1);
    assert_eq!(steps, 3);
    assert!(relative_error(&(of_epoch / 3.0), &joined) < 1e-11);
}

#[test]
fn training_layer_by_layer_ends_in_the_same_bits() {
    let (model, data) = (llama(DType::F32), texts(96));
    let run = |checkpointing| {
        let control = Control::silent().with_gradient_checkpointing(checkpointing);
        let trainer = Trainer::new(config(2)).unwrap();
        read_adapter(&trainer.fit(model.clone(), &data, None, &control).unwrap().model).unwrap()
    };
    assert_ne!(run(GradientCheckpointing::Off), read_adapter(&model).unwrap());
    assert_eq!(run(GradientCheckpointing::On), run(GradientCheckpointing::Off));
}

#[test]
fn validation_is_in_nats_a_token_and_its_exponential_the_perplexity() {
    let (model, data) = (llama(DType::F32), texts(96));
    let trainer = Trainer::new(config(6)).unwrap();
    let outcome = trainer.fit(model, &data, Some(&data), &Control::silent()).unwrap();
    let last = outcome.report.epochs.last().unwrap();
    let by_hand = -logits(&outcome.model, &data).sum() / data.n_scored() as f64;
    assert!((last.validation_nll.unwrap() - by_hand).abs() < 1e-5); // sums in f32
    assert!((last.validation_perplexity().unwrap() - by_hand.exp()).abs() < 1e-4 * by_hand.exp());
    assert_eq!(last.validation_accuracy, None);
    let first = &outcome.report.epochs[0];
    assert!(last.validation_nll < first.validation_nll && last.train_nll < first.train_nll);
}

#[test]
fn every_mode_of_training_fits_the_texts() {
    let data = texts(64);
    let before = -logits(&mistral(), &data).sum();
    for mode in [TrainingMode::Lora, TrainingMode::Full] {
        let trainer = Trainer::new(config(5).with_mode(mode)).unwrap();
        let outcome = trainer.fit(mistral(), &data, None, &Control::silent()).unwrap();
        assert!(-logits(&outcome.model, &data).sum() < 0.9 * before);
    }
}

#[test]
fn a_subset_of_texts_counts_their_tokens() {
    let data = texts(64);
    let subset = Subset::new(&data, vec![4, 0, 2]).unwrap();
    let units: Vec<usize> = (0..3).map(|item| subset.units(item)).collect();
    assert_eq!(units, [4, 0, 2].map(|item| data.examples[item].n_scored()));
}

#[test]
fn one_call_trains_finds_the_posterior_and_scores() {
    let data = texts(64);
    let curvature = CurvatureConfig::default().with_fisher(FisherKind::Sampled { n: 2, seed: 1 });
    let config = BayesLoraConfig::new(LoraConfig::new(2)).with_likelihood(NextToken).with_curvature(curvature);
    let config = config.with_trainer(TrainerConfig::default().with_epochs(4).with_learning_rate(1e-2));
    let fitted = config.init().unwrap().fit(bare_mistral(), &data).unwrap();
    assert_eq!(fitted.laplace.likelihood(), &NextToken.into());
    // the matched prior needs an exact Fisher information, and says that it went by evidence instead
    assert!(fitted.laplace.prior_searches()[0].meaning.contains("evidence"));
    let scores = score_texts(&fitted.model, &fitted.laplace, &data, &ALL, &Control::silent()).unwrap();
    assert!(scores.iter().all(|score| score.standard_deviation > 0.0 && score.log_likelihood < 0.0));
    let error = fitted.predict_calibrated(&data).unwrap_err().to_string();
    assert!(error.contains("next-token"), "{error}");
    let evidence = fitted.laplace.prior_precisions().clone();
    let tuned = fitted.tune_prior(&data, &Control::silent()).unwrap().laplace;
    assert_ne!(*tuned.prior_precisions(), evidence);
}

fn always(dir: &Path) -> Control {
    Control::silent().with_checkpoints(Checkpoints::new(dir).with_every(Duration::ZERO)).unwrap()
}

#[test]
fn a_run_that_is_killed_after_any_step_ends_in_the_same_bits() {
    let data = texts(96);
    let config = config(2).with_limits(BatchLimits { max_items: 2, max_tokens: 1000 }).with_accumulation(2);
    let fit = |control: &Control| -> Result<TrainOutcome<TextModel>> {
        Trainer::new(config.clone()).unwrap().fit(llama(DType::F32), &data, Some(&data), control)
    };
    let whole = fit(&Control::silent()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cancelled = always(dir.path());
    cancelled.cancel();
    // a cancelled call does one step and is saved
    for steps in 1..whole.report.steps {
        assert!(matches!(fit(&cancelled).unwrap_err(), Error::Cancelled { .. }), "step {steps}");
    }
    let resumed = fit(&always(dir.path())).unwrap();
    assert!(resumed.report.resumed_after.is_some());
    assert_eq!(read_adapter(&resumed.model).unwrap(), read_adapter(&whole.model).unwrap());
    assert_eq!(resumed.report.epochs, whole.report.epochs);
    // other texts are another run
    let error = Trainer::new(config.clone())
        .unwrap()
        .fit(llama(DType::F32), &data.split(2, 1).unwrap().0, None, &always(dir.path()))
        .unwrap_err();
    assert!(error.to_string().contains("training data"), "{error}");
}
