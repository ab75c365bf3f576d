//! Methods of uncertainty behind one trait, to be laid side by side.
//!
//! A [`Method`] is fitted once and gives a [`Belief`]: what it says about the logits of any items. Everything after, such as
//! calibration, conformal sets, metrics and plots, reads beliefs alone, so that a method is one file. Three kinds of parts make
//! beliefs: an [`AdapterSampler`](crate::lora::AdapterSampler) draws adapters ([`SampledBelief`]), a [`TokenNoise`] disturbs
//! every token of a pass ([`NoisyBelief`]), a posterior is linearised ([`LinearizedBelief`]). A calibrator makes a belief of any of
//! them ([`CalibratedBelief`]). [`Fitted::save`] writes any of them to a folder, [`Fitted::load`] reads it.
//!
//! [`fit`] is the one door: any method, from a pretrained model and data, to a value that predicts, is saved and is loaded.
//! [`method_by_name`] makes each of [`METHODS`] by its short name.
//!
//! | method | random | needs |
//! |---|---|---|
//! | [`MaximumLikelihood`] | nothing | |
//! | [`McDropout`] | inputs of A | an adapter trained with dropout |
//! | [`CheckpointEnsemble`] | a finite set | snapshots of the training |
//! | [`DeepEnsemble`] | a finite set | further training runs |
//! | [`AnchoredEnsemble`] | a finite set, around draws from the prior | training runs |
//! | [`Swag`] | A and B, diagonal and low rank | further epochs |
//! | [`Tfb`] | A in the columns of B, one scale | training inputs, no labels |
//! | [`HeadLaplace`] | the classes' rows of the output layer | one pass over the training items |
//! | [`LaplaceMethod`] | the adapter, in any structure | curvature at the trained adapter |
//! | [`Ivon`] | A and B, a diagonal Gaussian | a training run of its own |
//! | [`Blob`] | A, a diagonal Gaussian | a training run of its own |
//! | [`MonteClora`] | nothing in prediction | a training run of its own |

mod adam;
mod adapter_training;
mod anchored_ensemble;
mod belief;
mod blob;
mod blob_rule;
mod blob_settings;
mod bounds;
mod by_name;
mod calibrated;
mod checkpoint_ensemble;
mod deep_ensemble;
mod fitted_method;
mod gaussian;
mod gaussian_kl;
mod head_laplace;
mod ivon;
mod ivon_step;
mod keep;
mod kinds;
mod laplace;
mod maximum_likelihood;
mod mc_dropout;
mod members;
mod method;
mod monte_clora;
mod monte_clora_rule;
mod monte_clora_settings;
mod named;
mod rule_state;
mod saved;
mod start;
mod swag;
mod tfb;
mod token_noise;

pub use anchored_ensemble::AnchoredEnsemble;
pub use belief::{Belief, LinearizedBelief, Needs, OwnPointBelief, PointBelief, SampledBelief, TemperedBelief};
pub use blob_rule::BlobRule;
pub use blob_settings::{Blob, BlobObjective};
pub use by_name::{
    ListedMethod, METHODS, MethodGroup, MethodSettings, check_method_about, check_method_name, method_by_name,
};
pub use calibrated::CalibratedBelief;
pub use checkpoint_ensemble::CheckpointEnsemble;
pub use deep_ensemble::DeepEnsemble;
pub use fitted_method::{FittedMethod, MethodFit, fit};
pub use gaussian::GaussianAdapter;
pub use head_laplace::HeadLaplace;
pub use ivon::{Ivon, IvonRule};
pub use ivon_step::{IvonMoments, IvonStep};
pub use keep::{Keep, Kept};
pub use kinds::BeliefKinds;
pub use laplace::LaplaceMethod;
pub use maximum_likelihood::MaximumLikelihood;
pub use mc_dropout::{DropoutSampler, McDropout, TokenDropout};
pub use members::{Members, member_seed};
pub use method::{FitContext, Fitted, Method, NoiseSharing, Recipe, Requirements, Spent};
pub use monte_clora_rule::MonteCloraRule;
pub use monte_clora_settings::MonteClora;
pub use named::Named;
pub use start::Start;
pub use swag::{Swag, SwagMoments};
pub use tfb::{ColumnSpaceNoise, Tfb};
pub use token_noise::{Flipout, NoiseOfA, NoisyBelief, TokenNoise};
