//! Training, taken up after any interruption, alone and in several processes.

mod checkpoints;
mod processes;
mod support;
mod training;
