//! Files of every format, changed at random.

mod fuzz;
mod support;
