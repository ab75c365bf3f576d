//! Writes the setters of configurations, so that all of them read alike.

/// Makes `pub fn with_field(mut self, field: Type) -> Self` of every line `with_field(field: Type);`, with the line's documentation.
/// A type may be `impl Into<…>` of the field's, as for an `Option`.
macro_rules! setters {
    ($($(#[$doc:meta])* $setter:ident($field:ident: $type:ty);)*) => {$(
        $(#[$doc])*
        pub fn $setter(mut self, $field: $type) -> Self {
            self.$field = $field.into();
            self
        }
    )*};
}

pub(crate) use setters;
