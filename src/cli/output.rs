//! Printing to standard output and error, whose reader may be gone.
//!
//! The standard library's `println!` and `eprintln!` panic if the reader is gone, as in `ess … | head`. All commands use
//! these two instead.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// Prints a line to standard output. If its reader is gone, the command ends with exit code 0.
pub(super) fn print_line(line: Arguments<'_>) {
    let mut output = std::io::stdout().lock();
    let printed = output.write_fmt(line).and_then(|()| output.write_all(b"\n"));
    match printed {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            print_error_line(format_args!("ess: standard output: {error}"));
            std::process::exit(1);
        }
    }
}

/// Prints a line to standard error, if it has a reader.
pub(super) fn print_error_line(line: Arguments<'_>) {
    let mut output = std::io::stderr().lock();
    let _ = output.write_fmt(line).and_then(|()| output.write_all(b"\n"));
}

macro_rules! println {
    () => { $crate::cli::output::print_line(format_args!("")) };
    ($($line:tt)*) => { $crate::cli::output::print_line(format_args!($($line)*)) };
}

macro_rules! eprintln {
    () => { $crate::cli::output::print_error_line(format_args!("")) };
    ($($line:tt)*) => { $crate::cli::output::print_error_line(format_args!($($line)*)) };
}
