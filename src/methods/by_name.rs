//! Lists the methods under short names, and makes them with a few settings that they share: for programs that are told names.

use super::anchored_ensemble::AnchoredEnsemble;
use super::blob_settings::Blob;
use super::checkpoint_ensemble::CheckpointEnsemble;
use super::deep_ensemble::DeepEnsemble;
use super::head_laplace::HeadLaplace;
use super::ivon::Ivon;
use super::laplace::LaplaceMethod;
use super::maximum_likelihood::MaximumLikelihood;
use super::mc_dropout::McDropout;
use super::method::{Method, NoiseSharing};
use super::monte_clora_settings::MonteClora;
use super::named::Named;
use super::swag::Swag;
use super::tfb::Tfb;
use crate::curvature::CurvatureStructure;
use crate::error::{Error, Result};
use crate::likelihood::TargetSpace;
use crate::models::{Classifier, Dataset};
use crate::predict::Predictive;
use crate::prior::{PriorChoice, PriorPrecision};
use crate::setters::setters;

/// Which methods of the list a program runs where nobody names any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodGroup {
    /// The first choice: quick, and starting from the trained adapter.
    Usual,
    /// Others that start from the trained adapter.
    PostHoc,
    /// Those that go on training, or train their own.
    Trained,
    /// Only by name: settings of published code, and structures that take more memory or are worse.
    OnRequest,
}

/// A method of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedMethod {
    /// Its short name, for [`method_by_name`].
    pub name: &'static str,
    /// When it is run.
    pub group: MethodGroup,
    /// What it is, in a few words.
    pub about: &'static str,
    /// Whether it has a meaning for classes alone, and none for numbers.
    pub needs_classes: bool,
}

const fn listed(name: &'static str, group: MethodGroup, about: &'static str) -> ListedMethod {
    ListedMethod { name, group, about, needs_classes: false }
}

/// The same of a method that has no meaning for numbers.
const fn of_classes(name: &'static str, group: MethodGroup, about: &'static str) -> ListedMethod {
    ListedMethod { name, group, about, needs_classes: true }
}

/// All methods that have a short name, in the order of tables.
pub const METHODS: [ListedMethod; 31] = {
    use MethodGroup::{OnRequest, PostHoc, Trained, Usual};
    [
        listed("mle", Usual, "the trained adapter alone"),
        of_classes("mle-loo", Usual, "the same with a temperature by leave-one-out, without held-out labels"),
        listed("kronecker", Usual, "Laplace, Kronecker factors, prior by evidence"),
        listed("kronecker-matched", Usual, "the same, prior that matches the training items' answers"),
        of_classes("kronecker-loo", Usual, "the same with a temperature by leave-one-out"),
        listed("last-layer", Usual, "Laplace over the last adapted layer"),
        of_classes("head", Usual, "Laplace over the output head"),
        listed("checkpoints", Usual, "adapters along one training run, averaged"),
        of_classes("tfb", Usual, "training-free Bayesianization"),
        listed("dropout", PostHoc, "Monte-Carlo dropout, of an adapter that was trained with dropout"),
        of_classes("tfb-published", PostHoc, "TFB with the settings of its published code"),
        listed("function", PostHoc, "Laplace in function space, prior by evidence"),
        listed("function-mode", PostHoc, "the same, prior by evidence at the mode"),
        listed("function-matched", PostHoc, "the same, matched prior"),
        of_classes("function-loo", PostHoc, "the same with a temperature by leave-one-out"),
        listed("core", PostHoc, "Laplace over the cores of the adapter"),
        listed("ekfac", PostHoc, "Laplace, EKFAC"),
        listed("swag", Trained, "SWAG"),
        listed("ensemble", Trained, "a deep ensemble"),
        listed("anchored", Trained, "an anchored ensemble"),
        listed("ivon", Trained, "IVON"),
        listed("blob", Trained, "BLoB"),
        listed("monte-clora", Trained, "MonteCLoRA"),
        listed("core-mode", OnRequest, "Laplace over the cores, prior by evidence at the mode"),
        listed("full", OnRequest, "Laplace, all coordinates together"),
        listed("site-block", OnRequest, "Laplace, a block for each matrix"),
        listed("diagonal", OnRequest, "Laplace, diagonal"),
        listed("core-block", OnRequest, "Laplace, a block for each core"),
        listed("swag-published", OnRequest, "SWAG with the settings of its published code"),
        listed("ivon-published", OnRequest, "IVON with the settings of its published code"),
        listed("blob-published", OnRequest, "BLoB with the settings of its published code"),
    ]
};

/// What the listed methods can be told; each reads what concerns it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct MethodSettings {
    /// Draws of the methods that sample.
    pub n_samples: usize,
    /// Members of the ensembles.
    pub n_members: usize,
    /// Training inputs in TFB's search.
    pub n_anchors: usize,
    /// Of `ivon-published`: 1e7 for WinoGrande-S and BoolQ in its publication, 1e6 for ARC and OBQA.
    pub effective_sample_size: f64,
    /// What shares a draw of dropout, TFB and BLoB.
    pub sharing: NoiseSharing,
    /// Most bytes of the sums of a curvature; as the curvature's own settings say where there is none.
    pub memory_limit: Option<u64>,
}

impl Default for MethodSettings {
    fn default() -> Self {
        Self {
            n_samples: 10,
            n_members: 3,
            n_anchors: 64,
            effective_sample_size: 1e6,
            sharing: NoiseSharing::Coherent,
            memory_limit: None,
        }
    }
}

impl MethodSettings {
    setters! {
        /// Sets the draws of the methods that sample.
        with_n_samples(n_samples: usize);
        /// Sets the members of the ensembles.
        with_n_members(n_members: usize);
        /// Sets the training inputs in TFB's search.
        with_n_anchors(n_anchors: usize);
        /// Sets the effective sample size of `ivon-published`.
        with_effective_sample_size(effective_sample_size: f64);
        /// Sets what shares a draw.
        with_sharing(sharing: NoiseSharing);
        /// Sets the most bytes of the sums of a curvature.
        with_memory_limit(memory_limit: impl Into<Option<u64>>);
    }
}

/// Checks that there is a method of this name.
///
/// # Errors
/// Lists the names that there are.
pub fn check_method_name(name: &str) -> Result<()> {
    if METHODS.iter().any(|method| method.name == name) {
        return Ok(());
    }
    let names: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
    Err(Error::Incompatible(format!("unknown method `{name}`; there are {}", names.join(", "))))
}

/// Checks that the method of this name has a meaning for the targets of a likelihood.
///
/// # Errors
/// If there is none of that name, or lists those that have a meaning.
pub fn check_method_about(name: &str, space: TargetSpace) -> Result<()> {
    check_method_name(name)?;
    let has_meaning = |method: &&ListedMethod| space == TargetSpace::Classes || !method.needs_classes;
    let names: Vec<&str> = METHODS.iter().filter(has_meaning).map(|method| method.name).collect();
    if names.contains(&name) {
        return Ok(());
    }
    let names = names.join(", ");
    Err(Error::Incompatible(format!(
        "method `{name}` is about classes alone; those that are about numbers are {names}"
    )))
}

/// Makes the method of [`METHODS`] that has this name.
///
/// ```
/// use bayes_lora::methods::{MethodSettings, method_by_name};
/// use bayes_lora::models::{Mlp, Points};
///
/// let settings = MethodSettings::default().with_n_members(5);
/// let ensemble = method_by_name::<Mlp, Points>("ensemble", &settings)?;
/// assert_eq!(ensemble.name(), "deep ensemble");
/// # Ok::<(), bayes_lora::Error>(())
/// ```
///
/// # Errors
/// If there is none; its error lists the names. Bounds of the settings are checked by [`Method::validate`].
pub fn method_by_name<M: Classifier, D: Dataset<Input = M::Input>>(
    name: &str,
    settings: &MethodSettings,
) -> Result<Box<dyn Method<M, D>>> {
    use CurvatureStructure::{Core, CoreBlock, Diagonal, Ekfac, Full, FunctionSpace, Kronecker, SiteBlock};
    check_method_name(name)?;
    let MethodSettings { n_samples, n_members, n_anchors, effective_sample_size, sharing, memory_limit } = *settings;
    let bounded = |mut method: LaplaceMethod| {
        method.curvature.memory_limit = memory_limit.or(method.curvature.memory_limit);
        method
    };
    let laplace = |structure| bounded(LaplaceMethod::new(structure));
    let tfb = |tfb: Tfb| tfb.with_n_samples(n_samples).with_n_anchors(n_anchors).with_sharing(sharing);
    Ok(match name {
        "mle" => Box::new(MaximumLikelihood),
        "mle-loo" => Box::new(laplace(Kronecker).with_leave_one_out_temperature().with_predictive(Predictive::Map)),
        "kronecker" => Box::new(laplace(Kronecker)),
        "kronecker-matched" => Box::new(laplace(Kronecker).with_prior(PriorChoice::Matched)),
        "kronecker-loo" => Box::new(laplace(Kronecker).with_leave_one_out_temperature()),
        "last-layer" => Box::new(bounded(LaplaceMethod::last_layer())),
        "head" => Box::new(HeadLaplace::default()),
        "checkpoints" => Box::new(CheckpointEnsemble::default().with_n_members(n_members)),
        "tfb" => Box::new(tfb(Tfb::default())),
        "dropout" => Box::new(McDropout::default().with_n_samples(n_samples).with_sharing(sharing)),
        "tfb-published" => Box::new(tfb(Tfb::published())),
        "function" => Box::new(laplace(FunctionSpace)),
        "function-mode" => Box::new(laplace(FunctionSpace).with_prior(PriorChoice::EvidenceAtMode)),
        "function-matched" => Box::new(laplace(FunctionSpace).with_prior(PriorChoice::Matched)),
        "function-loo" => Box::new(laplace(FunctionSpace).with_leave_one_out_temperature()),
        "core" => Box::new(laplace(Core)),
        "ekfac" => Box::new(laplace(Ekfac)),
        "swag" => Box::new(Swag::default().with_n_samples(n_samples)),
        "ensemble" => Box::new(DeepEnsemble::default().with_n_members(n_members)),
        "anchored" => Box::new(AnchoredEnsemble::new(PriorPrecision::new(2500.0)?).with_n_members(n_members)),
        "ivon" => Box::new(Ivon::default().with_n_samples(n_samples)),
        "blob" => Box::new(Blob::default().with_n_samples(n_samples).with_sharing(sharing)),
        "monte-clora" => Box::new(MonteClora::default()),
        "core-mode" => Box::new(laplace(Core).with_prior(PriorChoice::EvidenceAtMode)),
        "full" => Box::new(laplace(Full)),
        "site-block" => Box::new(laplace(SiteBlock)),
        "diagonal" => Box::new(laplace(Diagonal)),
        "core-block" => Box::new(laplace(CoreBlock)),
        "swag-published" => Box::new(Named::new("SWAG, published", Swag::published().with_n_samples(n_samples))),
        "ivon-published" => {
            let ivon = Ivon::published(effective_sample_size).with_n_samples(n_samples);
            Box::new(Named::new("IVON, published", ivon))
        }
        "blob-published" => Box::new(Named::new("BLoB, published", Blob::published().with_n_samples(n_samples))),
        _ => return Err(Error::Incompatible(format!("method `{name}` is listed and not made"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Mlp, Points};
    use std::collections::BTreeSet;

    #[test]
    fn every_method_of_the_list_is_made_and_has_a_name_of_its_own() {
        let settings = MethodSettings::default().with_memory_limit(1);
        let name = |listed: &ListedMethod| method_by_name::<Mlp, Points>(listed.name, &settings).unwrap().name();
        let names: BTreeSet<String> = METHODS.iter().map(name).collect();
        assert_eq!(names.len(), METHODS.len(), "{names:?}");
        assert_eq!(METHODS.iter().map(|listed| listed.name).collect::<BTreeSet<_>>().len(), METHODS.len());
        assert!(
            METHODS
                .iter()
                .all(|listed| method_by_name::<Mlp, Points>(listed.name, &settings).unwrap().validate().is_ok())
        );
        for listed in METHODS {
            let needed = method_by_name::<Mlp, Points>(listed.name, &settings).unwrap().requirements().classes;
            assert_eq!(needed, listed.needs_classes, "{}", listed.name);
            assert!(check_method_about(listed.name, TargetSpace::Classes).is_ok());
            assert_eq!(check_method_about(listed.name, TargetSpace::Continuous).is_err(), needed, "{}", listed.name);
        }
        let refusal = check_method_about("tfb", TargetSpace::Continuous).unwrap_err().to_string();
        assert!(
            refusal.contains("`tfb`") && refusal.contains("kronecker-matched") && !refusal.contains("loo"),
            "{refusal}"
        );
    }

    #[test]
    fn settings_reach_the_methods_and_a_name_that_no_method_has_is_refused_with_all() {
        let identity = |name: &str, settings: MethodSettings| {
            method_by_name::<Mlp, Points>(name, &settings).unwrap().identity().unwrap()
        };
        let usual = MethodSettings::default();
        for (name, other) in [
            ("swag", usual.with_n_samples(3)),
            ("ensemble", usual.with_n_members(2)),
            ("checkpoints", usual.with_n_members(2)),
            ("tfb", usual.with_n_anchors(7)),
            ("tfb-published", usual.with_sharing(NoiseSharing::PerToken)),
            ("ivon-published", usual.with_effective_sample_size(10.0)),
        ] {
            assert_ne!(identity(name, usual), identity(name, other), "{name}");
        }
        let refusal = method_by_name::<Mlp, Points>("median", &usual).err().unwrap().to_string();
        assert!(
            refusal.contains("`median`") && METHODS.iter().all(|listed| refusal.contains(listed.name)),
            "{refusal}"
        );
    }
}
