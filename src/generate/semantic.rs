//! How much several answers to one prompt differ in what they say.

use std::collections::BTreeMap;

/// The entropy in nats of the clusters of answers that are the same after [`normalised`]: `−Σ_c n_c/n·log(n_c/n)`. 0 where all say the
/// same (or there is none), `log n` where all differ.
///
/// This is discrete semantic entropy (Farquhar et al. 2024, *Nature* 630, 625) where the same meaning is the same words, which is right for
/// short answers such as names and numbers, and too large for sentences.
///
/// ```
/// use bayes_lora::generate::semantic_entropy;
///
/// let entropy = semantic_entropy(["Paris.", " the paris", "Lyon", "Lyon!"]);
/// assert!((entropy - 2f64.ln()).abs() < 1e-12);
/// assert_eq!(semantic_entropy(["42", "42."]), 0.0);
/// ```
pub fn semantic_entropy<S: AsRef<str>>(answers: impl IntoIterator<Item = S>) -> f64 {
    let (mut clusters, mut n) = (BTreeMap::<String, usize>::new(), 0usize);
    for answer in answers {
        *clusters.entry(normalised(answer.as_ref())).or_default() += 1;
        n += 1;
    }
    let entropy: f64 = clusters.values().map(|&size| size as f64 / n as f64).map(|p| -p * p.ln()).sum();
    // −0 of one cluster
    entropy.max(0.0)
}

/// Lower case, without punctuation, the articles a, an and the, and more than one blank at a place, as SQuAD compares answers. An answer
/// that is all articles or punctuation stays as it is, but for its case.
pub fn normalised(answer: &str) -> String {
    let lower = answer.trim().to_lowercase();
    let plain: String = lower.chars().map(|c| if c.is_alphanumeric() { c } else { ' ' }).collect();
    let words = plain.split_whitespace().filter(|word| !matches!(*word, "a" | "an" | "the"));
    let kept = words.collect::<Vec<_>>().join(" ");
    if kept.is_empty() { lower } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entropy_is_that_of_the_clusters_sizes() {
        let entropy = semantic_entropy(["a cat", "Cat", "cat!", "dog", "the dog", "owl"]);
        let expected: f64 = [3.0, 2.0, 1.0].iter().map(|n: &f64| -n / 6.0 * (n / 6.0).ln()).sum();
        assert!((entropy - expected).abs() < 1e-12);
        assert_eq!(semantic_entropy(Vec::<String>::new()), 0.0);
        assert!(semantic_entropy(["x"]).is_sign_positive());
    }

    #[test]
    fn an_answer_of_punctuation_is_no_empty_one() {
        assert_eq!((normalised(" ?"), normalised("A")), ("?".to_string(), "a".to_string()));
        assert_eq!(normalised("An  Owl,\nthe bird"), "owl bird");
    }
}
