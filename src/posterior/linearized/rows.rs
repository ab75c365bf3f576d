//! Runs the network over items and keeps the Jacobians of their outputs, as rows over the posterior's weights.

use super::config::LinearizedConfig;
use super::items::LinearizedItems;
use crate::batches::for_each_batch;
use crate::belief::LinkApprox;
use crate::curvature::{Coordinates, GramSum, RowBlock, SiteSpace};
use crate::data::{BatchLimits, BatchOrder};
use crate::error::{Error, Result};
use crate::models::{Classifier, Dataset};
use crate::posterior::jacobians::{LogitJacobians, combinations_in, repetitions_in};
use crate::posterior::laplace::Laplace;
use crate::progress::Control;
use burn::tensor::DType;
use ndarray::{Array1, Array2, Axis, s};
use std::sync::Arc;

/// The Jacobians `J/√λ` of a set of items, over the weights (or cores) that a posterior is about and divided by the roots of its prior
/// precisions; whole, or in seeded random sums.
///
/// Every item has the same number k of rows: the C − 1 differences of its outputs to the first where outputs matter up to a shift, else
/// its C outputs, and the outputs of all choices where these are continuations. Rows of what an item does not have are zero.
#[derive(Debug, Clone)]
pub struct JacobianRows {
    /// The items beside their rows; `J(θ* − μ)` is exact whatever is kept of J.
    pub items: LinearizedItems,
    /// The rows as they came.
    rows: GramSum,
    /// The place of each row among those of the data's order.
    places: Vec<usize>,
    coordinates: Arc<Vec<SiteFeatures>>,
}

/// One site's Jacobians as features.
#[derive(Debug)]
struct SiteFeatures {
    /// Of the weights or the core, whole.
    space: SiteSpace,
    /// The coordinates that are kept, where fewer.
    kept: SiteSpace,
    /// Coordinates of `θ* − μ` in `space`.
    displacement: Array1<f64>,
    /// `1/√λ` of its group.
    root: f64,
}

/// What a batch leaves.
struct BatchRows {
    logits: Array2<f64>,
    are_contrasts: bool,
    /// `[b·k, width]`, item after item.
    rows: Array2<f64>,
    /// `[b, k]`
    drift: Array2<f64>,
}

impl JacobianRows {
    /// One forward and one backward pass over the items, as for predictions. The structure of the posterior's curvature does not
    /// matter: its factors are not read.
    ///
    /// # Errors
    /// If the posterior belongs to another adapter or was fitted on questions asked in another way, a logit is not finite, or the caller
    /// cancels.
    pub fn of<M: Classifier, D: Dataset<Input = M::Input>>(
        model: &M,
        laplace: &Laplace,
        data: &D,
        config: &LinearizedConfig,
        control: &Control,
    ) -> Result<Self> {
        config.validate()?;
        let gauge = laplace.gauge(LinkApprox::default());
        let n_rows = data.n_items() * combinations_in(gauge, data, model.n_classes());
        let coordinates = Arc::new(site_features(laplace, config, n_rows)?);
        Self::collect((model, laplace), data, coordinates, &config.limits, control)
    }

    /// The rows of other items in the same coordinates.
    ///
    /// # Errors
    /// As [`JacobianRows::of`].
    pub fn of_others<M: Classifier, D: Dataset<Input = M::Input>>(
        &self,
        (model, laplace): (&M, &Laplace),
        data: &D,
        limits: &BatchLimits,
        control: &Control,
    ) -> Result<Self> {
        Self::collect((model, laplace), data, self.coordinates.clone(), limits, control)
    }

    fn collect<M: Classifier, D: Dataset<Input = M::Input>>(
        (model, laplace): (&M, &Laplace),
        data: &D,
        coordinates: Arc<Vec<SiteFeatures>>,
        limits: &BatchLimits,
        control: &Control,
    ) -> Result<Self> {
        let model = model.valid();
        laplace.check_is_about(&model)?;
        laplace.check_asked(data)?;
        let gauge = laplace.gauge(LinkApprox::default());
        let (n, n_outputs) = (data.n_items(), model.n_classes());
        let k = combinations_in(gauge, data, n_outputs);
        let wanted = coordinates.iter().map(|site| site.space.site.clone()).collect();
        let in_f64 = model.dtype() == DType::F64;
        let work = |indices: &[usize]| {
            let jacobians = LogitJacobians::new(&model, data, indices, gauge, &wanted)?;
            let (rows, drift) = batch_rows(&jacobians, &coordinates, k)?;
            let are_contrasts = jacobians.combinations().are_contrasts;
            Ok(BatchRows { logits: jacobians.logits, are_contrasts, rows, drift })
        };
        let plan = data.plan(limits.shared_by(repetitions_in(gauge, data, n_outputs)), BatchOrder::ByLength)?;
        let mut all = Self {
            items: LinearizedItems {
                outputs: Array2::zeros((n, n_outputs)),
                are_contrasts: false,
                rows_per_item: k,
                drift: Array1::zeros(n * k),
            },
            rows: GramSum::Rows(Vec::new()),
            places: Vec::with_capacity(n * k),
            coordinates: coordinates.clone(),
        };
        for_each_batch("Jacobians", &plan, control, work, |indices, batch| {
            all.items.are_contrasts = batch.are_contrasts;
            all.rows.add(batch.rows, in_f64)?;
            for (row, &item) in indices.iter().enumerate() {
                all.items.outputs.row_mut(item).assign(&batch.logits.row(row));
                all.items.drift.slice_mut(s![item * k..(item + 1) * k]).assign(&batch.drift.row(row));
                all.places.extend(item * k..(item + 1) * k);
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.items.drift.len()
    }

    /// Numbers a row: of weights, or of random sums.
    pub fn width(&self) -> usize {
        self.coordinates.iter().map(|site| site.kept.width()).sum()
    }

    /// True if random sums stand for the weights.
    pub fn is_projected(&self) -> bool {
        self.coordinates.iter().any(|site| site.kept != site.space)
    }

    /// The kernel `J Jᵀ/λ`, `[n_rows, n_rows]`, in the order of the data.
    pub fn gram(&self) -> Array2<f64> {
        let as_they_came = GramSum::row_gram(self.blocks());
        let mut gram = Array2::zeros(as_they_came.dim());
        for (products, &row) in as_they_came.outer_iter().zip(&self.places) {
            for (&value, &column) in products.iter().zip(&self.places) {
                gram[[row, column]] = value;
            }
        }
        gram
    }

    /// The kernel `J J'ᵀ/λ` of these rows and those of other items, `[n_rows, n_rows']`, in the order of the data.
    ///
    /// # Errors
    /// If the others are in other coordinates (see [`JacobianRows::of_others`]).
    pub fn kernel(&self, others: &Self) -> Result<Array2<f64>> {
        self.check_same_coordinates(others)?;
        let mut kernel = Array2::zeros((self.n_rows(), others.n_rows()));
        let mut places = self.places.iter();
        for block in self.blocks() {
            let products = GramSum::times_rows(others.blocks(), block.to_f64().view());
            for (products, &row) in products.outer_iter().zip(places.by_ref()) {
                for (&value, &column) in products.iter().zip(&others.places) {
                    kernel[[row, column]] = value;
                }
            }
        }
        Ok(kernel)
    }

    /// Checks that other rows are in these coordinates, and as many an item.
    pub(super) fn check_same_coordinates(&self, others: &Self) -> Result<()> {
        if !Arc::ptr_eq(&self.coordinates, &others.coordinates) {
            return Err(Error::Incompatible("two sets of Jacobian rows are in different coordinates".into()));
        }
        let (expected, found) = (self.items.rows_per_item, others.items.rows_per_item);
        if expected != found {
            return Err(Error::Count { what: "rows of Jacobians an item".into(), expected, found });
        }
        Ok(())
    }

    /// The rows `[n_rows, width]` in the order of the data.
    pub fn to_matrix(&self) -> Array2<f64> {
        let mut matrix = Array2::zeros((self.n_rows(), self.width()));
        let mut places = self.places.iter();
        for block in self.blocks() {
            for (row, &place) in block.to_f64().outer_iter().zip(places.by_ref()) {
                matrix.row_mut(place).assign(&row);
            }
        }
        matrix
    }

    /// Bytes that the rows take.
    pub fn bytes(&self) -> usize {
        self.rows.bytes()
    }

    fn blocks(&self) -> &[RowBlock] {
        match &self.rows {
            GramSum::Rows(blocks) => blocks,
            GramSum::Matrix(_) => &[],
        }
    }
}

/// The features of every site, projected where `n_rows` whole ones are too many.
fn site_features(laplace: &Laplace, config: &LinearizedConfig, n_rows: usize) -> Result<Vec<SiteFeatures>> {
    let mut sites = Vec::new();
    for (block, &group) in laplace.blocks().iter().zip(laplace.group_of()) {
        for space in block.spaces() {
            let coordinates = match &space.coordinates {
                Coordinates::Core(core) => Coordinates::Core(core.clone()),
                _ => Coordinates::Weights,
            };
            let space = SiteSpace { coordinates, ..space.clone() };
            let displacement = space.displacement(laplace.map(), laplace.centre())?;
            let as_jacobian = displacement.view().insert_axis(Axis(0)).insert_axis(Axis(0));
            let displacement = space.project(as_jacobian)?.coefficients.slice(s![0, 0, ..]).to_owned();
            let root = laplace.prior_precisions().of(group).value().sqrt().recip();
            sites.push(SiteFeatures { kept: space.clone(), space, displacement, root });
        }
    }
    let width: usize = sites.iter().map(|site| site.space.width()).sum();
    let is_exact = n_rows <= config.exact_rows && 8 * (n_rows * width) as u64 <= config.exact_bytes;
    if !is_exact && config.projection.width < width {
        // the numbers of a core are few already
        for site in sites.iter_mut().filter(|site| matches!(site.space.coordinates, Coordinates::Weights)) {
            site.kept = site.space.sketched(config.projection, width);
        }
    }
    Ok(sites)
}

/// `J/√λ` of a batch, `[b·k, width]`, and `J(θ* − μ)`, `[b, k]`; rows of choices that the whole batch lacks are zero.
fn batch_rows(batch: &LogitJacobians, sites: &[SiteFeatures], k: usize) -> Result<(Array2<f64>, Array2<f64>)> {
    let n = batch.logits.nrows();
    let width = sites.iter().map(|site| site.kept.width()).sum();
    let (mut rows, mut drift) = (Array2::zeros((n * k, width)), Array2::zeros((n, k)));
    let mut start = 0;
    for site in sites {
        let missing =
            || Error::Incompatible(format!("the posterior is about `{}`, which the batch lacks", site.space.site));
        let jacobians = batch.sites.get(&site.space.site).ok_or_else(missing)?;
        let whole = site.space.project(jacobians.view())?.coefficients;
        let kept = if site.kept == site.space { None } else { Some(site.kept.project(jacobians.view())?.coefficients) };
        let end = start + site.kept.width();
        for (item, whole) in whole.outer_iter().enumerate() {
            let mut own = drift.slice_mut(s![item, ..whole.nrows()]);
            own += &whole.dot(&site.displacement);
            let kept = kept.as_ref().map_or(whole, |kept| kept.index_axis(Axis(0), item));
            let mut target = rows.slice_mut(s![item * k..item * k + kept.nrows(), start..end]);
            target.zip_mut_with(&kept, |target, value| *target = site.root * value);
        }
        start = end;
    }
    Ok((rows, drift))
}
