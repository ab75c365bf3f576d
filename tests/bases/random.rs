//! Networks of a shape whose weights are drawn.

use super::logits;
use crate::support::device;
use bayes_lora::lora::{Adaptable, PartWeight};
use bayes_lora::models::{CausalLm, DecoderConfig, Pretrained};
use burn::tensor::DType;

fn random(tied: bool, seed: u64) -> CausalLm {
    let text = format!(
        r#"{{"model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "vocab_size": 96, "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "tie_word_embeddings": {tied}}}"#
    );
    let config = DecoderConfig::from_json(&text, "shape").unwrap();
    Pretrained::random(config, seed).with_dtype(DType::F32).load(&device()).unwrap()
}

#[test]
fn weights_depend_on_the_seed_and_the_tensor_only() {
    assert_eq!(logits(random(true, 0)), logits(random(true, 0)));
    assert_ne!(logits(random(true, 0)), logits(random(true, 1)));
    let model = random(true, 0);
    let weights: Vec<Vec<f64>> =
        model.linears().iter().map(|linear| linear.weight.val().into_data().iter::<f64>().collect()).collect();
    for (i, first) in weights.iter().enumerate() {
        assert!(weights[i + 1..].iter().all(|other| other[..32] != first[..32]), "{i}");
        // 256 draws and more: their standard deviation lies within a fifth of 0.02 in all but one of 10⁴ seeds
        let variance = first.iter().map(|w| w * w).sum::<f64>() / first.len() as f64;
        assert!((variance.sqrt() / 0.02 - 1.0).abs() < 0.2, "{i}: {variance}");
    }
}

#[test]
fn gains_are_one_and_a_head_of_its_own_is_no_embedding() {
    for part in random(true, 0).parts() {
        if let PartWeight::Vector(gains) = part.weight {
            assert!(gains.into_data().iter::<f64>().all(|gain| gain == 1.0), "{}", part.path);
        }
    }
    assert_ne!(logits(random(true, 0)), logits(random(false, 0)));
}
