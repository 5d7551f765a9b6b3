//! Benchmarks of the engine and the codec; `benches/` holds the criterion ones.
