//! A model in a GGUF file instead of a directory: the same commands, the same bits.

use crate::program::{bytes, program, said};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tokenizer of whole words for a model of 96 tokens.
fn tokenizer(dir: &Path) {
    let words = [
        "<unk>",
        "<s>",
        "</s>",
        "A",
        "B",
        "C",
        "D",
        "Answer:",
        "Question:",
        "Choices:",
        "cat",
        "dog",
        "the",
        "a",
        "ran",
        "sat",
    ];
    let vocab: serde_json::Map<String, Value> =
        words.iter().enumerate().map(|(id, word)| (word.to_string(), id.into())).collect();
    let special = |id: usize| json!({"id": id, "content": words[id], "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let start = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
    let (one, two) = (json!({"Sequence": {"id": "A", "type_id": 0}}), json!({"Sequence": {"id": "B", "type_id": 0}}));
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special(0), special(1), special(2)],
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": null,
        "post_processor": {"type": "TemplateProcessing", "single": [start, one], "pair": [start, one, two],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    });
    std::fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let config = json!({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"});
    std::fs::write(dir.join("tokenizer_config.json"), config.to_string()).unwrap();
}

/// The same tiny model as a directory and as a file, each with that tokenizer.
fn models(dir: &Path) -> [PathBuf; 2] {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let [base, file] = ["base", "file"].map(|name| dir.join(name));
    for place in [&base, &file] {
        std::fs::create_dir(place).unwrap();
        tokenizer(place);
    }
    for part in ["config.json", "model.safetensors"] {
        std::fs::copy(fixtures.join("tiny_llama/base").join(part), base.join(part)).unwrap();
    }
    let file = file.join("tiny.gguf");
    std::fs::copy(fixtures.join("gguf/tiny_llama.gguf"), &file).unwrap();
    [base, file]
}

fn questions(dir: &Path) -> PathBuf {
    let line = |k: usize| {
        let (animal, label) = if k.is_multiple_of(2) { ("cat", 0) } else { ("dog", 1) };
        let verb = if k.is_multiple_of(3) { "ran" } else { "sat" };
        format!(
            "{}\n",
            json!({"id": format!("{k}"), "question": format!("the {animal} {verb}"), "choices": ["cat", "dog"], "answer": label})
        )
    };
    let path = dir.join("questions.jsonl");
    std::fs::write(&path, (0..12).map(line).collect::<String>()).unwrap();
    path
}

fn with(mut program: Command, flags: &[(&str, &Path)]) -> crate::program::Said {
    flags.iter().for_each(|(flag, path)| {
        program.arg(flag).arg(path);
    });
    said(program)
}

#[test]
fn a_gguf_file_trains_and_answers_with_the_bits_of_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (models, questions) = (models(dir.path()), questions(dir.path()));
    let [of_base, of_file] = ["of_base", "of_file"].map(|name| dir.path().join(name));
    for (model, adapter) in models.iter().zip([&of_base, &of_file]) {
        // few tokens: the model has 64 places
        let train = program(["train", "--epochs", "2", "--rank", "2", "--max-tokens", "48", "--classes", " A, B"]);
        with(train, &[("--model", model), ("--train", &questions), ("--out", adapter)]).well();
    }
    for part in ["adapter_model.safetensors", "posterior.safetensors"] {
        assert!(bytes(of_base.join(part)) == bytes(of_file.join(part)), "{part}");
    }
    // an adapter of the file on the directory, and the other way round
    let answers = |model: &Path, adapter: &Path| {
        with(program(["predict"]), &[("--model", model), ("--adapter", adapter), ("--data", &questions)]).well().out
    };
    assert_eq!(answers(&models[0], &of_file).lines().count(), 12);
    assert_eq!(answers(&models[0], &of_file), answers(&models[1], &of_base));

    let texts = dir.path().join("texts.jsonl");
    std::fs::write(&texts, "{\"text\": \"the cat sat\"}\n{\"prompt\": \"the\", \"completion\": \" dog\"}\n").unwrap();
    let said_of_texts = |model: &Path| {
        let score = with(program(["score"]), &[("--model", model), ("--data", &texts)]).well().out;
        let generate = program(["generate", "--prompt", "the cat", "--max-new-tokens", "4"]);
        (score, with(generate, &[("--model", model)]).well().out)
    };
    assert_eq!(said_of_texts(&models[0]), said_of_texts(&models[1]));
}

#[test]
fn a_gguf_file_is_told_estimated_and_not_merged_into() {
    let dir = tempfile::tempdir().unwrap();
    let ([base, file], questions) = (models(dir.path()), questions(dir.path()));
    let mut inspect = program(["inspect", "--json"]);
    inspect.args([&base, &file]);
    let told = said(inspect).well().json();
    for field in ["what", "family", "layers", "hidden_size", "heads", "vocabulary", "parameters", "element_types"] {
        assert_eq!(told[0][field], told[1][field], "{field}");
    }
    assert_eq!((&told[1]["parameters"], &told[1]["element_types"]), (&json!(21664), &json!(["F32"])));
    let flags = ["estimate", "--json", "--rank", "2", "--max-tokens", "48", "--classes", " A, B"];
    let estimates = [&base, &file].map(|model| with(program(flags), &[("--model", model), ("--train", &questions)]));
    let [a, b] = estimates.map(|said| said.well().json());
    assert_eq!(a, b);

    let adapter = dir.path().join("adapter");
    let train = program(["train", "--epochs", "1", "--max-tokens", "48", "--classes", " A, B", "--no-posterior"]);
    with(train, &[("--model", &file), ("--train", &questions), ("--out", &adapter)]).well();
    let out = dir.path().join("merged");
    let merge = program(["merge", "adapter", "--check", "the cat sat"]);
    let merged = with(merge, &[("--model", &file), ("--adapter", &adapter), ("--out", &out)]);
    assert!(!out.exists());
    merged.refused(&["tiny.gguf", "directory"]);
    // without a tokenizer beside it
    std::fs::remove_file(file.with_file_name("tokenizer.json")).unwrap();
    with(program(["generate", "--prompt", "the cat"]), &[("--model", &file)]).refused(&["tokenizer.json"]);
}

/// The same tiny encoder as a directory, which is pooled as its file says, and as a file, each with a tokenizer.
fn encoders(dir: &Path) -> [PathBuf; 2] {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let [base, file] = ["base", "file"].map(|name| dir.join(name));
    let copy = |from: &str, to: &Path| {
        for entry in std::fs::read_dir(fixtures.join(from)).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    for place in [&base, &file] {
        std::fs::create_dir(place).unwrap();
        copy("tiny_bert/tokenizer", place);
    }
    copy("tiny_bert/base", &base);
    std::fs::create_dir(base.join("1_Pooling")).unwrap();
    let pooling = json!({"word_embedding_dimension": 32, "pooling_mode_mean_tokens": true});
    std::fs::write(base.join("1_Pooling/config.json"), pooling.to_string()).unwrap();
    let file = file.join("tiny.gguf");
    std::fs::copy(fixtures.join("gguf/tiny_bert.gguf"), &file).unwrap();
    [base, file]
}

/// Short texts, with what `label` makes of them.
fn texts(dir: &Path, name: &str, label: impl Fn(usize) -> Value) -> PathBuf {
    let line = |k: usize| {
        let (animal, verb) = (["cat", "dog"][k % 2], ["ran", "sat", "is"][k % 3]);
        format!("{}\n", json!({"text": format!("the {animal} {verb}"), "label": label(k)}))
    };
    let path = dir.join(name);
    std::fs::write(&path, (0..12).map(line).collect::<String>()).unwrap();
    path
}

#[test]
fn a_gguf_file_of_an_encoder_does_what_its_directory_does_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let models = encoders(dir.path());
    // two classes and one number: the checkpoint's head is about three classes, and stays where it is
    let labels = texts(dir.path(), "labels.jsonl", |k| json!(["cats", "dogs"][k % 2]));
    let numbers = texts(dir.path(), "numbers.jsonl", |k| json!((k % 2) as f64 + 0.1 * (k % 3) as f64 - 0.5));
    // so few are fitted exactly, which leaves no noise to find
    let noise = ["--noise-variance", "0.1"];
    let adapted = ["--rank", "2", "--max-tokens", "12", "--targets", "query,value"];
    let asked = |words: &[&str], more: &[&str]| program([words, more].concat());
    for (data, name, more) in [(&labels, "labels", &noise[..0]), (&numbers, "numbers", &noise)] {
        let adapters = ["base", "file"].map(|model| dir.path().join(format!("{name}_of_{model}")));
        for (model, adapter) in models.iter().zip(&adapters) {
            let train = asked(&["train", "--epochs", "2"], &[&adapted, more].concat());
            with(train, &[("--model", model), ("--train", data), ("--out", adapter)]).well();
        }
        for part in ["adapter_model.safetensors", "posterior.safetensors"] {
            assert!(bytes(adapters[0].join(part)) == bytes(adapters[1].join(part)), "{name}: {part}");
        }
        let posterior = dir.path().join(format!("{name}.safetensors"));
        let fit = asked(&["fit", "--max-tokens", "12"], more);
        let again =
            [("--model", &*models[1]), ("--adapter", &adapters[0]), ("--train", data), ("--posterior", &posterior)];
        with(fit, &again).well();
        assert!(bytes(&posterior) == bytes(adapters[0].join("posterior.safetensors")), "{name}");
        // an adapter of the file on the directory, and the other way round
        let answers = |model: &Path, adapter: &Path| {
            with(program(["predict"]), &[("--model", model), ("--adapter", adapter), ("--data", data)]).well().out
        };
        assert_eq!(answers(&models[0], &adapters[1]).lines().count(), 12);
        assert_eq!(answers(&models[0], &adapters[1]), answers(&models[1], &adapters[0]));
        let estimate = |model: &PathBuf| {
            let estimate = asked(&["estimate", "--json"], &[&adapted, more].concat());
            with(estimate, &[("--model", model), ("--train", data)]).well().json()
        };
        assert_eq!(estimate(&models[0]), estimate(&models[1]));
    }
    let compared = |model: &PathBuf| {
        let out = dir.path().join(format!("compared_{}", model.file_name().unwrap().display()));
        let compare = asked(&["compare", "--json", "--methods", "mle,kronecker", "--epochs", "2"], &adapted);
        let places = [("--model", &**model), ("--train", &labels), ("--test", &labels), ("--out", &out)];
        with(compare, &places).well().json()["rows"].clone()
    };
    assert_eq!(compared(&models[0]), compared(&models[1]));
}

#[test]
fn a_gguf_file_of_an_encoder_is_told_and_refused_where_a_decoder_is_needed_or_its_tokenizer_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let [base, file] = encoders(dir.path());
    let mut inspect = program(["inspect", "--json", "--load"]);
    inspect.args([&base, &file]);
    let told = said(inspect).well().json();
    for field in ["what", "family", "layers", "hidden_size", "vocabulary", "longest_row", "pooling", "element_types"] {
        assert!(!told[0][field].is_null() && told[0][field] == told[1][field], "{field}: {told}");
    }
    let ask = |data: &Path| {
        let train = program(["train", "--max-tokens", "12", "--targets", "query,value"]);
        with(train, &[("--model", &file), ("--train", data), ("--out", &dir.path().join("none"))])
    };
    ask(&questions(dir.path())).refused(&["tiny.gguf", "general.architecture", "bert"]);
    std::fs::remove_file(file.with_file_name("tokenizer.json")).unwrap();
    ask(&texts(dir.path(), "labels.jsonl", |k| json!(k % 2))).refused(&["tokenizer.json"]);
}
