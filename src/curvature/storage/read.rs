//! Takes the arrays of curvature sums out of a file, with every shape derived from the header.

use super::header::{BlockForm, CoordinatesForm, FactorForm, FactorsForm, GramForm, JointForm, SpaceForm};
use crate::curvature::{
    Coordinates, CoreSpace, DiagonalSum, FactorEigen, FactorSum, GramSum, JointSum, KroneckerBasis, KroneckerFactors,
    RowBlock, SiteSpace, Sketch,
};
use crate::error::{Error, Result};
use crate::file_header::Exact;
use crate::linalg::LowRankSum;
use crate::tape::Site;
use crate::tensor_file::{Element, TensorFile};
use ndarray::{Array, IntoDimension};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Most weights of one sketched matrix: a file says their number without holding anything of that size.
const SKETCHED_WEIGHTS: usize = 1 << 28;

/// A file, and the tensors that nothing has asked for yet.
pub(crate) struct Reader {
    file: TensorFile,
    path: PathBuf,
    unread: BTreeSet<String>,
}

impl Reader {
    pub(crate) fn new(file: TensorFile, path: &Path) -> Self {
        Self { path: path.to_path_buf(), unread: file.names().into_iter().collect(), file }
    }

    /// Reads the tensor of a name and a shape.
    pub(crate) fn take<T: Element, S: IntoDimension>(&mut self, name: &str, shape: S) -> Result<Array<T, S::Dim>> {
        self.unread.remove(name);
        self.file.read_array(name, shape)
    }

    /// Reads each of several values under its number.
    pub(crate) fn each<F, X>(
        &mut self,
        prefix: &str,
        forms: Vec<F>,
        take: impl Fn(&mut Self, &str, F) -> Result<X>,
    ) -> Result<Vec<X>> {
        forms.into_iter().enumerate().map(|(number, form)| take(self, &format!("{prefix}{number}"), form)).collect()
    }

    /// Checks that nothing is left over.
    ///
    /// # Errors
    /// Names a tensor that the header does not account for.
    pub(crate) fn finish(self) -> Result<()> {
        match self.unread.first() {
            None => Ok(()),
            Some(name) => Err(self.format(format!(
                "{} tensors are not in the header, the first is `{name}` {:?}",
                self.unread.len(),
                self.file.shape(name).unwrap_or_default()
            ))),
        }
    }

    pub(crate) fn format(&self, reason: String) -> Error {
        Error::format(self.path.display(), reason)
    }

    /// Checks a number of the header against its bound.
    pub(crate) fn at_most(&self, what: &str, value: usize, bound: usize) -> Result<()> {
        if value > bound {
            return Err(self.format(format!("{what} must be at most {bound}, got {value}")));
        }
        Ok(())
    }

    fn check_rows(&self, site: &Site, output_rows: Option<&Vec<usize>>, d_out: usize) -> Result<()> {
        match output_rows {
            Some(rows) if rows.len() != d_out => Err(Error::Count {
                what: format!("{}: output rows of `{site}`", self.path.display()),
                expected: d_out,
                found: rows.len(),
            }),
            _ => Ok(()),
        }
    }

    pub(crate) fn factors(&mut self, name: &str, form: FactorsForm) -> Result<KroneckerFactors> {
        let factors = KroneckerFactors {
            site: form.site,
            output_rows: form.output_rows,
            n_vectors: form.n_vectors,
            activation: self.factor(&format!("{name}.activation"), form.activation)?,
            gradient: self.factor(&format!("{name}.gradient"), form.gradient)?,
        };
        self.check_rows(&factors.site, factors.output_rows.as_ref(), factors.gradient.width())?;
        Ok(factors)
    }

    fn factor(&mut self, name: &str, form: FactorForm) -> Result<FactorSum> {
        Ok(match form {
            FactorForm::Dense { width } => FactorSum::Dense(self.take(name, [width, width])?),
            FactorForm::LowRank { width, columns, rank, discarded_trace } => {
                self.at_most(&format!("columns of `{name}`"), columns, rank.min(width))?;
                let factor = self.take(name, [width, columns])?;
                FactorSum::LowRank(LowRankSum { factor, rank, discarded_trace: discarded_trace.value() })
            }
        })
    }

    pub(crate) fn diagonal(&mut self, name: &str, form: SpaceForm) -> Result<DiagonalSum> {
        let space = self.space(name, form)?;
        let missing = space.missing_parts().len();
        let width = self.width(std::slice::from_ref(&space))?;
        let kept = self.take(&format!("{name}.kept"), width)?;
        Ok(DiagonalSum { kept, missing: self.take(&format!("{name}.missing"), missing)?, space })
    }

    pub(crate) fn joint(&mut self, name: &str, form: JointForm) -> Result<JointSum> {
        let spaces = self.each(&format!("{name}."), form.spaces, Self::space)?;
        let width = self.width(&spaces)?;
        let sum = match form.sum {
            GramForm::Matrix => GramSum::Matrix(self.take(&format!("{name}.sum"), [width, width])?),
            GramForm::Rows(blocks) => GramSum::Rows(self.rows(name, blocks, width)?),
        };
        Ok(JointSum { spaces, sum })
    }

    /// Blocks of rows of a width, `name.rows.N`.
    pub(crate) fn rows(&mut self, name: &str, blocks: Vec<BlockForm>, width: usize) -> Result<Vec<RowBlock>> {
        self.each(&format!("{name}.rows."), blocks, |reader, name, form| {
            Ok(match form {
                BlockForm::F32(rows) => RowBlock::F32(reader.take(name, [rows, width])?.into_shared()),
                BlockForm::F64(rows) => RowBlock::F64(reader.take(name, [rows, width])?.into_shared()),
            })
        })
    }

    /// Number of coordinates of several sites together.
    pub(crate) fn width(&self, spaces: &[SiteSpace]) -> Result<usize> {
        let mut total = 0usize;
        for space in spaces {
            let [rows, columns] = match &space.coordinates {
                Coordinates::Weights => space.shape,
                Coordinates::Kronecker(basis) => [basis.narrow.values.len(), basis.wide.values.len()],
                Coordinates::Sketch(sketch) => [1, sketch.width],
                Coordinates::Core(core) => [core.trained.nrows(), core.trained.ncols()],
            };
            total = rows.checked_mul(columns).and_then(|width| total.checked_add(width)).ok_or_else(|| {
                self.format(format!("shape {:?} of `{}` overflows the number of coordinates", space.shape, space.site))
            })?;
        }
        Ok(total)
    }

    pub(crate) fn space(&mut self, name: &str, form: SpaceForm) -> Result<SiteSpace> {
        let SpaceForm { site, output_rows, shape: [d_out, d_in], coordinates } = form;
        self.check_rows(&site, output_rows.as_ref(), d_out)?;
        let coordinates = match coordinates {
            CoordinatesForm::Weights => Coordinates::Weights,
            CoordinatesForm::Sketch { width, seed } => {
                let n = d_out.saturating_mul(d_in);
                self.at_most(&format!("random sums of `{site}`"), width, n)?;
                if width == 0 {
                    return Err(self.format(format!("random sums of `{site}` must be at least 1, got 0")));
                }
                self.at_most(&format!("weights of the sketched `{site}`"), n, SKETCHED_WEIGHTS)?;
                Coordinates::Sketch(Sketch::new(width, seed, &site, n))
            }
            CoordinatesForm::Kronecker { wide_is_input, kept_wide, kept_narrow, wide_residual, narrow_residual } => {
                let (wide, narrow) = if wide_is_input { (d_in, d_out) } else { (d_out, d_in) };
                let mut side = |side: &str, shape: [usize; 2], residual: Exact| {
                    let name = format!("{name}.basis.{side}");
                    self.at_most(&format!("directions of `{name}`"), shape[1], shape[0])?;
                    let basis = self.take(&name, shape)?;
                    let values = self.take(&format!("{name}_values"), shape[1])?;
                    Ok(FactorEigen { basis, values, residual: residual.value() })
                };
                Coordinates::Kronecker(KroneckerBasis {
                    wide: side("wide", [wide, kept_wide], wide_residual)?,
                    narrow: side("narrow", [narrow, kept_narrow], narrow_residual)?,
                    wide_is_input,
                })
            }
            CoordinatesForm::Core { module, d_out: d_out_of_b, rank_b, rank_a } => {
                // the site is the module's A, [r, d_in]
                self.at_most(&format!("rank of `{name}.core`"), rank_a.max(rank_b), d_out)?;
                Coordinates::Core(CoreSpace {
                    module,
                    column_basis: self.take(&format!("{name}.core.column_basis"), [d_out_of_b, rank_b])?,
                    row_basis: self.take(&format!("{name}.core.row_basis"), [d_in, rank_a])?,
                    from_a: self.take(&format!("{name}.core.from_a"), [rank_b, d_out])?,
                    trained: self.take(&format!("{name}.core.map"), [rank_b, rank_a])?,
                })
            }
        };
        Ok(SiteSpace { site, output_rows, shape: [d_out, d_in], coordinates })
    }
}
