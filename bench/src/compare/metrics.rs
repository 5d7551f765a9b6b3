//! The figures by which brokers are held beside each other, and where in a run each is found. Pure.

use crate::results::{
    Cause, GroupProtocol, Groups, Heartbeats, Latency, Load, OffsetCall, OffsetRate, ProcessUse, Restart, Side, StartStop,
    StepOutcome, StepRun,
};

/// Which way a figure is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    More,
    /// Less is better.
    Less,
}

/// How a figure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// 10^6 bytes per second.
    MbPerS,
    /// Records per second.
    RecordsPerS,
    /// Events per second.
    PerS,
    /// Microseconds.
    Us,
    /// Milliseconds.
    Ms,
    /// CPU seconds per 10^9 bytes.
    SPerGb,
    /// Bytes.
    Bytes,
    /// Per cent of one core.
    PercentOfCore,
    /// Bytes, where they are few.
    Kib,
    /// Per cent of another figure.
    Percent,
    /// Bytes of one kind for each of another.
    PerByte,
    /// Microseconds of CPU time for each of something.
    CpuUs,
}

/// A figure.
#[derive(Debug)]
pub struct Metric {
    /// Its name in results and specs.
    pub key: &'static str,
    /// For a reader.
    pub title: &'static str,
    /// How it is written.
    pub unit: Unit,
    /// Which way it is good.
    pub better: Better,
    find: Find,
}

/// Where a figure is.
#[derive(Clone, Copy, Debug)]
enum Find {
    /// In what was measured.
    Outcome(fn(&StepOutcome) -> Option<f64>),
    /// In that and in what stands beside it.
    Step(fn(&StepRun) -> Option<f64>),
}

const fn more(key: &'static str, title: &'static str, unit: Unit, find: fn(&StepOutcome) -> Option<f64>) -> Metric {
    Metric { key, title, unit, better: Better::More, find: Find::Outcome(find) }
}

const fn beside(key: &'static str, title: &'static str, unit: Unit, find: fn(&StepRun) -> Option<f64>) -> Metric {
    Metric { key, title, unit, better: Better::More, find: Find::Step(find) }
}

const fn bare_less(key: &'static str, title: &'static str, find: fn(&StepRun) -> Option<f64>) -> Metric {
    Metric { key, title, unit: Unit::Us, better: Better::Less, find: Find::Step(find) }
}

const fn less(key: &'static str, title: &'static str, unit: Unit, find: fn(&StepOutcome) -> Option<f64>) -> Metric {
    Metric { key, title, unit, better: Better::Less, find: Find::Outcome(find) }
}

/// All of them, in the order of tables.
pub const METRICS: [Metric; 56] = [
    more("produce_mb_per_s", "produce", Unit::MbPerS, |step| Some(produce(step)?.mb_per_s)),
    more("produce_records_per_s", "produce", Unit::RecordsPerS, |step| Some(produce(step)?.records_per_s)),
    less("produce_p50_us", "produce p50", Unit::Us, |step| Some(produce_latency(step)?.p50_us as f64)),
    less("produce_p99_us", "produce p99", Unit::Us, |step| Some(produce_latency(step)?.p99_us as f64)),
    less("produce_p99_9_us", "produce p99.9", Unit::Us, |step| Some(produce_latency(step)?.p99_9_us as f64)),
    less("produce_max_us", "produce max", Unit::Us, |step| Some(produce_latency(step)?.max_us as f64)),
    bare_less("bare_p50_us", "the disk alone p50", |step| Some(bare_latency(step)?.p50_us as f64)),
    bare_less("bare_p99_us", "the disk alone p99", |step| Some(bare_latency(step)?.p99_us as f64)),
    bare_less("bare_p99_9_us", "the disk alone p99.9", |step| Some(bare_latency(step)?.p99_9_us as f64)),
    more("consume_mb_per_s", "consume", Unit::MbPerS, |step| Some(consume(step)?.mb_per_s)),
    more("consume_records_per_s", "consume", Unit::RecordsPerS, |step| Some(consume(step)?.records_per_s)),
    beside("bare_mb_per_s", "the bare loop beside it", Unit::MbPerS, |step| {
        step.bare.as_ref().filter(|bare| bare.latency.is_none()).map(|bare| bare.mb_per_s)
    }),
    beside("consume_of_bare", "consume, of the bare loop's", Unit::Percent, |step| {
        Some(100.0 * consume(&step.outcome)?.mb_per_s / step.bare.as_ref()?.mb_per_s)
    }),
    less("consume_p50_us", "consume p50", Unit::Us, |step| Some(consume_latency(step)?.p50_us as f64)),
    less("consume_p99_us", "consume p99", Unit::Us, |step| Some(consume_latency(step)?.p99_us as f64)),
    less("consume_p99_9_us", "consume p99.9", Unit::Us, |step| Some(consume_latency(step)?.p99_9_us as f64)),
    less("consume_max_us", "consume max", Unit::Us, |step| Some(consume_latency(step)?.max_us as f64)),
    less("cpu_s_per_gb", "broker CPU", Unit::SPerGb, |step| Some(broker(step)?.cpu_s_per_gb)),
    less("written_per_byte", "broker to disk for each byte produced", Unit::PerByte, |step| {
        per_byte(broker(step)?.written_bytes, produce(step)?)
    }),
    less("read_per_byte", "broker from disk for each byte consumed", Unit::PerByte, |step| {
        per_byte(broker(step)?.read_bytes, consume(step)?)
    }),
    less("rss_peak_bytes", "broker peak RSS", Unit::Bytes, |step| Some(broker(step)?.rss_peak_bytes as f64)),
    less("ready_ms", "start on an empty directory to the first answer", Unit::Ms, |step| Some(start_stop(step)?.ready_ms)),
    less("first_ack_ms", "start on an empty directory to the first acknowledged record", Unit::Ms, |step| {
        Some(start_stop(step)?.first_ack_ms)
    }),
    less("stop_ms", "clean stop", Unit::Ms, |step| {
        start_stop(step).map(|own| own.stop_ms).or(restart(step).map(|own| own.stop_ms))
    }),
    less("restart_clean_ms", "start after a clean stop to the first acknowledged record", Unit::Ms, |step| {
        start_stop(step).map(|own| own.restart_clean_ms).or(restart(step).map(|own| own.restart_clean_ms))
    }),
    less("partition_memory_bytes", "memory of a partition, after a restart", Unit::Kib, |step| {
        let own = restart(step)?;
        let more = own.memory_bytes.checked_sub(own.memory_empty_bytes)?;
        (own.partitions > 0).then(|| more as f64 / own.partitions as f64)
    }),
    less("restart_killed_ms", "start after kill -9 to the first acknowledged record", Unit::Ms, |step| {
        Some(start_stop(step)?.restart_killed_ms)
    }),
    less("idle_cpu_percent", "idle CPU", Unit::PercentOfCore, |step| Some(start_stop(step)?.idle_cpu_percent)),
    less("idle_rss_bytes", "idle RSS", Unit::Bytes, |step| Some(start_stop(step)?.idle_rss_bytes as f64)),
    less("idle_switches_per_s", "idle wake-ups", Unit::PerS, |step| Some(start_stop(step)?.idle_switches_per_s)),
    less("classic_rebalance_ms", "rebalance, classic", Unit::Ms, |step| rebalance(step, GroupProtocol::Classic)),
    less("consumer_rebalance_ms", "rebalance, KIP-848", Unit::Ms, |step| rebalance(step, GroupProtocol::Consumer)),
    less("classic_leave_ms", "takeover after a member left, classic", Unit::Ms, |step| {
        takeover(step, GroupProtocol::Classic, Cause::Leave)
    }),
    less("consumer_leave_ms", "takeover after a member left, KIP-848", Unit::Ms, |step| {
        takeover(step, GroupProtocol::Consumer, Cause::Leave)
    }),
    less("classic_vanish_ms", "takeover after a member vanished, beyond its session timeout, classic", Unit::Ms, |step| {
        takeover(step, GroupProtocol::Classic, Cause::Vanish)
    }),
    less("consumer_vanish_ms", "takeover after a member vanished, beyond its session timeout, KIP-848", Unit::Ms, |step| {
        takeover(step, GroupProtocol::Consumer, Cause::Vanish)
    }),
    less("classic_heartbeats_cpu_percent", "heartbeats: broker CPU, classic", Unit::PercentOfCore, |step| {
        heartbeats(step, GroupProtocol::Classic)?.broker_cpu_percent
    }),
    more("classic_heartbeats_per_s", "heartbeats, classic", Unit::PerS, |step| {
        Some(heartbeats(step, GroupProtocol::Classic)?.per_s)
    }),
    less("classic_heartbeats_p99_us", "heartbeats p99, classic", Unit::Us, |step| {
        Some(heartbeats(step, GroupProtocol::Classic)?.latency.as_ref()?.p99_us as f64)
    }),
    less("consumer_heartbeats_cpu_percent", "heartbeats: broker CPU, KIP-848", Unit::PercentOfCore, |step| {
        heartbeats(step, GroupProtocol::Consumer)?.broker_cpu_percent
    }),
    more("consumer_heartbeats_per_s", "heartbeats, KIP-848", Unit::PerS, |step| {
        Some(heartbeats(step, GroupProtocol::Consumer)?.per_s)
    }),
    less("consumer_heartbeats_p99_us", "heartbeats p99, KIP-848", Unit::Us, |step| {
        Some(heartbeats(step, GroupProtocol::Consumer)?.latency.as_ref()?.p99_us as f64)
    }),
    more("commits_per_s", "commits, one at a time", Unit::PerS, |step| rate_per_s(step, OffsetCall::Commit, false)),
    less("commits_p99_us", "commits, one at a time: p99", Unit::Us, |step| rate_p99_us(step, OffsetCall::Commit, false)),
    less("commits_cpu_us", "commits, one at a time: broker CPU of each", Unit::CpuUs, |step| {
        rate_cpu_us(step, OffsetCall::Commit, false)
    }),
    more("commits_pipelined_per_s", "commits, pipelined", Unit::PerS, |step| rate_per_s(step, OffsetCall::Commit, true)),
    less("commits_pipelined_p99_us", "commits, pipelined: p99", Unit::Us, |step| rate_p99_us(step, OffsetCall::Commit, true)),
    less("commits_pipelined_cpu_us", "commits, pipelined: broker CPU of each", Unit::CpuUs, |step| {
        rate_cpu_us(step, OffsetCall::Commit, true)
    }),
    more("fetches_per_s", "fetches, one at a time", Unit::PerS, |step| rate_per_s(step, OffsetCall::Fetch, false)),
    less("fetches_p99_us", "fetches, one at a time: p99", Unit::Us, |step| rate_p99_us(step, OffsetCall::Fetch, false)),
    less("fetches_cpu_us", "fetches, one at a time: broker CPU of each", Unit::CpuUs, |step| {
        rate_cpu_us(step, OffsetCall::Fetch, false)
    }),
    more("fetches_pipelined_per_s", "fetches, pipelined", Unit::PerS, |step| rate_per_s(step, OffsetCall::Fetch, true)),
    less("fetches_pipelined_p99_us", "fetches, pipelined: p99", Unit::Us, |step| rate_p99_us(step, OffsetCall::Fetch, true)),
    less("fetches_pipelined_cpu_us", "fetches, pipelined: broker CPU of each", Unit::CpuUs, |step| {
        rate_cpu_us(step, OffsetCall::Fetch, true)
    }),
    less("offsets_load_ms", "all offsets served after the broker's first answer", Unit::Ms, |step| {
        Some(groups(step)?.loaded.as_ref()?.since_answer_ms)
    }),
    less("offsets_restart_ms", "all offsets served after the start of the process", Unit::Ms, |step| {
        groups(step)?.loaded.as_ref()?.since_start_ms
    }),
];

fn load(step: &StepOutcome) -> Option<&Load> {
    match step {
        StepOutcome::Load(load) => Some(load),
        StepOutcome::StartStop(_) | StepOutcome::Groups(_) | StepOutcome::Restart(_) => None,
    }
}

fn start_stop(step: &StepOutcome) -> Option<&StartStop> {
    match step {
        StepOutcome::StartStop(start_stop) => Some(start_stop),
        StepOutcome::Load(_) | StepOutcome::Groups(_) | StepOutcome::Restart(_) => None,
    }
}

fn groups(step: &StepOutcome) -> Option<&Groups> {
    match step {
        StepOutcome::Groups(groups) => Some(groups),
        StepOutcome::Load(_) | StepOutcome::StartStop(_) | StepOutcome::Restart(_) => None,
    }
}

fn restart(step: &StepOutcome) -> Option<&Restart> {
    if let StepOutcome::Restart(restart) = step { Some(restart) } else { None }
}

fn rebalance(step: &StepOutcome, protocol: GroupProtocol) -> Option<f64> {
    Some(groups(step)?.rebalances.iter().find(|own| own.protocol == protocol)?.median_ms)
}

fn takeover(step: &StepOutcome, protocol: GroupProtocol, cause: Cause) -> Option<f64> {
    Some(groups(step)?.takeovers.iter().find(|own| own.protocol == protocol && own.cause == cause)?.median_ms)
}

fn heartbeats(step: &StepOutcome, protocol: GroupProtocol) -> Option<&Heartbeats> {
    groups(step)?.heartbeats.iter().find(|own| own.protocol == protocol)
}

fn rate(step: &StepOutcome, call: OffsetCall, is_pipelined: bool) -> Option<&OffsetRate> {
    groups(step)?.rates.iter().find(|own| own.call == call && (own.in_flight > 1) == is_pipelined)
}

fn rate_per_s(step: &StepOutcome, call: OffsetCall, is_pipelined: bool) -> Option<f64> {
    Some(rate(step, call, is_pipelined)?.per_s)
}

fn rate_p99_us(step: &StepOutcome, call: OffsetCall, is_pipelined: bool) -> Option<f64> {
    Some(rate(step, call, is_pipelined)?.latency.as_ref()?.p99_us as f64)
}

fn rate_cpu_us(step: &StepOutcome, call: OffsetCall, is_pipelined: bool) -> Option<f64> {
    rate(step, call, is_pipelined)?.broker_cpu_us
}

fn bare_latency(step: &StepRun) -> Option<&Latency> {
    step.bare.as_ref()?.latency.as_ref()
}

fn produce(step: &StepOutcome) -> Option<&Side> {
    load(step)?.produce.as_ref()
}

fn consume(step: &StepOutcome) -> Option<&Side> {
    load(step)?.consume.as_ref()
}

fn produce_latency(step: &StepOutcome) -> Option<&Latency> {
    produce(step)?.latency.as_ref()
}

fn consume_latency(step: &StepOutcome) -> Option<&Latency> {
    consume(step)?.latency.as_ref()
}

fn broker(step: &StepOutcome) -> Option<&ProcessUse> {
    load(step)?.broker.as_ref()
}

/// What the broker moved to or from the disk for each byte of one side; none without a side or where /proc does not tell.
fn per_byte(moved: Option<u64>, side: &Side) -> Option<f64> {
    (side.bytes > 0).then_some(moved? as f64 / side.bytes as f64)
}

/// The metric of that name.
#[must_use]
pub fn by_key(key: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.key == key)
}

impl Metric {
    /// Its figure in a step, where the step has it.
    #[must_use]
    pub fn find(&self, step: &StepRun) -> Option<f64> {
        match self.find {
            Find::Outcome(find) => find(&step.outcome),
            Find::Step(find) => find(step),
        }
    }

    /// Its name with the unit and, as an arrow, the way that is better.
    #[must_use]
    pub fn label(&self) -> String {
        let arrow = match self.better {
            Better::More => '↑',
            Better::Less => '↓',
        };
        format!("{}, {} {arrow}", self.title, self.unit.name())
    }
}

impl Unit {
    /// As tables name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MbPerS => "MB/s",
            Self::RecordsPerS => "records/s",
            Self::PerS => "per s",
            Self::Us | Self::Ms => "ms",
            Self::SPerGb => "s/GB",
            Self::Bytes => "MiB",
            Self::Kib => "KiB",
            Self::Percent => "%",
            Self::PercentOfCore => "% of a core",
            Self::PerByte => "bytes",
            Self::CpuUs => "µs",
        }
    }

    /// A value in the unit that [`Unit::name`] gives.
    #[must_use]
    pub fn scaled(self, value: f64) -> f64 {
        match self {
            Self::Us => value / 1e3,
            Self::Bytes => value / f64::from(1 << 20),
            Self::Kib => value / 1024.0,
            Self::MbPerS
            | Self::RecordsPerS
            | Self::PerS
            | Self::Ms
            | Self::SPerGb
            | Self::PercentOfCore
            | Self::Percent
            | Self::PerByte
            | Self::CpuUs => value,
        }
    }

    /// A value with three significant digits or more, thousands apart.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        show(self.scaled(value))
    }
}

/// A number with two significant digits or more; whole ones from 100 on, thousands apart.
#[must_use]
pub fn show(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 99.95 => crate::units::show_count(value.round().max(0.0) as u64),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.0995 => format!("{value:.2}"),
        // Two digits behind the zeros.
        size => format!("{value:.0$}", (1.0 - size.log10().floor()).clamp(2.0, 9.0) as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::BareLoop;

    #[test]
    fn keys_are_unique_and_found() {
        for metric in &METRICS {
            assert_eq!(METRICS.iter().filter(|other| other.key == metric.key).count(), 1, "{}", metric.key);
            assert!(by_key(metric.key).is_some());
        }
        assert!(by_key("joy").is_none());
    }

    #[test]
    fn figures_are_found_where_they_are() {
        let outcome = StepOutcome::Load(Box::new(Load {
            produce: Some(Side {
                mb_per_s: 5.0,
                latency: Some(Latency { p99_us: 1500, ..Latency::default() }),
                ..Side::default()
            }),
            ..Load::default()
        }));
        let step = StepRun { outcome, ..StepRun::default() };
        let found: Vec<_> = METRICS.iter().filter(|metric| metric.find(&step).is_some()).map(|metric| metric.key).collect();
        assert_eq!(
            found,
            [
                "produce_mb_per_s",
                "produce_records_per_s",
                "produce_p50_us",
                "produce_p99_us",
                "produce_p99_9_us",
                "produce_max_us"
            ]
        );
        let p99 = by_key("produce_p99_us").unwrap();
        assert_eq!(p99.unit.show(p99.find(&step).unwrap()), "1.50");
        assert_eq!(p99.label(), "produce p99, ms ↓");
    }

    #[test]
    fn what_stands_beside_a_step_is_found() {
        let consume = Some(Side { mb_per_s: 900.0, ..Side::default() });
        let outcome = StepOutcome::Load(Box::new(Load { consume, ..Load::default() }));
        let bare = Some(BareLoop { way: "sendfile".to_owned(), mb_per_s: 1200.0, latency: None });
        let step = StepRun { outcome, bare, ..StepRun::default() };
        assert_eq!(by_key("consume_of_bare").unwrap().find(&step), Some(75.0));
        assert_eq!(by_key("consume_of_bare").unwrap().find(&StepRun { bare: None, ..step }), None);
        let restart = Restart { partitions: 100, memory_bytes: 9 << 20, memory_empty_bytes: 4 << 20, ..Restart::default() };
        let step = |restart| StepRun { outcome: StepOutcome::Restart(restart), ..StepRun::default() };
        let memory = by_key("partition_memory_bytes").unwrap();
        assert_eq!(memory.unit.show(memory.find(&step(restart.clone())).unwrap()), "51.2");
        assert_eq!(memory.find(&step(Restart { memory_bytes: 0, ..restart })), None, "less than before tells nothing");
    }

    #[test]
    fn numbers_keep_three_digits() {
        let shown = [0.0, 0.0000412, 0.00466, 0.0123, 0.5, 9.994, 9.996, 99.94, 99.96, 1234567.8, f64::NAN].map(show);
        assert_eq!(shown, ["0", "0.000041", "0.0047", "0.012", "0.50", "9.99", "10.0", "99.9", "100", "1,234,568", "–"]);
    }
}
