//! Last-layer Laplace: a posterior over the rows of the output layer that stand for the classes.

use super::belief::{Belief, Needs};
use super::keep::{Keep, Kept};
use super::method::{FitContext, Fitted, Method, Requirements, Spent};
use crate::belief::{LinkApprox, LogitBelief, LogitGauge, centre_covariance, softmax};
use crate::data::BatchLimits;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::likelihood::categorical_fisher;
use crate::linalg::{Eigen, eigh, matmul};
use crate::models::{Classifier, Dataset};
use crate::posterior::{EvidenceOptimum, Spectrum};
use crate::predict::{HeadRows, predict_head};
use crate::prior::PriorPrecision;
use crate::progress::Control;
use crate::search::Search;
use crate::setters::setters;
use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2, Axis, s};

/// Logits are linear in the rows w_c of the output layer, `f_c = w_cᵀh + b_c`, so that their GGN is their Hessian:
/// `H = Σ_n Λ_n ⊗ h_n h_nᵀ` over the training items, `Λ = diag p − ppᵀ`, prior `N(0, λ⁻¹I)` around zero. The whole of it is kept,
/// `Cov[f_c, f_e] = λ⁻¹(δ_ce hᵀh − Σ_k q_ck q_ek/(λ + e_k))`, with the eigenpairs (e, u) of H and `q_ck = √e_k J_c u_k`. They are found
/// among the n items or the d features, whichever are fewer: a dense matrix of `C·min(n, d)` rows. No backward pass, and no adapter
/// on the output layer is needed.
///
/// λ by evidence maximises `−½ λ Σ_k (u_kᵀθ*)² − ½ Σ_k ln(1 + e_k/λ)`: the usual evidence without what no answer to the training items
/// depends on, such as the part that all rows share or directions that no item has, where the mode of any λ is 0. Counting all of
/// `‖θ*‖²` of the pretrained rows makes λ too small. Directions of less than 1e-12 of the largest curvature are flat; the gradient at
/// θ* is not looked at.
///
/// Kristiadi et al. (2020), arXiv 2002.10118; Daxberger et al. (2021), arXiv 2106.14806.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct HeadLaplace {
    /// A fixed λ; `None` takes the one with the most evidence.
    pub prior_precision: Option<PriorPrecision>,
    /// How the Gaussian becomes probabilities.
    pub link: LinkApprox,
}

impl HeadLaplace {
    setters! {
        /// Sets a fixed λ; `None` takes the one with the most evidence.
        with_prior_precision(prior_precision: impl Into<Option<PriorPrecision>>);
        /// Sets how the Gaussian becomes probabilities.
        with_link(link: LinkApprox);
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        self.link.validate()
    }
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Method<M, D> for HeadLaplace {
    fn name(&self) -> String {
        "Laplace output layer".into()
    }

    fn identity(&self) -> Result<Identity> {
        Identity::of(self)
    }

    fn validate(&self) -> Result<()> {
        HeadLaplace::validate(self)
    }

    fn describe(&self) -> String {
        let precision =
            self.prior_precision.map_or("by evidence over what has curvature".into(), |p| p.value().to_string());
        format!(
            "full posterior over the classes' rows of the output layer, prior precision {precision}, {:?}",
            self.link
        )
    }

    fn requirements(&self) -> Requirements {
        Requirements { linear_head: true, classes: true, ..Requirements::default() }
    }

    fn fit(&self, context: &FitContext<M, D>) -> Result<Fitted<M, D>> {
        context.check(self)?;
        let (limits, control) = (&context.limits, context.control);
        let head = predict_head(context.map, context.train, limits, control)?;
        let probabilities = softmax(head.logits.view());
        let posterior = HeadPosterior::new(head.features.view(), &probabilities, self.prior_precision, &head.weights)?;
        let precision = posterior.precision.value();
        let dimension = posterior.spectrum().effective_dimension(posterior.precision);
        let spent = Spent { forwards: context.train.n_items(), ..Spent::default() };
        let search = posterior.search.clone();
        let fitted = Fitted::new(HeadBelief { posterior, link: self.link }).with_spent(spent);
        Ok(fitted
            .with_found("prior precision", precision)
            .with_found("effective dimension", dimension)
            .with_searches(search))
    }
}

/// The posterior by the eigenpairs of its curvature.
#[derive(Debug, Clone, PartialEq)]
struct HeadPosterior {
    /// `√e_k u_k` with the eigenvectors u_k of H: `[n_classes · d, k]`, weights in the order (class, feature)
    roots: Array2<f64>,
    /// `e: [k]`, positive
    eigenvalues: Array1<f64>,
    precision: PriorPrecision,
    /// How that was found; none where it was given.
    search: Option<Search>,
    n_classes: usize,
}

impl HeadPosterior {
    /// # Shapes
    /// - features: `[n_items, d]`, probabilities: `[n_items, n_classes]`, weights: `[n_classes, d]`
    fn new(
        features: ArrayView2<f64>,
        probabilities: &Array2<f64>,
        precision: Option<PriorPrecision>,
        weights: &Array2<f64>,
    ) -> Result<Self> {
        let (roots, eigenvalues) = if features.nrows() < features.ncols() {
            by_items(features, probabilities)?
        } else {
            by_weights(features, probabilities)?
        };
        let (precision, search) = match precision {
            Some(precision) => (precision, None),
            None => {
                let found = best_precision(&roots, &eigenvalues, weights)?;
                (found.precision, Some(found.search))
            }
        };
        Ok(Self { roots, eigenvalues, precision, search, n_classes: probabilities.ncols() })
    }

    fn spectrum(&self) -> Spectrum {
        spectrum_of(&self.eigenvalues)
    }

    /// d
    fn n_features(&self) -> usize {
        self.roots.nrows() / self.n_classes
    }

    /// Raw covariance `[n_items, n_classes, n_classes]` of the logits at features `[n_items, d]`.
    fn covariance(&self, features: &Array2<f64>) -> Array3<f64> {
        let (c, lambda) = (self.n_classes, self.precision.value());
        let weights = self.eigenvalues.mapv(|e| 1.0 / (lambda + e));
        // q of each class: `[n_items, k]`
        let rows = self.roots.axis_chunks_iter(Axis(0), self.n_features());
        let q: Vec<Array2<f64>> = rows.map(|rows| matmul(features.view(), rows)).collect();
        let mut covariance = Array3::zeros((features.nrows(), c, c));
        for (item, h) in features.outer_iter().enumerate() {
            let length = h.dot(&h);
            for a in 0..c {
                let weighted = &q[a].row(item) * &weights;
                for b in 0..c {
                    let known = weighted.dot(&q[b].row(item));
                    covariance[[item, a, b]] = (f64::from(a == b) * length - known) / lambda;
                }
            }
        }
        covariance
    }
}

/// Eigenvalues of H, and its eigenvectors times their roots, from the inner products of the rows of Φ, `ΦᵀΦ = H`: fewer where the
/// items are fewer than the features.
fn by_items(features: ArrayView2<f64>, probabilities: &Array2<f64>) -> Result<(Array2<f64>, Array1<f64>)> {
    let ((n, d), c) = (features.dim(), probabilities.ncols());
    // L = diag √p − p √pᵀ: LLᵀ = diag p − ppᵀ; 1 − p_a is the sum of the others, which keeps its digits where the answer is sure
    let others = |p: ArrayView1<f64>, a: usize| (0..c).filter(|&k| k != a).map(|k| p[k]).sum::<f64>();
    let root = |p: ArrayView1<f64>| {
        Array2::from_shape_fn((c, c), |(a, i)| if a == i { others(p, a) } else { -p[a] } * p[i].sqrt())
    };
    let factors: Vec<Array2<f64>> = probabilities.outer_iter().map(root).collect();
    let inner = matmul(features, features.t());
    let mut gram = Array2::zeros((n * c, n * c));
    for (a, left) in factors.iter().enumerate() {
        for (b, right) in factors.iter().enumerate() {
            let mut block = gram.slice_mut(s![a * c..(a + 1) * c, b * c..(b + 1) * c]);
            block.assign(&(left.t().dot(right) * inner[[a, b]]));
        }
    }
    let (vectors, eigenvalues) = positive(eigh(gram.view())?);
    // √e u = Φᵀv
    let mut roots = Array2::zeros((c * d, eigenvalues.len()));
    let mut of_class = Array2::zeros((n, eigenvalues.len()));
    for class in 0..c {
        for (item, factor) in factors.iter().enumerate() {
            of_class.row_mut(item).assign(&factor.row(class).dot(&vectors.slice(s![item * c..(item + 1) * c, ..])));
        }
        roots.slice_mut(s![class * d..(class + 1) * d, ..]).assign(&matmul(features.t(), of_class.view()));
    }
    Ok((roots, eigenvalues))
}

/// The same from H itself.
fn by_weights(features: ArrayView2<f64>, probabilities: &Array2<f64>) -> Result<(Array2<f64>, Array1<f64>)> {
    let (d, c) = (features.ncols(), probabilities.ncols());
    let curvatures: Vec<Array2<f64>> = probabilities.outer_iter().map(categorical_fisher).collect();
    let mut hessian = Array2::zeros((c * d, c * d));
    for (a, b) in (0..c).flat_map(|a| (0..c).map(move |b| (a, b))) {
        let weights: Array1<f64> = curvatures.iter().map(|curvature| curvature[[a, b]]).collect();
        let weighted = &features * &weights.insert_axis(Axis(1));
        let block = matmul(features.t(), weighted.view());
        hessian.slice_mut(s![a * d..(a + 1) * d, b * d..(b + 1) * d]).assign(&block);
    }
    let (vectors, eigenvalues) = positive(eigh(hessian.view())?);
    Ok((vectors * &eigenvalues.mapv(f64::sqrt), eigenvalues))
}

/// The pairs with curvature: a shift common to all classes has none.
fn positive(eigen: Eigen) -> (Array2<f64>, Array1<f64>) {
    let largest = eigen.values.iter().copied().fold(0.0, f64::max);
    let kept: Vec<usize> = (0..eigen.values.len()).filter(|&k| eigen.values[k] > 1e-12 * largest).collect();
    (eigen.vectors.select(Axis(1), &kept), eigen.values.select(Axis(0), &kept))
}

/// The λ with the most evidence, counting of the rows what has curvature.
fn best_precision(roots: &Array2<f64>, eigenvalues: &Array1<f64>, weights: &Array2<f64>) -> Result<EvidenceOptimum> {
    let seen = roots.t().dot(&weights.flatten()) / eigenvalues.mapv(f64::sqrt);
    spectrum_of(eigenvalues).maximize(seen.dot(&seen))
}

fn spectrum_of(eigenvalues: &Array1<f64>) -> Spectrum {
    Spectrum { values: eigenvalues.iter().map(|e| (*e, 1.0)).collect() }
}

/// Gaussian logits from the posterior over the output layer.
pub(super) struct HeadBelief {
    posterior: HeadPosterior,
    link: LinkApprox,
}

impl HeadBelief {
    pub(super) const KIND: &str = "output layer";

    pub(super) fn restore(kept: &mut Kept) -> Result<Self> {
        let roots = kept.take_matrix("roots")?;
        let eigenvalues = kept.take_matrix("eigenvalues")?.into_flat();
        let precision = PriorPrecision::new(kept.take_number("prior precision")?)?;
        let n_classes: usize = kept.take_setting("n_classes")?;
        if n_classes == 0 || !roots.nrows().is_multiple_of(n_classes) {
            return Err(Error::config(
                "n_classes of the output layer's posterior",
                format!("a divisor of its {} weights", roots.nrows()),
                n_classes,
            ));
        }
        if roots.ncols() != eigenvalues.len() {
            let what = "eigenvectors of the output layer's posterior".into();
            return Err(Error::Count { what, expected: eigenvalues.len(), found: roots.ncols() });
        }
        let posterior = HeadPosterior { roots, eigenvalues, precision, search: None, n_classes };
        Ok(Self { posterior, link: kept.take_setting("link")? })
    }
}

impl Keep for HeadBelief {
    fn keep(&self) -> Option<Kept<'_>> {
        let HeadPosterior { roots, eigenvalues, precision, n_classes, .. } = &self.posterior;
        let kept = Kept::new(Self::KIND).with_matrix("roots", roots.view());
        let kept = kept.with_matrix("eigenvalues", eigenvalues.view().insert_axis(Axis(0)));
        let kept = kept.with_number("prior precision", precision.value()).with_setting("n_classes", n_classes);
        Some(kept.with_setting("link", self.link))
    }
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Belief<M, D> for HeadBelief {
    fn believe(&self, model: &M, data: &D, limits: &BatchLimits, control: &Control) -> Result<LogitBelief> {
        let HeadRows { features, logits: mean, .. } = predict_head(model, data, limits, control)?;
        let (expected, found) = (self.posterior.n_features(), features.ncols());
        if (found, mean.ncols()) != (expected, self.posterior.n_classes) {
            return Err(Error::Shape {
                what: "features and classes of the output layer".into(),
                expected: vec![expected, self.posterior.n_classes],
                found: vec![found, mean.ncols()],
            });
        }
        let mut covariance = self.posterior.covariance(&features);
        let gauge = LogitGauge::of(self.link);
        if gauge == LogitGauge::Centred {
            for (item, mut raw) in covariance.outer_iter_mut().enumerate() {
                let centred = centre_covariance(mean.row(item), raw.view());
                raw.assign(&centred);
            }
        }
        Ok(LogitBelief::Gaussian { mean, covariance, gauge })
    }

    fn needs(&self, _data: &D, _n_classes: usize) -> Needs {
        let bytes = (self.posterior.roots.len() + self.posterior.eigenvalues.len()) * size_of::<f64>();
        Needs { forwards: 1, backwards: 0, bytes }
    }

    fn link(&self) -> LinkApprox {
        self.link
    }
}

#[cfg(test)]
#[path = "head_laplace_tests.rs"]
mod tests;
