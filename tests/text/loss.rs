//! Log-likelihoods and gradients against transformers with PEFT (`tests/fixtures/make_text.py`): completions and chats of several
//! turns, in one padded batch.

use super::{ALL, llama, text};
use crate::support::{has_f64, relative_error, root};
use bayes_lora::data::{BatchLimits, TextDataset, TextExample};
use bayes_lora::likelihood::NextToken;
use bayes_lora::lora::{Adaptable, AdapterWeights};
use bayes_lora::models::{Classifier, Dataset, TextModel};
use bayes_lora::posterior::log_likelihood_gradient;
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Site, Tape};
use burn::tensor::DType;
use ndarray::Array1;
use safetensors::SafeTensors;

pub struct Expected {
    pub data: TextDataset,
    pub log_likelihoods: Array1<f64>,
    /// Of the mean loss over all scored tokens.
    pub gradient: Array1<f64>,
    /// The same from rows that several texts share.
    pub packed: [Array1<f64>; 2],
    pub order: Vec<String>,
}

pub fn expected() -> Expected {
    let dir = root().join("tests/fixtures/text");
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("texts.json")).unwrap()).unwrap();
    let one = |(i, value): (usize, &serde_json::Value)| -> TextExample {
        let scored: Vec<[usize; 2]> = serde_json::from_value(value["scored"].clone()).unwrap();
        let scored: Vec<_> = scored.into_iter().map(|[a, b]| a..b).collect();
        text(i, serde_json::from_value(value["ids"].clone()).unwrap(), &scored)
    };
    let bytes = std::fs::read(dir.join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |key: &str| -> Array1<f64> {
        let bytes = file.tensor(key).unwrap().data();
        bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
    };
    Expected {
        data: TextDataset::new("f", json["texts"].as_array().unwrap().iter().enumerate().map(one).collect()).unwrap(),
        log_likelihoods: values("log_likelihoods"),
        gradient: values("gradient"),
        packed: [values("packed_log_likelihoods"), values("packed_gradient")],
        order: serde_json::from_value(json["parameter_order"].clone()).unwrap(),
    }
}

fn log_likelihoods(model: &TextModel, data: &TextDataset) -> Array1<f64> {
    let items: Vec<usize> = (0..data.len()).collect();
    let batch = data.batch(&items, &model.device(), model.dtype()).unwrap();
    let outputs = model.logits(&batch, &mut Tape::off());
    assert_eq!(outputs.dims(), [data.len(), 1]);
    Array1::from_vec(outputs.into_data().convert::<f64>().try_into_vec::<f64>().unwrap())
}

/// By PEFT's order of its parameters.
fn gradient(model: &TextModel, data: &TextDataset, limits: &BatchLimits, order: &[String]) -> Array1<f64> {
    in_order(&log_likelihood_gradient(model, data, &NextToken, limits, &Control::silent()).unwrap(), order)
}

pub fn in_order(all: &AdapterWeights, order: &[String]) -> Array1<f64> {
    let of = |name: &String| {
        let name = name.trim_start_matches("base_model.model.").trim_end_matches(".default.weight");
        let (module, matrix) = name.rsplit_once('.').unwrap();
        let matrix = if matrix == "lora_A" { LoraMatrix::A } else { LoraMatrix::B };
        all[&Site { module: module.into(), matrix }].iter().copied().collect::<Vec<f64>>()
    };
    order.iter().flat_map(of).collect()
}

#[test]
fn loss_and_gradient_of_completions_and_chats_equal_those_of_transformers_with_peft() {
    let Expected { data, log_likelihoods: expected, gradient: mean_gradient, order, .. } = expected();
    let mut precisions = vec![(DType::F32, 1e-4)];
    if has_f64() {
        precisions.push((DType::F64, 1e-6));
    }
    for (dtype, tolerance) in precisions {
        let model = llama(dtype);
        let error = relative_error(&log_likelihoods(&model, &data), &expected);
        println!("{dtype:?} log-likelihoods: {error:.1e}");
        assert!(error < tolerance, "{dtype:?}: {error:e}");
        // transformers' loss is the mean over the scored tokens of the batch, ours a sum
        let found = gradient(&model, &data, &ALL, &order) / -(data.n_scored() as f64);
        let error = relative_error(&found, &mean_gradient);
        println!("{dtype:?} gradient: {error:.1e}");
        assert!(error < tolerance, "{dtype:?}: {error:e}");
    }
}

#[test]
fn neither_the_batch_nor_the_number_of_scored_tokens_beside_a_text_changes_it() {
    if !has_f64() {
        return;
    }
    let (model, Expected { data, order, .. }) = (llama(DType::F64), expected());
    // 40 texts score more than the head takes at once
    let many: Vec<TextExample> =
        (0..40).map(|i| TextExample { id: i.to_string(), ..data.examples[i % data.len()].clone() }).collect();
    let many = TextDataset::new("many", many).unwrap();
    assert!(many.n_scored() > 3 * 64);
    let alone = log_likelihoods(&model, &data);
    let together = log_likelihoods(&model, &many);
    for (i, value) in together.iter().enumerate() {
        // rounding of products of other shapes
        assert!((value - alone[i % data.len()]).abs() < 1e-11 * value.abs());
    }
    let one_by_one = gradient(&model, &many, &BatchLimits { max_items: 1, max_tokens: 1 }, &order);
    assert!(relative_error(&gradient(&model, &many, &ALL, &order), &one_by_one) < 1e-11); // as above
}

#[test]
fn a_head_that_trains_gives_the_same_gradient_of_the_adapter() {
    use bayes_lora::likelihood::Target;
    use bayes_lora::train::{TrainingMode, negative_log_likelihood, set_trainable};
    use burn::module::Module;
    use burn::optim::GradientsParams;
    if !has_f64() {
        return;
    }
    let (model, data) = (llama(DType::F64), expected().data);
    let items: Vec<usize> = (0..data.len()).collect();
    // a head with a graph of its own goes through burn's autodiff, a frozen one chunk by chunk
    let by = |mode: TrainingMode| {
        let model = set_trainable(model.clone(), &mode).unwrap().train();
        let batch = data.batch(&items, &model.device(), model.dtype()).unwrap();
        let outputs = model.logits(&batch, &mut Tape::off());
        let loss = negative_log_likelihood(outputs, &NextToken, &vec![Target::OfInput; data.len()], None).unwrap();
        let gradients = GradientsParams::from_grads(loss.differentiable.backward(), &model);
        let adapter = model.linears().into_iter().find_map(|linear| linear.adapter.as_ref()).unwrap();
        let of_b =
            gradients.get::<2>(adapter.b.id).unwrap().into_data().convert::<f64>().try_into_vec::<f64>().unwrap();
        (loss.nats, Array1::from_vec(of_b))
    };
    let ((frozen_loss, frozen), (loss, trained)) = (by(TrainingMode::Lora), by(TrainingMode::Full));
    assert!((frozen_loss / loss - 1.0).abs() < 1e-13); // the same sums
    assert!(relative_error(&frozen, &trained) < 1e-11); // rounding
}

#[test]
fn a_text_that_does_not_fit_the_model_is_refused_with_both_numbers() {
    let model = llama(DType::F32);
    let check = |ids: Vec<u32>| {
        let n = ids.len();
        let data = TextDataset::new("t", vec![text("q7", ids, &[1..n])]).unwrap();
        model.check(&data.batch(&[0], &model.device(), model.dtype()).unwrap()).unwrap_err().to_string()
    };
    let error = check(vec![1; 65]);
    assert!(error.contains("q7") && error.contains("65") && error.contains("64"), "{error}");
    let error = check(vec![1, 96]);
    assert!(error.contains("96"), "{error}");
}
