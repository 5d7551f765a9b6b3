//! Which partition a key belongs to: as Kafka's own clients choose, so that records of one key meet whoever produced them.

/// The partition of a key among `count`: murmur2, its sign bit cleared, modulo (Kafka's default partitioner).
///
/// # Panics
/// If there are none.
pub(super) fn partition_of(key: &[u8], count: usize) -> usize {
    assert!(count > 0, "a topic has partitions");
    (murmur2(key) & 0x7fff_ffff) as usize % count
}

/// MurmurHash2 by Austin Appleby, 32 bits, little-endian, with the seed that Kafka's clients use.
fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ bytes.len() as u32;
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !tail.is_empty() {
        let mut last = [0; 4];
        last[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u32::from_le_bytes(last)).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Kafka's `Utils.murmur2` gives for these, as signed numbers.
    #[test]
    fn hashes_are_kafkas() {
        let known: [(&str, i32); 5] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ];
        for (text, hash) in known {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
        assert!(partition_of(b"foobar", 3) < 3);
    }
}
