//! Adapters go to the real PEFT and come back.

mod heads;
mod patterns;
mod round_trip;
mod saved_modules;
