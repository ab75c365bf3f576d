//! Folders of saved beliefs, of every kind.

use super::harness::{FIXED_BYTES, File, fuzz, scratch};
use super::mutate::Kind;
use crate::support::points::{LIMITS, adapted, blobs, quick, train};
use bayes_lora::belief::LinkApprox;
use bayes_lora::calibrate::VectorScaling;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, fit_curvature};
use bayes_lora::lora::{AdapterWeights, LoraConfig, read_adapter};
use bayes_lora::methods::{
    Belief, CalibratedBelief, ColumnSpaceNoise, DropoutSampler, FitContext, Fitted, Flipout, GaussianAdapter,
    HeadLaplace, LinearizedBelief, Members, Method, NoisyBelief, OwnPointBelief, PointBelief, Recipe, SampledBelief,
    TokenDropout,
};
use bayes_lora::models::{Mlp, Points};
use bayes_lora::posterior::{Laplace, LaplaceConfig, POSTERIOR_FILE};
use bayes_lora::progress::Control;
use std::collections::BTreeMap;
use std::sync::Arc;

fn drawn<S>(sampler: S) -> SampledBelief<S> {
    SampledBelief { sampler, n_samples: 3, seed: u64::MAX, bytes: 40 }
}

fn noisy<N>(noise: N, adapter: Option<AdapterWeights>) -> NoisyBelief<N> {
    NoisyBelief { adapter, noise, n_samples: 2, seed: 1, bytes: 0 }
}

/// Laplace of the output layer of a trained network.
fn output_layer(map: &Mlp, data: &Points) -> Fitted<Mlp, Points> {
    let recipe = Recipe::new(LoraConfig::new(2)).with_trainer(quick(1));
    let context = FitContext {
        base: map,
        map,
        snapshots: &[],
        recipe: &recipe,
        curvatures: &[],
        train: data,
        held_out: None,
        limits: LIMITS,
        seed: 0,
        control: &Control::silent(),
    };
    HeadLaplace::default().fit(&context).unwrap()
}

fn beliefs(model: &Mlp, data: &Points) -> Vec<Fitted<Mlp, Points>> {
    let map = read_adapter(model).unwrap();
    let deviations: AdapterWeights = map.iter().map(|(site, w)| (site.clone(), w.mapv(f64::abs))).collect();
    let gaussian = GaussianAdapter::new(map.clone(), deviations, vec![map.clone(), map.clone()]).unwrap();
    let columns = ColumnSpaceNoise::new(map.clone(), 0.1).unwrap();
    let flipout = Flipout(Arc::new(columns.noise()));
    let config = CurvatureConfig::new(CurvatureStructure::Kronecker).with_limits(LIMITS);
    let curvature = fit_curvature(model, data, &config, &Control::silent()).unwrap();
    let laplace = Laplace::new(model, &curvature, &LaplaceConfig::default()).unwrap();
    let scaling = VectorScaling { weight: vec![0.5, 0.5], bias: vec![0.1, -0.1] };
    fn of(belief: impl Belief<Mlp, Points> + 'static) -> Fitted<Mlp, Points> {
        Fitted::new(belief).with_found("sigma", 0.1)
    }
    vec![
        of(PointBelief),
        of(OwnPointBelief { adapter: map.clone() }),
        of(drawn(Members::new(vec![map.clone(), map.clone()]).unwrap())),
        of(drawn(gaussian)),
        of(drawn(columns)),
        of(drawn(DropoutSampler::new(map.clone(), BTreeMap::new()))),
        of(noisy(TokenDropout, None)),
        of(noisy(flipout, Some(map))),
        of(drawn(laplace.clone())),
        of(LinearizedBelief { laplace, link: LinkApprox::MonteCarlo { n_samples: 8, seed: 2 } }),
        output_layer(model, data),
        of(CalibratedBelief::<Mlp, Points> { belief: output_layer(model, data).belief, calibrator: Box::new(scaling) }),
    ]
}

#[test]
fn any_belief_is_read_or_refused() {
    let dir = scratch();
    let data = blobs(12, 1);
    let model = train(quick(1), adapted(0.0), &data, None).model;
    let corpus = beliefs(&model, &data).into_iter().map(|fitted| {
        let place = scratch();
        fitted.save(place.path(), &model).unwrap();
        let files = ["belief.safetensors", POSTERIOR_FILE].into_iter().filter(|name| place.path().join(name).exists());
        files.map(|name| File::read(place.path().join(name), name, Kind::Tensors)).collect()
    });
    fuzz("belief", FIXED_BYTES, &corpus.collect::<Vec<_>>(), |input| {
        input.write(dir.path());
        Fitted::<Mlp, Points>::load(dir.path(), &model).map(drop)
    });
}
