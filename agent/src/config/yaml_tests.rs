//! Tests of the YAML reader: each rule with its exact place and code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

/// `line:col code` of each problem.
fn codes(bytes: impl AsRef<[u8]>) -> Vec<String> {
    let place = |problem: &Problem| match problem.position {
        Some(at) => format!("{at} {}", problem.code),
        None => problem.code.to_owned(),
    };
    parse_partial(bytes.as_ref()).1.iter().map(place).collect()
}

/// A compact rendering: plain scalars bare, others in quotes, null as `∅`, positions after `@`.
fn show(node: &Node) -> String {
    let mut out = match &node.value {
        Value::Scalar { null: true, text, .. } => format!("∅{text}"),
        Value::Scalar { text, plain, .. } if *plain => text.clone(),
        Value::Scalar { text, .. } => format!("{text:?}"),
        Value::Seq(items) => {
            let items: Vec<_> = items.iter().map(show).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(entries) => {
            let entry = |(k, v): &(Node, Node)| format!("{}: {}", show(k), show(v));
            let entries: Vec<_> = entries.iter().map(entry).collect();
            format!("{{{}}}", entries.join(", "))
        }
    };
    write!(out, "@{}", node.at).unwrap();
    out
}

#[test]
fn trees() {
    let table = [
        ("a: 1\nb: 'x'\n", "{a@1:1: 1@1:4, b@2:1: \"x\"@2:4}@1:1"),
        ("é: ü\n", "{é@1:1: ü@1:4}@1:1"),
        ("\u{feff}a: 1", "{a@1:1: 1@1:4}@1:1"),
        ("a:\nb: ~\nc: null\n", "{a@1:1: ∅@1:2, b@2:1: ∅~@2:4, c@3:1: ∅null@3:4}@1:1"),
        ("- x\n-\n- - y\n", "[x@1:3, ∅@2:2, [y@3:5]@3:3]@1:1"),
        ("a:\n  b: |\n    t\n", "{a@1:1: {b@2:3: \"t\\n\"@3:5}@2:3}@1:1"),
        ("[1, {a: b}]", "[1@1:2, {a@1:6: b@1:9}@1:5]@1:1"),
        (
            "a: !!str 1\nb: !!int \"2\"\nc: !!str\n",
            "{a@1:1: \"1\"@1:10, b@2:1: 2@2:10, c@3:1: \"\"@3:9}@1:1",
        ),
        ("a: !!map\n  b: !!seq [c]\n", "{a@1:1: {b@2:3: [c@2:13]@2:12}@2:3}@1:1"),
        ("---\na: 0200\n...\n", "{a@2:1: 0200@2:4}@2:1"),
        ("%YAML 1.2\n---\na: b", "{a@3:1: b@3:4}@3:1"),
        ("a: \"\\e\\0\"", "{a@1:1: \"\\u{1b}\\0\"@1:4}@1:1"),
        ("\"<<\": 1", "{\"<<\"@1:1: 1@1:7}@1:1"),
        ("a: 1\r\nb: 2\rc: 3", "{a@1:1: 1@1:4, b@2:1: 2@2:4, c@3:1: 3@3:4}@1:1"),
    ];
    for (text, expected) in table {
        let node = parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!(show(&node), expected, "{text}");
    }
}

#[test]
fn empty_documents() {
    for text in
        ["", "\n \n", "# only\n# comments", "---\n", "--- # x\n...\n", "~", "null\n", "\u{feff}"]
    {
        assert_eq!(parse(text.as_bytes()), Ok(None), "{text}");
    }
}

#[test]
fn rules() {
    let table: &[(&[u8], &[&str])] = &[
        // Encoding and characters.
        (b"a: b\nc\xc3\xa9: \xff\n", &["2:5 invalid-utf8"]),
        (b"\xef\xbb\xbfa\xc3", &["1:2 invalid-utf8"]),
        (b"a\r\nb\rc\nd\x80", &["4:2 invalid-utf8"]),
        (b"\xff\xfea\0", &["1:1 unsupported-encoding"]),
        (b"\xfe\xff\0a", &["1:1 unsupported-encoding"]),
        (b"a\0:\0", &["1:1 unsupported-encoding"]),
        (b"\0\0\xfe\xff", &["1:3 invalid-utf8"]),
        (b"a: 1\0\nb: 2", &["1:5 syntax"]),
        (b"a: \x1b[1m", &["1:4 syntax"]),
        // Syntax.
        (b"a:\n\tb: 1\n", &["2:2 syntax"]),
        (b"a: b: c\n", &["1:5 syntax"]),
        (b"a: [1, 2\n", &["1:4 syntax"]),
        (b"a: \"x\n", &["2:1 syntax"]),
        // Anchors, aliases, merge keys.
        (b"a: &x 1\n", &["1:4 anchor-or-alias"]),
        (b"a: *x\nb: 1\n", &["1:4 anchor-or-alias"]),
        (b"&x a: 1\n*x : 2\n", &["1:1 anchor-or-alias", "2:1 anchor-or-alias"]),
        (
            b"a: &x {b: 1}\nc:\n  <<: *x\n",
            &["1:4 anchor-or-alias", "3:3 merge-key", "3:7 anchor-or-alias"],
        ),
        // Tags.
        (
            b"a: !x 1\nb: !!binary aa\nc: ! q\n",
            &["1:4 unsupported-tag", "2:4 unsupported-tag", "3:4 unsupported-tag"],
        ),
        (b"a: !!str [b]\nc: !!map d\n", &["1:4 unsupported-tag", "2:4 unsupported-tag"]),
        (b"a: !u!x 1\n", &["1:4 syntax"]),
        // Keys.
        (
            b"? [a]\n: b\n{c: d}: e\n~: f\n: g\nh: i",
            &["1:3 invalid-key", "3:1 invalid-key", "4:1 invalid-key", "5:1 invalid-key"],
        ),
        (b"a: 1\nb: 2\n'a': 3\na: 4\n", &["3:1 duplicate-key", "4:1 duplicate-key"]),
        (b"a: {b: 1, b: 2}\nc: {b: 1}\n", &["1:11 duplicate-key"]),
        // Documents.
        (b"a: 1\n---\nb: 2\n", &["2:1 multiple-documents"]),
        (b"a: 1\n...\n---\n", &["3:1 multiple-documents"]),
        // What was collected is reported together with what ended parsing.
        (
            b"a: 1\na: *x\nb: !t 1\nc: ]\n",
            &["2:1 duplicate-key", "2:4 anchor-or-alias", "3:4 unsupported-tag", "4:4 syntax"],
        ),
    ];
    for (text, expected) in table {
        assert_eq!(&codes(text), expected, "{}", String::from_utf8_lossy(text));
    }
}

#[test]
fn messages_and_paths() {
    let table = [
        (
            "s:\n  - net.core: 1\n    net.core: 2\n",
            "3:5: error[duplicate-key] s[0].\"net.core\": duplicate key, first on line 2: keep one of them",
        ),
        (
            "a: {b: [1, *x]}\n",
            "1:12: error[anchor-or-alias] a.b[1]: anchors and aliases are not supported: write the value out, and quote a pattern that begins with `*`",
        ),
        (
            "a: !<\u{1b}x> 1",
            "1:4: error[syntax] not valid YAML, while parsing a tag, did not find expected tag URI",
        ),
        (
            "a: !e%1b 1",
            "1:4: error[unsupported-tag] a: tag `!e\\u{1b}` is not supported here: write the value without it",
        ),
        ("a:\n\tb: 1\n", "2:2: error[syntax] a tab is not allowed as indentation: use spaces"),
        (
            "a: b: c",
            "1:5: error[syntax] not valid YAML, mapping values are not allowed in this context: check the indentation, or quote a text with `: `",
        ),
    ];
    for (text, expected) in table {
        let problems = parse(text.as_bytes()).unwrap_err();
        assert_eq!(problems.first().unwrap().to_string(), expected, "{text}");
    }
}

#[test]
fn the_first_of_duplicates_stays_in_the_partial_tree() {
    let (root, problems) = parse_partial(b"a: 1\na: 2\nb: [*x, 3]\nc: *x\n");
    assert_eq!(problems.len(), 3);
    assert_eq!(show(&root.unwrap()), "{a@1:1: 1@1:4, b@3:1: [3@3:9]@3:4}@1:1");
    assert_eq!(parse_partial(b"a: 1\na: ]").0, None);
}

#[test]
fn limits() {
    assert_eq!(codes(vec![b' '; MAX_BYTES]), [""; 0]);
    assert_eq!(codes(vec![b' '; MAX_BYTES + 1]), ["too-large"]);
    let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
    assert_eq!(codes(nested(64)), [""; 0]);
    assert_eq!(codes(nested(65)), ["1:65 too-deep"]);
    // Flow in block: each kind alone is within the limit.
    assert_eq!(codes("- ".repeat(40) + &nested(24)), [""; 0]);
    assert_eq!(codes("- ".repeat(40) + &nested(25)), ["1:105 too-deep"]);
    assert_eq!(codes("- a\n".repeat(MAX_NODES - 1)), [""; 0]);
    assert_eq!(codes("- a\n".repeat(MAX_NODES)), ["100000:3 too-many-nodes"]);
    let many = codes("a: 1\n".repeat(5000));
    assert_eq!(many.len(), MAX_PROBLEMS + 1);
    assert_eq!(many.last().unwrap(), "too-many-errors");
}

#[test]
fn bombs_are_refused_at_once() {
    let laughs = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n";
    assert_eq!(codes(laughs).len(), 7);
    for opener in ["[", "{", "- ", "? ", "[a: "] {
        let found = codes(opener.repeat(10_000));
        assert_eq!(found.len(), 1, "{opener}");
        assert!(found.first().unwrap().ends_with("too-deep"), "{opener}");
    }
    let spent = std::time::Instant::now();
    for line in [
        "a\n", "- *a\n", "- &a x\n", "[],", "\"", "'", "!", "&", "%A b\n", "#\n", "\t", ": ",
        "? \n",
    ] {
        let text = format!("[{}", line.repeat(MAX_BYTES / line.len() - 1));
        let _ = (parse(text.as_bytes()), parse(&text.as_bytes()[1..]));
    }
    // Seconds even in a debug build on a busy machine; anything quadratic takes hours.
    assert!(spent.elapsed().as_secs() < 60);
}

proptest! {
    #[test]
    fn any_bytes(bytes: Vec<u8>) {
        let _ = parse(&bytes);
    }

    #[test]
    fn any_yaml_like_text(text in "([a-c~<\\[\\]{},:?!&*|>'\"%#@`.\t\n \u{feff}\r\u{85}é-]|: |- |\n  |---\n|<<: |!!str |\\\\x1){0,80}") {
        let (root, problems) = parse_partial(text.as_bytes());
        prop_assert!(problems.len() <= MAX_PROBLEMS + 1);
        prop_assert!(problems.is_sorted_by_key(|p| (p.position.is_none(), p.position)));
        if let Some(root) = root {
            prop_assert!(root.at.line > 0 && root.at.column > 0);
        }
    }
}
