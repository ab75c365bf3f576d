//! Records, for every adapted matrix, its inputs and a tap on its outputs, so that one backward pass gives the
//! gradient of any objective at each of them.
//!
//! A tap is a tensor of zeros that is added to an output: its gradient is the output's gradient, token by token.
//! A model calls its adapted linears with a [`Tape`]; the tape decides whether anything is recorded.

use crate::draws::{Purpose, generator, place, within};
use crate::error::{Error, Result};
use crate::hash::fnv1a_words;
use burn::tensor::{Int, Tensor, TensorData};
use ndarray::Array2;
use rand::{Rng, rngs::ChaCha8Rng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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

/// Noise inside a forward pass, at the input of A or at its output. It is drawn by the implementor, who says how tokens share it.
pub trait SiteNoise: std::fmt::Debug {
    /// A's input `[rows, d_in]` with noise; `dropout` is the probability that the adapter was made with.
    fn input(&mut self, module: &str, x: Tensor<2>, dropout: f64) -> Tensor<2> {
        let _ = (module, dropout);
        x
    }

    /// A's output `[rows, r]` with noise, given A's input.
    fn hidden(&mut self, module: &str, x: &Tensor<2>, hidden: Tensor<2>) -> Tensor<2> {
        let _ = (module, x);
        hidden
    }
}

/// Adapters that a pass takes in the place of the model's own.
pub(crate) trait OtherAdapters: std::fmt::Debug + Send + Sync {
    /// `B·A·x` of a module, `[rows, d_in]` to `[rows, columns or d_out]`; `None` where the model's own adapter stays.
    fn update(&self, module: &str, x: Tensor<2>, columns: Option<&Tensor<1, Int>>) -> Option<Tensor<2>>;
}

/// Names the rows that a linear sees, so that the noise of a token depends neither on its batch nor on its padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowKeys {
    /// A key for each of the batch's `rows · tokens`: of the item, its choice and the token's place among the real ones.
    tokens: Vec<u64>,
    /// Those of the real tokens.
    real: Vec<u64>,
    /// A key for each item.
    items: Vec<u64>,
}

impl RowKeys {
    /// The keys of a batch.
    ///
    /// # Shapes
    /// - items: a key for each item, mask: `[rows, tokens]` with the same number of consecutive rows for each, true at real tokens
    pub fn new(items: Vec<u64>, mask: &Array2<bool>) -> Self {
        let rows_per_item = (mask.nrows() / items.len().max(1)).max(1);
        let (mut tokens, mut reals) = (Vec::with_capacity(mask.len()), Vec::with_capacity(mask.len()));
        for (row, real) in mask.outer_iter().enumerate() {
            let (item, choice) = (items.get(row / rows_per_item).copied().unwrap_or(0), (row % rows_per_item) as u64);
            let mut place = 0;
            for real in real {
                place += u64::from(*real);
                let key = fnv1a_words([item, choice, place]);
                tokens.push(key);
                reals.extend(real.then_some(key));
            }
        }
        Self { tokens, real: reals, items }
    }

    /// The keys of a batch whose rows hold several items: those that the tokens have in rows of their own.
    ///
    /// # Shapes
    /// - items: a key for each item, owners: `[rows, tokens]`, the item of each token and its place in it, `None` at pads
    pub fn packed(items: Vec<u64>, owners: &Array2<Option<(usize, usize)>>) -> Self {
        let key =
            |(item, place): (usize, usize)| fnv1a_words([items.get(item).copied().unwrap_or(0), 0, place as u64 + 1]);
        let tokens: Vec<u64> = owners.iter().map(|owner| owner.map_or(0, key)).collect();
        let real = owners.iter().filter_map(|owner| owner.map(key)).collect();
        Self { tokens, real, items }
    }

    /// Keys of a linear's `n` rows: of the tokens, of the real ones or of the items, whichever are as many. Of other rows (an adapted output head that
    /// scores continuations sees such) only the number is known: their keys are those of the batch, and with them their noise.
    pub fn of_rows(&self, n: usize) -> Vec<u64> {
        if n == self.tokens.len() {
            self.tokens.clone()
        } else if n == self.real.len() {
            self.real.clone()
        } else if n == self.items.len() {
            self.items.clone()
        } else {
            let batch = fnv1a_words(self.items.iter().copied());
            (0..n as u64).map(|row| within(batch, row)).collect()
        }
    }
}

/// What a forward pass does besides computing: nothing, noise, other adapters, or recording.
#[derive(Debug)]
pub struct Tape {
    mode: Mode,
    records: Vec<Record>,
}

#[derive(Debug)]
enum Mode {
    Off,
    Noise(Box<dyn SiteNoise>),
    Adapters(Arc<dyn OtherAdapters>),
    Recording,
    Inputs,
}

#[derive(Debug)]
struct Record {
    site: Site,
    output_rows: Option<Tensor<1, Int>>,
    input: Tensor<2>,
    /// What is added to the output so that its gradient can be read; `None` where the gradient comes from elsewhere.
    tap: Option<Tensor<2>>,
}

/// Inputs of one site and the gradient of the objective at its outputs, one row per token (pads included).
#[derive(Debug, Clone)]
pub struct SiteGradient {
    /// Which matrix.
    pub site: Site,
    /// Which rows of the matrix produced the outputs, where not all did.
    pub output_rows: Option<Tensor<1, Int>>,
    /// `[rows · tokens, d_in]`
    pub input: Tensor<2>,
    /// `[rows · tokens, d_out]`; at a B site the LoRA scale is in it.
    pub gradient: Tensor<2>,
}

impl Tape {
    /// Records nothing, applies no dropout: evaluation.
    pub fn off() -> Self {
        Self::with_mode(Mode::Off)
    }

    /// Records nothing, drops elements of A's inputs: a training step over `rows`. A mask is a function of (seed, epoch, module,
    /// row) alone, so that an item has the same in any batch.
    pub fn dropout(seed: u64, epoch: u64, rows: RowKeys) -> Self {
        Self::noise(Box::new(RowDropout { seed, purpose: Purpose::Dropout, index: epoch, rows }))
    }

    /// Records nothing, adds noise.
    pub fn noise(noise: Box<dyn SiteNoise>) -> Self {
        Self::with_mode(Mode::Noise(noise))
    }

    /// Records nothing, takes other adapters than the model's own.
    pub(crate) fn with_adapters(others: Arc<dyn OtherAdapters>) -> Self {
        Self::with_mode(Mode::Adapters(others))
    }

    /// Records inputs and taps every output; no dropout.
    pub fn recording() -> Self {
        Self::with_mode(Mode::Recording)
    }

    /// Records inputs alone, for a backward pass of the model's own ([`Tape::with_gradients`]); no dropout, no graph.
    pub(crate) fn inputs() -> Self {
        Self::with_mode(Mode::Inputs)
    }

    /// True if what a linear sees is asked for token by token, in the layout of the batch.
    pub(crate) fn reads_tokens(&self) -> bool {
        matches!(self.mode, Mode::Recording | Mode::Inputs | Mode::Adapters(_))
    }

    fn with_mode(mode: Mode) -> Self {
        Self { mode, records: Vec::new() }
    }

    /// A's input, with noise where there is noise there.
    pub fn disturb_input(&mut self, module: &str, x: Tensor<2>, dropout: f64) -> Tensor<2> {
        match &mut self.mode {
            Mode::Noise(noise) => noise.input(module, x, dropout),
            Mode::Off | Mode::Adapters(_) | Mode::Recording | Mode::Inputs => x,
        }
    }

    /// A's output, with noise where there is noise there.
    pub fn disturb_hidden(&mut self, module: &str, x: &Tensor<2>, hidden: Tensor<2>) -> Tensor<2> {
        match &mut self.mode {
            Mode::Noise(noise) => noise.hidden(module, x, hidden),
            Mode::Off | Mode::Adapters(_) | Mode::Recording | Mode::Inputs => hidden,
        }
    }

    /// What other adapters make of a module's input, where there are others for it.
    pub(crate) fn other_update(
        &self,
        module: &str,
        x: &Tensor<2>,
        columns: Option<&Tensor<1, Int>>,
    ) -> Option<Tensor<2>> {
        match &self.mode {
            Mode::Adapters(others) => others.update(module, x.clone(), columns),
            Mode::Off | Mode::Noise(_) | Mode::Recording | Mode::Inputs => None,
        }
    }

    /// Passes `output` on; while recording, keeps `input` and adds a tap. `output_rows` says which rows of the matrix
    /// were used, where not all were.
    pub fn observe(
        &mut self,
        module: &str,
        matrix: LoraMatrix,
        input: &Tensor<2>,
        output: Tensor<2>,
        output_rows: Option<&Tensor<1, Int>>,
    ) -> Tensor<2> {
        let tap = match self.mode {
            Mode::Recording => {
                let device = output.device().autodiff();
                Some(Tensor::zeros(output.dims(), (&device, output.dtype())).require_grad())
            }
            Mode::Inputs => None,
            Mode::Off | Mode::Noise(_) | Mode::Adapters(_) => return output,
        };
        self.records.push(Record {
            site: Site { module: module.to_string(), matrix },
            output_rows: output_rows.cloned(),
            input: input.clone().without_autodiff(),
            tap: tap.clone(),
        });
        match tap {
            Some(tap) => output + tap,
            None => output,
        }
    }

    /// Runs one backward pass from `objective` and returns every site's inputs and output gradients, in forward order.
    ///
    /// # Errors
    /// If nothing was recorded (the model has no adapter, or does not pass the tape to its linears), or a site twice (a
    /// linear was called twice in one pass: its rows would have to be joined).
    pub fn backward(self, objective: Tensor<1>) -> Result<Vec<SiteGradient>> {
        self.check_records()?;
        let mut gradients = objective.backward();
        self.join(|record, tap| {
            let tap = tap.ok_or_else(|| Error::empty(format!("recorded output of `{}`", record.site)))?;
            Ok(tap.grad_remove(&mut gradients).unwrap_or_else(|| {
                // the objective does not depend on this site
                Tensor::zeros(tap.dims(), (&record.input.device(), tap.dtype()))
            }))
        })
    }

    /// Every site's inputs beside gradients that were computed elsewhere, in forward order.
    ///
    /// # Errors
    /// As [`Tape::backward`], and if a site has no gradient.
    pub(crate) fn with_gradients(self, mut gradients: BTreeMap<Site, Tensor<2>>) -> Result<Vec<SiteGradient>> {
        self.check_records()?;
        self.join(|record, _| {
            gradients.remove(&record.site).ok_or_else(|| Error::empty(format!("gradient at `{}`", record.site)))
        })
    }

    fn check_records(&self) -> Result<()> {
        if self.records.is_empty() {
            return Err(Error::Incompatible(
                "no adapted matrix was recorded: attach a LoRA adapter first, and call the model's linears with the tape"
                    .into(),
            ));
        }
        let mut seen = BTreeSet::new();
        match self.records.iter().find(|record| !seen.insert(&record.site)) {
            Some(twice) => Err(Error::Incompatible(format!(
                "`{}` was called twice in one forward pass: give every call a linear of its own, or join their rows first",
                twice.site
            ))),
            None => Ok(()),
        }
    }

    fn join(
        self,
        mut gradient: impl FnMut(&Record, Option<&Tensor<2>>) -> Result<Tensor<2>>,
    ) -> Result<Vec<SiteGradient>> {
        let site = |record: Record| {
            let gradient = gradient(&record, record.tap.as_ref())?;
            Ok(SiteGradient { site: record.site, output_rows: record.output_rows, input: record.input, gradient })
        };
        self.records.into_iter().map(site).collect()
    }
}

/// Masks of 0 and `1/(1 − p)`: of each row a function of (seed, purpose, module, row's key, index) alone.
#[derive(Debug)]
pub(crate) struct RowDropout {
    pub(crate) seed: u64,
    pub(crate) purpose: Purpose,
    pub(crate) index: u64,
    pub(crate) rows: RowKeys,
}

impl SiteNoise for RowDropout {
    fn input(&mut self, module: &str, x: Tensor<2>, dropout: f64) -> Tensor<2> {
        if dropout == 0.0 {
            return x;
        }
        let [rows, width] = x.dims();
        let module = place(module);
        let mut mask = Vec::with_capacity(rows * width);
        for row in self.rows.of_rows(rows) {
            let mut rng = generator(self.seed, self.purpose, within(module, row), self.index);
            mask.extend(dropout_mask(&mut rng, width, dropout));
        }
        let mask = Tensor::from_data(TensorData::new(mask, [rows, width]), (&x.device(), x.dtype()));
        x * mask
    }
}

/// `n` draws of 0 with probability p, else `1/(1 − p)`; 16 random bits resolve p to 1.5e-5.
pub(crate) fn dropout_mask(rng: &mut ChaCha8Rng, n: usize, p: f64) -> Vec<f32> {
    let keep = (1.0 / (1.0 - p)) as f32;
    let threshold = (p * 65536.0).round() as u16;
    let mut bits = vec![0u8; 2 * n];
    rng.fill_bytes(&mut bits);
    bits.chunks_exact(2).map(|b| if u16::from_le_bytes([b[0], b[1]]) < threshold { 0.0 } else { keep }).collect()
}
