//! What `load` measured, as a section of the page.

use maud::{Markup, html};

use super::charts::{self, Line, Scale};
use super::{Links, page};
use crate::compare::metrics::show;
use crate::error::Error;
use crate::results::{Latency, Load, ProcessUse, Side, Verified};
use crate::units::{show_bytes, show_count, show_us};

/// The section's body. `links` lead to the directory of results.
pub(super) fn section(load: &Load, links: &Links) -> Result<Markup, Error> {
    let sides = sides(load);
    let names: Vec<&str> = sides.iter().map(|(name, _)| *name).collect();
    let lines = |points: &dyn Fn(&Side) -> Vec<(f64, f64)>| -> Vec<Line> {
        sides.iter().enumerate().map(|(series, (_, side))| Line { series, points: points(side) }).collect()
    };
    let with_latency = sides.iter().any(|(_, side)| side.latency.is_some());
    Ok(html! {
        (page::facts(&load.settings))
        @if let Some(why) = &load.generator_bound { p.warning { "The load generator may be what was measured: " (why) } }
        @if let Some(verified) = &load.verify { (verification(verified)) }
        (figures(load, &sides))
        @for (name, side) in &sides {
            @for (error, count) in &side.errors { p.warning { (name) ": " (show_count(*count)) " requests were answered with " (error) } }
        }
        @if with_latency {
            (page::chart("Latency by percentile", &names, charts::percentiles(&lines(&|side| curve(side))))?)
        }
        (page::chart("Throughput, each second; the last is a part of one", &names, charts::seconds(&lines(&|side| throughput(side)), "MB/s", Scale::Linear))?)
        @if with_latency {
            (page::chart("p99 latency, each second", &names, charts::seconds(&lines(&|side| p99(side)), "ms", Scale::Log))?)
        }
        (processes(load))
        @for (name, side) in &sides {
            @if let Some(hlog) = side.latency.as_ref().and_then(|latency| latency.hlog.as_ref()) {
                p.quiet { (name) " histogram: " (links.to(hlog)) }
            }
        }
    })
}

/// Producers and consumers, where there are any.
pub(super) fn sides(load: &Load) -> Vec<(&'static str, &Side)> {
    let named = [("produce", &load.produce), ("consume", &load.consume)];
    named.into_iter().filter_map(|(name, side)| Some((name, side.as_ref()?))).collect()
}

/// Percentile and microseconds.
pub(super) fn curve(side: &Side) -> Vec<(f64, f64)> {
    side.latency.iter().flat_map(|latency| &latency.curve).map(|(percentile, us)| (*percentile, *us as f64)).collect()
}

/// Second and MB/s.
pub(super) fn throughput(side: &Side) -> Vec<(f64, f64)> {
    side.seconds.iter().map(|second| (f64::from(second.second), second.bytes as f64 / 1e6)).collect()
}

/// Second and milliseconds.
pub(super) fn p99(side: &Side) -> Vec<(f64, f64)> {
    side.seconds.iter().map(|second| (f64::from(second.second), second.p99_us as f64 / 1e3)).collect()
}

/// The columns and rows of a load's figures.
pub(super) fn figure_rows(load: &Load) -> (Vec<String>, Vec<Vec<String>>) {
    let sides = sides(load);
    let mut columns = vec![String::new()];
    columns.extend(sides.iter().map(|(name, _)| (*name).to_owned()));
    let mut rows = Vec::new();
    let mut row = |name: &str, cell: &dyn Fn(&Side) -> Option<String>| {
        let cells: Vec<Option<String>> = sides.iter().map(|(_, side)| cell(side)).collect();
        if cells.iter().any(Option::is_some) {
            let mut row = vec![name.to_owned()];
            row.extend(cells.into_iter().map(|cell| cell.unwrap_or_else(|| "–".to_owned())));
            rows.push(row);
        }
    };
    row("records", &|side| Some(show_count(side.records)));
    row("bytes", &|side| Some(show_count(side.bytes)));
    row("seconds", &|side| Some(show(side.elapsed_s)));
    row("MB/s", &|side| Some(show(side.mb_per_s)));
    row("records/s", &|side| Some(show(side.records_per_s)));
    let latency = |of: fn(&Latency) -> u64| move |side: &Side| side.latency.as_ref().map(|latency| show_us(of(latency)));
    row("latency p50", &latency(|latency| latency.p50_us));
    row("latency p90", &latency(|latency| latency.p90_us));
    row("latency p99", &latency(|latency| latency.p99_us));
    row("latency p99.9", &latency(|latency| latency.p99_9_us));
    row("latency p99.99", &latency(|latency| latency.p99_99_us));
    row("latency max", &latency(|latency| latency.max_us));
    (columns, rows)
}

fn figures(load: &Load, sides: &[(&str, &Side)]) -> Markup {
    let (columns, rows) = figure_rows(load);
    html! { @if !sides.is_empty() { (page::figures(&columns, &rows)) } }
}

fn processes(load: &Load) -> Markup {
    let mut named: Vec<(&str, &ProcessUse)> = load.broker.iter().map(|broker| ("broker", broker)).collect();
    named.push(("load generator", &load.generator));
    let columns =
        ["process", "CPU s", "CPU s/GB", "peak RSS", "RSS", "written", "read", "waits", "preemptions"].map(str::to_owned);
    let rows: Vec<Vec<String>> = named
        .iter()
        .map(|(name, used)| {
            let known = |bytes: Option<u64>| bytes.map_or_else(|| "–".to_owned(), show_bytes);
            vec![
                (*name).to_owned(),
                show(used.cpu_s),
                show(used.cpu_s_per_gb),
                show_bytes(used.rss_peak_bytes),
                show_bytes(used.rss_bytes),
                known(used.written_bytes),
                known(used.read_bytes),
                show_count(used.switches_voluntary),
                show_count(used.switches_involuntary),
            ]
        })
        .collect();
    page::figures(&columns, &rows)
}

fn verification(verified: &Verified) -> Markup {
    html! {
        @if verified.is_sound() {
            p { "Verified: all " (show_count(verified.acknowledged)) " acknowledged records came back once, in order, byte for byte." }
        } @else {
            p.warning {
                "Of " (show_count(verified.acknowledged)) " acknowledged records " (show_count(verified.lost)) " were lost, "
                (show_count(verified.duplicated)) " duplicated, " (show_count(verified.reordered)) " reordered, "
                (show_count(verified.corrupted)) " corrupted, " (show_count(verified.unknown)) " never sent."
            }
            ul { @for finding in &verified.findings { li { (finding) } } }
        }
    }
}
