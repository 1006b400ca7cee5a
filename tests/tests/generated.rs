//! What is generated is up to date, and what people copy from the documentation works.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(missing_docs)]

use std::fs;
use std::path::Path;
use std::process::Command;

use headroom_tests::agent_process::{Finished, binary, workspace};

fn read(path: impl AsRef<Path>) -> String {
    let path = workspace().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(workspace().join(directory)).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What `headroom` lists as possible for a command.
fn possible(command: &str) -> Vec<String> {
    let help = Finished::of(Command::new(binary()).args([command, "--help"]), b"").stdout;
    let (_, rest) = help.split_once("[possible values: ").unwrap();
    rest.split_once(']').unwrap().0.split(", ").map(str::to_owned).collect()
}

fn is_up_to_date(file: &str, args: [&str; 2]) {
    let done = Finished::of(Command::new(binary()).args(args), b"");
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        read(file) == done.stdout,
        "{file} is not what `headroom {}` prints: run make docs",
        args.join(" ")
    );
}

#[test]
fn the_reference_is_up_to_date() {
    for page in possible("reference") {
        is_up_to_date(&format!("docs/reference/{page}.md"), ["reference", &page]);
    }
}

#[test]
fn the_schemas_are_up_to_date() {
    let names = possible("schema");
    for name in &names {
        is_up_to_date(&format!("docs/schemas/{name}.v1.json"), ["schema", name]);
    }
    let mut expected: Vec<String> = names.iter().map(|name| format!("{name}.v1.json")).collect();
    expected.sort();
    assert_eq!(files("docs/schemas"), expected, "one file a schema");
}

#[test]
fn every_member_takes_the_workspaces_lints() {
    let manifest = read("Cargo.toml");
    let (_, members) = manifest.split_once("members = [").unwrap();
    let members = members.split_once(']').unwrap().0.split(',');
    for member in members.map(|member| member.trim().trim_matches('"')) {
        let manifest = read(Path::new(member).join("Cargo.toml"));
        assert!(manifest.contains("[lints]\nworkspace = true"), "{member}");
    }
}

/// Complete documents in fenced blocks, with the line they begin on.
fn fenced(markdown: &str) -> Vec<(usize, String)> {
    let (mut found, mut open) = (Vec::new(), None);
    for (number, line) in markdown.lines().enumerate() {
        match (&mut open, line.trim_start().starts_with("```")) {
            (None, true) => open = Some((number + 2, String::new())),
            (Some(_), true) => found.extend(open.take()),
            (Some((_, text)), false) => *text += &format!("{line}\n"),
            (None, false) => {}
        }
    }
    found.retain(|(_, text)| is_configuration(text));
    found
}

fn is_configuration(text: &str) -> bool {
    text.lines().any(|line| line == "kind: AgentConfig")
}

/// Block scalars (`name: |`) of a YAML file, without their indentation.
fn embedded(yaml: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = yaml.lines().collect();
    let width = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        if !line.ends_with(": |") {
            continue;
        }
        let inside = |next: &&&str| next.is_empty() || width(next) > width(line);
        let block: Vec<&str> = lines[number + 1..].iter().take_while(inside).copied().collect();
        let indent = block.first().map_or(0, |first| width(first));
        let text = block.iter().map(|line| format!("{}\n", line.get(indent..).unwrap_or("")));
        found.push((number + 2, text.collect::<String>()));
    }
    found.retain(|(_, text)| is_configuration(text));
    found
}

fn checks(place: &str, document: &str) {
    let mut command = Command::new(binary());
    let done = Finished::of(command.args(["check", "--strict", "-"]), document.as_bytes());
    assert_eq!(done.code, Some(0), "{place}:\n{}\n{document}", done.stdout);
}

/// Every Markdown file beside the code and below `docs`.
fn pages() -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut directories = vec!["docs".to_owned()];
    while let Some(directory) = directories.pop() {
        for name in files(&directory) {
            let path = format!("{directory}/{name}");
            if workspace().join(&path).is_dir() { directories.push(path) } else { found.push(path) }
        }
    }
    found.extend(files("."));
    found.retain(|path| path.ends_with(".md"));
    found.sort();
    found
}

#[test]
fn configurations_in_the_documentation_pass_a_strict_check() {
    for page in pages() {
        for (line, document) in fenced(&read(&page)) {
            checks(&format!("{page}:{line}"), &document);
        }
    }
}

#[test]
fn configurations_in_the_manifests_pass_a_strict_check() {
    if !workspace().join("deploy/manifests").exists() {
        return;
    }
    for name in files("deploy/manifests") {
        let path = format!("deploy/manifests/{name}");
        for (line, document) in embedded(&read(&path)) {
            checks(&format!("{path}:{line}"), &document);
        }
    }
    let manifest = "deploy/manifests/daemonset.yaml";
    if workspace().join(manifest).exists() {
        assert!(!embedded(&read(manifest)).is_empty(), "{manifest} has no configuration");
    }
}

#[test]
fn the_embedded_default_passes_a_strict_check() {
    checks("agent/src/config/default.yaml", headroom::config::load::EMBEDDED);
}

#[test]
fn documents_are_found_in_pages_and_manifests() {
    let page =
        "text\n```yaml\na: 1\n```\n\n```yaml\napiVersion: headroom/v1\nkind: AgentConfig\n```\n";
    assert_eq!(fenced(page), [(7, "apiVersion: headroom/v1\nkind: AgentConfig\n".to_owned())]);
    let manifest = "data:\n  config.yaml: |\n    kind: AgentConfig\n    sysctls:\n      a.b: 1\n\n    mode: observe\n---\nkind: X\n";
    assert_eq!(
        embedded(manifest),
        [(3, "kind: AgentConfig\nsysctls:\n  a.b: 1\n\nmode: observe\n".to_owned())]
    );
}
