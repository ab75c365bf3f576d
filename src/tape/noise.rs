//! The trait of what disturbs adapters while they learn or answer.

use burn::tensor::Tensor;

/// Noise inside a forward pass, at the input of A or at its output. It is drawn by the implementor, who says how tokens share it.
pub trait SiteNoise: std::fmt::Debug {
    /// A's input `[rows, d_in]` with noise; `dropout` is the probability that the adapter was made with.
    fn input(&mut self, module: &str, x: Tensor<2>, dropout: f64) -> Tensor<2> {
        let _ = (module, dropout);
        x
    }

    /// True if there is no noise at an adapter that was made with this probability.
    fn is_absent(&self, dropout: f64) -> bool {
        let _ = dropout;
        false
    }

    /// A's output `[rows, r]` with noise, given A's input.
    fn hidden(&mut self, module: &str, x: &Tensor<2>, hidden: Tensor<2>) -> Tensor<2> {
        let _ = (module, x);
        hidden
    }
}
