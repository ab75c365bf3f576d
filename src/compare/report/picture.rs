//! Holds pictures as text, for pages.

use serde::Serialize;

/// Pictures under one heading.
#[derive(Serialize)]
pub(super) struct Pictures {
    pub title: String,
    pub note: String,
    pub pictures: Vec<Picture>,
}

/// An SVG element, all texts within it escaped.
#[derive(Serialize)]
pub(super) struct Picture {
    pub svg: String,
}
