//! The program `bayes-lora`, as a user runs it.
