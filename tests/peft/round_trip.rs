//! Adapters travel between the real PEFT and this crate in both directions, and merged models to transformers, with the logits
//! that they had.
//!
//! `BAYES_LORA_PYTHON` names a Python with torch, peft (0.21) and transformers, `python3` by default; without these packages the
//! tests say so and pass. `BAYES_LORA_SMOLLM2` names a directory with SmolLM2-135M for the real model.

use crate::support::python::{has_peft, run, skip};
use crate::support::{device, root};
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, fit_curvature};
use bayes_lora::lora::{
    Adaptable, LoraConfig, SavedDraws, attach, load_peft, read_adapter, save_draws, save_peft, write_adapter,
};
use bayes_lora::models::{CausalLm, Pretrained, TokenBatch};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::prior::{PriorChoice, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Tape};
use burn::tensor::DType;
use ndarray::Array2;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// In f32, sums of some hundred terms in another order differ by 1e-6 to 1e-5 of logits of about 10. SmolLM2's logits reach 33 and
/// PyTorch's own f32 is off its f64 by 6e-5 on text and 4e-4 on random tokens, so that SmolLM2 is compared in f64; norms and
/// rotations are in f32 in transformers even then.
const TOLERANCE: f64 = 1e-4;
/// What f32 may differ from f64 on SmolLM2.
const SMOLLM2_F32: f64 = 1e-3;

fn python(arguments: &[&str]) {
    run("peft_round_trip.py", arguments);
}

// ---- logits -----------------------------------------------------------------------------------------------------

/// Token ids that the vocabulary has, of several lengths.
fn rows(vocabulary: usize) -> Vec<Vec<u32>> {
    let token = |seed: usize| (3 + (seed * 7919 + 11) % (vocabulary - 3)) as u32;
    [5, 9, 14].iter().enumerate().map(|(r, n)| (0..*n).map(|t| token(100 * r + t)).collect()).collect()
}

/// A base and how it is compared.
pub(super) struct Base {
    dir: PathBuf,
    dtype: DType,
    rows: Vec<Vec<u32>>,
}

impl Base {
    fn small(dir: PathBuf) -> Self {
        let vocabulary = Pretrained::from_dir(&dir).unwrap().config().vocab_size;
        Self { dir, dtype: DType::F32, rows: rows(vocabulary) }
    }

    fn source(&self) -> Pretrained {
        Pretrained::from_dir(&self.dir).unwrap().with_dtype(self.dtype)
    }

    fn load(&self) -> CausalLm {
        self.source().load(&device()).unwrap()
    }

    fn dir(&self) -> &str {
        self.dir.to_str().unwrap()
    }

    /// Runs a command of the script on this base.
    fn python(&self, command: &str, arguments: &[&str]) {
        let dtype = if self.dtype == DType::F64 { "float64" } else { "float32" };
        let rows = serde_json::to_string(&self.rows).unwrap();
        python(&[&[command, self.dir(), &rows, dtype], arguments].concat());
    }
}

fn logits(model: &CausalLm, row: &[u32]) -> Vec<f64> {
    let dtype = model.linears()[0].weight.val().dtype();
    let batch = TokenBatch::of_row(row, &device(), dtype).unwrap();
    let hidden = model.hidden(&batch, &mut Tape::off());
    let logits = model.head(hidden, None, &mut Tape::off());
    logits.into_data().convert::<f64>().try_into_vec().unwrap()
}

/// Largest difference to the logits that Python wrote.
fn difference(model: &CausalLm, rows: &[Vec<u32>], dir: &Path) -> f64 {
    let bytes = std::fs::read(dir.join("logits.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut largest = 0.0f64;
    for (r, row) in rows.iter().enumerate() {
        let theirs = file.tensor(&format!("row.{r}")).unwrap();
        let theirs = theirs.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap()));
        let ours = logits(model, row);
        assert_eq!(theirs.len(), ours.len());
        largest = ours.iter().zip(theirs).fold(largest, |m, (a, b)| m.max((a - b).abs()));
        assert!(ours.iter().all(|v| v.is_finite()));
    }
    largest
}

/// Largest difference of a logit that both vocabularies have.
fn between(a: &CausalLm, b: &CausalLm, rows: &[Vec<u32>]) -> f64 {
    let of_row = |row: &Vec<u32>| {
        let (x, y) = (logits(a, row), logits(b, row));
        let tokens = x.chunks(x.len() / row.len()).zip(y.chunks(y.len() / row.len()));
        tokens.flat_map(|(x, y)| x.iter().zip(y)).fold(0.0f64, |most, (x, y)| most.max((x - y).abs()))
    };
    rows.iter().map(of_row).fold(0.0, f64::max)
}

// ---- files ------------------------------------------------------------------------------------------------------

/// Tensors by name without the copies of frozen and wrapped weights, which are not written here.
fn tensors(dir: &Path) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(dir.join("adapter_model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let copies = [".base_layer.weight", ".original_module.weight", ".modules_to_save.weight"];
    let all = file.tensors().into_iter().filter(|(name, _)| !copies.iter().any(|copy| name.ends_with(copy)));
    all.map(|(name, view)| (name, (view.shape().to_vec(), view.data().to_vec()))).collect()
}

fn config(dir: &Path) -> BTreeMap<String, Value> {
    let text = std::fs::read_to_string(dir.join("adapter_config.json")).unwrap();
    let mut fields: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    // sets in PEFT, saved in any order
    for field in ["target_modules", "exclude_modules"] {
        if let Some(Value::Array(names)) = fields.get_mut(field) {
            names.sort_by_key(Value::to_string);
        }
    }
    fields
}

/// Compares what PEFT wrote with what was written again: every field but those about who wrote it and onto what.
fn check_config(theirs: &Path, ours: &Path, name: &str) {
    let (theirs, ours) = (config(theirs), config(ours));
    let fields = |config: &BTreeMap<String, Value>| config.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(fields(&ours), fields(&theirs), "{name}");
    for (field, value) in &theirs {
        if !["peft_version", "base_model_name_or_path", "revision"].contains(&field.as_str()) {
            assert_eq!(&ours[field], value, "{name}: {field}");
        }
    }
}

// ---- the round trip ---------------------------------------------------------------------------------------------

/// PEFT → here → PEFT for every case of one base.
pub(super) fn check_from_peft(base: &Base, cases: &Value) {
    let bare = base.load();
    let out = tempfile::tempdir().unwrap();
    base.python("make", &[&cases.to_string(), out.path().to_str().unwrap()]);
    let single = (base.dtype == DType::F64).then(|| Pretrained::from_dir(&base.dir).unwrap().load(&device()).unwrap());
    let mut again = Vec::new();
    for case in cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let theirs = out.path().join(name);
        let (model, lora) = load_peft(bare.clone(), &theirs).unwrap();
        let moved = between(&model, &bare, &base.rows);
        let found = difference(&model, &base.rows, &theirs);
        println!("{name}: made by PEFT, loaded here: {found:.1e} (the adapter moves logits by {moved:.1e})");
        assert!(moved > 100.0 * TOLERANCE && found < TOLERANCE, "{name}: {found:e} of {moved:e}");
        if let Some(single) = &single {
            let found = difference(&load_peft(single.clone(), &theirs).unwrap().0, &base.rows, &theirs);
            println!("{name}: the same in f32: {found:.1e}");
            assert!(found < SMOLLM2_F32, "{name}: {found:e}");
        }

        let ours = out.path().join(format!("{name}-again"));
        save_peft(&model, &lora, base.dir(), &ours).unwrap();
        check_config(&theirs, &ours, name);
        if ["dtype", "names", "copies"].iter().all(|key| case.get(key).is_none()) {
            assert_eq!(tensors(&ours), tensors(&theirs), "{name}");
        }
        again.push((ours, model, case));
    }
    let job = |dir: &PathBuf, case: &Value| json!({"kind": "adapter", "dir": dir, "resize": case["resize"], "auto": case["auto"]});
    let jobs: Vec<Value> = again.iter().map(|(dir, _, case)| job(dir, case)).collect();
    base.python("logits", &[&json!(jobs).to_string()]);
    for (dir, model, _) in &again {
        let found = difference(model, &base.rows, dir);
        println!("{}: written here, loaded by PEFT: {found:.1e}", dir.file_name().unwrap().to_string_lossy());
        assert!(found < TOLERANCE, "{}: {found:e}", dir.display());
    }
}

/// A trained adapter has A and B far from their start; the numbers do not matter.
fn moved(model: CausalLm, seed: u64) -> CausalLm {
    let mut weights = read_adapter(&model).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for (site, weight) in &mut weights {
        if site.matrix == LoraMatrix::B {
            *weight = Array2::from_shape_simple_fn(weight.dim(), || f64::from(rng.random_range(-0.1f32..0.1)));
        }
    }
    write_adapter(model, &weights).unwrap()
}

/// Here → PEFT, and here → merged → transformers, for every configuration.
fn check_to_peft(base: &Base, cases: Vec<(&str, LoraConfig)>) {
    let (source, bare) = (base.source(), base.load());
    let out = tempfile::tempdir().unwrap();
    let mut jobs = Vec::new();
    for (seed, (name, lora)) in cases.into_iter().enumerate() {
        let model = moved(attach(bare.clone(), &lora, seed as u64).unwrap(), seed as u64);
        let (adapter, merged) = (out.path().join(name), out.path().join(format!("{name}-merged")));
        save_peft(&model, &lora, base.dir(), &adapter).unwrap();
        println!("{}", source.merge_and_save(&model, &base.rows, TOLERANCE, &merged).unwrap());
        jobs.push(("adapter", adapter, model.clone()));
        jobs.push(("model", merged, model));
    }
    let text: Vec<Value> = jobs.iter().map(|(kind, dir, _)| json!({"kind": kind, "dir": dir})).collect();
    base.python("logits", &[&json!(text).to_string()]);
    for (kind, dir, model) in &jobs {
        let (found, moved) = (difference(model, &base.rows, dir), between(model, &bare, &base.rows));
        let name = dir.file_name().unwrap().to_string_lossy().to_string();
        println!("{name}: made here, loaded as {kind} in Python: {found:.1e} (moved by {moved:.1e})");
        assert!(moved > 100.0 * TOLERANCE && found < TOLERANCE, "{name}: {found:e} of {moved:e}");
    }
}

pub(super) fn fixture(name: &str) -> Base {
    Base::small(root().join("tests/fixtures").join(name).join("base"))
}

pub(super) fn stories() -> Base {
    Base::small(root().join("assets/stories260K"))
}

/// "The capital of France is Paris." and two more sentences as SmolLM2 reads them.
const SMOLLM2_ROWS: [&[u32]; 3] = [
    &[504, 3575, 282, 4649, 314, 7042, 30],
    &[12615, 36411, 418, 253, 3822, 5027, 28, 284, 357, 43145, 418, 6708, 30],
    &[17872, 42, 10366, 282, 623, 314, 253, 24366, 47, 330, 30, 23008, 389, 30, 10581, 340, 30, 41038, 422, 30, 20398],
];

const LAYER_REGEX: &str = r"model\.layers\.[01]\.self_attn\.(q|v)_proj";

fn patterned(config: LoraConfig) -> LoraConfig {
    let mut config = config.with_use_rslora(true);
    config.rank_pattern = BTreeMap::from([(r"layers\.1\..*q_proj".into(), 2), ("down_proj".into(), 5)]);
    config.alpha_pattern = BTreeMap::from([("v_proj".into(), 3.0)]);
    config
}

fn own_cases() -> Vec<(&'static str, LoraConfig)> {
    let names = |names: &[&str]| LoraConfig::new(4).with_target_modules(names.iter().copied());
    vec![
        ("plain", names(&["q_proj", "v_proj"])),
        ("rslora-patterns", patterned(names(&["q_proj", "v_proj", "down_proj"]))),
        ("regex", LoraConfig::new(4).with_target_pattern(LAYER_REGEX)),
        ("head", names(&["q_proj", "lm_head"])),
        ("layers", names(&["q_proj", "up_proj"]).with_layers_to_transform([1])),
    ]
}

// ---- cases ------------------------------------------------------------------------------------------------------

#[test]
fn adapters_of_peft_on_an_untied_llama_give_their_logits_here_and_back() {
    if !has_peft("untied llama") {
        return;
    }
    let qv = json!(["q_proj", "v_proj"]);
    let cases = json!([
        {"name": "plain", "seed": 0, "config": {"r": 4, "lora_alpha": 8, "target_modules": qv}},
        {"name": "all-linear-rslora", "seed": 1,
         "config": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "use_rslora": true}},
        {"name": "patterns", "seed": 2,
         "config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"],
                    "rank_pattern": {"layers.1.self_attn.q_proj": 2, "down_proj": 3}, "alpha_pattern": {"v_proj": 5}}},
        {"name": "regex", "seed": 3, "config": {"r": 3, "lora_alpha": 4, "target_modules": LAYER_REGEX}},
        {"name": "head", "seed": 4, "config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "lm_head"]}},
        {"name": "layers-list", "seed": 5,
         "config": {"r": 4, "lora_alpha": 8, "target_modules": qv, "layers_to_transform": [1], "layers_pattern": "layers"}},
        {"name": "layers-int", "seed": 6, "config": {"r": 4, "lora_alpha": 8, "target_modules": qv, "layers_to_transform": 0}},
        {"name": "excluded", "seed": 7,
         "config": {"r": 4, "lora_alpha": 8, "target_modules": qv, "exclude_modules": r".*layers\.0\..*q_proj"}},
        {"name": "saved-head", "seed": 8, "lr": 0.01,
         "config": {"r": 4, "lora_alpha": 8, "target_modules": qv, "modules_to_save": ["lm_head"]}},
        {"name": "saved-mlp", "seed": 9, "lr": 0.01,
         "config": {"r": 4, "lora_alpha": 8, "target_modules": qv, "modules_to_save": ["mlp"]}},
        {"name": "bf16", "seed": 10, "dtype": "bfloat16", "config": {"r": 4, "lora_alpha": 8, "target_modules": qv}},
        {"name": "f16", "seed": 11, "dtype": "float16", "config": {"r": 4, "lora_alpha": 8, "target_modules": qv}},
        {"name": "bare-names", "seed": 12, "names": "bare", "config": {"r": 4, "lora_alpha": 8, "target_modules": qv}},
        {"name": "no-biases", "seed": 13, "config": {"r": 4, "lora_alpha": 8, "target_modules": qv, "bias": "all"}},
    ]);
    check_from_peft(&fixture("tiny_llama"), &cases);
}

/// Norms on heads, fused projections, shifted gains, norms behind, a larger model.
#[test]
fn adapters_of_peft_on_other_families_give_their_logits_here_and_back() {
    if !has_peft("families") {
        return;
    }
    for (seed, (family, targets)) in [
        ("qwen3", json!(["q_proj", "v_proj", "down_proj"])),
        ("phi3", json!(["qkv_proj", "gate_up_proj"])),
        ("gemma3_text", json!("all-linear")),
        ("olmo2", json!(["k_proj", "o_proj"])),
    ]
    .into_iter()
    .enumerate()
    {
        let base = Base::small(crate::support::families::dir(family));
        let cases =
            json!([{"name": family, "seed": seed, "config": {"r": 4, "lora_alpha": 8, "target_modules": targets}}]);
        check_from_peft(&base, &cases);
        let own = match family {
            "phi3" => LoraConfig::new(4).with_target_modules(["qkv_proj", "down_proj"]),
            _ => LoraConfig::new(4).with_target_modules(["q_proj", "up_proj"]),
        };
        check_to_peft(&base, vec![("own", own)]);
    }
}

#[test]
fn adapters_made_here_give_their_logits_in_peft_and_merged_in_transformers() {
    if !has_peft("adapters made here") {
        return;
    }
    for base in [fixture("tiny_llama"), fixture("tiny_qwen2"), stories()] {
        check_to_peft(&base, own_cases());
    }
}

#[test]
fn draws_of_a_posterior_give_their_logits_in_peft() {
    if !has_peft("draws") {
        return;
    }
    let (fixture, base) = (crate::support::Fixture::load("tiny_llama"), fixture("tiny_llama"));
    let (model, config) = load_peft(fixture.bare(DType::F32), fixture.dir().join("adapter")).unwrap();
    for structure in [CurvatureStructure::Core, CurvatureStructure::Kronecker] {
        let curvature = CurvatureConfig::default().with_structure(structure);
        let curvature = fit_curvature(&model, &fixture.train, &curvature, &Control::silent()).unwrap();
        let prior = PriorChoice::Fixed(PriorPrecision::new(10.0).unwrap());
        let laplace = Laplace::new(&model, &curvature, &LaplaceConfig::default().with_prior(prior)).unwrap();
        let (out, draws) = (tempfile::tempdir().unwrap(), SavedDraws { n: 10, seed: 3 });
        let places = save_draws((&model.lm, &config), base.dir(), &laplace, draws, out.path()).unwrap();
        let jobs: Vec<Value> = places.iter().map(|dir| json!({"kind": "adapter", "dir": dir})).collect();
        base.python("logits", &[&json!(jobs).to_string()]);
        for (index, place) in places.iter().enumerate() {
            let drawn = write_adapter(model.lm.clone(), &laplace.sample(3, index as u64)).unwrap();
            let (found, moved) = (difference(&drawn, &base.rows, place), between(&drawn, &model.lm, &base.rows));
            println!("{structure}, draw {index}: in PEFT {found:.1e} (moved by {moved:.1e})");
            assert!(moved > 100.0 * TOLERANCE && found < TOLERANCE, "{structure} {index}: {found:e} of {moved:e}");
        }
    }
}

#[test]
fn smollm2_takes_adapters_of_peft_and_gives_them_back() {
    let Ok(base) = std::env::var("BAYES_LORA_SMOLLM2") else {
        skip("SmolLM2: skipped, BAYES_LORA_SMOLLM2 names no directory");
        return;
    };
    if !has_peft("SmolLM2") {
        return;
    }
    let rows = SMOLLM2_ROWS.iter().map(|row| row.to_vec()).collect();
    let base = Base { dir: base.into(), dtype: DType::F64, rows };
    let qv = json!(["q_proj", "v_proj"]);
    let cases = json!([
        {"name": "plain", "seed": 0, "steps": 2, "b": 0.02, "config": {"r": 8, "lora_alpha": 16, "target_modules": qv}},
        {"name": "rslora-patterns", "seed": 1, "steps": 2,
         "config": {"r": 8, "lora_alpha": 8, "target_modules": qv, "use_rslora": true,
                    "rank_pattern": {r"layers\.(1|29)\..*q_proj": 4}, "alpha_pattern": {"v_proj": 5}}},
        {"name": "regex", "seed": 2, "steps": 2, "b": 0.02, "config": {"r": 4, "lora_alpha": 8, "target_modules": LAYER_REGEX}},
        {"name": "head", "seed": 3, "steps": 2, "b": 0.02, "config": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "lm_head"]}},
    ]);
    check_from_peft(&base, &cases);
    check_to_peft(&base, own_cases().into_iter().take(4).collect());
}

#[test]
fn the_number_of_linears_that_carry_an_adapter_is_that_of_peft() {
    if !has_peft("counts") {
        return;
    }
    // the logits of small updates hide a forgotten module, the tensors of the file do not
    let base = fixture("tiny_llama");
    let out = tempfile::tempdir().unwrap();
    let cases = json!([{"name": "all", "seed": 0, "config": {"r": 2, "target_modules": "all-linear"}}]);
    base.python("make", &[&cases.to_string(), out.path().to_str().unwrap()]);
    let names: BTreeSet<String> = tensors(&out.path().join("all")).into_keys().collect();
    let own = attach(base.load(), &LoraConfig::new(2), 0).unwrap();
    let dir = out.path().join("own");
    save_peft(&own, &LoraConfig::new(2), "tiny", &dir).unwrap();
    assert_eq!(tensors(&dir).into_keys().collect::<BTreeSet<_>>(), names);
    assert_eq!(names.len(), 2 * own.linears().iter().filter(|l| l.adapter.is_some()).count());
}
