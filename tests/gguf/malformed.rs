//! Malformed files: an error that says what is wrong, no panic, and no allocation out of proportion to the file.

use super::writer::{File, Value};
use crate::support::allocations::{Watched, watch};
use bayes_lora::error::Result;
use bayes_lora::gguf::GgufFile;
use bayes_lora::models::Pretrained;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Buffers that do not depend on the file (64 KiB for reading, messages, tables), and 64 bytes for each of its own.
fn allowed(length: usize) -> usize {
    (1 << 18) + 64 * length
}

/// Opens `bytes` as a file and reads every tensor.
fn read(bytes: &[u8]) -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    std::fs::write(&path, bytes).unwrap();
    let (outcome, asked) = watch(|| {
        catch_unwind(AssertUnwindSafe(|| {
            let mut file = GgufFile::open(&path)?;
            file.names().iter().try_for_each(|name| file.values(name).map(|_| ()))
        }))
    });
    assert!(asked.largest <= allowed(bytes.len()), "{} bytes at once for a file of {}", asked.largest, bytes.len());
    outcome.expect("a panic came through")
}

fn refused(what: &str, bytes: &[u8], parts: &[&str]) {
    let error = match read(bytes) {
        Ok(()) => panic!("{what}: was accepted"),
        Err(error) => error.to_string(),
    };
    println!("{what}: {error}");
    for part in ["m.gguf"].iter().chain(parts) {
        assert!(error.contains(part), "{what}: «{error}» lacks «{part}»");
    }
}

#[test]
fn a_right_file_is_read() {
    read(&File::default().bytes()).unwrap();
}

#[test]
fn what_is_wrong_is_named_with_its_numbers() {
    let file = File::default;
    let tensor =
        |dims: &[u64], kind: u32, offset: u64| file().with_tensors(vec![("a", dims.to_vec(), kind, offset)]).bytes();
    let length_of = |n: u64| n.to_le_bytes().to_vec();
    refused("five bytes", b"GGUF\x03", &["needs 24", "has 5"]);
    refused("nothing", b"", &["empty"]);
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 77\n";
    refused("a pointer", pointer, &["Git LFS pointer", "77 bytes", "git lfs pull"]);
    refused("a page", b"<html><head></head><body>Not found</body></html>", &["web page"]);
    refused("safetensors", &[&2u64.to_le_bytes()[..], b"{}", &[0; 32]].concat(), &["safetensors", "from_dir"]);
    refused("another magic", &[&b"GGML"[..], &[0; 40]].concat(), &["GGUF"]);
    for version in [1, 2, 4] {
        let found = format!("`{version}`");
        refused("another version", &File { version, ..file() }.bytes(), &["GGUF version", &found, "3, little-endian"]);
    }
    refused(
        "big-endian",
        &File { version: 3u32.swap_bytes(), ..file() }.bytes(),
        &["3, big-endian", "3, little-endian"],
    );
    let many = File { tensor_count: Some(u64::MAX), ..file() };
    refused("too many tensors", &many.bytes(), &["18446744073709551615 tensors", "the file has"]);
    let many = File { metadata_count: Some(100_000), ..file() };
    refused("too many entries", &many.bytes(), &["100000 metadata entries", "needs 1400024"]);
    refused("dimensions that overflow", &tensor(&[1 << 40, 1 << 40], 0, 0), &["overflow"]);
    refused("a dimension beyond the file", &tensor(&[1 << 29], 0, 0), &["tensor `a`", "needs 2147483776", "has 160"]);
    refused("an offset that overflows", &tensor(&[8], 0, u64::MAX - 31), &["tensor `a`"]);
    refused("an offset beyond the file", &tensor(&[8], 0, 32), &["tensor `a`", "needs 192", "has 160"]);
    refused("an unaligned offset", &tensor(&[4], 0, 4), &["aligned to 32"]);
    refused("an unknown type", &tensor(&[8], 99, 0), &["99"]);
    refused("a type without decoder", &tensor(&[256], 17, 0), &["tensor `a`", "IQ2_XS", "Q4_K", "Q6_K"]);
    refused("a row that is no whole block", &tensor(&[33], 8, 0), &["33", "32", "Q8_0"]);
    refused("no dimension", &tensor(&[], 0, 0), &["dimension"]);
    refused("five dimensions", &tensor(&[1; 5], 0, 0), &["5"]);
    let twice = file().with_tensors(vec![("a", vec![1], 0, 0), ("a", vec![1], 0, 0)]);
    refused("a name twice", &twice.bytes(), &["Duplicate"]);
    for alignment in [0, 7] {
        let file = file().with("general.alignment", Value::U32(alignment));
        refused("a bad alignment", &file.bytes(), &["general.alignment", &alignment.to_string()]);
    }
    refused("a long text", &file().with("a.b", Value::Raw(8, length_of(1 << 40))).bytes(), &["budget"]);
    let array = |kind: u32, n: u64| Value::Raw(9, [&kind.to_le_bytes()[..], &n.to_le_bytes()].concat());
    refused("a long array", &file().with("a.b", array(4, u64::MAX)).bytes(), &[]);
    let nested = array(9, 1);
    let Value::Raw(_, step) = &nested else { unreachable!() };
    refused("arrays in arrays", &file().with("a.b", Value::Raw(9, step.repeat(500))).bytes(), &["nesting"]);
    let mut odd = file();
    odd.metadata.push((vec![0xff, 0xfe], Value::U32(1)));
    refused("a key that is no text", &odd.bytes(), &["UTF-8"]);
    refused("an unknown metadata type", &file().with("a.b", Value::Raw(77, vec![0; 8])).bytes(), &["77"]);
}

#[test]
fn every_truncation_is_an_error_and_no_changed_byte_is_a_panic() {
    let bytes = File::default().bytes();
    for length in 0..bytes.len() {
        assert!(read(&bytes[..length]).is_err(), "the first {length} bytes were accepted");
    }
    let mut refused = 0;
    for at in 0..bytes.len() {
        for change in [1, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            refused += usize::from(read(&changed).is_err());
        }
    }
    // magic, version, counts and lengths at the least: 4 + 4 + 8 + 8 + 8 bytes, three changes each
    assert!(refused >= 96, "only {refused} of {} changes were noticed", 3 * bytes.len());
}

/// The metadata of a small Llama.
/// The metadata of a small model of an architecture, and its embedding.
pub fn described(architecture: &'static str) -> File {
    let counts = [
        ("context_length", 64),
        ("embedding_length", 32),
        ("block_count", 1),
        ("feed_forward_length", 48),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
    ];
    let eps = format!("{architecture}.attention.layer_norm_rms_epsilon");
    let mut file = File::default().with("general.architecture", Value::Text(architecture)).with(&eps, Value::F32(1e-5));
    for (key, n) in counts {
        file = file.with(&format!("{architecture}.{key}"), Value::U32(n));
    }
    file.with_tensors(vec![("token_embd.weight", vec![1, 8], 0, 0)])
}

fn llama() -> File {
    described("llama")
}

pub fn configured(file: &File) -> Result<Pretrained> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    std::fs::write(&path, file.bytes()).unwrap();
    Pretrained::from_gguf(&path)
}

#[test]
fn metadata_becomes_the_configuration() {
    let linear = llama()
        .with("llama.rope.scaling.type", Value::Text("linear"))
        .with("llama.rope.scaling.factor", Value::F32(2.5))
        .with("llama.rope.freq_base", Value::F32(500_000.0));
    let pretrained = configured(&linear).unwrap();
    let config = pretrained.config();
    assert_eq!((config.hidden_size, config.head_dim, config.n_kv_heads, config.vocab_size), (32, 8, 2, 8));
    assert_eq!((config.norm_eps, config.rope_theta, config.tied_head), (1e-5, 500_000.0, true));
    assert_eq!(format!("{:?}", config.rope_scaling), "Linear { factor: 2.5 }");
}

#[test]
fn rotary_scaling_is_read_as_llama_cpp_reads_it() {
    let scaling = |edit: fn(File) -> File| format!("{:?}", configured(&edit(llama())).unwrap().config().rope_scaling);
    let linear = "Linear { factor: 2.5 }";
    assert_eq!(scaling(|file| file), "None");
    // a factor without a type, under the present key and the one of old files
    assert_eq!(scaling(|file| file.with("llama.rope.scaling.factor", Value::F32(2.5))), linear);
    assert_eq!(scaling(|file| file.with("llama.rope.scale_linear", Value::F32(2.5))), linear);
    let none = |file: File| {
        file.with("llama.rope.scaling.factor", Value::F32(2.5)).with("llama.rope.scaling.type", Value::Text("none"))
    };
    assert_eq!(scaling(none), "None");
    let both =
        llama().with("llama.rope.scaling.factor", Value::F32(2.5)).with("llama.rope.scale_linear", Value::F32(4.0));
    let error = configured(&both).unwrap_err().to_string();
    for part in ["`llama.rope.scaling.factor` is 2.5", "`llama.rope.scale_linear` is 4"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn metadata_that_is_missing_or_not_computed_is_named() {
    let cases: [(File, &[&str]); 13] = [
        (
            llama().with("general.architecture", Value::Text("mamba")),
            &["general.architecture", "mamba", "llama, qwen2, qwen3"],
        ),
        (llama().without("general.architecture"), &["general.architecture"]),
        (llama().without("llama.block_count"), &["llama.block_count"]),
        (llama().with("llama.block_count", Value::F32(2.0)), &["llama.block_count", "f32", "integer"]),
        (llama().with("llama.attention.head_count_kv", Value::U32(3)), &["num_key_value_heads", "= 4", "got 3"]),
        (llama().with("llama.attention.head_count", Value::U32(0)), &["num_attention_heads", "got 0"]),
        (llama().with("llama.expert_count", Value::U32(8)), &["llama.expert_count", "8"]),
        (llama().with("split.count", Value::U32(3)), &["split.count", "`3`", "one file"]),
        (llama().with("llama.rope.dimension_count", Value::U32(4)), &["llama.rope.dimension_count", "`4`", "8"]),
        (llama().with("llama.rope.scaling.type", Value::Text("yarn")), &["llama.rope.scaling.factor", "nothing"]),
        (llama().with("llama.rope.scaling.type", Value::Text("linear")), &["llama.rope.scaling.factor"]),
        (llama().with_tensors(vec![("a", vec![4], 0, 0)]), &["token_embd.weight", "missing"]),
        (
            llama().with_tensors(vec![("token_embd.weight", vec![1, 8], 0, 0), ("rope_freqs.weight", vec![8], 0, 0)]),
            &["rope_freqs.weight", "[4]", "[8]"],
        ),
    ];
    for (file, parts) in cases {
        let error = configured(&file).unwrap_err().to_string();
        println!("{error}");
        for part in parts {
            assert!(error.contains(part), "«{error}» lacks «{part}»");
        }
    }
}
