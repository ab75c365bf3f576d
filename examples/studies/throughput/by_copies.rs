//! A model without a backward pass of its own, as a user's module is: K gradients of an item are those of K copies of it.

use bayes_lora::lora::{Adaptable, LoraLinear};
use bayes_lora::models::{Classifier, PromptClassifier, TokenBatch};
use bayes_lora::tape::Tape;
use burn::module::Module;
use burn::tensor::Tensor;

#[derive(Module, Debug)]
pub struct ByCopies {
    pub model: PromptClassifier,
}

impl Adaptable for ByCopies {
    fn linears(&self) -> Vec<&LoraLinear> {
        self.model.linears()
    }

    fn linears_mut(&mut self) -> Vec<&mut LoraLinear> {
        self.model.linears_mut()
    }
}

impl Classifier for ByCopies {
    type Input = TokenBatch;

    fn n_classes(&self) -> usize {
        self.model.n_classes()
    }

    fn check(&self, input: &TokenBatch) -> bayes_lora::Result<()> {
        self.model.check(input)
    }

    fn logits(&self, input: &TokenBatch, tape: &mut Tape) -> Tensor<2> {
        self.model.logits(input, tape)
    }
}
