//! Files of curvature sums and of posteriors, of every structure.

use super::container::with_text;
use super::harness::{FIXED_BYTES, File, fuzz, scratch};
use super::mutate::Kind;
use crate::support::allocations::watch;
use crate::support::points::{LIMITS, adapted, blobs, quick, train};
use bayes_lora::curvature::{Curvature, CurvatureConfig, CurvatureStructure, RandomProjection, fit_curvatures};
use bayes_lora::likelihood::Gaussian;
use bayes_lora::models::Mlp;
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::progress::Control;
use serde_json::json;

const NAME: &str = "f.safetensors";

/// A classifier and sums around it: every structure, factors of low rank, random sums, and a Gaussian likelihood.
fn sums() -> (Mlp, Vec<Curvature>) {
    let data = blobs(12, 1);
    let model = train(quick(1), adapted(0.0), &data, None).model;
    let of = |structure| CurvatureConfig::new(structure).with_limits(LIMITS);
    let cut = |structure| of(structure).with_dense_limit(0).with_low_rank(2);
    let more = [
        cut(CurvatureStructure::Kronecker),
        cut(CurvatureStructure::Ekfac),
        of(CurvatureStructure::FunctionSpace).with_projection(RandomProjection { width: 9, seed: 3 }),
        of(CurvatureStructure::Diagonal).with_likelihood(Gaussian { noise_variance: 0.3 }),
    ];
    let configs: Vec<CurvatureConfig> = CurvatureStructure::ALL.map(of).into_iter().chain(more).collect();
    let sums = fit_curvatures(&model, &data, &configs, &Control::silent()).unwrap();
    (model, sums)
}

#[test]
fn any_file_of_sums_is_read_or_refused() {
    let dir = scratch();
    let path = dir.path().join(NAME);
    let corpus = sums().1.into_iter().map(|sums| {
        sums.save(&path).unwrap();
        vec![File::read(&path, NAME, Kind::Tensors)]
    });
    fuzz("curvature", FIXED_BYTES, &corpus.collect::<Vec<_>>(), |input| {
        input.write(dir.path());
        Curvature::load(&path).map(drop)
    });
}

#[test]
fn any_posterior_is_read_or_refused() {
    let dir = scratch();
    let path = dir.path().join(NAME);
    let (model, all) = sums();
    let corpus = all.iter().map(|sums| {
        Laplace::new(&model, sums, &LaplaceConfig::default()).unwrap().save(&path, &model).unwrap();
        vec![File::read(&path, NAME, Kind::Tensors)]
    });
    fuzz("posterior", FIXED_BYTES, &corpus.collect::<Vec<_>>(), |input| {
        input.write(dir.path());
        Laplace::load(&path, &model).map(drop)
    });
}

#[test]
fn weights_that_a_file_only_claims_take_no_memory() {
    let dir = scratch();
    let path = dir.path().join(NAME);
    let (model, all) = sums();
    let sketched = all.iter().find(|sums| sums.config.projection.is_some()).unwrap();
    sketched.save(&path).unwrap();
    let file = std::fs::read(&path).unwrap();
    let claimed = with_text(&file, |header| {
        for space in header["sums"]["Joint"][0]["spaces"].as_array_mut().unwrap() {
            space["shape"] = json!([1 << 14, 1 << 14]);
            space["output_rows"] = json!(null);
        }
    });
    std::fs::write(&path, &claimed).unwrap();
    let (loaded, asked) = watch(|| Curvature::load(&path).unwrap());
    assert!(asked.peak < FIXED_BYTES, "{} bytes held", asked.peak);
    let error = Laplace::new(&model, &loaded, &LaplaceConfig::default()).unwrap_err().to_string();
    assert!(error.contains("[16384, 16384]"), "{error}");
}
