//! Makes a chat template's marks around the assistant's words visible in what it writes.

/// Characters of Unicode's private use area that stand where a template's marks are.
pub(super) const MARKS: [char; 2] = ['\u{e001}', '\u{e002}'];

/// A template that writes [`MARKS`] where it has marks; `None` where it has none.
///
/// The mark goes between two blocks that stand in for one, so that white space is trimmed as around the one.
pub(super) fn with_marks(source: &str) -> Option<String> {
    let mut out = String::with_capacity(source.len() + 64);
    let (mut rest, mut any) = (source, false);
    while let Some(open) = rest.find("{%") {
        // behind the opening, whose `%` may stand before a `}` of the text
        let Some(length) = rest[open + 2..].find("%}") else { break };
        let (tag, after) = (&rest[open + 2..open + 2 + length], open + length + 4);
        let control = ['-', '+'];
        let lead = tag.chars().next().filter(|c| control.contains(c)).map(String::from).unwrap_or_default();
        let trail = tag.chars().next_back().filter(|c| control.contains(c)).map(String::from).unwrap_or_default();
        out.push_str(&rest[..open]);
        match tag.trim_matches(control).trim() {
            "generation" => {
                any = true;
                out.push_str(&format!("{{%{lead} if true %}}{{{{ '{}' }}}}{{% if true {trail}%}}", MARKS[0]));
            }
            "endgeneration" => {
                out.push_str(&format!("{{%{lead} endif %}}{{{{ '{}' }}}}{{% endif {trail}%}}", MARKS[1]));
            }
            _ => out.push_str(&rest[open..after]),
        }
        rest = &rest[after..];
    }
    out.push_str(rest);
    any.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stand_in_for_blocks_with_their_white_space() {
        assert_eq!(with_marks("{% if add_generation_prompt %}a{% endif %}{% b"), None);
        assert_eq!(with_marks("{%}w %}{%%}{%"), None);
        let [open, close] = MARKS;
        let expected = format!(
            "a{{%- if true %}}{{{{ '{open}' }}}}{{% if true -%}} b {{% endif %}}{{{{ '{close}' }}}}{{% endif +%}}c"
        );
        assert_eq!(with_marks("a{%- generation -%} b {% endgeneration +%}c").unwrap(), expected);
    }
}
