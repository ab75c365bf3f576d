//! Lets a batch go through several adapters at once, on one base.

use super::attach::Adaptable;
use super::trained::trained_matrices;
use super::weights::{AdapterWeights, check_same_shapes, read_adapter};
use crate::error::{Error, Result};
use crate::tape::{LoraMatrix, OtherAdapters};
use burn::tensor::{Int, Tensor, TensorData};
use std::collections::BTreeMap;

/// S adapters of one shape: the rows of a batch are S equal parts behind each other, and part s goes through adapter s. What the base
/// computes is computed for all parts in one product.
#[derive(Debug, Clone)]
pub(crate) struct AdapterStack {
    n: usize,
    /// `Aᵀ: [S, d_in, r]` and `Bᵀ: [S, r, d_out]` of each module.
    modules: BTreeMap<String, [Tensor<3>; 2]>,
}

impl AdapterStack {
    /// Stacks the adapters `draws` of `model`, in its element types.
    ///
    /// # Errors
    /// If there is none, one has not the matrices of the model's own adapter, or the model has a head that trains beside it.
    pub(crate) fn new<M: Adaptable>(model: &M, draws: &[AdapterWeights]) -> Result<Self> {
        let own = read_adapter(model)?;
        for (index, draw) in draws.iter().enumerate() {
            check_same_shapes(&format!("draw {index}"), draw, &own)?;
        }
        if draws.is_empty() {
            return Err(Error::empty("list of draws"));
        }
        let mut both: BTreeMap<String, Vec<Tensor<3>>> = BTreeMap::new();
        // A comes before B
        for trained in trained_matrices(model) {
            if trained.site.matrix == LoraMatrix::Whole {
                return Err(Error::Incompatible(format!("`{}` is no adapter: it cannot be stacked", trained.site)));
            }
            let own = trained.param.val();
            let [rows, columns] = own.dims();
            let values: Vec<f64> = draws.iter().flat_map(|draw| draw[&trained.site].t().to_owned()).collect();
            let on = (&own.device().without_autodiff(), own.dtype());
            let stacked = Tensor::from_data(TensorData::new(values, [draws.len(), columns, rows]), on);
            both.entry(trained.site.module).or_default().push(stacked);
        }
        let pair = |(module, matrices): (String, Vec<Tensor<3>>)| {
            let pair = <[Tensor<3>; 2]>::try_from(matrices);
            Ok((module.clone(), pair.map_err(|_| Error::Incompatible(format!("`{module}` has not two matrices")))?))
        };
        Ok(Self { n: draws.len(), modules: both.into_iter().map(pair).collect::<Result<_>>()? })
    }

    /// S
    pub(crate) fn n(&self) -> usize {
        self.n
    }
}

impl OtherAdapters for AdapterStack {
    fn update(&self, module: &str, x: Tensor<2>, columns: Option<&Tensor<1, Int>>) -> Option<Tensor<2>> {
        let [a, b] = self.modules.get(module)?;
        let [rows, d_in] = x.dims();
        let b = match columns {
            Some(index) => b.clone().select(2, index.clone()),
            None => b.clone(),
        };
        let y = x.reshape([self.n, rows / self.n, d_in]).matmul(a.clone()).matmul(b);
        let d_out = y.dims()[2];
        Some(y.reshape([rows, d_out]))
    }
}
