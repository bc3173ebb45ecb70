//! The `ess` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ess::cli::main()
}
