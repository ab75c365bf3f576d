//! Any method through one door: from a base and data to predictions, saved and loaded, with kinds of the caller's own.

use crate::{Case, LIMITS, methods, points};
use bayes_lora::error::Result;
use bayes_lora::identity::Identity;
use bayes_lora::lora::{AdapterSampler, AdapterWeights, read_adapter};
use bayes_lora::methods::{
    BeliefKinds, FitContext, Fitted, FittedMethod, Keep, Kept, Method, MethodFit, SampledBelief,
};
use bayes_lora::models::{Mlp, Points};
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
