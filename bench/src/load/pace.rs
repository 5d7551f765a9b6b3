//! The arithmetic of an open loop: which records are due, and when each was to be sent, whatever the broker did meanwhile. Pure:
//! times are nanoseconds that the caller reads from its clock.

/// One producer's share of a fixed rate. Producer i of n sends records i, i + n, i + 2n, … of a stream that is evenly spaced.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    start_ns: u64,
    rate: u64,
    producers: u64,
    producer: u64,
    linger_ns: u64,
    sent: u64,
}

impl Pace {
    /// The share of `producer` among `producers` in `rate` records a second from `start_ns` on. A batch that is not full waits
    /// `linger_ns` for more records.
    #[must_use]
    pub(crate) fn new(start_ns: u64, rate: u64, producer: u32, producers: u32, linger_ns: u64) -> Self {
        assert!(rate > 0 && producer < producers, "a share of a rate");
        Self { start_ns, rate, producers: producers.into(), producer: producer.into(), linger_ns, sent: 0 }
    }

    /// When this producer's record number `at` is to be sent.
    #[must_use]
    pub(crate) fn intended_ns(&self, at: u64) -> u64 {
        let global = u128::from(at) * u128::from(self.producers) + u128::from(self.producer);
        self.start_ns + (global * 1_000_000_000 / u128::from(self.rate)) as u64
    }

    /// How many records were to be sent by `now_ns` and have not been.
    #[must_use]
    pub(crate) fn backlog(&self, now_ns: u64) -> u64 {
        let Some(since) = now_ns.checked_sub(self.start_ns) else { return 0 };
        // Record k is due when k * 10^9 / rate, rounded down, has passed.
        let global = ((u128::from(since) + 1) * u128::from(self.rate) - 1) / 1_000_000_000;
        let mine = match global.checked_sub(u128::from(self.producer)) {
            Some(beyond) => beyond / u128::from(self.producers) + 1,
            None => 0,
        };
        (mine as u64).saturating_sub(self.sent)
    }

    /// How many records to send now in one batch of at most `records_max`: none before the batch is full or has lingered.
    #[must_use]
    pub(crate) fn ready(&self, now_ns: u64, records_max: u64) -> u64 {
        let due = self.backlog(now_ns).min(records_max);
        if due < records_max && now_ns < self.intended_ns(self.sent) + self.linger_ns { 0 } else { due }
    }

    /// When [`Pace::ready`] will next give something.
    #[must_use]
    pub(crate) fn next_ns(&self, records_max: u64) -> u64 {
        let lingered = self.intended_ns(self.sent) + self.linger_ns;
        let full = self.intended_ns(self.sent + records_max.max(1) - 1);
        lingered.min(full)
    }

    /// The number of the next record.
    #[must_use]
    pub(crate) fn next(&self) -> u64 {
        self.sent
    }

    /// Notes that `records` were taken to be sent.
    pub(crate) fn advance(&mut self, records: u64) {
        self.sent += records;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn records_are_spaced_evenly_and_never_drift() {
        let pace = Pace::new(100, 3, 0, 1, 0);
        assert_eq!([0, 1, 2, 3].map(|at| pace.intended_ns(at)), [100, 100 + 333_333_333, 100 + 666_666_666, 100 + SECOND]);
        // A day at a rate that does not divide a second.
        assert_eq!(pace.intended_ns(3 * 86_400), 100 + 86_400 * SECOND);
    }

    #[test]
    fn producers_share_the_stream() {
        let mut all: Vec<u64> = (0..4)
            .flat_map(|i| {
                let pace = Pace::new(0, 1000, i, 4, 0);
                (0..10).map(move |at| pace.intended_ns(at))
            })
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..40).map(|at| at * SECOND / 1000).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_due_agrees_with_when_it_is_intended() {
        for (rate, producers) in [(1, 1), (3, 2), (7, 3), (999, 5), (20_000, 1), (3_000_000_000, 1)] {
            for producer in 0..producers {
                let pace = Pace::new(50, rate, producer, producers, 0);
                for at in 0..20 {
                    let intended = pace.intended_ns(at);
                    assert!(pace.backlog(intended) > at, "{rate} {producer}/{producers} {at}");
                    if at > 0 && pace.intended_ns(at - 1) < intended {
                        assert_eq!(pace.backlog(intended - 1), at, "{rate} {producer}/{producers} {at}");
                    }
                }
                assert_eq!(pace.backlog(0), 0);
            }
        }
    }

    #[test]
    fn a_stall_leaves_a_backlog_with_the_old_intentions() {
        let mut pace = Pace::new(0, 1000, 0, 1, 0);
        assert_eq!(pace.ready(0, 10), 1);
        pace.advance(1);
        assert_eq!(pace.ready(999_999, 10), 0);
        // Half a second later 500 records wait, and the first of them was to be sent at 1 ms.
        assert_eq!(pace.backlog(SECOND / 2), 500);
        assert_eq!(pace.ready(SECOND / 2, 10), 10);
        assert_eq!(pace.intended_ns(pace.next()), 1_000_000);
        for _ in 0..50 {
            let records = pace.ready(SECOND / 2, 10);
            pace.advance(records);
        }
        assert_eq!(pace.backlog(SECOND / 2), 0);
        assert_eq!(pace.next_ns(10), 501_000_000);
    }

    #[test]
    fn a_batch_lingers_until_it_is_full() {
        let mut pace = Pace::new(0, 1000, 0, 1, 5_000_000);
        assert_eq!(pace.next_ns(100), 5_000_000);
        assert_eq!(pace.ready(4_999_999, 100), 0);
        assert_eq!(pace.ready(5_000_000, 100), 6);
        // Three records make it full after 2 ms, before it has lingered.
        assert_eq!(pace.next_ns(3), 2_000_000);
        assert_eq!(pace.ready(1_999_999, 3), 0);
        assert_eq!(pace.ready(2_000_000, 3), 3);
        pace.advance(3);
        assert_eq!(pace.next_ns(3), 5_000_000);
    }
}
