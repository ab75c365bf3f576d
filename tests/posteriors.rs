//! Curvature, likelihoods and posteriors against independent references.

mod equivalence;
mod likelihood;
mod posterior;
mod structures;
mod support;
