//! ModernBERT.

use crate::support::heads::{LIMITS, adapted, assert_parity, data, dir, expected, loaded, precisions};
use crate::support::{Padded, device, logits, relative_error};
use bayes_lora::BayesLoraConfig;
use bayes_lora::data::PaddingSide;
use bayes_lora::lora::{LoraConfig, load_peft, read_adapter, save_peft};
use bayes_lora::models::{
    Dataset, Encoder, EncoderConfig, EncoderFamily, LanguageModel, Pooling, PretrainedEncoder, SequenceClassifier,
};
use bayes_lora::tape::Tape;
use bayes_lora::train::TrainerConfig;
use burn::module::Module;
use burn::tensor::DType;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::path::Path;

const NAME: &str = "tiny_modernbert";

fn model(dtype: DType) -> SequenceClassifier<Encoder> {
    adapted(&dir(NAME).join("base"), &dir(NAME).join("adapter"), &data(NAME), dtype)
}

/// A copy of a base with another `config.json`.
fn with_config(base: &str, edit: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let (from, to) = (dir(NAME).join(base), tempfile::tempdir().unwrap());
    let mut config = serde_json::from_str(&std::fs::read_to_string(from.join("config.json")).unwrap()).unwrap();
    edit(&mut config);
    std::fs::write(to.path().join("config.json"), config.to_string()).unwrap();
    std::fs::copy(from.join("model.safetensors"), to.path().join("model.safetensors")).unwrap();
    to
}

/// Writes the tensors of a base anew under other names; those without one are left out.
fn rename(base: &Path, to: &Path, name: impl Fn(&str) -> Option<String>) {
    let bytes = std::fs::read(base.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter().filter_map(|(old, view)| Some((name(&old)?, view)));
    std::fs::write(to.join("model.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
    std::fs::copy(base.join("config.json"), to.join("config.json")).unwrap();
}

#[test]
fn logits_gradients_and_jacobians_equal_those_of_transformers_and_peft() {
    for (dtype, tolerance) in precisions() {
        // A and B of four linears in three layers, and the head; the second prompt is longer than the window
        assert_parity((&model(dtype), &data(NAME)), NAME, (25, 1), (dtype, tolerance));
    }
}

#[test]
fn biases_and_pooling_by_the_mean_are_those_of_transformers_on_either_side_of_pads() {
    let expected = expected(&dir(NAME).join("expected.safetensors"), "logits_biased");
    for (dtype, tolerance) in precisions() {
        let (data, loaded) = (data(NAME), loaded(&dir(NAME).join("biased"), dtype));
        assert!(loaded.report.is_empty(), "{}", loaded.report);
        let model = SequenceClassifier::with_head(loaded.encoder, loaded.head.unwrap(), &data).unwrap();
        for side in [PaddingSide::Left, PaddingSide::Right] {
            let error = relative_error(&logits(&model, &Padded(&data, side)).into_dyn(), &expected);
            assert!(error < tolerance, "{dtype:?}, {side:?}: {error:e}");
        }
    }
}

#[test]
fn pads_change_nothing_on_either_side() {
    let (dtype, tolerance) = *precisions().last().unwrap();
    let (model, data) = (model(dtype), data(NAME));
    let left = logits(&model, &Padded(&data, PaddingSide::Left));
    assert!(relative_error(&left, &logits(&model, &data)) < tolerance);
}

#[test]
fn both_spellings_of_a_configuration_are_one() {
    for base in ["base", "biased"] {
        let read = |file: &str| {
            let text = std::fs::read_to_string(dir(NAME).join(base).join(file)).unwrap();
            EncoderConfig::from_json(&text, file).unwrap()
        };
        let config = read("config.json");
        assert_eq!(config, read("config.old.json"));
        let EncoderFamily::ModernBert(modern) = config.family else { panic!("it is one") };
        assert_eq!((modern.reach, modern.rope.0, modern.sliding_rope.0), (2, 400.0, 30.0));
        assert!(!modern.slides[0] && modern.slides[1]);
        assert_eq!(config.labels, ["bad", "fair", "good"]);
    }
}

#[test]
fn every_setting_moves_the_logits() {
    let data = data(NAME);
    let of = |base: &Path| {
        let loaded = loaded(base, DType::F32);
        logits(&SequenceClassifier::with_head(loaded.encoder, loaded.head.unwrap(), &data).unwrap(), &data)
    };
    let plain = of(&dir(NAME).join("base"));
    for (key, value) in [
        ("local_attention", json!(8)),
        ("layer_types", json!(["full_attention", "sliding_attention", "sliding_attention"])),
        ("hidden_activation", json!("silu")),
        ("classifier_activation", json!("silu")),
        ("classifier_pooling", json!("mean")),
        ("norm_eps", json!(0.1)),
    ] {
        let other = with_config("base", |config| config[key] = value);
        assert!(relative_error(&of(other.path()), &plain) > 1e-3, "{key}");
    }
    for layers in ["full_attention", "sliding_attention"] {
        let other = with_config("base", |config| config["rope_parameters"][layers]["rope_theta"] = json!(9.0));
        assert!(relative_error(&of(other.path()), &plain) > 1e-3, "{layers}");
    }
}

#[test]
fn a_bare_encoder_is_read_and_pooled_as_asked() {
    let (base, to) = (dir(NAME).join("base"), tempfile::tempdir().unwrap());
    // what `AutoModel` saves
    rename(&base, to.path(), |name| name.strip_prefix("model.").map(str::to_string));
    let pretrained = PretrainedEncoder::from_dir(to.path()).unwrap();
    let error = pretrained.load(&device()).unwrap_err().to_string();
    assert!(error.contains("head.dense.weight"), "{error}");
    let data = data(NAME);
    let whole = loaded(&base, DType::F32).encoder;
    let batch = data.batch(&[0, 1, 2, 3], &device(), DType::F32).unwrap();
    for pooling in [Pooling::FirstToken, Pooling::Mean] {
        let bare = pretrained.clone().with_pooling(pooling).load(&device()).unwrap();
        assert!(bare.head.is_none());
        let hidden = bare.encoder.valid().hidden(&batch, &mut Tape::off()).into_data();
        assert_eq!(hidden, whole.valid().hidden(&batch, &mut Tape::off()).into_data());
        let paths: Vec<&str> =
            bayes_lora::lora::Adaptable::linears(&bare.encoder).iter().map(|l| l.path.as_str()).collect();
        assert_eq!((paths.len(), paths[0]), (12, "model.layers.0.attn.Wqkv"));
    }
}

#[test]
fn tensors_beyond_the_configuration_are_named() {
    let biased = dir(NAME).join("biased");
    for (edit, part) in [
        (json!({"attention_bias": false}), "attn.Wo.bias"),
        (json!({"norm_bias": false}), "norm.bias"),
        (json!({"classifier_bias": false}), "head.dense.bias"),
        (json!({"num_hidden_layers": 1, "layer_types": null}), "layers.1"),
    ] {
        let other = with_config("biased", |config| {
            config.as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
        });
        let error = PretrainedEncoder::from_dir(other.path()).unwrap().load(&device()).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("biases"), "{error}");
    }
    let to = tempfile::tempdir().unwrap();
    rename(&biased, to.path(), |name| Some(name.replace("mlp_norm", "mlp_other")));
    let error = PretrainedEncoder::from_dir(to.path()).unwrap().load(&device()).unwrap_err().to_string();
    assert!(error.contains("mlp_norm"), "{error}");
}

#[test]
fn an_adapter_is_saved_with_its_head_as_peft_has_it_and_a_posterior_is_fitted_around_it() {
    let (peft, data) = (model(DType::F32), data(NAME));
    let out = tempfile::tempdir().unwrap();
    let lora = LoraConfig::new(2).with_alpha(4.0).with_target_modules(["Wqkv", "Wo", "Wi"]);
    save_peft(&peft, &lora, NAME, out.path()).unwrap();
    let [theirs, ours] = [&dir(NAME).join("adapter"), out.path()]
        .map(|dir| std::fs::read(dir.join("adapter_model.safetensors")).unwrap());
    let (theirs, ours) = (SafeTensors::deserialize(&theirs).unwrap(), SafeTensors::deserialize(&ours).unwrap());
    assert_eq!(ours.len(), theirs.len());
    for name in ours.names() {
        assert_eq!(ours.tensor(name).unwrap(), theirs.tensor(name).unwrap(), "{name}");
    }
    let fresh = || SequenceClassifier::new(loaded(&dir(NAME).join("base"), DType::F32).encoder, &data, 7).unwrap();
    let again = load_peft(fresh(), out.path()).unwrap().0;
    assert_eq!(read_adapter(&again).unwrap(), read_adapter(&peft).unwrap());

    let trainer = TrainerConfig::default().with_epochs(4).with_learning_rate(1e-2);
    let bayes = BayesLoraConfig::new(lora).with_trainer(trainer).with_limits(LIMITS).init().unwrap();
    let fitted = bayes.fit(fresh(), &data).unwrap();
    let probabilities = fitted.predict_calibrated(&data).unwrap().probabilities;
    assert!(probabilities.rows().into_iter().all(|row| (row.sum() - 1.0).abs() < 1e-9));
}
