//! What is measured while it runs. Each thread has a [`Recorder`] of its own for a side and hands on a histogram a second; the
//! main thread puts them together in a [`Collector`]. So memory does not grow with the number of requests.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

use crate::results::{Latency, Second, Side};

/// Three digits of each value are kept.
const DIGITS: u8 = 3;
const SECOND_NS: u64 = 1_000_000_000;
/// Seconds that are kept open for threads that are late with them.
const OPEN_SECONDS: u32 = 3;

/// An empty histogram of microseconds; it grows with the values.
#[must_use]
pub(crate) fn histogram() -> Histogram<u64> {
    // Three digits are within what the crate takes, which is its only error.
    Histogram::new(DIGITS).unwrap_or_else(|error| panic!("a histogram of {DIGITS} digits: {error}"))
}

/// Adds `count` latencies.
pub(crate) fn record_us(histogram: &mut Histogram<u64>, us: u64, count: u64) {
    // An hour is as good as for ever; a histogram that resizes itself takes every value.
    let _ = histogram.record_n(us.clamp(1, 3_600_000_000), count);
}

/// Which side of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Producers.
    Produce,
    /// Consumers.
    Consume,
}

/// What one thread saw of one side in one second.
#[derive(Debug)]
pub(crate) struct Interval {
    /// Whose.
    pub role: Role,
    /// Which second of what is measured.
    second: u32,
    /// How many there were.
    pub records: u64,
    bytes: u64,
    requests: u64,
    latency: Histogram<u64>,
}

/// Takes what a thread sees of one side.
#[derive(Debug)]
pub(crate) struct Recorder {
    sender: Sender<Interval>,
    measure_ns: u64,
    current: Interval,
    /// When the first and the last of what is counted happened.
    pub span: Option<(u64, u64)>,
}

impl Recorder {
    /// Counts from `measure_ns` on.
    #[must_use]
    pub(crate) fn new(role: Role, measure_ns: u64, sender: Sender<Interval>) -> Self {
        let current = Interval { role, second: 0, records: 0, bytes: 0, requests: 0, latency: histogram() };
        Self { sender, measure_ns, current, span: None }
    }

    /// Counts what a request that was sent at `sent_ns` brought at `now_ns`.
    pub(crate) fn count(&mut self, sent_ns: u64, now_ns: u64, records: u64, bytes: u64) {
        self.turn(now_ns);
        let (first, last) = self.span.get_or_insert((sent_ns, now_ns));
        (*first, *last) = ((*first).min(sent_ns), (*last).max(now_ns));
        self.current.records += records;
        self.current.bytes += bytes;
        self.current.requests += 1;
    }

    /// Adds a latency, of what was last counted.
    pub(crate) fn latency(&mut self, ns: u64, count: u64) {
        record_us(&mut self.current.latency, ns.div_ceil(1000), count);
    }

    /// Hands on seconds that are over.
    pub(crate) fn turn(&mut self, now_ns: u64) {
        let second = (now_ns.saturating_sub(self.measure_ns) / SECOND_NS) as u32;
        if second > self.current.second {
            self.hand_on(second);
        }
    }

    /// Hands on the last second.
    pub(crate) fn finish(&mut self) {
        let second = self.current.second;
        self.hand_on(second);
    }

    fn hand_on(&mut self, second: u32) {
        let next = Interval { role: self.current.role, second, records: 0, bytes: 0, requests: 0, latency: histogram() };
        let done = std::mem::replace(&mut self.current, next);
        if done.requests > 0 {
            // Nobody listens once the run has failed.
            let _ = self.sender.send(done);
        }
    }
}

/// Puts the intervals of one side together.
#[derive(Debug)]
pub(crate) struct Collector {
    open: BTreeMap<u32, Interval>,
    newest: u32,
    closed_until: u32,
    total: Histogram<u64>,
    seconds: Vec<Second>,
    records: u64,
    bytes: u64,
    requests: u64,
    /// Each second's histogram, compressed, as the log takes it.
    log: Vec<(u32, Vec<u8>)>,
}

/// An hour of seconds is logged one by one; what comes after that is only in the total.
const LOGGED_SECONDS_MAX: usize = 3600;

impl Default for Collector {
    fn default() -> Self {
        Self {
            open: BTreeMap::new(),
            newest: 0,
            closed_until: 0,
            total: histogram(),
            seconds: Vec::new(),
            records: 0,
            bytes: 0,
            requests: 0,
            log: Vec::new(),
        }
    }
}

impl Collector {
    /// Takes an interval of any thread.
    pub(crate) fn take(&mut self, mut interval: Interval) {
        self.records += interval.records;
        self.bytes += interval.bytes;
        self.requests += interval.requests;
        // Both grow themselves.
        let _ = self.total.add(&interval.latency);
        self.newest = self.newest.max(interval.second);
        interval.second = interval.second.max(self.closed_until);
        match self.open.get_mut(&interval.second) {
            Some(open) => {
                open.records += interval.records;
                open.bytes += interval.bytes;
                let _ = open.latency.add(&interval.latency);
            }
            None => {
                self.open.insert(interval.second, interval);
            }
        }
        while self.closed_until + OPEN_SECONDS < self.newest {
            self.close();
        }
    }

    /// Records so far.
    #[must_use]
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Bytes so far.
    #[must_use]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Records in the last second that is whole.
    #[must_use]
    pub(crate) fn records_per_s(&self) -> Option<u64> {
        let whole = self.newest.checked_sub(1)?;
        let closed = self.seconds.get(whole as usize).map(|second| second.records);
        closed.or_else(|| self.open.get(&whole).map(|open| open.records))
    }

    /// Closes the oldest open second, also one in which nothing happened: that is what a stall looks like.
    fn close(&mut self) {
        let second = self.closed_until;
        self.closed_until += 1;
        let Some(interval) = self.open.remove(&second) else {
            self.seconds.push(Second { second, ..Second::default() });
            return;
        };
        let latency = &interval.latency;
        let has = !latency.is_empty();
        let at = |quantile: f64| if has { latency.value_at_quantile(quantile) } else { 0 };
        self.seconds.push(Second {
            second,
            records: interval.records,
            bytes: interval.bytes,
            p50_us: at(0.5),
            p99_us: at(0.99),
            max_us: if has { latency.max() } else { 0 },
        });
        if has && self.log.len() < LOGGED_SECONDS_MAX {
            let mut packed = Vec::new();
            // Writing to memory does not fail; a second that did would be missing from the log alone.
            if V2DeflateSerializer::new().serialize(latency, &mut packed).is_ok() {
                self.log.push((second, packed));
            }
        }
    }

    /// The side as a result, and its `.hlog`. `span` is its first sending and its last answer.
    #[must_use]
    pub(crate) fn finish(
        mut self,
        span: Option<(u64, u64)>,
        errors: Vec<(String, u64)>,
        began: SystemTime,
    ) -> (Side, Option<Vec<u8>>) {
        while self.closed_until <= self.newest && !self.open.is_empty() {
            self.close();
        }
        let elapsed_s = span.map_or(0.0, |(first, last)| (last - first) as f64 / 1e9);
        let per_s = |count: f64| if elapsed_s > 0.0 { count / elapsed_s } else { 0.0 };
        let latency = summary(&self.total);
        let hlog = latency.as_ref().and_then(|_| write_log(&self.log, began));
        let side = Side {
            records: self.records,
            bytes: self.bytes,
            elapsed_s,
            records_per_s: per_s(self.records as f64),
            mb_per_s: per_s(self.bytes as f64 / 1e6),
            latency,
            seconds: self.seconds,
            errors,
        };
        (side, hlog)
    }
}

/// A distribution as a result; none of nothing.
#[must_use]
pub(crate) fn summary(histogram: &Histogram<u64>) -> Option<Latency> {
    if histogram.is_empty() {
        return None;
    }
    let at = |quantile: f64| histogram.value_at_quantile(quantile);
    let curve = histogram
        .iter_quantiles(5)
        .map(|step| (step.quantile_iterated_to() * 100.0, step.value_iterated_to().min(histogram.max())));
    Some(Latency {
        count: histogram.len(),
        min_us: histogram.min(),
        mean_us: histogram.mean(),
        p50_us: at(0.5),
        p90_us: at(0.9),
        p99_us: at(0.99),
        p99_9_us: at(0.999),
        p99_99_us: at(0.9999),
        max_us: histogram.max(),
        curve: curve.collect(),
        hlog: None,
    })
}

/// The seconds in HdrHistogram's own log format; latencies in it are microseconds.
fn write_log(seconds: &[(u32, Vec<u8>)], began: SystemTime) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("ringlog-bench load; latencies in microseconds")
        .with_start_time(began)
        .with_base_time(began)
        .with_max_value_divisor(1000.0)
        .begin_log_with(&mut bytes, &mut serializer)
        .ok()?;
    for (second, packed) in seconds {
        let latency: Histogram<u64> = Deserializer::new().deserialize(&mut packed.as_slice()).ok()?;
        log.write_histogram(&latency, Duration::from_secs(u64::from(*second)), Duration::from_secs(1), None).ok()?;
    }
    drop(log);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    #[test]
    fn seconds_of_all_threads_come_together_and_a_stall_is_a_gap() {
        let (sender, receiver) = channel();
        let began = 100;
        let mut threads = [0, 1].map(|_| Recorder::new(Role::Produce, began, sender.clone()));
        for recorder in &mut threads {
            for second in [0_u64, 1, 9] {
                let now = began + second * SECOND_NS + 5_000;
                recorder.count(now - 2_000, now, 10, 1000);
                recorder.latency(2_000_000, 10);
            }
            recorder.finish();
        }
        let span = threads[0].span;
        assert_eq!(span, Some((began + 3_000, began + 9 * SECOND_NS + 5_000)));
        drop((sender, threads));
        let mut collector = Collector::default();
        receiver.iter().for_each(|interval| collector.take(interval));
        let (side, hlog) = collector.finish(span, Vec::new(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        assert_eq!((side.records, side.bytes, side.seconds.len()), (60, 6000, 10));
        let busy: Vec<u32> = side.seconds.iter().filter(|second| second.records > 0).map(|second| second.second).collect();
        assert_eq!(busy.first(), Some(&0));
        assert_eq!(busy.last(), Some(&9));
        assert_eq!(side.seconds.iter().map(|second| second.records).sum::<u64>(), 60);
        let latency = side.latency.unwrap();
        assert_eq!((latency.count, latency.min_us, latency.p99_us, latency.max_us), (60, 2000, 2000, 2000));
        assert!((99.9..=100.0).contains(&latency.curve.last().unwrap().0), "{:?}", latency.curve);
        let hlog = hlog.unwrap();
        let entries: Vec<_> = IntervalLogIterator::new(&hlog).map(|entry| entry.unwrap()).collect();
        let intervals = entries.iter().filter(|entry| matches!(entry, LogEntry::Interval(_))).count();
        assert!(intervals >= 2, "{entries:?}");
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut all = histogram();
        for us in 1..=10_000 {
            record_us(&mut all, us, 1);
        }
        record_us(&mut all, 2_000_000, 1);
        let latency = summary(&all).unwrap();
        assert_eq!(latency.count, 10_001);
        assert!((4990..=5010).contains(&latency.p50_us) && (9890..=9910).contains(&latency.p99_us), "{latency:?}");
        assert!((2_000_000..2_001_000).contains(&latency.max_us));
        assert!(latency.curve.is_sorted_by(|one, other| one.0 <= other.0 && one.1 <= other.1));
        assert!(summary(&histogram()).is_none());
    }
}
