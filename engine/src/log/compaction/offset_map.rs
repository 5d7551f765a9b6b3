//! Where each key was written last: a table of fixed size from a hash of the key to an offset, so that memory is bounded
//! whatever the number of keys. Filled with the records that are to be cleaned; when it is full, the cleaning goes as far as it
//! holds. No I/O.
//!
//! Keys are told apart by 128 bits of a hash with a key of its own for each table (SipHash-2-4), so that nobody can make two
//! of them collide, and chance does not.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::types::Offset;

/// Two words of hash and one of offset + 1; 0 is an empty slot. Plain words, so that memory is taken as it is touched.
const SLOT_WORDS: usize = 3;
/// What an entry takes.
pub(crate) const SLOT_BYTES: usize = SLOT_WORDS * size_of::<u64>();

/// There is no room for another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// See the module.
pub(crate) struct OffsetMap {
    hash_key: [u64; 2],
    words: Vec<u64>,
    used: usize,
    used_max: usize,
}

impl OffsetMap {
    /// A table of at most `bytes_max` bytes that is filled up to `load_factor`, and not larger than `keys_max` keys need.
    pub(crate) fn new(bytes_max: usize, load_factor: f64, keys_max: u64, hash_key: [u64; 2]) -> Self {
        let load_factor = load_factor.clamp(0.1, 1.0);
        let wanted = usize::try_from((keys_max as f64 / load_factor).ceil() as u64).unwrap_or(usize::MAX).saturating_add(1);
        let slots = (bytes_max / SLOT_BYTES).min(wanted).max(2);
        // One slot stays empty, so that a search ends.
        let used_max = ((slots as f64 * load_factor) as usize).clamp(1, slots - 1);
        Self { hash_key, words: vec![0; slots * SLOT_WORDS], used: 0, used_max }
    }

    /// How many keys it holds.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// Notes that `key` was written at `offset`; offsets are noted in their order.
    pub(crate) fn put(&mut self, key: &[u8], offset: Offset) -> Result<(), Full> {
        let hash = self.hash(key);
        let at = self.find(hash);
        let slot = &mut self.words[at..at + SLOT_WORDS];
        if slot[2] == 0 {
            if self.used == self.used_max {
                return Err(Full);
            }
            self.used += 1;
            slot[..2].copy_from_slice(&hash);
        }
        slot[2] = offset.0.cast_unsigned() + 1;
        Ok(())
    }

    /// The last offset of `key`, if it is here.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Offset> {
        let at = self.find(self.hash(key));
        let found = self.words[at + 2].checked_sub(1)?;
        Some(Offset(found.cast_signed()))
    }

    /// The first word of the slot that has the hash, or of the empty one where it belongs.
    fn find(&self, hash: [u64; 2]) -> usize {
        let slots = self.words.len() / SLOT_WORDS;
        let mut slot = ((u128::from(hash[0]) * slots as u128) >> 64) as usize;
        loop {
            let at = slot * SLOT_WORDS;
            if self.words[at + 2] == 0 || self.words[at..at + 2] == hash {
                return at;
            }
            slot = if slot + 1 == slots { 0 } else { slot + 1 };
        }
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let mut hasher = SipHasher24::new_with_keys(self.hash_key[0], self.hash_key[1]);
        hasher.write(key);
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_takes_no_more_than_it_may_and_one_key_at_least() {
        let map = OffsetMap::new(240, 0.9, 1_000, [1, 2]);
        assert_eq!((map.words.len() * 8, map.used_max), (240, 9));
        let few = OffsetMap::new(1 << 20, 0.9, 9, [1, 2]);
        assert!(few.words.len() * 8 <= 12 * SLOT_BYTES && few.used_max >= 9);
        let mut tiny = OffsetMap::new(0, 0.9, 1_000, [1, 2]);
        assert_eq!(
            (tiny.put(b"a", Offset(0)), tiny.put(b"a", Offset(1)), tiny.put(b"b", Offset(2))),
            (Ok(()), Ok(()), Err(Full))
        );
        assert_eq!((tiny.get(b"a"), tiny.get(b"b"), tiny.len()), (Some(Offset(1)), None, 1));
    }

    proptest! {
        #[test]
        fn it_knows_what_a_map_knows(keys in prop::collection::vec(0u8..40, 0..200), room in 1usize..50) {
            let mut map = OffsetMap::new((room + 1) * SLOT_BYTES, 1.0, u64::MAX, [3, 4]);
            let mut model = BTreeMap::new();
            for (offset, key) in keys.iter().enumerate() {
                let offset = Offset(offset as i64);
                let full = model.len() == room && !model.contains_key(key);
                prop_assert_eq!(map.put(&[*key], offset), if full { Err(Full) } else { Ok(()) });
                if !full {
                    model.insert(*key, offset);
                }
            }
            prop_assert_eq!(map.len(), model.len());
            for key in 0..40 {
                prop_assert_eq!(map.get(&[key]), model.get(&key).copied());
            }
        }
    }
}
