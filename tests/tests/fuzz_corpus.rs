//! Replays the corpus of the fuzz targets: what was found once stays found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use headroom_tests::fuzz_targets::ALL;

/// Inputs that find a bug which is not repaired yet: `target/file`, and the bug.
const IGNORED: [(&str, &str); 0] = [];

fn fuzz() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"))
}

#[test]
fn no_input_of_the_corpus_fails() {
    let mut failed = Vec::new();
    for (target, body) in ALL {
        let directory = fuzz().join("corpus").join(target);
        let files = fs::read_dir(&directory).expect("every target has a corpus");
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", directory.display());
        for file in files {
            let name = format!("{target}/{}", file.file_name().unwrap().display());
            if IGNORED.iter().any(|(ignored, _)| *ignored == name) {
                continue;
            }
            let input = fs::read(&file).unwrap();
            if catch_unwind(|| body(&input)).is_err() {
                failed.push(name);
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join(", "));
}

#[test]
fn every_target_has_a_program_and_every_corpus_a_target() {
    let known: BTreeSet<String> = ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    let names = |directory: &str, suffix: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz().join(directory)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.map(|name| name.strip_suffix(suffix).unwrap().to_owned()).collect()
    };
    assert_eq!(names("fuzz_targets", ".rs"), known);
    assert_eq!(names("corpus", ""), known);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in known {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in the manifest");
        let program = fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("::{name}(data)")), "{name} runs something else");
    }
}
