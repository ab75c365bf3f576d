//! safetensors files, tensor by tensor.

use super::harness::{FIXED_BYTES, File, fuzz, scratch};
use super::mutate::Kind;
use crate::support::{device, root};
use bayes_lora::tensor_file::{TensorFile, write_tensors};
use burn::tensor::DType;
use std::path::Path;

/// Opens a file, compares what has a checksum, and reads every vector and matrix.
fn read(path: &Path) -> bayes_lora::error::Result<()> {
    let mut file = TensorFile::open(path)?;
    file.check_all()?;
    for name in file.names() {
        match *file.shape(&name).unwrap() {
            [n] => drop(file.read(&name, [n], DType::F32, &device())?),
            [n, m] => drop(file.read(&name, [n, m], DType::F64, &device())?),
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn any_tensor_file_is_read_or_refused() {
    let dir = scratch();
    let path = dir.path().join("t.safetensors");
    let adapter = root().join("tests/fixtures/tiny_llama/adapter/adapter_model.safetensors");
    let tensors = ["a", "b"].map(|name| (name.to_string(), vec![3, 4], vec![0.5; 12]));
    write_tensors(&path, &tensors, Some([("kind".into(), "small".into())].into())).unwrap();
    let corpus = [&adapter, &path].map(|path| vec![File::read(path, "t.safetensors", Kind::Tensors)]);
    fuzz("safetensors", FIXED_BYTES, &corpus, |input| {
        input.write(dir.path());
        read(&path)
    });
}
