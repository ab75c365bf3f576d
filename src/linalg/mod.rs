//! Decomposes small and medium matrices on the host in f64; the only place that knows the linear-algebra backend.
//!
//! ```
//! use bayes_lora::linalg::eigh;
//! use ndarray::arr2;
//! let eigen = eigh(arr2(&[[2.0, 0.0], [0.0, 3.0]]).view())?;
//! assert!((eigen.values[0] - 2.0).abs() < 1e-12);
//! # Ok::<(), bayes_lora::error::Error>(())
//! ```

mod cholesky;
mod eigen;
mod factor;
mod low_rank;
mod matmul;
mod quadrature;

pub use cholesky::semidefinite_cholesky;
pub use eigen::{Eigen, eigh};
pub use factor::CholeskyFactor;
pub use low_rank::LowRankSum;
pub use matmul::{add_lower_gram, matmul, mirror_lower};
pub use quadrature::gauss_hermite;
