//! Predicts with the adapter's posterior, batch by batch.

mod fields;
mod head;
mod linearized;
mod map;
mod noisy;
mod prediction;
mod rewards;
mod rows;
mod sampled;
mod targets;
mod texts;
mod training_fit;

pub use fields::{FieldScore, FieldScores, score_fields};
pub use head::{HeadRows, predict_head};
pub use linearized::{predict_linearized, predict_linearized_for_all};
pub use map::predict_map;
pub use noisy::predict_noisy;
pub use prediction::{Prediction, Predictive, predict};
pub use rewards::{Preference, RewardPrediction, predict_rewards};
pub use sampled::predict_sampled;
pub use targets::{TargetPrediction, predict_targets};
pub use texts::{TextScore, score_texts};
pub use training_fit::TrainingFit;
