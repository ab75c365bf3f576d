//! Counts what trains.

use super::attach::Adaptable;
use super::trained::trained_matrices;
use crate::number::significant;

/// How many parameters train.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterSummary {
    /// Number of adapted modules.
    pub n_modules: usize,
    /// Parameters of A, of B and of the heads that train beside them.
    pub n_adapter: usize,
    /// All parameters of the model, adapter included.
    pub n_total: usize,
}

impl std::fmt::Display for AdapterSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "trainable params: {} || all params: {} || trainable%: {} ({} adapted modules)",
            self.n_adapter,
            self.n_total,
            significant(100.0 * self.n_adapter as f64 / self.n_total.max(1) as f64),
            self.n_modules
        )
    }
}

/// Counts the adapter's parameters, as PEFT's `print_trainable_parameters` does: a head tied to the embedding counts once.
pub fn summarize<M: Adaptable>(model: &M) -> AdapterSummary {
    let tied = model.linears().into_iter().filter(|l| l.is_tied).map(|l| l.d_in() * l.d_out());
    AdapterSummary {
        n_modules: model.linears().iter().filter(|linear| linear.adapter.is_some()).count(),
        n_adapter: trained_matrices(model).iter().map(|trained| trained.param.lazy_shape().num_elements()).sum(),
        n_total: model.num_params() - tied.sum::<usize>(),
    }
}
