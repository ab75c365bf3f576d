//! Says which tensors an adapter's file holds for a model and a configuration, and under which names.

use crate::error::{Error, Result};
use crate::lora::{Adaptable, LoraConfig, PartWeight, TrainedBiases};
use std::collections::BTreeMap;

/// What PEFT puts before a module's path.
const PREFIX: &str = "base_model.model.";
/// What PEFT calls the linear inside an adapted one.
const INNER: &str = ".base_layer";
/// What PEFT calls a module that is saved whole, and the one of the base below it.
const SAVED: &str = ".modules_to_save";
const ORIGINAL: &str = ".original_module";
/// The two heads that PEFT lists for every sequence classifier, which has one of them.
pub(super) const SEQUENCE_HEADS: [&str; 2] = ["classifier", "score"];

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
    /// A parameter of the base below a module that is saved whole, which PEFT adds for embeddings that it resized.
    Original,
}

/// A module's path inside what PEFT wrapped, and the part; what a name means whatever it begins with.
pub(super) type Key = (String, Part);

/// Which of the model's lists has a tensor, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// Of [`Adaptable::linears`].
    Linear(usize),
    /// Of [`Adaptable::heads`].
    Head(usize),
    /// Of [`Adaptable::parts`].
    Part(usize),
}

/// A tensor that belongs to a model with an adapter.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) holder: Holder,
    pub(super) path: String,
    pub(super) part: Part,
    pub(super) shape: Vec<usize>,
    /// PEFT's name.
    pub(super) name: String,
    /// True of an embedding or a head that the configuration does not mention: PEFT saved it by itself.
    pub(super) unlisted: bool,
}

/// A weight with a row for every token: the embedding, the head.
#[derive(Debug, Clone)]
pub(super) struct VocabularyWeight {
    pub(super) holder: Holder,
    /// Path in the model.
    pub(super) path: String,
    pub(super) rows: usize,
    pub(super) width: usize,
    /// True if an adapter may bring another number of rows.
    pub(super) resizable: bool,
    /// True if it came with an adapter.
    pub(super) replaced: bool,
}

/// The embedding and the head of a model. PEFT saves both by itself where their number of rows is not that of the base.
pub(super) fn vocabulary_weights<M: Adaptable>(model: &M) -> Vec<VocabularyWeight> {
    let mut all: Vec<VocabularyWeight> = Vec::new();
    for (index, part) in model.parts().into_iter().enumerate() {
        if let PartWeight::Table(table) = &part.weight {
            let ([rows, width], holder) = (table.dims(), Holder::Part(index));
            let replaced = part.replaced;
            all.push(VocabularyWeight { holder, path: part.path, rows, width, resizable: true, replaced });
        }
    }
    for (index, linear) in model.linears().into_iter().enumerate().filter(|(_, linear)| linear.is_head) {
        let (rows, holder) = (linear.d_out(), Holder::Linear(index));
        let (path, width, replaced) = (linear.path.clone(), linear.d_in(), linear.replaced.weight);
        let resizable = all.iter().any(|table| table.rows == rows);
        all.push(VocabularyWeight { holder, path, rows, width, resizable, replaced });
    }
    all
}

/// True if a head that is tied to the embedding stays so: PEFT trains either for itself where one of them is saved whole.
pub(super) fn keeps_tie<M: Adaptable>(model: &M, config: &LoraConfig) -> bool {
    config.ensure_weight_tying || !saves_vocabulary(model, config)
}

fn saves_vocabulary<M: Adaptable>(model: &M, config: &LoraConfig) -> bool {
    vocabulary_weights(model).iter().any(|weight| config.saves_whole(&weight.path))
}

/// Every tensor of the adapter that `config` describes on `model`, in the model's order; `brought` has the numbers of rows of
/// embeddings and heads that come whole though `config` may not mention them, by their paths in the model.
///
/// # Errors
/// If a pattern is invalid or `modules_to_save` names what the model has not.
pub(super) fn stored_tensors<M: Adaptable>(
    model: &M,
    config: &LoraConfig,
    brought: &BTreeMap<String, usize>,
) -> Result<Vec<Stored>> {
    check_modules_to_save(model, config)?;
    let mut all = Vec::new();
    let mut add = |holder, path: &str, part, shape: Vec<usize>, suffix: &str, unlisted| {
        let Some(path) = config.inside(path) else { return };
        all.push(Stored { holder, path: path.into(), part, shape, name: format!("{PREFIX}{path}{suffix}"), unlisted });
    };
    let ties = config.ensure_weight_tying && saves_vocabulary(model, config);
    for (index, module) in model.linears().into_iter().enumerate() {
        let (path, holder) = (&module.path, Holder::Linear(index));
        let rank = config.rank_at(path)?;
        let (d_in, rows) = (module.d_in(), brought.get(path).copied());
        let d_out = rows.unwrap_or(module.d_out());
        let listed = config.saves_whole(path) || (ties && module.is_tied);
        let adapted = config.targets(path, module.is_head)?;
        let whole = listed || (rows.is_some() && !adapted);
        if whole {
            add(holder, path, Part::Weight, vec![d_out, d_in], ".weight", !listed);
        }
        if adapted {
            add(holder, path, Part::A, vec![rank, d_in], ".lora_A.weight", false);
            add(holder, path, Part::B, vec![module.d_out(), rank], ".lora_B.weight", false);
        }
        let has_bias = match config.bias {
            TrainedBiases::None => whole,
            TrainedBiases::LoraOnly => whole || adapted,
            TrainedBiases::All => true,
        };
        if has_bias && module.bias.is_some() {
            let suffix = format!("{}.bias", if adapted { INNER } else { "" });
            add(holder, path, Part::Bias, vec![d_out], &suffix, false);
        }
    }
    for (index, head) in model.heads().into_iter().enumerate() {
        add(Holder::Head(index), &head.path, Part::Weight, vec![head.d_out(), head.d_in()], ".weight", false);
        if head.has_bias() {
            add(Holder::Head(index), &head.path, Part::Bias, vec![head.d_out()], ".bias", false);
        }
    }
    for (index, part) in model.parts().into_iter().enumerate() {
        let (rows, mut shape) = (brought.get(&part.path).copied(), part.weight.shape());
        let listed = config.saves_whole(&part.path) || (ties && matches!(part.weight, PartWeight::Table(_)));
        if listed || rows.is_some() {
            shape[0] = rows.unwrap_or(shape[0]);
            add(Holder::Part(index), &part.path, Part::Weight, shape, ".weight", !listed);
        }
    }
    Ok(all)
}

fn check_modules_to_save<M: Adaptable>(model: &M, config: &LoraConfig) -> Result<()> {
    let linears = model.linears().into_iter().map(|linear| linear.path.clone());
    let heads = model.heads().into_iter().map(|head| head.path.clone());
    let paths: Vec<String> = model.parts().into_iter().map(|part| part.path).chain(linears).chain(heads).collect();
    let is_known = |name: &str| {
        let alone = LoraConfig { modules_to_save: Some(vec![name.to_string()]), ..config.clone() };
        paths.iter().any(|path| alone.saves_whole(path))
    };
    let is_either_head = |name: &str| SEQUENCE_HEADS.contains(&name) && SEQUENCE_HEADS.into_iter().any(is_known);
    match config.modules_to_save.iter().flatten().find(|name| !is_known(name) && !is_either_head(name)) {
        None => Ok(()),
        Some(name) => Err(Error::Unsupported {
            what: "modules_to_save with the module".into(),
            found: name.clone(),
            supported: format!(
                "modules of this model, such as {}",
                paths.iter().take(2).chain(paths.last()).map(String::as_str).collect::<Vec<_>>().join(", ")
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
    if let Some(path) = module.strip_suffix(ORIGINAL) {
        return Some((format!("{path}.{parameter}"), Part::Original));
    }
    let path = match module.rsplit_once(SAVED) {
        Some((path, "")) => path,
        Some((path, adapter)) if adapter.starts_with('.') && !adapter[1..].contains('.') => path,
        _ => module,
    };
    Some((path.into(), own))
}

/// True of a name by which PEFT has a module's own weights a second time, where it resized the embeddings.
pub(super) fn is_wrapped(name: &str) -> bool {
    name.contains(&format!("{SAVED}."))
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
            ("base_model.model.lm_head.original_module.weight".into(), Some(("lm_head.weight", Part::Original))),
            ("weight".into(), None),
        ] {
            let expected = expected.map(|(path, part)| (path.to_string(), part));
            assert_eq!(parse(&name), expected, "{name}");
        }
    }
}
