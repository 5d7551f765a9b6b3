//! What `groups` measured, as tables.

use comfy_table::Table;

use crate::results::{Cause, Groups, Latency, OffsetCall};
use crate::table;
use crate::units::{show_bytes, show_count, show_us};

/// Prints it.
pub fn print(groups: &Groups) {
    table::print(&tables(groups), &groups.settings, &notes(groups));
}

/// Each table under its title.
#[must_use]
pub fn tables(groups: &Groups) -> Vec<(String, Table)> {
    let mut tables = Vec::new();
    if !groups.rebalances.is_empty() {
        let mut rows = table::table(&["protocol", "members", "partitions", "median", "least", "most", "new group"], 1..7);
        for rebalance in &groups.rebalances {
            let mut row = vec![
                rebalance.protocol.name().to_owned(),
                show_count(rebalance.members),
                show_count(rebalance.partitions),
                ms(rebalance.median_ms),
            ];
            row.extend(spread(&rebalance.times_ms));
            row.push(ms(rebalance.first_ms));
            rows.add_row(row);
        }
        tables.push(("From the last member's joining until every member has its partitions".to_owned(), rows));
    }
    if !groups.takeovers.is_empty() {
        let mut rows = table::table(&["protocol", "the member", "session timeout", "median", "least", "most"], 2..6);
        for takeover in &groups.takeovers {
            let how = if takeover.cause == Cause::Leave { "leaves" } else { "vanishes" };
            let session = if takeover.session_ms == 0 { "–".to_owned() } else { ms(takeover.session_ms as f64) };
            let mut row = vec![takeover.protocol.name().to_owned(), how.to_owned(), session, ms(takeover.median_ms)];
            row.extend(spread(&takeover.times_ms));
            rows.add_row(row);
        }
        tables.push((
            "From one of two members' going (beyond the session timeout where it vanishes) until the other has all partitions"
                .to_owned(),
            rows,
        ));
    }
    if !groups.heartbeats.is_empty() || groups.echo.is_some() {
        let mut rows = table::table(
            &["protocol", "members", "each every", "per s", "broker, % of a core", "p50", "p99", "max", "we, % of a core"],
            1..9,
        );
        let mut add = |name: &str, members, interval_ms: u64, per_s: f64, cpu: Option<f64>, times: Option<&Latency>, own: f64| {
            let mut row = vec![
                name.to_owned(),
                show_count(members),
                ms(interval_ms as f64),
                show_count(per_s.round() as u64),
                cpu.map_or_else(|| "–".to_owned(), |percent| format!("{percent:.1}")),
            ];
            row.extend(latency(times));
            row.push(format!("{own:.1}"));
            rows.add_row(row);
        };
        for beats in &groups.heartbeats {
            let (times, own) = (beats.latency.as_ref(), beats.generator_cpu_percent);
            let (name, cpu) = (beats.protocol.name(), beats.broker_cpu_percent);
            add(name, beats.members, beats.interval_ms, beats.per_s, cpu, times, own);
        }
        if let Some(echo) = &groups.echo {
            let (times, own) = (echo.latency.as_ref(), echo.generator_cpu_percent);
            add("bare echo", echo.connections, echo.interval_ms, echo.per_s, echo.server_cpu_percent, times, own);
        }
        tables.push(("Heartbeats of idle members".to_owned(), rows));
    }
    if !groups.rates.is_empty() {
        let mut rows = table::table(
            &["", "connections", "under way each", "per s", "broker, µs of CPU each", "p50", "p99", "max", "we, % of a core"],
            1..9,
        );
        for rate in &groups.rates {
            let mut row = vec![
                if rate.call == OffsetCall::Commit { "commits" } else { "fetches" }.to_owned(),
                show_count(rate.connections),
                show_count(rate.in_flight),
                show_count(rate.per_s.round() as u64),
                rate.broker_cpu_us.map_or_else(|| "–".to_owned(), |us| format!("{us:.1}")),
            ];
            row.extend(latency(rate.latency.as_ref()));
            row.push(format!("{:.1}", rate.generator_cpu_percent));
            rows.add_row(row);
        }
        tables.push(("Commits and fetches of one partition's offset".to_owned(), rows));
    }
    if !groups.memory.is_empty() {
        let mut rows = table::table(&["each with an offset and", "groups", "before", "after", "each"], 1..5);
        for memory in &groups.memory {
            let member = memory.member.map_or_else(|| "no member".to_owned(), |member| format!("a {} member", member.name()));
            rows.add_row([
                member,
                show_count(memory.groups),
                show_bytes(memory.before_bytes),
                show_bytes(memory.after_bytes),
                show_bytes(memory.each_bytes.round() as u64),
            ]);
        }
        tables.push(("Memory of groups that do nothing".to_owned(), rows));
    }
    if groups.stored.is_some() || groups.loaded.is_some() {
        let mut rows = table::table(&["", "offsets", "ms"], 1..3);
        let mut row = |what: &str, offsets: u64, took: f64| {
            rows.add_row([what.to_owned(), show_count(offsets), format!("{took:.0}")]);
        };
        if let Some(stored) = &groups.stored {
            row("committed, 1 connection", stored.offsets, stored.ms);
        }
        if let Some(loaded) = &groups.loaded {
            row("all served again, from the broker's first answer", loaded.offsets, loaded.since_answer_ms);
            if let Some(since_start) = loaded.since_start_ms {
                row("all served again, from the start of its process", loaded.offsets, since_start);
            }
        }
        tables.push(("Offsets over a restart".to_owned(), rows));
    }
    tables
}

fn notes(groups: &Groups) -> Vec<String> {
    let mut notes = groups.notes.clone();
    if let Some(echo) = &groups.echo {
        notes.push(format!(
            "bare echo: a server of {} threads that answers {} bytes with {}, as a classic heartbeat is, and does nothing else",
            echo.threads, echo.request_bytes, echo.answer_bytes
        ));
    }
    if let Some(used) = &groups.broker {
        let (resident, peak) = (show_bytes(used.rss_bytes), show_bytes(used.rss_peak_bytes));
        notes.push(format!("the broker used {:.2} s of CPU, {resident} of memory ({peak} at most)", used.cpu_s));
    }
    notes
}

fn spread(times: &[f64]) -> [String; 2] {
    let of = |pick: fn(f64, f64) -> f64| times.iter().copied().reduce(pick).map_or_else(|| "–".to_owned(), ms);
    [of(f64::min), of(f64::max)]
}

fn latency(latency: Option<&Latency>) -> [String; 3] {
    let shown = |us: Option<u64>| us.map_or_else(|| "–".to_owned(), show_us);
    [latency.map(|own| own.p50_us), latency.map(|own| own.p99_us), latency.map(|own| own.max_us)].map(shown)
}

/// Milliseconds for people; negative ones, of a session that ended early, too.
fn ms(ms: f64) -> String {
    let sign = if ms < 0.0 { "−" } else { "" };
    format!("{sign}{}", show_us((ms.abs() * 1e3).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Echo, GroupMemory, OffsetsLoaded, Rebalance, Takeover};

    #[test]
    fn every_figure_has_its_row() {
        let groups = Groups {
            rebalances: vec![Rebalance { members: 100, times_ms: vec![3.0, 1.0, 2.0], median_ms: 2.0, ..Default::default() }],
            takeovers: vec![Takeover {
                cause: Cause::Vanish,
                session_ms: 6000,
                times_ms: vec![-1.5],
                median_ms: -1.5,
                ..Default::default()
            }],
            memory: vec![GroupMemory { groups: 20_000, each_bytes: 2560.0, ..Default::default() }],
            loaded: Some(OffsetsLoaded { offsets: 100_000, since_answer_ms: 12.0, since_start_ms: Some(40.0) }),
            ..Groups::default()
        };
        let text: String = tables(&groups).iter().map(|(title, table)| format!("{title}\n{table}\n")).collect();
        for part in ["2.00 ms", "1.00 ms", "3.00 ms", "vanishes", "6.00 s", "−1.50 ms", "100,000", "40", "no member", "2.5 KiB"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let echo = Echo { connections: 10_000, server_cpu_percent: Some(2.7), ..Echo::default() };
        let held_against = tables(&Groups { echo: Some(echo), ..Groups::default() });
        let shown = held_against[0].1.to_string();
        assert!(held_against[0].0.contains("Heartbeats") && shown.contains("bare echo") && shown.contains("2.7"), "{shown}");
        assert!(!text.contains("Heartbeats") && tables(&Groups::default()).is_empty());
    }
}
