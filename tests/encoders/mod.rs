//! Encoders beyond BERT's own single texts: ModernBERT, and pairs of texts, each against transformers and PEFT in f64.

mod modern;
mod pairs;
