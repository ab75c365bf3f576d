//! Says what a checkpoint holds beyond what its configuration declares, and refuses what would change the logits.

use super::names::{INNER_ROOT, NOT_OF_TEXT, ROOT, STORED_INNER_ROOT};
use crate::error::{Error, Result};
use std::fmt::{Display, Formatter};
use std::path::PathBuf;

/// How many names a message holds.
const SHOWN: usize = 3;

/// What a checkpoint holds beyond what its configuration declares, none of which makes the loaded model another one.
///
/// Empty for most; print it where it is not, since it often says that a file is not what its owner believes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// The directory or file.
    pub location: PathBuf,
    /// True if the configuration ties the output head to the embedding while the weights hold a head of its own with other
    /// values: it is used, as transformers uses it. Merging an adapter with trained embeddings leaves such checkpoints.
    pub untied_head: bool,
    /// Tensors that a language model does not compute with: buffers of old versions, heads for other purposes.
    pub unread_tensors: Vec<String>,
    /// Tensors that stand in several files, with the same bytes.
    pub repeated_tensors: Vec<String>,
    /// Files of the directory that transformers may read, and this crate does not.
    pub unread_files: Vec<String>,
}

impl LoadReport {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        !self.untied_head
            && self.unread_tensors.is_empty()
            && self.repeated_tensors.is_empty()
            && self.unread_files.is_empty()
    }
}

impl Display for LoadReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let mut said = Vec::new();
        if self.untied_head {
            said.push(
                "`tie_word_embeddings` is true, but the weights hold another output head, `lm_head.weight`, which is used \
                 (as transformers does)"
                    .to_string(),
            );
        }
        for (names, what) in [
            (&self.unread_tensors, "not read, since no logit depends on it"),
            (&self.repeated_tensors, "in several files, with the same values"),
            (&self.unread_files, "beside the weights, and not read"),
        ] {
            if !names.is_empty() {
                said.push(format!("{}: {what}", list(names)));
            }
        }
        if said.is_empty() {
            said.push("everything was read".into());
        }
        write!(f, "{}: {}", self.location.display(), said.join("; "))
    }
}

/// The first few names, and how many more there are.
fn list(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Why a tensor that was not read would change the logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Adapter,
    SurplusLayer,
    Bias,
    PartOfTheModel,
}

impl Cause {
    const ALL: [Self; 4] = [Self::Adapter, Self::SurplusLayer, Self::Bias, Self::PartOfTheModel];

    fn explain(self, n_layers: usize) -> String {
        match self {
            Self::Adapter => {
                "belongs to an adapter that is not merged: merge it, or save base and adapter apart".into()
            }
            Self::SurplusLayer => format!("belongs to a layer beyond the {n_layers} of `num_hidden_layers`"),
            Self::Bias => "is a bias that the configuration does not declare (`attention_bias`, `mlp_bias`)".into(),
            Self::PartOfTheModel => "is a part of the model that this architecture does not compute".into(),
        }
    }

    /// Of a tensor under its name in Hugging Face's or in GGUF's form; `None` for what no logit depends on.
    fn of(name: &str, n_layers: usize) -> Option<Self> {
        if name.contains(".lora_") || name.contains(".base_layer.") || name.starts_with("base_model.") {
            return Some(Self::Adapter);
        }
        let is_not_of_text = NOT_OF_TEXT.iter().any(|part| name.contains(part));
        if name.contains("rotary_emb.") || name.ends_with("position_ids") || is_not_of_text {
            return None;
        }
        let roots = [STORED_INNER_ROOT, INNER_ROOT, ROOT];
        let inside = roots.iter().find_map(|root| name.strip_prefix(root)).unwrap_or(name);
        let in_layer = inside.strip_prefix("layers.").or(inside.strip_prefix("blk."));
        if let Some(layer) = in_layer.and_then(|rest| rest.split('.').next()?.parse::<usize>().ok())
            && layer >= n_layers
        {
            return Some(Self::SurplusLayer);
        }
        let roots = ["embed_tokens.", "norm.", "lm_head.", "token_embd.", "output_norm.", "output.", "rope_factors"];
        let is_part =
            in_layer.is_some() || inside.len() < name.len() || roots.iter().any(|root| name.starts_with(root));
        match is_part {
            true if name.ends_with(".bias") => Some(Self::Bias),
            true => Some(Self::PartOfTheModel),
            false => None,
        }
    }
}

/// Refuses a checkpoint by the names of its tensors alone, before any is read: one with an adapter that is not merged, or with
/// more layers than the configuration says.
pub(super) fn check_names(location: &str, names: &[String], n_layers: usize) -> Result<()> {
    refuse(location, names, n_layers, &[Cause::Adapter, Cause::SurplusLayer])
}

/// Refuses tensors that nobody asked for if logits depend on them, and returns the others.
pub(super) fn check_unread(location: &str, unread: Vec<String>, n_layers: usize) -> Result<Vec<String>> {
    refuse(location, &unread, n_layers, &Cause::ALL)?;
    Ok(unread)
}

fn refuse(location: &str, names: &[String], n_layers: usize, causes: &[Cause]) -> Result<()> {
    for cause in causes {
        let of_cause = |name: &&String| Cause::of(name, n_layers) == Some(*cause);
        let found: Vec<String> = names.iter().filter(of_cause).cloned().collect();
        if !found.is_empty() {
            let reason = format!("tensors that would change the logits are not read: {}: ", list(&found));
            let each = if found.len() == 1 { "it" } else { "each" };
            return Err(Error::format(location, format!("{reason}{each} {}", cause.explain(n_layers))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_told_by_their_names() {
        for (name, expected) in [
            ("model.layers.0.self_attn.q_proj.lora_A.weight", Some(Cause::Adapter)),
            ("model.layers.0.self_attn.q_proj.base_layer.weight", Some(Cause::Adapter)),
            ("base_model.model.model.norm.weight", Some(Cause::Adapter)),
            ("model.layers.2.mlp.up_proj.weight", Some(Cause::SurplusLayer)),
            ("layers.17.mlp.up_proj.weight", Some(Cause::SurplusLayer)),
            ("blk.2.attn_q.weight", Some(Cause::SurplusLayer)),
            ("model.layers.1.self_attn.o_proj.bias", Some(Cause::Bias)),
            ("blk.0.attn_k.bias", Some(Cause::Bias)),
            ("lm_head.bias", Some(Cause::Bias)),
            ("output.bias", Some(Cause::Bias)),
            ("model.layers.1.self_attn.q_norm.weight", Some(Cause::PartOfTheModel)),
            ("model.layers.1.mlp.up_proj.weight_scale", Some(Cause::PartOfTheModel)),
            ("language_model.model.layers.2.mlp.up_proj.weight", Some(Cause::SurplusLayer)),
            ("model.language_model.layers.1.self_attn.x_norm.weight", Some(Cause::PartOfTheModel)),
            ("vision_tower.encoder.layers.7.mlp.fc1.bias", None),
            ("model.multi_modal_projector.mm_input_projection_weight", None),
            ("model.embed_positions.weight", Some(Cause::PartOfTheModel)),
            ("norm.weight", Some(Cause::PartOfTheModel)), // beside `model.norm.weight`
            ("rope_factors_long.weight", Some(Cause::PartOfTheModel)),
            ("model.layers.0.self_attn.rotary_emb.inv_freq", None),
            ("model.layers.9.self_attn.rotary_emb.inv_freq", None),
            ("score.weight", None),
            ("v_head.summary.bias", None),
        ] {
            assert_eq!(Cause::of(name, 2), expected, "{name}");
        }
    }

    #[test]
    fn a_report_names_what_it_counts() {
        let names = |n: usize| (0..n).map(|i| format!("layers.{i}")).collect::<Vec<_>>();
        let mut report = LoadReport { location: "here".into(), ..LoadReport::default() };
        assert!(report.is_empty());
        report.unread_tensors = names(5);
        report.untied_head = true;
        let text = report.to_string();
        assert!(!report.is_empty());
        for part in ["here: ", "lm_head.weight", "`layers.0`, `layers.1`, `layers.2` and 2 more"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
