//! Every family of decoders equals what transformers and PEFT compute on a tiny random model of it, in both spellings of its
//! configuration, on either side of pads; adapters and merged models come back.
//!
//! `tests/fixtures/make_families.py` made the models and ran transformers with every intermediate in f64, so that f64 is held to
//! 1e-11 relative: found are 4e-15, some ten roundings. f32 is held to 1e-4, and 1e-6 is found.

use crate::support::families::{FAMILIES, FamilyFixture, SPELLINGS, dir};
use crate::support::{Padded, device, has_f64, logits, relative_error};
use bayes_lora::curvature::{Cotangents, probe};
use bayes_lora::data::{BatchLimits, BatchOrder, PaddingSide};
use bayes_lora::likelihood::{Categorical, Target};
use bayes_lora::lora::{Adaptable, LoraConfig, attach, load_peft, read_adapter, save_peft};
use bayes_lora::models::{
    Classifier, ClassifierInput, Dataset, DecoderConfig, MERGE_TOLERANCE, Pretrained, PromptClassifier,
};
use bayes_lora::tape::Tape;
use bayes_lora::train::{TrainingMode, negative_log_likelihood, set_trainable};
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::DType;
use ndarray::Array2;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const SIDES: [PaddingSide; 2] = [PaddingSide::Left, PaddingSide::Right];

/// Element types to test with the tolerance each deserves.
fn precisions() -> Vec<(DType, f64)> {
    let mut all = vec![(DType::F32, 1e-4)];
    if has_f64() {
        all.push((DType::F64, 1e-11));
    }
    all
}

/// Whether the matrices under these names are as expected: each against the largest of all.
fn assert_close(found: &BTreeMap<String, Vec<f64>>, expected: &BTreeMap<String, Vec<f64>>, tolerance: f64, what: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    let scale = expected.values().flatten().fold(0.0f64, |m, v| m.max(v.abs()));
    for (name, expected) in expected {
        assert_eq!(found[name].len(), expected.len(), "{what} {name}");
        let pairs = found[name].iter().zip(expected);
        let error = pairs.fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / scale;
        assert!(error < tolerance, "{what} {name}: {error:e}");
        assert!(expected.iter().any(|v| v.abs() > 1e-6 * scale), "{what} {name}: nothing to compare");
    }
}

#[test]
fn logits_equal_those_of_transformers_in_both_spellings_and_on_both_sides_of_pads() {
    for name in FAMILIES {
        let fixture = FamilyFixture::load(name);
        let plain = Pretrained::from_dir(dir(name)).unwrap();
        for spelling in SPELLINGS {
            let other = Pretrained::from_dir(fixture.base(spelling).path()).unwrap();
            assert_eq!(plain.config(), other.config(), "{name} {spelling}");
            for (dtype, tolerance) in precisions() {
                let model = fixture.model(spelling, dtype);
                for side in SIDES {
                    let error = relative_error(&logits(&model, &Padded(&fixture.data, side)), &fixture.logits());
                    println!("{name} {spelling} {dtype:?} {side:?}: {error:.1e}");
                    assert!(error < tolerance, "{name} {spelling} {dtype:?} {side:?}: {error:e}");
                }
            }
        }
    }
}

#[test]
fn the_gradient_of_the_nll_at_every_adapted_matrix_equals_that_of_transformers() {
    for name in FAMILIES {
        let fixture = FamilyFixture::load(name);
        let expected = fixture.order.iter().zip(fixture.gradient());
        let expected = expected.map(|(name, part)| (name.clone(), part.into_iter().collect())).collect();
        for (dtype, tolerance) in precisions() {
            for side in SIDES {
                let model = set_trainable(fixture.model(SPELLINGS[0], dtype), &TrainingMode::Lora).unwrap().train();
                let data = Padded(&fixture.data, side);
                let indices: Vec<usize> = (0..fixture.data.items.len()).collect();
                let input = data.batch(&indices, &model.device(), dtype).unwrap();
                let targets: Vec<Target> = indices.iter().map(|&i| data.target(i).unwrap()).collect();
                let outputs = model.logits(&input, &mut Tape::off());
                let loss = negative_log_likelihood(outputs, &Categorical, &targets, input.class_mask()).unwrap();
                let gradients = GradientsParams::from_grads(loss.differentiable.backward(), &model);
                let mut found = BTreeMap::new();
                for linear in model.linears() {
                    let Some(adapter) = &linear.adapter else { continue };
                    for (matrix, param) in [("lora_A", &adapter.a), ("lora_B", &adapter.b)] {
                        let values = gradients.get::<2>(param.id).unwrap().into_data().convert::<f64>();
                        found.insert(format!("{}.{matrix}.weight", linear.path), values.try_into_vec().unwrap());
                    }
                }
                assert_close(&found, &expected, tolerance, &format!("{name} {dtype:?} {side:?}"));
            }
        }
    }
}

#[test]
fn the_jacobian_of_an_item_equals_that_of_transformers() {
    for name in FAMILIES {
        let fixture = FamilyFixture::load(name);
        let expected = fixture.order.iter().zip(fixture.jacobian());
        let expected = expected.map(|(name, part)| (name.clone(), part.into_iter().collect())).collect();
        let last = fixture.data.items.len() - 1;
        for (dtype, tolerance) in precisions() {
            for side in SIDES {
                let model = fixture.model(SPELLINGS[0], dtype);
                // beside a shorter item, so that there are pads
                let input = Padded(&fixture.data, side).batch(&[0, last], &model.device(), dtype).unwrap();
                let pass = probe(&model, &input, Cotangents::Classes).unwrap();
                let mut found = BTreeMap::new();
                for site in &pass.sites {
                    let jacobian = site.jacobians().unwrap().index_axis_move(ndarray::Axis(0), 1);
                    found.insert(format!("{}.weight", site.site), jacobian.into_iter().collect());
                }
                assert_close(&found, &expected, tolerance, &format!("{name} {dtype:?} {side:?}"));
            }
        }
    }
}

#[test]
fn a_row_is_the_same_alone_and_among_longer_ones() {
    // for LongRoPE above all, whose factors are a matter of the row
    let dtype = if has_f64() { DType::F64 } else { DType::F32 };
    for name in FAMILIES {
        let fixture = FamilyFixture::load(name);
        let model = fixture.model(SPELLINGS[0], dtype);
        let together = logits(&model, &fixture.data);
        let limits = BatchLimits { max_items: 1, max_tokens: 1000 };
        for indices in fixture.data.plan(limits, BatchOrder::ByLength).unwrap() {
            let input = fixture.data.batch(&indices, &model.device(), dtype).unwrap();
            let alone = model.logits(&input, &mut Tape::off()).into_data().convert::<f64>().try_into_vec().unwrap();
            let alone = Array2::from_shape_vec((1, together.ncols()), alone).unwrap();
            let expected = together.select(ndarray::Axis(0), &indices);
            assert!(relative_error(&alone, &expected) < if has_f64() { 1e-12 } else { 1e-5 }, "{name} {indices:?}");
        }
    }
}

#[test]
fn an_adapter_saved_here_has_the_tensors_of_pefts_and_comes_back() {
    for name in FAMILIES {
        let (fixture, saved) = (FamilyFixture::load(name), tempfile::tempdir().unwrap());
        let bare = fixture.bare(SPELLINGS[0], DType::F32);
        let (model, config) = load_peft(bare.clone(), dir(name).join("adapter")).unwrap();
        let place = saved.path().join("adapter");
        save_peft(&model, &config, "base", &place).unwrap();
        let tensors = |dir: &std::path::Path| -> BTreeMap<String, Vec<u8>> {
            let bytes = std::fs::read(dir.join("adapter_model.safetensors")).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            file.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect()
        };
        assert_eq!(tensors(&place), tensors(&dir(name).join("adapter")), "{name}");
        let (again, _) = load_peft(bare, &place).unwrap();
        assert_eq!(logits(&again, &fixture.data), logits(&model, &fixture.data), "{name}");
    }
}

#[test]
fn every_linear_can_be_adapted_and_every_tensor_is_written_by_a_merge() {
    for name in FAMILIES {
        let (fixture, place) = (FamilyFixture::load(name), tempfile::tempdir().unwrap());
        for spelling in SPELLINGS {
            let base = fixture.base(spelling);
            let source = Pretrained::from_dir(base.path()).unwrap();
            let rows: Vec<Vec<u32>> = fixture.data.items.iter().map(|item| item.rows[0].ids.clone()).collect();
            let to = place.path().join(spelling);
            let model = fixture.model(spelling, DType::F32);
            source.merge_and_save(&model.lm, &rows, MERGE_TOLERANCE, &to).unwrap();
            let names = |dir: &std::path::Path| -> BTreeSet<String> {
                let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
                let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
                file.names().into_iter().map(String::from).collect()
            };
            // of a larger model the language model alone is written
            let of_text =
                names(base.path()).into_iter().filter(|name| !name.starts_with("vision") && !name.starts_with("multi"));
            let inner = |name: String| name.strip_prefix("language_model.").map(String::from).unwrap_or(name);
            assert_eq!(names(&to), of_text.map(inner).collect(), "{name}");
            let merged = Pretrained::from_dir(&to).unwrap();
            assert_eq!(merged.config(), &DecoderConfig { inside: false, ..source.config().clone() }, "{name}");
            let merged = PromptClassifier::new(merged.load(&device()).unwrap(), &fixture.data).unwrap();
            let error = relative_error(&logits(&merged, &fixture.data), &fixture.logits());
            assert!(error < 1e-4, "{name} {spelling}: {error:e}"); // f32
        }
        let config = LoraConfig::new(1).with_target_pattern("all-linear");
        let adapted = attach(fixture.bare(SPELLINGS[0], DType::F32), &config, 0).unwrap();
        let of_block = if name == "phi3" { 4 } else { 7 };
        let n_layers = adapted.lm.config().n_layers;
        assert_eq!(read_adapter(&adapted).unwrap().len(), 2 * of_block * n_layers, "{name}");
    }
}

#[test]
fn every_setting_of_a_family_moves_its_logits() {
    let list = |at: usize, value: f64| {
        move |old: &Value| {
            let mut new = old.clone();
            new[at] = json!(value);
            new
        }
    };
    let to = |value: Value| move |_: &Value| value.clone();
    type Edit = Box<dyn Fn(&Value) -> Value>;
    let edits: Vec<(&str, &str, Edit)> = vec![
        ("qwen3", "/sliding_window", Box::new(to(json!(6)))),
        ("qwen3", "/layer_types/0", Box::new(to(json!("sliding_attention")))),
        ("qwen3", "/rope_parameters/factor", Box::new(to(json!(5.0)))),
        ("qwen3", "/rope_parameters/beta_slow", Box::new(to(json!(0.01)))),
        ("mistral", "/sliding_window", Box::new(to(json!(4)))),
        ("mistral", "/sliding_window", Box::new(to(Value::Null))),
        ("phi3", "/sliding_window", Box::new(to(json!(13)))),
        ("phi3", "/rope_parameters/long_factor", Box::new(list(1, 5.0))),
        ("phi3", "/rope_parameters/short_factor", Box::new(list(1, 1.5))),
        ("phi3", "/max_position_embeddings", Box::new(to(json!(32)))),
        ("gemma2", "/attn_logit_softcapping", Box::new(to(json!(6.0)))),
        ("gemma2", "/attn_logit_softcapping", Box::new(to(Value::Null))),
        ("gemma2", "/final_logit_softcapping", Box::new(to(Value::Null))),
        ("gemma2", "/query_pre_attn_scalar", Box::new(to(json!(25)))),
        ("gemma2", "/hidden_activation", Box::new(to(json!("gelu")))),
        ("gemma3_text", "/rope_parameters/full_attention/factor", Box::new(to(json!(4.0)))),
        ("gemma3_text", "/rope_parameters/sliding_attention/rope_theta", Box::new(to(json!(2e4)))),
        ("gemma3_text", "/layer_types/2", Box::new(to(json!("full_attention")))),
        ("olmo2", "/rope_parameters/rope_theta", Box::new(to(json!(1e5)))),
        ("olmo3", "/rope_parameters/full_attention/attention_factor", Box::new(to(json!(1.1)))),
        ("olmo3", "/layer_types/3", Box::new(to(json!("sliding_attention")))),
        ("granite", "/embedding_multiplier", Box::new(to(json!(2.0)))),
        ("granite", "/residual_multiplier", Box::new(to(json!(1.0)))),
        ("granite", "/attention_multiplier", Box::new(to(json!(0.5)))),
        ("granite", "/logits_scaling", Box::new(to(json!(8.0)))),
        ("smollm3", "/no_rope_layers", Box::new(list(1, 1.0))),
        ("smollm3", "/sliding_window", Box::new(to(json!(7)))),
        ("ministral3", "/rope_parameters/llama_4_scaling_beta", Box::new(to(json!(0.2)))),
        ("ministral3", "/rope_parameters/mscale", Box::new(to(json!(2.0)))),
    ];
    for (name, place, edit) in edits {
        let fixture = FamilyFixture::load(name);
        let base = fixture.base(SPELLINGS[0]);
        let path = base.path().join("config.json");
        let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let value = config.pointer_mut(place).unwrap_or_else(|| panic!("{name} has no {place}"));
        *value = edit(value);
        std::fs::write(&path, config.to_string()).unwrap();
        let lm = Pretrained::from_dir(base.path()).unwrap().load(&device()).unwrap();
        let model = PromptClassifier::new(lm, &fixture.data).unwrap();
        let before = logits(&fixture.bare(SPELLINGS[0], DType::F32), &fixture.data);
        let moved = relative_error(&logits(&model, &fixture.data), &before);
        // above the rounding of f32, which is 1e-6; both kinds of GELU are 1e-4 apart
        assert!(moved > 1e-5, "{name} {place}: {moved:e}");
    }
}

#[test]
fn a_decoder_in_a_larger_model_keeps_its_own_head() {
    // as transformers saves Mistral 3: names behind `language_model.`, the head too
    let fixture = FamilyFixture::load("mistral");
    let base = fixture.base(SPELLINGS[1]);
    let (config, weights) = (base.path().join("config.json"), base.path().join("model.safetensors"));
    let text: Value = serde_json::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
    std::fs::write(&config, json!({"model_type": "mistral3", "text_config": text}).to_string()).unwrap();
    let bytes = std::fs::read(&weights).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let inner = file.tensors().into_iter().map(|(name, view)| (format!("language_model.{name}"), view));
    std::fs::write(&weights, safetensors::serialize(inner, None).unwrap()).unwrap();
    let lm = Pretrained::from_dir(base.path()).unwrap().load(&device()).unwrap();
    assert!(lm.config().inside && !lm.config().tied_head);
    assert!(lm.linears()[0].path.starts_with("model.language_model.layers.0."), "{}", lm.linears()[0].path);
    let found = logits(&PromptClassifier::new(lm, &fixture.data).unwrap(), &fixture.data);
    assert_eq!(found, logits(&fixture.bare(SPELLINGS[0], DType::F32), &fixture.data));
    std::fs::write(&config, json!({"model_type": "mistral3"}).to_string()).unwrap();
    assert!(Pretrained::from_dir(base.path()).unwrap_err().to_string().contains("text_config"));
}

#[test]
fn half_precision_stays_near_double() {
    for name in FAMILIES {
        let fixture = FamilyFixture::load(name);
        for (dtype, tolerance) in [(DType::BF16, 0.1), (DType::F16, 0.02)] {
            if !device().supports_dtype(dtype) {
                continue;
            }
            // 2⁻⁸ and 2⁻¹¹ of rounding in each of some ten operations a layer
            let error = relative_error(&logits(&fixture.model(SPELLINGS[0], dtype), &fixture.data), &fixture.logits());
            println!("{name} {dtype:?}: {error:.1e}");
            assert!(error < tolerance, "{name} {dtype:?}: {error:e}");
        }
    }
}
