//! What comes with an adapter beside A and B: embeddings, heads and norms, listed or saved by PEFT itself, on tied and untied
//! models, and adapters whose paths begin inside the model.

use super::{adapter, bare, check_round_trip, config, stories, tensors};
use crate::support::{Fixture, device, root};
use bayes_lora::lora::{
    Adaptable, BasePart, LoraConfig, LoraLinear, PartWeight, attach, base_fingerprint, load_peft, merge, save_peft,
};
use bayes_lora::models::{CausalLm, Mlp, MlpConfig, Pretrained, TokenBatch};
use bayes_lora::tape::Tape;
use bayes_lora::tensor_file::write_tensors;
use burn::module::Module;
use burn::tensor::DType;
use serde_json::json;
use std::path::Path;
use tempfile::TempDir;

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// The prompts of `tests/fixtures/cases`.
const PROMPTS: [[u32; 5]; 3] = [[59, 42, 17, 40, 16], [68, 77, 90, 5, 21], [8, 82, 6, 42, 84]];

fn case(name: &str) -> std::path::PathBuf {
    root().join("tests/fixtures/cases").join(name)
}

fn tiny(dtype: DType) -> CausalLm {
    Pretrained::from_dir(Fixture::load("tiny_llama").dir().join("base"))
        .unwrap()
        .with_dtype(dtype)
        .load(&device())
        .unwrap()
}

/// Logits of the last token, over the whole vocabulary.
fn last_logits(model: &CausalLm, prompt: &[u32]) -> Vec<f64> {
    let dtype = model.linears()[0].weight.val().dtype();
    let batch = TokenBatch::of_row(prompt, &device(), dtype).unwrap();
    let hidden = model.hidden(&batch, &mut Tape::off()).narrow(0, prompt.len() - 1, 1);
    model.head(hidden, None, &mut Tape::off()).into_data().convert::<f64>().try_into_vec().unwrap()
}

fn largest_difference(a: &CausalLm, b: &CausalLm) -> f64 {
    let of = |prompt: &[u32; 5]| last_logits(a, prompt).into_iter().zip(last_logits(b, prompt));
    PROMPTS.iter().flat_map(of).fold(0.0, |most, (x, y)| most.max((x - y).abs()))
}

/// The values of a tensor of an adapter's file.
fn values(dir: &Path, name: &str) -> Vec<f32> {
    tensors(dir)[name].1.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// An adapter of rank 1 that does nothing on the first `q_proj`, of width `width`, with these fields and tensors beside it.
fn idle_adapter(width: usize, fields: serde_json::Value, more: Vec<(&str, Vec<usize>, Vec<f32>)>) -> TempDir {
    let (dir, q) = (tempfile::tempdir().unwrap(), "model.layers.0.self_attn.q_proj");
    let mut config = json!({"r": 1, "lora_alpha": 1, "target_modules": [q]});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    std::fs::write(dir.path().join("adapter_config.json"), config.to_string()).unwrap();
    let idle = ["A", "B"].map(|ab| {
        let shape = if ab == "A" { vec![1, width] } else { vec![width, 1] };
        (format!("base_model.model.{q}.lora_{ab}.weight"), shape, vec![0.0f32; width])
    });
    let more = more.into_iter().map(|(name, shape, values)| (format!("base_model.model.{name}"), shape, values));
    let all: Vec<_> = idle.into_iter().chain(more).collect();
    write_tensors(dir.path().join("adapter_model.safetensors"), &all, None).unwrap();
    dir
}

fn rising(n: usize) -> Vec<f32> {
    (0..n).map(|i| 0.01 * (((i * 37) % 53) as f32 - 26.0)).collect()
}

/// The embedding of a model and its head's weight, as rows.
fn own_weights(model: &CausalLm) -> [Vec<f32>; 2] {
    let head = model.linears().into_iter().last().unwrap().weight.val().transpose();
    let Some(PartWeight::Table(table)) = model.parts().into_iter().next().map(|part| part.weight) else {
        panic!("no table")
    };
    [table, head].map(|tensor| tensor.into_data().iter::<f32>().collect())
}

#[test]
fn embeddings_that_peft_saved_because_they_were_resized_give_pytorchs_logits() {
    let dir = case("embeddings_saved_by_peft");
    let (model, lora) = load_peft(tiny(DType::F64), dir.join("adapter")).unwrap();
    assert_eq!((model.config().vocab_size, lora.save_embedding_layers), (104, true));
    let text = std::fs::read_to_string(dir.join("expected.txt")).unwrap();
    let (mut sum, mut squares) = (0.0, 0.0);
    for (prompt, line) in PROMPTS.iter().zip(text.lines()) {
        let expected: Vec<f64> = serde_json::from_str(&line[line.find('[').unwrap()..]).unwrap();
        let found = last_logits(&model, prompt);
        assert_eq!(found.len(), 104);
        for (found, expected) in found.iter().zip(&expected) {
            // transformers has its norms and rotations in f32
            assert!((found - expected).abs() < 1e-5, "{found} and {expected}");
        }
        sum += found.iter().sum::<f64>();
        squares += found.iter().map(|v| v * v).sum::<f64>();
    }
    let words: Vec<&str> = text.lines().last().unwrap().split(' ').collect();
    let (expected_sum, expected_squares): (f64, f64) = (words[1].parse().unwrap(), words[3].parse().unwrap());
    // sums of 312 logits of about 1.4, each right to 1e-6 or so
    assert!((sum - expected_sum).abs() < 1e-4 && (squares - expected_squares).abs() < 1e-3, "{sum} {squares}");

    // written again, and merged with the vocabulary that it has now
    let again = tempfile::tempdir().unwrap();
    save_peft(&model, &lora, "base", again.path()).unwrap();
    let names = |dir: &Path| tensors(dir).into_iter().map(|(name, (shape, _))| (name, shape)).collect::<Vec<_>>();
    assert_eq!(names(again.path()), names(&dir.join("adapter")));
    let (single, _) = load_peft(tiny(DType::F32), again.path()).unwrap();
    let base = Pretrained::from_dir(Fixture::load("tiny_llama").dir().join("base")).unwrap();
    let rows = [vec![100u32, 3, 103], PROMPTS[0].to_vec()];
    let merged = again.path().join("merged");
    base.merge_and_save(&single, &rows, 1e-4, &merged).unwrap();
    assert_eq!(Pretrained::from_dir(&merged).unwrap().config().vocab_size, 104);
}

#[test]
fn embeddings_that_are_the_bases_own_are_dropped_and_trained_ones_are_kept() {
    let [table, head] = own_weights(&tiny(DType::F32));
    let load = |table: Vec<f32>, head: Vec<f32>| {
        let more = vec![(EMBEDDING, vec![96, 32], table), (HEAD, vec![96, 32], head)];
        let dir = idle_adapter(32, json!({}), more);
        let (model, config) = load_peft(tiny(DType::F32), dir.path()).unwrap();
        (dir, model, config)
    };
    let replaced = |model: &CausalLm| (model.parts()[0].replaced, model.linears().last().unwrap().replaced.weight);
    let (_, same, _) = load(table.clone(), head.clone());
    assert_eq!(replaced(&same), (false, false));
    // as a base held in bf16 writes them
    let round = |values: &[f32]| values.iter().map(|v| f32::from_bits((v.to_bits() + 0x7fff) & 0xffff_0000)).collect();
    let (_, rounded, _) = load(round(&table), round(&head));
    assert_eq!(replaced(&rounded), (false, false));
    assert_eq!(largest_difference(&rounded, &tiny(DType::F32)), 0.0);
    // a change that bf16 would hide is not rounding where the numbers are not bf16's
    let moved: Vec<f32> = table.iter().map(|v| v * 1.0005).collect();
    let (dir, trained, config) = load(moved.clone(), head);
    assert_eq!(replaced(&trained), (true, false));
    assert!(largest_difference(&trained, &same) > 1e-5);
    assert_ne!(base_fingerprint(&trained).unwrap(), base_fingerprint(&same).unwrap());
    save_peft(&trained, &config, "base", dir.path()).unwrap();
    assert_eq!(values(dir.path(), &format!("base_model.model.{EMBEDDING}")), moved);
    assert!(!tensors(dir.path()).contains_key(&format!("base_model.model.{HEAD}")));
    // a configuration that does not say so would lose it
    let without = config.with_save_embedding_layers(false);
    let error = save_peft(&trained, &without, "base", dir.path()).unwrap_err().to_string();
    assert!(error.contains("model.embed_tokens") && error.contains("lost"), "{error}");
}

#[test]
fn norms_and_embeddings_trained_whole_are_the_models_own_and_are_written_again() {
    // PEFT takes any end of a path: every norm of a Llama is `norm`
    let more = json!({"modules_to_save": ["norm", "embed_tokens"]});
    let mut extra = vec![(EMBEDDING.to_string(), vec![96, 32]), ("model.norm.weight".to_string(), vec![32])];
    for layer in 0..2 {
        for name in ["input_layernorm", "post_attention_layernorm"] {
            extra.push((format!("model.layers.{layer}.{name}.weight"), vec![32]));
        }
    }
    let extra: Vec<(&str, Vec<usize>)> = extra.iter().map(|(name, shape)| (name.as_str(), shape.clone())).collect();
    let dir = adapter(&bare("tiny_llama"), &["q_proj"], more, &extra);
    let (model, mut lora) = check_round_trip("tiny_llama", &dir);
    assert_eq!(model.parts().iter().filter(|part| part.replaced).count(), 6);
    let without = adapter(&bare("tiny_llama"), &["q_proj"], json!({}), &[]);
    let (alone, _) = load_peft(bare("tiny_llama"), without.path()).unwrap();
    assert_ne!(base_fingerprint(&alone).unwrap(), base_fingerprint(&model).unwrap());
    // each of them is in its own place
    for part in model.parts() {
        let expected = values(dir.path(), &format!("base_model.model.{}.weight", part.path));
        let found: Vec<f32> = match part.weight {
            PartWeight::Table(table) => table.into_data().iter::<f32>().collect(),
            PartWeight::Vector(gains) => gains.into_data().iter::<f32>().collect(),
        };
        assert_eq!(found, expected, "{}", part.path);
    }
    // a second adapter on top, and a configuration that would lose them, are refused; merging makes them the base's own
    lora.modules_to_save = Some(vec!["embed_tokens".into()]);
    let error = save_peft(&model, &lora, "base", dir.path()).unwrap_err().to_string();
    assert!(error.contains("input_layernorm") && error.contains("modules_to_save"), "{error}");
    let merged = merge(model);
    assert!(merged.parts().iter().all(|part| !part.replaced));
    assert!(load_peft(merged, dir.path()).is_ok());
}

#[test]
fn an_embedding_trained_alone_unties_the_head_which_keeps_the_bases_weight() {
    let new = rising(512 * 64);
    let tensor = || vec![(EMBEDDING, vec![512, 64], new.clone())];
    let dir = idle_adapter(64, json!({"modules_to_save": ["embed_tokens"]}), tensor());
    let (model, lora) = load_peft(stories(), dir.path()).unwrap();
    let [old, _] = own_weights(&stories());
    assert_eq!(own_weights(&model), [new.clone(), old]);
    let head = model.linears().into_iter().last().unwrap();
    assert!(!head.is_tied && !head.replaced.weight);
    let before = tensors(dir.path());
    save_peft(&model, &lora, "base", dir.path()).unwrap();
    assert_eq!(tensors(dir.path()), before);
    // saved by PEFT itself, it is the one weight that both use
    let tied = idle_adapter(64, json!({}), tensor());
    let (model, lora) = load_peft(stories(), tied.path()).unwrap();
    assert!(model.linears().last().unwrap().is_tied);
    assert_eq!(own_weights(&model), [new.clone(), new.clone()]);
    let (before, base) = (tensors(tied.path()), base_fingerprint(&model).unwrap());
    save_peft(&model, &lora, "base", tied.path()).unwrap();
    assert_eq!(tensors(tied.path()), before);
    assert_eq!(base_fingerprint(&load_peft(stories(), tied.path()).unwrap().0).unwrap(), base);
}

#[test]
fn weights_that_stay_tied_are_one_weight_in_the_file() {
    let (table, other) = (rising(520 * 64), rising(520 * 64).iter().map(|v| v + 0.1).collect::<Vec<_>>());
    let both = |head: &Vec<f32>| vec![(EMBEDDING, vec![520, 64], table.clone()), (HEAD, vec![520, 64], head.clone())];
    let ensured = json!({"modules_to_save": ["embed_tokens", "model.embed_tokens"], "ensure_weight_tying": true});
    for fields in [json!({}), ensured] {
        let dir = idle_adapter(64, fields.clone(), both(&table));
        let (model, lora) = load_peft(stories(), dir.path()).unwrap();
        assert!(model.linears().last().unwrap().is_tied && model.config().vocab_size == 520);
        assert_eq!(last_logits(&model, &[1, 515, 7]).len(), 520);
        let before = tensors(dir.path());
        save_peft(&model, &lora, "base", dir.path()).unwrap();
        assert_eq!(tensors(dir.path()), before, "{fields}");
        let error =
            load_peft(stories(), idle_adapter(64, fields, both(&other)).path()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(HEAD) && error.contains("tied"), "{error}");
    }
    // trained each for itself they differ
    let dir = idle_adapter(64, json!({"modules_to_save": ["embed_tokens", "lm_head"]}), both(&other));
    let (model, _) = load_peft(stories(), dir.path()).unwrap();
    assert_eq!(own_weights(&model), [table, other]);
}

/// Where it resized embeddings that are also trained whole, PEFT writes them three times.
#[test]
fn the_wrapped_copies_of_resized_embeddings_are_left() {
    let (table, head) = (rising(520 * 64), rising(520 * 64).iter().map(|v| v + 0.1).collect::<Vec<_>>());
    let names: Vec<[String; 3]> = ["model.embed_tokens", "lm_head"]
        .iter()
        .map(|path| ["", ".modules_to_save", ".original_module"].map(|wrapped| format!("{path}{wrapped}.weight")))
        .collect();
    let mut all = Vec::new();
    for (names, values) in names.iter().zip([&table, &head]) {
        for (i, name) in names.iter().enumerate() {
            let values = values.iter().map(|v| if i == 2 { 0.0 } else { *v }).collect();
            all.push((name.as_str(), vec![520, 64], values));
        }
    }
    let dir = idle_adapter(64, json!({"modules_to_save": ["embed_tokens", "lm_head"]}), all);
    let (model, lora) = load_peft(stories(), dir.path()).unwrap();
    assert_eq!(own_weights(&model), [table, head]);
    save_peft(&model, &lora, "base", dir.path()).unwrap();
    assert_eq!(tensors(dir.path()).len(), 4);
    assert!(load_peft(stories(), dir.path()).is_ok());
}

#[test]
fn an_adapter_whose_paths_begin_inside_the_model_is_put_there_and_written_as_it_was() {
    let whole = adapter(&bare("tiny_llama"), &["q_proj", "down_proj"], json!({}), &[]);
    let mut all: Vec<_> = tensors(whole.path())
        .into_iter()
        .map(|(name, (shape, _))| {
            let values = values(whole.path(), &name);
            (name.replace("base_model.model.model.", "base_model.model."), shape, values)
        })
        .collect();
    all.push(("base_model.model.norm.weight".into(), vec![32], rising(32)));
    let dir = tempfile::tempdir().unwrap();
    let mapping =
        json!({"base_model_class": "LlamaModel", "parent_library": "transformers.models.llama.modeling_llama"});
    for (targets, task, mapping) in [
        // the paths as `AutoModel` has them: none of these is one of the whole model
        (json!(r"layers\.[01]\.(self_attn\.q|mlp\.down)_proj"), json!(null), mapping),
        (json!(["q_proj", "down_proj"]), json!("FEATURE_EXTRACTION"), json!(null)),
    ] {
        let fields = json!({"r": 2, "lora_alpha": 4, "target_modules": targets, "task_type": task, "auto_mapping": mapping,
            "modules_to_save": ["norm"], "rank_pattern": {"^layers.9": 1}});
        std::fs::write(dir.path().join("adapter_config.json"), fields.to_string()).unwrap();
        let names = |all: &[(String, Vec<usize>, Vec<f32>)]| {
            let mut all = all.to_vec();
            for layer in 0..2 {
                for norm in ["input_layernorm", "post_attention_layernorm"] {
                    all.push((format!("base_model.model.layers.{layer}.{norm}.weight"), vec![32], rising(32)));
                }
            }
            all
        };
        write_tensors(dir.path().join("adapter_model.safetensors"), &names(&all), None).unwrap();
        let before = tensors(dir.path());
        let (model, lora) = load_peft(bare("tiny_llama"), dir.path()).unwrap();
        assert_eq!(lora.root, "model");
        assert_eq!(model.linears().iter().filter(|l| l.adapter.is_some()).count(), 4);
        save_peft(&model, &lora, "base", dir.path()).unwrap();
        assert_eq!(tensors(dir.path()), before);
        assert_eq!(config(dir.path())["auto_mapping"], mapping);
        assert_eq!(config(dir.path())["task_type"], task);
        assert!(!config(dir.path()).contains_key("root"));
        // the same A and B as in the adapter of the whole model
        let plain = load_peft(bare("tiny_llama"), whole.path()).unwrap().0;
        let weights = |model: &_| bayes_lora::lora::read_adapter(model).unwrap();
        assert_eq!(weights(&model), weights(&plain));
    }
}

#[test]
fn what_a_model_cannot_take_is_refused_and_named() {
    let refused = |dir: &Path| load_peft(tiny(DType::F32), dir).map(|_| ()).unwrap_err().to_string();
    let error = refused(&case("seq_cls_score/adapter"));
    for part in ["adapter_model.safetensors", "base_model.model.score.weight [3, 32]", "SequenceClassifier", "`score`"]
    {
        assert!(error.contains(part), "«{error}» lacks `{part}`");
    }
    let rows = |name, n: usize| vec![(name, vec![n, 32], rising(n * 32))];
    for (more, parts) in [
        (rows(EMBEDDING, 100), ["`model.embed_tokens` would have 100 rows", "`lm_head` 96"]),
        (rows(HEAD, 100), ["`model.embed_tokens` would have 96 rows", "`lm_head` 100"]),
        (rows("model.embed_tokens.lora_embedding_A", 2), ["an adapter of an embedding", "lora_embedding_A"]),
    ] {
        let error = refused(idle_adapter(32, json!({}), more).path());
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    let wide = vec![(EMBEDDING, vec![96, 31], rising(96 * 31))];
    let error = refused(idle_adapter(32, json!({}), wide).path());
    assert!(error.contains("1 unexpected") && error.contains("embed_tokens.weight [96, 31]"), "{error}");
}

/// A model that lists a part and forgot to take it.
#[derive(Module, Debug)]
struct Forgetful {
    inner: Mlp,
}

impl Adaptable for Forgetful {
    fn linears(&self) -> Vec<&LoraLinear> {
        self.inner.linears()
    }

    fn linears_mut(&mut self) -> Vec<&mut LoraLinear> {
        self.inner.linears_mut()
    }

    fn parts(&self) -> Vec<BasePart> {
        let gains = burn::tensor::Tensor::ones([3], &device());
        vec![BasePart { path: "norm".into(), weight: PartWeight::Vector(gains), replaced: false }]
    }
}

#[test]
fn a_part_that_is_listed_and_not_taken_is_no_silent_loss() {
    let inner = || MlpConfig::new([3, 4, 2]).init(&device()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let lora = LoraConfig::new(1);
    let model = Forgetful { inner: attach(inner(), &lora, 0).unwrap() };
    let with_norm = lora.with_modules_to_save(Some(vec!["norm".into()]));
    save_peft(&model, &with_norm, "base", dir.path()).unwrap();
    let error = load_peft(Forgetful { inner: inner() }, dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("`norm`") && error.contains("does not take"), "{error}");
    // the model below knows no parts
    let error = load_peft(inner(), dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("modules_to_save") && error.contains("norm"), "{error}");
}
