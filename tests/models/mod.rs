//! Pretrained models: their logits, gradients and Jacobians are those of transformers, in every family and precision, merged and with heads.

mod architectures;
mod families;
mod merged;
mod merged_heads;
mod precision;
mod sequence_classifiers;
