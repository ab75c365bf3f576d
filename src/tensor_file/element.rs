//! Reads and writes single numbers as a file holds them.

use safetensors::Dtype;

/// A number as a file holds it, little-endian.
pub(crate) trait Element: Copy {
    /// Its name in the file.
    const DTYPE: Dtype;

    fn read(bytes: &[u8]) -> Self;
    fn write(self, bytes: &mut Vec<u8>);
    fn is_finite(self) -> bool;
}

macro_rules! element {
    ($number:ty, $dtype:ident, $is_finite:expr) => {
        impl Element for $number {
            const DTYPE: Dtype = Dtype::$dtype;

            fn read(bytes: &[u8]) -> Self {
                let mut own = [0; size_of::<Self>()];
                own.copy_from_slice(bytes);
                Self::from_le_bytes(own)
            }

            fn write(self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_le_bytes());
            }

            fn is_finite(self) -> bool {
                $is_finite(self)
            }
        }
    };
}

element!(f64, F64, f64::is_finite);
element!(f32, F32, f32::is_finite);
element!(u64, U64, |_| true);
element!(u8, U8, |_| true);
