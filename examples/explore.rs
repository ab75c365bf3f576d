use bayes_lora::bayes_lora::*; use bayes_lora::belief::*; use bayes_lora::curvature::*; use bayes_lora::data::*;
use bayes_lora::lora::*; use bayes_lora::metrics::*; use bayes_lora::models::*; use bayes_lora::posterior::*; use bayes_lora::predict::*;
use bayes_lora::prior::*; use bayes_lora::progress::*; use bayes_lora::train::*;
use burn::tensor::Device; use std::time::Instant;
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arg = |i: usize, d: f64| std::env::args().nth(i).and_then(|v| v.parse().ok()).unwrap_or(d);
    let (seed, n_train, epochs, lr, rank, maxtok, bs) = (arg(1,0.) as u64, arg(2,400.) as usize, arg(3,8.) as usize, arg(4,2e-3), arg(5,8.) as usize, arg(6,128.) as usize, arg(7,16.) as usize);
    let device = Device::flex();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/assets");
    let tok = Tokenizer::from_dir(format!("{root}/stories260K"))?;
    let enc = Encoding::new(PromptTemplate::question_area(), AnswerForm::class_tokens(["A","B","C","D"])).with_max_tokens(maxtok).with_truncation(Truncation::End);
    let pool = Task::from_jsonl(format!("{root}/mmlu_areas/train.jsonl.gz"))?;
    let (train, rest) = pool.split(n_train, seed)?; let val = rest.sample(300, seed)?;
    let test = Task::from_jsonl(format!("{root}/mmlu_areas/test.jsonl.gz"))?;
    let (train, val, test) = (enc.encode(&train,&tok)?, enc.encode(&val,&tok)?, enc.encode(&test,&tok)?);
    println!("tokens train {} test {} truncated {} {}", train.n_tokens(), test.n_tokens(), train.n_truncated, test.n_truncated);
    let lm = Pretrained::from_dir(format!("{root}/stories260K"))?.load(&device)?;
    let model = PromptClassifier::new(lm, &train)?;
    let model = attach(model, &LoraConfig::new(rank), seed)?;
    println!("{}", summarize(&model));
    let limits = BatchLimits { max_items: bs, max_tokens: 100_000 };
    let t = Instant::now();
    let out = Trainer::new(TrainerConfig { epochs, learning_rate: lr, limits, seed, ..Default::default() })?.fit(model, &train, Some(&val), &Control::with_bars())?;
    for e in &out.report.epochs { println!("{e:?}"); }
    println!("train {:.1}s tokens/s {:.0}", t.elapsed().as_secs_f64(), out.report.tokens as f64/out.report.seconds);
    let labels: Vec<usize> = (0..test.len()).map(|i| test.items[i].label.unwrap()).collect();
    let score = |name: &str, p: &ndarray::Array2<f64>| { let s = Scores::new(p.view(), &labels, &ScoreOptions::default()).unwrap(); println!("{name:40} acc {:.3} nll {:.4} ece {:.4} brier {:.4}", s.accuracy.value, s.nll.value, s.ece.value, s.brier.value); };
    let t = Instant::now();
    let map = predict_map(&out.model, &test, &limits, &Control::silent())?;
    println!("map predict {:.1}s", t.elapsed().as_secs_f64());
    score("mle", &map.probabilities(LinkApprox::default())?);
    if let Some(b) = &out.best { score("best val", &predict_map(b, &test, &limits, &Control::silent())?.probabilities(LinkApprox::default())?); }
    let vl: Vec<usize> = (0..val.len()).map(|i| val.items[i].label.unwrap()).collect();
    if let (LogitBelief::Point{logits:v}, LogitBelief::Point{logits:m}) = (predict_map(&out.model,&val,&limits,&Control::silent())?, &map) {
        let f = bayes_lora::calibrate::Temperature::fit(v.view(), &vl)?; println!("{:?}", f.temperature); score("temperature", &LogitBelief::Point{logits: m*f.temperature.beta}.probabilities(LinkApprox::default())?); }
    for treatment in [TokenTreatment::Expand, TokenTreatment::Reduce, TokenTreatment::Last] {
        let t = Instant::now();
        let curv = fit_kronecker(&out.model, &train, &CurvatureConfig{ treatment, limits, ..Default::default() }, &Control::silent())?;
        let tf = t.elapsed().as_secs_f64();
        for mean in [PriorMean::Zero, PriorMean::Initial] {
            let la = Laplace::new(&out.model, &curv, &LaplaceConfig{ prior_mean: mean, ..Default::default() })?;
            println!("{treatment:?} {mean:?} fit {tf:.1}s lambda {:.3} scatter {:.1} evidence {:.1} effdim {:.1}", la.prior_precision().value(), la.scatter(), la.log_marginal_likelihood(la.prior_precision())?, la.spectrum().effective_dimension(la.prior_precision()));
            if mean == PriorMean::Zero {
                for l in [0.3, 1.0,3.0,10.0,30.0,100.0,300.0] {
                    let la2 = la.clone().with_prior_precision(PriorPrecision::new(l)?);
                    let p = predict(&out.model, &la2, &val, Predictive::default(), &limits, &Control::silent())?;
                    let s = Scores::new(p.probabilities.view(), &vl, &ScoreOptions::default())?; println!("   val lambda {l}: evidence {:.1} nll {:.4} ece {:.4}", la.log_marginal_likelihood(PriorPrecision::new(l)?)?, s.nll.value, s.ece.value);
                }
            }
            let t = Instant::now();
            let p = predict(&out.model, &la, &test, Predictive::default(), &limits, &Control::silent())?;
            println!("lin predict {:.1}s", t.elapsed().as_secs_f64());
            score("  linearised", &p.probabilities);
        }
    }
    Ok(())
}
