//! `headroom schema`: JSON Schemas, generated from the types.

use clap::ValueEnum;
use headroom::capacity::plan::Plan;
use headroom::config::document::Document;
use headroom::serve::status::Status;
use schemars::Schema;

use super::output::Output;
use super::{
    Color, Exit, Format, OutputFormat, apply, check, diff, explain, import, privileges, restore,
};

/// What there is a schema of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Of {
    Config,
    Apply,
    Check,
    Diff,
    Explain,
    Import,
    Plan,
    Privileges,
    Restore,
    Status,
}

pub fn run(of: Of) -> Exit {
    let format = Format { output: OutputFormat::Json, color: Color::Never };
    Output::new(&format).document(&schema(of));
    Exit::Ok
}

fn schema(of: Of) -> Schema {
    match of {
        Of::Config => schemars::schema_for!(Document),
        Of::Apply => schemars::schema_for!(apply::Applied),
        Of::Check => schemars::schema_for!(check::Checked),
        Of::Diff => schemars::schema_for!(diff::Diff),
        Of::Explain => schemars::schema_for!(explain::Explained),
        Of::Import => schemars::schema_for!(import::Imported),
        Of::Plan => schemars::schema_for!(Plan),
        Of::Privileges => schemars::schema_for!(privileges::Needed),
        Of::Restore => schemars::schema_for!(restore::Report),
        Of::Status => schemars::schema_for!(Status),
    }
}
