//! PEFT's `adapter_config.json` and `adapter_model.safetensors`.

use crate::harness::{FIXED_BYTES, File, fuzz, scratch};
use crate::mutate::Kind;
use crate::support::{FIXTURES, Fixture};
use bayes_lora::lora::{LoraConfig, load_peft};
use burn::tensor::DType;

#[test]
fn any_adapter_is_attached_or_refused() {
    let fixtures = FIXTURES.map(Fixture::load);
    let bases = fixtures.each_ref().map(|fixture| fixture.bare(DType::F32));
    let corpus = fixtures.each_ref().map(|fixture| {
        let dir = fixture.dir().join("adapter");
        let file = |name, kind| File::read(dir.join(name), name, kind);
        vec![file("adapter_config.json", Kind::Json), file("adapter_model.safetensors", Kind::Tensors)]
    });
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
    let config = LoraConfig::new(2).with_target_pattern("(a{500}){500}");
    let error = config.targets("model.layers.0.self_attn.q_proj", false).unwrap_err().to_string();
    assert!(error.contains("target_modules") && error.contains("1048576"), "{error}");
}
