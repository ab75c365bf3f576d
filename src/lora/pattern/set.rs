//! Sets of characters as Python's `re` understands them: exact for ASCII, as near as Rust's tables elsewhere.

/// A set of characters.
#[derive(Debug, Clone, Default)]
pub(super) struct Set {
    pub(super) ranges: Vec<(char, char)>,
    pub(super) classes: Vec<Class>,
    pub(super) negated: bool,
    pub(super) ignores_case: bool,
}

/// `\d`, `\s`, `\w`; with true their complements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Class(pub(super) char, pub(super) bool);

/// `_` and what Python's `isalnum` holds for one.
pub(super) fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// One character in lower case; those whose lower case is several keep theirs.
pub(super) fn folded(c: char) -> char {
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

impl Set {
    pub(super) fn of(c: char, ignores_case: bool) -> Self {
        Self { ranges: vec![(c, c)], ignores_case, ..Self::default() }
    }

    pub(super) fn class(class: Class) -> Self {
        Self { classes: vec![class], ..Self::default() }
    }

    /// Everything, or everything but a newline.
    pub(super) fn any(with_newline: bool) -> Self {
        let ranges = if with_newline { vec![] } else { vec![('\n', '\n')] };
        Self { ranges, negated: true, ..Self::default() }
    }

    pub(super) fn contains(&self, c: char) -> bool {
        let among = |c: char| {
            self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&c))
                || self.classes.iter().any(|Class(letter, complement)| {
                    *complement
                        != match letter {
                            'd' => c.is_ascii_digit() || (!c.is_ascii() && c.is_numeric()),
                            's' => c.is_whitespace() || ('\x1c'..='\x1f').contains(&c),
                            _ => is_word(c),
                        }
                })
        };
        let upper = || c.to_uppercase().next().is_some_and(among);
        self.negated != (among(c) || (self.ignores_case && (among(folded(c)) || upper())))
    }
}
