//! Shades words as they come by the doubt about them.

/// Nats of mutual information from which on a word is doubtful, and its ANSI background: yellow, orange, red.
const LEVELS: [(f64, u8); 3] = [(0.05, 229), (0.15, 215), (0.4, 203)];

#[derive(Clone, Copy)]
pub enum Look {
    Colours,
    Marks,
}

/// Holds back one word, until it is known where it ends: its doubt is the largest of its tokens.
pub struct Shader {
    look: Look,
    word: String,
    doubt: f64,
}

impl Shader {
    pub fn new(look: Look) -> Self {
        Self { look, word: String::new(), doubt: 0.0 }
    }

    /// Adds a piece of text with its doubt; gives the words that are whole.
    pub fn push(&mut self, text: &str, doubt: f64) -> String {
        let mut out = String::new();
        for part in text.split_inclusive(char::is_whitespace) {
            let (word, blank) = part.split_at(part.trim_end().len());
            if !word.is_empty() {
                self.word += word;
                self.doubt = self.doubt.max(doubt);
            }
            if !blank.is_empty() {
                out += &self.finish();
                out += blank;
            }
        }
        out
    }

    /// The word that is held back.
    pub fn finish(&mut self) -> String {
        let (word, doubt) = (std::mem::take(&mut self.word), std::mem::take(&mut self.doubt));
        let level = LEVELS.iter().rposition(|(least, _)| doubt >= *least);
        match (level, self.look) {
            _ if word.is_empty() => word,
            (None, _) => word,
            (Some(level), Look::Colours) => format!("\x1b[30;48;5;{}m{word}\x1b[0m", LEVELS[level].1),
            (Some(level), Look::Marks) => format!("{word}{}", "?".repeat(level + 1)),
        }
    }
}
