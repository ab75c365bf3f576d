//! Generates text, and says of every token how sure the posterior is of it.
//!
//! A decoder goes on with prompts by the likeliest or by drawn tokens, with keys and values kept, in batches, as a stream of whole
//! characters. With a posterior, S draws of the adapter read and write in lockstep on one base: the next token comes from the average of
//! their distributions, `p̄(y_t | x, y_<t) = 1/S Σ_s p_s(y_t | x, y_<t)`, and the entropy of that average splits into the expected entropy
//! (what the draws leave open each by itself, aleatoric) and the mutual information of token and adapter (what they disagree about,
//! epistemic). [`crate::book::generation`] has the equations and units.
//!
//! ```
//! use bayes_lora::data::Tokenizer;
//! use bayes_lora::generate::{Ended, GenerationConfig, Generator};
//! use bayes_lora::models::Pretrained;
//! # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/stories260K");
//!
//! # #[cfg(feature = "flex")] {
//! let tokenizer = Tokenizer::from_dir(&dir)?;
//! let lm = Pretrained::from_dir(&dir)?.load(&burn::tensor::Device::flex())?;
//! let config = GenerationConfig::from_dir(&dir)?.with_max_new_tokens(20).with_stop(["."]);
//! let answer = Generator::new(&lm, &tokenizer, config)?.answer("Once upon a time")?;
//! assert_eq!(answer.text, ", there was a little girl named Lily");
//! assert_eq!(answer.ended, Ended::StopString(".".into()));
//! println!("{:.2} nats a token", answer.mean_log_probability());
//! # }
//! # Ok::<(), bayes_lora::error::Error>(())
//! ```

mod answer;
mod choice;
mod config;
mod generator;
mod network;
mod next_token;
mod request;
mod row;
mod semantic;
mod settings_file;
mod setup;
mod stop;
mod stream;
mod text;

pub use answer::{Answer, Ended, Piece, Token};
pub use config::GenerationConfig;
pub use generator::Generator;
pub use request::Request;
pub use semantic::{normalised, semantic_entropy};
pub use stream::Stream;
