//! Whether the machine is quiet enough to be measured, and what fresh memory costs on it. For [`super::Machine::probe`].

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use super::parse::{self, Ticks};
use super::{Machine, System, host};
use crate::units::show_bytes;

/// How long we look at who is at work.
const SAMPLE: Duration = Duration::from_millis(200);
/// From here on another's work shows in our figures.
const BUSY_PERCENT_MAX: f64 = 10.0;
const STOLEN_PERCENT_MAX: f64 = 3.0;
/// `avg10` of /proc/pressure, per cent.
const PRESSURE_PERCENT_MAX: f64 = 10.0;
/// What is touched to see the cost of fresh memory, at most, and how long that may take.
const FRESH_BYTES: u64 = 64 << 20;
const FRESH_MAX: Duration = Duration::from_millis(150);
/// Memory is touched in these pieces, so that the time can be watched.
const PIECE_BYTES: usize = 8 << 20;
const PAGE_BYTES: usize = 4096;

pub(super) fn look(system: &System, machine: &mut Machine) {
    let before = Sample::take(system);
    std::thread::sleep(SAMPLE);
    others(system, &before, &Sample::take(system), machine);
    pressure(system, machine);
    throttling(system, machine);
    let room = host::memory_available_bytes(system).map_or(0, |available| available / 8);
    match Fresh::measure(room.min(FRESH_BYTES) as usize) {
        Some(fresh) => fresh.tell(machine),
        None => machine.fact("first touch of memory", "not measured: too little memory is available"),
    }
}

/// Who has used the processors so far.
struct Sample {
    ticks: Option<(Ticks, u64)>,
    processes: HashMap<u32, (String, u64)>,
}

impl Sample {
    fn take(system: &System) -> Self {
        let ticks = system.read("/proc/stat").and_then(|stat| parse::ticks(&stat));
        let own = std::process::id();
        let pids = system.names("/proc").into_iter().filter_map(|name| name.parse::<u32>().ok()).filter(|pid| *pid != own);
        // A process may end while we look.
        let used = |pid: u32| Some((pid, parse::process_ticks(&system.read(&format!("/proc/{pid}/stat"))?)?));
        Self { ticks, processes: pids.filter_map(used).collect() }
    }
}

fn others(system: &System, before: &Sample, after: &Sample, machine: &mut Machine) {
    let load = system.read("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    let mut text = if load.is_empty() { "load not known".to_owned() } else { format!("load {}", load.join(" ")) };
    let (Some((then, _)), Some((now, processors))) = (before.ticks, after.ticks) else {
        machine.fact("others at work", text);
        return;
    };
    let all = now.all.saturating_sub(then.all);
    let percent = |now: u64, then: u64| if all == 0 { 0.0 } else { now.saturating_sub(then) as f64 * 100.0 / all as f64 };
    let (busy, stolen) = (percent(now.busy, then.busy), percent(now.stolen, then.stolen));
    text += &format!("; processors {busy:.0} % busy, {stolen:.0} % stolen over {} ms", SAMPLE.as_millis());
    machine.fact("others at work", text);

    // We slept all the while: what was busy was somebody else.
    if busy > BUSY_PERCENT_MAX {
        let used = |(pid, (name, ticks)): (&u32, &(String, u64))| {
            let then = before.processes.get(pid).filter(|(known, _)| known == name).map_or(0, |(_, then)| *then);
            (ticks.saturating_sub(then), name.clone(), *pid)
        };
        let most = after.processes.iter().filter(|(pid, _)| before.processes.contains_key(pid)).map(used).max();
        let who = most
            .filter(|(ticks, ..)| *ticks > 0)
            .map_or_else(String::new, |(_, name, pid)| format!(", {name} (pid {pid}) most of all"));
        machine.warn(format!("others use {busy:.0} % of the processors{who}"));
    }
    if stolen > STOLEN_PERCENT_MAX {
        machine.warn(format!("the host gives {stolen:.0} % of the processors' time to other guests (steal)"));
    }
    let minute: Option<f64> = load.first().and_then(|load| load.parse().ok());
    if let Some(minute) = minute.filter(|minute| processors > 0 && *minute > processors as f64 / 2.0) {
        machine.warn(format!(
            "the load of the last minute is {minute} on {processors} processors: caches, disk and heat remember it"
        ));
    }
}

fn pressure(system: &System, machine: &mut Machine) {
    let mut shown = Vec::new();
    for what in ["cpu", "io", "memory"] {
        let Some(percent) = system.read(&format!("/proc/pressure/{what}")).and_then(|text| parse::pressure(&text)) else {
            continue;
        };
        shown.push(format!("{what} {percent:.0} %"));
        if percent > PRESSURE_PERCENT_MAX {
            machine.warn(format!("processes waited for {what} {percent:.0} % of the last ten seconds (/proc/pressure)"));
        }
    }
    if !shown.is_empty() {
        machine.fact("pressure over 10 s", shown.join(", "));
    }
}

fn throttling(system: &System, machine: &mut Machine) {
    if let Some((stopped, periods)) = host::throttled(system).filter(|(stopped, _)| *stopped > 0) {
        machine.warn(format!("our cgroup's processor quota has stopped it in {stopped} of {periods} periods so far"));
    }
    let hot = slowed_by_heat(system);
    if hot > 0 {
        machine.warn(format!("the processors have been slowed down for heat {hot} times since the start"));
    }
}

fn slowed_by_heat(system: &System) -> u64 {
    system
        .names("/sys/devices/system/cpu")
        .iter()
        .filter_map(|name| system.number(&format!("/sys/devices/system/cpu/{name}/thermal_throttle/core_throttle_count")))
        .sum()
}

/// What slows a machine down, counted: read before and after a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brakes {
    ticks: Option<Ticks>,
    throttled: Option<(u64, u64)>,
    hot: u64,
}

impl Brakes {
    pub(super) fn read(system: &System) -> Self {
        let ticks = system.read("/proc/stat").and_then(|stat| parse::ticks(&stat)).map(|(ticks, _)| ticks);
        Self { ticks, throttled: host::throttled(system), hot: slowed_by_heat(system) }
    }

    /// What happened since `before`, as a fact; as a warning where it shows in figures.
    pub(super) fn tell_since(&self, before: &Self, machine: &mut Machine) {
        let mut told = Vec::new();
        if let (Some(then), Some(now)) = (before.throttled, self.throttled) {
            let (stopped, periods) = (now.0.saturating_sub(then.0), now.1.saturating_sub(then.1));
            told.push(format!("stopped by the cgroup's quota in {stopped} of {periods} periods"));
            if stopped > 0 {
                machine.warn(format!("during the run our cgroup's processor quota stopped it in {stopped} of {periods} periods"));
            }
        }
        let hot = self.hot.saturating_sub(before.hot);
        told.push(format!("slowed down for heat {hot} times"));
        if hot > 0 {
            machine.warn(format!("during the run the processors were slowed down for heat {hot} times"));
        }
        if let (Some(then), Some(now)) = (before.ticks, self.ticks) {
            let all = now.all.saturating_sub(then.all);
            let percent = if all == 0 { 0.0 } else { now.stolen.saturating_sub(then.stolen) as f64 * 100.0 / all as f64 };
            told.push(format!("{percent:.1} % of the processors' time stolen"));
            if percent > STOLEN_PERCENT_MAX {
                machine
                    .warn(format!("during the run the host gave {percent:.0} % of the processors' time to other guests (steal)"));
            }
        }
        machine.fact("during the run", told.join(", "));
    }
}

/// What the first touch of memory costs: as the kernel hands it out, and once more right after it was given back, when a virtual
/// machine's host still backs it.
#[derive(Clone, Copy, Debug)]
struct Fresh {
    first_s_per_gib: f64,
    again_s_per_gib: f64,
    bytes: usize,
}

impl Fresh {
    /// `None` where there is not even room for a piece.
    fn measure(bytes_max: usize) -> Option<Self> {
        let (first, bytes) = touch(bytes_max, FRESH_MAX)?;
        let (again, bytes_again) = touch(bytes, FRESH_MAX)?;
        let per_gib = |took: Duration, bytes: usize| took.as_secs_f64() * (1_u64 << 30) as f64 / bytes as f64;
        Some(Self { first_s_per_gib: per_gib(first, bytes), again_s_per_gib: per_gib(again, bytes_again), bytes })
    }

    fn tell(&self, machine: &mut Machine) {
        machine.fact(
            "first touch of memory",
            format!(
                "{:.2} s per GiB, {:.2} once it was used ({}, pages of 4 KiB)",
                self.first_s_per_gib,
                self.again_s_per_gib,
                show_bytes(self.bytes as u64)
            ),
        );
        if self.first_s_per_gib > 2.0 * self.again_s_per_gib && self.first_s_per_gib > 0.5 {
            machine.warn(format!(
                "fresh memory costs {:.1} times what used memory does: whoever touches it first pays for it; fill the page cache before \
                 you compare, and alternate between the contestants",
                self.first_s_per_gib / self.again_s_per_gib.max(1e-9)
            ));
        }
    }
}

/// Touches up to so many bytes of new anonymous memory, for as long as that may take; the time it took, and how much it was.
fn touch(bytes_max: usize, time_max: Duration) -> Option<(Duration, usize)> {
    let start = Instant::now();
    // Zeroed memory of this size comes untouched from the kernel, and goes back to it.
    let mut memory = vec![0_u8; bytes_max];
    let mut bytes = 0;
    for piece in memory.chunks_exact_mut(PIECE_BYTES) {
        for page in piece.chunks_mut(PAGE_BYTES) {
            page[0] = 1;
        }
        bytes += PIECE_BYTES;
        if start.elapsed() >= time_max {
            break;
        }
    }
    let took = start.elapsed();
    black_box(&mut memory);
    (bytes > 0).then_some((took, bytes))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fact, system};
    use super::*;

    fn sample(ticks: Ticks, process: u64) -> Sample {
        Sample {
            ticks: Some((ticks, 2)),
            processes: HashMap::from([(7, ("cargo".to_owned(), process)), (8, ("idle".to_owned(), 1))]),
        }
    }

    #[test]
    fn others_are_named() {
        let (_root, system) = system(&[("/proc/loadavg", "1.52 0.81 0.59 3/105 9400\n")]);
        let mut machine = Machine::default();
        let before = sample(Ticks { all: 1000, busy: 100, stolen: 5 }, 50);
        let after = sample(Ticks { all: 1040, busy: 120, stolen: 9 }, 69);
        others(&system, &before, &after, &mut machine);
        assert_eq!(fact(&machine, "others at work"), "load 1.52 0.81 0.59; processors 50 % busy, 10 % stolen over 200 ms");
        assert_eq!(machine.warnings.len(), 3, "{:?}", machine.warnings);
        assert_eq!(machine.warnings[0], "others use 50 % of the processors, cargo (pid 7) most of all");
    }

    #[test]
    fn quiet_is_quiet() {
        let (_root, system) = system(&[("/proc/loadavg", "0.10 0.81 0.59 3/105 9400\n")]);
        let mut machine = Machine::default();
        let before = sample(Ticks { all: 1000, busy: 100, stolen: 5 }, 50);
        others(&system, &before, &sample(Ticks { all: 1040, busy: 102, stolen: 5 }, 51), &mut machine);
        assert!(machine.warnings.is_empty(), "{:?}", machine.warnings);
        others(&system, &before, &before, &mut machine);
        assert!(machine.warnings.is_empty(), "no tick passed: {:?}", machine.warnings);
    }

    #[test]
    fn pressure_and_heat_are_told() {
        let (_root, system) = system(&[
            ("/proc/pressure/cpu", "some avg10=1.00 avg60=0.84 avg300=3.25 total=1\n"),
            ("/proc/pressure/io", "some avg10=42.50 avg60=0.84 avg300=3.25 total=1\n"),
            ("/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "3\n"),
        ]);
        let mut machine = Machine::default();
        pressure(&system, &mut machine);
        throttling(&system, &mut machine);
        assert_eq!(fact(&machine, "pressure over 10 s"), "cpu 1 %, io 42 %");
        assert_eq!(machine.warnings.len(), 2, "{:?}", machine.warnings);
    }

    #[test]
    fn what_happened_during_a_run_is_told() {
        let brakes = |stolen, stopped, hot| Brakes {
            ticks: Some(Ticks { all: 1000 + 10 * stolen, busy: 0, stolen }),
            throttled: Some((stopped, 100 + stopped)),
            hot,
        };
        let (mut quiet, mut slowed) = (Machine::default(), Machine::default());
        brakes(7, 5, 3).tell_since(&brakes(7, 5, 3), &mut quiet);
        assert!(quiet.warnings.is_empty(), "what was before the run is not told again: {:?}", quiet.warnings);
        assert!(fact(&quiet, "during the run").contains("in 0 of 0 periods, slowed down for heat 0 times, 0.0 %"));
        brakes(17, 9, 4).tell_since(&brakes(7, 5, 3), &mut slowed);
        assert_eq!(slowed.warnings.len(), 3, "{:?}", slowed.warnings);
        assert_eq!(slowed.warnings[0], "during the run our cgroup's processor quota stopped it in 4 of 4 periods");
    }

    #[test]
    fn fresh_memory_is_touched_within_bounds() {
        assert!(Fresh::measure(PIECE_BYTES - 1).is_none());
        let (_, bytes) = touch(3 * PIECE_BYTES, Duration::from_secs(60)).unwrap();
        assert_eq!(bytes, 3 * PIECE_BYTES);
        let (_, bytes) = touch(3 * PIECE_BYTES, Duration::from_nanos(1)).unwrap();
        assert_eq!(bytes, PIECE_BYTES, "the time is kept");
    }

    #[test]
    fn dear_memory_is_told() {
        let tell = |first_s_per_gib, again_s_per_gib| {
            let mut machine = Machine::default();
            Fresh { first_s_per_gib, again_s_per_gib, bytes: 1 << 28 }.tell(&mut machine);
            machine.warnings.len()
        };
        assert_eq!(tell(3.1, 0.4), 1);
        assert_eq!(tell(0.5, 0.4), 0);
        assert_eq!(tell(0.4, 0.1), 0, "cheap anyway");
    }
}
