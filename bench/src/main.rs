//! The binary: reads the command line, runs the command, prints and stores what it measured.

use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use clap::Parser;
use ringlog_bench::cli::{Cli, Command, Shared};
use ringlog_bench::error::Error;
use ringlog_bench::machine::Machine;
use ringlog_bench::results::{FORMAT, Outcome, Run};
use ringlog_bench::{compare, disk, engine, groups, guard, load, report, stop, store};

fn main() -> ExitCode {
    tell_of_lost_output();
    let cli = Cli::parse();
    match run(&cli) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("ringlog-bench: {error}");
            ExitCode::from(error.exit_status())
        }
    }
}

/// `println!` panics where standard output is a full disk or a pipe that nobody reads, which is no bug: one line says so.
fn tell_of_lost_output() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<String>();
        let why = text.and_then(|text| text.strip_prefix("failed printing to stdout: "));
        let Some(why) = why else { return others(panic) };
        eprintln!("ringlog-bench: the result could not be printed: {why}");
        std::process::exit(1);
    }));
}

fn run(cli: &Cli) -> Result<ExitCode, Error> {
    match &cli.command {
        Command::Guard => {
            guard::serve(std::io::stdin().lock());
            return Ok(ExitCode::SUCCESS);
        }
        Command::Echo(command) => {
            groups::echo_server::serve(command)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Compare(command) if command.show => {
            print!("{}", command.shown()?);
            return Ok(ExitCode::SUCCESS);
        }
        Command::Report(command) => {
            report::run(command)?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    stop::listen().map_err(|error| Error::Failed(format!("signals cannot be handled: {error}")))?;
    let started_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let start = Instant::now();
    // What is wrong with the arguments is told before anything takes time.
    match &cli.command {
        Command::Disk(settings) => disk::check(settings)?,
        Command::Engine(settings) => engine::check(settings)?,
        Command::Load(args) => load::check(args)?,
        Command::Groups(command) => groups::check(command)?,
        Command::Compare(command) => compare::check(command)?,
        Command::Machine | Command::Report(_) | Command::Guard | Command::Echo(_) => {}
    }
    store::check(&cli.shared.out)?;
    let mut machine = Machine::probe(&cli.shared.out);
    let brakes = Machine::brakes();
    let mut beside = Vec::new();
    let outcome = match &cli.command {
        Command::Machine | Command::Report(_) | Command::Guard | Command::Echo(_) => Outcome::Machine,
        Command::Disk(settings) => disk::run(settings, &cli.shared)?,
        Command::Engine(settings) => engine::run(settings, &cli.shared)?,
        Command::Load(args) => {
            let (load, logs) = load::run(args, &cli.shared, started_ms)?;
            beside = logs;
            Outcome::Load(Box::new(load))
        }
        Command::Groups(command) => Outcome::Groups(Box::new(groups::run(command, &cli.shared)?)),
        Command::Compare(command) => Outcome::Compare(Box::new(compare::run(command, &cli.shared)?)),
    };
    if !matches!(outcome, Outcome::Machine) {
        machine.ran_since(&brakes);
    }
    let run = Run {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command_line: std::env::args().collect(),
        started_ms,
        elapsed_s: start.elapsed().as_secs_f64(),
        interrupted: stop::requested(),
        machine,
        outcome,
    };
    // First, so that a terminal that is gone does not take the result along; and it is shown where it could not be stored.
    let stored = store::save_with(&cli.shared.out, &run, &beside);
    print(&cli.shared, &run)?;
    let path = stored?;
    eprintln!("stored in {}", path.display());
    match &run.outcome {
        _ if run.interrupted => return Ok(ExitCode::from(130)),
        Outcome::Disk(grid) => disk::draw(grid, &run.machine, &path)?,
        Outcome::Load(load) if load.verify.as_ref().is_some_and(|verified| !verified.is_sound()) => return Ok(ExitCode::FAILURE),
        Outcome::Compare(compare) => {
            if let Some(why) = &compare.failed {
                return Err(Error::Failed(format!("ended early: {why}")));
            }
        }
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn print(shared: &Shared, run: &Run) -> Result<(), Error> {
    if shared.json {
        let text = serde_json::to_string_pretty(run).map_err(|error| Error::Failed(error.to_string()))?;
        println!("{text}");
        return Ok(());
    }
    println!("{}", run.machine.table());
    match &run.outcome {
        Outcome::Disk(grid) => disk::print(grid),
        Outcome::Engine(measured) => engine::print(measured),
        Outcome::Load(load) => load::print(load),
        Outcome::Groups(measured) => groups::print(measured),
        Outcome::Compare(compare) => print!("{}", compare::table::render(compare)),
        Outcome::Machine => {}
    }
    Ok(())
}
