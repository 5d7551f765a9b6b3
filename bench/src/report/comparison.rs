//! What `compare` measured, as a section of the page.

use maud::{Markup, html};

use super::charts::{self, Bar, Line, Row, Scale};
use super::load::{self, curve, p99, throughput};
use super::{Links, page};
use crate::compare::{metrics, table};
use crate::error::Error;
use crate::results::{Compare, ComparedRun, ComparedWorkload, Side, StepOutcome};
use crate::units::show_bytes;

/// Charts over all workloads: a name for files, the caption, and the metrics whose figures share an axis.
const OVERVIEWS: [(&str, &str, &[&str]); 5] = [
    ("throughput", "Throughput, MB/s: more is better", &["produce_mb_per_s", "consume_mb_per_s"]),
    ("cpu", "Broker CPU, seconds per GB: less is better", &["cpu_s_per_gb"]),
    ("p99", "p99 latency, ms: less is better", &["produce_p99_us", "consume_p99_us"]),
    (
        "start",
        "From the start of the process to the first acknowledged record, ms: less is better",
        &["first_ack_ms", "restart_clean_ms", "restart_killed_ms"],
    ),
    ("idle", "Idle CPU, per cent of a core: less is better", &["idle_cpu_percent"]),
];

/// Above this, workloads are folded away.
const UNFOLDED_MAX: usize = 4;

/// The section's body. `links` lead to the directory of results.
pub(super) fn section(compare: &Compare, links: &Links) -> Result<Markup, Error> {
    let names: Vec<&str> = compare.brokers.iter().map(|broker| broker.name.as_str()).collect();
    let overviews = overviews(compare)
        .map(|(_, caption, rows)| page::chart(caption, &names, charts::bars(&rows)))
        .collect::<Result<Vec<_>, _>>()?;
    let workloads = compare.workloads.iter().map(|workload| self::workload(compare, workload, &names, links));
    let workloads = workloads.collect::<Result<Vec<_>, _>>()?;
    Ok(html! {
        p { (compare.about) }
        @if let Some(why) = &compare.failed { p.warning { "Ended early: " (why) ". What was measured until then is here." } }
        p {
            @if compare.free_bytes_max > 0 {
                "Before each run the page cache was filled from a clean file, " (show_bytes(compare.filled_bytes))
                " in all; no more than " (show_bytes(compare.free_bytes_max)) " of memory stayed free."
            } @else {
                span.warning { "The page cache was not filled before the runs: on a virtual machine fresh memory may be what was measured." }
            }
        }
        (brokers(compare))
        @for overview in &overviews { (overview) }
        @for line in table::across(compare) { p { (line) } }
        @for (workload, body) in compare.workloads.iter().zip(&workloads) {
            details open[compare.workloads.len() <= UNFOLDED_MAX] {
                summary { (workload.name) " " span.quiet { (table::runs(compare, workload)) ", medians" } }
                (body)
            }
        }
    })
}

/// The charts over all workloads that there are figures for: a name for files, the caption, the rows.
pub(super) fn overviews(compare: &Compare) -> impl Iterator<Item = (&'static str, &'static str, Vec<Row>)> {
    OVERVIEWS.iter().filter_map(|(name, caption, keys)| {
        let rows = rows(compare, keys);
        (!rows.is_empty()).then_some((*name, *caption, rows))
    })
}

fn brokers(compare: &Compare) -> Markup {
    html! {
        table.facts {
            @for broker in &compare.brokers {
                tr {
                    th scope="row" { (broker.name) }
                    td {
                        (broker.about)
                        @if !broker.version.is_empty() { ", says of itself: " code { (broker.version) } }
                        details {
                            summary { "command" @if !broker.files.is_empty() { " and configuration" } }
                            pre.command { (page::command_line(&broker.command)) }
                            @for (name, text) in &broker.files { p.quiet { (name) } pre { (text) } }
                        }
                    }
                }
            }
        }
    }
}

/// A row for each workload and step that has one of the metrics.
fn rows(compare: &Compare, keys: &[&str]) -> Vec<Row> {
    let mut rows = Vec::new();
    for workload in &compare.workloads {
        for figure in workload.figures.iter().filter(|figure| keys.contains(&figure.metric.as_str())) {
            let Some(metric) = metrics::by_key(&figure.metric) else { continue };
            let bars = figure
                .brokers
                .iter()
                .filter_map(|spread| {
                    let series = compare.brokers.iter().position(|broker| broker.name == spread.broker)?;
                    let scaled = |value| metric.unit.scaled(value);
                    Some(Bar { series, value: scaled(spread.median), min: scaled(spread.min), max: scaled(spread.max) })
                })
                .collect();
            // Which of several metrics it is, where the step has more than one of them.
            let is_alone = workload
                .figures
                .iter()
                .filter(|other| other.step == figure.step && keys.contains(&other.metric.as_str()))
                .count()
                == 1;
            let what = if is_alone { figure.step.clone() } else { short_title(&figure.step, metric) };
            rows.push(Row { label: format!("{}: {what}", workload.name), bars });
        }
    }
    rows
}

fn short_title(step: &str, metric: &metrics::Metric) -> String {
    match metric.key {
        "first_ack_ms" => "empty directory".to_owned(),
        "restart_clean_ms" => "after a clean stop".to_owned(),
        "restart_killed_ms" => "after kill -9".to_owned(),
        _ => format!("{step}, {}", metric.title),
    }
}

fn workload(compare: &Compare, workload: &ComparedWorkload, names: &[&str], links: &Links) -> Result<Markup, Error> {
    let mut columns = vec![format!("↑ more is better, ↓ less is better")];
    columns.extend(table::columns(compare, workload));
    let rows: Vec<Vec<String>> = workload.figures.iter().filter_map(|figure| table::cells(compare, workload, figure)).collect();
    let mut steps: Vec<&str> = Vec::new();
    for step in workload.runs.iter().flat_map(|run| &run.steps) {
        if !steps.contains(&step.name.as_str()) {
            steps.push(&step.name);
        }
    }
    let charts = steps.iter().map(|step| step_charts(compare, workload, step, names)).collect::<Result<Vec<_>, _>>()?;
    Ok(html! {
        @if !workload.about.is_empty() { p { (workload.about) } }
        (page::figures(&columns, &rows))
        @if let Some(verified) = table::verified(workload) { p { (verified) } }
        @for note in table::notes(workload) { p.warning { (note) } }
        @for chart in &charts { (chart) }
        details {
            summary { "all " (workload.runs.len()) " runs, in their order" }
            @for run in &workload.runs { (one_run(run, links)) }
        }
    })
}

/// Percentiles and time series of one step: every run of every broker is a line.
fn step_charts(compare: &Compare, workload: &ComparedWorkload, step: &str, names: &[&str]) -> Result<Markup, Error> {
    let mut drawn = Vec::new();
    for title in ["produce", "consume"] {
        let lines = |points: fn(&Side) -> Vec<(f64, f64)>| -> Vec<Line> {
            let of_run = |run: &ComparedRun| {
                let series = compare.brokers.iter().position(|broker| broker.name == run.broker)?;
                let step = run.steps.iter().find(|own| own.name == step)?;
                let StepOutcome::Load(load) = &step.outcome else { return None };
                let (_, side) = load::sides(load).into_iter().find(|(own, _)| *own == title)?;
                let points = points(side);
                (!points.is_empty()).then_some(Line { series, points })
            };
            workload.runs.iter().filter_map(of_run).collect()
        };
        let caption = |what: &str| if title == step { format!("{step}: {what}") } else { format!("{step}: {title} {what}") };
        let (curves, throughputs, p99s) = (lines(curve), lines(throughput), lines(p99));
        if !curves.is_empty() {
            drawn.push(page::chart(&caption("latency by percentile, every run"), names, charts::percentiles(&curves))?);
        }
        if throughputs.iter().any(|line| line.points.len() > 1) {
            drawn.push(page::chart(
                &caption("throughput each second, every run; its last second is a part of one"),
                names,
                charts::seconds(&throughputs, "MB/s", Scale::Linear),
            )?);
        }
        if p99s.iter().any(|line| line.points.len() > 1 && line.points.iter().any(|point| point.1 > 0.0)) {
            drawn.push(page::chart(
                &caption("p99 latency each second, every run"),
                names,
                charts::seconds(&p99s, "ms", Scale::Log),
            )?);
        }
    }
    Ok(html! { @for chart in &drawn { (chart) } })
}

fn one_run(run: &ComparedRun, links: &Links) -> Markup {
    html! {
        p { "Round " (run.round) ", " strong { (run.broker) } span.quiet { ", began after " (format!("{:.0}", run.started_s)) " s" } }
        @for step in &run.steps {
            @let figures = metrics::METRICS.iter().filter_map(|metric| {
                let value = metric.find(step)?;
                Some(format!("{} {} {}", metric.title, metric.unit.show(value), metric.unit.name()))
            }).collect::<Vec<_>>();
            p.step { strong { (step.name) } ": " (figures.join(", ")) "." }
            @if !step.command_line.is_empty() { pre.command { (page::command_line(&step.command_line)) } }
            p.quiet {
                @if let Some(raw) = &step.raw { "raw: " (links.to(raw)) }
                @for hlog in hlogs(&step.outcome) { " " (links.to(hlog)) }
            }
        }
    }
}

fn hlogs(outcome: &StepOutcome) -> Vec<&String> {
    let StepOutcome::Load(load) = outcome else { return Vec::new() };
    load.produce.iter().chain(&load.consume).filter_map(|side| side.latency.as_ref()?.hlog.as_ref()).collect()
}
