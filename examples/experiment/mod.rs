//! What `quickstart` and `multiple_choice` share: train, fit the posterior, predict in five ways, compare, report.

use crate::adapter::train_or_load;
use crate::splits::Splits;
use bayes_lora::BayesLoraConfig;
use bayes_lora::atomic_file::write_atomic;
use bayes_lora::belief::{LinkApprox, LogitBelief};
use bayes_lora::calibrate::Temperature;
use bayes_lora::checkpoints::Checkpoints;
use bayes_lora::data::{BatchLimits, EncodedDataset};
use bayes_lora::metrics::{Estimate, PairedScores, Reliability, ScoreOptions, Scores};
use bayes_lora::models::PromptClassifier;
use bayes_lora::number::significant;
use bayes_lora::outputs::save_or_rescue;
use bayes_lora::plot::reliability_diagram;
use bayes_lora::predict::{Predictive, predict_map};
use bayes_lora::progress::Control;
use ndarray::Array2;
use serde::Serialize;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Serialize)]
struct Method {
    name: &'static str,
    accuracy: Estimate,
    nll: Estimate,
    ece: Estimate,
    brier: Estimate,
}

#[derive(Serialize)]
struct Stages {
    train: f64,
    curvature: f64,
    predict_mle: f64,
    predict_linearized: f64,
    predict_sampled: f64,
}

#[derive(Serialize)]
struct Report {
    task: String,
    seed: u64,
    n_train: usize,
    n_validation: usize,
    n_test: usize,
    majority_share: f64,
    n_truncated: usize,
    seconds: f64,
    stages: Stages,
    train_tokens_per_second: f64,
    prior_precision: f64,
    effective_dimension: f64,
    temperature: f64,
    paired_linearized_vs_mle: PairedScores,
    methods: Vec<Method>,
}

/// How to run.
pub struct Options<'a> {
    pub config: BayesLoraConfig,
    /// Draws for the sampled predictive.
    pub n_draws: usize,
    /// A directory of an earlier run, whose adapter is taken instead of training another.
    pub trained: Option<&'a Path>,
    pub out: &'a Path,
}

/// Runs the experiment, and writes the adapter (as PEFT does), `report.json` and `reliability.{svg,png,json}` under `out`, which the
/// program has claimed before.
pub fn run(model: PromptClassifier, splits: &Splits, run: Options, control: Control) -> Result<(), Box<dyn Error>> {
    let Options { config, n_draws, trained, out } = run;
    let (limits, seed) = (config.limits, config.seed);
    let config = config.resolved();
    let bayes = config.clone().init()?;
    let start = Instant::now();
    // a run that was interrupted goes on where it was
    let unfinished = out.join("unfinished");
    let control = control.with_workers(2)?.with_checkpoints(Checkpoints::new(&unfinished))?.with_signals()?;
    let Splits { task, train, validation, test } = splits;
    let labels = labels(test)?;
    let majority = majority_share(&labels, test.n_classes);
    println!(
        "{task}: {} training, {} validation, {} test items; majority class {}; {} prompts shortened",
        train.len(),
        validation.len(),
        test.len(),
        significant(majority),
        train.n_truncated + validation.n_truncated + test.n_truncated
    );

    let outcome =
        train_or_load(model, (train, Some(validation)), &config.lora, &config.trainer, trained, out, &control)?;
    let fitted = bayes.fit_laplace_with(outcome.model, train, &control)?;
    let report = outcome.report;
    for epoch in &report.epochs {
        println!(
            "  epoch {}: training NLL {}, validation NLL {}, validation accuracy {}",
            epoch.epoch,
            significant(epoch.train_nll),
            significant(epoch.validation_nll.unwrap_or(f64::NAN)),
            significant(epoch.validation_accuracy.unwrap_or(f64::NAN))
        );
    }
    let fit_seconds = start.elapsed().as_secs_f64();
    println!(
        "  posterior: prior precision {}, effective dimension {} of {}",
        fitted.laplace.prior_precisions(),
        significant(fitted.laplace.effective_dimension()),
        bayes_lora::lora::summarize(&fitted.model).n_adapter
    );
    if let Some(answers) = fitted.laplace.answer_temperatures() {
        println!("  {}; found on the training items, each left out", answers.posterior);
    }
    fitted.remarks().iter().for_each(|remark| println!("  note: {remark}"));

    let clock = Instant::now();
    let mle = point_logits(&fitted.model, test, &limits, &control)?;
    let predict_mle = clock.elapsed().as_secs_f64();
    let best = outcome.best.as_ref().map(|best| point_logits(best, test, &limits, &control)).transpose()?;
    let held_out = point_logits(&fitted.model, validation, &limits, &control)?;
    let temperature = Temperature::fit(held_out.view(), &self::labels(validation)?)?;
    println!("  {}", temperature.search);
    let temperature = temperature.usable()?;
    let clock = Instant::now();
    let linearized = fitted.predict(test, Predictive::default(), &control)?;
    let predict_linearized = clock.elapsed().as_secs_f64();
    let clock = Instant::now();
    let sampled = fitted.predict(test, Predictive::Sampled { n_samples: n_draws, seed }, &control)?;
    let predict_sampled = clock.elapsed().as_secs_f64();

    let of_point = |logits: Array2<f64>| LogitBelief::Point { logits }.probabilities(LinkApprox::default());
    let tempered = of_point(&mle * temperature.beta)?;
    let mle = of_point(mle)?;
    let mut rows: Vec<(&'static str, &str, Array2<f64>)> = vec![("mle", "maximum likelihood (MLE)", mle.clone())];
    // an adapter that was loaded has no epochs
    if let Some(best) = best {
        rows.push(("mle_best_validation", "MLE, best validation epoch", of_point(best)?));
    }
    rows.extend([
        ("mle_temperature", "MLE + temperature", tempered),
        ("laplace_sampled", "Laplace, sampled weights", sampled.probabilities),
        ("laplace_linearized", "Laplace, linearised", linearized.probabilities.clone()),
    ]);
    let options = ScoreOptions::default();
    println!("\n{:<28} {:>23} {:>23} {:>23} {:>23}", "", "accuracy", "NLL", "ECE", "Brier");
    let mut methods = Vec::new();
    for (name, title, probabilities) in &rows {
        let s = Scores::new(probabilities.view(), &labels, &options)?;
        println!("{title:<28} {} {} {} {}", show(&s.accuracy), show(&s.nll), show(&s.ece), show(&s.brier));
        methods.push(Method { name, accuracy: s.accuracy, nll: s.nll, ece: s.ece, brier: s.brier });
    }
    let paired = PairedScores::new(linearized.probabilities.view(), mle.view(), &labels, &options)?;
    println!(
        "\nP(Laplace linearised better than MLE on the same items): NLL {}, ECE {}, Brier {}, accuracy {}",
        significant(paired.nll.p_better),
        significant(paired.ece.p_better),
        significant(paired.brier.p_better),
        significant(paired.table.p_better_accuracy())
    );

    let diagrams = [
        ("maximum likelihood", Reliability::new(mle.view(), &labels, options.n_bins)?),
        ("Laplace, linearised", Reliability::new(linearized.probabilities.view(), &labels, options.n_bins)?),
    ];
    let panels: Vec<(&str, &Reliability)> = diagrams.iter().map(|(t, r)| (*t, r)).collect();
    let (train_seconds, train_tokens) = (report.seconds, report.tokens);
    let report = Report {
        task: task.clone(),
        seed,
        n_train: train.len(),
        n_validation: validation.len(),
        n_test: test.len(),
        majority_share: majority,
        n_truncated: train.n_truncated + validation.n_truncated + test.n_truncated,
        seconds: start.elapsed().as_secs_f64(),
        stages: Stages {
            train: train_seconds,
            curvature: fitted.curvature_seconds,
            predict_mle,
            predict_linearized,
            predict_sampled,
        },
        train_tokens_per_second: train_tokens as f64 / f64::max(train_seconds, f64::MIN_POSITIVE),
        prior_precision: fitted.laplace.prior_precisions().of(0).value(),
        effective_dimension: fitted.laplace.effective_dimension(),
        temperature: 1.0 / temperature.beta,
        paired_linearized_vs_mle: paired,
        methods,
    };
    let json = serde_json::to_vec_pretty(&report)?;
    save_or_rescue(out.join("report.json"), |path| write_atomic(path, &json))?;
    reliability_diagram(&panels)?.save(out, "reliability")?;
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished)?;
    }
    println!(
        "\n{} s in all (training and curvature {} s); wrote {}",
        significant(report.seconds),
        significant(fit_seconds),
        files(out).join(", ")
    );
    Ok(())
}

fn files(out: &Path) -> Vec<String> {
    let names = ["reliability.svg", "reliability.png", "reliability.json", "report.json"];
    names.iter().map(|name| PathBuf::from(out).join(name).display().to_string()).collect()
}

fn show(e: &Estimate) -> String {
    let [value, low, high] = [e.value, e.low, e.high].map(significant);
    format!("{:>23}", format!("{value} [{low}, {high}]"))
}

fn point_logits(
    model: &PromptClassifier,
    data: &EncodedDataset,
    limits: &BatchLimits,
    control: &Control,
) -> Result<Array2<f64>, Box<dyn Error>> {
    Ok(predict_map(model, data, limits, control)?.moments().0)
}

fn labels(data: &EncodedDataset) -> Result<Vec<usize>, Box<dyn Error>> {
    let known = data.items.iter().map(|item| item.label.ok_or(format!("item `{}` has no label", item.id)));
    Ok(known.collect::<Result<_, _>>()?)
}

fn majority_share(labels: &[usize], n_classes: usize) -> f64 {
    let most = (0..n_classes).map(|c| labels.iter().filter(|l| **l == c).count()).max().unwrap_or(0);
    most as f64 / labels.len() as f64
}
