//! Several texts in one row: outputs, gradients and whole runs are those of rows apart.

use super::loss::{Expected, expected, in_order};
use super::{bare, bare_mistral, llama, mistral, texts};
use crate::support::families::{FAMILIES, FamilyFixture, dir};
use crate::support::{f64_or_skip, has_f64, on_host, relative_error};
use bayes_lora::checkpoints::Checkpoints;
use bayes_lora::curvature::{Cotangents, probe};
use bayes_lora::data::{BatchLimits, TextDataset};
use bayes_lora::error::{Error, Result};
use bayes_lora::likelihood::NextToken;
use bayes_lora::lora::{Adaptable, AdapterWeights, LoraConfig, attach, load_peft, read_adapter};
use bayes_lora::models::{Classifier, ClassifierInput, Dataset, Subset, TextBatch, TextModel};
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Site, Tape};
use bayes_lora::train::{TrainOutcome, Trainer, TrainerConfig, TrainingMode, set_trainable};
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::DType;
use ndarray::{Array1, Array2};
use std::time::Duration;

fn packed(model: &TextModel, data: &TextDataset, row_tokens: usize) -> TextBatch {
    let items: Vec<usize> = (0..data.len()).collect();
    data.packed_batch(&items, row_tokens, &model.device(), model.dtype()).unwrap().unwrap()
}

fn apart(model: &TextModel, data: &TextDataset) -> TextBatch {
    let items: Vec<usize> = (0..data.len()).collect();
    data.batch(&items, &model.device(), model.dtype()).unwrap()
}

/// ℓ of each text, and the gradient of their sum as the trainer takes it, of the whole graph or layer by layer.
fn differentiated(model: &TextModel, batch: &TextBatch, by_layers: bool) -> (Array1<f64>, AdapterWeights) {
    model.check(batch).unwrap();
    let model = set_trainable(model.clone(), &TrainingMode::Lora).unwrap().train();
    let mut outputs = None;
    let mut loss = |logits: burn::tensor::Tensor<2>| {
        outputs = Some(on_host(logits.clone().without_autodiff()).column(0).to_owned());
        Ok(logits.sum())
    };
    let gradients = match by_layers {
        true => model.gradient(batch, &mut Tape::off(), true, &mut loss).unwrap().unwrap(),
        false => {
            let sum = loss(model.logits(batch, &mut Tape::off())).unwrap();
            GradientsParams::from_grads(sum.backward(), &model)
        }
    };
    let mut all = AdapterWeights::default();
    for linear in model.linears() {
        let Some(adapter) = &linear.adapter else { continue };
        for (matrix, param) in [(LoraMatrix::A, &adapter.a), (LoraMatrix::B, &adapter.b)] {
            let gradient = gradients.get::<2>(param.id).unwrap();
            let values = gradient.clone().into_data().convert::<f64>().try_into_vec::<f64>().unwrap();
            let site = Site { module: linear.path.clone(), matrix };
            all.insert(site, Array2::from_shape_vec(gradient.dims(), values).unwrap());
        }
    }
    (outputs.unwrap(), all)
}

fn flat(weights: &AdapterWeights) -> Array1<f64> {
    weights.values().flat_map(|w| w.iter().copied()).collect()
}

#[test]
fn packed_rows_are_those_of_transformers_with_peft() {
    let Expected { data, packed: [log_likelihoods, gradient], order, .. } = expected();
    let mut precisions = vec![(DType::F32, 1e-4)];
    if has_f64() {
        precisions.push((DType::F64, 1e-6));
    }
    for (dtype, tolerance) in precisions {
        let model = llama(dtype);
        let batch = packed(&model, &data, 32);
        assert!(batch.token_mask().nrows() < data.len());
        let (found, slope) = differentiated(&model, &batch, false);
        assert!(relative_error(&found, &log_likelihoods) < tolerance, "{dtype:?}");
        // transformers' loss is the mean over the scored tokens, ours a sum of log-likelihoods
        let slope = in_order(&slope, &order) / -(data.n_scored() as f64);
        assert!(relative_error(&slope, &gradient) < tolerance, "{dtype:?}");
    }
}

#[test]
fn outputs_and_gradients_of_every_family_are_those_of_rows_apart() {
    let mut precisions = vec![(DType::F32, 1e-5)]; // rounding of products of other shapes
    if has_f64() {
        precisions.push((DType::F64, 1e-11));
    }
    for (dtype, tolerance) in precisions {
        for name in FAMILIES {
            let base = dir(name);
            let model = load_peft(bare(&base, dtype), base.join("adapter")).unwrap().0;
            // up to 11 tokens, twice what the windows reach
            let data = texts(60);
            if name == "phi3" {
                let error = model.check(&packed(&model, &data, 40)).unwrap_err().to_string();
                assert!(error.contains("packing") && error.contains("longrope"), "{error}");
                continue;
            }
            let (outputs, gradient) = differentiated(&model, &apart(&model, &data), false);
            for row_tokens in [1, 16, 40] {
                let batch = packed(&model, &data, row_tokens);
                for by_layers in [false, true] {
                    let (found, slope) = differentiated(&model, &batch, by_layers);
                    let errors = (relative_error(&found, &outputs), relative_error(&flat(&slope), &flat(&gradient)));
                    assert!(errors.0 < tolerance && errors.1 < tolerance, "{name} {dtype:?} {row_tokens}: {errors:?}");
                }
            }
        }
    }
}

#[test]
fn a_text_sees_nothing_of_the_others_in_its_row() {
    if !f64_or_skip("texts of one row") {
        return;
    }
    let model = mistral();
    let mut data = texts(64);
    let before = on_host(model.logits(&packed(&model, &data, 64), &mut Tape::off()));
    // another first text of the same length
    data.examples[0].ids.iter_mut().for_each(|id| *id = 3 + (*id + 7) % 60);
    let after = on_host(model.logits(&packed(&model, &data, 64), &mut Tape::off()));
    assert_ne!(before[[0, 0]], after[[0, 0]]);
    for text in 1..data.len() {
        assert_eq!(before[[text, 0]], after[[text, 0]]);
    }
}

fn config(packing: Option<usize>) -> TrainerConfig {
    let limits = BatchLimits { max_items: 3, max_tokens: 1000 };
    let config = TrainerConfig::default().with_likelihood(NextToken).with_epochs(3).with_learning_rate(1e-2);
    config.with_limits(limits).with_accumulation(2).with_packing(packing)
}

fn train(config: TrainerConfig, start: TextModel, data: &TextDataset) -> TrainOutcome<TextModel> {
    Trainer::new(config).unwrap().fit(start, data, Some(data), &Control::silent()).unwrap()
}

#[test]
fn a_run_on_packed_rows_with_dropout_ends_where_one_on_rows_apart_does() {
    if !f64_or_skip("training on packed rows") {
        return;
    }
    let data = texts(64);
    let lora = LoraConfig::new(2).with_alpha(4.0).with_dropout(0.3).with_target_modules(["q_proj", "down_proj"]);
    let start = attach(bare_mistral(), &lora, 3).unwrap();
    let apart = train(config(None), start.clone(), &data);
    for row_tokens in [20, 64] {
        let packed = train(config(Some(row_tokens)), start.clone(), &data);
        let (found, expected) = (read_adapter(&packed.model).unwrap(), read_adapter(&apart.model).unwrap());
        // rounding, through nine steps of Adam
        assert!(relative_error(&flat(&found), &flat(&expected)) < 1e-7);
        for (found, expected) in packed.report.epochs.iter().zip(&apart.report.epochs) {
            assert!((found.train_nll / expected.train_nll - 1.0).abs() < 1e-8);
            assert!((found.validation_nll.unwrap() / expected.validation_nll.unwrap() - 1.0).abs() < 1e-8);
        }
        assert_eq!((packed.report.steps, packed.report.tokens), (apart.report.steps, apart.report.tokens));
        // and the same bits twice
        let again = train(config(Some(row_tokens)), start.clone(), &data);
        assert_eq!(read_adapter(&again.model).unwrap(), found);
    }
    // dropout had a part in it
    let without = attach(bare_mistral(), &lora.with_dropout(0.0), 3).unwrap();
    let without = train(config(None), without, &data);
    assert_ne!(read_adapter(&without.model).unwrap(), read_adapter(&apart.model).unwrap());
}

#[test]
fn a_run_on_packed_rows_that_is_killed_after_any_step_ends_in_the_same_bits() {
    let data = texts(96);
    let control = |dir: &std::path::Path| {
        Control::silent().with_checkpoints(Checkpoints::new(dir).with_every(Duration::ZERO)).unwrap()
    };
    let fit = |packing, control: &Control| -> Result<TrainOutcome<TextModel>> {
        Trainer::new(config(packing)).unwrap().fit(llama(DType::F32), &data, Some(&data), control)
    };
    let whole = fit(Some(24), &Control::silent()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cancelled = control(dir.path());
    cancelled.cancel();
    for steps in 1..whole.report.steps {
        assert!(matches!(fit(Some(24), &cancelled).unwrap_err(), Error::Cancelled { .. }), "step {steps}");
    }
    // rows of another length round otherwise
    for other in [None, Some(25)] {
        let error = fit(other, &control(dir.path())).unwrap_err().to_string();
        assert!(error.contains("packing"), "{error}");
    }
    let resumed = fit(Some(24), &control(dir.path())).unwrap();
    assert!(resumed.report.resumed_after.is_some());
    assert_eq!(read_adapter(&resumed.model).unwrap(), read_adapter(&whole.model).unwrap());
    assert_eq!(resumed.report.epochs, whole.report.epochs);
}

#[test]
fn a_subset_of_texts_is_packed_too() {
    let (model, data) = (llama(DType::F32), texts(96));
    let subset = Subset::new(&data, vec![6, 1, 4, 2]).unwrap();
    let limits = BatchLimits { max_items: 3, max_tokens: 1000 };
    let order = bayes_lora::data::BatchOrder::ByLength;
    let plan = subset.plan_packed(limits, order, 30).unwrap().unwrap();
    let mut all = plan.concat();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3]);
    let batch = subset.packed_batch(&[0, 2], 30, &model.device(), model.dtype()).unwrap().unwrap();
    assert_eq!(batch.texts(), [data.examples[6].clone(), data.examples[4].clone()]);
    assert_eq!(batch.token_mask().nrows(), 1);
    let repeated = batch.repeat(2).unwrap();
    assert_eq!((repeated.n_items(), repeated.token_mask().nrows()), (4, 2));
}

#[test]
fn what_cannot_be_packed_is_refused_by_name() {
    let error = TrainerConfig::default().with_packing(0).validate().unwrap_err().to_string();
    assert!(error.contains("packing") && error.contains("at least 1"), "{error}");
    // questions with choices
    let fixture = FamilyFixture::load("mistral");
    let trainer = Trainer::new(TrainerConfig::default().with_packing(64)).unwrap();
    let model = fixture.model("config.json", DType::F32);
    let error = trainer.fit(model, &fixture.data, None, &Control::silent()).unwrap_err().to_string();
    assert!(error.contains("packing") && error.contains("texts"), "{error}");
    // curvature reads token by token
    let (model, data) = (llama(DType::F32), texts(96));
    let error = probe(&model, &packed(&model, &data, 64), Cotangents::Classes).unwrap_err().to_string();
    assert!(error.contains("packing") && error.contains("apart"), "{error}");
    // a text longer than the context is named, though its row is called by no name
    let long = TextDataset::new("t", vec![super::text("q7", vec![1; 65], &[1..65]), data.examples[0].clone()]).unwrap();
    let error = model.check(&packed(&model, &long, 100)).unwrap_err().to_string();
    assert!(error.contains("q7") && error.contains("65") && error.contains("64"), "{error}");
    // a row that is longer than the context is none of its texts
    let many = TextDataset::new("t", (0..9).map(|i| super::text(i, vec![1; 60], &[1..60])).collect()).unwrap();
    model.check(&packed(&model, &many, 600)).unwrap();
    assert!(
        relative_error(
            &on_host(model.logits(&packed(&model, &many, 600), &mut Tape::off())).column(0).to_owned(),
            &on_host(model.logits(&apart(&model, &many), &mut Tape::off())).column(0).to_owned()
        ) < 1e-5
    ); // f32
}
