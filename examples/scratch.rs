use bayes_lora::data::*; use bayes_lora::lora::*; use bayes_lora::models::*; use bayes_lora::tape::*; use bayes_lora::train::*;
use burn::{tensor::*, module::Module, optim::GradientsParams};
use std::time::Instant;
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (b, t) = (8usize, 73usize);
    let ds = EncodedDataset { name: "x".into(), items: (0..b).map(|i| EncodedItem { id: format!("{i}"), rows: vec![EncodedRow { ids: (0..t).map(|j| ((i*7919+j*104729)%40000+100) as u32).collect(), scored: 0..0, weight: 1.0 }], label: Some(i%4), n_choices: 4 }).collect(), answers: ResolvedAnswers::ClassTokens(vec![330,389,340,422]), n_classes: 4, n_truncated: 0 };
    let lm = Pretrained::from_dir("/tmp/smollm2")?.load(&Device::flex())?;
    let model = attach(PromptClassifier::new(lm, &ds)?, &LoraConfig::new(8).with_target_modules(["q_proj","v_proj"]), 0)?;
    let idx: Vec<usize> = (0..b).collect();
    let input = ds.batch(&idx, &model.device(), DType::F32)?;
    let v = model.valid();
    for _ in 0..3 { let s = Instant::now(); let _ = v.logits(&input, &mut Tape::off()).into_data(); println!("forward {:.2}s {:.0} tok/s", s.elapsed().as_secs_f64(), (b*t) as f64/s.elapsed().as_secs_f64()); }
    let m = set_trainable(model, &TrainingMode::Lora)?.train();
    for _ in 0..3 { let s = Instant::now(); let l = nll_sum(m.logits(&input, &mut Tape::off()), &[0,1,2,3,0,1,2,3], None); let f = s.elapsed().as_secs_f64(); let g = GradientsParams::from_grads(l.backward(), &m); let _ = g.len(); println!("fwd {f:.2} fb {:.2}s {:.0} tok/s", s.elapsed().as_secs_f64(), (b*t) as f64/s.elapsed().as_secs_f64()); }
    Ok(())
}
