//! Says how a search for one number ended: inside its bounds, at one of them, or with nothing to tell by.
//!
//! Whatever seeks a number (a prior precision, a temperature, a scale of noise) answers with a [`Search`]. A search ends at a
//! bound only where going further cannot change what is predicted, or where the bound is a setting; its words say which.
//!
//! ```
//! use bayes_lora::search::{Search, SearchEnd};
//!
//! let search = Search::new("prior precision", 8.7e6, (1e-3, 8.7e6), SearchEnd::AtUpper)
//!     .with_meaning("the held-out items ask for the trained adapter alone");
//! assert_eq!(
//!     search.to_string(),
//!     "prior precision 8.70e6 is at the upper end of its search [0.001, 8.70e6]: \
//!      the held-out items ask for the trained adapter alone"
//! );
//! ```

mod exact;
mod line;
mod outcome;

pub(crate) use exact::ExactSearch;
pub(crate) use line::Line;
pub use outcome::{Search, SearchEnd};
