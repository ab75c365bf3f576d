//! Drops elements of what linears see while they train.

use super::noise::SiteNoise;
use super::row_keys::RowKeys;
use crate::draws::{Purpose, generator, place, within};
use burn::tensor::{Tensor, TensorData};
use rand::{Rng, rngs::ChaCha8Rng};

/// Masks of 0 and `1/(1 − p)`: of each row a function of (seed, purpose, module, row's key, index) alone.
#[derive(Debug)]
pub(crate) struct RowDropout {
    pub(crate) seed: u64,
    pub(crate) purpose: Purpose,
    pub(crate) index: u64,
    pub(crate) rows: RowKeys,
}

impl SiteNoise for RowDropout {
    fn is_absent(&self, dropout: f64) -> bool {
        dropout == 0.0
    }

    fn input(&mut self, module: &str, x: Tensor<2>, dropout: f64) -> Tensor<2> {
        if self.is_absent(dropout) {
            return x;
        }
        let [rows, width] = x.dims();
        let module = place(module);
        let mut mask = Vec::with_capacity(rows * width);
        for row in self.rows.of_rows(rows) {
            let mut rng = generator(self.seed, self.purpose, within(module, row), self.index);
            mask.extend(dropout_mask(&mut rng, width, dropout));
        }
        let mask = Tensor::from_data(TensorData::new(mask, [rows, width]), (&x.device(), x.dtype()));
        x * mask
    }
}

/// `n` draws of 0 with probability p, else `1/(1 − p)`; 16 random bits resolve p to 1.5e-5.
pub(crate) fn dropout_mask(rng: &mut ChaCha8Rng, n: usize, p: f64) -> Vec<f32> {
    let keep = (1.0 / (1.0 - p)) as f32;
    let threshold = (p * 65536.0).round() as u16;
    let mut bits = vec![0u8; 2 * n];
    rng.fill_bytes(&mut bits);
    bits.chunks_exact(2).map(|b| if u16::from_le_bytes([b[0], b[1]]) < threshold { 0.0 } else { keep }).collect()
}
