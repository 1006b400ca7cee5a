//! Tests of problems: how they look and that nothing foreign gets out unescaped.

use proptest::prelude::*;

use super::*;

#[test]
fn display_leaves_out_what_is_absent() {
    let bare = Problem::error("too-large", "the document is too large");
    assert_eq!(bare.to_string(), "error[too-large] the document is too large");
    let full = Problem::warning("odd", "x").at(Position::new(3, 7)).path("a.b");
    assert_eq!(full.to_string(), "3:7: warning[odd] a.b: x");
}

#[test]
fn located_in_a_file_with_or_without_a_place() {
    let bare = Problem::error("unreadable", "x");
    assert_eq!(bare.located("a.yaml"), "a.yaml: error[unreadable] x");
    let full = Problem::warning("odd", "x").at(Position::new(3, 7)).path("a.b");
    assert_eq!(full.located("a.yaml"), "a.yaml:3:7: warning[odd] a.b: x");
}

#[test]
fn serializes_in_camel_case() {
    let problem = Problem::error("a-b", "m").at(Position::new(1, 2)).path("p");
    let expected = r#"{"severity":"error","code":"a-b","position":{"line":1,"column":2},"path":"p","message":"m"}"#;
    assert_eq!(serde_json::to_string(&problem).ok().as_deref(), Some(expected));
}

#[test]
fn collected_in_document_order_with_the_unplaced_last() {
    let at = |line, code| Problem::error(code, "").at(Position::new(line, 1));
    let mut problems = Problems::new();
    problems.push(Problem::error("whole", ""));
    problems.push(at(9, "c"));
    problems.push(at(2, "a"));
    problems.extend([at(9, "d"), at(2, "b")]);
    let codes: Vec<_> = problems.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, ["a", "b", "c", "d", "whole"]);
    assert!(problems.has_errors());
    let warnings = Problems::from(vec![Problem::warning("w", "")]);
    assert!(!warnings.has_errors());
}

#[test]
fn escapes() {
    let table: &[(&[u8], &str)] = &[
        (b"net.core", "net.core"),
        ("größe 値".as_bytes(), "größe 値"),
        (b"a\nb\tc\r", "a\\nb\\tc\\r"),
        (b"\x1b[31m", "\\u{1b}[31m"),
        ("\u{202e}x\u{2066}".as_bytes(), "\\u{202e}x\\u{2066}"),
        ("\u{200b}\u{feff}\u{3164}".as_bytes(), "\\u{200b}\\u{feff}\\u{3164}"),
        ("e\u{301}".as_bytes(), "e\\u{301}"),
        (b"\"`\\", "\\\"\\`\\\\"),
        (b"a\xffb\xc3", "a\\xffb\\xc3"),
    ];
    for (text, expected) in table {
        assert_eq!(&escape(text), expected);
    }
}

#[test]
fn cuts_between_escapes() {
    assert_eq!(escape("x".repeat(80)), "x".repeat(80));
    assert_eq!(escape("x".repeat(81)), "x".repeat(80) + "…");
    assert_eq!(escape("x".repeat(79) + "\n!"), "x".repeat(79) + "…");
}

#[test]
fn messages_keep_what_was_escaped_before() {
    let message = format!("bad `{}`\u{1b}", escape("\u{1b}\\".to_owned() + &"x".repeat(99)));
    let problem = Problem::error("c", message);
    assert!(problem.message.starts_with("bad `\\u{1b}\\\\xxx"));
    assert!(problem.message.ends_with("x…`\\u{1b}"));
}

#[test]
fn paths() {
    let mut path = String::new();
    push_key(&mut path, "sysctls");
    push_key(&mut path, "net.core.somaxconn");
    push_index(&mut path, 3);
    push_key(&mut path, "a\"\n");
    push_key(&mut path, "");
    assert_eq!(path, r#"sysctls."net.core.somaxconn"[3]."a\"\n"."""#);
}

#[test]
fn suggestions() {
    let known = ["min", "max", "priority", "é"];
    let table = [
        ("mni", Some("min")),
        ("mx", Some("max")),
        ("priorty", Some("priority")),
        ("prioritä", Some("priority")),
        ("something", None),
        ("xy", None),
        ("", None),
    ];
    for (text, expected) in table {
        assert_eq!(did_you_mean(text, &known), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn escaped_text_is_short_printable_and_stays_as_it_is(bytes: Vec<u8>) {
        let shown = escape(&bytes);
        prop_assert!(shown.chars().count() <= 81);
        prop_assert_eq!(printable(&shown, MAX_MESSAGE), shown);
    }
}
