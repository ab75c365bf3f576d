//! Which approximation of the curvature is worth its cost? Every structure, token treatment and kind of Fisher information
//! around one trained adapter, against the exact matrix, each at its own prior precision.
//!
//! ```sh
//! cargo run --release --example studies -- curvature --model assets/stories260K --prompt area --classes A,B,C,D \
//!   --train assets/mmlu_areas/train.jsonl.gz --test assets/mmlu_areas/test.jsonl.gz --max-tokens 64 \
//!   --targets q_proj,k_proj,v_proj,o_proj --learning-rate 2e-3 --epochs 8 --batch 16 \
//!   --n-train 256 --n-validation 200 --n-test 500 --out target/curvature_study
//! ```

use crate::experiment::adapter::train_or_load;
use crate::experiment::questions::Form;
use crate::experiment::task::TaskArguments;
use crate::{Outcome, json};
use bayes_lora::belief::{LinkApprox, LogitBelief};
use bayes_lora::curvature::{
    CurvatureConfig, CurvatureStructure, FisherKind, TokenTreatment, estimate_cost, fit_curvatures,
};
use bayes_lora::likelihood::Categorical;
use bayes_lora::lora::summarize;
use bayes_lora::metrics::{BayesianBootstrap, Dispersion, Estimate, PairedScores, ScoreOptions, Scores};
use bayes_lora::number::significant;
use bayes_lora::outputs::claim_dir;
use bayes_lora::plot::CurveChart;
use bayes_lora::posterior::{HeldOut, Laplace, LaplaceConfig, Stationarity, log_likelihood_gradient};
use bayes_lora::prior::{PriorMean, PriorPrecision, PriorPrecisions};
use bayes_lora::progress::Control;
use bayes_lora::search::Search;
use clap::Args;
use ndarray::Axis;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    task: TaskArguments,
    /// Also the sampled (one label) and the empirical Fisher information.
    #[arg(long)]
    all_fishers: bool,
    /// Centre of the prior at zero instead of the adapter's random start.
    #[arg(long)]
    zero_mean: bool,
    /// Only these structures, by the names that the table shows ("function space,core space,Kronecker").
    #[arg(long, value_delimiter = ',')]
    structures: Vec<CurvatureStructure>,
    #[arg(long, default_value = "target/curvature_study")]
    out: PathBuf,
    /// Take the adapter that an earlier run with the same flags left in this directory.
    #[arg(long)]
    trained: Option<PathBuf>,
}

/// One approximation, around the same adapter.
struct Candidate {
    name: String,
    config: CurvatureConfig,
    sums_bytes: usize,
    laplace: Laplace,
}

#[derive(Serialize)]
struct At {
    prior_precision: f64,
    accuracy: Estimate,
    nll: Estimate,
    ece: Estimate,
    mean_confidence: f64,
    p_better_nll_than_mle: f64,
    p_better_ece_than_mle: f64,
}

/// How a predictive covariance compares with an exact one.
#[derive(Serialize)]
struct Against {
    median_variance_ratio: f64,
    log_variance_correlation: f64,
    mean_kl: f64,
}

#[derive(Serialize)]
struct Row {
    name: String,
    log_evidence: f64,
    effective_dimension: f64,
    by_evidence: At,
    by_held_out: At,
    /// Both at one prior precision.
    against_exact: Option<Against>,
    against_site_block: Option<Against>,
    /// Each at its own prior precision by evidence.
    against_exact_by_evidence: Option<Against>,
    dispersion: Dispersion,
    stationarity: Stationarity,
    decomposition_seconds: f64,
    sums_bytes: usize,
}

#[derive(Serialize)]
struct Study {
    task: String,
    seed: u64,
    n_train: usize,
    n_validation: usize,
    n_test: usize,
    n_adapter: usize,
    mle: (Estimate, Estimate, Estimate),
    train_seconds: f64,
    curvature_seconds: f64,
    held_out_seconds: f64,
    yardstick_precision: f64,
    rows: Vec<Row>,
}

const LINK: LinkApprox = LinkApprox::MonteCarlo { n_samples: 1000, seed: 0 };

pub fn run(arguments: &Arguments, control: Control) -> Outcome<()> {
    let Arguments { task, out, .. } = arguments;
    claim_dir(out, 0)?;
    let control = control.with_workers(2)?;
    let splits = task.splits()?;
    let model = task.model(&splits.train)?;
    let trained = arguments.trained.as_deref();
    let outcome = train_or_load(model, (&splits.train, None), &task.lora(), &task.trainer(), trained, out, &control)?;
    let model = outcome.model;
    println!("{}", summarize(&model));

    let configs = arguments.configs();
    for config in &configs {
        println!("{}", estimate_cost(&model, &splits.train, config)?);
    }
    let clock = Instant::now();
    let curvatures = fit_curvatures(&model, &splits.train, &configs, &control)?;
    let curvature_seconds = clock.elapsed().as_secs_f64();
    let gradient = log_likelihood_gradient(&model, &splits.train, &Categorical, &task.questions.limits(), &control)?;
    let prior_mean = if arguments.zero_mean { PriorMean::Zero } else { PriorMean::default() };
    let mut seconds = Vec::new();
    let mut candidates = Vec::new();
    for curvature in curvatures {
        let clock = Instant::now();
        let laplace = Laplace::new(&model, &curvature, &LaplaceConfig::default().with_prior_mean(prior_mean))?;
        seconds.push(clock.elapsed().as_secs_f64());
        // the sums go here: those of thirty structures would fill the memory
        let (config, sums_bytes) = (curvature.config.clone(), curvature.bytes());
        candidates.push(Candidate { name: name(&config), config, sums_bytes, laplace });
    }
    let clock = Instant::now();
    let laplaces: Vec<&Laplace> = candidates.iter().map(|c| &c.laplace).collect();
    let limits = task.questions.limits();
    let validation = HeldOut::for_all(&model, &laplaces, &splits.validation, &limits, &control)?;
    let test = HeldOut::for_all(&model, &laplaces, &splits.test, &limits, &control)?;
    let held_out_seconds = clock.elapsed().as_secs_f64();

    let labels = test[0].labels()?;
    let options = ScoreOptions::default();
    let means = test[0].belief(&PriorPrecision::new(1.0)?.into())?.moments().0;
    let mle = LogitBelief::Point { logits: means }.probabilities(LINK)?;
    let mle_scores = Scores::new(mle.view(), &labels, &options)?;
    let exact = |structure| candidates.iter().position(|c| is_exact(&c.config, structure));
    let yardsticks = [CurvatureStructure::FunctionSpace, CurvatureStructure::SiteBlock].map(exact);
    // the same prior for all weight-space structures: the one at which the exact posterior has the most evidence
    let yardstick = match yardsticks[0] {
        Some(index) => candidates[index].laplace.prior_precisions().clone(),
        None => PriorPrecision::new(1.0)?.into(),
    };
    let mut rows = Vec::new();
    for (k, candidate) in candidates.iter().enumerate() {
        let Candidate { name, config, sums_bytes, laplace } = candidate;
        let tuned = validation[k].tune(laplace.prior_precisions(), LINK)?;
        tuned.searches.iter().filter_map(Search::remark).for_each(|remark| println!("{name}: {remark}"));
        let score = |precisions: &PriorPrecisions| -> Outcome<At> {
            let p = test[k].belief(precisions)?.probabilities(LINK)?;
            let scores = Scores::new(p.view(), &labels, &options)?;
            let paired = PairedScores::new(p.view(), mle.view(), &labels, &options)?;
            Ok(At {
                prior_precision: precisions.of(0).value(),
                accuracy: scores.accuracy,
                nll: scores.nll,
                ece: scores.ece,
                mean_confidence: p.map_axis(Axis(1), |p| p.fold(0.0f64, |a, b| a.max(*b))).mean().unwrap_or(f64::NAN),
                p_better_nll_than_mle: paired.nll.p_better,
                p_better_ece_than_mle: paired.ece.p_better,
            })
        };
        let against = |index: Option<usize>| -> Outcome<Option<Against>> {
            // the prior of a core is in other units
            match index.filter(|_| !config.structure.plan().coordinates.is_of_modules()) {
                Some(index) => Ok(Some(compare(&test[k].belief(&yardstick)?, &test[index].belief(&yardstick)?)?)),
                None => Ok(None),
            }
        };
        let against_exact_by_evidence = match yardsticks[0] {
            Some(index) => {
                let exact = test[index].belief(candidates[index].laplace.prior_precisions())?;
                Some(compare(&test[k].belief(laplace.prior_precisions())?, &exact)?)
            }
            None => None,
        };
        let belief = validation[k].belief(laplace.prior_precisions())?;
        let dispersion = Dispersion::diagnose(&belief, &validation[k].labels()?, LINK, &BayesianBootstrap::default())?;
        let row = Row {
            name: name.clone(),
            log_evidence: laplace.log_marginal_likelihood(laplace.prior_precisions())?,
            effective_dimension: laplace.effective_dimension(),
            by_evidence: score(laplace.prior_precisions())?,
            by_held_out: score(&tuned.precisions)?,
            against_exact: against(yardsticks[0])?,
            against_site_block: against(yardsticks[1])?,
            against_exact_by_evidence,
            dispersion,
            stationarity: laplace.stationarity(&gradient)?,
            decomposition_seconds: seconds[k],
            sums_bytes: *sums_bytes,
        };
        print_row(&row);
        rows.push(row);
    }
    let study = Study {
        task: splits.task.clone(),
        seed: task.items.seed,
        n_train: splits.train.len(),
        n_validation: splits.validation.len(),
        n_test: labels.len(),
        n_adapter: summarize(&model).n_adapter,
        mle: (mle_scores.accuracy, mle_scores.nll, mle_scores.ece),
        train_seconds: outcome.report.seconds,
        curvature_seconds,
        held_out_seconds,
        yardstick_precision: yardstick.of(0).value(),
        rows,
    };
    println!(
        "maximum likelihood: accuracy {}, NLL {}, ECE {}",
        significant(study.mle.0.value),
        significant(study.mle.1.value),
        significant(study.mle.2.value)
    );
    json::save(&out.join("study.json"), &study)?;
    evidence_chart(&candidates)?.figure()?.save(out, "evidence")?;
    Ok(())
}

impl Arguments {
    /// Every combination that has a meaning on the task.
    fn configs(&self) -> Vec<CurvatureConfig> {
        use CurvatureStructure::{Core, CoreBlock, Diagonal, Ekfac, FunctionSpace, Kronecker, SiteBlock};
        let seed = self.task.items.seed;
        let base = CurvatureConfig::default().with_limits(self.task.questions.limits());
        let treatments: &[TokenTreatment] = match self.task.questions.form {
            Form::Tokens => &[TokenTreatment::Expand, TokenTreatment::Reduce, TokenTreatment::Last],
            Form::Continuation => &[TokenTreatment::Expand, TokenTreatment::Reduce],
        };
        let mut fishers = vec![FisherKind::Exact];
        if self.all_fishers {
            fishers.extend([FisherKind::Sampled { n: 1, seed }, FisherKind::Empirical]);
        }
        let mut configs = Vec::new();
        for fisher in fishers {
            let of = |structure, treatment| {
                base.clone().with_structure(structure).with_treatment(treatment).with_fisher(fisher)
            };
            for structure in [FunctionSpace, SiteBlock, Core, CoreBlock, Diagonal] {
                configs.push(of(structure, TokenTreatment::Expand));
            }
            for &treatment in treatments {
                configs.extend([of(Kronecker, treatment), of(Ekfac, treatment)]);
            }
            configs.push(of(Kronecker, TokenTreatment::Expand).with_dense_limit(0));
        }
        configs.retain(|c| self.structures.is_empty() || self.structures.contains(&c.structure));
        configs
    }
}

fn is_exact(config: &CurvatureConfig, structure: CurvatureStructure) -> bool {
    config.structure == structure && config.fisher == FisherKind::Exact
}

fn name(config: &CurvatureConfig) -> String {
    let mut name = config.structure.to_string();
    if matches!(config.structure, CurvatureStructure::Kronecker | CurvatureStructure::Ekfac) {
        name += &format!(", {:?}", config.treatment).to_lowercase();
    }
    if config.dense_limit == Some(0) {
        name += &format!(", rank {}", config.low_rank);
    }
    match config.fisher {
        FisherKind::Exact => name,
        FisherKind::Sampled { n, .. } => format!("{name}, {n} sampled label"),
        FisherKind::Empirical => format!("{name}, empirical"),
    }
}

/// Variances of all logits (centred) and predictive distributions of two posteriors over the same items.
fn compare(found: &LogitBelief, exact: &LogitBelief) -> Outcome<Against> {
    let (mean, of_found) = found.moments();
    let of_exact = exact.moments().1;
    let (mut ratios, mut logs) = (Vec::new(), Vec::new());
    for ((item, class), logit) in mean.indexed_iter() {
        let (a, b) = (of_found[[item, class, class]], of_exact[[item, class, class]]);
        if logit.is_finite() && a > 0.0 && b > 0.0 {
            ratios.push(a / b);
            logs.push((a.ln(), b.ln()));
        }
    }
    ratios.sort_by(f64::total_cmp);
    let (p, q) = (exact.log_probabilities(LINK)?, found.log_probabilities(LINK)?);
    let kl = |(p, q): (&f64, &f64)| if p.is_finite() { p.exp() * (p - q) } else { 0.0 };
    Ok(Against {
        median_variance_ratio: ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN),
        log_variance_correlation: correlation(&logs),
        mean_kl: p.iter().zip(&q).map(kl).sum::<f64>() / mean.nrows() as f64,
    })
}

fn correlation(pairs: &[(f64, f64)]) -> f64 {
    let n = pairs.len() as f64;
    let (mx, my) = pairs.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / n, y + p.1 / n));
    let sum = |f: &dyn Fn(f64, f64) -> f64| pairs.iter().map(|p| f(p.0 - mx, p.1 - my)).sum::<f64>();
    sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt()
}

/// Log evidence over λ of the exact structures and the factored ones with the exact Fisher information.
fn evidence_chart(candidates: &[Candidate]) -> Outcome<CurveChart> {
    let mut chart = CurveChart::new("prior precision", "log evidence (nats)");
    let shown = candidates.iter().filter(|c| c.config.fisher == FisherKind::Exact).take(6);
    for Candidate { name, laplace, .. } in shown {
        let best = laplace.prior_precisions();
        let points = (-40..=40)
            .map(|step| {
                let precisions = best.scaled((0.1 * f64::from(step)).exp())?;
                Ok((precisions.of(0).value(), laplace.log_marginal_likelihood(&precisions)?))
            })
            .collect::<Result<Vec<_>, bayes_lora::Error>>()?;
        chart = chart.with_curve(name.clone(), points);
    }
    Ok(chart)
}

fn print_row(row: &Row) {
    let at = |at: &At| {
        format!(
            "λ {:>9} NLL {} ECE {} acc {} conf {}",
            significant(at.prior_precision),
            significant(at.nll.value),
            significant(at.ece.value),
            significant(at.accuracy.value),
            significant(at.mean_confidence)
        )
    };
    let against = row.against_exact.as_ref().map_or(String::new(), |a| {
        let [ratio, correlation, kl] =
            [a.median_variance_ratio, a.log_variance_correlation, a.mean_kl].map(significant);
        format!(" | ratio {ratio} corr {correlation} KL {kl}")
    });
    println!(
        "{:<42} evidence {:>9} (Newton gain {}) | {} | held out: {}{against} | {}",
        row.name,
        significant(row.log_evidence),
        significant(row.stationarity.newton_gain),
        at(&row.by_evidence),
        at(&row.by_held_out),
        row.dispersion
    );
}
