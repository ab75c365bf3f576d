//! What is made of a posterior: predictions of every kind, and methods of uncertainty side by side.

mod compare;
mod generation;
mod methods;
mod rewards;
mod support;
mod text;
