//! Tells names of files inside a directory from names that lead elsewhere.

/// Whether a name that comes from a file or a server is a plain file name: no separator of any system, no drive, no `..`.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && !name.contains(['/', '\\', ':'])
        && !name.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_directory_on_any_system_are_not_plain() {
        for name in ["", ".", "..", "../a", "/a", "a/b", "a\\b", "..\\a", "C:a", "\\\\server\\a", "a\0b", "a\nb"] {
            assert!(!is_plain(name), "{name:?}");
        }
        for name in ["model.safetensors", "model-00001-of-00002.safetensors", "..a", "a b"] {
            assert!(is_plain(name), "{name:?}");
        }
    }
}
