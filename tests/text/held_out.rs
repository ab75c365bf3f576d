//! The prior precision that held-out texts ask for, by draws.

use super::{ALL, llama, mistral, sampled, texts};
use crate::support::{f64_or_skip, root};
use bayes_lora::BayesLoraConfig;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, FisherKind, fit_curvature};
use bayes_lora::data::{BatchLimits, TextEncoding, Tokenizer, read_texts};
use bayes_lora::likelihood::NextToken;
use bayes_lora::lora::{LoraConfig, read_adapter, write_adapter};
use bayes_lora::models::{Classifier, Dataset, Pretrained, TextModel};
use bayes_lora::posterior::{DrawnHeldOut, Laplace, LaplaceConfig};
use bayes_lora::prior::{PriorPrecision, PriorPrecisions};
use bayes_lora::progress::Control;
use bayes_lora::search::SearchEnd;
use bayes_lora::train::TrainerConfig;
use burn::tensor::DType;
use ndarray::Array1;

fn precision(value: f64) -> PriorPrecisions {
    PriorPrecision::new(value).unwrap().into()
}

#[test]
fn the_likelihood_of_held_out_texts_is_that_of_probabilities_averaged_over_draws_one_by_one() {
    if !f64_or_skip("held-out texts") {
        return;
    }
    let (model, data, control) = (mistral(), texts(64), Control::silent());
    let config = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(5.0).unwrap());
    for structure in [CurvatureStructure::Core, CurvatureStructure::Kronecker] {
        let curvature = fit_curvature(&model, &data, &sampled(structure, 2, 3), &control).unwrap();
        let laplace = Laplace::new(&model, &curvature, &config).unwrap();
        let n = 3;
        let log_p = |seed: u64, at: f64| -> f64 {
            let laplace = laplace.clone().with_prior_precisions(precision(at)).unwrap();
            let items: Vec<usize> = (0..data.len()).collect();
            let of_draw = |index: u64| -> Array1<f64> {
                let model = write_adapter(model.clone(), &laplace.sample(seed, index)).unwrap();
                let batch = data.batch(&items, &model.device(), model.dtype()).unwrap();
                model.token_scores(&batch).unwrap().iter().flatten().map(|token| token.log_probability.exp()).collect()
            };
            let mean = (0..n).map(of_draw).reduce(|a, b| a + b).unwrap() / n as f64;
            -mean.mapv(f64::ln).sum() / data.n_scored() as f64
        };
        for limits in [ALL, BatchLimits { max_items: 4, max_tokens: 60 }] {
            let held_out = DrawnHeldOut::new(&model, &laplace, &data, (n as usize, 9), &limits, &control).unwrap();
            for at in [0.5, 5.0, 500.0] {
                let found = held_out.mean_nll(&precision(at)).unwrap();
                assert!((found / log_p(9, at) - 1.0).abs() < 1e-10, "{structure} {at}"); // rounding
            }
            // without doubt it is the trained adapter's
            let map: f64 = -crate::support::logits(&model, &data).sum() / data.n_scored() as f64;
            assert!((held_out.mean_nll(&precision(1e20)).unwrap() / map - 1.0).abs() < 1e-8); // draws move by 1e-10
        }
        assert!((log_p(9, 0.5) - log_p(10, 0.5)).abs() > 1e-6);
    }
}

#[test]
fn the_prior_precision_that_held_out_texts_choose_is_the_best_of_a_dense_grid() {
    let dir = root().join("assets/stories260K");
    let lm = Pretrained::from_dir(&dir).unwrap().load(&crate::support::device()).unwrap();
    let tokenizer = Tokenizer::from_dir(&dir).unwrap();
    let items = read_texts(root().join("examples/finetune_text/animals.jsonl")).unwrap();
    let data = TextEncoding::default().encode("animals", &items, &tokenizer).unwrap();
    let (train, held_out) = data.split(100, 0).unwrap();
    assert_eq!((train.len(), held_out.len()), (20, 100));
    let (train, held_out) = (train, held_out.split(76, 1).unwrap().0);
    let curvature = CurvatureConfig::new(CurvatureStructure::Core).with_fisher(FisherKind::Sampled { n: 4, seed: 0 });
    let trainer = TrainerConfig::default().with_epochs(12).with_learning_rate(3e-3);
    let config = BayesLoraConfig::new(LoraConfig::new(2).with_alpha(4.0).with_target_pattern("all-linear"))
        .with_likelihood(NextToken)
        .with_trainer(trainer)
        .with_curvature(curvature);
    let fitted = config.init().unwrap().fit(TextModel::new(lm), &train).unwrap();
    let control = Control::silent();
    let by_draws = DrawnHeldOut::new(&fitted.model, &fitted.laplace, &held_out, (8, 0), &ALL, &control).unwrap();
    let start = fitted.laplace.prior_precisions().clone();
    let tuned = by_draws.tune().unwrap();
    let at = |shift: f64| by_draws.mean_nll(&start.scaled(shift.exp()).unwrap()).unwrap();
    let grid: Vec<(f64, f64)> = (0..=40).map(|k| k as f64 * 0.25).map(|shift| (shift, at(shift))).collect();
    let best = grid.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let chosen = (tuned.precisions.of(0).value() / start.of(0).value()).ln();
    println!(
        "evidence {start}: {:.5} nats a token; held out {} ({:?}, {} evaluations): {:.5}; grid {best:?}; trained adapter {:.5}",
        at(0.0),
        tuned.precisions,
        tuned.searches[0].end,
        tuned.evaluations,
        tuned.mean_nll,
        at(60.0)
    );
    // at most what golden sections of width 0.02 leave of a valley
    assert!(tuned.mean_nll <= best.1 + 2e-5, "{tuned:?} {best:?}");
    assert!((tuned.mean_nll - at(chosen)).abs() < 1e-6);
    assert!(tuned.mean_nll <= at(0.0) + 1e-5);
    // one door, by sixteen draws
    let by_draws = DrawnHeldOut::new(&fitted.model, &fitted.laplace, &held_out, (16, 0), &ALL, &control).unwrap();
    let through = fitted.clone().tune_prior(&held_out, &control).unwrap();
    let found = by_draws.mean_nll(through.laplace.prior_precisions()).unwrap();
    assert!(found <= by_draws.mean_nll(&start).unwrap() && (found - tuned.mean_nll).abs() < 0.01, "{found}");
    assert_eq!(through.laplace.prior_searches().len(), 1);
    assert_ne!(through.laplace.prior_searches()[0].end, SearchEnd::Undetermined);
    assert_eq!(read_adapter(&through.model).unwrap(), *through.laplace.map());
}

#[test]
fn what_draws_cannot_tune_is_refused_by_name() {
    let (model, data, control) = (llama(DType::F32), texts(96), Control::silent());
    let curvature = fit_curvature(&model, &data, &sampled(CurvatureStructure::Core, 1, 0), &control).unwrap();
    let fixed = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(2.0).unwrap());
    let laplace = Laplace::new(&model, &curvature, &fixed).unwrap();
    let error = DrawnHeldOut::new(&model, &laplace, &data, (0, 0), &ALL, &control).err().unwrap().to_string();
    assert!(error.contains("draws") && error.contains("at least 1"), "{error}");
    let other = mistral();
    let error = DrawnHeldOut::new(&other, &laplace, &texts(64), (2, 0), &ALL, &control).err().unwrap().to_string();
    assert!(error.contains("adapted sites"), "{error}");
}
