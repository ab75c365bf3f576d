//! The methods that the programs compare, by name.

use crate::Outcome;
use bayes_lora::curvature::CurvatureStructure;
use bayes_lora::data::EncodedDataset;
use bayes_lora::methods::{
    AnchoredEnsemble, Blob, CheckpointEnsemble, DeepEnsemble, HeadLaplace, Ivon, LaplaceMethod, MaximumLikelihood,
    McDropout, Method, MonteClora, Named, NoiseSharing, Swag, Tfb,
};
use bayes_lora::models::PromptClassifier;
use bayes_lora::predict::Predictive;
use bayes_lora::prior::{PriorChoice, PriorPrecision};
use clap::Args;

pub type BoxedMethod = Box<dyn Method<PromptClassifier, EncodedDataset>>;

/// Those that start from the trained adapter, and those that go on training or train their own.
pub const POST_HOC: [&str; 17] = [
    "mle",
    "mle-loo",
    "dropout",
    "checkpoints",
    "tfb",
    "tfb-published",
    "head",
    "function",
    "function-mode",
    "function-matched",
    "function-loo",
    "kronecker",
    "kronecker-matched",
    "kronecker-loo",
    "core",
    "ekfac",
    "last-layer",
];
pub const TRAINED: [&str; 6] = ["swag", "ensemble", "anchored", "ivon", "blob", "monte-clora"];
/// Those that run only where they are asked for: evidence at the mode in core space, structures that take more memory or are worse,
/// and settings of published code.
const ON_REQUEST: [&str; 8] =
    ["core-mode", "full", "site-block", "diagonal", "core-block", "swag-published", "ivon-published", "blob-published"];

#[derive(Args)]
pub struct MethodArguments {
    /// Methods by their short names; all by default.
    #[arg(long, value_delimiter = ',')]
    pub methods: Vec<String>,
    /// Draws of the methods that sample.
    #[arg(long, default_value_t = 10)]
    pub draws: usize,
    /// Members of the ensembles.
    #[arg(long, default_value_t = 3)]
    pub members: usize,
    /// Training inputs in TFB's search.
    #[arg(long, default_value_t = 64)]
    pub anchors: usize,
    /// The ess of `ivon-published`: 1e7 for WinoGrande-S and BoolQ, 1e6 for ARC and OBQA.
    #[arg(long, default_value_t = 1e6)]
    pub ess: f64,
    /// Noise of its own for every token, as published code draws it, in dropout, TFB and BLoB.
    #[arg(long)]
    pub per_token: bool,
    /// Most memory that the sums of a curvature may take, in GiB; `full` is the structure that asks for more.
    #[arg(long, default_value_t = 8)]
    pub memory: u64,
}

impl MethodArguments {
    /// The methods asked for, or all of `default`.
    pub fn methods(&self, default: &[&str]) -> Outcome<Vec<BoxedMethod>> {
        if self.methods.is_empty() {
            return default.iter().map(|name| self.method(name)).collect();
        }
        self.methods.iter().map(|name| self.method(name)).collect()
    }

    fn method(&self, name: &str) -> Outcome<BoxedMethod> {
        let (n_samples, n_members) = (self.draws, self.members);
        let sharing = if self.per_token { NoiseSharing::PerToken } else { NoiseSharing::Coherent };
        let bounded = |mut method: LaplaceMethod| {
            method.curvature.memory_limit = Some(self.memory << 30);
            method
        };
        let laplace = |structure| bounded(LaplaceMethod::new(structure));
        Ok(match name {
            "mle" => Box::new(MaximumLikelihood),
            "dropout" => Box::new(McDropout::default().with_n_samples(n_samples).with_sharing(sharing)),
            "checkpoints" => Box::new(CheckpointEnsemble::default().with_n_members(n_members)),
            "ensemble" => Box::new(DeepEnsemble::default().with_n_members(n_members)),
            "anchored" => Box::new(AnchoredEnsemble::new(PriorPrecision::new(2500.0)?).with_n_members(n_members)),
            "swag" => Box::new(Swag::default().with_n_samples(n_samples)),
            "ivon" => Box::new(Ivon::default().with_n_samples(n_samples)),
            "blob" => Box::new(Blob::default().with_n_samples(n_samples).with_sharing(sharing)),
            "monte-clora" => Box::new(MonteClora::default()),
            "tfb" => {
                Box::new(Tfb::default().with_n_samples(n_samples).with_n_anchors(self.anchors).with_sharing(sharing))
            }
            "tfb-published" => {
                Box::new(Tfb::published().with_n_samples(n_samples).with_n_anchors(self.anchors).with_sharing(sharing))
            }
            "head" => Box::new(HeadLaplace::default()),
            "last-layer" => Box::new(bounded(LaplaceMethod::last_layer())),
            "function" => Box::new(laplace(CurvatureStructure::FunctionSpace)),
            "kronecker" => Box::new(laplace(CurvatureStructure::Kronecker)),
            "core" => Box::new(laplace(CurvatureStructure::Core)),
            "ekfac" => Box::new(laplace(CurvatureStructure::Ekfac)),
            "mle-loo" => Box::new(
                laplace(CurvatureStructure::Kronecker)
                    .with_leave_one_out_temperature()
                    .with_predictive(Predictive::Map),
            ),
            "function-matched" => Box::new(laplace(CurvatureStructure::FunctionSpace).with_prior(PriorChoice::Matched)),
            "function-loo" => Box::new(laplace(CurvatureStructure::FunctionSpace).with_leave_one_out_temperature()),
            "kronecker-matched" => Box::new(laplace(CurvatureStructure::Kronecker).with_prior(PriorChoice::Matched)),
            "kronecker-loo" => Box::new(laplace(CurvatureStructure::Kronecker).with_leave_one_out_temperature()),
            "function-mode" => {
                Box::new(laplace(CurvatureStructure::FunctionSpace).with_prior(PriorChoice::EvidenceAtMode))
            }
            "core-mode" => Box::new(laplace(CurvatureStructure::Core).with_prior(PriorChoice::EvidenceAtMode)),
            "full" => Box::new(laplace(CurvatureStructure::Full)),
            "site-block" => Box::new(laplace(CurvatureStructure::SiteBlock)),
            "diagonal" => Box::new(laplace(CurvatureStructure::Diagonal)),
            "core-block" => Box::new(laplace(CurvatureStructure::CoreBlock)),
            "swag-published" => Box::new(Named::new("SWAG, published", Swag::published().with_n_samples(n_samples))),
            "ivon-published" => {
                Box::new(Named::new("IVON, published", Ivon::published(self.ess).with_n_samples(n_samples)))
            }
            "blob-published" => Box::new(Named::new("BLoB, published", Blob::published().with_n_samples(n_samples))),
            _ => {
                let known = [&POST_HOC[..], &TRAINED[..], &ON_REQUEST[..]].concat().join(", ");
                return Err(format!("unknown method `{name}`; there are {known}").into());
            }
        })
    }
}
