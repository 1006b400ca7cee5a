//! `headroom`: parse the command line, hand over to one command.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::main()
}
