//! Names the adapted matrices of a model.

use crate::error::{Error, Result};

/// Which of the two matrices of `W = W₀ + s·B·A`, or a matrix of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum LoraMatrix {
    /// `A: [r, d_in]`
    A,
    /// `B: [d_out, r]`
    B,
    /// A head that trains whole, `[d_out, d_in + 1]` with its bias in the last column ([`crate::lora::TrainedHead`]).
    Whole,
}

/// One adapted matrix as a linear map: rows `x_t` in, `y_t` out, one row per token.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Site {
    /// Path of the adapted module, such as `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// A, B or the whole.
    pub matrix: LoraMatrix,
}

impl Site {
    /// The path of the numbered layer that the module lies in, `model.layers.3` of `model.layers.3.self_attn.q_proj`; the
    /// module's own path where it has no number.
    pub fn layer(&self) -> &str {
        let mut end = 0;
        for part in self.module.split('.') {
            end += part.len();
            if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
                return &self.module[..end];
            }
            end += 1;
        }
        &self.module
    }
}

impl std::fmt::Display for LoraMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::A => "lora_A",
            Self::B => "lora_B",
            Self::Whole => "weight",
        })
    }
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.module, self.matrix)
    }
}

impl std::str::FromStr for Site {
    type Err = Error;

    /// Reads what `Display` writes: `MODULE.lora_A`.
    fn from_str(text: &str) -> Result<Self> {
        let of = |matrix: LoraMatrix| {
            let module = text.strip_suffix(&matrix.to_string())?.strip_suffix('.')?;
            Some(Self { module: module.into(), matrix })
        };
        let site = [LoraMatrix::A, LoraMatrix::B, LoraMatrix::Whole].into_iter().find_map(of);
        let ends = "it does not end in `.lora_A`, `.lora_B` or `.weight`";
        site.ok_or_else(|| Error::format(format!("site `{text}`"), ends))
    }
}
