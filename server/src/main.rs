//! The binary `ringlog`: reads the command line, sees whether the machine and the data directory will do, and runs what was
//! asked for. An error is one line on standard error and exit status 1.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use ringlog_server::api::Api;
use ringlog_server::cli::{Cli, Command, LogCommand, ServeArgs};
use ringlog_server::data_dir::DataDir;
use ringlog_server::{broker, logging, offline, preflight, signals, tool};
use tracing::warn;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => serve(&cli.serve),
        Some(Command::Serve(args)) => serve(&args),
        Some(Command::Log(command)) => log(command),
        Some(Command::Topic(command)) => ask(tool::Command::Topic(command)),
        Some(Command::Produce(args)) => ask(tool::Command::Produce(args)),
        Some(Command::Consume(args)) => ask(tool::Command::Consume(args)),
        Some(Command::Group(command)) => ask(tool::Command::Group(command)),
        Some(Command::Config(command)) => ask(tool::Command::Config(command)),
        Some(Command::Status(target)) => ask(tool::Command::Status(target)),
        Some(Command::Completions { shell }) => completions(shell),
    };
    match result {
        Ok(status) => status,
        Err(error) => {
            eprintln!("ringlog: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &ServeArgs) -> Result<ExitCode, Box<dyn Error>> {
    logging::start()?;
    let (config, unknown) = args.load()?;
    if !unknown.is_empty() {
        warn!("unknown configuration names are ignored: {}", unknown.join(", "));
    }
    let cores = match usize::try_from(config.options.ringlog_cores) {
        Ok(cores) if cores > 0 => cores,
        _ => preflight::cores_available(),
    };
    preflight::check(cores)?;
    let data_dir = DataDir::open(&config.data_dir, config.node_id)?;
    let stop = signals::stop_on_signals()?;
    broker::run(config, data_dir, stop, |core| Api::new(core))?;
    Ok(ExitCode::SUCCESS)
}

fn log(command: LogCommand) -> Result<ExitCode, Box<dyn Error>> {
    logging::start()?;
    Ok(match command {
        LogCommand::Dump { dir, records, json } => offline::dump(&dir, offline::DumpOptions { records, json })?,
        LogCommand::Verify { dir } => offline::verify(&dir)?,
        LogCommand::Repair { dir, execute, dry_run: _ } => offline::repair(&dir, execute)?,
    })
}

fn ask(command: tool::Command) -> Result<ExitCode, Box<dyn Error>> {
    Ok(tool::run(command)?)
}

fn completions(shell: clap_complete::Shell) -> Result<ExitCode, Box<dyn Error>> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ringlog", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
