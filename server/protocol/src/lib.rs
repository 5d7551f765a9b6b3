//! Apache Kafka's wire codec. Pure (no I/O), bounded (no length from the wire reserves memory beyond the bytes that are there), allocation-light.
#![forbid(unsafe_code)]
