//! Sums survive the disk bit by bit, a damaged file is refused by name, and only sums that belong together merge.

use super::{cases, config, half};
use crate::support::{FIXTURES, Fixture, has_f64};
use bayes_lora::curvature::{Curvature, CurvatureConfig, CurvatureStructure, RandomProjection, fit_curvature};
use bayes_lora::data::EncodedDataset;
use bayes_lora::likelihood::Gaussian;
use bayes_lora::lora::{read_adapter, write_adapter};
use bayes_lora::models::PromptClassifier;
use bayes_lora::progress::Control;
use burn::tensor::DType;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

const KEY: &str = "bayes_lora_curvature";

fn fit(model: &PromptClassifier, data: &EncodedDataset, config: &CurvatureConfig) -> Curvature {
    fit_curvature(model, data, config, &Control::silent()).unwrap()
}

#[test]
fn what_is_loaded_equals_what_was_saved() {
    let fixture = Fixture::load(FIXTURES[0]);
    let dir = tempfile::tempdir().unwrap();
    let cut = |structure| config(structure).with_dense_limit(0).with_low_rank(3);
    // 0.1 + 0.2 has digits that a careless reader of numbers loses
    let gaussian = Gaussian { noise_variance: 0.1 + 0.2 };
    let configs = CurvatureStructure::ALL.map(config).into_iter().chain([
        cut(CurvatureStructure::Kronecker),
        cut(CurvatureStructure::Ekfac),
        config(CurvatureStructure::Kronecker).with_likelihood(gaussian),
        config(CurvatureStructure::FunctionSpace).with_projection(RandomProjection { width: 100, seed: 3 }),
    ]);
    let configs: Vec<CurvatureConfig> = configs.collect();
    for dtype in [DType::F32, DType::F64].into_iter().filter(|dtype| *dtype == DType::F32 || has_f64()) {
        let model = fixture.model(dtype);
        for config in &configs {
            let path = dir.path().join("sums.safetensors");
            let [whole, here, there] = [fixture.train.clone(), half(&fixture.train, 0), half(&fixture.train, 1)]
                .map(|data| fit(&model, &data, config));
            let back = |curvature: &Curvature| {
                curvature.save(&path).unwrap();
                Curvature::load(&path).unwrap()
            };
            assert_eq!(back(&whole), whole, "{dtype:?} {config:?}");
            // halves of EKFAC are in different bases, and do not merge before or after
            if config.structure != CurvatureStructure::Ekfac {
                let merged = here.clone().merge(there.clone()).unwrap();
                assert_eq!(back(&here).merge(back(&there)).unwrap(), merged, "{dtype:?} {config:?}");
                assert_eq!((merged.n_data, &merged.item_keys), (whole.n_data, &whole.item_keys));
            }
        }
    }
}

/// A file taken apart.
struct Parts {
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
    metadata: HashMap<String, String>,
}

impl Parts {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
        let owned = tensors.into_iter().map(|(n, t)| (n, (t.dtype(), t.shape().to_vec(), t.data().to_vec())));
        Self { tensors: owned.collect(), metadata: header.metadata().clone().unwrap() }
    }

    /// Writes them with checksums that fit.
    fn write(&mut self, path: &Path) {
        let sum = |bytes: &[u8]| {
            let hash = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
            format!("{:016x}", bytes.iter().fold(0xcbf2_9ce4_8422_2325, hash))
        };
        let of_tensors = self.tensors.iter().map(|(name, (_, _, data))| (name.as_str(), sum(data)));
        let of_header = self.metadata.get(KEY).map(|text| (KEY, sum(text.as_bytes())));
        let sums: BTreeMap<&str, String> = of_tensors.chain(of_header).collect();
        let sums = serde_json::to_string(&sums).unwrap();
        self.metadata.insert("checksums".into(), sums);
        let views = self.tensors.iter().map(|(n, (t, shape, d))| (n, TensorView::new(*t, shape.clone(), d).unwrap()));
        std::fs::write(path, safetensors::serialize(views, Some(self.metadata.clone())).unwrap()).unwrap();
    }

    /// Replaces text in the header, which must have it.
    fn replace(&mut self, old: &str, new: &str) {
        let header = self.metadata.get_mut(KEY).unwrap();
        assert!(header.contains(old), "{old} is not in {header}");
        *header = header.replacen(old, new, 1);
    }
}

#[test]
fn a_damaged_file_is_refused_with_the_name_of_the_damage() {
    type Damage = fn(&mut Parts);
    let damages: [(&str, Damage, &[&str]); 13] = [
        ("no header", |p| _ = p.metadata.remove(KEY), &[KEY]),
        ("other JSON", |p| p.replace("\"n_data\"", "\"n\""), &["curvature header", "`n`"]),
        ("version", |p| p.replace("\"format_version\":3", "\"format_version\":4"), &["`4`", "supported: 3"]),
        (
            "structure",
            |p| p.replace("\"structure\":\"Diagonal\"", "\"structure\":\"Ekfac\""),
            &["not of the structure EKFAC"],
        ),
        ("setting", |p| p.replace("\"low_rank\":10", "\"low_rank\":0"), &["low_rank", "at least 1"]),
        ("not a number", |p| p.replace("\"log_likelihood\":\"", "\"log_likelihood\":\"NaN"), &["not a finite number"]),
        (
            "too large",
            |p| p.replace("\"shape\":[", "\"shape\":[100000000000000000"),
            &["[100000000000000000", "overflows"],
        ),
        ("missing tensor", |p| _ = p.tensors.remove("0.kept"), &["`0.kept` is missing"]),
        ("extra tensor", |p| _ = p.tensors.insert("more".into(), (Dtype::F32, vec![2], vec![0; 8])), &["`more` [2]"]),
        ("other shape", |p| p.tensors.get_mut("0.kept").unwrap().1.push(1), &["`0.kept`", "expected shape [", ", 1]"]),
        ("infinite", |p| nth(p, "0.kept", 1, f64::INFINITY), &["`0.kept`", "1 of "]),
        ("NaN", |p| nth(p, "1.kept", 0, f64::NAN), &["`1.kept`", "1 of "]),
        (
            "other numbers",
            |p| {
                let kept = p.tensors.get_mut("0.kept").unwrap();
                (kept.0, kept.2) = (Dtype::F32, vec![0; kept.2.len() / 2]);
            },
            &["`0.kept`", "`F32`", "supported: F64"],
        ),
    ];
    let fixture = Fixture::load(FIXTURES[0]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sums.safetensors");
    let model = fixture.model(DType::F32);
    let curvature = fit(&model, &fixture.train, &config(CurvatureStructure::Diagonal));
    for (name, damage, expected) in damages {
        curvature.save(&path).unwrap();
        let mut parts = Parts::read(&path);
        damage(&mut parts);
        parts.write(&path);
        let error = Curvature::load(&path).unwrap_err().to_string();
        for fragment in expected.iter().chain(&["sums.safetensors"]) {
            assert!(error.contains(fragment), "{name}: {error}");
        }
    }
    curvature.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, b"").unwrap();
    let error = Curvature::load(&path).unwrap_err().to_string();
    assert!(error.contains("sums.safetensors: is empty"), "{error}");
    for length in [7, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = Curvature::load(&path).unwrap_err().to_string();
        assert!(error.contains("truncated") && error.contains(&format!("has {length}")), "{length}: {error}");
    }
}

#[test]
fn a_random_projection_to_nothing_is_refused() {
    let fixture = Fixture::load(FIXTURES[0]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sums.safetensors");
    let sketched = config(CurvatureStructure::FunctionSpace).with_projection(RandomProjection { width: 1, seed: 3 });
    fit(&fixture.model(DType::F32), &fixture.train, &sketched).save(&path).unwrap();
    let mut parts = Parts::read(&path);
    parts.replace("\"Sketch\":{\"width\":1", "\"Sketch\":{\"width\":0");
    parts.write(&path);
    let error = Curvature::load(&path).unwrap_err().to_string();
    assert!(error.contains("random sums") && error.contains("at least 1, got 0"), "{error}");
}

/// Overwrites one f64 of a tensor.
fn nth(parts: &mut Parts, name: &str, n: usize, value: f64) {
    parts.tensors.get_mut(name).unwrap().2[8 * n..8 * (n + 1)].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn what_could_not_be_loaded_is_not_saved_and_a_failure_leaves_nothing() {
    let fixture = Fixture::load(FIXTURES[0]);
    let dir = tempfile::tempdir().unwrap();
    let mut curvature = fit(&fixture.model(DType::F32), &fixture.train, &config(CurvatureStructure::Diagonal));
    let refuse = |curvature: &Curvature, path: &Path, expected: &str| {
        let error = curvature.save(path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{expected}");
    };
    refuse(&curvature, &dir.path().join("absent/sums.safetensors"), "absent/sums.safetensors");
    let path = dir.path().join("sums.safetensors");
    curvature.log_likelihood = Some(f64::NAN);
    refuse(&curvature, &path, "log-likelihood");
    curvature.log_likelihood = None;
    curvature.config.structure = CurvatureStructure::Core;
    refuse(&curvature, &path, "core space");
}

#[test]
fn sums_of_the_same_items_or_of_another_adapter_do_not_merge() {
    for (fixture, model) in cases("refused merges").take(1) {
        let weights = read_adapter(&model).unwrap();
        let doubled = weights.iter().map(|(site, weight)| (site.clone(), weight * 2.0)).collect();
        let other = write_adapter(model.clone(), &doubled).unwrap();
        for structure in CurvatureStructure::ALL {
            let config = config(structure);
            let [here, there] = [0, 1].map(|k| half(&fixture.train, k));
            let own = fit(&model, &here, &config);
            let elsewhere = fit(&other, &there, &config);
            let (n, all) = (here.len(), fixture.train.len());
            let refused = [
                (own.clone(), format!("{n} items are in both curvature sums ({n} items here, {n} there)")),
                (
                    fit(&model, &fixture.train, &config),
                    format!("{n} items are in both curvature sums ({n} items here, {all}"),
                ),
                (elsewhere, "at which it was fitted".into()),
            ];
            for (second, expected) in refused {
                let error = own.clone().merge(second).unwrap_err().to_string();
                assert!(error.contains(&expected), "{structure}: {error}");
            }
        }
    }
}

#[test]
fn an_item_that_is_twice_in_the_data_counts_twice_in_one_fit() {
    for (fixture, model) in cases("repeated items").take(1) {
        let mut twice = fixture.train.clone();
        twice.items.extend(fixture.train.items.iter().cloned());
        let [one, two] = [&fixture.train, &twice].map(|data| fit(&model, data, &config(CurvatureStructure::Diagonal)));
        assert_eq!((two.n_data, &two.item_keys), (2 * one.n_data, &one.item_keys));
    }
}
