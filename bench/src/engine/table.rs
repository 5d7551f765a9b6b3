//! What `engine` measured, as tables for the terminal. For [`super`].

use comfy_table::Table;

use super::Case;
use crate::results::{AppendPath, AppendWay, Appends, Engine};
use crate::table;
use crate::units::{show_bytes, show_count};

/// Prints what `engine` measured.
pub fn print(engine: &Engine) {
    table::print(&tables(engine), &engine.settings, &engine.notes);
}

/// What was measured, each table with its title.
#[must_use]
pub fn tables(engine: &Engine) -> Vec<(String, Table)> {
    let mut cadences: Vec<u64> = Vec::new();
    for appends in &engine.appends {
        if !cadences.contains(&appends.sync_rounds) {
            cadences.push(appends.sync_rounds);
        }
    }
    let titled = |sync_rounds| (format!("appends, {}: MB/s (CPU s/GB)", cadence(sync_rounds)), appends(engine, sync_rounds));
    let mut tables: Vec<_> = cadences.into_iter().map(titled).collect();
    if !engine.reads.is_empty() {
        tables.push(("reads, sent to a socket: MB/s (CPU s/GB)".to_owned(), reads(engine)));
    }
    tables
}

fn appends(engine: &Engine, sync_rounds: u64) -> Table {
    let columns = [
        "partitions × batch",
        "raw",
        "raw twice",
        "raw copied",
        "journal",
        "of raw",
        "of raw twice",
        "ms a round",
        "each direct",
        "each buffered",
        "recovery",
    ];
    let mut table = table::table(&columns, 1..columns.len());
    for appends in engine.appends.iter().filter(|appends| appends.sync_rounds == sync_rounds) {
        let way = |path| appends.ways.iter().find(|way| way.path == path);
        let show = |path| way(path).map_or_else(String::new, |way: &AppendWay| rate(way.mb_per_s, way.cpu_s_per_gb));
        let journal = way(AppendPath::Journal);
        let of = |fraction: Option<f64>| fraction.map_or_else(String::new, |fraction| format!("{fraction:.2}"));
        table.add_row([
            format!("{} × {}", show_count(u64::from(appends.partitions)), show_bytes(appends.batch_bytes)),
            show(AppendPath::Raw),
            show(AppendPath::RawTwice),
            show(AppendPath::RawCopied),
            show(AppendPath::Journal),
            of(journal.and_then(|journal| journal.of_raw)),
            of(journal.and_then(|journal| journal.of_raw_twice)),
            journal.map_or_else(String::new, |journal| format!("{:.2}", journal.round_ms)),
            show(AppendPath::EachDirect),
            show(AppendPath::EachBuffered),
            recovery(appends),
        ]);
    }
    table
}

fn recovery(appends: &Appends) -> String {
    let Some(recovery) = &appends.recovery else { return String::new() };
    format!("{:.0} ms, {}", recovery.elapsed_s * 1e3, show_bytes(recovery.replayed_bytes))
}

fn reads(engine: &Engine) -> Table {
    let mut table = table::table(&["from", "bare loop", "engine", "of bare"], 1..4);
    for read in &engine.reads {
        table.add_row([
            read.source.clone(),
            rate(read.raw_mb_per_s, read.raw_cpu_s_per_gb),
            rate(read.mb_per_s, read.cpu_s_per_gb),
            format!("{:.2}", read.of_raw),
        ]);
    }
    table
}

fn rate(mb_per_s: f64, cpu_s_per_gb: f64) -> String {
    let rate = if mb_per_s < 10.0 { format!("{mb_per_s:.1}") } else { show_count(mb_per_s.round() as u64) };
    if cpu_s_per_gb < 10.0 { format!("{rate} ({cpu_s_per_gb:.2})") } else { format!("{rate} ({cpu_s_per_gb:.0})") }
}

fn cadence(sync_rounds: u64) -> String {
    match sync_rounds {
        0 => "never synced".to_owned(),
        1 => "every round synced".to_owned(),
        rounds => format!("synced every {} rounds", show_count(rounds)),
    }
}

/// What is being measured, for the progress bar.
pub(super) fn name(case: &Case, path: AppendPath) -> String {
    let path = match path {
        AppendPath::Raw => "raw",
        AppendPath::RawTwice => "raw twice",
        AppendPath::RawCopied => "raw copied",
        AppendPath::Journal => "journal",
        AppendPath::EachDirect => "each direct",
        AppendPath::EachBuffered => "each buffered",
    };
    format!("{} × {}, {}, {path}", case.partitions, show_bytes(case.batch_bytes), cadence(case.sync_rounds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Recovery;

    #[test]
    fn a_row_has_every_way() {
        let way = |path, mb_per_s| AppendWay {
            path,
            mb_per_s,
            mb_per_s_runs: vec![mb_per_s],
            cpu_s_per_gb: 12.3,
            round_ms: 0.5,
            of_raw: Some(0.875),
            of_raw_twice: None,
        };
        let appends_of = |sync_rounds| Appends {
            partitions: 1000,
            batch_bytes: 4096,
            sync_rounds,
            ways: vec![way(AppendPath::Raw, 1234.0), way(AppendPath::Journal, 9.87)],
            recovery: Some(Recovery { elapsed_s: 0.25, replayed_bytes: 1 << 20, replayed_rounds: 3 }),
        };
        let engine = Engine { appends: vec![appends_of(1), appends_of(0)], ..Engine::default() };
        let text = appends(&engine, 1).to_string();
        for part in ["1,000 × 4 KiB", "1,234 (12)", "9.9 (12)", "0.88", "0.50", "250 ms, 1 MiB"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(text.matches("1,000 ×").count(), 1, "one cadence: {text}");
        assert_eq!((cadence(0), cadence(5)), ("never synced".to_owned(), "synced every 5 rounds".to_owned()));
    }
}
