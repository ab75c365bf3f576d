//! The methods that can be compared, by their short names.

use crate::session::Outcome;
use bayes_lora::curvature::CurvatureStructure;
use bayes_lora::methods::{
    AnchoredEnsemble, Blob, CheckpointEnsemble, DeepEnsemble, HeadLaplace, Ivon, LaplaceMethod, MaximumLikelihood,
    McDropout, Method, MonteClora, Named, NoiseSharing, Swag, Tfb,
};
use bayes_lora::models::{Classifier, Dataset};
use bayes_lora::predict::Predictive;
use bayes_lora::prior::{PriorChoice, PriorPrecision};
use clap::Args;

pub type BoxedMethod<M, D> = Box<dyn Method<M, D>>;

/// The name that stands for several.
const ALL: &str = "all";

/// When a method runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    /// Unless others are asked for.
    Default,
    /// With `all`; it starts from the trained adapter.
    PostHoc,
    /// With `all`; it goes on training, or trains its own.
    Trained,
    /// Only by its name.
    OnRequest,
}

const METHODS: [(&str, Group, &str); 31] = [
    ("mle", Group::Default, "the trained adapter alone"),
    ("mle-loo", Group::Default, "the same with a temperature by leave-one-out, without held-out labels"),
    ("kronecker", Group::Default, "Laplace, Kronecker factors, prior by evidence"),
    ("kronecker-matched", Group::Default, "the same, prior that matches the training items' answers"),
    ("kronecker-loo", Group::Default, "the same with a temperature by leave-one-out"),
    ("last-layer", Group::Default, "Laplace over the last adapted layer"),
    ("head", Group::Default, "Laplace over the output head"),
    ("checkpoints", Group::Default, "adapters along one training run, averaged"),
    ("tfb", Group::Default, "training-free Bayesianization"),
    ("dropout", Group::PostHoc, "Monte-Carlo dropout (needs --dropout above 0)"),
    ("tfb-published", Group::PostHoc, "TFB with the settings of its published code"),
    ("function", Group::PostHoc, "Laplace in function space, prior by evidence"),
    ("function-mode", Group::PostHoc, "the same, prior by evidence at the mode"),
    ("function-matched", Group::PostHoc, "the same, matched prior"),
    ("function-loo", Group::PostHoc, "the same with a temperature by leave-one-out"),
    ("core", Group::PostHoc, "Laplace over the cores of the adapter"),
    ("ekfac", Group::PostHoc, "Laplace, EKFAC"),
    ("swag", Group::Trained, "SWAG"),
    ("ensemble", Group::Trained, "a deep ensemble"),
    ("anchored", Group::Trained, "an anchored ensemble"),
    ("ivon", Group::Trained, "IVON"),
    ("blob", Group::Trained, "BLoB"),
    ("monte-clora", Group::Trained, "MonteCLoRA"),
    ("core-mode", Group::OnRequest, "Laplace over the cores, prior by evidence at the mode"),
    ("full", Group::OnRequest, "Laplace, all coordinates together"),
    ("site-block", Group::OnRequest, "Laplace, a block for each matrix"),
    ("diagonal", Group::OnRequest, "Laplace, diagonal"),
    ("core-block", Group::OnRequest, "Laplace, a block for each core"),
    ("swag-published", Group::OnRequest, "SWAG with the settings of its published code"),
    ("ivon-published", Group::OnRequest, "IVON with the settings of its published code"),
    ("blob-published", Group::OnRequest, "BLoB with the settings of its published code"),
];

#[derive(Args)]
#[command(next_help_heading = "Methods")]
pub struct MethodArguments {
    /// Methods by their names, or `all` [default: those marked * below]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    methods: Vec<String>,
    /// Draws of the methods that sample
    #[arg(long, value_name = "N", default_value_t = 10)]
    draws: usize,
    /// Members of the ensembles, and checkpoints along a run
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub members: usize,
    /// Training inputs in TFB's search
    #[arg(long, value_name = "N", default_value_t = 64)]
    anchors: usize,
    /// Effective sample size of `ivon-published`
    #[arg(long, value_name = "X", default_value_t = 1e6)]
    ess: f64,
    /// Noise of its own for every token, as published code draws it, in dropout, TFB and BLoB
    #[arg(long)]
    per_token: bool,
    /// Most memory that the sums of a curvature may take, in GiB
    #[arg(long, value_name = "GIB", default_value_t = 8)]
    memory: u64,
}

/// All methods with what they are, a line each.
pub fn list() -> String {
    let line = |(name, group, what): &(&str, Group, &str)| {
        let mark = match group {
            Group::Default => "*",
            Group::PostHoc | Group::Trained => " ",
            Group::OnRequest => "-",
        };
        format!("  {mark} {name:<18} {what}\n")
    };
    let lines: String = METHODS.iter().map(line).collect();
    format!("Methods (* by default, - not with `all`):\n{lines}")
}

impl MethodArguments {
    /// Refuses names that no method has.
    pub fn check(&self) -> Outcome {
        let known = |name: &&String| *name == ALL || METHODS.iter().any(|(known, ..)| known == *name);
        let Some(name) = self.methods.iter().find(|name| !known(name)) else { return Ok(()) };
        let names: Vec<&str> = METHODS.iter().map(|(name, ..)| *name).collect();
        Err(format!("unknown method `{name}`; there are {}", names.join(", ")).into())
    }

    /// The methods asked for.
    pub fn methods<M: Classifier, D: Dataset<Input = M::Input>>(&self) -> Outcome<Vec<BoxedMethod<M, D>>> {
        let wanted = |(name, group, _): &(&str, Group, &str)| match &self.methods[..] {
            [] => *group == Group::Default,
            names => names.iter().any(|n| n == name) || (*group != Group::OnRequest && names.iter().any(|n| n == ALL)),
        };
        self.check()?;
        METHODS.iter().filter(|method| wanted(method)).map(|(name, ..)| self.method(name)).collect()
    }

    fn method<M: Classifier, D: Dataset<Input = M::Input>>(&self, name: &str) -> Outcome<BoxedMethod<M, D>> {
        use CurvatureStructure::{Core, CoreBlock, Diagonal, Ekfac, Full, FunctionSpace, Kronecker, SiteBlock};
        let (n_samples, n_members) = (self.draws, self.members);
        let sharing = if self.per_token { NoiseSharing::PerToken } else { NoiseSharing::Coherent };
        let bounded = |mut method: LaplaceMethod| {
            method.curvature.memory_limit = Some(self.memory.saturating_mul(1 << 30));
            method
        };
        let laplace = |structure| bounded(LaplaceMethod::new(structure));
        let tfb = |tfb: Tfb| tfb.with_n_samples(n_samples).with_n_anchors(self.anchors).with_sharing(sharing);
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
            "tfb" => Box::new(tfb(Tfb::default())),
            "tfb-published" => Box::new(tfb(Tfb::published())),
            "head" => Box::new(HeadLaplace::default()),
            "last-layer" => Box::new(bounded(LaplaceMethod::last_layer())),
            "function" => Box::new(laplace(FunctionSpace)),
            "kronecker" => Box::new(laplace(Kronecker)),
            "core" => Box::new(laplace(Core)),
            "ekfac" => Box::new(laplace(Ekfac)),
            "mle-loo" => Box::new(laplace(Kronecker).with_leave_one_out_temperature().with_predictive(Predictive::Map)),
            "function-matched" => Box::new(laplace(FunctionSpace).with_prior(PriorChoice::Matched)),
            "function-loo" => Box::new(laplace(FunctionSpace).with_leave_one_out_temperature()),
            "kronecker-matched" => Box::new(laplace(Kronecker).with_prior(PriorChoice::Matched)),
            "kronecker-loo" => Box::new(laplace(Kronecker).with_leave_one_out_temperature()),
            "function-mode" => Box::new(laplace(FunctionSpace).with_prior(PriorChoice::EvidenceAtMode)),
            "core-mode" => Box::new(laplace(Core).with_prior(PriorChoice::EvidenceAtMode)),
            "full" => Box::new(laplace(Full)),
            "site-block" => Box::new(laplace(SiteBlock)),
            "diagonal" => Box::new(laplace(Diagonal)),
            "core-block" => Box::new(laplace(CoreBlock)),
            "swag-published" => Box::new(Named::new("SWAG, published", Swag::published().with_n_samples(n_samples))),
            "ivon-published" => {
                Box::new(Named::new("IVON, published", Ivon::published(self.ess).with_n_samples(n_samples)))
            }
            "blob-published" => Box::new(Named::new("BLoB, published", Blob::published().with_n_samples(n_samples))),
            _ => return Err(format!("method `{name}` is listed and not made").into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{METHODS, MethodArguments, list};
    use bayes_lora::data::EncodedDataset;
    use bayes_lora::models::PromptClassifier;

    #[test]
    fn every_method_of_the_list_is_made_once() {
        let arguments = |methods: &[&str]| MethodArguments {
            methods: methods.iter().map(ToString::to_string).collect(),
            draws: 2,
            members: 2,
            anchors: 2,
            ess: 10.0,
            per_token: false,
            memory: 1,
        };
        let names = |methods: &[&str]| -> Vec<String> {
            let made = arguments(methods).methods::<PromptClassifier, EncodedDataset>().unwrap();
            made.iter().map(|method| method.name()).collect()
        };
        let all: Vec<&str> = METHODS.iter().map(|(name, ..)| *name).collect();
        let made = names(&all);
        assert_eq!(made.len(), METHODS.len());
        assert_eq!(made.iter().collect::<std::collections::BTreeSet<_>>().len(), METHODS.len(), "{made:?}");
        assert!(names(&[]).len() < names(&["all"]).len() && names(&["all"]).len() < all.len());
        assert!(all.iter().all(|name| list().contains(name)));
        let refusal = arguments(&["mle", "median"]).methods::<PromptClassifier, EncodedDataset>().err().unwrap();
        assert!(refusal.to_string().contains("`median`"));
    }
}
