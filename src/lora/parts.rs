//! Parameters beside the linears that an adapter's files may bring whole: an embedding's table, a norm's gains.

use burn::tensor::Tensor;

/// A parameter that no linear holds, `weight` of the module at a path.
#[derive(Debug, Clone)]
pub struct BasePart {
    /// The module's path, such as `model.norm`.
    pub path: String,
    /// The parameter; clones share its memory.
    pub weight: PartWeight,
    /// True if it came with an adapter; saving that adapter writes it again, merging makes it the base's own.
    pub replaced: bool,
}

/// What a part holds.
#[derive(Debug, Clone)]
pub enum PartWeight {
    /// The rows of an embedding, `[vocabulary, width]`; an adapter may bring more or fewer of them, and as many for the head.
    Table(Tensor<2>),
    /// `[width]`
    Vector(Tensor<1>),
}

impl PartWeight {
    pub(super) fn shape(&self) -> Vec<usize> {
        match self {
            Self::Table(table) => table.dims().to_vec(),
            Self::Vector(vector) => vector.dims().to_vec(),
        }
    }
}
