//! What has been generated, and how sure of it the posterior is.

/// One generated token.
///
/// All four numbers are of the distribution that the network and its posterior give, `p̄ = 1/S Σ_s p_s`, before any penalty, temperature or
/// choice among the likeliest, and in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// `log p̄(id)`
    pub log_probability: f64,
    /// `H[p̄]`, the entropy of the averaged distribution over the vocabulary.
    pub total: f64,
    /// `1/S Σ_s H[p_s]`, the expected entropy (aleatoric part).
    pub expected: f64,
    /// `H[p̄] − 1/S Σ_s H[p_s] ≥ 0`, the mutual information of the token and the adapter (epistemic part); 0 without draws.
    pub epistemic: f64,
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// With this end token.
    EndToken(u32),
    /// Before this stop string.
    StopString(String),
    /// It has the most tokens that the settings allow.
    MaxNewTokens,
    /// The context holds no more.
    Context,
    /// The caller went away, or something failed.
    Cancelled,
}

/// A piece of an answer, as it comes.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Which of the requests it answers.
    pub request: usize,
    /// Whole characters. Behind each other the pieces of an answer are its text; empty at most in the last one.
    pub text: String,
    /// The tokens since the last piece: those that the text is of, but where text was held back because a stop string may begin there.
    pub tokens: Vec<Token>,
    /// Why the answer ended, in its last piece.
    pub ended: Option<Ended>,
}

/// The answer to a request.
///
/// Its scores are what [`Abstention`](crate::calibrate::Abstention) and the metrics of detection take: of those of doubt, the negative.
///
/// ```
/// use bayes_lora::calibrate::Abstention;
/// use bayes_lora::generate::{Answer, Ended, Token};
///
/// // 60 answers to held-out questions, as `Generator::answers` gives them; those that the draws agree on are right
/// let answer = |i: usize| {
///     let epistemic = if i < 40 { 0.01 } else { 0.5 };
///     let token = Token { id: 7, log_probability: -0.2, total: 0.9, expected: 0.9 - epistemic, epistemic };
///     Answer { key: format!("q{i}"), text: "Paris".into(), tokens: vec![token], ended: Ended::EndToken(2) }
/// };
/// let answers: Vec<Answer> = (0..60).map(answer).collect();
/// let right: Vec<bool> = (0..60).map(|i| i < 40).collect();
/// let confidence = answers.iter().map(|answer| -answer.epistemic_max()).collect();
/// let rule = Abstention::fit(ndarray::Array1::from_vec(confidence).view(), &right, 0.1, 0.1)?;
/// assert_eq!(rule.n_accepted, 40);
/// assert!(!rule.accepts(-answers[50].epistemic_max()));
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The request's.
    pub key: String,
    /// What the tokens say, special tokens left out, up to a stop string.
    pub text: String,
    /// All tokens, the end token or those of a stop string included.
    pub tokens: Vec<Token>,
    /// Why it ended.
    pub ended: Ended,
}

impl Answer {
    /// The ids of its tokens.
    pub fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }

    /// `Σ_t log p̄(y_t | x, y_<t)` in nats: larger is surer.
    pub fn log_probability(&self) -> f64 {
        self.tokens.iter().map(|token| token.log_probability).sum()
    }

    /// The same a token; minus the logarithm of the perplexity.
    pub fn mean_log_probability(&self) -> f64 {
        self.mean(|token| token.log_probability)
    }

    /// Sum of the tokens' mutual informations in nats: larger is less sure.
    pub fn epistemic_sum(&self) -> f64 {
        self.tokens.iter().map(|token| token.epistemic).sum()
    }

    /// The largest mutual information of a token in nats: larger is less sure.
    pub fn epistemic_max(&self) -> f64 {
        self.tokens.iter().fold(0.0, |max, token| token.epistemic.max(max))
    }

    /// Mean total entropy of the tokens in nats: larger is less sure.
    pub fn mean_entropy(&self) -> f64 {
        self.mean(|token| token.total)
    }

    /// 0 without tokens.
    fn mean(&self, of: impl Fn(&Token) -> f64) -> f64 {
        self.tokens.iter().map(of).sum::<f64>() / self.tokens.len().max(1) as f64
    }
}
