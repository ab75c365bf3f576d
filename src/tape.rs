//! Records, for every adapted matrix, its inputs and a tap on its outputs, so that one backward pass gives the
//! gradient of any objective at each of them.
//!
//! A tap is a tensor of zeros that is added to an output: its gradient is the output's gradient, token by token.
//! A model calls its adapted linears with a [`Tape`]; the tape decides whether anything is recorded.

mod dropout;
mod noise;
mod row_keys;

use crate::draws::Purpose;
use crate::error::{Error, Result};
use burn::tensor::{Gradients, Int, Tensor};
pub(crate) use dropout::{RowDropout, dropout_mask};
pub use noise::SiteNoise;
pub use row_keys::RowKeys;
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

/// Adapters that a pass takes in the place of the model's own.
pub(crate) trait OtherAdapters: std::fmt::Debug + Send + Sync {
    /// `B·A·x` of a module, `[rows, d_in]` to `[rows, columns or d_out]`; `None` where the model's own adapter stays.
    fn update(&self, module: &str, x: Tensor<2>, columns: Option<&Tensor<1, Int>>) -> Option<Tensor<2>>;
}

/// What a forward pass does besides computing: nothing, noise, other adapters, or recording.
#[derive(Debug)]
pub struct Tape {
    mode: Mode,
    /// In forward order.
    records: Vec<Record>,
    /// Those of the layers above, in forward order, where a pass goes down layer by layer ([`Tape::next_below`]).
    above: Vec<Record>,
    /// Inputs are recorded beside what the mode says.
    keeps_inputs: bool,
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
    /// The tap's gradient, once it is read.
    gradient: Option<Tensor<2>>,
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

    /// True if an adapter that was made with this dropout does the same to every token, and nobody asks what it sees of which.
    pub(crate) fn is_still(&self, dropout: f64) -> bool {
        match &self.mode {
            Mode::Off => true,
            Mode::Noise(noise) => noise.is_absent(dropout),
            Mode::Adapters(_) | Mode::Recording | Mode::Inputs => false,
        }
    }

    fn with_mode(mode: Mode) -> Self {
        Self { mode, records: Vec::new(), above: Vec::new(), keeps_inputs: false }
    }

    /// Records inputs from here on, or no longer, whatever else the pass does.
    pub(crate) fn keep_inputs(&mut self, keep: bool) {
        self.keeps_inputs = keep;
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
            Mode::Off | Mode::Noise(_) | Mode::Adapters(_) if self.keeps_inputs => None,
            Mode::Off | Mode::Noise(_) | Mode::Adapters(_) => return output,
        };
        self.records.push(Record {
            site: Site { module: module.to_string(), matrix },
            output_rows: output_rows.cloned(),
            input: input.clone().without_autodiff(),
            tap: tap.clone(),
            gradient: None,
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
    pub fn backward(mut self, objective: Tensor<1>) -> Result<Vec<SiteGradient>> {
        self.check_records()?;
        self.read(&mut objective.backward());
        self.into_sites()
    }

    /// True while inputs and gradients are recorded.
    pub(crate) fn is_recording(&self) -> bool {
        matches!(self.mode, Mode::Recording)
    }

    /// Runs a pass of which nothing is recorded: one that is computed again, layer by layer.
    pub(crate) fn unrecorded<T>(&mut self, pass: impl FnOnce(&mut Self) -> T) -> T {
        match self.mode {
            Mode::Recording | Mode::Inputs => pass(&mut Self::off()),
            Mode::Off | Mode::Noise(_) | Mode::Adapters(_) => {
                let keeps = std::mem::replace(&mut self.keeps_inputs, false);
                let passed = pass(self);
                self.keeps_inputs = keeps;
                passed
            }
        }
    }

    /// Takes the gradients at what was recorded since the last call out of a backward pass, and goes on to the layer below.
    pub(crate) fn read(&mut self, gradients: &mut Gradients) {
        for record in &mut self.records {
            let Some(tap) = record.tap.take() else { continue };
            record.gradient = Some(tap.grad_remove(gradients).unwrap_or_else(|| {
                // the objective does not depend on this site
                Tensor::zeros(tap.dims(), (&record.input.device(), tap.dtype()))
            }));
        }
        self.next_below();
    }

    /// What is recorded from now on lies below all that was recorded before.
    pub(crate) fn next_below(&mut self) {
        let above = std::mem::take(&mut self.above);
        self.above = std::mem::take(&mut self.records);
        self.above.extend(above);
    }

    /// Every site's inputs and the gradients that were read, in forward order.
    ///
    /// # Errors
    /// As [`Tape::backward`].
    pub(crate) fn into_sites(mut self) -> Result<Vec<SiteGradient>> {
        self.next_below();
        self.check_records()?;
        let gradient = |record: &mut Record| record.gradient.take();
        self.joined(gradient)
    }

    /// The inputs of all sites of which gradients were computed elsewhere, beside these, in forward order; of these sites nothing is kept.
    ///
    /// # Errors
    /// As [`Tape::backward`], and if a site has no gradient.
    pub(crate) fn with_gradients(mut self, mut gradients: BTreeMap<Site, Tensor<2>>) -> Result<Vec<SiteGradient>> {
        self.next_below();
        self.check_records()?;
        self.joined(|record| gradients.remove(&record.site))
    }

    /// The inputs of the sites with these gradients, which are kept no longer.
    ///
    /// # Errors
    /// If one of them was not recorded.
    pub(crate) fn take_sites(&mut self, mut gradients: BTreeMap<Site, Tensor<2>>) -> Result<Vec<SiteGradient>> {
        let (mut sites, mut others) = (Vec::with_capacity(gradients.len()), Vec::new());
        for record in std::mem::take(&mut self.records) {
            match gradients.remove(&record.site) {
                Some(gradient) => {
                    let Record { site, output_rows, input, .. } = record;
                    sites.push(SiteGradient { site, output_rows, input, gradient });
                }
                None => others.push(record),
            }
        }
        self.records = others;
        match gradients.keys().next() {
            Some(site) => Err(Error::empty(format!("recorded input of `{site}`"))),
            None => Ok(sites),
        }
    }

    fn check_records(&self) -> Result<()> {
        let mut all = self.records.iter().chain(&self.above).peekable();
        if all.peek().is_none() {
            return Err(Error::Incompatible(
                "no adapted matrix was recorded: attach a LoRA adapter first, and call the model's linears with the tape"
                    .into(),
            ));
        }
        let mut seen = BTreeSet::new();
        match all.find(|record| !seen.insert(&record.site)) {
            Some(twice) => Err(Error::Incompatible(format!(
                "`{}` was called twice in one forward pass: give every call a linear of its own, or join their rows first",
                twice.site
            ))),
            None => Ok(()),
        }
    }

    fn joined(self, mut gradient: impl FnMut(&mut Record) -> Option<Tensor<2>>) -> Result<Vec<SiteGradient>> {
        let site = |mut record: Record| {
            let gradient = gradient(&mut record);
            let gradient = gradient.ok_or_else(|| Error::empty(format!("gradient at `{}`", record.site)))?;
            Ok(SiteGradient { site: record.site, output_rows: record.output_rows, input: record.input, gradient })
        };
        self.above.into_iter().map(site).collect()
    }
}
