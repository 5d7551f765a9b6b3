//! The page: what all runs share, and one section for each. Every outcome has its section in [`section`].

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Stored, comparison, load, tables, time};
use crate::error::Error;
use crate::results::Outcome;
use crate::{disk, engine, groups};

/// The whole page.
pub(super) fn render(runs: &[Stored]) -> Result<String, Error> {
    let shared = shared_facts(runs);
    let sections = runs.iter().enumerate().map(|(at, stored)| section(at, stored, &shared)).collect::<Result<Vec<_>, _>>()?;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "ringlog-bench: " (runs.len()) " runs" }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                header {
                    h1 { "ringlog-bench" }
                    p {
                        (runs.len()) @if runs.len() == 1 { " run" } @else { " runs" }
                        " from " (first(runs)) " to " (last(runs)) ". "
                        "Each was written by the command line that stands beside it; the file that it stored, with every figure on this page, is linked."
                    }
                }
                nav {
                    ol {
                        @for (at, stored) in runs.iter().enumerate() {
                            li {
                                a href={ "#run-" (at + 1) } { (title(&stored.run.outcome)) }
                                span.quiet { " " (time::utc(stored.run.started_ms)) }
                                @if stored.run.interrupted { span.warning { " interrupted" } }
                            }
                        }
                    }
                }
                section {
                    h2 { "Where it ran" }
                    (facts(&shared))
                    @if runs.len() > 1 { p.quiet { "What was the same in all runs; what differed stands at each." } }
                }
                (doubts())
                @for section in &sections { (section) }
                footer { p { "Written by ringlog-bench " (env!("CARGO_PKG_VERSION")) ". This page loads nothing and runs no script." } }
            }
        }
    };
    Ok(page.into_string())
}

/// What all runs say of their machine in the same words.
pub(super) fn shared_facts(runs: &[Stored]) -> Vec<(String, String)> {
    let Some((first, others)) = runs.split_first() else { return Vec::new() };
    let is_shared = |fact: &&(String, String)| others.iter().all(|other| other.run.machine.facts.contains(fact));
    first.run.machine.facts.iter().filter(is_shared).cloned().collect()
}

/// What a run says of its machine that others do not.
pub(super) fn own_facts(stored: &Stored, shared: &[(String, String)]) -> Vec<(String, String)> {
    stored.run.machine.facts.iter().filter(|fact| !shared.contains(fact)).cloned().collect()
}

fn first(runs: &[Stored]) -> String {
    time::utc(runs.iter().map(|stored| stored.run.started_ms).min().unwrap_or(0))
}

fn last(runs: &[Stored]) -> String {
    time::utc(runs.iter().map(|stored| stored.run.started_ms).max().unwrap_or(0))
}

/// What a reader who doubts should know before the first figure.
fn doubts() -> Markup {
    html! {
        section {
            h2 { "How to read it" }
            ul {
                li { "A comparison's figures are " strong { "medians" } " of all its runs, with the least and the most of them; how many there were stands at each table. No run is left out: all of them are in the charts, in the list under each workload and in the linked file." }
                li { "Brokers took turns (A, B, B, A, …), each run on an empty data directory with a broker that had just been started and warmed up. Before each run the page cache was filled with a clean file, unless the table says otherwise: memory that a virtual machine's host has not backed yet would otherwise be what is measured." }
                li { "A " strong { "ratio" } " is of two medians; its range is that of the single rounds, in which both brokers met the machine in the same state." }
                li { "Brokers and the load generator share one machine and speak over loopback. The absolute figures are this machine's; a network, other disks or more cores give others. CPU time is the broker's own, user and system, its kernel workers included." }
                li { "A closed loop sends as fast as it is answered, so its latencies say how long its queue is and little else. An open loop (" code { "--rate" } ") counts latency from when a record should have been sent, so that a stall is seen by everything that should have been sent in it." }
                li { "Where figures lie far apart, charts show dots on an axis by powers of ten instead of bars; whiskers go from the least to the most run." }
                li { "Where the load generator may have been the bottleneck, a note says so: that figure is a lower bound of the broker." }
                li { "MB are 10" sup { "6" } " bytes, GB 10" sup { "9" } ", MiB 2" sup { "20" } "." }
            }
        }
    }
}

/// One run.
fn section(at: usize, stored: &Stored, shared: &[(String, String)]) -> Result<Markup, Error> {
    let run = &stored.run;
    let own = own_facts(stored, shared);
    let body = match &run.outcome {
        Outcome::Machine => html! {},
        Outcome::Disk(grid) => html! {
            (chart("Values per second", &[], disk::chart(grid, &run.machine))?)
            (tables::section(&disk::tables(grid), &grid.notes))
        },
        Outcome::Engine(engine) => tables::section(&engine::tables(engine), &engine.notes),
        Outcome::Load(outcome) => load::section(outcome, &stored.links)?,
        Outcome::Groups(groups) => tables::section(&groups::tables(groups), &groups.notes),
        Outcome::Compare(outcome) => comparison::section(outcome, &stored.links)?,
    };
    Ok(html! {
        section id={ "run-" (at + 1) } {
            h2 { (at + 1) ". " (title(&run.outcome)) }
            pre.command { (command_line(&run.command_line)) }
            p.quiet {
                (time::utc(run.started_ms)) ", " (format!("{:.0}", run.elapsed_s)) " s, ringlog-bench " (run.version) ", "
                "raw: " a href=(stored.href) { (stored.name) }
            }
            @if run.interrupted { p.warning { "Interrupted: what was measured until then." } }
            @for warning in &run.machine.warnings { p.warning { (warning) } }
            @if !own.is_empty() { details { summary { "the machine at that moment" } (facts(&own)) } }
            (body)
        }
    })
}

fn title(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Machine => "machine".to_owned(),
        Outcome::Disk(_) => "disk".to_owned(),
        Outcome::Engine(_) => "engine".to_owned(),
        Outcome::Load(load) => {
            let what = load.settings.iter().find(|(name, _)| name == "run").map_or("", |(_, value)| value);
            format!("load {what}").trim_end().to_owned()
        }
        Outcome::Groups(_) => "groups".to_owned(),
        Outcome::Compare(compare) => format!("compare {}", compare.spec),
    }
}

/// A command line that a shell understands.
pub(super) fn command_line(arguments: &[String]) -> String {
    let is_plain = |argument: &str| {
        !argument.is_empty() && argument.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=,+@%".contains(&byte))
    };
    let quoted = |argument: &String| {
        if is_plain(argument) { argument.clone() } else { format!("'{}'", argument.replace('\'', "'\\''")) }
    };
    arguments.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// Names and values.
pub(super) fn facts(facts: &[(String, String)]) -> Markup {
    html! {
        @if facts.is_empty() {
            p.quiet { "Nothing was stored." }
        } @else {
            table.facts {
                @for (name, value) in facts { tr { th scope="row" { (name) } td { (value) } } }
            }
        }
    }
}

/// A table of figures: the first column names them.
pub(super) fn figures(columns: &[String], rows: &[Vec<String>]) -> Markup {
    html! {
        div.wide { table.figures {
            thead { tr { @for column in columns { th scope="col" { (column) } } } }
            tbody {
                @for row in rows {
                    tr { @for (at, cell) in row.iter().enumerate() { @if at == 0 { th scope="row" { (cell) } } @else { (figure(cell)) } } }
                }
            }
        } }
    }
}

/// A figure, its spread below it where it has one.
fn figure(cell: &str) -> Markup {
    html! {
        td {
            @match cell.split_once(" (") {
                Some((figure, spread)) => { (figure) " " span.spread { "(" (spread) } }
                None => { (cell) }
            }
        }
    }
}

/// A chart with its caption; nothing where there is nothing to draw. `series` are the names of its colours.
pub(super) fn chart<E: std::fmt::Display>(caption: &str, series: &[&str], svg: Result<String, E>) -> Result<Markup, Error> {
    let svg = svg.map_err(|error| Error::Failed(format!("a chart cannot be drawn: {error}")))?;
    Ok(html! {
        @if !svg.is_empty() {
            figure role="img" aria-label=(caption) {
                figcaption {
                    (caption)
                    @for (at, name) in series.iter().enumerate() { " " span class={ "key series-" (at % 6) } { (name) } }
                }
                (PreEscaped(svg))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_can_be_copied_into_a_shell() {
        let words = ["ringlog-bench", "compare", "my spec.toml", "--set=a:b=c", "it's", ""].map(str::to_owned);
        assert_eq!(command_line(&words), "ringlog-bench compare 'my spec.toml' --set=a:b=c 'it'\\''s' ''");
    }
}
