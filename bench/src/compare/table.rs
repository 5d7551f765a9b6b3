//! A comparison as tables, for the terminal.

use std::fmt::Write;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use super::metrics::{self, Metric};
use crate::results::{Across, Compare, ComparedWorkload, Figure, Ratio, Spread};
use crate::units::{show_bytes, show_count};

/// All of it as text.
#[must_use]
pub fn render(compare: &Compare) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}: {}", compare.spec, compare.about);
    for broker in &compare.brokers {
        let _ = writeln!(text, "{}: {} ({})", broker.name, broker.about, broker.version);
    }
    if compare.free_bytes_max == 0 {
        let _ = writeln!(text, "warning: the page cache was not filled before the runs; fresh memory may be what was measured");
    }
    for workload in &compare.workloads {
        let _ = writeln!(text, "\n{} ({})", workload.name, runs(compare, workload));
        if !workload.about.is_empty() {
            let _ = writeln!(text, "{}", workload.about);
        }
        let _ = writeln!(text, "{}", table(compare, workload));
        if let Some(verified) = verified(workload) {
            let _ = writeln!(text, "{verified}");
        }
        for note in notes(workload) {
            let _ = writeln!(text, "note: {note}");
        }
    }
    for line in across(compare) {
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(
        text,
        "\nMedians (least–most of all runs); ratios of medians (least–most of one round's). ↑ more is better, ↓ less is better."
    );
    if let Some(why) = &compare.failed {
        let _ = writeln!(text, "ended early: {why}");
    }
    text
}

/// Ratios between workloads, a line each.
#[must_use]
pub fn across(compare: &Compare) -> Vec<String> {
    let of_one = |across: &Across| {
        let metric = metrics::by_key(&across.metric)?;
        let label = label(&across.step, metric);
        let line = |ratio: &Ratio| {
            let (of, to) = (format!("{}, {}", ratio.of, across.of), format!("{}, {}", ratio.to, across.to));
            format!("{label}: {of} / {to}: {} (least over most–most over least)", show_ratio(ratio))
        };
        Some(across.ratios.iter().map(line).collect::<Vec<_>>())
    };
    compare.across.iter().filter_map(of_one).flatten().collect()
}

/// How many runs there are of how many: `3 rounds`, `2 of 3 rounds`.
#[must_use]
pub fn runs(compare: &Compare, workload: &ComparedWorkload) -> String {
    let least = compare.brokers.iter().map(|broker| workload.runs.iter().filter(|run| run.broker == broker.name).count()).min();
    match least.unwrap_or(0) {
        1 if compare.rounds == 1 => "1 round".to_owned(),
        done if done == compare.rounds as usize => format!("{done} rounds"),
        done => format!("{done} of {} rounds", compare.rounds),
    }
}

fn table(compare: &Compare, workload: &ComparedWorkload) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    let mut header = vec![String::new()];
    header.extend(columns(compare, workload));
    table.set_header(header);
    for figure in &workload.figures {
        let Some(cells) = cells(compare, workload, figure) else { continue };
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The names of the columns behind the first.
#[must_use]
pub fn columns(compare: &Compare, workload: &ComparedWorkload) -> Vec<String> {
    let mut columns: Vec<String> = compare.brokers.iter().map(|broker| broker.name.clone()).collect();
    if let Some((first, others)) = compare.brokers.split_first() {
        columns.extend(others.iter().map(|other| format!("{} / {}", first.name, other.name)));
    }
    if workload.figures.iter().any(|figure| figure.published.is_some()) {
        columns.push("published".to_owned());
    }
    columns
}

/// A row under [`columns`], its label first. `None` for a figure that this version does not know.
#[must_use]
pub fn cells(compare: &Compare, workload: &ComparedWorkload, figure: &Figure) -> Option<Vec<String>> {
    let metric = metrics::by_key(&figure.metric)?;
    let is_only_step = workload.figures.iter().all(|other| other.step == figure.step);
    let mut cells = vec![if is_only_step { metric.label() } else { label(&figure.step, metric) }];
    for broker in &compare.brokers {
        let own = figure.brokers.iter().find(|spread| spread.broker == broker.name);
        cells.push(own.map_or_else(|| "–".to_owned(), |spread| show_spread(metric, spread)));
    }
    for broker in compare.brokers.iter().skip(1) {
        let own = figure.ratios.iter().find(|ratio| ratio.to == broker.name);
        cells.push(own.map_or_else(|| "–".to_owned(), show_ratio));
    }
    if workload.figures.iter().any(|figure| figure.published.is_some()) {
        cells.push(figure.published.as_ref().map_or_else(String::new, |published| metric.unit.show(published.value)));
    }
    Some(cells)
}

/// A metric's label behind the step's name, without saying twice what a step like `consume, cold` says itself.
fn label(step: &str, metric: &Metric) -> String {
    let side = metric.title.split(' ').next().unwrap_or_default();
    let is_side = step.strip_prefix(side).is_some_and(|rest| rest.is_empty() || rest.starts_with(','));
    let label = metric.label();
    match label.strip_prefix(side) {
        Some(rest) if is_side => format!("{step}{rest}"),
        _ => format!("{step}: {label}"),
    }
}

fn show_spread(metric: &Metric, spread: &Spread) -> String {
    let show = |value| metric.unit.show(value);
    if spread.count < 2 {
        return show(spread.median);
    }
    format!("{} ({}–{})", show(spread.median), show(spread.min), show(spread.max))
}

fn show_ratio(ratio: &Ratio) -> String {
    if ratio.min == ratio.max {
        return metrics::show(ratio.median);
    }
    format!("{} ({}–{})", metrics::show(ratio.median), metrics::show(ratio.min), metrics::show(ratio.max))
}

/// More free memory than this after filling the page cache, and a run may have met fresh memory.
const FREE_BYTES_MAX: u64 = 1 << 30;

/// What was verified, in words; `None` where nothing was.
#[must_use]
pub fn verified(workload: &ComparedWorkload) -> Option<String> {
    let all: Vec<_> = workload.runs.iter().filter_map(|run| run.verified.as_ref()).collect();
    if all.is_empty() {
        return None;
    }
    let sound = all.iter().filter(|verified| verified.is_sound()).count();
    let records: u64 = all.iter().map(|verified| verified.acknowledged).sum();
    Some(format!(
        "verified after {} of {} runs: of {} acknowledged records every one read back and compared; sound: {sound} of {} runs",
        all.len(),
        workload.runs.len(),
        show_count(records),
        all.len()
    ))
}

/// What a reader of a workload's figures must know: published figures' conditions, and runs in which the load generator was the
/// bottleneck, records were lost, or requests failed.
#[must_use]
pub fn notes(workload: &ComparedWorkload) -> Vec<String> {
    let mut notes = Vec::new();
    for figure in &workload.figures {
        if let (Some(published), Some(metric)) = (&figure.published, metrics::by_key(&figure.metric)) {
            let value = metric.unit.show(published.value);
            notes.push(format!("published {value} {}: {}", metric.unit.name(), published.source));
        }
    }
    for run in &workload.runs {
        if run.free_bytes_max > FREE_BYTES_MAX {
            notes.push(format!(
                "{}, round {}: {} of memory were free although the page cache was filled: fresh memory may be part of what was measured",
                run.broker,
                run.round,
                show_bytes(run.free_bytes_max)
            ));
        }
        if let Some(verified) = run.verified.as_ref().filter(|verified| !verified.is_sound()) {
            notes.push(format!("{}, round {}, verifying: of {}", run.broker, run.round, verified.faults()));
        }
        for step in &run.steps {
            let crate::results::StepOutcome::Load(load) = &step.outcome else { continue };
            let place = format!("{}, {}, round {}", step.name, run.broker, run.round);
            if load.broker.as_ref().is_some_and(|broker| !broker.rss_peak_of_run && broker.rss_peak_bytes > 0) {
                notes.push(format!("{place}: the peak RSS is that of the broker's whole life: it could not begin anew"));
            }
            if let Some(why) = &load.generator_bound {
                notes.push(format!("{place}: the load generator may be what was measured: {why}"));
            }
            if let Some(verified) = load.verify.as_ref().filter(|verified| !verified.is_sound()) {
                notes.push(format!("{place}: of {}", verified.faults()));
            }
            for (name, count) in load.produce.iter().chain(&load.consume).flat_map(|side| &side.errors) {
                notes.push(format!("{place}: {count} requests were answered with {name}"));
            }
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_say_nothing_twice() {
        let of = |step: &str, key: &str| label(step, metrics::by_key(key).unwrap());
        assert_eq!(of("produce", "produce_mb_per_s"), "produce, MB/s ↑");
        assert_eq!(of("consume, cold", "consume_p99_us"), "consume, cold p99, ms ↓");
        assert_eq!(of("consume, cold", "cpu_s_per_gb"), "consume, cold: broker CPU, s/GB ↓");
        assert_eq!(of("end to end", "produce_p99_us"), "end to end: produce p99, ms ↓");
        assert_eq!(of("produced", "produce_mb_per_s"), "produced: produce, MB/s ↑");
    }

    #[test]
    fn what_is_missing_is_told() {
        let broker = |name: &str| crate::results::ComparedBroker { name: name.to_owned(), ..Default::default() };
        let spread = Spread { broker: "a".to_owned(), median: 1234.0, min: 1000.0, max: 2000.0, count: 2 };
        let figure = Figure { step: "s".into(), metric: "produce_mb_per_s".into(), brokers: vec![spread], ..Figure::default() };
        let workload = ComparedWorkload { name: "w".to_owned(), figures: vec![figure], ..ComparedWorkload::default() };
        let compare = Compare {
            rounds: 3,
            brokers: vec![broker("a"), broker("b")],
            workloads: vec![workload],
            failed: Some("b is gone".to_owned()),
            ..Compare::default()
        };
        let text = render(&compare);
        assert!(text.contains("1,234 (1,000–2,000)") && text.contains('–'), "{text}");
        assert!(text.contains("0 of 3 rounds") && text.contains("ended early: b is gone"), "{text}");
    }
}
