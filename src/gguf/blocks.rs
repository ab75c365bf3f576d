//! Decodes GGML's block formats to f32, bit for bit as the Python package `gguf` does.
//!
//! A block holds n values as small integers q with a common scale d, and in some formats a common minimum m:
//!
//! | format | values | bytes | value |
//! |---|---|---|---|
//! | Q8_0 | 32 | 34 | d·q |
//! | Q4_0 | 32 | 18 | d·(q − 8) |
//! | Q4_1 | 32 | 20 | d·q + m |
//! | Q4_K | 256 | 144 | (d·sᵢ)·q − dₘ·mᵢ, with six bits each for sᵢ and mᵢ of 8 groups |
//! | Q6_K | 256 | 210 | (d·sᵢ)·(q − 32), with one signed byte sᵢ for each of 16 groups |

use crate::error::{Error, Result};
use burn::tensor::{bf16, f16};

/// How the values of a tensor are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockType {
    /// One f32.
    F32,
    /// One f16.
    F16,
    /// One bf16.
    BF16,
    /// 32 signed bytes with a scale.
    Q8_0,
    /// 32 values of four bits around 8 with a scale.
    Q4_0,
    /// 32 values of four bits with a scale and a minimum.
    Q4_1,
    /// 256 values of four bits in 8 groups, each with a scale and a minimum of its own.
    Q4K,
    /// 256 values of six bits in 16 groups, each with a scale of its own.
    Q6K,
}

impl BlockType {
    /// All that can be decoded.
    pub const ALL: [Self; 8] =
        [Self::F32, Self::F16, Self::BF16, Self::Q8_0, Self::Q4_0, Self::Q4_1, Self::Q4K, Self::Q6K];

    /// The name that GGML gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q4K => "Q4_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Values in a block.
    pub fn block_values(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// Decodes whole blocks.
    ///
    /// # Errors
    /// [`Error::Count`] if the bytes end within a block.
    pub fn decode(self, bytes: &[u8]) -> Result<Vec<f32>> {
        let size = self.block_bytes();
        if !bytes.len().is_multiple_of(size) {
            return Err(Error::Count {
                what: format!("bytes in whole {} blocks of {size}", self.name()),
                expected: bytes.len().next_multiple_of(size),
                found: bytes.len(),
            });
        }
        let decode: fn(&[u8], &mut Vec<f32>) = match self {
            Self::F32 => |block, values| values.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
            Self::F16 => |block, values| values.push(half(block, 0)),
            Self::BF16 => |block, values| values.push(bf16::from_le_bytes([block[0], block[1]]).to_f32()),
            Self::Q8_0 => q8_0,
            Self::Q4_0 => q4_0,
            Self::Q4_1 => q4_1,
            Self::Q4K => q4_k,
            Self::Q6K => q6_k,
        };
        let mut values = Vec::with_capacity(bytes.len() / size * self.block_values());
        bytes.chunks_exact(size).for_each(|block| decode(block, &mut values));
        Ok(values)
    }
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// A byte as the signed number that it stands for.
fn signed(byte: &u8) -> f32 {
    f32::from(byte.cast_signed())
}

fn q8_0(block: &[u8], values: &mut Vec<f32>) {
    let d = half(block, 0);
    values.extend(block[2..].iter().map(|q| d * signed(q)));
}

/// Low halves of the bytes first, then the high ones.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = f32> {
    let low = bytes.iter().map(|b| f32::from(b & 15));
    low.chain(bytes.iter().map(|b| f32::from(b >> 4)))
}

fn q4_0(block: &[u8], values: &mut Vec<f32>) {
    let d = half(block, 0);
    values.extend(nibbles(&block[2..]).map(|q| d * (q - 8.0)));
}

fn q4_1(block: &[u8], values: &mut Vec<f32>) {
    let (d, m) = (half(block, 0), half(block, 2));
    values.extend(nibbles(&block[4..]).map(|q| d * q + m));
}

fn q4_k(block: &[u8], values: &mut Vec<f32>) {
    let (d, m) = (half(block, 0), half(block, 2));
    let (packed, quants) = (&block[4..16], &block[16..]);
    for (pair, bytes) in quants.chunks_exact(32).enumerate() {
        let [low, high] = [2 * pair, 2 * pair + 1].map(|group| {
            let (scale, minimum) = scale_and_minimum(packed, group);
            (d * f32::from(scale), m * f32::from(minimum))
        });
        let scales = std::iter::repeat_n(low, 32).chain(std::iter::repeat_n(high, 32));
        values.extend(nibbles(bytes).zip(scales).map(|(q, (scale, minimum))| scale * q - minimum));
    }
}

/// Six bits each, of 8 groups in 12 bytes: groups 0 to 3 lie in the low bits of bytes 0 to 7, groups 4 to 7 in bytes 8 to 11,
/// with their two high bits on top of the first eight bytes.
fn scale_and_minimum(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        return (packed[group] & 63, packed[group + 4] & 63);
    }
    let (low, scale_high, minimum_high) = (packed[group + 4], packed[group - 4], packed[group]);
    ((low & 15) | ((scale_high >> 2) & 0x30), (low >> 4) | ((minimum_high >> 2) & 0x30))
}

fn q6_k(block: &[u8], values: &mut Vec<f32>) {
    let (low, high, scales, d) = (&block[..128], &block[128..192], &block[192..208], half(block, 208));
    for group in 0..8 {
        // four groups of 32 share 64 bytes of low bits and 32 bytes of high ones
        let (half_block, quarter) = (group / 4, group % 4);
        let (low, high) = (&low[64 * half_block + 32 * (quarter % 2)..], &high[32 * half_block..]);
        for (i, (low, high)) in low.iter().zip(high).take(32).enumerate() {
            let q = ((low >> (4 * (quarter / 2))) & 15) | (((high >> (2 * quarter)) & 3) << 4);
            let scale = d * signed(&scales[2 * group + i / 16]);
            values.push(scale * (f32::from(q) - 32.0));
        }
    }
}
