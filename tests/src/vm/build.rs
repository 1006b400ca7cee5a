//! The programs for inside: static, as the image's binary is, so that they run without a system.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Outcome;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A test binary and its name.
pub type Test = (String, PathBuf);

/// What was built.
pub struct Programs {
    /// The agent, built as the image's is.
    pub headroom: PathBuf,
    /// In the order that was asked for.
    pub tests: Vec<Test>,
}

/// Builds everything below `directory`, which keeps what is built from run to run.
pub fn programs(directory: &Path, tests: &[String]) -> Outcome<Programs> {
    let headroom = executables(directory, ["build", "--release", "-p", "headroom"])?;
    let (_, headroom) = headroom.into_iter().next().ok_or("cargo built no headroom")?;
    let names = tests.iter().flat_map(|name| ["--test", name]);
    let built = executables(
        directory,
        ["test", "--no-run", "-p", "headroom-tests"].into_iter().chain(names),
    )?;
    let path = |name: &String| {
        let found = built.iter().find(|(built, _)| built == name);
        found.cloned().ok_or_else(|| format!("cargo built no test {name}").into())
    };
    Ok(Programs { headroom, tests: tests.iter().map(path).collect::<Outcome<_>>()? })
}

/// Runs cargo; the names and paths of the executables that it made.
fn executables<'a>(
    directory: &Path,
    args: impl IntoIterator<Item = &'a str>,
) -> Outcome<Vec<Test>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).args([
        "--locked",
        "--target",
        TARGET,
        "--message-format=json-render-diagnostics",
    ]);
    command.env("CARGO_TARGET_DIR", directory).env("RUSTFLAGS", "-C target-feature=+crt-static");
    // Symbols would only fill the memory of the virtual machine.
    command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_DEV_STRIP", "symbols");
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", output.status).into());
    }
    let messages = output.stdout.split(|byte| *byte == b'\n');
    let messages =
        messages.filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
    let executable = |message: serde_json::Value| {
        let path = message["executable"].as_str()?;
        Some((message["target"]["name"].as_str()?.to_owned(), path.into()))
    };
    Ok(messages.filter_map(executable).collect())
}
