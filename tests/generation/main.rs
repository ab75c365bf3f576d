//! Text is generated as it would be without a cache, alone, and by each draw of a posterior by itself.

mod cache;
#[path = "../support/mod.rs"]
mod support;
