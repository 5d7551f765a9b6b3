//! A deterministic disk in memory.
