//! The simulated one.
