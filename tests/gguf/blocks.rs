//! Block types against `gguf.quants.dequantize`.

use crate::support::root;
use bayes_lora::gguf::{BlockType, GgufFile};
use safetensors::SafeTensors;

#[test]
fn every_block_type_decodes_to_the_bits_of_the_python_package() {
    let dir = root().join("tests/fixtures/gguf");
    let mut file = GgufFile::open(dir.join("blocks.gguf")).unwrap();
    let bytes = std::fs::read(dir.join("blocks.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    for block_type in BlockType::ALL {
        let name = block_type.name();
        assert_eq!((file.block_type(name), file.shape(name)), (Some(block_type), Some(&[3, 512][..])));
        let view = expected.tensor(name).unwrap();
        assert_eq!(view.shape(), [3, 512]);
        let bits = |b: &[u8]| u32::from_le_bytes(b.try_into().unwrap());
        let expected: Vec<u32> = view.data().chunks_exact(4).map(bits).collect();
        let found: Vec<u32> = file.values(name).unwrap().into_iter().map(f32::to_bits).collect();
        let wrong = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
        assert_eq!((found.len(), wrong), (expected.len(), 0), "{name}");
    }
}

#[test]
fn bytes_that_end_within_a_block_are_refused() {
    for block_type in BlockType::ALL {
        let size = block_type.block_bytes();
        assert_eq!(block_type.decode(&vec![0; 3 * size]).unwrap().len(), 3 * block_type.block_values());
        let error = block_type.decode(&vec![0; 3 * size - 1]).unwrap_err().to_string();
        assert!(error.contains(&(3 * size).to_string()) && error.contains(&(3 * size - 1).to_string()), "{error}");
    }
}
