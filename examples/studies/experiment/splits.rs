//! The data of one run.

use bayes_lora::data::EncodedDataset;

pub struct Splits {
    pub task: String,
    pub train: EncodedDataset,
    pub validation: EncodedDataset,
    pub test: EncodedDataset,
}
