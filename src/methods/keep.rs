//! What a belief keeps, as named values: the content of its file.

use crate::error::{Error, Result};
use crate::lora::AdapterWeights;
use crate::posterior::Laplace;
use crate::tape::Site;
use ndarray::{Array2, ArrayView2, CowArray, Ix2};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A belief or a part of one that may say what it keeps.
pub trait Keep {
    /// All that it is besides the model that it answers for; `None`, the default, says that it cannot be saved.
    fn keep(&self) -> Option<Kept<'_>> {
        None
    }
}

/// Settings, exact numbers, matrices and at most one Laplace posterior, under the name of what they are.
#[derive(Debug, Clone)]
pub struct Kept<'a> {
    pub(super) kind: Cow<'static, str>,
    pub(super) settings: BTreeMap<String, Value>,
    pub(super) numbers: BTreeMap<String, f64>,
    pub(super) matrices: BTreeMap<String, CowArray<'a, f64, Ix2>>,
    pub(super) posterior: Option<Cow<'a, Laplace>>,
}

impl<'a> Kept<'a> {
    /// Of a kind, nothing else yet.
    pub fn new(kind: &'static str) -> Self {
        Self {
            kind: kind.into(),
            settings: BTreeMap::new(),
            numbers: BTreeMap::new(),
            matrices: BTreeMap::new(),
            posterior: None,
        }
    }

    /// As part of a larger kind: `WHOLE of KIND`.
    pub fn within(mut self, whole: &'static str) -> Self {
        self.kind = within(whole, &self.kind).into();
        self
    }

    /// Adds whatever JSON holds exactly, such as a count or a seed. What it cannot hold becomes null, which no reader takes.
    pub fn with_setting(mut self, name: &str, value: impl Serialize) -> Self {
        self.settings.insert(name.into(), serde_json::to_value(value).unwrap_or(Value::Null));
        self
    }

    /// Adds what every belief of several draws has: their number, their seed, the bytes behind them.
    pub(super) fn with_draws(self, n_samples: usize, seed: u64, bytes: usize) -> Self {
        self.with_setting("n_samples", n_samples).with_setting("seed", seed).with_setting("bytes", bytes)
    }

    /// Adds a number that is kept to its last bit.
    pub fn with_number(mut self, name: &str, value: f64) -> Self {
        self.numbers.insert(name.into(), value);
        self
    }

    /// Adds a matrix.
    pub fn with_matrix(mut self, name: impl Into<String>, matrix: ArrayView2<'a, f64>) -> Self {
        self.matrices.insert(name.into(), matrix.into());
        self
    }

    /// Adds one matrix a site: `NAME/MODULE.lora_A`.
    pub fn with_adapter(self, name: &str, weights: &'a AdapterWeights) -> Self {
        weights.iter().fold(self, |kept, (site, w)| kept.with_matrix(format!("{name}/{site}"), w.view()))
    }

    /// Adds adapters, numbered from 0.
    pub fn with_adapters(self, name: &str, all: &'a [AdapterWeights]) -> Self {
        let add = |kept: Self, (number, weights)| kept.with_adapter(&format!("{name} {number}"), weights);
        all.iter().enumerate().fold(self, add)
    }

    /// Adds a posterior.
    pub fn with_posterior(mut self, posterior: &'a Laplace) -> Self {
        self.posterior = Some(Cow::Borrowed(posterior));
        self
    }

    /// The posterior, where there is one.
    pub(super) fn posterior(&self) -> Option<&Laplace> {
        self.posterior.as_deref()
    }

    /// Takes a setting out.
    ///
    /// # Errors
    /// Names it, if it is missing or of another type.
    pub fn take_setting<T: DeserializeOwned>(&mut self, name: &str) -> Result<T> {
        let value = self.settings.remove(name).ok_or_else(|| self.lacks("setting", name))?;
        serde_json::from_value(value).map_err(|e| Error::format(format!("setting `{name}` of {}", self.kind), e))
    }

    /// Takes the number of draws, their seed and the bytes behind them out.
    ///
    /// # Errors
    /// As [`Kept::take_setting`].
    pub(super) fn take_draws(&mut self) -> Result<(usize, u64, usize)> {
        Ok((self.take_setting("n_samples")?, self.take_setting("seed")?, self.take_setting("bytes")?))
    }

    /// Takes a number out.
    ///
    /// # Errors
    /// Names it, if it is missing.
    pub fn take_number(&mut self, name: &str) -> Result<f64> {
        self.numbers.remove(name).ok_or_else(|| self.lacks("number", name))
    }

    /// Takes a matrix out.
    ///
    /// # Errors
    /// Names it, if it is missing.
    pub fn take_matrix(&mut self, name: &str) -> Result<Array2<f64>> {
        self.matrices.remove(name).map(CowArray::into_owned).ok_or_else(|| self.lacks("matrix", name))
    }

    /// Takes the matrices of all sites out; none if there are none.
    ///
    /// # Errors
    /// Names a matrix that is of no site.
    pub fn take_adapter(&mut self, name: &str) -> Result<AdapterWeights> {
        let mut weights = AdapterWeights::new();
        let prefix = format!("{name}/");
        for (full, matrix) in self.matrices.extract_if(.., |full, _| full.starts_with(&prefix)) {
            let site = full[prefix.len()..].parse::<Site>()?;
            weights.insert(site, matrix.into_owned());
        }
        Ok(weights)
    }

    /// Takes adapters out that are numbered from 0.
    ///
    /// # Errors
    /// As [`Kept::take_adapter`].
    pub fn take_adapters(&mut self, name: &str) -> Result<Vec<AdapterWeights>> {
        let mut all = Vec::new();
        loop {
            let next = self.take_adapter(&format!("{name} {}", all.len()))?;
            if next.is_empty() {
                return Ok(all);
            }
            all.push(next);
        }
    }

    /// Takes the posterior out.
    ///
    /// # Errors
    /// If there is none.
    pub fn take_posterior(&mut self) -> Result<Laplace> {
        self.posterior.take().map(Cow::into_owned).ok_or_else(|| self.lacks("posterior", "Laplace"))
    }

    /// Checks that nothing is left over.
    ///
    /// # Errors
    /// Names the first thing that is.
    pub(super) fn finish(self) -> Result<()> {
        let names = self.settings.keys().chain(self.numbers.keys()).chain(self.matrices.keys());
        let mut left = names.map(String::as_str).chain(self.posterior.is_some().then_some("posterior"));
        match left.next() {
            None => Ok(()),
            Some(first) => Err(Error::format(&self.kind, format!("`{first}` is not part of this kind"))),
        }
    }

    fn lacks(&self, what: &str, name: &str) -> Error {
        Error::format(&self.kind, format!("there is no {what} `{name}`"))
    }
}

/// The name of a part's kind as part of a larger one.
pub(super) fn within(whole: &str, kind: &str) -> String {
    format!("{whole} of {kind}")
}

/// A posterior whose draws are taken.
pub(super) const LAPLACE: &str = "Laplace posterior";

impl Keep for Laplace {
    fn keep(&self) -> Option<Kept<'_>> {
        Some(Kept::new(LAPLACE).with_posterior(self))
    }
}
