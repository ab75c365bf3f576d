//! A writer of GGUF files, right and wrong ones.

/// A metadata value, or bytes that claim to be one.
#[derive(Clone)]
pub enum Value {
    U32(u32),
    F32(f32),
    Text(&'static str),
    /// A type id with the bytes after it.
    Raw(u32, Vec<u8>),
}

/// Name, dimensions with the fastest first, type id, offset.
pub type Entry = (&'static str, Vec<u64>, u32, u64);

pub struct File {
    pub version: u32,
    pub tensor_count: Option<u64>,
    pub metadata_count: Option<u64>,
    pub metadata: Vec<(Vec<u8>, Value)>,
    pub tensors: Vec<Entry>,
    pub data: Vec<u8>,
}

impl Default for File {
    /// One tensor `a` of eight zeros in f32.
    fn default() -> Self {
        Self {
            version: 3,
            tensor_count: None,
            metadata_count: None,
            metadata: vec![(b"general.architecture".to_vec(), Value::Text("llama"))],
            tensors: vec![("a", vec![4, 2], 0, 0)],
            data: vec![0; 32],
        }
    }
}

impl File {
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.metadata.retain(|(k, _)| k != key.as_bytes());
        self.metadata.push((key.into(), value));
        self
    }

    pub fn without(mut self, key: &str) -> Self {
        self.metadata.retain(|(k, _)| k != key.as_bytes());
        self
    }

    pub fn with_tensors(mut self, tensors: Vec<Entry>) -> Self {
        self.tensors = tensors;
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.metadata_count.unwrap_or(self.metadata.len() as u64).to_le_bytes());
        let text = |out: &mut Vec<u8>, bytes: &[u8]| {
            out.extend((bytes.len() as u64).to_le_bytes());
            out.extend(bytes);
        };
        for (key, value) in &self.metadata {
            text(&mut out, key);
            let (kind, bytes) = match value {
                Value::U32(n) => (4u32, n.to_le_bytes().to_vec()),
                Value::F32(x) => (6, x.to_le_bytes().to_vec()),
                Value::Text(s) => {
                    let mut bytes = Vec::new();
                    text(&mut bytes, s.as_bytes());
                    (8, bytes)
                }
                Value::Raw(kind, bytes) => (*kind, bytes.clone()),
            };
            out.extend(kind.to_le_bytes());
            out.extend(bytes);
        }
        for (name, dims, kind, offset) in &self.tensors {
            text(&mut out, name.as_bytes());
            out.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        out
    }
}
