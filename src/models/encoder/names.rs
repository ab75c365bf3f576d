//! What the tensors of an encoder are called in Hugging Face's checkpoints, and so in PEFT's paths.

use super::config::EncoderFamily;

/// The path of a classifier's head.
pub(super) const HEAD: &str = "classifier";

/// The names of one family.
#[derive(Debug)]
pub(super) struct Names {
    /// What the encoder is called inside a model with a head; a model without has its tensors without this.
    pub(super) root: &'static str,
    pub(super) words: &'static str,
    pub(super) positions: Option<&'static str>,
    pub(super) token_types: Option<&'static str>,
    /// Of the embeddings.
    pub(super) norm: &'static str,
    /// Before the number of a layer.
    pub(super) layers: &'static str,
    /// In a layer: query, key and value; or one linear for all of them.
    pub(super) inputs: &'static [&'static str],
    pub(super) attention_output: &'static str,
    /// The first of the feed-forward layers; gated where the family's are.
    pub(super) inner: &'static str,
    pub(super) output: &'static str,
    /// Of attention and of the feed-forward layers.
    pub(super) norms: [&'static str; 2],
    pub(super) final_norm: Option<&'static str>,
    /// The layer before a classifier and its norm; whole paths.
    pub(super) pooler: (&'static str, Option<&'static str>),
}

const BERT: Names = Names {
    root: "bert.",
    words: "bert.embeddings.word_embeddings",
    positions: Some("bert.embeddings.position_embeddings"),
    token_types: Some("bert.embeddings.token_type_embeddings"),
    norm: "bert.embeddings.LayerNorm",
    layers: "bert.encoder.layer.",
    inputs: &["attention.self.query", "attention.self.key", "attention.self.value"],
    attention_output: "attention.output.dense",
    inner: "intermediate.dense",
    output: "output.dense",
    norms: ["attention.output.LayerNorm", "output.LayerNorm"],
    final_norm: None,
    pooler: ("bert.pooler.dense", None),
};

const MODERN_BERT: Names = Names {
    root: "model.",
    words: "model.embeddings.tok_embeddings",
    positions: None,
    token_types: None,
    norm: "model.embeddings.norm",
    layers: "model.layers.",
    inputs: &["attn.Wqkv"],
    attention_output: "attn.Wo",
    inner: "mlp.Wi",
    output: "mlp.Wo",
    norms: ["attn_norm", "mlp_norm"],
    final_norm: Some("model.final_norm"),
    pooler: ("head.dense", Some("head.norm")),
};

impl Names {
    pub(super) fn of(family: &EncoderFamily) -> &'static Self {
        match family {
            EncoderFamily::Bert => &BERT,
            EncoderFamily::ModernBert(_) => &MODERN_BERT,
        }
    }

    /// Whether the logits depend on a tensor, by its name in a file: one of a layer, or a bias of what else is read.
    pub(super) fn is_part(&self, stored: &str, with_pooler: bool) -> bool {
        let inside = |path: &'_ str| path.strip_prefix(self.root).unwrap_or(path).to_string();
        let stored = inside(stored);
        let pooler = [Some(self.pooler.0), self.pooler.1].map(|path| path.filter(|_| with_pooler));
        let others = [Some(self.norm), self.final_norm].into_iter().chain(pooler).flatten();
        stored.starts_with(&inside(self.layers))
            || others.into_iter().any(|path| stored == format!("{}.bias", inside(path)))
    }
}
