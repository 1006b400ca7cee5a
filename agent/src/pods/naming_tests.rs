#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const UID: &str = "0f6c1c5e-1111-4222-8333-123456789abc";

fn ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn paths(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().map(PathBuf::from).collect()
}

fn result(name: &str, sandbox: &str, address: u8) -> CniResult {
    CniResult {
        container: "c0ffee".to_owned(),
        namespace: Some("web".to_owned()),
        name: Some(name.to_owned()),
        uid: Some(UID.to_owned()),
        sandboxes: paths(&[sandbox]),
        addresses: vec![ip(address)],
    }
}

fn name_of(results: &[&CniResult]) -> Result<Option<String>, Unnamed> {
    by_result(&paths(&["/run/netns/a"]), &[ip(1), ip(2)], results).map(|pod| pod.name)
}

#[test]
fn a_result_names_the_namespace_of_its_path_and_address() {
    let found = result("a", "/run/netns/a", 1);
    let identity = by_result(&paths(&["/x/b", "/run/netns/a"]), &[ip(2), ip(1)], &[&found]);
    let expected = Identity {
        namespace: Some("web".to_owned()),
        name: Some("a".to_owned()),
        uid: Some(UID.to_owned()),
        container: Some("c0ffee".to_owned()),
        from: IdentityFrom::CniCache,
    };
    assert_eq!(identity, Ok(expected));
}

#[test]
fn run_is_meant_in_both_spellings() {
    for (spelled, normal) in [
        ("/var/run/netns/a", "/run/netns/a"),
        ("/run/netns/a", "/run/netns/a"),
        ("//var//run/netns/./a", "/run/netns/a"),
        ("/var/run", "/run"),
        ("/var/running/a", "/var/running/a"),
        ("/x/var/run/a", "/x/var/run/a"),
        ("var/run/a", "var/run/a"),
    ] {
        assert_eq!(normalize(Path::new(spelled)), Path::new(normal), "{spelled}");
    }
    for path in ["/var/run/netns/a", "/run/netns/a"] {
        for sandbox in ["/var/run/netns/a", "/run/netns/a"] {
            let found = by_result(&paths(&[path]), &[ip(1)], &[&result("a", sandbox, 1)]);
            assert!(found.is_ok(), "{path} {sandbox}");
        }
    }
}

#[test]
fn what_a_result_does_not_prove_is_said() {
    assert_eq!(name_of(&[]), Err(Unnamed::NoResult));
    let elsewhere = result("a", "/run/netns/ab", 1);
    assert_eq!(name_of(&[&elsewhere]), Err(Unnamed::NoResult));
    let left_over = result("b", "/run/netns/a", 9);
    assert_eq!(name_of(&[&left_over, &elsewhere]), Err(Unnamed::NoAddress));
    let no_address = CniResult { addresses: vec![], ..left_over.clone() };
    assert_eq!(name_of(&[&no_address]), Err(Unnamed::NoAddress));
    // What proves nothing contradicts nothing.
    let (one, other) = (result("a", "/run/netns/a", 1), result("b", "/run/netns/a", 2));
    assert_eq!(name_of(&[&left_over, &one, &no_address]), Ok(Some("a".to_owned())));
    // A second network of the same pod.
    let second = result("a", "/var/run/netns/a", 2);
    assert_eq!(name_of(&[&one, &second]), Ok(Some("a".to_owned())));
    assert_eq!(name_of(&[&one, &other]), Err(Unnamed::Contradiction));
    let anonymous =
        CniResult { namespace: None, name: None, uid: None, ..result("", "/run/netns/a", 1) };
    assert_eq!(name_of(&[&anonymous]), Err(Unnamed::NoPod));
    assert_eq!(name_of(&[&anonymous, &one]), Err(Unnamed::Contradiction));
    let half = CniResult { uid: None, namespace: None, ..one.clone() };
    assert_eq!(name_of(&[&half]), Err(Unnamed::NoPod), "a name without a namespace is none");
    let uid = CniResult { name: None, namespace: None, ..one };
    assert_eq!(name_of(&[&uid]), Ok(None));
    for error in [Unnamed::NoResult, Unnamed::NoAddress, Unnamed::Contradiction, Unnamed::NoPod] {
        assert!(error.to_string().contains("CNI result"), "{error}");
    }
}

#[test]
fn a_name_of_any_characters_is_printable() {
    let hostile = CniResult {
        container: "\u{1b}[2J".to_owned(),
        uid: Some("\n\0".to_owned()),
        ..result("a\u{202e}\r", "/run/netns/a", 1)
    };
    let pod = by_result(&paths(&["/run/netns/a"]), &[ip(1)], &[&hostile]).unwrap();
    for text in [pod.name, pod.uid, pod.container].into_iter().flatten() {
        assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{text:?}");
    }
}

fn pod(uid: &str, container: Option<&str>) -> Pod {
    Pod { uid: uid.to_owned(), container: container.map(str::to_owned) }
}

#[test]
fn processes_name_their_pod() {
    let by = |pods: &[Pod]| by_processes(Some(&pods.to_vec()), 0, &BTreeSet::new()).unwrap();
    let expected = Identity {
        uid: Some(UID.to_owned()),
        container: Some("c1".to_owned()),
        from: IdentityFrom::Process,
        ..Identity::default()
    };
    assert_eq!(by(&[pod(UID, Some("c1")), pod(UID, Some("c1"))]), expected);
    // The sandbox is one of several containers: none of them is the one.
    let several = Identity { container: None, ..expected };
    assert_eq!(by(&[pod(UID, Some("c1")), pod(UID, Some("c2"))]), several);
    assert_eq!(by(&[pod(UID, Some("c1")), pod(UID, None)]), several);
    assert_eq!(by(&[pod(UID, None)]), several);
}

#[test]
fn what_processes_do_not_tell_is_said() {
    let none = BTreeSet::new();
    let why = |pods: Option<&[Pod]>, refused, taken: &BTreeSet<String>| {
        by_processes(pods.map(<[Pod]>::to_vec).as_ref(), refused, taken).unwrap_err()
    };
    assert_eq!(why(None, 0, &none), "no process is in it");
    let refused = why(None, 3, &none);
    assert!(refused.contains("3 may not") && refused.contains("CAP_SYS_PTRACE"), "{refused}");
    assert_eq!(why(Some(&[]), 3, &none), "no process in it is in a pod's cgroup");
    let two = [pod(UID, None), pod("other", None)];
    assert_eq!(why(Some(&two), 0, &none), "processes of different pods are in it");
    let taken = BTreeSet::from([UID.to_owned()]);
    assert!(why(Some(&two[..1]), 0, &taken).contains("which has another one"));
}

fn some_path() -> impl Strategy<Value = PathBuf> {
    "(/var)?/run/netns/[ab]".prop_map(PathBuf::from)
}

fn some_result() -> impl Strategy<Value = CniResult> {
    let sandboxes = prop::collection::vec(some_path(), 0..3);
    let addresses = prop::collection::vec((0..4u8).prop_map(ip), 0..3);
    let text = || prop::option::of("[xy]");
    (sandboxes, addresses, text(), text(), text()).prop_map(
        |(sandboxes, addresses, namespace, name, uid)| CniResult {
            container: String::new(),
            namespace,
            name,
            uid,
            sandboxes,
            addresses,
        },
    )
}

proptest! {
    #[test]
    fn an_identity_is_given_only_where_path_and_address_match(
        known in prop::collection::vec(some_path(), 0..3),
        addresses in prop::collection::vec((0..4u8).prop_map(ip), 0..4),
        results in prop::collection::vec(some_result(), 0..4),
    ) {
        let spelled = |path: &PathBuf| path.to_str().unwrap().trim_start_matches("/var").to_owned();
        let meant: Vec<String> = known.iter().map(spelled).collect();
        let names =
            |result: &&CniResult| result.sandboxes.iter().any(|at| meant.contains(&spelled(at)));
        let proves =
            |result: &&CniResult| result.addresses.iter().any(|one| addresses.contains(one));
        let who = |result: &CniResult| {
            (result.namespace.clone(), result.name.clone(), result.uid.clone())
        };
        let all: Vec<&CniResult> = results.iter().collect();
        let named: Vec<&CniResult> = all.iter().copied().filter(names).collect();
        let proven: Vec<&CniResult> = named.iter().copied().filter(proves).collect();
        match by_result(&known, &addresses, &all) {
            Ok(pod) => {
                prop_assert!(!proven.is_empty());
                let pod = (pod.namespace, pod.name, pod.uid);
                prop_assert!(proven.iter().all(|result| who(result) == pod));
                prop_assert!(pod.2.is_some() || pod.0.is_some() && pod.1.is_some());
            }
            Err(Unnamed::NoResult) => prop_assert!(named.is_empty()),
            Err(Unnamed::NoAddress) => prop_assert!(!named.is_empty() && proven.is_empty()),
            Err(Unnamed::Contradiction) => {
                prop_assert!(proven.iter().any(|result| who(result) != who(proven[0])));
            }
            Err(Unnamed::NoPod) => {
                let nobody =
                    |(namespace, name, uid): (Option<_>, Option<_>, Option<_>)| -> bool {
                        uid.is_none() && (namespace.is_none() || name.is_none())
                    };
                prop_assert!(proven.iter().all(|result| nobody(who(result))));
            }
        }
    }
}
