//! Encoders, of which llama.cpp's package wrote a file without pooler and head: the configuration, weights and outputs of its directory.

use super::models::gguf;
use super::writer::{File, Value};
use crate::support::heads::{adapted, data, dir};
use crate::support::{device, logits};
use bayes_lora::lora::{AdapterWeights, LoraConfig, attach, read_adapter};
use bayes_lora::models::{LoadedEncoder, Pooling, PretrainedEncoder, SequenceClassifier};
use burn::tensor::DType;

const NAME: &str = "tiny_bert";

#[test]
fn a_file_of_an_encoder_has_the_configuration_and_the_bits_of_its_directory() {
    let (data, file) = (data(NAME), PretrainedEncoder::from_gguf(gguf(NAME)).unwrap());
    // the file says so
    let base = PretrainedEncoder::from_dir(dir(NAME).join("base")).unwrap().with_pooling(Pooling::Mean);
    let mut said = base.config().clone();
    (said.labels, said.problem_type) = (Vec::new(), None);
    assert_eq!(*file.config(), said);
    for pooling in [Pooling::Mean, Pooling::FirstToken] {
        let [ours, theirs] = [&file, &base].map(|source| {
            let LoadedEncoder { encoder, report, .. } = source.clone().with_pooling(pooling).load(&device()).unwrap();
            assert!(report.unread_tensors.iter().all(|name| !name.starts_with("blk.")), "{report}");
            logits(&SequenceClassifier::new(encoder, &data, 3).unwrap(), &data)
        });
        assert_eq!(ours, theirs, "{pooling:?}");
    }
    let error = file.with_pooling(Pooling::Pooler).load(&device()).unwrap_err().to_string();
    assert!(error.contains("dense.weight"), "{error}");
}

#[test]
fn adapters_of_the_hubs_checkpoint_are_at_the_same_paths() {
    let data = data(NAME);
    let theirs = adapted(&dir(NAME).join("base"), &dir(NAME).join("adapter"), &data, DType::F32);
    let encoder = PretrainedEncoder::from_gguf(gguf(NAME)).unwrap().load(&device()).unwrap().encoder;
    let lora = LoraConfig::new(2).with_target_modules(["query", "value"]);
    let ours = attach(SequenceClassifier::new(encoder, &data, 0).unwrap(), &lora, 0).unwrap();
    let sites = |weights: AdapterWeights| weights.into_keys().collect::<Vec<_>>();
    let (ours, theirs) = (sites(read_adapter(&ours).unwrap()), sites(read_adapter(&theirs).unwrap()));
    assert!(ours.iter().all(|site| theirs.contains(site)), "{ours:?} {theirs:?}");
}

/// The metadata of an encoder of one layer.
fn described(architecture: &'static str) -> File {
    let counts = [
        ("context_length", 16),
        ("embedding_length", 8),
        ("block_count", 1),
        ("feed_forward_length", 12),
        ("attention.head_count", 2),
    ];
    let mut file = File::default().with("general.architecture", Value::Text(architecture));
    for (key, n) in counts {
        file = file.with(&format!("{architecture}.{key}"), Value::U32(n));
    }
    file = file.with(&format!("{architecture}.attention.layer_norm_epsilon"), Value::F32(1e-5));
    file.with_tensors(vec![("token_embd.weight", vec![1, 8], 0, 0)])
}

#[test]
fn what_an_encoder_does_not_compute_is_named_by_its_key() {
    let read = |file: &File| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        std::fs::write(&path, file.bytes()).unwrap();
        PretrainedEncoder::from_gguf(&path)
    };
    let silent = read(&described("bert")).unwrap();
    assert_eq!((silent.config().pooling, silent.config().n_token_types), (Pooling::FirstToken, 0));
    for (architecture, key, value, parts) in [
        ("bert", "pooling_type", Value::U32(4), ["bert.pooling_type", "4"]),
        ("bert", "attention.causal", Value::Raw(7, vec![1]), ["bert.attention.causal", "true"]),
        ("bert", "hidden_activation", Value::Text("relu"), ["bert.hidden_activation", "relu"]),
        ("llama", "pooling_type", Value::U32(1), ["general.architecture", "llama"]),
    ] {
        let error = read(&described(architecture).with(&format!("{architecture}.{key}"), value)).unwrap_err();
        let error = error.to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}
