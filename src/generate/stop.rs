//! Ends a text before a stop string, wherever tokens begin and end.

/// Holds back the end of a text as long as a stop string may begin there.
#[derive(Debug, Clone)]
pub(super) struct StopFilter {
    stops: Vec<String>,
    held: String,
}

impl StopFilter {
    pub(super) fn new(stops: &[String]) -> Self {
        Self { stops: stops.to_vec(), held: String::new() }
    }

    /// Adds text; gives what is sure to stand before any stop string, and the stop string where one is complete.
    pub(super) fn push(&mut self, text: &str) -> (String, Option<String>) {
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(&**stop)?, stop)));
        if let Some((at, stop)) = found.min_by_key(|(at, _)| *at) {
            let stop = stop.clone();
            let mut before = std::mem::take(&mut self.held);
            before.truncate(at);
            return (before, Some(stop));
        }
        let may_begin = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let mut places = self.held.char_indices().map(|(at, _)| at);
        let at = places.find(may_begin).unwrap_or(self.held.len());
        let rest = self.held.split_off(at);
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// What is held back, at the end of the text.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stop_string_in_several_pieces_ends_the_text_and_nothing_of_it_is_given() {
        let mut filter = StopFilter::new(&["\nUser:".into(), "END".into()]);
        let pieces = ["He", "llo E", "N", "o \n", "Us", "er", ": x"].map(|piece| filter.push(piece));
        let texts: Vec<&str> = pieces.iter().map(|(text, _)| &**text).collect();
        assert_eq!(texts, ["He", "llo ", "", "ENo ", "", "", ""]);
        let found: Vec<Option<&str>> = pieces.iter().map(|(_, stop)| stop.as_deref()).collect();
        assert_eq!(found[..6], [None; 6]);
        assert_eq!(found[6], Some("\nUser:"));
    }

    #[test]
    fn what_only_looked_like_a_stop_string_is_given_at_the_end() {
        let mut filter = StopFilter::new(&["ähm".into()]);
        assert_eq!(filter.push("so äh"), ("so ".into(), None));
        assert_eq!(filter.finish(), "äh");
    }

    proptest! {
        #[test]
        fn the_text_is_that_before_the_first_stop_string_however_it_is_cut(
            text in "[abc]{0,30}", stop in "[ab]{1,4}", cuts in prop::collection::vec(0usize..4, 0..30)
        ) {
            let mut filter = StopFilter::new(std::slice::from_ref(&stop));
            let (mut given, mut rest, mut stopped) = (String::new(), &*text, false);
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                rest = after;
                let (new, found) = filter.push(piece);
                given += &new;
                prop_assert!(text.starts_with(&given));
                stopped = found.is_some();
                if stopped {
                    break;
                }
            }
            if !stopped {
                given += &filter.finish();
            }
            let expected = text.find(&stop).map_or(&*text, |at| &text[..at]);
            prop_assert_eq!((given.as_str(), stopped), (expected, text.contains(&stop)));
        }
    }
}
