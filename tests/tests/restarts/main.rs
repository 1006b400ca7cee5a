//! Runs that end by SIGKILL, and what the next run and `restore` find.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(missing_docs)]

mod kills;
mod ledgers;
