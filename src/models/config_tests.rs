//! What is read of a `config.json` and what is refused.

use super::*;

const LLAMA: &str = r#"{"model_type": "llama", "hidden_size": 64, "intermediate_size": 172,
    "num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "rope_scaling": SCALING}"#;

#[test]
fn flat_and_nested_rope_keys_mean_the_same() {
    let flat = DecoderConfig::from_json(&LLAMA.replace("SCALING", "null"), "x").unwrap();
    let nested = LLAMA.replace(
        "\"rope_theta\": 500000.0, \"rope_scaling\": SCALING",
        "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 500000.0}",
    );
    assert_eq!(flat, DecoderConfig::from_json(&nested, "x").unwrap());
    assert_eq!((flat.head_dim, flat.rope_theta), (8, 500_000.0));
}

#[test]
fn llama3_scaling_is_read() {
    let text = LLAMA.replace(
        "SCALING",
        r#"{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}"#,
    );
    let config = DecoderConfig::from_json(&text, "x").unwrap();
    assert!(matches!(config.rope_scaling, RopeScaling::Llama3 { factor, .. } if factor == 8.0));
}

#[test]
fn windows_are_in_the_layers_that_the_family_gives_them() {
    let config = |family: &str, rest: &str| {
        let text = LLAMA.replace("\"llama\"", &format!("\"{family}\"")).replace("\"rope_scaling\": SCALING", rest);
        DecoderConfig::from_json(&text.replace("\"rope_theta\": 500000.0, ", ""), "config.json")
    };
    let kinds = |last: &str| format!("\"layer_types\": [{}\"{last}\"]", "\"full_attention\", ".repeat(4));
    for (family, rest, expected) in [
        ("qwen2", r#""use_sliding_window": true, "sliding_window": 64, "max_window_layers": 5"#, "....."),
        ("qwen2", r#""use_sliding_window": true, "sliding_window": 64"#, "....."), // 28 layers look at everything
        ("qwen2", r#""use_sliding_window": true, "sliding_window": 64, "max_window_layers": 3"#, "...ss"),
        ("qwen3", r#""use_sliding_window": true, "sliding_window": null, "max_window_layers": 0"#, "....."),
        ("qwen3", r#""use_sliding_window": false, "sliding_window": 64, "max_window_layers": 0"#, "....."),
        (
            "qwen2",
            &format!("\"use_sliding_window\": true, \"max_window_layers\": 0, {}", kinds("full_attention")),
            ".....",
        ),
        ("qwen3", &format!("\"use_sliding_window\": true, {}", kinds("sliding_attention")), "....s"),
        ("llama", r#""sliding_window": 64"#, "....."),
        ("mistral", r#""sliding_window": 64"#, "sssss"),
        ("mistral", r#""rope_theta": 1e4"#, "sssss"), // 4096
        ("mistral", r#""sliding_window": null"#, "....."),
        ("phi3", r#""sliding_window": 64"#, "sssss"),
        ("phi3", r#""rope_theta": 1e4"#, "....."),
        ("gemma2", r#""rope_theta": 1e4"#, "s.s.s"),
        ("gemma3_text", r#""rope_theta": 1e6"#, "sssss"),
        ("gemma3_text", r#""sliding_window_pattern": 3"#, "ss.ss"),
        ("olmo3", r#""rope_theta": 500000"#, "sss.s"),
        ("smollm3", r#""use_sliding_window": true, "sliding_window": 64"#, "...n."),
        ("smollm3", r#""no_rope_layer_interval": 2, "sliding_window": 64"#, ".N.N."),
        ("smollm3", r#""no_rope_layers": [1, 0, 1, 0, 0, 1]"#, ".N.NN"),
    ] {
        let found = config(family, rest).unwrap_or_else(|error| panic!("{family} {rest}: {error}"));
        let shown = |layer: &LayerKind| match (layer.slides, layer.rotates) {
            (false, true) => '.',
            (true, true) => 's',
            (false, false) => 'N',
            (true, false) => 'n',
        };
        assert_eq!(found.layers.iter().map(shown).collect::<String>(), expected, "{family} {rest}");
        assert_eq!(found.window.is_some(), found.layers.iter().any(|layer| layer.slides), "{family} {rest}");
    }
    for (family, rest, part) in [
        ("llama", r#""use_sliding_window": true, "sliding_window": 9, "max_window_layers": 4"#, "from layer 4 (max"),
        ("llama", &kinds("sliding_attention"), "layer_types[4] `sliding_attention`"),
        ("qwen2", &kinds("sliding_attention"), "window of layer 4"),
        ("qwen2", &kinds("linear_attention"), "layer_types[4] `linear_attention`"),
        ("qwen2", r#""layer_types": ["full_attention"]"#, "expected 5, found 1"),
        ("mistral", &kinds("full_attention"), "layer_types[0] `full_attention`"),
        ("mistral", r#""sliding_window": 0"#, "1 or more, got 0"),
        ("gemma2", r#""sliding_window": null"#, "window of layer 0"),
        ("gemma3_text", r#""sliding_window_pattern": 0"#, "sliding_window_pattern"),
        ("smollm3", r#""no_rope_layer_interval": 0"#, "no_rope_layer_interval"),
        ("smollm3", r#""no_rope_layers": [1]"#, "expected 5, found 1"),
        ("gemma3_text", r#""attn_logit_softcapping": 50.0"#, "attn_logit_softcapping `50`"),
        ("llama", r#""final_logit_softcapping": 30.0"#, "final_logit_softcapping `30`"),
        ("qwen3", r#""logits_scaling": 8.0"#, "logits_scaling `8`"),
        ("granite", r#""logits_scaling": 0"#, "logits_scaling"),
        ("gemma2", r#""query_pre_attn_scalar": -1"#, "query_pre_attn_scalar"),
        ("gemma2", r#""final_logit_softcapping": -1"#, "final_logit_softcapping"),
        ("gemma3_text", r#""use_bidirectional_attention": true"#, "use_bidirectional_attention"),
        ("llama", r#""num_local_experts": 8"#, "num_local_experts `8`"),
        ("qwen3_moe", r#""num_experts": 8"#, "num_experts"),
        ("gemma2", r#""hidden_act": "gelu""#, "`hidden_act` is gelu"),
    ] {
        let error = config(family, rest).unwrap_err().to_string();
        assert!(error.contains(part), "{family} {rest}: {error}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    let base = LLAMA.replace("SCALING", "null");
    for (from, to, expected) in [
        ("\"llama\"", "\"mamba\"", "mamba"),
        ("\"num_key_value_heads\": 4", "\"num_key_value_heads\": 3", "num_attention_heads = 8, got 3"),
        ("\"hidden_size\": 64", "\"hidden_size\": 0", "hidden_size"),
        ("\"hidden_size\": 64,", "", "hidden_size"),
        ("\"rope_scaling\": null", "\"rope_scaling\": {\"rope_type\": \"dynamic\"}", "dynamic"),
        ("\"rope_scaling\": null", "\"hidden_act\": \"silu\", \"hidden_activation\": \"gelu\"", "`hidden_act` is silu"),
        ("\"rope_scaling\": null", "\"hidden_activation\": \"gelu\"", "gelu"),
    ] {
        let error = DecoderConfig::from_json(&base.replace(from, to), "config.json").unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
