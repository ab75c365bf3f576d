//! Seeds generators by what is drawn, never by what was drawn before: no batch, order or device changes a draw.

use crate::hash::{fnv1a, fnv1a_words};
use ndarray::Array2;
use rand::{SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};

/// The generator of draw `index` for the thing named `name`: a function of (seed, name, index) alone.
pub(crate) fn generator(seed: u64, name: &str, index: u64) -> ChaCha8Rng {
    keyed(seed, fnv1a(name.bytes()), index)
}

/// The same for a thing known by a key.
pub(crate) fn keyed(seed: u64, key: u64, index: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(fnv1a_words([key, index]));
    rng
}

/// Standard normal draws `[rows, columns]`.
pub(crate) fn normals(rng: &mut ChaCha8Rng, (rows, columns): (usize, usize)) -> Array2<f64> {
    Array2::from_shape_simple_fn((rows, columns), || StandardNormal.sample(rng))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_seed_name_and_index() {
        let draw = |seed, name, index| normals(&mut generator(seed, name, index), (2, 3));
        assert_eq!(draw(1, "a", 2), draw(1, "a", 2));
        for other in [draw(0, "a", 2), draw(1, "b", 2), draw(1, "a", 3)] {
            assert_ne!(draw(1, "a", 2), other);
        }
    }
}
