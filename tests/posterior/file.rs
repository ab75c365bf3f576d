//! A posterior that is saved comes back bit by bit, and a damaged or foreign one is refused.

use crate::support::{FIXTURES, Fixture, device, root};
use bayes_lora::bayes_lora::{BayesLoraConfig, FittedBayesLora};
use bayes_lora::belief::LogitGauge;
use bayes_lora::curvature::{
    Curvature, CurvatureConfig, CurvatureStructure, RandomProjection, correct_eigenvalues, fit_curvature,
};
use bayes_lora::data::{
    AnswerForm, BatchLimits, EncodedDataset, Encoding, Normalization, PromptTemplate, Task, Tokenizer, Truncation,
};
use bayes_lora::lora::{LoraConfig, attach, base_fingerprint, load_peft, read_adapter, write_adapter};
use bayes_lora::models::{Mlp, MlpConfig, Points, Pretrained, PromptClassifier};
use bayes_lora::posterior::{AnswerTemperatures, Laplace, LaplaceConfig, POSTERIOR_FILE};
use bayes_lora::predict::{Predictive, predict, predict_linearized};
use bayes_lora::prior::{PriorGrouping, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::search::{Search, SearchEnd};
use burn::tensor::DType;
use ndarray::{Array2, Axis};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use std::path::Path;

const LIMITS: BatchLimits = BatchLimits { max_items: 8, max_tokens: 4096 };
const SAMPLED: Predictive = Predictive::Sampled { n_samples: 3, seed: 2 };

fn config(structure: CurvatureStructure) -> CurvatureConfig {
    CurvatureConfig::new(structure).with_limits(LIMITS)
}

/// A small perceptron with an adapter that has left its start, and its points.
fn small() -> (Mlp, Points) {
    let model = attach(MlpConfig::new([3, 4, 2]).init(&device()).unwrap(), &LoraConfig::new(1), 0).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut weights = read_adapter(&model).unwrap();
    weights.values_mut().for_each(|w| w.mapv_inplace(|_| f64::from(rng.random_range(-1.0f32..1.0))));
    let features = Array2::from_shape_fn((6, 3), |_| rng.random_range(-1.0..1.0));
    (write_adapter(model, &weights).unwrap(), Points::new(features, vec![0, 1, 0, 1, 1, 0]).unwrap())
}

/// Saves the posterior of that perceptron, and gives the model.
fn save_small(structure: CurvatureStructure, path: &Path) -> Mlp {
    let (model, points) = small();
    let curvature = fit_curvature(&model, &points, &config(structure), &Control::silent()).unwrap();
    Laplace::new(&model, &curvature, &LaplaceConfig::default()).unwrap().save(path, &model).unwrap();
    model
}

#[test]
fn what_is_loaded_predicts_and_draws_as_what_was_saved() {
    let fixture = Fixture::load(FIXTURES[0]);
    let model = fixture.model(DType::F32);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(POSTERIOR_FILE);
    let cut = config(CurvatureStructure::Kronecker).with_dense_limit(0).with_low_rank(3);
    let sketched = config(CurvatureStructure::FunctionSpace).with_projection(RandomProjection { width: 100, seed: 3 });
    for config in CurvatureStructure::ALL.map(config).into_iter().chain([cut, sketched]) {
        let curvature = fit_curvature(&model, &fixture.train, &config, &Control::silent()).unwrap();
        let prior_grouping = match config.structure {
            CurvatureStructure::Kronecker => PriorGrouping::PerMatrix,
            _ => PriorGrouping::Scalar,
        };
        let settings = LaplaceConfig::default().with_prior_grouping(prior_grouping).with_temperature(0.7);
        let mut saved = Laplace::new(&model, &curvature, &settings).unwrap();
        if config.structure == CurvatureStructure::FunctionSpace {
            let of = |beta| Search::new("inverse temperature", beta, (0.01, 1.0), SearchEnd::Inside);
            let plain = saved.clone();
            saved = saved.with_answer_temperatures(AnswerTemperatures { network: of(0.25), posterior: of(0.7) });
            let answers = |laplace: &Laplace, how| {
                predict(&model, laplace, &fixture.test, how, &LIMITS, &Control::silent()).unwrap().belief
            };
            for (how, beta) in [(Predictive::Map, 0.25), (Predictive::default(), 0.7), (SAMPLED, 0.7)] {
                assert_eq!(answers(&saved, how), answers(&plain, how).tempered(beta), "{how:?}");
            }
            // of another prior nothing is known
            let other = saved.clone().with_prior_precisions(PriorPrecision::new(3.0).unwrap()).unwrap();
            assert_eq!(other.answer_temperatures(), None);
        }
        saved.save(&path, &model).unwrap();
        let loaded = Laplace::load(&path, &model).unwrap();
        let beliefs = [&saved, &loaded].map(|laplace| {
            predict_linearized(&model, laplace, &fixture.test, LogitGauge::Centred, &LIMITS, &Control::silent())
                .unwrap()
        });
        assert_eq!(beliefs[0].moments(), beliefs[1].moments(), "{config:?}");
        assert_eq!(saved.sample(3, 1), loaded.sample(3, 1), "{config:?}");
        assert_eq!(saved.answer_temperatures(), loaded.answer_temperatures(), "{config:?}");
        let numbers = |laplace: &Laplace| {
            let precisions = laplace.prior_precisions().clone();
            (laplace.log_marginal_likelihood(&precisions).unwrap(), laplace.groups().to_vec(), precisions)
        };
        assert_eq!(numbers(&saved), numbers(&loaded), "{config:?}");
        assert_eq!(saved.optimize_prior().unwrap(), loaded.optimize_prior().unwrap(), "{config:?}");
        assert_eq!(saved.fitted_on(), loaded.fitted_on());
    }
}

#[test]
fn a_posterior_knows_the_data_that_it_was_fitted_on_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(POSTERIOR_FILE);
    let model = save_small(CurvatureStructure::Diagonal, &path);
    let laplace = Laplace::load(&path, &model).unwrap();
    let fitted_on = laplace.fitted_on();
    let (_, points) = small();
    let take = |order: &[usize]| {
        let labels = order.iter().map(|&i| points.labels[i]).collect();
        Points::new(points.features.select(Axis(0), order), labels).unwrap()
    };
    fitted_on.check(&points).unwrap();
    fitted_on.check(&take(&[5, 4, 3, 2, 1, 0])).unwrap();
    let error = fitted_on.check(&take(&[0, 1, 2, 3, 4])).unwrap_err().to_string();
    assert!(error.contains("6 items") && error.contains("these are 5"), "{error}");
    assert!(fitted_on.check(&take(&[0, 1, 2, 3, 4, 4])).is_err());
}

/// The fixture's own adapter with its posterior in core space.
fn fitted_in_core_space(fixture: &Fixture) -> FittedBayesLora<PromptClassifier> {
    let (model, lora) =
        load_peft(fixture.model_for(&fixture.train, DType::F32), fixture.dir().join("adapter")).unwrap();
    let bayes = BayesLoraConfig::new(lora).with_limits(LIMITS).with_curvature(config(CurvatureStructure::Core));
    bayes.init().unwrap().fit_laplace(model, &fixture.train).unwrap()
}

#[test]
fn an_adapter_and_its_posterior_share_a_directory() {
    let fixture = Fixture::load(FIXTURES[0]);
    let dir = tempfile::tempdir().unwrap();
    let fitted = fitted_in_core_space(&fixture);
    fitted.save(dir.path(), "tiny").unwrap();
    let base = fixture.model_for(&fixture.train, DType::F32);
    let loaded = FittedBayesLora::load(base, dir.path(), LIMITS).unwrap();
    for how in [Predictive::default(), Predictive::Sampled { n_samples: 3, seed: 1 }] {
        let [a, b] = [&fitted, &loaded].map(|f| f.predict(&fixture.test, how, &Control::silent()).unwrap());
        assert_eq!(a.probabilities, b.probabilities, "{how:?}");
    }
    let wrong = FittedBayesLora { lora: LoraConfig::new(3), ..loaded };
    let error = wrong.save(dir.path(), "tiny").unwrap_err().to_string();
    assert!(error.contains("rank 3") && error.contains("rank 4"), "{error}");
}

#[test]
fn another_adapter_or_base_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(POSTERIOR_FILE);
    let model = save_small(CurvatureStructure::Kronecker, &path);
    let mut weights = read_adapter(&model).unwrap();
    weights.values_mut().next().unwrap()[[0, 0]] += 0.5;
    let other = write_adapter(model.clone(), &weights).unwrap();
    let error = Laplace::load(&path, &other).unwrap_err().to_string();
    assert!(error.contains("posterior") && error.contains("fingerprints"), "{error}");
    // the same adapter on a base with other weights
    let base = attach(MlpConfig::new([3, 4, 2]).with_seed(9).init(&device()).unwrap(), &LoraConfig::new(1), 0);
    let elsewhere = write_adapter(base.unwrap(), &read_adapter(&model).unwrap()).unwrap();
    let error = Laplace::load(&path, &elsewhere).unwrap_err().to_string();
    assert!(error.contains("another base model") && error.contains("fingerprints"), "{error}");
    // the same matrices at another scale, or under another dropout
    let base = || MlpConfig::new([3, 4, 2]).init(&device()).unwrap();
    for config in [LoraConfig::new(1).with_alpha(32.0), LoraConfig::new(1).with_dropout(0.5)] {
        let scaled = write_adapter(attach(base(), &config, 0).unwrap(), &read_adapter(&model).unwrap()).unwrap();
        let error = Laplace::load(&path, &scaled).unwrap_err().to_string();
        assert!(error.contains("another scale or dropout") && error.contains("fingerprints"), "{error}");
    }
}

#[test]
fn a_base_is_known_whatever_its_adapter() {
    let base = |seed| MlpConfig::new([3, 4, 2]).with_seed(seed).init(&device()).unwrap();
    let plain = base_fingerprint(&base(0)).unwrap();
    assert_eq!(plain, base_fingerprint(&attach(base(0), &LoraConfig::new(1), 0).unwrap()).unwrap());
    assert_eq!(plain, base_fingerprint(&attach(base(0), &LoraConfig::new(2), 7).unwrap()).unwrap());
    assert_ne!(plain, base_fingerprint(&base(1)).unwrap());
}

#[test]
fn every_flipped_byte_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(POSTERIOR_FILE);
    let model = save_small(CurvatureStructure::Core, &path);
    let whole = std::fs::read(&path).unwrap();
    for place in 0..whole.len() {
        for bit in [0x01, 0x10] {
            let mut bytes = whole.clone();
            bytes[place] ^= bit;
            std::fs::write(&path, &bytes).unwrap();
            assert!(Laplace::load(&path, &model).is_err(), "byte {place} of {}, bit {bit:#x}", whole.len());
        }
    }
    std::fs::write(&path, &whole).unwrap();
    Laplace::load(&path, &model).unwrap();
    println!("{} damaged files were refused", 2 * whole.len());
}

// ---- how the questions were asked --------------------------------------------------------------------------------

const ASKED_LIMITS: BatchLimits = BatchLimits { max_items: 4, max_tokens: 4096 };

/// Eight questions about the areas of MMLU, for stories260K.
fn questions(encoding: &Encoding) -> EncodedDataset {
    let task = Task::from_jsonl(root().join("assets/mmlu_areas/test.jsonl.gz")).unwrap().sample(8, 0).unwrap();
    encoding.encode(&task, &Tokenizer::from_dir(root().join("assets/stories260K")).unwrap()).unwrap()
}

fn by_area() -> Encoding {
    Encoding::new(PromptTemplate::question_area(), AnswerForm::class_tokens(["A", "B", "C", "D"]))
        .with_max_tokens(64)
        .with_truncation(Truncation::End)
}

/// The base, asked in the form of the data.
fn stories(data: &EncodedDataset) -> PromptClassifier {
    let lm = Pretrained::from_dir(root().join("assets/stories260K")).unwrap().load(&device()).unwrap();
    PromptClassifier::new(lm, data).unwrap()
}

/// A posterior around an adapter that has learnt nothing; the prior is given, for evidence has nothing to say about it.
fn fitted_on(data: &EncodedDataset, curvature: CurvatureConfig) -> FittedBayesLora<PromptClassifier> {
    let lora = LoraConfig::new(1).with_target_modules(["q_proj"]);
    let prior_precision = PriorPrecision::new(1.0).unwrap();
    let bayes = BayesLoraConfig::new(lora.clone())
        .with_limits(ASKED_LIMITS)
        .with_curvature(curvature)
        .with_laplace(LaplaceConfig::default().with_prior_precision(prior_precision));
    bayes.init().unwrap().fit_laplace(attach(stories(data), &lora, 0).unwrap(), data).unwrap()
}

#[test]
fn a_posterior_remembers_how_its_questions_were_asked_and_refuses_another_way() {
    let data = questions(&by_area());
    let dir = tempfile::tempdir().unwrap();
    fitted_on(&data, config(CurvatureStructure::Kronecker)).save(dir.path(), "stories260K").unwrap();
    let loaded = FittedBayesLora::load(stories(&data), dir.path(), ASKED_LIMITS).unwrap();
    let asked = loaded.laplace.fitted_on().asked.clone().unwrap();
    assert_eq!(Some(&asked), data.asked.as_ref());
    // what it remembers is enough to ask again
    let again = questions(&asked.encoding);
    assert_eq!((&again.items, &again.answers), (&data.items, &data.answers));
    let expected = loaded.predict_calibrated(&again).unwrap();

    let per_character = AnswerForm::Continuation { normalization: Normalization::PerCharacter };
    let tokens = AnswerForm::class_tokens(["D", "C", "B", "A"]);
    let other_tokenizer = {
        let mut data = data.clone();
        data.asked.as_mut().unwrap().tokenizer ^= 1;
        data
    };
    let id = |class: usize| asked.class_tokens[class].to_string();
    let with = |encoding: Encoding| questions(&encoding);
    let others: [(EncodedDataset, Vec<String>); 5] = [
        (
            with(Encoding { template: PromptTemplate::multiple_choice(), ..by_area() }),
            vec!["`question_area`".into(), "`multiple_choice`".into(), by_area().template.fingerprint()],
        ),
        (with(Encoding { answers: tokens, ..by_area() }), vec![format!("`A` = {}", id(0)), format!("`D` = {}", id(3))]),
        (
            with(Encoding { answers: per_character, ..by_area() }),
            vec!["the class tokens".into(), "continuations per character".into()],
        ),
        (with(by_area().with_max_tokens(32)), vec!["to 64 tokens".into(), "to 32 tokens".into()]),
        (other_tokenizer, vec![format!("{:016x}", asked.tokenizer), format!("{:016x}", asked.tokenizer ^ 1)]),
    ];
    for (other, parts) in others {
        let form = PromptClassifier::new(loaded.model.lm.clone(), &other).unwrap();
        let serving = FittedBayesLora { model: form, ..loaded.clone() };
        let ways = [Predictive::Map, Predictive::Sampled { n_samples: 2, seed: 0 }, Predictive::default()];
        let errors = ways.map(|how| serving.predict(&other, how, &Control::silent()).unwrap_err());
        let tuned = serving.clone().tune_prior(&other, &Control::silent()).map(|_| ()).unwrap_err();
        for error in errors.into_iter().chain([tuned]) {
            let error = error.to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error} lacks one of {parts:?}");
            assert!(error.contains("with_any_way_of_asking"), "{error}");
        }
        // who insists is answered
        let insisting = FittedBayesLora { laplace: serving.laplace.clone().with_any_way_of_asking(), ..serving };
        assert_eq!(insisting.predict_calibrated(&other).unwrap().probabilities.nrows(), 8);
    }
    // data that do not know how they were asked are compared with nothing
    let unknown = EncodedDataset { asked: None, ..data.clone() };
    assert_eq!(loaded.predict_calibrated(&unknown).unwrap(), expected);
    loaded.laplace.fitted_on().check(&data).unwrap();
    assert!(loaded.laplace.fitted_on().check(&with(by_area().with_max_tokens(32))).is_err());
}

#[test]
fn sums_of_questions_asked_in_two_ways_do_not_merge() {
    let shard = |encoding: &Encoding, half: usize| {
        let mut data = questions(encoding);
        data.items = data.items.into_iter().skip(4 * half).take(4).collect();
        let model = attach(stories(&data), &LoraConfig::new(1).with_target_modules(["q_proj"]), 0).unwrap();
        fit_curvature(&model, &data, &config(CurvatureStructure::Diagonal), &Control::silent()).unwrap()
    };
    let (first, short) = (shard(&by_area(), 0), shard(&by_area().with_max_tokens(32), 1));
    let error = first.clone().merge(short).unwrap_err().to_string();
    assert!(error.contains("to 64 tokens there") && error.contains("to 32 tokens here"), "{error}");
    // the sums remember it in their file, too
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sums.safetensors");
    first.save(&path).unwrap();
    let merged = Curvature::load(&path).unwrap().merge(shard(&by_area(), 1)).unwrap();
    assert_eq!(merged.asked.as_ref(), questions(&by_area()).asked.as_ref());
}

#[test]
fn eigenvalues_are_corrected_with_questions_asked_as_before() {
    let data = questions(&by_area());
    let model = attach(stories(&data), &LoraConfig::new(1).with_target_modules(["q_proj"]), 0).unwrap();
    let factors = fit_curvature(&model, &data, &config(CurvatureStructure::Kronecker), &Control::silent()).unwrap();
    let correct = |data: &EncodedDataset| correct_eigenvalues(&model, data, &factors, &Control::silent());
    let error = correct(&questions(&by_area().with_max_tokens(32))).unwrap_err().to_string();
    assert!(error.contains("to 64 tokens there") && error.contains("to 32 tokens here"), "{error}");
    assert_eq!(correct(&data).unwrap().asked, data.asked);
    assert!(correct(&EncodedDataset { asked: None, ..data }).is_ok());
}

// ---- where it lies -----------------------------------------------------------------------------------------------

#[test]
fn a_posterior_lies_elsewhere_where_the_adapter_is_only_read() {
    let fixture = Fixture::load(FIXTURES[0]);
    let dir = tempfile::tempdir().unwrap();
    let fitted = fitted_in_core_space(&fixture);
    let (adapter, place) = (dir.path().join("adapter"), dir.path().join("new/mine.safetensors"));
    fitted.save(&adapter, "tiny").unwrap();
    std::fs::remove_file(adapter.join(POSTERIOR_FILE)).unwrap();
    #[cfg(unix)]
    {
        // root writes there all the same: what is there is compared below
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&adapter, std::fs::Permissions::from_mode(0o555)).unwrap();
    }
    let listing = || {
        let entry = |e: std::io::Result<std::fs::DirEntry>| {
            let e = e.unwrap();
            (e.file_name(), e.metadata().unwrap().modified().unwrap())
        };
        let mut all: Vec<_> = std::fs::read_dir(&adapter).unwrap().map(entry).collect();
        all.sort();
        (all, std::fs::metadata(&adapter).unwrap().modified().unwrap())
    };
    let before = listing();
    fitted.save_posterior_to(&place).unwrap();
    let base = || fixture.model_for(&fixture.train, DType::F32);
    let loaded = FittedBayesLora::load_with_posterior(base(), &adapter, &place, LIMITS).unwrap();
    assert_eq!(listing(), before);
    let answers = [&fitted, &loaded].map(|f| f.predict_calibrated(&fixture.test).unwrap());
    assert_eq!(answers[0], answers[1]);
    let error = FittedBayesLora::load(base(), &adapter, LIMITS).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(POSTERIOR_FILE), "{error}");
    #[cfg(unix)]
    {
        // so that it can be removed
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&adapter, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn nothing_is_written_where_not_everything_can_be() {
    let fixture = Fixture::load(FIXTURES[0]);
    let (model, lora) =
        load_peft(fixture.model_for(&fixture.train, DType::F32), fixture.dir().join("adapter")).unwrap();
    let bayes = BayesLoraConfig::new(lora).with_limits(LIMITS).with_curvature(config(CurvatureStructure::Kronecker));
    let fitted = bayes.init().unwrap().fit_laplace(model, &fixture.train).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for outcome in [
        fitted.save(file.join("adapter"), "tiny"),
        fitted.save(&file, "tiny"),
        fitted.save_posterior_to(file.join("p.safetensors")),
        fitted.save_posterior_to(dir.path()),
    ] {
        let error = outcome.unwrap_err();
        assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    // the value is still there, for another place
    fitted.save(dir.path().join("adapter"), "tiny").unwrap();
}
