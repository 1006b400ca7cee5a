#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// Files by their paths, in any order.
fn disk(files: &[(&str, &str)]) -> Disk {
    let found = files.iter().map(|(path, text)| {
        let (directory, name) = path.rsplit_once('/').unwrap();
        let directory = DIRECTORIES.iter().position(|one| *one == directory);
        let content = match *text {
            "/dev/null" => Content::Null,
            "nowhere" => Content::Nowhere,
            text => Content::Bytes(text.as_bytes().to_vec()),
        };
        Found { directory, name: Name::from_bytes(name), link: None, content }
    });
    Disk::of(Some(Ok(Files { files: found.collect(), directories: 1, ..Files::default() })))
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

/// Value and place that win: systemd's, and procps'.
fn winners(disk: &Disk, name: &str) -> (String, String) {
    let told = |one: Option<&Assignment>| {
        let told = |one: &Assignment| {
            format!("{} {}", one.value.as_deref().unwrap_or("-"), disk.place(one))
        };
        one.map(told).unwrap_or_default()
    };
    let key = key(name);
    (told(disk.winner(&key).map(|(one, _)| one)), told(disk.winner_of_procps(&key)))
}

/// What systemd-sysctl 252 and procps 4.0.2 set, each in namespaces of its own.
#[test]
fn precedence_is_that_of_both_programs() {
    const CONN: &str = "net.core.somaxconn";
    let both = |text: &str| (text.to_owned(), text.to_owned());
    let apart = |systemd: &str, procps: &str| (systemd.to_owned(), procps.to_owned());
    for (files, name, expected) in [
        // The last file by name, whatever its directory.
        (
            &[
                ("/etc/sysctl.d/a.conf", "net.core.somaxconn=1"),
                ("/usr/lib/sysctl.d/b.conf", "net.core.somaxconn=2"),
            ][..],
            CONN,
            both("2 /usr/lib/sysctl.d/b.conf:1"),
        ),
        // The first directory of one name.
        (
            &[
                ("/run/sysctl.d/a.conf", "net.core.somaxconn=2"),
                ("/etc/sysctl.d/a.conf", "\nnet.core.somaxconn=1"),
            ],
            CONN,
            both("1 /etc/sysctl.d/a.conf:2"),
        ),
        (
            &[("/run/sysctl.d/a.conf", "net.core.somaxconn=2"), ("/etc/sysctl.d/a.conf", "")],
            CONN,
            both(""),
        ),
        (
            &[
                ("/usr/lib/sysctl.d/a.conf", "net.core.somaxconn=2"),
                ("/run/sysctl.d/a.conf", "/dev/null"),
            ],
            CONN,
            both(""),
        ),
        (
            &[
                ("/usr/lib/sysctl.d/a.conf", "net.core.somaxconn=2"),
                ("/run/sysctl.d/a.conf", "nowhere"),
            ],
            CONN,
            both(""),
        ),
        // The last line.
        (
            &[("/etc/sysctl.d/a.conf", "net.core.somaxconn=1\nnet/core/somaxconn=2\n")],
            CONN,
            both("2 /etc/sysctl.d/a.conf:2"),
        ),
        // /etc/sysctl.conf and hidden files.
        (
            &[
                ("/etc/sysctl.conf", "net.core.somaxconn=11"),
                ("/etc/sysctl.d/zz.conf", "net.core.somaxconn=10"),
            ],
            CONN,
            apart("10 /etc/sysctl.d/zz.conf:1", "11 /etc/sysctl.conf:1"),
        ),
        (
            &[("/etc/sysctl.d/.z.conf", "net.core.somaxconn=99")],
            CONN,
            apart("", "99 /etc/sysctl.d/.z.conf:1"),
        ),
        // An exclusion behind an assignment.
        (
            &[("/etc/sysctl.d/a.conf", "net.core.somaxconn=5\n-net.core.somaxconn")],
            CONN,
            apart("", "5 /etc/sysctl.d/a.conf:1"),
        ),
        // A name before a pattern, wherever it stands.
        (
            &[(
                "/etc/sysctl.d/a.conf",
                "net.ipv4.conf.all.rp_filter=2\nnet.ipv4.conf.*.rp_filter=1",
            )],
            "net.ipv4.conf.all.rp_filter",
            both("2 /etc/sysctl.d/a.conf:1"),
        ),
        (
            &[("/etc/sysctl.d/a.conf", "-net.ipv4.conf.lo.rp_filter\nnet.ipv4.conf.*.rp_filter=1")],
            "net.ipv4.conf.lo.rp_filter",
            both(""),
        ),
        // A pattern does not exclude, unless it is the same one.
        (
            &[("/etc/sysctl.d/a.conf", "-net.ipv4.conf.l*.rp_filter\nnet.ipv4.conf.*.rp_filter=1")],
            "net.ipv4.conf.lo.rp_filter",
            both("1 /etc/sysctl.d/a.conf:2"),
        ),
        (
            &[("/etc/sysctl.d/a.conf", "net.ipv4.conf.*.rp_filter=1\n-net.ipv4.conf.*.rp_filter")],
            "net.ipv4.conf.lo.rp_filter",
            apart("", "1 /etc/sysctl.d/a.conf:1"),
        ),
        // Patterns: the last, and repeating one changes the order for procps alone.
        (
            &[(
                "/etc/sysctl.d/a.conf",
                "net.ipv4.conf.*.rp_filter=1\nnet.ipv4.conf.l?.rp_filter=2\nnet.ipv4.conf.*.rp_filter=1",
            )],
            "net.ipv4.conf.lo.rp_filter",
            apart("2 /etc/sysctl.d/a.conf:2", "1 /etc/sysctl.d/a.conf:3"),
        ),
    ] {
        assert_eq!(winners(&disk(files), name), expected, "{files:?}");
    }
}

#[test]
fn every_line_about_a_key_is_told_with_what_came_of_it() {
    let disk = disk(&[
        (
            "/usr/lib/sysctl.d/10.conf",
            "net.ipv4.conf.*.rp_filter = 2\n-net.ipv4.conf.lo.rp_filter\n",
        ),
        ("/etc/sysctl.d/20.conf", "net.ipv4.conf.all.rp_filter = 1"),
        ("/run/sysctl.d/20.conf", "net.ipv4.conf.all.rp_filter = 7"),
        ("/etc/sysctl.conf", "-net/ipv4/conf/all/rp_filter = 0"),
    ]);
    let told = |name: &str| -> Vec<String> {
        let mentions = disk.mentions(&key(name));
        mentions
            .iter()
            .map(|one| {
                let wins = if one.wins { " wins" } else { "" };
                let value = one.value.as_deref().unwrap_or("-");
                let note = one.note.as_deref().unwrap_or_default();
                format!("{}:{} {value}{wins} {note}", one.file, one.line)
            })
            .collect()
    };
    assert_eq!(
        told("net.ipv4.conf.all.rp_filter"),
        [
            "/usr/lib/sysctl.d/10.conf:1 2 /etc/sysctl.d/20.conf:1 names the key, which goes before a pattern",
            "/etc/sysctl.d/20.conf:1 1 wins ",
            "/run/sysctl.d/20.conf:1 7 not read: /etc/sysctl.d/20.conf masks the file",
            "/etc/sysctl.conf:1 0 read only by `sysctl --system`, after all others; wins under `sysctl --system`",
        ]
    );
    assert_eq!(
        told("net.ipv4.conf.lo.rp_filter"),
        [
            "/usr/lib/sysctl.d/10.conf:1 2 excluded by /usr/lib/sysctl.d/10.conf:2",
            "/usr/lib/sysctl.d/10.conf:2 - keeps patterns from setting it",
        ]
    );
    assert_eq!(told("net.ipv4.conf.eth0.rp_filter"), ["/usr/lib/sysctl.d/10.conf:1 2 wins "]);
    assert!(told("vm.swappiness").is_empty());
}

#[test]
fn a_failure_that_is_ignored_once_is_ignored() {
    let ignored =
        |text: &str| disk(&[("/etc/sysctl.d/a.conf", text)]).winner(&key("a.b")).unwrap().1;
    assert!(ignored("-a.b=1\na.b=1"));
    assert!(ignored("a.b=1\n-a.b=1"));
    assert!(!ignored("-a.b=1\na.b=2"));
    assert!(!ignored("-a.b=2\na.b=1"));
}

#[test]
fn a_conflict_is_one_by_meaning() {
    let conflict = |text: &str, name: &str, want: Want| {
        let disk = disk(&[("/etc/sysctl.d/a.conf", text)]);
        disk.conflict(&key(name), &want, None).map(|at| at.value)
    };
    let value = |text: &str| Want::Value(text.to_owned());
    let min = |text: &str| Want::Bounds { min: Some(text.to_owned()), max: None };
    for (text, name, want, expected) in [
        ("net.core.somaxconn = 4096", "net.core.somaxconn", value("4096"), None),
        ("net.core.somaxconn = 0x1000", "net.core.somaxconn", value("4096"), None),
        ("net.core.somaxconn = 128", "net.core.somaxconn", value("4096"), Some("128")),
        ("net.core.somaxconn = 9999", "net.core.somaxconn", min("4096"), None),
        ("net.core.somaxconn = 128", "net.core.somaxconn", min("4096"), Some("128")),
        ("net.core.somaxconn = junk", "net.core.somaxconn", min("4096"), Some("junk")),
        ("net.ipv4.tcp_rmem = 1\t2  3", "net.ipv4.tcp_rmem", value("1 2 3"), None),
        ("net.ipv4.tcp_rmem = 1", "net.ipv4.tcp_rmem", value("1 2 3"), Some("1")),
        ("a.unknown = x  y", "a.unknown", value("x y"), None),
        ("a.unknown = x", "a.unknown", value("y"), Some("x")),
        ("a.unknown = 5", "a.unknown", min("9"), None),
        ("-net.core.somaxconn", "net.core.somaxconn", value("1"), None),
        ("net.ipv4.conf.*.rp_filter = 2", "net.ipv4.conf.eth9.rp_filter", value("1"), Some("2")),
    ] {
        assert_eq!(conflict(text, name, want), expected.map(str::to_owned), "{text}");
    }
}

#[test]
fn what_cannot_be_read_or_understood_is_said() {
    let problems = |disk: Disk| -> Vec<(String, bool)> {
        disk.problems.iter().map(|one| (one.to_string(), one.unread)).collect()
    };
    let found = problems(disk(&[
        ("/etc/sysctl.d/a.conf", "a.b = 1\nnonsense\n"),
        ("/etc/sysctl.d/b.conf", "nowhere"),
        ("/run/sysctl.d/a.conf", "masked nonsense"),
        ("/etc/sysctl.d/c.conf", &"#\n".repeat(MOST_LINES)),
    ]));
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].0.starts_with("/etc/sysctl.d/a.conf:2: `nonsense` is no assignment"));
    assert!(!found[0].1);
    assert!(found[1].0.starts_with("/etc/sysctl.d/b.conf: it leads to") && found[1].1);
    assert!(found[2].0.contains("after 100000 lines") && found[2].1);
    assert!(Disk::of(None).notice.unwrap().contains("/host"));
    assert!(Disk::of(Some(Ok(Files::default()))).notice.unwrap().contains("/host"));
}

proptest! {
    #[test]
    fn whatever_the_files_hold_there_is_one_winner_at_the_most(
        texts in prop::collection::vec("([-#]?(a[./]b|a[./][*?]|a.c)( = ?[0-3])?\n){0,6}|\\PC{0,30}", 0..4),
    ) {
        let files: Vec<(String, &str)> = texts
            .iter()
            .enumerate()
            .map(|(index, text)| (format!("{}/{}.conf", DIRECTORIES[index % 4], index % 3), text.as_str()))
            .collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        let disk = disk(&files);
        for problem in &disk.problems {
            prop_assert!(!problem.to_string().contains(char::is_control));
        }
        for name in ["a.b", "a.c", "a.d"] {
            let mentions = disk.mentions(&key(name));
            let wins = mentions.iter().filter(|one| one.wins).count();
            prop_assert_eq!(wins, usize::from(disk.winner(&key(name)).is_some()));
            for one in mentions.iter().filter(|one| one.wins) {
                prop_assert!(one.value.is_some());
            }
        }
    }
}
