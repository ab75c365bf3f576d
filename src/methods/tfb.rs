//! TFB: the widest noise in B's column space that the training items do not notice.

use super::belief::SampledBelief;
use super::bounds::check_some;
use super::keep::{Keep, Kept};
use super::method::{FitContext, Fitted, Method, NoiseSharing, Requirements, Spent};
use super::token_noise::{Flipout, NoiseOfA, NoisyBelief};
use crate::belief::{LogitBelief, item_losses, log_softmax, top_class};
use crate::draws::{self, Purpose};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::linalg::eigh;
use crate::lora::{AdapterSampler, AdapterWeights, read_adapter};
use crate::models::{Classifier, Dataset, Subset};
use crate::predict::{predict_map, predict_sampled};
use crate::search::{Search, SearchEnd};
use crate::setters::setters;
use crate::tape::{LoraMatrix, Site};
use ndarray::{Array2, ArrayView2, Axis};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Directions of B whose squared length is below this share of the largest are rounding.
const RANK_TOLERANCE: f64 = 1e-12;

/// Training-free Bayesianization: `W = W₀ + s(BA + σ U E)`, U an orthonormal basis of B's columns, E standard normal
/// `[r, d_in]`, one σ for all matrices: the largest at which the expected NLL of the trained adapter's own answers, over some
/// training inputs, rises by no more than a share of itself. No labels are read. The law does not depend on the gauge of (A, B).
///
/// The draws are the same at every σ, so that the loss is one curve and bisection finds its crossing; σ is the largest that
/// **passed**. The published code divides the mean loss by the number of items once more (a tolerance 500 times as wide), takes
/// fresh noise at every step and returns the smallest that failed: its rows are not comparable with these.
///
/// Shi et al. (2025), *Training-free Bayesianization*, arXiv 2412.05723.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Tfb {
    /// Number of draws, in the search and in prediction.
    pub n_samples: usize,
    /// Most training items in the search, drawn by item: the order in which they come has no part.
    pub n_anchors: usize,
    /// Largest relative rise of the loss.
    pub tolerance: f64,
    /// Where σ is sought.
    pub range: (f64, f64),
    /// The search ends where the bounds of σ differ by this share.
    pub width: f64,
    /// What shares a draw in prediction; the search is coherent.
    pub sharing: NoiseSharing,
}

impl Default for Tfb {
    /// Ten draws, 500 items, a rise of 0.3 %, σ in [1e-4, 1] to 1 %, coherent.
    fn default() -> Self {
        Self {
            n_samples: 10,
            n_anchors: 500,
            tolerance: 0.003,
            range: (1e-4, 1.0),
            width: 0.01,
            sharing: NoiseSharing::Coherent,
        }
    }
}

impl Tfb {
    /// What the published code accepts: with 500 anchors its tolerance of 0.3 % is one of 150 %, σ is sought in [0.001, 0.015].
    pub fn published() -> Self {
        Self { tolerance: 1.5, range: (1e-3, 0.015), ..Self::default() }
    }

    setters! {
        /// Sets the number of draws, in the search and in prediction.
        with_n_samples(n_samples: usize);
        /// Sets the most training items in the search.
        with_n_anchors(n_anchors: usize);
        /// Sets the largest relative rise of the loss.
        with_tolerance(tolerance: f64);
        /// Sets where σ is sought.
        with_range(range: (f64, f64));
        /// Sets where the search ends.
        with_width(width: f64);
        /// Sets what shares a draw in prediction.
        with_sharing(sharing: NoiseSharing);
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        let (low, high) = self.range;
        if !(low > 0.0 && high > low && high.is_finite()) {
            return Err(Error::config("range", "positive and ascending", format!("{low} to {high}")));
        }
        for (field, value) in [("tolerance", self.tolerance), ("width", self.width)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::config(field, "positive and finite", value));
            }
        }
        check_some("n_samples", self.n_samples)?;
        check_some("n_anchors", self.n_anchors)
    }

    /// The largest σ that passed, and how many were tried. `passes` must be true below some σ and false above; where it fails
    /// at the lowest, that one is refused. The range is a setting, which no search leaves: its end may be that of the search.
    fn search(&self, mut passes: impl FnMut(f64) -> Result<bool>) -> Result<(Search, usize)> {
        let (mut low, mut high) = self.range;
        let search = |sigma, end| Search::new("sigma", sigma, self.range, end);
        let mut tried = 2;
        if passes(high)? {
            let meaning = "no noise of the range that was set raises the loss too far";
            return Ok((search(high, SearchEnd::AtUpper).with_meaning(meaning), 1));
        }
        if !passes(low)? {
            let meaning = format!("it raises the loss by more than {} already", self.tolerance);
            search(low, SearchEnd::AtLower).with_meaning(meaning).inside()?;
        }
        while high / low > 1.0 + self.width {
            let middle = (low * high).sqrt();
            tried += 1;
            if passes(middle)? { low = middle } else { high = middle }
        }
        Ok((search(low, SearchEnd::Inside), tried))
    }
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Method<M, D> for Tfb {
    fn name(&self) -> String {
        let sharing = if self.sharing == NoiseSharing::PerToken { " per token" } else { "" };
        let published = if self.tolerance == Self::published().tolerance { ", published tolerance" } else { "" };
        format!("TFB{sharing}{published}")
    }

    fn identity(&self) -> Result<Identity> {
        Identity::of(self)
    }

    fn validate(&self) -> Result<()> {
        Tfb::validate(self)
    }

    fn describe(&self) -> String {
        format!(
            "{} draws, {} noise, {} training inputs, relative rise of the NLL {}, sigma from {} to {} within {}",
            self.n_samples, self.sharing, self.n_anchors, self.tolerance, self.range.0, self.range.1, self.width
        )
    }

    fn requirements(&self) -> Requirements {
        Requirements { classes: true, ..Requirements::default() }
    }

    fn sharing(&self) -> Option<NoiseSharing> {
        Some(self.sharing)
    }

    fn fit(&self, context: &FitContext<M, D>) -> Result<Fitted<M, D>> {
        context.check(self)?;
        let n_anchors = self.n_anchors.min(context.train.n_items());
        let of_item = |item: &usize| draws::seed(context.seed, Purpose::TfbInputs, context.train.item_key(*item), 0);
        let mut anchors: Vec<usize> = (0..context.train.n_items()).collect();
        anchors.sort_by_cached_key(of_item);
        anchors.truncate(n_anchors);
        let anchors = Subset::new(context.train, anchors)?;
        let unit = ColumnSpaceNoise::new(read_adapter(context.map)?, 1.0)?;
        let (limits, control, seed) = (&context.limits, context.control, context.seed);
        let logits = predict_map(context.map, &anchors, limits, control)?.moments().0;
        let answers: Vec<usize> = logits.outer_iter().map(top_class).collect();
        let still = mean_nll(logits.view(), &answers);
        let (search, tried) = self.search(|sigma| {
            let draw = |index| unit.at(sigma, seed, index);
            let belief = predict_sampled(context.map, &anchors, draw, self.n_samples, limits, control)?;
            Ok(expected_nll(&belief, &answers)? - still <= self.tolerance * still)
        })?;
        let sigma = search.value;
        let spent = Spent { forwards: n_anchors * (1 + tried * self.n_samples), ..Spent::default() };
        let sampler = ColumnSpaceNoise { sigma, ..unit };
        let (n_samples, bytes) = (self.n_samples, size_of::<f32>());
        let fitted = match self.sharing {
            NoiseSharing::Coherent => Fitted::new(SampledBelief { sampler, n_samples, seed, bytes }),
            NoiseSharing::PerToken => {
                let noise = Flipout(Arc::new(sampler.noise()));
                Fitted::new(NoisyBelief { noise, adapter: None, n_samples, seed, bytes })
            }
        };
        Ok(fitted.with_spent(spent).with_found("sigma", sigma).with_searches([search]))
    }
}

fn mean_nll(logits: ArrayView2<f64>, answers: &[usize]) -> f64 {
    item_losses(log_softmax(logits).view(), answers).iter().sum::<f64>() / answers.len() as f64
}

/// Mean over the draws.
fn expected_nll(belief: &LogitBelief, answers: &[usize]) -> Result<f64> {
    let LogitBelief::Samples { logits, .. } = belief else {
        return Err(Error::Incompatible("TFB needs draws".into()));
    };
    let each = logits.axis_iter(Axis(0)).map(|draw| mean_nll(draw, answers));
    Ok(each.sum::<f64>() / logits.len_of(Axis(0)) as f64)
}

/// `BA + σ U E` as a change of A alone: with `BᵀB = V diag(d²) Vᵀ`, `U = B V d⁻¹`, so that `A + σ V d⁻¹ E` has the same
/// product. Directions that B lacks have no noise.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnSpaceNoise {
    map: AdapterWeights,
    /// `V d⁻¹: [r, rank]` and `d_in` of each module.
    frames: BTreeMap<String, (Array2<f64>, usize)>,
    sigma: f64,
}

impl ColumnSpaceNoise {
    /// Noise of scale σ around a trained adapter.
    ///
    /// # Errors
    /// If a weight is not finite.
    pub fn new(map: AdapterWeights, sigma: f64) -> Result<Self> {
        let mut frames = BTreeMap::new();
        for (site, b) in map.iter().filter(|(site, _)| site.matrix == LoraMatrix::B) {
            let of_a = Site { module: site.module.clone(), matrix: LoraMatrix::A };
            let Some(a) = map.get(&of_a) else { continue };
            let gram = eigh(b.t().dot(b).view())?;
            let largest = gram.values.iter().copied().fold(0.0, f64::max);
            let kept: Vec<usize> =
                (0..gram.values.len()).filter(|&k| gram.values[k] > RANK_TOLERANCE * largest).collect();
            // B = 0: no direction, no noise
            if kept.is_empty() {
                continue;
            }
            let frame = gram.vectors.select(Axis(1), &kept) / gram.values.select(Axis(0), &kept).mapv(f64::sqrt);
            frames.insert(site.module.clone(), (frame, a.ncols()));
        }
        Ok(Self { map, frames, sigma })
    }

    /// The noise of every module at this σ.
    pub fn noise(&self) -> BTreeMap<String, NoiseOfA> {
        self.noise_at(self.sigma)
    }

    fn noise_at(&self, sigma: f64) -> BTreeMap<String, NoiseOfA> {
        let noise = |(frame, d_in): &(Array2<f64>, usize)| NoiseOfA {
            frame: Some(frame.clone()),
            deviations: Array2::from_elem((frame.ncols(), *d_in), sigma),
        };
        self.frames.iter().map(|(module, of)| (module.clone(), noise(of))).collect()
    }

    fn at(&self, sigma: f64, seed: u64, index: u64) -> Result<AdapterWeights> {
        let mut weights = self.map.clone();
        for (module, noise) in self.noise_at(sigma) {
            if let Some(a) = weights.get_mut(&Site { module: module.clone(), matrix: LoraMatrix::A }) {
                *a += &noise.delta(&module, seed, index);
            }
        }
        Ok(weights)
    }
}

impl ColumnSpaceNoise {
    pub(super) const KIND: &str = "noise in the columns of B";

    pub(super) fn restore(kept: &mut Kept, map: AdapterWeights) -> Result<Self> {
        Self::new(map, kept.take_number("sigma")?)
    }
}

/// σ alone: the frames are those of the model's adapter.
impl Keep for ColumnSpaceNoise {
    fn keep(&self) -> Option<Kept<'_>> {
        Some(Kept::new(Self::KIND).with_number("sigma", self.sigma))
    }
}

impl AdapterSampler for ColumnSpaceNoise {
    fn draw(&self, seed: u64, index: u64) -> Result<AdapterWeights> {
        self.at(self.sigma, seed, index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::{Purpose, generator, normals, place};

    fn site(matrix: LoraMatrix) -> Site {
        Site { module: "q".into(), matrix }
    }

    fn adapter(a: Array2<f64>, b: Array2<f64>) -> AdapterWeights {
        [(site(LoraMatrix::A), a), (site(LoraMatrix::B), b)].into()
    }

    fn random(name: &str, shape: (usize, usize)) -> Array2<f64> {
        normals(&mut generator(11, Purpose::Synthetic, place(name), 0), shape)
    }

    /// `B L Lᵀ Bᵀ`: the covariance of `ΔW x` for a unit x, per σ².
    fn law(weights: &AdapterWeights) -> Array2<f64> {
        let noise = ColumnSpaceNoise::new(weights.clone(), 1.0).unwrap();
        let frame = noise.frames["q"].0.clone();
        let columns = weights[&site(LoraMatrix::B)].dot(&frame);
        columns.dot(&columns.t())
    }

    #[test]
    fn the_law_is_isotropic_in_the_columns_of_b_in_every_gauge() {
        let (a, b) = (random("a", (3, 4)), random("b", (5, 3)));
        let projection = law(&adapter(a.clone(), b.clone()));
        // a projection on the columns of B: PP = P, PB = B, trace 3
        assert!((projection.dot(&projection) - &projection).iter().all(|d| d.abs() < 1e-12));
        assert!((projection.dot(&b) - &b).iter().all(|d| d.abs() < 1e-12));
        // B → BS; the noise of ΔW does not see A
        let other = law(&adapter(a, b.dot(&random("s", (3, 3)))));
        // the condition of S, squared, costs digits
        assert!((projection - other).iter().all(|d| d.abs() < 1e-9));
    }

    #[test]
    fn directions_that_b_lacks_have_no_noise_and_b_zero_is_the_trained_adapter() {
        let mut b = random("b", (5, 3));
        let twice = &b.column(0) * 2.0;
        b.column_mut(2).assign(&twice);
        let deficient = adapter(random("a", (3, 4)), b);
        let projection = law(&deficient);
        assert!((projection.diag().sum() - 2.0).abs() < 1e-10);
        let fresh = adapter(random("a", (3, 4)), Array2::zeros((5, 3)));
        let noise = ColumnSpaceNoise::new(fresh.clone(), 0.7).unwrap();
        assert_eq!(noise.draw(1, 2).unwrap(), fresh);
        assert!(noise.noise().is_empty());
        let still = ColumnSpaceNoise::new(deficient.clone(), 0.0).unwrap();
        assert_eq!(still.draw(1, 2).unwrap(), deficient);
    }

    #[test]
    fn draws_have_the_stated_covariance() {
        let (a, b) = (random("a", (2, 3)), random("b", (4, 2)));
        let (sigma, n) = (0.3, 4000);
        let weights = adapter(a.clone(), b.clone());
        let noise = ColumnSpaceNoise::new(weights.clone(), sigma).unwrap();
        let x = ndarray::arr1(&[1.0, -2.0, 0.5]);
        let mut sum = Array2::<f64>::zeros((4, 4));
        for index in 0..n {
            let drawn = noise.draw(7, index).unwrap();
            let y = b.dot(&(&drawn[&site(LoraMatrix::A)] - &a).dot(&x));
            sum += &y.view().insert_axis(Axis(1)).dot(&y.view().insert_axis(Axis(0)));
        }
        let expected = law(&weights) * (sigma * sigma * x.dot(&x));
        let found = sum / n as f64;
        for (f, e) in found.iter().zip(&expected) {
            // five standard errors of a covariance whose variances are at most σ²‖x‖²
            assert!((f - e).abs() < 5.0 * sigma * sigma * x.dot(&x) * (2.0 / n as f64).sqrt(), "{f} {e}");
        }
    }

    #[test]
    fn the_search_finds_where_a_quadratic_loss_has_risen_as_far_as_allowed() {
        // E ℓ(σ) − ℓ(0) = ½ c σ², ℓ(0) = 0.4, a rise of 0.3 %
        let (c, still) = (25.0, 0.4);
        let tfb = Tfb::default();
        let (search, tried) = tfb.search(|sigma| Ok(0.5 * c * sigma * sigma <= tfb.tolerance * still)).unwrap();
        let sigma = search.value;
        assert!(search.is_inside());
        let expected = (2.0f64 * tfb.tolerance * still / c).sqrt();
        assert!(sigma <= expected && sigma > expected / (1.0 + tfb.width) - 1e-12, "{sigma} {expected}");
        // ln(10⁴)/ln(1.01) halved until 1, and both ends
        assert_eq!(tried, 12);
        let (all, tried) = tfb.search(|_| Ok(true)).unwrap();
        assert_eq!((all.value, all.end, tried), (1.0, SearchEnd::AtUpper, 1));
        assert!(tfb.search(|_| Ok(false)).unwrap_err().to_string().contains("sigma 1.00e-4 is at the lower end"));
        for (wrong, name) in [
            (Tfb { range: (0.1, 0.1), ..tfb }, "range"),
            (Tfb { tolerance: 0.0, ..tfb }, "tolerance"),
            (Tfb { n_anchors: 0, ..tfb }, "n_anchors"),
        ] {
            assert!(wrong.validate().unwrap_err().to_string().contains(name));
        }
    }
}
