//! iproute2's `ip`.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Runs `ip` with these arguments in the host's namespace. Fails the test where it fails.
pub fn ip<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> String {
    try_ip(args).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs `ip`; what it printed, or what it complained about.
pub fn try_ip<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Result<String, String> {
    let mut command = Command::new("ip");
    command.args(args);
    let output = command.output().unwrap_or_else(|error| panic!("ip (iproute2): {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{command:?}: {}", text(&output.stderr).trim())),
    }
}

/// Runs the lines of `batch` with one `ip -batch`. Fails the test where one fails.
pub fn ip_batch(batch: impl AsRef<[u8]>) {
    let failures = batch_failures(&[], batch.as_ref());
    assert_eq!(failures, "", "ip -batch");
}

/// Runs every line, whatever comes of it; all that `ip` complained about.
pub(super) fn batch_failures(args: &[&str], batch: &[u8]) -> String {
    let mut child = Command::new("ip")
        .args(args)
        .args(["-force", "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("ip (iproute2): {error}"));
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // Beside the reading: both pipes may fill up.
        scope.spawn(move || stdin.write_all(batch));
        let output = child.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    })
}
