//! Limits the norm of all gradients together.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// Scales every gradient by `min(1, max_norm / ‖g‖)` with `‖g‖` over all parameters; returns `‖g‖` before.
pub(super) fn clip_global_norm<M: Module>(model: &M, gradients: &mut GradientsParams, max_norm: Option<f64>) -> f64 {
    let mut squares = SquareSum { gradients, total: 0.0 };
    model.visit(&mut squares);
    let norm = squares.total.sqrt();
    if let Some(limit) = max_norm.filter(|limit| norm > *limit) {
        model.visit(&mut Scale { gradients, factor: limit / norm });
    }
    norm
}

struct SquareSum<'a> {
    gradients: &'a GradientsParams,
    total: f64,
}

impl ModuleVisitor for SquareSum<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(g) = self.gradients.get::<D>(param.id) {
            let square: f64 = (g.clone() * g).sum().into_scalar();
            self.total += square;
        }
    }
}

struct Scale<'a> {
    gradients: &'a mut GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(g) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, g.mul_scalar(self.factor));
        }
    }
}
