//! A load's result as a table for people.

use comfy_table::Table;

use crate::results::{Load, ProcessUse, Side};
use crate::table;
use crate::units::{show_bytes, show_count, show_us};

/// Prints it.
pub fn print(load: &Load) {
    let settings: Vec<String> = load.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
    println!("{}", settings.join(" · "));
    let sides = [("produce", &load.produce), ("consume", &load.consume)];
    if sides.iter().any(|(_, side)| side.is_some()) {
        println!("{}", figures(&sides));
    }
    let processes = [("broker", load.broker.as_ref()), ("generator", Some(&load.generator))];
    println!("{}", usage(&processes));
    for (name, side) in sides {
        for (error, count) in side.iter().flat_map(|side| &side.errors) {
            println!("{name}: {} × {error}", show_count(*count));
        }
    }
    if let Some(why) = &load.generator_bound {
        println!("the generator may be what was measured: {why}");
    }
    if let Some(verified) = &load.verify {
        println!(
            "verify: {}: {} acknowledged, {} read back; lost {}, duplicated {} (and {} by sending again), reordered {} (and {}), corrupted {}, unknown {}",
            if verified.is_sound() { "sound" } else { "NOT SOUND" },
            show_count(verified.acknowledged),
            show_count(verified.received),
            show_count(verified.lost),
            show_count(verified.duplicated),
            show_count(verified.duplicated_by_retry),
            show_count(verified.reordered),
            show_count(verified.reordered_by_retry),
            show_count(verified.corrupted),
            show_count(verified.unknown),
        );
        for finding in &verified.findings {
            println!("  {finding}");
        }
    }
}

fn figures(sides: &[(&str, &Option<Side>)]) -> Table {
    let mut table = table::table(&["", "records", "records/s", "MB/s", "s", "p50", "p99", "p99.9", "max"], 1..9);
    for (name, side) in sides {
        let Some(side) = side else { continue };
        let latency = side.latency.as_ref();
        let shown = |us: Option<u64>| us.map_or_else(|| "–".to_owned(), show_us);
        table.add_row([
            (*name).to_owned(),
            show_count(side.records),
            show_count(side.records_per_s as u64),
            format!("{:.1}", side.mb_per_s),
            format!("{:.2}", side.elapsed_s),
            shown(latency.map(|latency| latency.p50_us)),
            shown(latency.map(|latency| latency.p99_us)),
            shown(latency.map(|latency| latency.p99_9_us)),
            shown(latency.map(|latency| latency.max_us)),
        ]);
    }
    table
}

/// The peak of memory, with a word where it is not the run's own.
fn peak(used: &ProcessUse) -> String {
    let of = if used.rss_peak_of_run { "" } else { " (of its life)" };
    format!("{}{of}", show_bytes(used.rss_peak_bytes))
}

fn usage(processes: &[(&str, Option<&ProcessUse>)]) -> Table {
    let mut table = table::table(&["", "CPU s", "CPU s/GB", "peak RSS", "written", "read", "waits", "preempted"], 1..8);
    for (name, used) in processes {
        let Some(used) = used else { continue };
        let storage = |bytes: Option<u64>| bytes.map_or_else(|| "–".to_owned(), show_bytes);
        table.add_row([
            (*name).to_owned(),
            format!("{:.2}", used.cpu_s),
            format!("{:.3}", used.cpu_s_per_gb),
            peak(used),
            storage(used.written_bytes),
            storage(used.read_bytes),
            show_count(used.switches_voluntary),
            show_count(used.switches_involuntary),
        ]);
    }
    table
}
