//! GGUF files: the same bits as llama.cpp's own package reads, the same model as the directory it came from, and errors for
//! everything else.

mod blocks;
mod encoders;
mod families;
mod malformed;
mod models;
mod writer;
