//! How text is generated with its uncertainty: draws of the posterior read and write together, and where they disagree about the next token
//! the adapter has not seen enough.
//!
//! ```sh
//! cargo run --release --example finetune_text   # leaves an adapter and its posterior
//! cargo run --release --example generate
//! cargo run --release --example generate -- --prompt "Mia had a green frog. The frog said" --prompt "Once upon a time"
//! ```
//!
//! The entropy of a token is what its draws say on average (aleatoric: more data would leave it) and the mutual information of token and
//! weights (epistemic: more data would remove it). What a car says was in no text, and the sound is doubted twice as much:
//!
//! ```text
//! Mia had a old cat. The cat said "meow" to Mia.
//!          token          p    entropy  aleatoric  epistemic
//!              m      0.610      1.654      1.447      0.207
//!              e      0.843      0.802      0.646      0.156
//! Mia had a big car. The car said "moo" to Mia.
//!              m      0.432      1.992      1.822      0.169
//!             oo      0.522      1.536      1.098      0.438
//! ```

use bayes_lora::data::Tokenizer;
use bayes_lora::generate::{GenerationConfig, Generator, Request};
use bayes_lora::lora::load_peft;
use bayes_lora::models::Pretrained;
use bayes_lora::posterior::{Laplace, POSTERIOR_FILE};
use bayes_lora::progress::Control;
use burn::tensor::Device;
use clap::Parser;
use std::error::Error;
use std::path::PathBuf;

#[derive(Parser)]
#[command(about = "Generate text, and say of every token how sure the posterior is of it")]
struct Arguments {
    /// Hugging Face directory of the base.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/stories260K"))]
    model: PathBuf,
    /// Directory of the adapter and its posterior.
    #[arg(long, default_value = "target/finetune_text")]
    adapter: PathBuf,
    /// Beginnings to go on with.
    #[arg(long, default_values = ["Mia had a old cat. The cat said", "Mia had a big car. The car said"])]
    prompt: Vec<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { model, adapter, prompt: prompts } = Arguments::parse();
    if !adapter.join(POSTERIOR_FILE).try_exists()? {
        return Err(format!("{} has no posterior: run the example finetune_text first", adapter.display()).into());
    }
    let tokenizer = Tokenizer::from_dir(&model)?;
    let (lm, _) = load_peft(Pretrained::from_dir(&model)?.load(&Device::flex())?, &adapter)?;
    let laplace = Laplace::load(adapter.join(POSTERIOR_FILE), &lm)?;

    // the likeliest token of the trained adapter, doubted by eight draws
    let config = GenerationConfig::default().with_max_new_tokens(10).with_stop(["\n"]);
    let generator = Generator::new(&lm, &tokenizer, config)?.with_posterior(&laplace, 8, 0)?;
    let request = |prompt: &String| Request::text(&tokenizer, prompt.clone(), prompt);
    let requests = prompts.iter().map(request).collect::<Result<Vec<_>, _>>()?;
    for answer in generator.answers(&requests, &Control::silent())? {
        println!("{}{}", answer.key, answer.text);
        println!("{:>14} {:>10} {:>10} {:>10} {:>10}", "token", "p", "entropy", "aleatoric", "epistemic");
        for token in &answer.tokens {
            let (text, p) = (tokenizer.token(token.id), token.log_probability.exp());
            println!("{text:>14} {p:>10.3} {:>10.3} {:>10.3} {:>10.3}", token.total, token.expected, token.epistemic);
        }
        let (sum, most) = (answer.epistemic_sum(), answer.epistemic_max());
        println!("mutual information: {sum:.3} nats in all, {most:.3} of the most doubted token\n");
    }
    Ok(())
}
