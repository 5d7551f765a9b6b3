//! What is in the records: keys, filler, and for runs that look inside, a stamp that says who sent a record, where to, in what
//! order and when. Everything can be derived again by whoever reads it back. Pure.

/// The bytes of a key.
pub(crate) const KEY_BYTES: usize = 8;
/// The bytes of a [`Stamp`] at the front of a value.
pub(crate) const STAMP_BYTES: usize = 48;

const STAMP_CHECKED_BYTES: usize = STAMP_BYTES - 4;
/// How many places a record's filler can start at.
const FILLER_STARTS: usize = 1 << 16;

/// Who sent a record, where to, in what order and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The run: a random number.
    pub run: u64,
    /// The producer within the run.
    pub producer: u32,
    /// The partition that it was sent to.
    pub partition: i32,
    /// Counted from 0 for each producer and partition.
    pub sequence: u64,
    /// When it was sent, or was to be sent: nanoseconds on the run's clock.
    pub sent_ns: u64,
    /// Where in [`Filler`] the rest of the value starts.
    pub filler_at: u32,
    /// The whole value's bytes.
    pub value_bytes: u32,
    /// The record's key; `None` where it has none.
    pub key: Option<u32>,
}

/// In a stamp, what stands for no key: there are never so many.
const NO_KEY: u32 = u32::MAX;

impl Stamp {
    /// Writes it to the front of a value.
    pub(crate) fn write(&self, value: &mut [u8]) {
        value[0..8].copy_from_slice(&self.run.to_be_bytes());
        value[8..12].copy_from_slice(&self.producer.to_be_bytes());
        value[12..16].copy_from_slice(&self.partition.to_be_bytes());
        value[16..24].copy_from_slice(&self.sequence.to_be_bytes());
        value[24..32].copy_from_slice(&self.sent_ns.to_be_bytes());
        value[32..36].copy_from_slice(&self.filler_at.to_be_bytes());
        value[36..40].copy_from_slice(&self.value_bytes.to_be_bytes());
        value[40..44].copy_from_slice(&self.key.unwrap_or(NO_KEY).to_be_bytes());
        let crc = crc32c::crc32c(&value[..STAMP_CHECKED_BYTES]);
        value[STAMP_CHECKED_BYTES..STAMP_BYTES].copy_from_slice(&crc.to_be_bytes());
    }

    /// Reads it from the front of a value; `None` where there is none or its checksum does not fit.
    #[must_use]
    pub(crate) fn read(value: &[u8]) -> Option<Self> {
        let (checked, rest) = value.split_at_checked(STAMP_CHECKED_BYTES)?;
        let crc = u32::from_be_bytes(*rest.first_chunk()?);
        if crc32c::crc32c(checked) != crc {
            return None;
        }
        let u32_at = |at: usize| checked[at..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let u64_at = |at: usize| checked[at..].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Some(Self {
            run: u64_at(0),
            producer: u32_at(8),
            partition: u32_at(12).cast_signed(),
            sequence: u64_at(16),
            sent_ns: u64_at(24),
            filler_at: u32_at(32),
            value_bytes: u32_at(36),
            key: Some(u32_at(40)).filter(|key| *key != NO_KEY),
        })
    }
}

/// The bytes that values are filled with: random letters, which compress to some 60 %, as in Kafka's own tool.
#[derive(Clone, Debug)]
pub(crate) struct Filler {
    bytes: Vec<u8>,
}

impl Filler {
    /// The filler of a run, for values up to `value_bytes`.
    #[must_use]
    pub(crate) fn new(run: u64, value_bytes: usize) -> Self {
        let mut random = Random::new(run);
        let bytes =
            (0..FILLER_STARTS + value_bytes).map(|_| b'A' + (random.next() >> 32).wrapping_mul(26).wrapping_shr(32) as u8);
        Self { bytes: bytes.collect() }
    }

    /// A place to start at, from any number.
    #[must_use]
    pub(crate) fn start(random: u64) -> u32 {
        (random % FILLER_STARTS as u64) as u32
    }

    /// The filler of a value from `at` on; `None` where there is none so long.
    #[must_use]
    pub(crate) fn slice(&self, at: u32, bytes: usize) -> Option<&[u8]> {
        self.bytes.get(at as usize..)?.get(..bytes)
    }
}

/// A small generator of numbers that look random (xorshift64*; Vigna 2016): for content, never for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15 | 1)
    }

    /// The next number.
    #[must_use]
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 0 up to 1.
    #[must_use]
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The bytes of a record in a batch, whose number in it is `at`.
#[must_use]
pub(crate) fn record_bytes(at: i32, key_bytes: Option<usize>, value_bytes: usize) -> usize {
    let varint = |value: usize| {
        let bits = 64 - ((value as u64) << 1 | 1).leading_zeros() as usize;
        bits.div_ceil(7)
    };
    // Attributes, timestamp delta 0, number of headers 0.
    let key = key_bytes.map_or(1, |bytes| varint(bytes) + bytes);
    let body = 3 + varint(at as usize) + key + varint(value_bytes) + value_bytes;
    varint(body) + body
}

/// Which keys are drawn and how often: a stream of keys by Zipf's law, cut up by the partition that each key belongs to. The
/// stream is drawn once and then repeats, so that a key costs a look-up.
#[derive(Debug)]
pub(crate) struct Keys {
    partitions: u32,
    /// Which partition's turn it is, in the order drawn.
    turns: Vec<u32>,
    turn: usize,
    /// For each partition the keys drawn, and which is next.
    drawn: Vec<(Vec<u32>, usize)>,
}

/// How many keys are drawn before they repeat.
const DRAWS: usize = 1 << 18;

impl Keys {
    /// Draws from `keys` keys over `partitions` partitions.
    #[must_use]
    pub(crate) fn new(keys: u32, skew: f64, partitions: u32, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let zipf = Zipf::new(keys, skew);
        let mut turns = Vec::with_capacity(DRAWS);
        let mut drawn = vec![(Vec::new(), 0); partitions as usize];
        for _ in 0..DRAWS {
            let key = zipf.draw(&mut random);
            let partition = Self::partition(key, partitions);
            turns.push(partition);
            drawn[partition as usize].0.push(key);
        }
        Self { partitions, turns, turn: 0, drawn }
    }

    /// The partition that a key belongs to.
    #[must_use]
    pub(crate) fn partition(key: u32, partitions: u32) -> u32 {
        // Spread, so that the most frequent keys do not lie side by side.
        ((u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % u64::from(partitions)) as u32
    }

    /// The partition that the next batch goes to.
    pub(crate) fn next_partition(&mut self) -> u32 {
        let partition = self.turns[self.turn];
        self.turn = (self.turn + 1) % self.turns.len();
        partition
    }

    /// The next key of a partition; of one that has none, its number.
    pub(crate) fn next_key(&mut self, partition: u32) -> u32 {
        let (keys, next) = &mut self.drawn[(partition % self.partitions) as usize];
        let key = keys.get(*next).copied().unwrap_or(partition);
        *next = if *next + 1 >= keys.len() { 0 } else { *next + 1 };
        key
    }
}

/// A key as it is sent.
#[must_use]
pub(crate) fn key_bytes(key: u32) -> [u8; KEY_BYTES] {
    u64::from(key).to_be_bytes()
}

/// Zipf's distribution by rejection-inversion (Hörmann and Derflinger 1996): no table, however many keys.
#[derive(Debug)]
struct Zipf {
    keys: f64,
    skew: f64,
    low: f64,
    high: f64,
    shift: f64,
}

impl Zipf {
    fn new(keys: u32, skew: f64) -> Self {
        let mut zipf = Self { keys: f64::from(keys), skew, low: 0.0, high: 0.0, shift: 0.0 };
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(zipf.keys + 0.5);
        zipf.shift = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.density(2.0));
        zipf
    }

    fn density(&self, x: f64) -> f64 {
        (-self.skew * x.ln()).exp()
    }

    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        let exponent = (1.0 - self.skew) * log;
        if exponent.abs() < 1e-8 { log } else { exponent.exp_m1() / exponent * log }
    }

    fn inverse(&self, x: f64) -> f64 {
        let t = (x * (1.0 - self.skew)).max(-1.0);
        if t.abs() < 1e-8 { x.exp() } else { (t.ln_1p() / t * x).exp() }
    }

    /// From 0 up to the number of keys; 0 the most frequent.
    fn draw(&self, random: &mut Random) -> u32 {
        loop {
            let u = self.high + random.fraction() * (self.low - self.high);
            let x = self.inverse(u);
            let k = x.round().clamp(1.0, self.keys);
            if k - x <= self.shift || u >= self.integral(k + 0.5) - self.density(k) {
                return k as u32 - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ringlog_engine::record::Record;

    use super::*;

    fn stamp() -> Stamp {
        Stamp { run: 7, producer: 1, partition: 3, sequence: 9, sent_ns: 1 << 40, filler_at: 5, value_bytes: 100, key: Some(8) }
    }

    #[test]
    fn a_stamp_comes_back_and_damage_is_seen() {
        let mut value = vec![b'x'; 100];
        stamp().write(&mut value);
        assert_eq!(Stamp::read(&value), Some(stamp()));
        Stamp { key: None, ..stamp() }.write(&mut value);
        assert_eq!(Stamp::read(&value), Some(Stamp { key: None, ..stamp() }));
        for at in 0..STAMP_BYTES {
            value[at] ^= 1;
            assert_eq!(Stamp::read(&value), None, "byte {at}");
            value[at] ^= 1;
        }
        assert_eq!(Stamp::read(&value[..STAMP_BYTES - 1]), None);
    }

    #[test]
    fn filler_is_the_runs_own_and_can_be_made_again() {
        let (one, again, other) = (Filler::new(1, 100), Filler::new(1, 500), Filler::new(2, 100));
        assert_eq!(one.slice(77, 100), again.slice(77, 100));
        assert_ne!(one.slice(77, 100), other.slice(77, 100));
        assert!(one.slice(0, 1000).unwrap().iter().all(u8::is_ascii_uppercase));
        let letters: std::collections::BTreeSet<u8> = one.slice(0, 10_000).unwrap().iter().copied().collect();
        assert_eq!(letters.len(), 26);
        assert_eq!(one.slice(FILLER_STARTS as u32, 101), None);
        assert!(one.slice(Filler::start(u64::MAX), 100).is_some());
    }

    #[test]
    fn a_records_size_is_foretold() {
        for at in [0, 63, 64, 8191, 8192, 1_000_000] {
            for (keyed, value) in [(false, 0), (true, 0), (false, 100), (true, 1000), (true, 70_000)] {
                let mut out = Vec::new();
                Record::new(at, 0, keyed.then_some(&[0; KEY_BYTES]), Some(&vec![1; value])).encode(&mut out);
                assert_eq!(record_bytes(at, keyed.then_some(KEY_BYTES), value), out.len(), "{at} {keyed} {value}");
            }
        }
    }

    #[test]
    fn keys_follow_zipf_and_keep_their_partition() {
        let mut random = Random::new(1);
        let frequency = |skew: f64, random: &mut Random| {
            let zipf = Zipf::new(100, skew);
            let mut counts = [0_u32; 100];
            for _ in 0..100_000 {
                counts[zipf.draw(random) as usize] += 1;
            }
            counts
        };
        let uniform = frequency(0.0, &mut random);
        assert!(uniform.iter().all(|&count| (800..1200).contains(&count)), "{uniform:?}");
        let skewed = frequency(1.0, &mut random);
        // The harmonic number of 100 is 5.187: the first key has 19.3 % of all, the second half of that.
        assert!((18_800..19_800).contains(&skewed[0]), "{}", skewed[0]);
        assert!((9_200..10_100).contains(&skewed[1]), "{}", skewed[1]);

        let mut keys = Keys::new(1000, 0.9, 7, 3);
        for _ in 0..1000 {
            let partition = keys.next_partition();
            assert_eq!(Keys::partition(keys.next_key(partition), 7), partition);
        }
        assert!(Keys::new(1, 0.0, 4, 3).next_partition() < 4);
    }
}
