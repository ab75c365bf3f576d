//! What the comparing studies share: methods by name, flags of the report, and what is left at the end.

pub mod methods;
pub mod report_arguments;
pub mod scores;
