#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> (String, Option<String>, bool) {
    let line = line(text.as_bytes()).unwrap().unwrap();
    let target = match line.target {
        Target::Key(key) => key.to_string(),
        Target::Pattern(pattern) => format!("pattern {pattern}"),
    };
    (target, line.value, line.ignore_failure)
}

/// `sysctl.d(5)`, and what systemd-sysctl 252 did with the same lines.
#[test]
fn lines_mean_what_systemd_makes_of_them() {
    for (text, target, value, ignore) in [
        ("vm.swappiness=10", "vm.swappiness", Some("10"), false),
        ("  vm.swappiness  =  10  \r", "vm.swappiness", Some("10"), false),
        ("vm/swappiness = 10", "vm.swappiness", Some("10"), false),
        ("-vm.swappiness = 10", "vm.swappiness", Some("10"), true),
        (" - vm.swappiness = 10", "vm.swappiness", Some("10"), true),
        ("-vm.swappiness", "vm.swappiness", None, false),
        ("kernel.domainname = a=b c", "kernel.domainname", Some("a=b c"), false),
        ("vm.swappiness =", "vm.swappiness", Some(""), false),
        ("net.ipv4.tcp_rmem = 1\t2  3", "net.ipv4.tcp_rmem", Some("1\t2  3"), false),
        ("net.ipv4.conf.e0/1.x = 1", "net.ipv4.conf.e0/1.x", Some("1"), false),
        ("net/ipv4/conf/e0.1/x = 1", "net.ipv4.conf.e0/1.x", Some("1"), false),
        ("net.ipv4.conf.*.x = 1", "pattern net.ipv4.conf.*.x", Some("1"), false),
        ("net/ipv4/conf/e?.1/x = 1", "pattern net.ipv4.conf.e?/1.x", Some("1"), false),
        ("-net.ipv4.conf.all.x", "net.ipv4.conf.all.x", None, false),
        // There are no comments behind a value.
        ("vm.swappiness = 10 # ten", "vm.swappiness", Some("10 # ten"), false),
    ] {
        let expected = (target.to_owned(), value.map(str::to_owned), ignore);
        assert_eq!(read(text), expected, "{text}");
    }
    for text in ["", "   ", "# x = 1", "; x = 1", "  # x"] {
        assert_eq!(line(text.as_bytes()), None, "{text}");
    }
}

/// Decision 0006: what systemd mends is read as it reads it, and said.
#[test]
fn other_spellings_are_read_and_said() {
    for text in ["net..core.somaxconn=1", "/net/core/somaxconn=1", "net/./core//somaxconn/=1"] {
        let line = line(text.as_bytes()).unwrap().unwrap();
        assert_eq!(line.target, Target::Key(Key::parse("net.core.somaxconn").unwrap()), "{text}");
        assert!(line.odd.unwrap().contains("net.core.somaxconn"), "{text}");
    }
}

#[test]
fn what_is_no_assignment_is_told() {
    for (text, part) in [
        (&b"vm.swappiness"[..], "no assignment"),
        (b"vm.swappiness 10", "no assignment"),
        (b"\xef\xbb\xbf# a comment", "no assignment"),
        (b"= 7", "no key"),
        (b"-", "no key"),
        (b"-= 7", "no key"),
        (b"swappiness = 1", "at least two components"),
        (b"a.b/c = 1\x1b", "control characters"),
        (b"vm.x = \xff", "no text"),
        (b"vm.\xff = 1", "printable"),
        (b"vm.a b = 1", "printable"),
        (b"net/../vm/x = 1", "lead elsewhere"),
        (b"net.ipv4.{a,b}.* = 1", "braces"),
        (b"/proc/sys/net/core/x = 1", "write net/core/x"),
    ] {
        let error = line(text).unwrap().unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn lines_end_where_systemd_ends_them() {
    for (text, expected) in [
        (&b""[..], &[][..]),
        (b"a", &["a"]),
        (b"a\n", &["a"]),
        (b"a\r\nb\r\n", &["a", "b"]),
        (b"a\n\nb", &["a", "", "b"]),
        (b"a\rb", &["a", "b"]),
        (b"a\0b\n", &["a", "b"]),
        (b"a\n\rb", &["a", "b"]),
        (b"\n\n", &["", ""]),
    ] {
        let found: Vec<_> = lines(text).map(|line| std::str::from_utf8(line).unwrap()).collect();
        assert_eq!(found, expected, "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_line_is_misread_as_another_key(name in "[a-c./*-]{1,20}", value in "[ -~]{0,20}") {
        if let Some(Ok(line)) = line(format!("{name}={value}").as_bytes()) {
            prop_assert_eq!(line.value.as_deref(), Some(value.trim()));
            if let Target::Key(key) = &line.target {
                prop_assert!(key.path().is_relative());
                // The canonical spelling is read as the same key, and is not odd.
                let again = super::line(format!("{key}={value}").as_bytes());
                if !key.as_str().starts_with('-') {
                    let again = again.unwrap().unwrap();
                    prop_assert_eq!(&again.target, &line.target);
                    prop_assert_eq!(again.odd, None);
                }
            }
        }
    }

    #[test]
    fn problems_are_printable(bytes: Vec<u8>) {
        for piece in lines(&bytes) {
            match line(piece) {
                Some(Err(error)) => prop_assert!(!error.contains(char::is_control)),
                Some(Ok(line)) => {
                    prop_assert!(!line.odd.unwrap_or_default().contains(char::is_control));
                }
                None => {}
            }
        }
    }
}
