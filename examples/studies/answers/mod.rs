//! What the studies of answers in words share: the model's own answers, every score of them, and what a score is worth.

mod familiar;
mod own;
mod scores;
mod worth;

pub use own::own_answers;
pub use scores::{PLAIN, Scorer};
pub use worth::{Worth, auroc_above, more_than, worth};
