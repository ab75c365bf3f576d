//! Minimises the penalised likelihood of vector scaling by Newton's method.

use crate::belief::log_softmax;
use crate::error::{Error, Result};
use ndarray::Array2;

/// Random logits up to 1e4 need fewer than 50 steps.
const MAX_ITERATIONS: usize = 200;
/// Largest relative increase of the Hessian's diagonal that is tried before giving up.
const MAX_DAMPING: f64 = 1e-2;

/// w = 1, b = 0.
pub(super) fn identity(n_classes: usize) -> Vec<f64> {
    (0..2 * n_classes).map(|i| f64::from(u8::from(i < n_classes))).collect()
}

/// The penalised negative log-likelihood of vector scaling, summed over the items; its unknowns are w, then b.
pub(super) struct Objective {
    /// `[n_items, n_classes]`, centred.
    pub(super) logits: Array2<f64>,
    /// `[n_items, n_classes]`, rows that sum to 1.
    pub(super) targets: Array2<f64>,
    /// Precision of the pull towards w = 1, b = 0.
    pub(super) ridge: f64,
}

impl Objective {
    fn log_probabilities(&self, unknowns: &[f64]) -> Array2<f64> {
        let (weight, bias) = unknowns.split_at(self.logits.ncols());
        let scaled = Array2::from_shape_fn(self.logits.dim(), |(i, c)| weight[c] * self.logits[[i, c]] + bias[c]);
        log_softmax(scaled.view())
    }

    /// Summed negative log-likelihood, without the ridge.
    pub(super) fn nll(&self, unknowns: &[f64]) -> f64 {
        let log_p = self.log_probabilities(unknowns);
        // A log-probability is finite here, so 0 · it is 0.
        -(&self.targets * &log_p).sum()
    }

    fn value(&self, unknowns: &[f64]) -> f64 {
        let pull: f64 =
            unknowns.iter().zip(identity(self.logits.ncols())).map(|(u, start)| (u - start) * (u - start)).sum();
        self.nll(unknowns) + 0.5 * self.ridge * pull
    }

    /// How far rounding may move the value: that of the largest scaled logit of each item, in the sum over the items.
    fn rounding(&self, unknowns: &[f64]) -> f64 {
        let (weight, bias) = unknowns.split_at(self.logits.ncols());
        let magnitudes = self.logits.rows().into_iter().map(|row| {
            let scaled = row.iter().zip(weight).zip(bias);
            scaled.fold(1.0, |max, ((x, w), b)| f64::max(max, (w * x + b).abs()))
        });
        f64::EPSILON * magnitudes.sum::<f64>()
    }

    /// Gradient `[2C]` and Hessian `[2C, 2C]`.
    pub(super) fn derivatives(&self, unknowns: &[f64]) -> (Vec<f64>, Array2<f64>) {
        let n_classes = self.logits.ncols();
        let size = 2 * n_classes;
        let p = self.log_probabilities(unknowns).mapv_into(f64::exp);
        let mut gradient = vec![0.0; size];
        let mut hessian = Array2::zeros((size, size));
        for ((x, p), t) in self.logits.rows().into_iter().zip(p.rows()).zip(self.targets.rows()) {
            for a in 0..n_classes {
                let residual = p[a] - t[a];
                gradient[a] += residual * x[a];
                gradient[n_classes + a] += residual;
                for b in 0..n_classes {
                    let lambda = p[a] * (f64::from(u8::from(a == b)) - p[b]);
                    hessian[[a, b]] += lambda * x[a] * x[b];
                    hessian[[a, n_classes + b]] += lambda * x[a];
                    hessian[[n_classes + a, b]] += lambda * x[b];
                    hessian[[n_classes + a, n_classes + b]] += lambda;
                }
            }
        }
        for (i, start) in identity(n_classes).into_iter().enumerate() {
            gradient[i] += self.ridge * (unknowns[i] - start);
            hessian[[i, i]] += self.ridge;
        }
        (gradient, hessian)
    }

    /// Damped Newton; the second number counts the steps.
    ///
    /// It starts at the identity or at `w = b = 0`, whichever is better: where logits are huge and wrong the softmax at
    /// the identity is flat almost everywhere and its curvature says nothing, while at 0 it is well scaled.
    pub(super) fn minimise(&self) -> Result<(Vec<f64>, usize)> {
        let identity = identity(self.logits.ncols());
        let zero = vec![0.0; identity.len()];
        let (at_identity, at_zero) = (self.value(&identity), self.value(&zero));
        let (mut unknowns, mut value) = if at_identity <= at_zero { (identity, at_identity) } else { (zero, at_zero) };
        for iteration in 0..MAX_ITERATIONS {
            let (gradient, hessian) = self.derivatives(&unknowns);
            let step = newton_step(hessian, &gradient)?;
            // Half the squared Newton decrement is the drop that the quadratic model promises.
            let promised: f64 = 0.5 * gradient.iter().zip(&step).map(|(g, s)| g * s).sum::<f64>();
            let moved = |length: f64| -> Vec<f64> { unknowns.iter().zip(&step).map(|(u, s)| u - length * s).collect() };
            // No line search can see a drop below the rounding; the last full step is still Newton's.
            if promised <= self.rounding(&unknowns) {
                return Ok((moved(1.0), iteration + 1));
            }
            let mut length = 1.0;
            let (next, next_value) = loop {
                let next = moved(length);
                let next_value = self.value(&next);
                if next_value <= value - 1e-4 * length * 2.0 * promised {
                    break (next, next_value);
                }
                length *= 0.5;
                if length < 1e-12 {
                    return Err(Error::numerical(
                        "vector scaling",
                        format!("the line search found no descent at step {}", iteration + 1),
                    ));
                }
            };
            (unknowns, value) = (next, next_value);
        }
        Err(Error::numerical("vector scaling", format!("no convergence in {MAX_ITERATIONS} Newton steps")))
    }
}

/// H⁻¹ g, with the diagonal of H raised just as far as rounding demands.
///
/// H is positive definite, but with logits of 1e7 its largest entries round by more than the ridge. A raised diagonal
/// still gives a direction of descent.
fn newton_step(hessian: Array2<f64>, gradient: &[f64]) -> Result<Vec<f64>> {
    let mut damping = 0.0;
    loop {
        let mut damped = hessian.clone();
        damped.diag_mut().mapv_inplace(|d| d * (1.0 + damping));
        if let Some(step) = solve_positive_definite(damped, gradient) {
            return Ok(step);
        }
        damping = f64::max(1e-15, 10.0 * damping);
        if damping > MAX_DAMPING {
            return Err(Error::numerical(
                "vector scaling",
                "the Hessian is not positive definite; a larger ridge helps",
            ));
        }
    }
}

/// Solves `matrix · x = right` for a symmetric positive definite matrix by Cholesky's factorisation; `None` if it is not.
fn solve_positive_definite(mut matrix: Array2<f64>, right: &[f64]) -> Option<Vec<f64>> {
    let n = right.len();
    for j in 0..n {
        for k in 0..j {
            let factor = matrix[[j, k]];
            for i in j..n {
                matrix[[i, j]] -= matrix[[i, k]] * factor;
            }
        }
        let pivot = matrix[[j, j]];
        // Written so that NaN fails too.
        if !(pivot > 0.0 && pivot.is_finite()) {
            return None;
        }
        let root = pivot.sqrt();
        for i in j..n {
            matrix[[i, j]] /= root;
        }
    }
    let mut x = right.to_vec();
    for i in 0..n {
        for k in 0..i {
            x[i] -= matrix[[i, k]] * x[k];
        }
        x[i] /= matrix[[i, i]];
    }
    for i in (0..n).rev() {
        for k in i + 1..n {
            x[i] -= matrix[[k, i]] * x[k];
        }
        x[i] /= matrix[[i, i]];
    }
    Some(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    #[test]
    fn derivatives_equal_central_differences() {
        // Rows that sum to 0, as centred logits do.
        let logits = arr2(&[[1.5, -0.5, -1.0], [-2.0, 1.2, 0.8], [0.3, 0.4, -0.7]]);
        let objective =
            Objective { logits, targets: arr2(&[[1.0, 0.0, 0.0], [0.2, 0.3, 0.5], [0.0, 1.0, 0.0]]), ridge: 0.1 };
        let at = [0.7, 1.3, 0.9, 0.2, -0.5, 0.1];
        let (gradient, hessian) = objective.derivatives(&at);
        let h = 1e-5;
        for i in 0..6 {
            let (mut up, mut down) = (at, at);
            up[i] += h;
            down[i] -= h;
            let slope = (objective.value(&up) - objective.value(&down)) / (2.0 * h);
            // h² of the truncation and 1e-15/h of the rounding.
            assert!((slope - gradient[i]).abs() < 1e-8);
            let (above, below) = (objective.derivatives(&up).0, objective.derivatives(&down).0);
            for j in 0..6 {
                let bend = (above[j] - below[j]) / (2.0 * h);
                assert!((bend - hessian[[i, j]]).abs() < 1e-8);
            }
        }
    }

    #[test]
    fn the_solver_refuses_what_is_not_positive_definite() {
        let x = solve_positive_definite(arr2(&[[4.0, 2.0], [2.0, 3.0]]), &[8.0, 7.0]).unwrap();
        // A two by two system by hand: x = (1.25, 1.5).
        assert!((x[0] - 1.25).abs() < 1e-15 && (x[1] - 1.5).abs() < 1e-15);
        let indefinite = arr2(&[[1.0, 2.0], [2.0, 1.0]]);
        assert!(solve_positive_definite(indefinite.clone(), &[1.0, 1.0]).is_none());
        assert!(newton_step(indefinite, &[1.0, 1.0]).is_err());
        // Singular in rounding only: the diagonal is raised and the step is one of descent.
        let step = newton_step(arr2(&[[1.0, 1.0], [1.0, 1.0]]), &[1.0, 1.0]).unwrap();
        assert!(step[0] + step[1] > 0.0);
    }

    #[test]
    fn huge_logits_converge_in_spite_of_rounding() {
        // Entries of the Hessian are near 1e14, the ridge is 1e-3.
        let logits = Array2::from_shape_fn((40, 3), |(i, c)| {
            let spread = ((i * 7 + c * 5) % 11) as f64 - 5.0;
            1e6 * spread.powi(3)
        });
        let objective = Objective {
            targets: Array2::from_shape_fn((40, 3), |(i, c)| f64::from(u8::from(i % 3 == c))),
            logits,
            ridge: 1e-3,
        };
        let (unknowns, _) = objective.minimise().unwrap();
        assert!(objective.value(&unknowns) < objective.value(&identity(3)));
        // No worse than the uniform prediction of w = b = 0, whose pull costs 3 · 1e-3/2.
        assert!(objective.value(&unknowns) <= 40.0 * 3f64.ln() + 1.5e-3 + 1e-9);
    }
}
