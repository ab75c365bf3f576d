//! Says which tensors an adapter's file holds for a model and a configuration, and under which names.

use crate::error::{Error, Result};
use crate::lora::{Adaptable, LoraConfig, TrainedBiases};

/// What PEFT puts before a module's path.
const PREFIX: &str = "base_model.model.";
/// What PEFT calls the linear inside an adapted one.
const INNER: &str = ".base_layer";
/// The two heads that PEFT lists for every sequence classifier, which has one of them.
const SEQUENCE_HEADS: [&str; 2] = ["classifier", "score"];

/// What a tensor is to its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// `[r, d_in]`
    A,
    /// `[d_out, r]`
    B,
    /// `[d_out, d_in]`, trained whole.
    Weight,
    /// `[d_out]`
    Bias,
    /// A copy of the frozen weight under an adapter, `[d_out, d_in]`, which PEFT adds for an adapted head.
    FrozenWeight,
}

/// A module's path and the part; what a name means whatever it begins with.
pub(super) type Key = (String, Part);

/// A tensor that belongs to a model with an adapter.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// Which of the model's linears.
    pub(super) linear: usize,
    pub(super) path: String,
    pub(super) part: Part,
    pub(super) shape: Vec<usize>,
    /// PEFT's name.
    pub(super) name: String,
}

/// Every tensor of the adapter that `config` describes on `model`, in the model's order.
///
/// # Errors
/// If a pattern is invalid or `modules_to_save` names what is no linear of the model.
pub(super) fn stored_tensors<M: Adaptable>(model: &M, config: &LoraConfig) -> Result<Vec<Stored>> {
    check_modules_to_save(model, config)?;
    let mut all = Vec::new();
    for (linear, module) in model.linears().into_iter().enumerate() {
        let path = &module.path;
        let mut add = |part, shape: Vec<usize>, suffix: &str| {
            let name = format!("{PREFIX}{path}{suffix}");
            all.push(Stored { linear, path: path.clone(), part, shape, name });
        };
        let (d_in, d_out, rank) = (module.d_in(), module.d_out(), config.rank_at(path));
        let (whole, adapted) = (config.saves_whole(path), config.targets(path, module.is_head)?);
        if whole {
            add(Part::Weight, vec![d_out, d_in], ".weight");
        }
        if adapted {
            add(Part::A, vec![rank, d_in], ".lora_A.weight");
            add(Part::B, vec![d_out, rank], ".lora_B.weight");
        }
        let has_bias = match config.bias {
            TrainedBiases::None => whole,
            TrainedBiases::LoraOnly => whole || adapted,
            TrainedBiases::All => true,
        };
        if has_bias && module.bias.is_some() {
            add(Part::Bias, vec![d_out], &format!("{}.bias", if adapted { INNER } else { "" }));
        }
    }
    Ok(all)
}

fn check_modules_to_save<M: Adaptable>(model: &M, config: &LoraConfig) -> Result<()> {
    let linears = model.linears();
    let is_known = |name: &str| {
        let alone = LoraConfig { modules_to_save: Some(vec![name.to_string()]), ..config.clone() };
        linears.iter().any(|linear| alone.saves_whole(&linear.path))
    };
    let is_either_head = |name: &str| SEQUENCE_HEADS.contains(&name) && SEQUENCE_HEADS.into_iter().any(is_known);
    match config.modules_to_save.iter().flatten().find(|name| !is_known(name) && !is_either_head(name)) {
        None => Ok(()),
        Some(name) => Err(Error::Unsupported {
            what: "modules_to_save with the module".into(),
            found: name.clone(),
            supported: format!(
                "linears of this model, such as {}",
                linears.iter().rev().take(3).map(|l| l.path.as_str()).collect::<Vec<_>>().join(", ")
            ),
        }),
    }
}

/// Reads a name with or without PEFT's prefix, with or without an adapter's name in it (`lora_A.default.weight`).
pub(super) fn parse(name: &str) -> Option<Key> {
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    for (matrix, part) in [(".lora_A.", Part::A), (".lora_B.", Part::B)] {
        if let Some((path, rest)) = name.rsplit_once(matrix) {
            let adapter = rest.strip_suffix("weight")?;
            return is_adapter_name(adapter).then(|| (path.into(), part));
        }
    }
    let (module, parameter) = name.rsplit_once('.')?;
    let (own, inner) = match parameter {
        "weight" => (Part::Weight, Part::FrozenWeight),
        "bias" => (Part::Bias, Part::Bias),
        _ => return None,
    };
    if let Some(path) = module.strip_suffix(INNER) {
        return Some((path.into(), inner));
    }
    let path = match module.rsplit_once(".modules_to_save") {
        Some((path, "")) => path,
        Some((path, adapter)) if adapter.starts_with('.') && !adapter[1..].contains('.') => path,
        _ => module,
    };
    Some((path.into(), own))
}

/// Nothing, or one word with the dot behind it.
fn is_adapter_name(text: &str) -> bool {
    text.is_empty() || text.strip_suffix('.').is_some_and(|word| !word.is_empty() && !word.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_with_and_without_prefix_and_adapter_name() {
        let q = "model.layers.0.self_attn.q_proj";
        for (name, expected) in [
            (format!("base_model.model.{q}.lora_A.weight"), Some((q, Part::A))),
            (format!("{q}.lora_A.weight"), Some((q, Part::A))),
            (format!("base_model.model.{q}.lora_B.default.weight"), Some((q, Part::B))),
            (format!("{q}.lora_B.my-adapter.weight"), Some((q, Part::B))),
            (format!("{q}.lora_B.two.words.weight"), None),
            (format!("{q}.lora_B.defaultweight"), None),
            (format!("{q}.lora_B.bias"), None),
            (format!("{q}.lora_magnitude_vector"), None),
            (format!("base_model.model.{q}.base_layer.bias"), Some((q, Part::Bias))),
            (format!("base_model.model.{q}.bias"), Some((q, Part::Bias))),
            ("base_model.model.lm_head.base_layer.weight".into(), Some(("lm_head", Part::FrozenWeight))),
            ("base_model.model.lm_head.weight".into(), Some(("lm_head", Part::Weight))),
            ("base_model.model.lm_head.modules_to_save.weight".into(), Some(("lm_head", Part::Weight))),
            ("lm_head.modules_to_save.default.bias".into(), Some(("lm_head", Part::Bias))),
            ("weight".into(), None),
        ] {
            let expected = expected.map(|(path, part)| (path.to_string(), part));
            assert_eq!(parse(&name), expected, "{name}");
        }
    }
}
