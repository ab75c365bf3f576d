//! Merges adapters of several tasks into one, each weight by what its tasks know of it.

use super::conjugate_gradients::{SolverReport, conjugate_gradients};
use super::laplace::Laplace;
use super::precision::{Precision, flat, shaped};
use crate::error::{Error, Result};
use crate::lora::{Adaptable, AdapterWeights, adapter_scales, base_fingerprint, check_same_scales, check_same_shapes};
use ndarray::Array1;

/// Norm of the residual, relative to the right side.
const TOLERANCE: f64 = 1e-13;
const MAX_STEPS: usize = 10_000;

/// Averages of K adapters of one base: plain, and weighted by the precision of each task's posterior,
///
/// `θ̄ = (Σ_k P_k)⁻¹ Σ_k P_k θ_k`, `P_k = (H_k + Λ_k)/T_k`,
///
/// the mode of the product of the posteriors. Diagonal precisions are Fisher merging; Kronecker ones are near RegMean, whose Gram
/// matrix of the inputs is one of the two factors.
///
/// A and B have a gauge freedom: `BS`, `S⁻¹A` is the same network for any invertible S, and an average of two gauges is neither. Adapters
/// that were trained from one start, or from one earlier task's adapter, are comparable; others are not, and no number here tells.
///
/// Matena & Raffel (2022), arXiv 2111.09832, eq. 3; Jin et al. (2023), arXiv 2212.09849.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AdapterAverage {
    /// `(1/K) Σ θ_k`
    pub plain: AdapterWeights,
    /// θ̄
    pub by_precision: AdapterWeights,
    /// How θ̄ was solved for; `None` where all precisions are diagonal and it is a quotient.
    pub solver: Option<SolverReport>,
}

impl AdapterAverage {
    /// Averages the adapters that the models carry, each with its posterior; [`crate::lora::write_adapter`] takes the result.
    ///
    /// # Errors
    /// If there is none, a posterior is about another adapter than its model's or has no precision of every weight, bases, shapes or
    /// scales differ (named, with both), or conjugate gradients do not converge.
    pub fn new<M: Adaptable>(adapters: &[(&M, &Laplace)]) -> Result<Self> {
        let Some(((first, of_first), others)) = adapters.split_first() else {
            return Err(Error::empty("list of adapters to average"));
        };
        of_first.check_is_about(*first)?;
        let (scales, base, shapes) = (adapter_scales(*first), base_fingerprint(*first)?, of_first.map());
        for (index, (model, laplace)) in others.iter().enumerate() {
            laplace.check_is_about(*model)?;
            let name = format!("adapter {} to average", index + 2);
            check_same_shapes(&name, laplace.map(), shapes)?;
            if laplace.map().len() != shapes.len() {
                let what = format!("matrices of {name}");
                return Err(Error::Count { what, expected: shapes.len(), found: laplace.map().len() });
            }
            check_same_scales(&name, &adapter_scales(*model), &scales)?;
            let found = base_fingerprint(*model)?;
            if found != base {
                return Err(Error::Incompatible(format!(
                    "{name} is on another base than the first, or in another element type (fingerprints {base:016x} and {found:016x})"
                )));
            }
        }
        let precisions = adapters.iter().map(|(_, laplace)| Precision::of(laplace)).collect::<Result<Vec<_>>>()?;
        let maps: Vec<Array1<f64>> = adapters.iter().map(|(_, laplace)| flat(laplace.map())).collect();
        let sum = maps.iter().fold(Array1::zeros(maps[0].len()), |sum, map| sum + map);
        let plain = sum / maps.len() as f64;
        let product = |v: &Array1<f64>| -> Result<Array1<f64>> {
            let v = shaped(v, shapes);
            let mut total = Array1::zeros(plain.len());
            for precision in &precisions {
                total += &flat(&precision.times(&v)?);
            }
            Ok(total)
        };
        // the step from the plain average: Σ P_k (θ_k − θ_plain)
        let mut right = Array1::zeros(plain.len());
        for (precision, map) in precisions.iter().zip(&maps) {
            right += &flat(&precision.times(&shaped(&(map - &plain), shapes))?);
        }
        let (step, solver) = if precisions.iter().all(Precision::is_diagonal) {
            (right / product(&Array1::ones(plain.len()))?, None)
        } else {
            let (step, solver) =
                conjugate_gradients("average of adapters by precision", &right, product, TOLERANCE, MAX_STEPS)?;
            (step, Some(solver))
        };
        let by_precision = shaped(&(&plain + &step), shapes);
        Ok(Self { plain: shaped(&plain, shapes), by_precision, solver })
    }
}
