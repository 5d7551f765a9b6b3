//! The published figures, the claims that are made of them, and the verdicts. Pure; for the other files of this folder.

use crate::results::{Claim, Direction, GridCell, Medium, Pattern, Verdict, Way};

/// A figure of the publication: values of 4 bytes per second.
pub(super) const RANDOM_DISK: f64 = 316.0;
pub(super) const SEQUENTIAL_DISK: f64 = 53.2e6;
pub(super) const RANDOM_SSD: f64 = 1924.0;
pub(super) const SEQUENTIAL_SSD: f64 = 42.2e6;
pub(super) const RANDOM_MEMORY: f64 = 36.7e6;
pub(super) const SEQUENTIAL_MEMORY: f64 = 358.2e6;

/// How verdicts are found, for the reader.
pub(super) const RULE: &str = "verdicts: a claim of \"so many times\" holds within a factor of 2 of what was published, in part within a \
     factor of 10 and in the same direction, and no longer beyond; a claim of \"faster\" holds from 1.1 times on, is a draw down to 0.9 and no longer holds below; \
     random disk stands for one access at a time, sequential disk for the deepest, both direct where the filesystem can; random memory for \
     independent accesses; the range is over all other depths and ways";

/// Within this factor a ratio is what was published.
const SAME_FACTOR: f64 = 2.0;
/// Beyond this one it is another world.
const PART_FACTOR: f64 = 10.0;
/// Closer to 1 than this, nothing is faster.
const DRAW: f64 = 0.1;

/// One of the three claims.
struct Statement {
    claim: &'static str,
    /// What should be faster, and what slower.
    faster: (Medium, Pattern),
    slower: (Medium, Pattern),
    published_ratio: f64,
    /// How many times faster it is said to be; `None` for just faster.
    times: Option<f64>,
}

const STATEMENTS: [Statement; 3] = [
    Statement {
        claim: "sequential memory is about 7 times as fast as sequential disk",
        faster: (Medium::Memory, Pattern::Sequential),
        slower: (Medium::Disk, Pattern::Sequential),
        published_ratio: SEQUENTIAL_MEMORY / SEQUENTIAL_DISK,
        times: Some(7.0),
    },
    Statement {
        claim: "sequential disk is faster than random memory",
        faster: (Medium::Disk, Pattern::Sequential),
        slower: (Medium::Memory, Pattern::Random),
        published_ratio: SEQUENTIAL_DISK / RANDOM_MEMORY,
        times: None,
    },
    Statement {
        claim: "random disk is 100,000 times slower than random memory",
        faster: (Medium::Memory, Pattern::Random),
        slower: (Medium::Disk, Pattern::Random),
        published_ratio: RANDOM_MEMORY / RANDOM_DISK,
        times: Some(100_000.0),
    },
];

/// All claims, by reads and by writes, as far as their cells were measured.
pub(super) fn all(cells: &[GridCell]) -> Vec<Claim> {
    let mut claims = Vec::new();
    for direction in [Direction::Read, Direction::Write] {
        claims.extend(STATEMENTS.iter().filter_map(|statement| judge(statement, direction, cells)));
    }
    claims
}

/// The cell that stands for a medium and a pattern; see [`RULE`].
pub(super) fn representative(cells: &[GridCell], medium: Medium, pattern: Pattern, direction: Direction) -> Option<&GridCell> {
    let of = || cells.iter().filter(move |cell| (cell.medium, cell.pattern, cell.direction) == (medium, pattern, direction));
    let way = match medium {
        Medium::Memory => Way::Independent,
        Medium::Disk if of().any(|cell| cell.way == Way::Direct) => Way::Direct,
        Medium::Disk => Way::PageCache,
    };
    let candidates = of().filter(|cell| cell.way == way);
    match pattern {
        Pattern::Random => candidates.min_by_key(|cell| cell.depth),
        Pattern::Sequential => candidates.max_by_key(|cell| cell.depth),
    }
}

fn judge(statement: &Statement, direction: Direction, cells: &[GridCell]) -> Option<Claim> {
    let stands_for = |(medium, pattern)| representative(cells, medium, pattern, direction).map(|cell| cell.values_per_s);
    let measured_ratio = stands_for(statement.faster)? / stands_for(statement.slower)?;
    let all = |(medium, pattern)| {
        let of = cells.iter().filter(move |cell| (cell.medium, cell.pattern, cell.direction) == (medium, pattern, direction));
        of.map(|cell| cell.values_per_s)
            .fold((f64::INFINITY, 0.0), |(least, most): (f64, f64), value| (least.min(value), most.max(value)))
    };
    let (faster, slower) = (all(statement.faster), all(statement.slower));
    let measured_ratio_range = (faster.0 / slower.1, faster.1 / slower.0);
    let verdict = verdict(measured_ratio, statement.times);
    let words = words(statement, measured_ratio, verdict);
    Some(Claim {
        claim: statement.claim.to_owned(),
        direction,
        published_ratio: statement.published_ratio,
        measured_ratio,
        measured_ratio_range,
        verdict,
        words,
    })
}

fn verdict(ratio: f64, times: Option<f64>) -> Verdict {
    match times {
        None if ratio >= 1.0 + DRAW => Verdict::Holds,
        None if ratio >= 1.0 - DRAW => Verdict::Draw,
        None => Verdict::NoLonger,
        Some(times) => {
            let off = (ratio / times).max(times / ratio);
            if off <= SAME_FACTOR {
                Verdict::Holds
            } else if off <= PART_FACTOR && ratio > 1.0 {
                Verdict::HoldsInPart
            } else {
                Verdict::NoLonger
            }
        }
    }
}

fn words(statement: &Statement, ratio: f64, verdict: Verdict) -> String {
    let instead = match statement.times {
        Some(times) => format!("{} instead of {}", times_text(ratio), times_text(times)),
        None if ratio < 1.0 => format!("it is {} slower", times_text(1.0 / ratio)),
        None => times_text(ratio),
    };
    match verdict {
        Verdict::Holds if statement.times.is_some() => format!("holds: {}", times_text(ratio)),
        Verdict::Holds => format!("holds: by {instead}"),
        Verdict::HoldsInPart => format!("holds in part: {instead}"),
        Verdict::Draw => format!("a draw: {instead}"),
        Verdict::NoLonger => format!("no longer holds on this hardware: {instead}"),
    }
}

/// `1.4 times`, `12 times`, `116,139 times`.
pub(super) fn times_text(ratio: f64) -> String {
    if ratio < 10.0 {
        // Two places where one would say nothing.
        return if ratio < 1.0 { format!("{ratio:.2} times") } else { format!("{ratio:.1} times") };
    }
    format!("{} times", crate::units::show_count(ratio.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(medium: Medium, pattern: Pattern, way: Way, depth: Option<u32>, values_per_s: f64) -> GridCell {
        GridCell {
            medium,
            pattern,
            direction: Direction::Read,
            way,
            depth,
            access_bytes: 4,
            values_per_s,
            values_per_s_runs: vec![values_per_s],
            accesses_per_s: values_per_s,
            mb_per_s: 0.0,
            fio_values_per_s: None,
        }
    }

    /// The machine of the publication.
    fn published() -> Vec<GridCell> {
        vec![
            cell(Medium::Disk, Pattern::Random, Way::Direct, Some(1), RANDOM_DISK),
            cell(Medium::Disk, Pattern::Random, Way::Direct, Some(32), RANDOM_DISK * 8.0),
            cell(Medium::Disk, Pattern::Sequential, Way::Direct, Some(1), SEQUENTIAL_DISK / 2.0),
            cell(Medium::Disk, Pattern::Sequential, Way::Direct, Some(32), SEQUENTIAL_DISK),
            cell(Medium::Memory, Pattern::Random, Way::Independent, None, RANDOM_MEMORY),
            cell(Medium::Memory, Pattern::Random, Way::Dependent, None, RANDOM_MEMORY / 4.0),
            cell(Medium::Memory, Pattern::Sequential, Way::Independent, None, SEQUENTIAL_MEMORY),
        ]
    }

    #[test]
    fn all_claims_hold_where_they_were_made() {
        let claims = all(&published());
        assert_eq!(claims.len(), 3, "no writes were measured");
        assert!(claims.iter().all(|claim| claim.verdict == Verdict::Holds), "{claims:?}");
        assert_eq!(claims[0].words, "holds: 6.7 times");
        assert_eq!(claims[1].words, "holds: by 1.4 times");
        assert_eq!(claims[2].words, "holds: 116,139 times");
        for claim in &claims {
            assert!((claim.measured_ratio - claim.published_ratio).abs() < 1e-6, "{claim:?}");
        }
        let (least, most) = claims[1].measured_ratio_range;
        assert!((least - 0.5 * claims[1].measured_ratio).abs() < 1e-6 && (most - 4.0 * claims[1].measured_ratio).abs() < 1e-6);
    }

    #[test]
    fn verdicts_follow_the_rule() {
        assert_eq!(verdict(14.0, Some(7.0)), Verdict::Holds);
        assert_eq!(verdict(3.5, Some(7.0)), Verdict::Holds);
        assert_eq!(verdict(3.4, Some(7.0)), Verdict::HoldsInPart);
        assert_eq!(verdict(70.0, Some(7.0)), Verdict::HoldsInPart);
        assert_eq!(verdict(71.0, Some(7.0)), Verdict::NoLonger);
        assert_eq!(verdict(0.9, Some(7.0)), Verdict::NoLonger, "the other direction");
        assert_eq!(verdict(9_999.0, Some(100_000.0)), Verdict::NoLonger);
        assert_eq!(verdict(1.1, None), Verdict::Holds);
        assert_eq!(verdict(1.0, None), Verdict::Draw);
        assert_eq!(verdict(0.89, None), Verdict::NoLonger);
        assert_eq!(verdict(f64::INFINITY, Some(7.0)), Verdict::NoLonger);
    }

    #[test]
    fn what_no_longer_holds_is_said() {
        let mut cells = published();
        for cell in &mut cells {
            if cell.medium == Medium::Disk {
                cell.values_per_s *= if cell.pattern == Pattern::Random { 30.0 } else { 0.25 };
            }
        }
        let claims = all(&cells);
        assert_eq!(claims[0].words, "holds in part: 27 times instead of 7.0 times");
        assert_eq!(claims[1].words, "no longer holds on this hardware: it is 2.8 times slower");
        assert_eq!(claims[2].words, "no longer holds on this hardware: 3,871 times instead of 100,000 times");
    }

    #[test]
    fn without_direct_access_the_page_cache_stands_in() {
        let cells = vec![
            cell(Medium::Disk, Pattern::Random, Way::PageCache, Some(32), 5.0),
            cell(Medium::Disk, Pattern::Random, Way::PageCache, Some(1), 4.0),
        ];
        let found = representative(&cells, Medium::Disk, Pattern::Random, Direction::Read).map(|cell| cell.values_per_s);
        assert_eq!(found, Some(4.0));
        assert!(all(&cells).is_empty(), "half a claim is none");
        assert!(all(&[]).is_empty());
    }
}
