//! Passes scored positions through the output head a few at a time, so that no tensor holds a vocabulary for all of them.

use super::activation::log_sum_exp;
use super::causal_lm::CausalLm;
use crate::lora::at_least_f32;
use crate::tape::Tape;
use burn::tensor::{Int, Tensor};
use std::convert::Infallible;
use std::ops::Range;

/// Positions that pass through the output head at once: 64 rows of a vocabulary of 50,000 are 13 MB in f32.
pub(crate) const HEAD_CHUNK: usize = 64;

/// `log p` of one target token after each hidden state, of f32 at least.
///
/// # Shapes
/// - hidden: `[n, width]`, targets and output: `[n, 1]`
pub(super) fn log_probabilities(
    lm: &CausalLm,
    hidden: Tensor<2>,
    targets: &Tensor<2, Int>,
    tape: &mut Tape,
) -> Tensor<2> {
    let given =
        |range: Range<usize>, _: &Tensor<2>| Ok::<_, Infallible>(targets.clone().narrow(0, range.start, range.len()));
    log_probabilities_of(lm, hidden, tape, given).unwrap_or_else(|never| match never {})
}

/// The same for targets that are chosen once their logits are known; `choose` gets the places and logits `[m, vocab]`, without a
/// graph, of each chunk in turn, and gives its targets `[m, 1]`.
///
/// Where the head itself is not differentiated, each chunk is differentiated on its own, by its hidden states, and re-enters the
/// graph as `ℓ₀ + ⟨∂ℓ/∂h, h − h₀⟩`: value and gradient are the same, and the probabilities of one chunk are gone before the next is
/// computed. What a recording tape sees of an adapted head is joined again.
///
/// # Errors
/// As `choose`.
pub(super) fn log_probabilities_of<E>(
    lm: &CausalLm,
    hidden: Tensor<2>,
    tape: &mut Tape,
    mut choose: impl FnMut(Range<usize>, &Tensor<2>) -> Result<Tensor<2, Int>, E>,
) -> Result<Tensor<2>, E> {
    let n = hidden.dims()[0];
    let is_differentiated = lm.head_is_differentiated();
    let is_whole = lm.head.adapter.is_some() && (is_differentiated || !tape.takes_parts());
    let chunk = if is_whole { n } else { HEAD_CHUNK };
    let wide = at_least_f32(hidden.dtype());
    let is_recorded = lm.head.adapter.is_some() && tape.is_recording();
    let on_its_own = (hidden.is_tracked() || is_recorded) && !is_differentiated;
    let (mut all, mut parts) = (Vec::with_capacity(n.div_ceil(chunk.max(1))), Vec::new());
    for start in (0..n).step_by(chunk.max(1)) {
        let length = chunk.min(n - start);
        let part = hidden.clone().narrow(0, start, length);
        let mut of = |part: Tensor<2>, tape: &mut Tape| {
            let logits = lm.head(part, None, tape).cast(wide);
            let targets = choose(start..start + length, &logits.clone().without_autodiff())?;
            Ok(logits.clone().gather(1, targets) - log_sum_exp(logits))
        };
        all.push(if on_its_own {
            let at = part.clone().without_autodiff();
            let zero = Tensor::zeros(at.dims(), (&at.device().autodiff(), at.dtype())).require_grad();
            let mut own = tape.of_a_part();
            let value = of(at.clone() + zero.clone(), own.as_mut().unwrap_or(tape))?;
            let mut gradients = value.clone().sum().backward();
            let slope = zero.grad_remove(&mut gradients);
            let slope = slope.unwrap_or_else(|| Tensor::zeros(at.dims(), (&at.device(), at.dtype())));
            if let Some(mut own) = own {
                own.read(&mut gradients);
                parts.push(own.into_part());
            }
            ((part - at) * slope).sum_dim(1).cast(wide) + value.without_autodiff()
        } else {
            of(part, tape)?
        });
    }
    Ok(tape.observe_parts(Tensor::cat(all, 0), parts))
}
