//! MonteCLoRA: noise on A while training, and none in prediction.

use super::adapter_training::{settings, start};
use super::belief::OwnPointBelief;
use super::method::{FitContext, Fitted, Method, Requirements, Spent};
use super::monte_clora_rule::MonteCloraRule;
use super::monte_clora_settings::MonteClora;
use crate::error::Result;
use crate::identity::Identity;
use crate::lora::read_adapter;
use crate::models::{Classifier, Dataset};

impl MonteClora {
    /// The rule, with AdamW's weight decay and draws from `seed`.
    ///
    /// # Errors
    /// Names the field that is out of bounds.
    pub fn rule(&self, weight_decay: f64, seed: u64) -> Result<MonteCloraRule> {
        self.validate()?;
        Ok(MonteCloraRule::new(*self, weight_decay, seed))
    }
}

impl<M: Classifier, D: Dataset<Input = M::Input>> Method<M, D> for MonteClora {
    fn name(&self) -> String {
        "MonteCLoRA training noise".into()
    }

    fn identity(&self) -> Result<Identity> {
        Identity::of(self)
    }

    fn validate(&self) -> Result<()> {
        MonteClora::validate(self)
    }

    fn describe(&self) -> String {
        let Self { sample_scale, n_draws, kl_weight } = self;
        format!("noise on A in training alone, scale {sample_scale}, {n_draws} draws a step, KL weight {kl_weight}")
    }

    fn requirements(&self) -> Requirements {
        Requirements { map: false, adapter_alone: true, ..Requirements::default() }
    }

    fn fit(&self, context: &FitContext<M, D>) -> Result<Fitted<M, D>> {
        context.check(self)?;
        let config = settings(context);
        let mut rule = self.rule(config.weight_decay, context.seed)?;
        let outcome = context.train_by(&mut rule, config, start(context)?)?;
        let adapter = read_adapter(&outcome.model)?;
        let spread = rule.mean_log_spread(&adapter)?;
        Ok(Fitted::new(OwnPointBelief { adapter })
            .with_spent(Spent::training(outcome.report.items))
            .with_found("mean rho", spread))
    }
}
