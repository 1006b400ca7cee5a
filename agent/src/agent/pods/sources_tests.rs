#![allow(clippy::unwrap_used)]

use std::fs;

use super::*;

/// A result with paths in both spellings, and of another place.
const RESULT: &str = r#"{"kind":"cniCacheV1","containerId":"a","netns":"/run/netns/one","result":{
    "interfaces":[{"sandbox":"/var/run/netns/one"},{"sandbox":"/run/netns/two"}],
    "ips":[{"address":"10.0.0.2/24"}]}}"#;

fn path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

#[test]
fn of_a_result_with_several_paths_nothing_is_kept_that_is_gone() {
    let cache = tempfile::tempdir().unwrap();
    let spec = PodNamespaces {
        directories: vec!["/run/netns".into()],
        cni_cache: cache.path().to_owned(),
        ..PodNamespaces::default()
    };
    let mut sources = Sources::new(None, &spec);
    let named = |sources: &Sources, name: &str| sources.results(&[path(name)]).len();
    fs::write(cache.path().join("a"), RESULT).unwrap();
    for _ in 0..3 {
        sources.look_again();
        assert_eq!((named(&sources, "one"), named(&sources, "two")), (1, 1));
    }
    sources.forget_results(&["/var/run/netns/one".into()]);
    assert_eq!((named(&sources, "one"), named(&sources, "two")), (0, 1));
    fs::remove_file(cache.path().join("a")).unwrap();
    sources.look_again();
    assert_eq!((named(&sources, "one"), named(&sources, "two")), (0, 0));
    assert!(sources.files.is_empty() && sources.results.is_empty());
}
