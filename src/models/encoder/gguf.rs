//! Reads a GGUF file as an encoder: its metadata as a configuration, its tensors under the names of Hugging Face.

use super::config::{EncoderConfig, EncoderFamily, Pooling};
use super::names::Names;
use crate::error::{Error, Result};
use crate::gguf::GgufFile;
use crate::models::config::{MAX_DEPTH, MAX_DIMENSION, check_range};
use crate::models::settings::unsupported;
use crate::tensor_file::converted;
use burn::tensor::{DType, Device, Tensor, TensorData};

/// The architecture that is read. Keys of `modern-bert` hold a hyphen, which the container's reader refuses.
const ARCHITECTURE: &str = "bert";

/// Pooling types of llama.cpp.
const NO_POOLING: usize = 0;
const MEAN: usize = 1;
const FIRST: usize = 2;

/// Reads the shape of the encoder from the metadata and from which tensors there are.
///
/// # Errors
/// As [`PretrainedEncoder::from_gguf`](super::PretrainedEncoder::from_gguf).
pub(super) fn config(file: &GgufFile) -> Result<EncoderConfig> {
    let location = file.path().display().to_string();
    let missing = |key: &str| Error::config(format!("{location}: metadata `{key}`"), "there", "nothing");
    let architecture = file.text("general.architecture")?.ok_or_else(|| missing("general.architecture"))?;
    if architecture != ARCHITECTURE {
        return Err(unsupported(&location, "general.architecture", architecture, ARCHITECTURE));
    }
    let key = |name: &str| format!("{architecture}.{name}");
    let count = |name: &str, most: usize| {
        let found = file.count(&key(name))?.ok_or_else(|| missing(&key(name)))?;
        check_range(&location, &key(name), found, most).map(|()| found)
    };
    let number = |name: &str| match file.number(&key(name))?.ok_or_else(|| missing(&key(name)))? {
        found if found > 0.0 && found.is_finite() => Ok(found),
        found => Err(Error::config(format!("{location}: {}", key(name)), "positive and finite", found)),
    };
    if file.flag(&key("attention.causal"))? == Some(true) {
        return Err(unsupported(&location, &key("attention.causal"), "true", "false"));
    }
    let rows = |name: &str| file.shape(name).and_then(|shape| shape.first()).copied();
    let table = "token_embd.weight";
    let vocab_size =
        rows(table).ok_or_else(|| Error::MissingTensor { name: table.into(), location: file.path().to_path_buf() })?;
    let (hidden_size, n_heads) =
        (count("embedding_length", MAX_DIMENSION)?, count("attention.head_count", MAX_DIMENSION)?);
    if !hidden_size.is_multiple_of(n_heads) {
        let bound = format!("a multiple of the {n_heads} of {}", key("attention.head_count"));
        return Err(Error::config(format!("{location}: {}", key("embedding_length")), bound, hidden_size));
    }
    let n_layers = count("block_count", MAX_DEPTH)?;
    let activation = file.text(&key("hidden_activation"))?.unwrap_or("gelu");
    let pooling = match file.count(&key("pooling_type"))?.unwrap_or(NO_POOLING) {
        NO_POOLING | FIRST => Pooling::FirstToken,
        MEAN => Pooling::Mean,
        other => {
            let supported = "0, 1, 2: none, the mean, the first token";
            return Err(unsupported(&location, &key("pooling_type"), &other.to_string(), supported));
        }
    };
    if activation != "gelu" {
        return Err(unsupported(&location, &key("hidden_activation"), activation, "gelu"));
    }
    Ok(EncoderConfig {
        family: EncoderFamily::Bert,
        hidden_size,
        intermediate_size: count("feed_forward_length", MAX_DIMENSION)?,
        n_layers,
        n_heads,
        vocab_size,
        max_positions: count("context_length", MAX_DIMENSION)?,
        n_token_types: rows("token_types.weight").unwrap_or(0),
        norm_eps: number("attention.layer_norm_epsilon")?,
        pooling,
        labels: Vec::new(),
        problem_type: None,
    })
}

/// What a tensor of Hugging Face is called in a file; one that has no name there keeps its own, and is then reported as missing.
pub(super) fn stored_name(of: &Names, hub: &str) -> String {
    renamed(of, hub).unwrap_or_else(|| hub.to_string())
}

fn renamed(of: &Names, hub: &str) -> Option<String> {
    let (path, kind) = hub.rsplit_once('.')?;
    if let Some((layer, part)) = path.strip_prefix(of.layers).and_then(|rest| rest.split_once('.')) {
        let inputs = of.inputs.iter().zip(["attn_q", "attn_k", "attn_v"]);
        let norms = of.norms.iter().zip(["attn_output_norm", "layer_output_norm"]);
        let others = [(of.attention_output, "attn_output"), (of.inner, "ffn_up"), (of.output, "ffn_down")];
        let mut all = inputs.chain(norms).map(|(hub, name)| (*hub, name)).chain(others);
        let (_, name) = all.find(|(hub, _)| *hub == part)?;
        return Some(format!("blk.{layer}.{name}.{kind}"));
    }
    let ends = [
        (Some(of.words), "token_embd"),
        (of.positions, "position_embd"),
        (of.token_types, "token_types"),
        (Some(of.norm), "token_embd_norm"),
    ];
    let (_, name) = ends.into_iter().find(|(hub, _)| *hub == Some(path))?;
    Some(format!("{name}.{kind}"))
}

/// Whether hidden states depend on a tensor, by its name in a file.
pub(super) fn is_part(stored: &str) -> bool {
    stored.starts_with("blk.")
}

/// Decodes one tensor of the expected shape to values of `dtype`, all finite.
///
/// # Errors
/// If it is missing, has another shape, or is not finite.
pub(super) fn read<const D: usize>(
    file: &mut GgufFile,
    stored: &str,
    expected: [usize; D],
    (dtype, device): (DType, &Device),
) -> Result<Tensor<D>> {
    if let Some(found) = file.shape(stored).filter(|found| *found != expected) {
        let what = format!("tensor `{stored}` in {}", file.path().display());
        return Err(Error::Shape { what, expected: expected.to_vec(), found: found.to_vec() });
    }
    let data = converted(stored, TensorData::new(file.values(stored)?, expected), dtype)?;
    Ok(Tensor::from_data(data, (device, dtype)))
}
