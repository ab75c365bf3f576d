//! Gathers the arrays of curvature sums under their names, and describes their forms.

use super::header::{BlockForm, CoordinatesForm, FactorForm, FactorsForm, GramForm, JointForm, SpaceForm};
use crate::curvature::{Coordinates, DiagonalSum, FactorSum, GramSum, JointSum, KroneckerFactors, RowBlock, SiteSpace};
use crate::error::{Result, check_finite};
use crate::file_header::Exact;
use crate::tensor_file::{Element, StoredArray};
use ndarray::{ArrayView, Dimension};

/// The arrays so far.
#[derive(Default)]
pub(crate) struct Writer<'a> {
    pub(crate) arrays: Vec<(String, StoredArray<'a>)>,
}

impl<'a> Writer<'a> {
    /// Adds an array: what [`super::Reader::take`] would refuse is not written.
    pub(crate) fn put<T: Element + 'a, D: Dimension + 'a>(
        &mut self,
        name: String,
        array: ArrayView<'a, T, D>,
    ) -> Result<()> {
        check_finite(format_args!("tensor `{name}`"), array.iter().map(|v| v.is_finite()))?;
        self.arrays.push((name, StoredArray::new(array)));
        Ok(())
    }

    /// Adds each of several values under its number.
    pub(crate) fn each<X, F>(
        &mut self,
        prefix: &str,
        all: &'a [X],
        put: impl Fn(&mut Self, &str, &'a X) -> Result<F>,
    ) -> Result<Vec<F>> {
        all.iter().enumerate().map(|(number, value)| put(self, &format!("{prefix}{number}"), value)).collect()
    }

    pub(crate) fn factors(&mut self, name: &str, factors: &'a KroneckerFactors) -> Result<FactorsForm> {
        Ok(FactorsForm {
            site: factors.site.clone(),
            output_rows: factors.output_rows.clone(),
            n_vectors: factors.n_vectors,
            activation: self.factor(format!("{name}.activation"), &factors.activation)?,
            gradient: self.factor(format!("{name}.gradient"), &factors.gradient)?,
        })
    }

    fn factor(&mut self, name: String, factor: &'a FactorSum) -> Result<FactorForm> {
        Ok(match factor {
            FactorSum::Dense(sum) => {
                self.put(name, sum.view())?;
                FactorForm::Dense { width: sum.nrows() }
            }
            FactorSum::LowRank(sum) => {
                let discarded_trace = Exact::new(format_args!("discarded trace of `{name}`"), sum.discarded_trace)?;
                self.put(name, sum.factor.view())?;
                let (width, columns) = sum.factor.dim();
                FactorForm::LowRank { width, columns, rank: sum.rank, discarded_trace }
            }
        })
    }

    pub(crate) fn diagonal(&mut self, name: &str, sum: &'a DiagonalSum) -> Result<SpaceForm> {
        self.put(format!("{name}.kept"), sum.kept.view())?;
        self.put(format!("{name}.missing"), sum.missing.view())?;
        self.space(name, &sum.space)
    }

    pub(crate) fn joint(&mut self, name: &str, sum: &'a JointSum) -> Result<JointForm> {
        let spaces = self.each(&format!("{name}."), &sum.spaces, Self::space)?;
        let sum = match &sum.sum {
            GramSum::Matrix(sum) => {
                self.put(format!("{name}.sum"), sum.view())?;
                GramForm::Matrix
            }
            GramSum::Rows(blocks) => GramForm::Rows(self.rows(name, blocks)?),
        };
        Ok(JointForm { spaces, sum })
    }

    /// Blocks of rows, `name.rows.N`.
    pub(crate) fn rows(&mut self, name: &str, blocks: &'a [RowBlock]) -> Result<Vec<BlockForm>> {
        self.each(&format!("{name}.rows."), blocks, Self::block)
    }

    fn block(&mut self, name: &str, block: &'a RowBlock) -> Result<BlockForm> {
        match block {
            RowBlock::F32(rows) => self.put(name.into(), rows.view()).map(|()| BlockForm::F32(rows.nrows())),
            RowBlock::F64(rows) => self.put(name.into(), rows.view()).map(|()| BlockForm::F64(rows.nrows())),
        }
    }

    pub(crate) fn space(&mut self, name: &str, space: &'a SiteSpace) -> Result<SpaceForm> {
        let coordinates = match &space.coordinates {
            Coordinates::Weights => CoordinatesForm::Weights,
            Coordinates::Sketch(sketch) => CoordinatesForm::Sketch { width: sketch.width, seed: sketch.seed },
            Coordinates::Kronecker(basis) => {
                for (side, factor) in [("wide", &basis.wide), ("narrow", &basis.narrow)] {
                    self.put(format!("{name}.basis.{side}"), factor.basis.view())?;
                    self.put(format!("{name}.basis.{side}_values"), factor.values.view())?;
                }
                let residual = |value| Exact::new(format_args!("residual of `{name}`"), value);
                CoordinatesForm::Kronecker {
                    wide_is_input: basis.wide_is_input,
                    kept_wide: basis.wide.basis.ncols(),
                    kept_narrow: basis.narrow.basis.ncols(),
                    wide_residual: residual(basis.wide.residual)?,
                    narrow_residual: residual(basis.narrow.residual)?,
                }
            }
            Coordinates::Core(core) => {
                let arrays = [
                    ("column_basis", &core.column_basis),
                    ("row_basis", &core.row_basis),
                    ("from_a", &core.from_a),
                    ("map", &core.trained),
                ];
                for (part, array) in arrays {
                    self.put(format!("{name}.core.{part}"), array.view())?;
                }
                let ((d_out, rank_b), rank_a) = (core.column_basis.dim(), core.row_basis.ncols());
                CoordinatesForm::Core { module: core.module.clone(), d_out, rank_b, rank_a }
            }
        };
        Ok(SpaceForm {
            site: space.site.clone(),
            output_rows: space.output_rows.clone(),
            shape: space.shape,
            coordinates,
        })
    }
}
