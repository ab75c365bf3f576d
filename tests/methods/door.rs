//! Any method through one door: from a base and data to predictions, saved and loaded, with kinds of the caller's own.

use super::{Case, LIMITS, methods, points};
use bayes_lora::belief::{LinkApprox, LogitBelief};
use bayes_lora::compare::{About, ClassName, Comparison, Outcome, Splits};
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure};
use bayes_lora::data::BatchLimits;
use bayes_lora::error::Result;
use bayes_lora::identity::Identity;
use bayes_lora::likelihood::Gaussian;
use bayes_lora::lora::{AdapterSampler, AdapterWeights, read_adapter};
use bayes_lora::methods::{
    Belief, BeliefKinds, Blob, FitContext, Fitted, FittedMethod, HeadLaplace, Ivon, Keep, Kept, LaplaceMethod,
    MaximumLikelihood, McDropout, Method, MethodFit, Needs, PointBelief, Requirements, SampledBelief, Swag,
};
use bayes_lora::models::{Mlp, Points};
use bayes_lora::progress::Control;
use burn::tensor::DType;

fn fit(case: &Case<Mlp, Points>, method: &dyn Method<Mlp, Points>) -> FittedMethod<Mlp, Points> {
    let held_out = MethodFit::new(&case.base, &case.recipe, &case.train).with_held_out(&case.test);
    held_out.with_limits(LIMITS).with_seed(3).fit(method).unwrap()
}

#[test]
fn every_method_goes_through_one_door_and_comes_back_from_its_files() {
    let case = points(DType::F32);
    for method in methods() {
        let fitted = fit(&case, &*method);
        let dir = tempfile::tempdir().unwrap();
        fitted.save(dir.path(), "base").unwrap();
        let loaded = FittedMethod::<Mlp, Points>::load(case.base.clone(), dir.path(), LIMITS).unwrap();
        assert_eq!(loaded.predict(&case.test).unwrap(), fitted.predict(&case.test).unwrap(), "{}", method.name());
    }
}

#[test]
fn what_a_method_lacks_is_said_before_any_training() {
    let case = points(DType::F32);
    // would train for long
    let mut recipe = case.recipe.clone().with_lora(case.recipe.lora.clone().with_dropout(0.0));
    recipe.trainer.epochs = usize::MAX;
    let dropout = bayes_lora::methods::McDropout::default();
    let error = bayes_lora::methods::fit(&dropout, &case.base, &recipe, &case.train).err().unwrap().to_string();
    assert!(error.contains("MC dropout needs") && error.contains("dropout"), "{error}");
}

#[test]
fn settings_out_of_bounds_are_refused_before_any_training() {
    let case = points(DType::F32);
    // would train for long
    let mut recipe = case.recipe.clone();
    recipe.trainer.epochs = usize::MAX;
    let door = || MethodFit::new(&case.base, &recipe, &case.train);
    let words =
        |fit: MethodFit<Mlp, Points>, method: &dyn Method<Mlp, Points>| fit.fit(method).err().unwrap().to_string();
    let none = BatchLimits { max_items: 0, ..LIMITS };
    let error = words(door().with_limits(none), &MaximumLikelihood);
    assert!(error.contains("max_items") && error.contains("got 0"), "{error}");
    let mut method = LaplaceMethod::new(CurvatureStructure::Kronecker);
    method.curvature.low_rank = 0;
    let settings: [(&dyn Method<Mlp, Points>, &str); 4] = [
        (&McDropout::default().with_n_samples(0), "n_samples"),
        (&Swag::default().with_epochs(0), "epochs"),
        (&Ivon::default().with_learning_rate(-1.0), "learning_rate"),
        (&HeadLaplace::default().with_link(LinkApprox::GaussHermite { points: 0 }), "points"),
    ];
    for (method, field) in settings {
        let error = words(door(), method);
        assert!(error.contains(field) && error.contains("got"), "{error}");
    }
    let error = words(door(), &method);
    assert!(error.contains("low_rank") && error.contains("got 0"), "{error}");
    let gaussian = Gaussian { noise_variance: 0.5 };
    method.curvature = CurvatureConfig::default().with_likelihood(gaussian);
    let error = words(door(), &method);
    assert!(
        ["categorical", "gaussian", "set one for both"].iter().all(|word| error.to_lowercase().contains(word)),
        "{error}"
    );
}

/// Finds the size of the batches in which its curvature was summed.
struct Asking(CurvatureConfig);

impl Method<Mlp, Points> for Asking {
    fn name(&self) -> String {
        "asking".into()
    }

    fn describe(&self) -> String {
        "what was summed".into()
    }

    fn identity(&self) -> Result<Identity> {
        Ok(Identity::new())
    }

    fn requirements(&self) -> Requirements {
        Requirements { curvature: Some(self.0.clone()), ..Requirements::default() }
    }

    fn fit(&self, context: &FitContext<Mlp, Points>) -> Result<Fitted<Mlp, Points>> {
        let limits = context.curvature(&self.0)?.config.limits.unwrap();
        assert_eq!(context.resolve(&self.0).limits, Some(limits));
        Ok(Fitted::new(PointBelief).with_found("max_items", limits.max_items as f64))
    }
}

#[test]
fn a_size_of_batches_that_is_set_once_reaches_the_curvature_unless_it_has_its_own() {
    let case = points(DType::F32);
    let small = BatchLimits { max_items: 3, ..LIMITS };
    let door = || MethodFit::new(&case.base, &case.recipe, &case.train);
    let found = |door: MethodFit<Mlp, Points>, config: CurvatureConfig| {
        door.fit(&Asking(config)).unwrap().fitted.found["max_items"]
    };
    let silent = || CurvatureConfig::new(CurvatureStructure::Diagonal);
    assert_eq!(found(door(), silent()), LIMITS.max_items as f64);
    assert_eq!(found(door().with_limits(small), silent()), 3.0);
    let own = BatchLimits { max_items: 5, ..LIMITS };
    assert_eq!(found(door().with_limits(small), silent().with_limits(own)), 5.0);

    let class = |name: &str| ClassName { name: name.into(), token: None };
    let about = About {
        protocol: "clean".into(),
        task: "two blobs".into(),
        model: "a small network".into(),
        prompt_hash: "0".into(),
        prompt_example: "(x, y)".into(),
        classes: vec![class("left"), class("right")],
    };
    let splits = Splits { train: &case.train, held_out: None, test: &case.test, shifted: Vec::new() };
    let compare = |limits| {
        let comparison = Comparison::new(case.recipe.clone()).with_method(Asking(silent())).with_limits(limits);
        comparison.run(&case.base, &about, &splits, 0)
    };
    match &compare(small).unwrap().cells[0].outcome {
        Outcome::Answered(answered) => assert_eq!(answered.found["max_items"], 3.0),
        other => panic!("{other:?}"),
    }
    let error = compare(BatchLimits { max_tokens: 0, ..LIMITS }).unwrap_err().to_string();
    assert!(error.contains("max_tokens") && error.contains("got 0"), "{error}");
}

#[test]
fn a_fitted_method_says_how_its_adapter_was_trained() {
    let case = points(DType::F32);
    let report = fit(&case, &MaximumLikelihood).report.unwrap();
    assert_eq!((report.epochs.len(), report.items), (case.recipe.trainer.epochs, report.epochs.len() * 44));
    // it trains its own
    assert_eq!(fit(&case, &Blob::default()).report, None);
}

/// Believes what the trained adapter does, and cannot be saved.
struct Unsaid;

impl Keep for Unsaid {}

impl Belief<Mlp, Points> for Unsaid {
    fn believe(&self, model: &Mlp, data: &Points, limits: &BatchLimits, control: &Control) -> Result<LogitBelief> {
        PointBelief.believe(model, data, limits, control)
    }

    fn needs(&self, data: &Points, n_classes: usize) -> Needs {
        Belief::<Mlp, Points>::needs(&PointBelief, data, n_classes)
    }
}

#[test]
fn a_belief_that_cannot_be_saved_leaves_no_adapter_behind() {
    let case = points(DType::F32);
    let sound = fit(&case, &MaximumLikelihood);
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("new");
    let unsaid = FittedMethod { fitted: Fitted::new(Unsaid), ..sound };
    let error = unsaid.save(&place, "base").unwrap_err().to_string();
    assert!(error.contains("what it keeps"), "{error}");
    assert!(!place.exists());
    // nor does a place that refuses: a file has the name of the folder
    std::fs::write(&place, "kept").unwrap();
    let sound = FittedMethod { fitted: Fitted::new(PointBelief), ..unsaid };
    assert!(sound.save(&place, "base").is_err());
    assert_eq!(std::fs::read(&place).unwrap(), b"kept");
}

/// A method of a caller's: the trained adapter and its negative.
struct Mirrored;

struct Mirror(AdapterWeights);

impl AdapterSampler for Mirror {
    fn draw(&self, _seed: u64, index: u64) -> Result<AdapterWeights> {
        let sign = if index == 0 { 1.0 } else { -1.0 };
        Ok(self.0.iter().map(|(site, w)| (site.clone(), w * sign)).collect())
    }

    fn n_members(&self) -> Option<usize> {
        Some(2)
    }
}

impl Keep for Mirror {
    fn keep(&self) -> Option<Kept<'_>> {
        Some(Kept::new("mirror").with_adapter("own", &self.0))
    }
}

impl Method<Mlp, Points> for Mirrored {
    fn name(&self) -> String {
        "mirrored".into()
    }

    fn describe(&self) -> String {
        "the adapter and its negative".into()
    }

    fn identity(&self) -> Result<Identity> {
        Ok(Identity::new())
    }

    fn fit(&self, context: &FitContext<Mlp, Points>) -> Result<Fitted<Mlp, Points>> {
        let sampler = Mirror(read_adapter(context.map)?);
        Ok(Fitted::new(SampledBelief { sampler, n_samples: 2, seed: 0, bytes: 0 }))
    }
}

#[test]
fn a_method_of_the_callers_own_is_saved_and_loaded_too() {
    let case = points(DType::F32);
    let fitted = fit(&case, &Mirrored);
    let dir = tempfile::tempdir().unwrap();
    fitted.save(dir.path(), "base").unwrap();
    let load = |kinds: &BeliefKinds<Mlp, Points>| FittedMethod::load_with(case.base.clone(), dir.path(), LIMITS, kinds);
    let mirror = |kept: &mut Kept, _: AdapterWeights| Ok(Mirror(kept.take_adapter("own")?));
    let kinds = BeliefKinds::default().with_draws("mirror", mirror).unwrap();
    let loaded = load(&kinds).unwrap();
    assert_eq!(loaded.predict(&case.test).unwrap(), fitted.predict(&case.test).unwrap());

    let unknown = load(&BeliefKinds::default()).err().unwrap().to_string();
    assert!(unknown.contains("`draws of mirror`") && unknown.contains("`draws of Gaussian"), "{unknown}");
    let twice = kinds.with_draws("mirror", mirror).err().unwrap().to_string();
    assert!(twice.contains("`draws of mirror` twice"), "{twice}");
    // what is left over is named
    let forgetful = BeliefKinds::default();
    let forgetful = forgetful.with_draws("mirror", |_, map| Ok(Mirror(map))).unwrap();
    let left = load(&forgetful).err().unwrap().to_string();
    assert!(left.contains("own/") && left.contains("is not part of this kind"), "{left}");
}
