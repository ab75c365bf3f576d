//! The methods that can be compared, by their short names.

use crate::session::Outcome;
use bayes_lora::likelihood::TargetSpace;
use bayes_lora::methods::{
    ListedMethod, METHODS, Method, MethodGroup, MethodSettings, NoiseSharing, check_method_about, check_method_name,
    method_by_name,
};
use bayes_lora::models::{Classifier, Dataset};
use clap::Args;

/// The name that stands for several.
const ALL: &str = "all";

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
    let line = |method: &ListedMethod| {
        let meaning = if method.needs_classes { "; classes alone" } else { "" };
        let mark = match method.group {
            MethodGroup::Usual => "*",
            MethodGroup::PostHoc | MethodGroup::Trained => " ",
            MethodGroup::OnRequest => "-",
        };
        format!("  {mark} {:<18} {}{meaning}\n", method.name, method.about)
    };
    let lines: String = METHODS.iter().map(line).collect();
    format!("Methods (* by default, - not with `all`):\n{lines}")
}

impl MethodArguments {
    /// Refuses names that no method has.
    pub fn check(&self) -> Outcome {
        Ok(self.named().try_for_each(|name| check_method_name(name))?)
    }

    /// Refuses methods that have no meaning for such targets.
    pub fn check_about(&self, space: TargetSpace) -> Outcome {
        Ok(self.named().try_for_each(|name| check_method_about(name, space))?)
    }

    fn named(&self) -> impl Iterator<Item = &String> {
        self.methods.iter().filter(|name| *name != ALL)
    }

    /// The methods asked for that have a meaning for such targets, in the order of the list.
    pub fn methods<M: Classifier, D: Dataset<Input = M::Input>>(
        &self,
        space: TargetSpace,
    ) -> Outcome<Vec<Box<dyn Method<M, D>>>> {
        self.check_about(space)?;
        let sharing = if self.per_token { NoiseSharing::PerToken } else { NoiseSharing::Coherent };
        let settings = MethodSettings::default()
            .with_n_samples(self.draws)
            .with_n_members(self.members)
            .with_n_anchors(self.anchors)
            .with_effective_sample_size(self.ess)
            .with_sharing(sharing)
            .with_memory_limit(self.memory.saturating_mul(1 << 30));
        self.names(space).into_iter().map(|name| Ok(method_by_name(name, &settings)?)).collect()
    }

    fn names(&self, space: TargetSpace) -> Vec<&'static str> {
        let named = |name: &str| self.methods.iter().any(|asked| asked == name);
        let wanted = METHODS.iter().filter(|method| match self.methods[..] {
            [] => method.group == MethodGroup::Usual,
            _ => named(method.name) || (method.group != MethodGroup::OnRequest && named(ALL)),
        });
        let names = wanted.map(|method| method.name);
        names.filter(|name| check_method_about(name, space).is_ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{METHODS, MethodArguments, TargetSpace, list};

    #[test]
    fn usual_methods_are_fewer_than_all_and_all_leaves_out_those_on_request() {
        let names = |methods: &[&str]| {
            let methods = methods.iter().map(ToString::to_string).collect();
            let arguments =
                MethodArguments { methods, draws: 2, members: 2, anchors: 2, ess: 10.0, per_token: false, memory: 1 };
            let classes = TargetSpace::Classes;
            assert!(
                arguments.names(TargetSpace::Continuous).iter().all(|name| arguments.names(classes).contains(name))
            );
            arguments.check().map(|()| arguments.names(classes)).map_err(|error| error.to_string())
        };
        let (usual, all) = (names(&[]).unwrap(), names(&["all"]).unwrap());
        assert!(usual.len() < all.len() && all.len() < METHODS.len());
        assert_eq!(names(&["all", "full", "mle"]).unwrap().len(), all.len() + 1);
        // in the order of the list, not of the line
        assert_eq!(names(&["tfb", "mle"]).unwrap(), ["mle", "tfb"]);
        assert!(names(&["mle", "median"]).unwrap_err().contains("`median`"));
        assert!(METHODS.iter().all(|method| list().contains(method.name)));
    }
}
