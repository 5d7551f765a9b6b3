//! The real one.
