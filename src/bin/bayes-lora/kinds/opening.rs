//! An adapter and its posterior as files, on the way to answers.

use super::answers::{Answered, of_classes};
use crate::base::{adapted, start_of};
use crate::flags::QuestionArguments;
use crate::kind::Kind;
use crate::session::{Outcome, Session};
use bayes_lora::belief::LinkApprox;
use bayes_lora::data::{AnswerForm, Asked, BatchLimits, EncodedDataset, Encoding, Item, Tokenizer};
use bayes_lora::error::{Error, Result};
use bayes_lora::identity::Identity;
use bayes_lora::lora::{Adaptable, adapter_fingerprint, base_fingerprint, read_adapter};
use bayes_lora::models::Classifier;
use bayes_lora::posterior::{Laplace, PosteriorSummary};
use bayes_lora::predict::{Prediction, Predictive, predict, predict_map};
use bayes_lora::progress::Control;
use std::path::{Path, PathBuf};

/// What is to be opened, and how it is asked.
pub struct Opening<'a> {
    pub model: &'a Path,
    pub adapter: &'a Path,
    /// `None` where there is none, and none is needed.
    pub posterior: Option<PathBuf>,
    pub questions: &'a QuestionArguments,
    pub predictive: Predictive,
    pub insist: bool,
    pub session: &'a Session,
    summary: Option<PosteriorSummary>,
    asked: Option<Asked>,
    /// A posterior will be made, whose prior is centred on the adapter's start where that is known.
    needs_start: bool,
}

impl<'a> Opening<'a> {
    /// Reads what the posterior's file says about itself.
    pub fn new(
        (model, adapter): (&'a Path, &'a Path),
        posterior: Option<PathBuf>,
        questions: &'a QuestionArguments,
        (predictive, insist): (Predictive, bool),
        session: &'a Session,
    ) -> Outcome<Self> {
        let summary = posterior.as_ref().map(Laplace::summary).transpose()?;
        let asked = summary.as_ref().and_then(|summary| summary.fitted_on.asked.clone());
        Ok(Self {
            model,
            adapter,
            posterior,
            questions,
            predictive,
            insist,
            session,
            summary,
            asked,
            needs_start: false,
        })
    }

    /// An adapter of which there is no posterior, but sums about questions that were asked so.
    pub fn of_asked(
        (model, adapter): (&'a Path, &'a Path),
        asked: Option<Asked>,
        questions: &'a QuestionArguments,
        session: &'a Session,
    ) -> Self {
        let (predictive, insist) = (Predictive::Map, false);
        let (posterior, summary, needs_start) = (None, None, true);
        Self { model, adapter, posterior, questions, predictive, insist, session, summary, asked, needs_start }
    }

    /// What the posterior was fitted on, where it knows that.
    pub fn kind(&self) -> Option<Kind> {
        if self.summary.as_ref().is_some_and(|summary| summary.likelihood.draws_in_model()) {
            return Some(Kind::Texts);
        }
        Some(match self.asked.as_ref()?.encoding.answers {
            AnswerForm::ClassTokens { .. } | AnswerForm::Continuation { .. } => Kind::Choices,
            AnswerForm::Labels { .. } => Kind::Labels,
            AnswerForm::Rewards => Kind::Preferences,
            AnswerForm::Value => Kind::Values,
        })
    }

    /// How the posterior's questions were asked, where it knows that.
    pub fn asked(&self) -> Option<&Asked> {
        self.asked.as_ref()
    }

    /// The way of asking: the posterior's but for what the flags say, which is refused where it differs, unless the user insists.
    pub fn encoding(&self, tokenizer: &Tokenizer, own: Encoding) -> Outcome<Encoding> {
        let Some(asked) = &self.asked else { return Ok(own) };
        let encoding = self.questions.over(&asked.encoding);
        // class tokens of other classes are known with the first question
        let same_classes = encoding.answers == asked.encoding.answers;
        let tokens = if same_classes { asked.class_tokens.clone() } else { Vec::new() };
        let differences = asked.differences(&Asked::new(encoding.clone(), tokens, tokenizer));
        if differences.is_empty() || self.insist {
            return Ok(encoding);
        }
        let differences = differences.join("; ");
        Err(format!("the posterior was fitted on questions asked in another way: {differences} (`--insist` asks so all the same)").into())
    }

    /// The base with the adapter.
    pub fn adapted<M: Adaptable>(&self, base: M) -> Outcome<M> {
        let start = if self.needs_start { start_of(self.adapter) } else { None };
        Ok(adapted(base, self.adapter, start)?.0)
    }

    /// The posterior over a model with its adapter, and what answers depend on.
    pub fn believer<M: Adaptable>(&self, model: &M, encoding: &Encoding) -> Outcome<Believer> {
        let laplace = match &self.posterior {
            None => None,
            Some(file) => {
                let laplace = Laplace::load(file, model)?;
                Some(if self.insist { laplace.with_any_way_of_asking() } else { laplace })
            }
        };
        let limits = self.questions.limits();
        let about = match &laplace {
            Some(laplace) => format!("{:016x}", laplace.fingerprint()?),
            None => "none".into(),
        };
        let identity = Identity::new()
            .with("bayes-lora", env!("CARGO_PKG_VERSION"))
            .with("base", format!("{:016x}", base_fingerprint(model)?))
            .with("adapter", format!("{:016x}", adapter_fingerprint(&read_adapter(model)?)))
            .with("posterior", about)
            .with_part("way of asking", Identity::of(encoding)?)
            .with_part("method", Identity::of(&self.predictive)?)
            .with_part("batch", Identity::of(&limits)?);
        // bars of every block would hide the one of all
        let control = self.session.control().without_bars();
        Ok(Believer { laplace, predictive: self.predictive, limits, control, identity })
    }
}

/// A posterior, or a trained adapter alone, in the way that it is asked.
pub struct Believer {
    pub laplace: Option<Laplace>,
    pub predictive: Predictive,
    pub limits: BatchLimits,
    pub control: Control,
    pub identity: Identity,
}

impl Believer {
    /// The method's name in answers.
    pub fn method(&self) -> String {
        let structure =
            self.laplace.as_ref().map(|laplace| laplace.structure().to_string().to_lowercase().replace(' ', "-"));
        match (self.predictive, structure) {
            (Predictive::Linearized(_), Some(structure)) => format!("laplace-{structure}-linearized"),
            (Predictive::Sampled { n_samples, .. }, Some(structure)) => {
                format!("laplace-{structure}-sampled-{n_samples}")
            }
            _ => "map".into(),
        }
    }

    /// Class probabilities of items as `model` reads them from `data`.
    pub fn of_classes<M: Classifier<Input = bayes_lora::models::TokenBatch>>(
        &self,
        model: &M,
        items: &[Item],
        data: &EncodedDataset,
    ) -> Result<Answered> {
        let prediction = match &self.laplace {
            Some(laplace) => predict(model, laplace, data, self.predictive, &self.limits, &self.control)?,
            None => {
                let belief = predict_map(model, data, &self.limits, &self.control)?;
                Prediction::new(belief, LinkApprox::default())?
            }
        };
        of_classes(&self.method(), items, &prediction, data.n_truncated)
    }

    /// The posterior, where only one can answer.
    pub fn laplace(&self) -> Result<&Laplace> {
        self.laplace
            .as_ref()
            .ok_or_else(|| Error::Incompatible("numbers are predicted by a posterior, and there is none".into()))
    }
}
