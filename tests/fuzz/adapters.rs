//! PEFT's `adapter_config.json` and `adapter_model.safetensors`.

use super::harness::{FIXED_BYTES, File, fuzz, scratch};
use super::mutate::Kind;
use crate::support::{FIXTURES, Fixture, root};
use bayes_lora::lora::{LoraConfig, load_peft};
use burn::tensor::DType;
use serde_json::json;

/// Embeddings that were resized, norms, patterns with look-ahead and references.
fn whole_modules(dir: &std::path::Path) -> Vec<File> {
    let file = |name, kind| File::read(dir.join(name), name, kind);
    let mut config: serde_json::Value = serde_json::from_slice(&file("adapter_config.json", Kind::Json).bytes).unwrap();
    config["target_modules"] = json!(r"^(?!.*layers\.7\.).*\.(q|v)_pro(?>j)$");
    config["rank_pattern"] = json!({r"(self)_attn\.(?:\1|[qv])_proj(?<!k_proj)": 4});
    config["ensure_weight_tying"] = json!(true);
    config["exclude_modules"] = json!("(?i:LM_HEAD)|.*?(?=mlp)mlp.*");
    vec![
        File::new("adapter_config.json", Kind::Json, config.to_string()),
        file("adapter_model.safetensors", Kind::Tensors),
    ]
}

#[test]
fn any_adapter_is_attached_or_refused() {
    let fixtures = FIXTURES.map(Fixture::load);
    let mut bases = fixtures.iter().map(|fixture| fixture.bare(DType::F32)).collect::<Vec<_>>();
    let mut corpus: Vec<Vec<File>> = fixtures
        .iter()
        .map(|fixture| {
            let dir = fixture.dir().join("adapter");
            let file = |name, kind| File::read(dir.join(name), name, kind);
            vec![file("adapter_config.json", Kind::Json), file("adapter_model.safetensors", Kind::Tensors)]
        })
        .collect();
    bases.push(bases[0].clone());
    corpus.push(whole_modules(&root().join("tests/fixtures/cases/embeddings_saved_by_peft/adapter")));
    let dir = scratch();
    fuzz("adapter", FIXED_BYTES, &corpus, |input| {
        input.write(dir.path());
        load_peft(bases[input.origin].clone(), dir.path()).map(drop)
    });
}

#[test]
fn an_expression_that_is_large_when_compiled_is_refused() {
    let ordinary = LoraConfig::new(2).with_target_pattern(r"(\w+\.)*layers\.\d+\.\w+\.[qv]_proj");
    assert!(ordinary.validate().is_ok() && ordinary.targets("model.layers.10.self_attn.v_proj", false).unwrap());
    let judge = |pattern: &str| {
        let config = LoraConfig::new(2).with_target_pattern(pattern);
        config.targets("model.layers.0.self_attn.q_proj", false).map_err(|error| error.to_string())
    };
    for large in ["(a{500}){500}", "((((a{99}){99}){99}){99}){99}", "(|a{9999}){9}"] {
        let error = judge(large).unwrap_err();
        assert!(error.contains("target_modules") && error.contains("1048576"), "{large}: {error}");
    }
    let deep = |n: usize| format!("{}a{}", "(".repeat(n), ")".repeat(n));
    let error = judge(&deep(100_000)).unwrap_err();
    assert!(error.contains("(50)"), "{}", &error[error.len() - 99..]);
    // Oniguruma counts rounds instead of writing them out
    for large in ["(?=)(.{500}){500}", "(?=)((((.{99}?){99}){99}){99}){99}", "(?=)(|.{9999}){9}", r"(.+)(?:\1?){9999}!"]
    {
        assert!(judge(large).is_ok_and(|found| !found) || judge(large).is_err_and(|e| e.contains("steps")), "{large}");
    }
    assert!(judge("(?=)(?:(?:){65000}){65000}").is_err_and(|error| error.contains("65000")));
    assert!(!judge(&format!("(?=){}", deep(99))).unwrap());
    assert!(judge(&format!("(?=){}", deep(100))).is_err_and(|error| error.contains("101 groups")));
}
