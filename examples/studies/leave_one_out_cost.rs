//! What choosing a prior and a temperature by the training items costs beside the fit, stage by stage, for exact kernels, random
//! projections and random subsets, and how far the latter two are from the first.
//!
//! stories260K and MMLU's areas, whose training file has 1,816 items. More are the same questions once more, cut to fewer tokens: good
//! for costs, not for a study of answers.
//!
//! ```sh
//! for n in 200 1000 5000; do cargo run --release --example studies -- leave-one-out-cost --n $n --out target/leave_one_out_cost/n$n.json; done
//! ```

use crate::process::{cpu_seconds, peak_resident_bytes};
use crate::{Outcome, json, shipped};
use bayes_lora::belief::LinkApprox;
use bayes_lora::curvature::{CurvatureConfig, RandomProjection, fit_curvature};
use bayes_lora::data::{BatchLimits, EncodedDataset};
use bayes_lora::likelihood::Target;
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::models::{Dataset, PromptClassifier};
use bayes_lora::number::significant;
use bayes_lora::posterior::{
    Beyond, JacobianRows, Laplace, LaplaceConfig, LinearizedConfig, LinearizedModel, estimate_linearized,
};
use bayes_lora::predict::{Predictive, predict};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use bayes_lora::train::{Trainer, TrainerConfig};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Args)]
pub struct Arguments {
    /// Training items.
    #[arg(long, default_value_t = 200)]
    n: usize,
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    /// Most rows (three an item) up to which the exact kernel is measured.
    #[arg(long, default_value_t = 6000)]
    exact_rows: usize,
    /// Random sums of the projections that are measured.
    #[arg(long, value_delimiter = ',', default_value = "512,1024,2048")]
    widths: Vec<usize>,
    /// Rows of the subsets that are measured.
    #[arg(long, value_delimiter = ',', default_value = "600,1500,3000")]
    subset_rows: Vec<usize>,
    /// Seeds of each.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    #[arg(long, default_value = "target/leave_one_out_cost.json")]
    out: PathBuf,
}

const LIMITS: BatchLimits = BatchLimits { max_items: 16, max_tokens: 4096 };
/// Tokens that prompts are cut to: those of the study, and fewer where more items are wanted than there are.
const MOST_TOKENS: [usize; 3] = [64, 48, 36];
const N_ANSWERS: usize = 200;

/// Wall-clock seconds of a stage, seconds of the processor on all cores, and bytes that it leaves.
#[derive(Serialize)]
struct Stage {
    what: String,
    seconds: f64,
    cpu_seconds: f64,
    bytes: Option<usize>,
}

/// One way to find prior and temperatures, and what it finds.
#[derive(Serialize)]
struct Approach {
    name: String,
    seed: u64,
    n_items: usize,
    n_rows: usize,
    width: usize,
    peak_bytes_foretold: u64,
    multiplications_foretold: f64,
    stages: Vec<Stage>,
    precision: Option<f64>,
    beta_network: Option<f64>,
    beta_posterior: Option<f64>,
}

#[derive(Serialize)]
struct Costs {
    n: usize,
    n_adapter: usize,
    epochs: usize,
    stages: Vec<Stage>,
    approaches: Vec<Approach>,
    peak_resident_bytes: Option<usize>,
}

struct Clock(Instant, f64);

impl Clock {
    fn start() -> Self {
        Self(Instant::now(), cpu_seconds())
    }

    fn stage(&mut self, what: impl Into<String>, bytes: Option<usize>) -> Stage {
        let (seconds, cpu_seconds) = (self.0.elapsed().as_secs_f64(), cpu_seconds() - self.1);
        let stage = Stage { what: what.into(), seconds, cpu_seconds, bytes };
        println!(
            "  {:<44} {:>8} s, {:>8} s of the processor",
            stage.what,
            significant(seconds),
            significant(cpu_seconds)
        );
        *self = Self::start();
        stage
    }
}

pub fn run(arguments: &Arguments, control: Control) -> Outcome<()> {
    let control = control.with_workers(2)?;
    let train = items(arguments.n)?;
    let mut few = items(N_ANSWERS)?;
    few.items.truncate(N_ANSWERS);
    let lm = shipped::language_model()?;
    let lora = LoraConfig::new(8).with_target_modules(["q_proj", "k_proj", "v_proj", "o_proj"]);
    let model = attach(PromptClassifier::new(lm, &train)?, &lora, 0)?;
    let trainer = TrainerConfig::default().with_epochs(arguments.epochs).with_learning_rate(2e-3).with_limits(LIMITS);
    println!("{} items", train.len());

    let (mut stages, mut clock) = (Vec::new(), Clock::start());
    let model = Trainer::new(trainer)?.fit(model, &train, None, &control)?.model;
    stages.push(clock.stage(format!("training, {} epochs", arguments.epochs), None));
    let config = CurvatureConfig::default().with_limits(LIMITS);
    let curvature = fit_curvature(&model, &train, &config, &control)?;
    stages.push(clock.stage("curvature", Some(curvature.bytes())));
    let fixed = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(1.0)?);
    let laplace = Laplace::new(&model, &curvature, &fixed)?;
    stages.push(clock.stage("posterior at a fixed prior", None));
    let answer = |laplace: &Laplace| predict(&model, laplace, &few, Predictive::default(), &LIMITS, &control);
    answer(&laplace)?;
    stages.push(clock.stage(format!("{N_ANSWERS} answers before"), None));

    let k = 3;
    let mut ways: Vec<(String, u64, LinearizedConfig)> = Vec::new();
    let base = LinearizedConfig::default().with_limits(LIMITS);
    if k * train.len() <= arguments.exact_rows {
        ways.push(("exact".into(), 0, base.with_exact_rows(arguments.exact_rows)));
    }
    for seed in 0..arguments.seeds {
        for &width in &arguments.widths {
            let projected = base.with_exact_rows(0).with_projection(RandomProjection { width, seed });
            ways.push((format!("projection, {width} sums"), seed, projected));
        }
        for &rows in arguments.subset_rows.iter().filter(|rows| **rows < k * train.len()) {
            let some = base.with_exact_rows(rows).with_beyond(Beyond::Subset { seed });
            ways.push((format!("subset, {} items", rows / k), seed, some));
        }
    }
    let mut approaches: Vec<Approach> = Vec::new();
    for (name, seed, linearized) in ways {
        println!("{name}, seed {seed}: {}", estimate_linearized(&model, &train, &config, &linearized)?);
        approaches.push(Approach::measure((name, seed), (&model, &laplace, &train), &config, &linearized, &control)?);
    }
    if let Some(AppliedPrior(prior)) = approaches.iter().find_map(AppliedPrior::of) {
        let config = LaplaceConfig::default().with_prior_precision(prior);
        let matched = Laplace::new(&model, &curvature, &config)?;
        clock = Clock::start();
        answer(&matched)?;
        stages.push(clock.stage(format!("{N_ANSWERS} answers after"), None));
    }
    let costs = Costs {
        n: train.len(),
        n_adapter: bayes_lora::lora::summarize(&model).n_adapter,
        epochs: arguments.epochs,
        stages,
        approaches,
        peak_resident_bytes: peak_resident_bytes(),
    };
    if let Some(dir) = arguments.out.parent() {
        std::fs::create_dir_all(dir)?;
    }
    json::save(&arguments.out, &costs)
}

/// The first prior that was found.
struct AppliedPrior(PriorPrecision);

impl AppliedPrior {
    fn of(approach: &Approach) -> Option<Self> {
        PriorPrecision::new(approach.precision?).ok().map(Self)
    }
}

/// The first `n` items of the training file in a random order, then the same cut to fewer tokens.
fn items(n: usize) -> Outcome<EncodedDataset> {
    let tokenizer = shipped::tokenizer()?;
    let task = shipped::questions("train")?;
    let mut all: Option<EncodedDataset> = None;
    for most in MOST_TOKENS {
        let left = n - all.as_ref().map_or(0, EncodedDataset::len);
        if left == 0 {
            break;
        }
        let encoding = shipped::encoding(["A", "B", "C", "D"]).with_max_tokens(most);
        let mut encoded = encoding.encode(&task.sample(left.min(task.items.len()), 0)?, &tokenizer)?;
        // the same question cut in two ways is two items
        encoded.items.iter_mut().for_each(|item| item.id = format!("{}-{most}", item.id));
        match &mut all {
            None => all = Some(encoded),
            Some(all) => all.items.append(&mut encoded.items),
        }
    }
    all.ok_or_else(|| "no items".into())
}

impl Approach {
    fn measure(
        (name, seed): (String, u64),
        (model, laplace, train): (&PromptClassifier, &Laplace, &EncodedDataset),
        curvature: &CurvatureConfig,
        config: &LinearizedConfig,
        control: &Control,
    ) -> Outcome<Self> {
        let cost = estimate_linearized(model, train, curvature, config)?;
        let (mut stages, mut clock) = (Vec::new(), Clock::start());
        let rows = JacobianRows::of(model, laplace, train, config, control)?;
        stages.push(clock.stage("Jacobian pass", Some(rows.bytes())));
        let every: Vec<usize> = (0..train.len()).collect();
        let targets = rows.drawn().unwrap_or(&every).iter().map(|&item| train.target(item));
        let targets: Vec<Target> = targets.collect::<Option<_>>().ok_or("an item has no label")?;
        let n_items = targets.len();
        let linearized = LinearizedModel::from_rows(&rows, targets, laplace)?;
        let (n_rows, width) = (rows.n_rows(), rows.width());
        drop(rows);
        stages.push(clock.stage("kernel", Some(8 * n_rows * n_rows.min(width))));
        let mut found = Self {
            name,
            seed,
            n_items,
            n_rows,
            width,
            peak_bytes_foretold: cost.peak_bytes,
            multiplications_foretold: cost.multiplications,
            stages,
            precision: None,
            beta_network: None,
            beta_posterior: None,
        };
        let matched = linearized.matched_prior()?;
        found.stages.push(clock.stage("matched prior", None));
        let matched = match matched.usable() {
            Ok(matched) => matched,
            Err(reason) => {
                println!("  {reason}");
                return Ok(found);
            }
        };
        let left_out = linearized.leave_one_out(&matched.mode)?;
        found.stages.push(clock.stage("leaving every item out", None));
        let network = left_out.network_temperature()?.search.value;
        let posterior = left_out.posterior_temperature(LinkApprox::default())?.value;
        found.stages.push(clock.stage("temperatures", None));
        println!(
            "  λ {}, β {} and {}",
            significant(matched.search.value),
            significant(network),
            significant(posterior)
        );
        (found.precision, found.beta_network) = (Some(matched.search.value), Some(network));
        found.beta_posterior = Some(posterior);
        Ok(found)
    }
}
