//! The image that sandboxes and containers of the tests run: one static program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

/// Its name. No registry is ever asked for it.
pub const NAME: &str = "localhost/headroom-tests:1";

/// Builds it in this directory; the archive, as `docker save` makes them.
///
/// # Panics
/// Without `rustc`, or without the static C library that comes with `cc` on Debian.
#[must_use]
pub fn build(directory: &Path) -> PathBuf {
    let file = |name: &str| directory.join(name);
    let root = file("root");
    fs::create_dir(&root).unwrap();
    let source = file("pod.rs");
    fs::write(&source, include_str!("programs/pod.rs")).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    // -C panic=abort and opt-level make it small, and the image quick to unpack.
    let mut compile = Command::new(rustc);
    compile.args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "opt-level=s"]);
    compile.args(["-C", "panic=abort", "-C", "strip=symbols"]);
    // A directory of its own, above which no toolchain file changes the compiler.
    done(compile.arg("-o").arg(root.join("pod")).arg(source).current_dir(directory));

    let layer = file("layer.tar");
    let owner = ["--owner=0", "--group=0", "--sort=name"];
    done(Command::new("tar").args(owner).arg("-C").arg(&root).arg("-cf").arg(&layer).arg("pod"));
    let digest = done(Command::new("sha256sum").arg(&layer));
    let digest = digest.split_ascii_whitespace().next().unwrap();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Entrypoint": ["/pod"], "Cmd": ["pause"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let manifest = json!([
        { "Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"] },
    ]);
    fs::write(file("config.json"), config.to_string()).unwrap();
    fs::write(file("manifest.json"), manifest.to_string()).unwrap();
    let archive = file("image.tar");
    let parts = ["manifest.json", "config.json", "layer.tar"];
    done(Command::new("tar").arg("-C").arg(directory).arg("-cf").arg(&archive).args(parts));
    archive
}

/// Runs a command that must succeed; what it printed.
pub(super) fn done(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}
