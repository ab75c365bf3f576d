//! The other families, of which llama.cpp's package wrote a file each from their fixtures: the same configuration, weights and logits.

use super::malformed::{configured, described};
use super::models::{gguf, weights};
use super::writer::{File, Value};
use crate::support::families::{FamilyFixture, dir};
use crate::support::{device, logits, relative_error};
use bayes_lora::lora::load_peft;
use bayes_lora::models::{CausalLm, DecoderConfig, Family, Pretrained, PromptClassifier, RopeScaling};
use burn::tensor::DType;
use safetensors::SafeTensors;
use serde_json::json;
use tempfile::TempDir;

/// The fixture's directory with what a file of llama.cpp says instead; SmolLM3 gets a fourth layer, the first that does not rotate.
fn directory(name: &str) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(dir(name).join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let said = match name {
        "mistral" => json!({"sliding_window": null}),
        "olmo3" => {
            let mut rope = config["rope_parameters"].clone();
            rope["full_attention"]["attention_factor"] = serde_json::Value::Null;
            json!({"rope_parameters": rope})
        }
        "smollm3" => {
            json!({"num_hidden_layers": 4, "use_sliding_window": false, "layer_types": null, "no_rope_layers": null,
            "no_rope_layer_interval": null})
        }
        name if name.starts_with("gemma") => json!({"query_pre_attn_scalar": 16}),
        _ => json!({}),
    };
    config.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
    std::fs::write(to.path().join("config.json"), config.to_string()).unwrap();
    let bytes = std::fs::read(dir(name).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = file.tensors();
    if name == "smollm3" {
        let fourth = |(name, view): (String, _)| {
            name.contains("layers.1.").then(|| (name.replace("layers.1.", "layers.3."), view))
        };
        tensors.extend(file.tensors().into_iter().filter_map(fourth));
    }
    std::fs::write(to.path().join("model.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
    to
}

/// The model of a file and of the directory.
fn both(name: &str, dtype: DType) -> [CausalLm; 2] {
    let directory = directory(name);
    let from_gguf = Pretrained::from_gguf(gguf(&format!("tiny_{name}"))).unwrap();
    let from_dir = Pretrained::from_dir(directory.path()).unwrap();
    [from_gguf, from_dir].map(|p| {
        let (model, report) = p.with_dtype(dtype).load_with_report(&device()).unwrap();
        assert!(report.is_empty(), "{name}: {report}");
        model
    })
}

/// Largest difference between two weights, in f32.
fn largest_difference(found: &CausalLm, expected: &CausalLm) -> f32 {
    let (found, expected) = (weights(found), weights(expected));
    assert_eq!(found.len(), expected.len());
    let of =
        |bytes: &[u8]| bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect::<Vec<_>>();
    let pairs = found.iter().zip(&expected).flat_map(|(a, b)| {
        assert_eq!(a.0, b.0);
        of(&a.1).into_iter().zip(of(&b.1))
    });
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn files_of_nine_families_have_the_configuration_weights_and_logits_of_their_directories() {
    let names = ["mistral", "smollm3", "olmo2", "granite", "phi3", "gemma2", "gemma3_text", "olmo3", "ministral3"];
    for name in names {
        let [found, expected] = both(name, DType::F32);
        // llama.cpp has no name of its own for Mistral
        let family = if name == "mistral" { Family::Llama } else { expected.config().family };
        let mut said = DecoderConfig { family, ..expected.config().clone() };
        if let (
            RopeScaling::LongRope { attention_factor: found, .. },
            RopeScaling::LongRope { attention_factor: expected, .. },
        ) = (&found.config().rope_scaling, &mut said.rope_scaling)
        {
            // the file has it in f32
            assert!((*found - *expected).abs() < 1e-7);
            *expected = *found;
        }
        assert_eq!(*found.config(), said, "{name}");
        // Gemma's gains of about one are stored with one added, in f32
        let tolerance = if name.starts_with("gemma") { f32::EPSILON } else { 0.0 };
        let difference = largest_difference(&found, &expected);
        assert!(difference <= tolerance, "{name}: {difference:e}");
        let data = FamilyFixture::load(name).data;
        let [found, expected] = [found, expected].map(|lm| {
            let model = PromptClassifier::new(lm, &data).unwrap();
            // its adapter is of three layers
            let adapted = (name != "smollm3").then(|| load_peft(model.clone(), dir(name).join("adapter")).unwrap().0);
            logits(&adapted.unwrap_or(model), &data)
        });
        let error = relative_error(&found, &expected);
        // and Phi-3's factor of cosines and sines
        let rounded = if name == "phi3" { f32::EPSILON } else { tolerance };
        assert!(error <= 50.0 * f64::from(rounded), "{name}: {error:e}");
    }
}

#[test]
fn files_that_say_all_of_a_fixture_give_the_logits_of_transformers() {
    for name in ["olmo2", "granite", "phi3", "ministral3"] {
        let fixture = FamilyFixture::load(name);
        let [found, _] = both(name, DType::F32);
        let model =
            load_peft(PromptClassifier::new(found, &fixture.data).unwrap(), dir(name).join("adapter")).unwrap().0;
        // f32, a hundred operations
        let error = relative_error(&logits(&model, &fixture.data), &fixture.logits());
        assert!(error < 1e-4, "{name}: {error:e}");
    }
}

#[test]
fn what_a_file_does_not_say_is_what_llama_cpp_takes() {
    let config = |architecture: &'static str, layers: u32, more: &[(&str, f32)]| {
        let mut file = described(architecture).with(&format!("{architecture}.block_count"), Value::U32(layers));
        for (key, value) in more {
            file = file.with(&format!("{architecture}.{key}"), Value::F32(*value));
        }
        configured(&file).unwrap().config().clone()
    };
    // a width of 32, four heads of 8
    let gemma2 = config("gemma2", 2, &[]);
    assert_eq!((gemma2.window, gemma2.layers[0].slides, gemma2.layers[1].slides), (Some(4096), true, false));
    assert_eq!((gemma2.scales.score_cap, gemma2.scales.logit_cap), (Some(50.0), Some(30.0)));
    let gemma3 = config("gemma3", 12, &[]);
    assert_eq!(gemma3.window, None);
    assert!(gemma3.layers.iter().all(|layer| !layer.slides && layer.rotates));
    assert_eq!(gemma3.sliding_rope.unwrap().0, 10_000.0);
    let granite = config("granite", 2, &[("logit_scale", 8.0), ("embedding_scale", 0.0)]);
    assert_eq!((granite.scales.embedding, granite.scales.scores, granite.scales.logit_divisor), (1.0, None, 8.0));
    let rotates: Vec<bool> = config("smollm3", 8, &[]).layers.iter().map(|layer| layer.rotates).collect();
    assert_eq!(rotates, [true, true, true, false, true, true, true, false]);
    let wide = |layers| {
        let file = described("gemma3").with("gemma3.block_count", Value::U32(layers));
        let file = file
            .with("gemma3.attention.key_length", Value::U32(4))
            .with("gemma3.attention.value_length", Value::U32(4));
        configured(&file).unwrap().config().scales.scores.unwrap()
    };
    // the width by the heads instead of a head's
    assert_eq!((wide(62), wide(61)), (8f64.sqrt().recip(), 0.5));
}

#[test]
fn what_a_family_does_not_compute_is_named_by_its_key() {
    let one = || Value::F32(2.0);
    for (architecture, key, value, parts) in [
        ("llama", "attention.scale", one(), ["llama.attention.scale", "2"]),
        ("llama", "attention.sliding_window", Value::U32(7), ["llama.attention.sliding_window", "7"]),
        ("qwen3", "attention.sliding_window", Value::U32(9), ["qwen3.attention.sliding_window", "9"]),
        ("olmo2", "rope.scaling.type", Value::Text("yarn"), ["olmo2.rope.scaling.factor", "nothing"]),
        ("olmo2", "rope.scaling.type", Value::Text("su"), ["olmo2.rope.scaling.type", "su"]),
        ("olmo2", "rope.freq_base_swa", one(), ["olmo2.rope.freq_base_swa", "2"]),
        ("qwen3", "final_logit_softcapping", one(), ["qwen3.final_logit_softcapping", "2"]),
        ("gemma3", "attn_logit_softcapping", one(), ["gemma3.attn_logit_softcapping", "2"]),
        ("gemma3", "logit_scale", one(), ["gemma3.logit_scale", "2"]),
        ("gemma2", "attn_logit_softcapping", Value::F32(-1.0), ["gemma2.attn_logit_softcapping", "-1"]),
        ("gemma2", "attention.sliding_window_pattern", Value::U32(0), ["sliding_window_pattern", "0"]),
        ("granite", "residual_scale", Value::F32(f32::NAN), ["granite.residual_scale", "NaN"]),
        ("granite", "rope.scaling.finetuned", Value::Raw(7, vec![0]), ["granite.rope.scaling.finetuned", "false"]),
        ("granite", "rope.freq_base", one(), ["granite.logit_scale", "nothing"]),
        ("llama", "attention.temperature_scale", one(), ["llama.attention.temperature_scale", "2"]),
        ("phi3", "attention.sliding_window_pattern", Value::U32(2), ["phi3.attention.sliding_window_pattern", "2"]),
        ("qwen3", "rope.dimension_count", Value::U32(4), ["qwen3.rope.dimension_count", "8"]),
    ] {
        let error = configured(&described(architecture).with(&format!("{architecture}.{key}"), value));
        let error = error.unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn a_window_makes_an_olmo2_an_olmo3_and_yarn_has_the_factor_that_llama_cpp_computes() {
    let plain = |file: File| configured(&file).map(|model| model.config().clone());
    let of = |architecture: &'static str, more: &[(&str, Value)]| {
        let file = described(architecture);
        more.iter().fold(file, |file, (key, value)| file.with(&format!("{architecture}.{key}"), value.clone()))
    };
    let config = plain(of("olmo2", &[("attention.sliding_window", Value::U32(9))])).unwrap();
    assert_eq!((config.family, config.window, config.layers[0].slides), (Family::Olmo3, Some(9), true));
    assert_eq!(config.sliding_rope, Some((config.rope_theta, RopeScaling::None)));
    let yarn = [
        ("rope.scaling.type", Value::Text("yarn")),
        ("rope.scaling.factor", Value::F32(4.0)),
        ("rope.scaling.original_context_length", Value::U32(16)),
    ];
    let factor = |more: &[(&str, Value)]| match plain(of("mistral3", &[&yarn[..], more].concat())) {
        Ok(DecoderConfig { rope_scaling: RopeScaling::Yarn { attention_factor, original_context, .. }, .. }) => {
            assert_eq!(original_context, 16.0);
            Ok(attention_factor)
        }
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    };
    let grown = |by: f64| 1.0 + 0.1 * by * 4f64.ln();
    assert_eq!(factor(&[]), Ok(grown(1.0)));
    assert_eq!(factor(&[("rope.scaling.yarn_log_multiplier", Value::F32(1.0))]), Ok(1.0));
    assert_eq!(factor(&[("rope.scaling.attn_factor", Value::F32(0.5))]), Ok(0.5 * grown(1.0)));
    assert_eq!(factor(&[("rope.scaling.yarn_attn_factor", Value::F32(grown(1.0) as f32))]), Ok(grown(1.0)));
    for (key, value) in [("yarn_attn_factor", 1.0), ("yarn_ext_factor", 0.5), ("yarn_log_multiplier", f32::NAN)] {
        let error = factor(&[(&format!("rope.scaling.{key}"), Value::F32(value))]).unwrap_err();
        assert!(error.contains(&format!("mistral3.rope.scaling.{key}")), "{error}");
    }
    // so many flags as layers
    let flags = |n: u64| Value::Raw(9, [&7u32.to_le_bytes()[..], &n.to_le_bytes(), &vec![1; n as usize]].concat());
    let listed = |n| {
        plain(of(
            "olmo2",
            &[("attention.sliding_window", Value::U32(9)), ("attention.sliding_window_pattern", flags(n))],
        ))
    };
    assert!(listed(1).unwrap().layers.iter().all(|layer| layer.slides));
    let error = listed(3).unwrap_err().to_string();
    assert!(
        error.contains("olmo2.attention.sliding_window_pattern") && error.contains("expected 1, found 3"),
        "{error}"
    );
}

#[test]
fn factors_of_short_and_long_rows_are_needed_together() {
    let ones: Vec<u8> = [1f32; 8].into_iter().flat_map(f32::to_le_bytes).collect();
    let file = |tensors: &[&'static str]| {
        let all = tensors.iter().map(|name| (*name, vec![4], 0, 0));
        let tensors = [("token_embd.weight", vec![1, 8], 0, 0)].into_iter().chain(all).collect();
        File { data: ones.clone(), ..described("phi3").with_tensors(tensors) }
    };
    let [short, long] = ["rope_factors_short.weight", "rope_factors_long.weight"];
    for (tensors, part) in
        [(&[long][..], short), (&[short], long), (&[short, long], "phi3.rope.scaling.original_context_length")]
    {
        let error = configured(&file(tensors)).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
