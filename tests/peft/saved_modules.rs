//! Adapters of PEFT that bring more than A and B: whole modules, embeddings, biases, and patterns that say where they are.

use super::round_trip::{check_from_peft, fixture, stories};
use crate::support::python::has_peft;
use serde_json::{Value, json};

/// Everything that may come with an adapter beside A and B, and everything that says where A and B are.
#[test]
fn whole_modules_and_embeddings_of_peft_on_an_untied_llama_give_their_logits_here_and_back() {
    if !has_peft("whole modules") {
        return;
    }
    let with = |more: Value| {
        let mut config = json!({"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    let not_first = r"^(?!.*layers\.0\.).*\.(q|v)_proj$";
    let cases = json!([
        {"name": "resized", "seed": 0, "resize": 104, "config": with(json!({}))},
        {"name": "resized-trained", "seed": 1, "lr": 0.01, "resize": 101, "train": ["embed_tokens", "lm_head"],
         "config": with(json!({}))},
        {"name": "resized-and-listed", "seed": 2, "lr": 0.01, "resize": 104,
         "config": with(json!({"modules_to_save": ["embed_tokens", "lm_head"]}))},
        {"name": "saved-on-request", "seed": 3, "copies": true, "save": {"save_embedding_layers": true}, "config": with(json!({}))},
        {"name": "trained-by-hand", "seed": 4, "lr": 0.01, "train": ["embed_tokens", "lm_head"],
         "save": {"save_embedding_layers": true}, "config": with(json!({}))},
        {"name": "saved-norms", "seed": 5, "lr": 0.05, "config": with(json!({"modules_to_save": ["norm"]}))},
        {"name": "saved-some-norms", "seed": 6, "lr": 0.05,
         "config": with(json!({"modules_to_save": ["model.norm", "0.input_layernorm", "embed_tokens"]}))},
        {"name": "saved-by-a-part-of-a-word", "seed": 7, "lr": 0.01,
         "config": with(json!({"modules_to_save": ["head", "gate_proj"]}))},
        {"name": "auto-model", "seed": 8, "auto": true, "config": with(json!({"task_type": null}))},
        {"name": "auto-model-regex", "seed": 9, "lr": 0.05, "auto": true,
         "config": with(json!({"task_type": "FEATURE_EXTRACTION", "target_modules": r"layers\.[01]\.self_attn\.(q|o)_proj",
                               "modules_to_save": ["norm", "embed_tokens"], "rank_pattern": {r"^layers\.1\..*": 2}}))},
        {"name": "auto-model-all-linear", "seed": 10, "auto": true,
         "config": with(json!({"task_type": null, "target_modules": "all-linear"}))},
        {"name": "no-task", "seed": 11, "config": with(json!({"task_type": null}))},
        {"name": "look-ahead", "seed": 12, "config": with(json!({"target_modules": not_first}))},
        {"name": "look-behind", "seed": 13,
         "config": with(json!({"target_modules": r".*(?<!k)(?<!o)_proj", "exclude_modules": r".*(l).*\1p\..*(?=up|gate).*"}))},
        {"name": "look-ahead-ranks", "seed": 14,
         "config": with(json!({"rank_pattern": {r"(?!.*layers\.0).*q_proj": 2}, "alpha_pattern": {"(v)_proj(?<=v_proj)": 5}}))},
    ]);
    check_from_peft(&fixture("tiny_llama"), &cases);
}

#[test]
fn adapters_of_peft_with_trained_biases_give_their_logits_here_and_back() {
    if !has_peft("biases") {
        return;
    }
    let cases = json!([
        {"name": "lora-only", "seed": 0, "lr": 0.01,
         "config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "o_proj"], "bias": "lora_only"}},
        {"name": "all", "seed": 1, "lr": 0.01,
         "config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "o_proj"], "bias": "all"}},
        {"name": "saved-k", "seed": 2, "lr": 0.01,
         "config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "modules_to_save": ["k_proj"]}},
    ]);
    check_from_peft(&fixture("tiny_qwen2"), &cases);
}

#[test]
fn adapters_of_peft_on_a_tied_llama_give_their_logits_here_and_back() {
    if !has_peft("tied llama") {
        return;
    }
    let cases = json!([
        {"name": "head", "seed": 0, "config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "lm_head"]}},
        {"name": "saved-head", "seed": 1, "lr": 0.01,
         "config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "modules_to_save": ["lm_head"]}},
        {"name": "saved-embedding", "seed": 2, "lr": 0.01,
         "config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}},
        {"name": "saved-both", "seed": 3, "lr": 0.01,
         "config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}},
        {"name": "saved-as-one", "seed": 4, "lr": 0.01,
         "config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"],
                    "ensure_weight_tying": true}},
        {"name": "saved-head-as-one", "seed": 5, "lr": 0.01,
         "config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"],
                    "ensure_weight_tying": true}},
        {"name": "resized", "seed": 6, "resize": 520, "config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "o_proj"]}},
        {"name": "resized-and-listed", "seed": 7, "lr": 0.01, "resize": 520,
         "config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}},
        {"name": "resized-and-saved-embedding", "seed": 8, "lr": 0.01, "resize": 520,
         "config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}},
        {"name": "resized-and-saved-head", "seed": 9, "lr": 0.01, "resize": 520,
         "config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}},
        {"name": "embedding-saved-head-adapted", "seed": 10, "lr": 0.01,
         "config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "lm_head"], "modules_to_save": ["embed_tokens"]}},
        {"name": "trained-by-hand", "seed": 11, "lr": 0.01, "train": ["embed_tokens"], "save": {"save_embedding_layers": true},
         "config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}},
        {"name": "auto-model", "seed": 12, "auto": true,
         "config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": null}},
    ]);
    check_from_peft(&stories(), &cases);
}
