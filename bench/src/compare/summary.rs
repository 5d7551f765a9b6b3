//! From all runs of a workload to medians, their spread, and the ratios between brokers. Pure.

use super::metrics::METRICS;
use super::spec::{self, Published};
use crate::results::{Across, Compare, ComparedRun, Figure, PublishedFigure, Ratio, Spread};

/// Every figure of a workload's runs, in the order of the runs' steps and of [`METRICS`]. `brokers` in the order of the table.
#[must_use]
pub(super) fn summarise(brokers: &[String], runs: &[ComparedRun], published: &[Published]) -> Vec<Figure> {
    let mut steps: Vec<&str> = Vec::new();
    for step in runs.iter().flat_map(|run| &run.steps) {
        if !steps.contains(&step.name.as_str()) {
            steps.push(&step.name);
        }
    }
    let mut figures = Vec::new();
    for step in steps {
        for metric in &METRICS {
            let value = |run: &ComparedRun| metric.find(run.steps.iter().find(|own| own.name == step)?);
            // (round, figure) of each broker.
            let values: Vec<Vec<(u32, f64)>> = brokers
                .iter()
                .map(|broker| {
                    let own = runs.iter().filter(|run| run.broker == *broker);
                    own.filter_map(|run| Some((run.round, value(run)?))).collect()
                })
                .collect();
            if values.iter().all(Vec::is_empty) {
                continue;
            }
            let spreads = brokers.iter().zip(&values).filter_map(|(broker, values)| spread(broker, values)).collect();
            let ratios = (1..brokers.len())
                .filter_map(|other| ratio((&brokers[0], &values[0]), (&brokers[other], &values[other])))
                .collect();
            let published = published.iter().find(|published| published.step == step && published.metric == metric.key);
            figures.push(Figure {
                step: step.to_owned(),
                metric: metric.key.to_owned(),
                brokers: spreads,
                ratios,
                published: published.map(|found| PublishedFigure { value: found.value, source: found.source.clone() }),
            });
        }
    }
    figures
}

fn spread(broker: &str, values: &[(u32, f64)]) -> Option<Spread> {
    let values: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
    Some(Spread {
        broker: broker.to_owned(),
        median: median(&values)?,
        min: least(&values),
        max: most(&values),
        count: values.len() as u32,
    })
}

/// The first's median over the other's. Its spread is that of the rounds' own ratios: two runs that followed each other met the
/// machine in the same state. The ratio of the medians always lies within.
fn ratio((of, first): (&str, &[(u32, f64)]), (to, second): (&str, &[(u32, f64)])) -> Option<Ratio> {
    let pairs: Vec<(f64, f64)> =
        first.iter().filter_map(|(round, value)| Some((*value, second.iter().find(|(other, _)| other == round)?.1))).collect();
    if pairs.iter().any(|(_, divisor)| *divisor == 0.0) {
        return None;
    }
    let (dividends, divisors): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let ratios: Vec<f64> = pairs.iter().map(|(dividend, divisor)| dividend / divisor).collect();
    Some(Ratio {
        of: of.to_owned(),
        to: to.to_owned(),
        median: median(&dividends)? / median(&divisors)?,
        min: least(&ratios),
        max: most(&ratios),
    })
}

/// The first broker in one workload over each other one in another. The runs were apart, so the spread is as wide as both allow.
#[must_use]
pub(super) fn across(wanted: &[spec::Across], compare: &Compare) -> Vec<Across> {
    let figure = |name: &str, wanted: &spec::Across| {
        let workload = compare.workloads.iter().find(|workload| workload.name == name)?;
        workload.figures.iter().find(|figure| figure.step == wanted.step && figure.metric == wanted.metric)
    };
    let of_one = |wanted: &spec::Across, of: &str| {
        let to = format!("{}{}", of.strip_suffix(wanted.of.as_str())?, wanted.to);
        let first = &compare.brokers.first()?.name;
        let own = figure(of, wanted)?.brokers.iter().find(|spread| spread.broker == *first)?;
        let others = figure(&to, wanted)?.brokers.iter().filter(|other| other.broker != *first && other.min > 0.0);
        let ratios: Vec<_> = others
            .map(|other| Ratio {
                of: own.broker.clone(),
                to: other.broker.clone(),
                median: own.median / other.median,
                min: own.min / other.max,
                max: own.max / other.min,
            })
            .collect();
        let (step, metric) = (wanted.step.clone(), wanted.metric.clone());
        (!ratios.is_empty()).then(|| Across { of: of.to_owned(), to, step, metric, ratios })
    };
    let names = || compare.workloads.iter().map(|workload| workload.name.as_str());
    wanted.iter().flat_map(|wanted| names().filter_map(move |of| of_one(wanted, of))).collect()
}

/// The middle value; between the middle two where their number is even.
#[must_use]
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) })
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Load, Side, StepOutcome, StepRun};

    fn run(broker: &str, round: u32, mb_per_s: f64) -> ComparedRun {
        let produce = Some(Side { mb_per_s, ..Side::default() });
        let outcome = StepOutcome::Load(Box::new(Load { produce, ..Load::default() }));
        let step = StepRun { name: "produce".to_owned(), outcome, ..StepRun::default() };
        ComparedRun { broker: broker.to_owned(), round, steps: vec![step], ..ComparedRun::default() }
    }

    fn figures(runs: &[ComparedRun]) -> Figure {
        let brokers = ["a".to_owned(), "b".to_owned()];
        summarise(&brokers, runs, &[]).into_iter().find(|figure| figure.metric == "produce_mb_per_s").unwrap()
    }

    #[test]
    fn medians_are_of_all_runs_and_ratios_of_medians() {
        let runs =
            [run("a", 1, 100.0), run("b", 1, 50.0), run("a", 2, 400.0), run("b", 2, 40.0), run("a", 3, 90.0), run("b", 3, 60.0)];
        let figure = figures(&runs);
        let a = &figure.brokers[0];
        assert_eq!((a.median, a.min, a.max, a.count), (100.0, 90.0, 400.0, 3));
        let ratio = &figure.ratios[0];
        assert_eq!((ratio.of.as_str(), ratio.to.as_str()), ("a", "b"));
        assert_eq!((ratio.median, ratio.min, ratio.max), (2.0, 1.5, 10.0));
    }

    #[test]
    fn a_round_that_only_one_finished_is_in_no_ratio() {
        let figure = figures(&[run("a", 1, 100.0), run("b", 1, 50.0), run("a", 2, 900.0)]);
        assert_eq!(figure.brokers[0].median, 500.0);
        assert_eq!((figure.ratios[0].median, figure.ratios[0].max), (2.0, 2.0));
        let alone = figures(&[run("a", 1, 100.0)]);
        assert!(alone.ratios.is_empty() && alone.brokers.len() == 1);
        assert!(figures(&[run("a", 1, 1.0), run("b", 1, 0.0)]).ratios.is_empty(), "nothing is infinitely faster");
    }

    #[test]
    fn modes_are_held_against_each_other() {
        let broker = |name: &str| crate::results::ComparedBroker { name: name.to_owned(), ..Default::default() };
        let brokers = ["a".to_owned(), "b".to_owned()];
        let workload = |name: &str, runs: &[ComparedRun]| crate::results::ComparedWorkload {
            name: name.to_owned(),
            figures: summarise(&brokers, runs, &[]),
            ..Default::default()
        };
        let compare = Compare {
            brokers: vec![broker("a"), broker("b")],
            workloads: vec![
                workload("1 B, synced", &[run("a", 1, 300.0), run("b", 1, 50.0), run("a", 2, 400.0), run("b", 2, 60.0)]),
                workload("1 B, not", &[run("a", 1, 900.0), run("b", 1, 100.0), run("a", 2, 900.0), run("b", 2, 200.0)]),
                workload("2 B, synced", &[run("a", 1, 300.0)]),
            ],
            ..Compare::default()
        };
        let (step, metric) = ("produce".to_owned(), "produce_mb_per_s".to_owned());
        let wanted = spec::Across { of: ", synced".to_owned(), to: ", not".to_owned(), step, metric };
        let found = across(&[wanted], &compare);
        assert_eq!(found.len(), 1, "what has no counterpart is left out: {found:?}");
        assert_eq!((found[0].of.as_str(), found[0].to.as_str()), ("1 B, synced", "1 B, not"));
        let ratio = &found[0].ratios[0];
        assert_eq!((ratio.to.as_str(), ratio.min, ratio.max), ("b", 1.5, 4.0));
        assert!((ratio.median - 350.0 / 150.0).abs() < 1e-9);
    }

    #[test]
    fn the_median_of_few() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
    }

    #[test]
    fn published_figures_stand_beside_their_own() {
        let published =
            Published { step: "produce".into(), metric: "produce_mb_per_s".into(), value: 78.3, source: "2014".into() };
        let figures = summarise(&["a".to_owned()], &[run("a", 1, 100.0)], &[published]);
        let with: Vec<_> = figures.iter().filter(|figure| figure.published.is_some()).collect();
        assert_eq!(with.len(), 1);
        assert_eq!(with[0].published.as_ref().unwrap().value, 78.3);
    }
}
