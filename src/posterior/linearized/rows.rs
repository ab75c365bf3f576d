//! Runs the network over items and keeps the Jacobians of their outputs, as rows over the posterior's weights.

use super::collected::{BatchRows, CollectedRows};
use super::config::{Extent, LinearizedConfig};
use super::items::LinearizedItems;
use super::unfinished::UnfinishedJacobians;
use crate::batches::{batches_hash, for_each_batch};
use crate::belief::{LinkApprox, LogitGauge};
use crate::curvature::{Coordinates, GramSum, RowBlock, SiteSpace};
use crate::data::{BatchLimits, BatchOrder};
use crate::draws::{self, Purpose};
use crate::error::{Error, Result};
use crate::hash::{fnv1a, fnv1a_words};
use crate::lora::model_fingerprint;
use crate::models::{Classifier, Dataset, Subset, activation_budget, data_fingerprint};
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
    blocks: Vec<RowBlock>,
    /// The place of each row among those of the data's order.
    places: Vec<usize>,
    /// The items that were drawn, where not all are taken.
    drawn: Option<Vec<usize>>,
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

impl JacobianRows {
    /// One forward and one backward pass over the items, as for predictions. The structure of the posterior's curvature does not
    /// matter: its factors are not read.
    ///
    /// With [`Control::with_checkpoints`] the rows are saved whenever a save is due, each once, so that they take as many bytes on
    /// disk as in memory; the same call goes on from there to the same bits.
    ///
    /// # Errors
    /// If the posterior belongs to another adapter or was fitted on questions asked in another way, a logit is not finite, unfinished
    /// rows are damaged, or the caller cancels.
    pub fn of<M: Classifier, D: Dataset<Input = M::Input>>(
        model: &M,
        laplace: &Laplace,
        data: &D,
        config: &LinearizedConfig,
        control: &Control,
    ) -> Result<Self> {
        config.validate()?;
        let gauge = laplace.gauge(LinkApprox::default());
        let (n, k) = (data.n_items(), combinations_in(gauge, data, model.n_classes()));
        let mut coordinates = site_features(laplace)?;
        let width: usize = coordinates.iter().map(|site| site.space.width()).sum();
        let limits = config.limits_or_default();
        match config.extent(n, k, width, number_bytes(model)) {
            Extent::Whole => {}
            Extent::Projected(projection) => {
                // the numbers of a core are few already
                let of_weights = |site: &&mut SiteFeatures| matches!(site.space.coordinates, Coordinates::Weights);
                for site in coordinates.iter_mut().filter(of_weights) {
                    site.kept = site.space.sketched(projection, width);
                }
            }
            Extent::Some(most, seed) => {
                let drawn = drawn_items(data, most, seed);
                let some = Subset::new(data, drawn.clone())?;
                let rows = Self::collect((model, laplace), &some, Arc::new(coordinates), &limits, control)?;
                return Ok(Self { drawn: Some(drawn), ..rows });
            }
        }
        Self::collect((model, laplace), data, Arc::new(coordinates), &limits, control)
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
        let in_f64 = number_bytes(&model) == 8;
        let budget = activation_budget(&model, control, "Jacobians");
        let work = |indices: &[usize]| {
            let jacobians = LogitJacobians::new(&model, data, indices, gauge, (&wanted, &budget))?;
            let (rows, drift) = batch_rows(&jacobians, &coordinates, k)?;
            let are_contrasts = jacobians.combinations().are_contrasts;
            Ok(BatchRows { logits: jacobians.logits, are_contrasts, rows: RowBlock::new(rows, in_f64), drift })
        };
        let plan = data.plan(limits.shared_by(repetitions_in(gauge, data, n_outputs)), BatchOrder::ByLength)?;
        let mut collected = CollectedRows::new(n, n_outputs, k);
        let mut unfinished = match control.saver() {
            None => None,
            Some(saver) => {
                let words = [data_fingerprint(data)?, model_fingerprint(&model)?, batches_hash(&plan)];
                let name = fnv1a_words(words.into_iter().chain([of_coordinates(&coordinates, gauge)]));
                let width = coordinates.iter().map(|site| site.kept.width()).sum();
                Some(UnfinishedJacobians::take_up(saver, name, &plan, width, &mut collected)?)
            }
        };
        let mut done = unfinished.as_ref().map_or(0, UnfinishedJacobians::begin);
        for_each_batch("Jacobians", &plan[done..], control, work, |indices, batch| {
            collected.add(indices, batch)?;
            done += 1;
            if let Some(unfinished) = &mut unfinished {
                unfinished.keep(&collected, done, control.is_cancelled());
            }
            Ok(())
        })?;
        let CollectedRows { items, blocks, places } = collected;
        Ok(Self { items, blocks, places, drawn: None, coordinates })
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.items.drift.len()
    }

    /// The items that they are about, ascending, where a random subset stands for all: one target each goes with them.
    pub fn drawn(&self) -> Option<&[usize]> {
        self.drawn.as_deref()
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
        let as_they_came = GramSum::row_gram(&self.blocks);
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
        for block in &self.blocks {
            let products = GramSum::times_rows(&others.blocks, block.to_f64().view());
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
        for block in &self.blocks {
            for (row, &place) in block.to_f64().outer_iter().zip(places.by_ref()) {
                matrix.row_mut(place).assign(&row);
            }
        }
        matrix
    }

    /// Bytes that the rows take.
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(RowBlock::bytes).sum()
    }
}

/// The features of every site, whole.
fn site_features(laplace: &Laplace) -> Result<Vec<SiteFeatures>> {
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
    Ok(sites)
}

/// Bytes of a number of a Jacobian, as it is kept.
pub(super) fn number_bytes<M: Classifier>(model: &M) -> usize {
    if model.dtype() == DType::F64 { 8 } else { 4 }
}

/// The items with the least draws, ascending.
fn drawn_items<D: Dataset>(data: &D, most: usize, seed: u64) -> Vec<usize> {
    let mut items: Vec<usize> = (0..data.n_items()).collect();
    items.sort_by_cached_key(|&item| (draws::seed(seed, Purpose::LinearizedItems, data.item_key(item), 0), item));
    items.truncate(most);
    items.sort_unstable();
    items
}

/// A hash of all that rows depend on beside the model, the data and the batches.
fn of_coordinates(sites: &[SiteFeatures], gauge: LogitGauge) -> u64 {
    let site = |site: &SiteFeatures| {
        let kept = match &site.kept.coordinates {
            Coordinates::Sketch(sketch) => [sketch.width as u64, sketch.seed, draws::VERSION],
            // of the model, as cores are
            _ => [site.kept.width() as u64, 0, 0],
        };
        let whole = [draws::place(&site.space.site), site.space.width() as u64, site.root.to_bits()];
        let displacement = fnv1a_words(site.displacement.iter().map(|v| v.to_bits()));
        fnv1a_words(whole.into_iter().chain(kept).chain([displacement]))
    };
    fnv1a_words([fnv1a(format!("{gauge:?}").bytes())].into_iter().chain(sites.iter().map(site)))
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
