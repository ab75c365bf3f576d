//! Solves the linearised model to its mode by damped Newton steps in function space.
//!
//! A step needs the curvature factored, which takes the cube of the number of rows; a step by the factored curvature of an earlier point
//! takes the square. Steps are taken by the same one for as long as they converge fast.

use super::kernel::Curved;
use super::model::LinearizedModel;
use crate::error::{Error, Result};
use ndarray::{Array1, Array2, s};

const WHAT: &str = "mode of the linearised model";
/// Most steps: quadratic convergence needs about ten, that by the curvature of an earlier point a few dozen.
const MAX_STEPS: usize = 200;
/// A whole Newton step that promises less than this share of the log joint is the last: it squares what is missing.
const TOLERANCE: f64 = 1e-13;
/// The same of a step by the curvature of an earlier point, which leaves a share of what is missing.
const FINE_TOLERANCE: f64 = 1e-22;
/// The same where the log-likelihood of the mode alone is asked for, to about 1e-9 of itself.
pub(super) const EXACT_FIT: f64 = 1e-18;
/// The same to about a hundredth of itself.
pub(super) const ROUGH_FIT: f64 = 1e-7;
/// Steps by the curvature of an earlier point must promise at most this share of the one before.
const FAST: f64 = 0.1;
/// Share of the promised rise that a step must keep, and the shortest step (rounding).
const ARMIJO: f64 = 1e-4;
const SHORTEST: f64 = 1e-9;

/// The mode of a [`LinearizedModel`] under one prior.
#[derive(Debug, Clone)]
pub struct Mode {
    /// Factor s on the prior precisions of reference.
    pub scale: f64,
    /// `Σ log p(y | x, θ̂)` in nats.
    pub log_likelihood: f64,
    /// `½ Σ_g λ_g ‖θ̂ − μ‖²` of the weights that the outputs see.
    pub penalty: f64,
    /// `ln det(I + RᵀKR/s)` at the mode, which is `ln det(H/λ + I)` of the generalised Gauss-Newton matrix there.
    pub log_det_ratio: f64,
    /// Steps taken, those by the curvature of an earlier point included.
    pub steps: usize,
    /// What one more step would add to the log joint, in nats: zero at the exact mode.
    pub newton_gain: f64,
    pub(super) unknowns: Array1<f64>,
    /// `J(θ̂ − θ*)`, the change of the combinations.
    pub(super) change: Array1<f64>,
    pub(super) score: Array1<f64>,
    /// `R_n`, one an item.
    pub(super) roots: Vec<Array2<f64>>,
}

impl Mode {
    /// `log Z ≈ Σ log p(y | x, θ̂) − ½ Σ_g λ_g ‖θ̂ − μ‖² − ½ ln det(H/λ + I)` in nats: the Laplace evidence where the expansion is about
    /// a mode, as its derivation asks.
    pub fn log_marginal_likelihood(&self) -> f64 {
        self.log_likelihood - self.penalty - 0.5 * self.log_det_ratio
    }
}

/// Where the iteration is.
struct Point {
    unknowns: Array1<f64>,
    /// `J(θ − μ)`
    pulled: Array1<f64>,
    log_likelihood: f64,
    log_joint: f64,
}

impl LinearizedModel {
    /// The mode of `log p(y | x, θ) − ½ s Σ_g λ_g ‖θ − μ‖²` over the linearised outputs, a convex problem; from the mode under
    /// another prior where one is known.
    ///
    /// With `f = m + Kα/s`, `m = f* − J(θ* − μ)`, and `Λ = RRᵀ` the Fisher information at f, a Newton step goes to
    /// `α = b − R(I + RᵀKR/s)⁻¹RᵀKb/s`, `b = Λ(f − m) + ∇ log p` (Rasmussen & Williams 2006, algorithm 3.3, for any likelihood); where
    /// there are fewer weights than rows, to the same in weights. It is shortened until it keeps a share of the rise that it promises. Near
    /// the mode steps are taken by the curvature of an earlier point, whose factorisation they share.
    ///
    /// # Errors
    /// If the scale is not positive and finite, a density is not finite at the start, or the steps do not converge.
    pub fn mode(&self, scale: f64, start: Option<&Mode>) -> Result<Mode> {
        ModePath::new(self, start).mode(scale)
    }

    /// Checks that a mode is one of as many combinations.
    pub(super) fn check_mode(&self, mode: &Mode) -> Result<()> {
        let (expected, found) = (self.n_rows(), mode.change.len());
        if expected != found {
            return Err(Error::Count { what: "combinations of the mode".into(), expected, found });
        }
        Ok(())
    }

    /// What the longest of 1, ½, ¼, … of a step that rises as promised leads to.
    fn shortened(&self, from: &Point, step: &Step, scale: f64) -> Result<Point> {
        let mut length = 1.0;
        // rounding of a log joint of this size
        let slack = 4.0 * f64::EPSILON * from.log_joint.abs() * (self.n_items() as f64).sqrt();
        while length > SHORTEST {
            let next = self.point(&from.unknowns + &(&step.direction * length), scale);
            if next.log_joint >= from.log_joint + ARMIJO * length * step.promised - slack {
                return Ok(next);
            }
            length *= 0.5;
        }
        Err(Error::numerical(WHAT, format!("no step of 1 to {SHORTEST:e} Newton steps raises its log joint")))
    }

    fn point(&self, unknowns: Array1<f64>, scale: f64) -> Point {
        let pulled = self.kernel.pulled(unknowns.view(), scale);
        let log_likelihood = self.log_likelihood_at(&(&pulled - &self.drift));
        let log_joint = log_likelihood - 0.5 * self.kernel.product(&unknowns, (&unknowns, &pulled), scale);
        Point { unknowns, pulled, log_likelihood, log_joint }
    }

    /// Score and root of the Fisher information of every item's combinations.
    fn derivatives(&self, change: &Array1<f64>) -> Result<(Array1<f64>, Vec<Array2<f64>>)> {
        let mut score = Array1::zeros(self.n_rows());
        let mut roots = Vec::with_capacity(self.n_items());
        for (item, range) in self.ranges.iter().enumerate() {
            let outputs = self.outputs_of(item, change);
            let of_outputs = self.likelihood.score(outputs.view(), &self.targets[item]).insert_axis(ndarray::Axis(1));
            let pulled = self.combinations.pull(of_outputs.view(), range.len());
            score.slice_mut(s![range.clone()]).assign(&pulled.column(0));
            roots.push(self.combinations.pull(self.likelihood.fisher_root(outputs.view())?.view(), range.len()));
        }
        Ok((score, roots))
    }
}

/// Modes under one prior after another, each found from the one before.
pub(super) struct ModePath<'a> {
    model: &'a LinearizedModel,
    unknowns: Array1<f64>,
    /// The curvature at an earlier point, maybe under another prior.
    curved: Option<Curved<'a>>,
}

/// A step, and how fast the log joint rises along it at its start: `∇ᵀH⁻¹∇`, twice what a whole Newton step gains.
struct Step {
    direction: Array1<f64>,
    promised: f64,
}

impl<'a> ModePath<'a> {
    /// Begins at a mode, or at the prior's centre.
    pub(super) fn new(model: &'a LinearizedModel, start: Option<&Mode>) -> Self {
        let zeros = || Array1::zeros(model.kernel.n_unknowns());
        Self { model, unknowns: start.map_or_else(zeros, |mode| mode.unknowns.clone()), curved: None }
    }

    /// `Σ log p(y | x, θ̂)` at the mode, in nats, to a tolerance.
    ///
    /// # Errors
    /// As [`LinearizedModel::mode`].
    pub(super) fn log_likelihood(&mut self, scale: f64, tolerance: f64) -> Result<f64> {
        Ok(self.settle(scale, tolerance)?.0.log_likelihood)
    }

    /// The mode, with the curvature there.
    ///
    /// # Errors
    /// As [`LinearizedModel::mode`].
    pub(super) fn mode(&mut self, scale: f64) -> Result<Mode> {
        let (at, steps) = self.settle(scale, FINE_TOLERANCE)?;
        let change = &at.pulled - &self.model.drift;
        let (score, roots) = self.model.derivatives(&change)?;
        let curved = self.curve(roots.clone(), scale)?;
        let log_det_ratio = curved.log_det();
        let step = curved.step_from(&score, &at, scale);
        Ok(Mode {
            scale,
            log_likelihood: at.log_likelihood,
            penalty: at.log_likelihood - at.log_joint,
            log_det_ratio,
            steps,
            newton_gain: 0.5 * step.promised,
            unknowns: at.unknowns,
            change,
            score,
            roots,
        })
    }

    /// The point of the mode, and the steps there.
    fn settle(&mut self, scale: f64, tolerance: f64) -> Result<(Point, usize)> {
        let model = self.model;
        if !(scale > 0.0 && scale.is_finite()) {
            return Err(Error::config("scale of the prior precisions", "positive and finite", scale));
        }
        let mut at = model.point(self.unknowns.clone(), scale);
        if !at.log_joint.is_finite() {
            at = model.point(Array1::zeros(self.unknowns.len()), scale);
        }
        if !at.log_joint.is_finite() {
            return Err(Error::numerical(WHAT, format!("its log joint begins at {}", at.log_joint)));
        }
        let mut before = f64::INFINITY;
        for steps in 1..=MAX_STEPS {
            let (score, roots) = model.derivatives(&(&at.pulled - &model.drift))?;
            let by_earlier = self.curved.as_ref().map(|curved| curved.step_from(&score, &at, scale));
            let (step, last) = match by_earlier.filter(|step| step.promised <= FAST * before) {
                Some(step) => (step, tolerance),
                None => (self.curve(roots, scale)?.step_from(&score, &at, scale), tolerance.max(TOLERANCE)),
            };
            before = step.promised;
            // a step this short needs no search
            let is_last = step.promised <= last * (1.0 + at.log_joint.abs());
            at = match is_last {
                true => model.point(&at.unknowns + &step.direction, scale),
                false => model.shortened(&at, &step, scale)?,
            };
            if is_last {
                self.unknowns = at.unknowns.clone();
                return Ok((at, steps));
            }
        }
        Err(Error::numerical(WHAT, format!("no convergence in {MAX_STEPS} Newton steps at scale {scale:e}")))
    }

    /// Factors the curvature with these roots, and keeps it.
    fn curve(&mut self, roots: Vec<Array2<f64>>, scale: f64) -> Result<&Curved<'a>> {
        // room for the new one
        self.curved = None;
        Ok(self.curved.insert(self.model.kernel.curved(roots, &self.model.ranges, scale)?))
    }
}

impl Curved<'_> {
    /// [`Curved::step`] from a point.
    fn step_from(&self, score: &Array1<f64>, at: &Point, scale: f64) -> Step {
        let direction = self.step(score, &at.unknowns, scale);
        let pulled = self.kernel.pulled(direction.view(), scale);
        let promised = score.dot(&pulled) - self.kernel.product(&at.unknowns, (&direction, &pulled), scale);
        Step { direction, promised }
    }
}
