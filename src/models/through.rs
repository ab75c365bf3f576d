//! Writes `Adaptable` for a model that holds its network in a field.

/// Implements [`crate::lora::Adaptable`] for `$type` by its field `$network`, with the head in its field `$head` where it has one.
macro_rules! adaptable_through {
    ([$($generics:tt)*] $type:ty, $network:ident $(, $head:ident)?) => {
        impl<$($generics)*> $crate::lora::Adaptable for $type {
            fn linears(&self) -> Vec<&$crate::lora::LoraLinear> {
                $crate::lora::Adaptable::linears(&self.$network)
            }

            fn linears_mut(&mut self) -> Vec<&mut $crate::lora::LoraLinear> {
                $crate::lora::Adaptable::linears_mut(&mut self.$network)
            }

            $(
                fn heads(&self) -> Vec<&$crate::lora::TrainedHead> {
                    vec![&self.$head]
                }

                fn heads_mut(&mut self) -> Vec<&mut $crate::lora::TrainedHead> {
                    vec![&mut self.$head]
                }
            )?

            fn parts(&self) -> Vec<$crate::lora::BasePart> {
                $crate::lora::Adaptable::parts(&self.$network)
            }

            fn set_part(&mut self, part: $crate::lora::BasePart) -> bool {
                $crate::lora::Adaptable::set_part(&mut self.$network, part)
            }
        }
    };
}

pub(super) use adaptable_through;
