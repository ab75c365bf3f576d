//! What cannot be saved, and what is refused of a folder that was.

use super::{Case, laplace, points};
use bayes_lora::belief::LogitBelief;
use bayes_lora::curvature::CurvatureStructure;
use bayes_lora::data::BatchLimits;
use bayes_lora::error::Result;
use bayes_lora::lora::{AdapterWeights, LoraConfig, attach, read_adapter};
use bayes_lora::methods::{
    Belief, Fitted, Flipout, GaussianAdapter, HeadLaplace, Keep, Kept, Members, Method, Needs, NoiseOfA, NoisyBelief,
    OwnPointBelief, PointBelief, SampledBelief,
};
use bayes_lora::models::{Mlp, MlpConfig, Points};
use bayes_lora::posterior::POSTERIOR_FILE;
use bayes_lora::predict::Predictive;
use bayes_lora::progress::Control;
use burn::tensor::DType;
use ndarray::Array2;
use std::sync::Arc;

const BELIEF_FILE: &str = "belief.safetensors";

fn case() -> Case<Mlp, Points> {
    points(DType::F32)
}

fn fitted(case: &Case<Mlp, Points>, method: &impl Method<Mlp, Points>) -> Fitted<Mlp, Points> {
    method.fit(&case.context(5, &Control::silent())).unwrap()
}

fn load(dir: &tempfile::TempDir, model: &Mlp) -> Result<Fitted<Mlp, Points>> {
    Fitted::load(dir.path(), model)
}

#[track_caller]
fn refused(loaded: Result<Fitted<Mlp, Points>>, parts: &[&str]) {
    let error = loaded.err().expect("it was loaded").to_string();
    parts.iter().for_each(|part| assert!(error.contains(part), "{error} lacks {part}"));
}

#[test]
fn every_flipped_byte_is_found_or_changes_nothing() {
    let case = case();
    let dir = tempfile::tempdir().unwrap();
    let whole = fitted(&case, &HeadLaplace::default());
    whole.save(dir.path(), &case.map).unwrap();
    let believe = |fitted: &Fitted<Mlp, Points>| {
        let limits = BatchLimits { max_items: 64, max_tokens: 1000 };
        fitted.belief.believe(&case.map, &case.test, &limits, &Control::silent()).unwrap()
    };
    let expected = believe(&whole);
    let path = dir.path().join(BELIEF_FILE);
    let bytes = std::fs::read(&path).unwrap();
    let mut found = 0;
    let tried = (0..bytes.len()).step_by(11);
    for place in tried.clone() {
        let mut damaged = bytes.clone();
        damaged[place] ^= 0x10;
        std::fs::write(&path, damaged).unwrap();
        match load(&dir, &case.map) {
            Err(_) => found += 1,
            Ok(loaded) => assert_eq!(believe(&loaded), expected, "byte {place}"),
        }
    }
    // but for spaces between the header and the tensors
    assert!(found + 2 >= tried.len(), "{found} of {}", tried.len());
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(load(&dir, &case.map).is_err());
    std::fs::remove_file(&path).unwrap();
    refused(load(&dir, &case.map), &[BELIEF_FILE]);
}

#[test]
fn draws_of_a_posterior_are_of_its_own_adapter_alone() {
    let case = case();
    let sampled = laplace(CurvatureStructure::Core).with_predictive(Predictive::Sampled { n_samples: 2, seed: 0 });
    let fitted = fitted(&case, &sampled);
    let limits = BatchLimits { max_items: 64, max_tokens: 1000 };
    let believe = |model: &Mlp| fitted.belief.believe(model, &case.test, &limits, &Control::silent());
    assert!(believe(&case.map).is_ok());
    let other = attach(case.base.clone(), &case.recipe.lora, 77).unwrap();
    let error = believe(&other).unwrap_err().to_string();
    assert!(error.contains("other weights than the adapter"), "{error}");
}

#[test]
fn another_model_is_refused() {
    let case = case();
    let dir = tempfile::tempdir().unwrap();
    fitted(&case, &HeadLaplace::default()).save(dir.path(), &case.map).unwrap();
    let other = attach(case.base.clone(), &case.recipe.lora, 77).unwrap();
    refused(load(&dir, &other), &["belief", "adapter"]);
    let without = case.base.clone();
    assert!(load(&dir, &without).is_err());
    // the same adapter on another base
    let base = MlpConfig::new([2, 8, 2]).with_seed(99).init(&super::device()).unwrap();
    let weights = read_adapter(&case.map).unwrap();
    let other = attach(base, &LoraConfig::new(2), 0).unwrap();
    let other = bayes_lora::lora::write_adapter(other, &weights).unwrap();
    refused(load(&dir, &other), &["belief", "base"]);
}

#[test]
fn a_posterior_of_another_belief_is_refused() {
    let case = case();
    let [one, other] = [CurvatureStructure::Kronecker, CurvatureStructure::Core].map(|structure| {
        let dir = tempfile::tempdir().unwrap();
        fitted(&case, &laplace(structure)).save(dir.path(), &case.map).unwrap();
        dir
    });
    std::fs::copy(other.path().join(POSTERIOR_FILE), one.path().join(POSTERIOR_FILE)).unwrap();
    refused(load(&one, &case.map), &[POSTERIOR_FILE, "another posterior"]);
    std::fs::remove_file(one.path().join(POSTERIOR_FILE)).unwrap();
    refused(load(&one, &case.map), &[POSTERIOR_FILE]);
}

/// A belief of one's own, with or without a kind.
struct Mine {
    keeps: bool,
}

impl Keep for Mine {
    fn keep(&self) -> Option<Kept<'_>> {
        self.keeps.then(|| Kept::new("mine").with_setting("n", 3))
    }
}

impl Belief<Mlp, Points> for Mine {
    fn believe(&self, model: &Mlp, data: &Points, limits: &BatchLimits, control: &Control) -> Result<LogitBelief> {
        PointBelief.believe(model, data, limits, control)
    }

    fn needs(&self, _data: &Points, _n_classes: usize) -> Needs {
        Needs { forwards: 1, ..Needs::default() }
    }
}

#[test]
fn a_belief_of_ones_own_is_saved_if_it_says_how_and_read_by_its_owner_alone() {
    let case = case();
    let dir = tempfile::tempdir().unwrap();
    let error = Fitted::new(Mine { keeps: false }).save(dir.path(), &case.map).unwrap_err().to_string();
    assert!(error.contains("does not say what it keeps"), "{error}");
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
    Fitted::new(Mine { keeps: true }).save(dir.path(), &case.map).unwrap();
    refused(load(&dir, &case.map), &["kind of belief", "mine"]);
}

#[test]
fn matrices_of_another_shape_than_the_models_are_refused_by_name() {
    let case = case();
    let map = read_adapter(&case.map).unwrap();
    let wider: AdapterWeights =
        map.iter().map(|(site, w)| (site.clone(), Array2::zeros((w.nrows(), w.ncols() + 1)))).collect();
    let noise = |frame: Option<Array2<f64>>, d_in| {
        let of = NoiseOfA { frame, deviations: Array2::zeros((2, d_in)) };
        Flipout(Arc::new([("layers.0".to_string(), of)].into()))
    };
    let noisy = |noise: Flipout| NoisyBelief { adapter: None, noise, n_samples: 2, seed: 0, bytes: 0 };
    let drawn = Members::new(vec![wider.clone(); 2]).unwrap();
    let gaussian = GaussianAdapter::new(wider.clone(), AdapterWeights::new(), Vec::new()).unwrap();
    let beliefs: Vec<Fitted<Mlp, Points>> = vec![
        Fitted::new(OwnPointBelief { adapter: wider }),
        Fitted::new(SampledBelief { sampler: drawn, n_samples: 2, seed: 0, bytes: 0 }),
        Fitted::new(SampledBelief { sampler: gaussian, n_samples: 2, seed: 0, bytes: 0 }),
        Fitted::new(noisy(noise(None, 3))),
        Fitted::new(noisy(noise(Some(Array2::zeros((3, 2))), 2))),
    ];
    for (number, fitted) in beliefs.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        fitted.save(dir.path(), &case.map).unwrap();
        let error = load(&dir, &case.map).err().unwrap_or_else(|| panic!("belief {number} was loaded")).to_string();
        assert!(
            error.contains("layers.0.lora_A") && error.contains("[2, 3]") || error.contains("[3, 2, 2, 2]"),
            "{error}"
        );
    }
    let right = tempfile::tempdir().unwrap();
    Fitted::<Mlp, Points>::new(noisy(noise(Some(Array2::zeros((2, 2))), 2))).save(right.path(), &case.map).unwrap();
    assert!(load(&right, &case.map).is_ok());
}
