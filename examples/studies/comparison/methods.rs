//! The methods that the studies compare, by name.

use crate::Outcome;
use bayes_lora::data::EncodedDataset;
use bayes_lora::methods::{METHODS, Method, MethodGroup, MethodSettings, NoiseSharing, method_by_name};
use bayes_lora::models::PromptClassifier;
use clap::Args;

pub type BoxedMethod = Box<dyn Method<PromptClassifier, EncodedDataset>>;

/// Names of the listed methods that start from the trained adapter, or with `trained` also of those that go on training or train their own.
pub fn names(trained: bool) -> Vec<&'static str> {
    let wanted = METHODS.iter().filter(|method| match method.group {
        MethodGroup::Usual | MethodGroup::PostHoc => true,
        MethodGroup::Trained => trained,
        MethodGroup::OnRequest => false,
    });
    wanted.map(|method| method.name).collect()
}

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
        let sharing = if self.per_token { NoiseSharing::PerToken } else { NoiseSharing::Coherent };
        let settings = MethodSettings::default()
            .with_n_samples(self.draws)
            .with_n_members(self.members)
            .with_n_anchors(self.anchors)
            .with_effective_sample_size(self.ess)
            .with_sharing(sharing)
            .with_memory_limit(self.memory << 30);
        let made = |name: &str| Ok(method_by_name(name, &settings)?);
        if self.methods.is_empty() {
            return default.iter().map(|name| made(name)).collect();
        }
        self.methods.iter().map(|name| made(name)).collect()
    }
}
