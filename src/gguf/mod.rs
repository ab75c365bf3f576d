//! Reads GGUF files: the container, and the block formats in which their weights are packed.
//!
//! A GGUF file is not trusted. Its counts are compared with its length before anything is decoded, the extent of every tensor
//! with the file before one is read, and a panic of the container's parser becomes an [`Error`](crate::Error) (a program
//! built with `panic = "abort"` loses this net).
//!
//! ```
//! use bayes_lora::gguf::BlockType;
//!
//! let mut block = vec![0x00, 0x38];                    // the scale 0.5 as f16, little-endian
//! block.extend((0..32).map(|i| i as u8));              // 32 values of one signed byte
//! assert_eq!(BlockType::Q8_0.decode(&block)?[31], 15.5);
//! assert!(BlockType::Q8_0.decode(&block[1..]).is_err());
//! # Ok::<(), bayes_lora::error::Error>(())
//! ```
//!
//! A language model comes out of one through [`Pretrained::from_gguf`](crate::models::Pretrained::from_gguf).

mod blocks;
mod file;

pub use blocks::BlockType;
pub use file::{GgufFile, MAX_DECODED_METADATA_BYTES};
