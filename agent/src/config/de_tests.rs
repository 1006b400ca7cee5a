//! Tests of reading types: each rule with its exact place, and everything wrong at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fmt::Debug;

use proptest::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::yaml;
use super::*;

#[derive(Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Config {
    interval: Option<Interval>,
    mode: Mode,
    dry_run: bool,
    sysctls: BTreeMap<Spanned<String>, Sysctl>,
    nodes: Vec<Spanned<Node>>,
    pair: (u8, i64),
    ratio: f64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Mode {
    #[default]
    Observe,
    Enforce,
    Off,
}

#[derive(Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Sysctl {
    min: Option<u64>,
    max: Spanned<Option<i32>>,
    value: Option<RawScalar>,
}

/// Has required fields.
#[derive(Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Node {
    name: String,
    weight: u8,
}

/// Reports its own errors.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
struct Interval(u64);

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let seconds = text.strip_suffix('s').and_then(|n| n.parse().ok());
        let error = || D::Error::custom(format!("{text} is no interval: write one such as 10s"));
        seconds.map(Interval).ok_or_else(error)
    }
}

fn read<T: DeserializeOwned>(text: &str) -> (Option<T>, Vec<Problem>) {
    match yaml::parse(text.as_bytes()).unwrap() {
        Some(root) => from_node(&root),
        None => panic!("empty document"),
    }
}

/// `line:col code path` of each problem.
fn codes<T: DeserializeOwned>(text: &str) -> Vec<String> {
    let show = |p: &Problem| match p.position {
        Some(at) => format!("{at} {} {}", p.code, p.path),
        None => p.code.to_owned(),
    };
    read::<T>(text).1.iter().map(show).collect()
}

/// Reads `v: TEXT` for a type, or the message.
fn one<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let (value, problems) = read::<BTreeMap<String, T>>(&format!("v: {text}"));
    match problems.first() {
        None => Ok(value.unwrap().remove("v").unwrap()),
        Some(problem) => Err(format!("{}: {}", problem.code, problem.message)),
    }
}

#[test]
fn reads_a_whole_document() {
    let text = "interval: 10s\nmode: off\ndryRun: true\nsysctls:\n  net.core.somaxconn: {min: 5, max: -7, value: 0200}\n  b:\n    max: ~\nnodes:\n- name: 12\n  weight: 3\npair: [1, -2]\nratio: 1.5\n";
    let (config, problems) = read::<Config>(text);
    assert_eq!(problems, []);
    let config = config.unwrap();
    assert_eq!(config.interval, Some(Interval(10)));
    assert_eq!((config.mode, config.dry_run), (Mode::Off, true));
    assert_eq!((config.pair, config.ratio), ((1, -2), 1.5));
    let (key, sysctl) = config.sysctls.get_key_value("net.core.somaxconn").unwrap();
    assert_eq!(key.at, Position::new(5, 3));
    assert_eq!((sysctl.min, sysctl.max.value), (Some(5), Some(-7)));
    assert_eq!(sysctl.max.at, Position::new(5, 37));
    assert_eq!(sysctl.value, Some(RawScalar { text: "0200".to_owned(), plain: true }));
    let node = config.nodes.first().unwrap();
    assert_eq!((node.at, node.name.as_str()), (Position::new(9, 3), "12"));
}

#[test]
fn nothing_is_empty_or_absent() {
    let text = "sysctls:\nnodes: ~\ninterval: null\n";
    assert_eq!(read::<Config>(text), (Some(Config::default()), vec![]));
    let (config, problems) = read::<Config>("sysctls:\n  a:\n");
    assert_eq!(problems, []);
    assert_eq!(config.unwrap().sysctls.get("a"), Some(&Sysctl::default()));
    assert_eq!(codes::<Config>("mode:\n"), ["1:5 invalid-type mode"]);
    assert_eq!(codes::<Config>("dryRun: ~\n"), ["1:9 invalid-type dryRun"]);
}

/// The golden test: what an operator sees for a document with everything wrong.
#[test]
fn many_errors_at_once() {
    let text = "\
interval: soon
mode: enforced
dryrun: true
dryRun: yes
sysctls:
  net.core.somaxconn:
    mni: 5
    min: 0755
    max: 3000000000
    value: [1]
  \"\\e[2J\": {min: \"5\"}
  b: 7
nodes:
- {name: a, weight: 1}
- {name: b, weight: 300}
- {name: c}
- {nam: d, weight: 1}
- {}
- e
pair: [1, 2, 3]
";
    let (config, problems) = read::<Config>(text);
    let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let expected = [
        "1:11: error[invalid-value] interval: soon is no interval: write one such as 10s",
        "2:7: error[unknown-variant] mode: unknown value `enforced`: did you mean `enforce`? known values: `observe`, `enforce`, `off`",
        "3:1: error[unknown-field] dryrun: unknown field `dryrun`: did you mean `dryRun`? known fields: `interval`, `mode`, `dryRun`, `sysctls`, `nodes`, `pair`, `ratio`",
        "4:9: error[invalid-type] dryRun: expected `true` or `false`, found `yes`: write `true`",
        "7:5: error[unknown-field] sysctls.\"net.core.somaxconn\".mni: unknown field `mni`: did you mean `min`? known fields: `min`, `max`, `value`",
        "8:10: error[invalid-type] sysctls.\"net.core.somaxconn\".min: expected an integer, found `0755`: a leading zero means octal to some readers, write plain decimal",
        "9:10: error[out-of-range] sysctls.\"net.core.somaxconn\".max: 3000000000 is out of range: write -2147483648 to 2147483647",
        "10:12: error[invalid-type] sysctls.\"net.core.somaxconn\".value: expected a value, found a list",
        "11:18: error[invalid-type] sysctls.\"\\u{1b}[2J\".min: expected an integer, found the string \"5\": remove the quotes",
        "12:6: error[invalid-type] sysctls.b: expected a map, found `7`: write `key: value` lines",
        "15:21: error[out-of-range] nodes[1].weight: 300 is out of range: write 0 to 255",
        "16:3: error[missing-field] nodes[2]: field `weight` is missing: add it",
        "17:4: error[unknown-field] nodes[3].nam: unknown field `nam`: did you mean `name`? known fields: `name`, `weight`",
        "18:3: error[missing-field] nodes[4]: field `name` is missing: add it",
        "19:3: error[invalid-type] nodes[5]: expected a map, found `e`: write `key: value` lines",
        "20:7: error[invalid-length] pair: expected a list of 2, found 3 entries",
    ];
    assert_eq!(shown, expected);
    let config = config.unwrap();
    assert_eq!((config.nodes.len(), config.sysctls.len()), (1, 2));
}

#[test]
fn scalars() {
    fn ok<T: DeserializeOwned + PartialEq + Debug>(text: &str, value: T) {
        assert_eq!(one::<T>(text), Ok(value), "{text}");
    }
    ok("0", 0u8);
    ok("-9223372036854775808", i64::MIN);
    ok("18446744073709551615", u64::MAX);
    ok("340282366920938463463374607431768211455", u128::MAX);
    ok("true", true);
    ok("false", false);
    ok("-1.5e3", -1500.0);
    ok("7", 7.0f32);
    ok("x", 'x');
    ok("010", "010".to_owned());
    ok("true", "true".to_owned());
    ok("\"~\"", "~".to_owned());
    ok("\"off\"", Mode::Off);
    ok("~", ());
    ok("[1, 2]", [1, 2]);
    ok("12", Some(12));
}

#[test]
fn refused_integers() {
    let table = [
        ("0755", ": a leading zero means octal to some readers, write plain decimal"),
        ("-0", ": a leading zero means octal to some readers, write plain decimal"),
        ("0x10", ": only decimal is accepted, convert it"),
        ("0o17", ": only decimal is accepted, convert it"),
        ("-0b1", ": only decimal is accepted, convert it"),
        ("1_000", ": digits are not grouped, remove the `_`"),
        ("+5", ": remove the `+`"),
        ("1e3", ": write a whole number in digits only"),
        ("1.0", ": write a whole number in digits only"),
        ("1Gi", ": write a whole number in digits only"),
        ("many", ""),
        (".5", ""),
        ("٣", ""),
    ];
    for (text, advice) in table {
        let expected = format!("invalid-type: expected an integer, found `{text}`{advice}");
        assert_eq!(one::<i64>(text), Err(expected));
    }
    let quoted = "invalid-type: expected an integer, found the string \"5\": remove the quotes";
    assert_eq!(one::<u8>("'5'"), Err(quoted.to_owned()));
    let range = "out-of-range: -1 is out of range: write 0 to 255";
    assert_eq!(one::<u8>("-1"), Err(range.to_owned()));
    let nothing =
        "invalid-type: expected an integer, found nothing: write a value or leave the entry out";
    assert_eq!(one::<u8>("null"), Err(nothing.to_owned()));
}

#[test]
fn refused_booleans_and_others() {
    for (text, advice) in [
        ("yes", ": write `true`"),
        ("True", ": write `true`"),
        ("ON", ": write `true`"),
        ("no", ": write `false`"),
        ("off", ": write `false`"),
        ("1", ""),
    ] {
        let expected = format!("invalid-type: expected `true` or `false`, found `{text}`{advice}");
        assert_eq!(one::<bool>(text), Err(expected));
    }
    let table: [(Result<(), String>, &str); 8] = [
        (
            one::<bool>("'true'").map(drop),
            "invalid-type: expected `true` or `false`, found the string \"true\": remove the quotes",
        ),
        (one::<f64>(".inf").map(drop), "invalid-type: expected a number, found `.inf`"),
        (one::<f64>("inf").map(drop), "invalid-type: expected a number, found `inf`"),
        (
            one::<f64>("'1'").map(drop),
            "invalid-type: expected a number, found the string \"1\": remove the quotes",
        ),
        (one::<String>("[a]").map(drop), "invalid-type: expected a string, found a list"),
        (one::<Vec<u8>>("a").map(drop), "invalid-type: expected a list, found `a`"),
        (
            one::<Mode>("{enforce: 1}").map(drop),
            "invalid-type: expected one of `observe`, `enforce`, `off`, found a map",
        ),
        (
            one::<char>("\"\\e\\e\"").map(drop),
            "invalid-value: expected a character, found `\\u{1b}\\u{1b}`",
        ),
    ];
    for (result, expected) in table {
        assert_eq!(result, Err(expected.to_owned()));
    }
}

#[test]
fn untyped_values() {
    let text = "{a: 1, b: -1, c: 018, d: 'true', e: true, f: ~, g: [yes], h: 1.5, i: {j: k}}";
    let expected = serde_json::json!({
        "a": 1, "b": -1, "c": "018", "d": "true", "e": true, "f": null, "g": ["yes"], "h": "1.5",
        "i": {"j": "k"},
    });
    assert_eq!(one::<serde_json::Value>(text), Ok(expected));
}

#[test]
fn the_root_can_be_the_culprit() {
    assert_eq!(codes::<Config>("- a\n"), ["1:1 invalid-type "]);
    assert_eq!(codes::<Node>("weight: 1\n"), ["1:1 missing-field "]);
    assert_eq!(
        codes::<Node>("weight: x\nname: [a]\n"),
        ["1:9 invalid-type weight", "2:7 invalid-type name"]
    );
}

/// A field that was left out because of its error, or for being misspelled, is not missing too.
#[test]
fn consequences_are_not_reported() {
    let (nodes, problems) = read::<Vec<Node>>("- {name: a, weight: x}\n- {nmae: b, weight: 1}\n");
    assert_eq!((nodes.unwrap().len(), problems.len()), (0, 2));
    // But one that has nothing to do with it is.
    assert_eq!(
        codes::<Vec<Node>>("- {other: a, weight: x}\n"),
        ["1:3 missing-field [0]", "1:4 unknown-field [0].other", "1:22 invalid-type [0].weight"]
    );

    #[derive(Debug, Deserialize)]
    #[serde(try_from = "BTreeMap<String, u8>")]
    struct Both;
    impl TryFrom<BTreeMap<String, u8>> for Both {
        type Error = &'static str;
        fn try_from(map: BTreeMap<String, u8>) -> Result<Self, Self::Error> {
            map.contains_key("a").then_some(Both).ok_or("a is needed")
        }
    }
    assert_eq!(
        codes::<Vec<Both>>("- {b: 1}\n- {a: x}\n- {b: x}\n"),
        ["1:3 invalid-value [0]", "2:7 invalid-type [1].a", "3:7 invalid-type [2].b"]
    );
}

#[test]
fn gives_up_after_many() {
    let text = "- x\n".repeat(MAX_PROBLEMS);
    let (value, problems) = read::<Vec<u8>>(&text);
    assert_eq!((value, problems.len()), (Some(vec![]), MAX_PROBLEMS));
    let found = codes::<Vec<u8>>(&(text + "- x\n"));
    assert_eq!(found.len(), MAX_PROBLEMS + 1);
    assert_eq!(found.last().unwrap(), "too-many-errors");
    // The most expensive document: as large as can be, and read as often as can be.
    let text = "- 1\n".repeat(yaml::MAX_NODES - 201) + &"- x\n".repeat(200);
    assert_eq!(codes::<Vec<u8>>(&text).len(), MAX_PROBLEMS + 1);
}

#[test]
fn other_deserializers_read_spanned_and_raw() {
    let json =
        r#"{"sysctls": {"a": {"max": 3, "value": "07"}, "b": {"value": 7}, "c": {"value": true}}}"#;
    let config: Config = serde_json::from_str(json).unwrap();
    let key = config.sysctls.keys().next().unwrap();
    assert_eq!((key.at, key.value.as_str()), (Position::default(), "a"));
    let raw: Vec<_> = config.sysctls.values().map(|s| s.value.clone().unwrap()).collect();
    let raw: Vec<_> = raw.iter().map(|raw| (raw.text.as_str(), raw.plain)).collect();
    assert_eq!(raw, [("07", false), ("7", true), ("true", true)]);
    let written = serde_json::to_value(&config).unwrap();
    let a = serde_json::json!({"min": null, "max": 3, "value": "07"});
    assert_eq!(written.pointer("/sysctls/a"), Some(&a));
}

#[test]
fn schemas_are_those_of_the_values() {
    assert_eq!(
        schemars::schema_for!(BTreeMap<Spanned<String>, Spanned<u8>>),
        schemars::schema_for!(BTreeMap<String, u8>)
    );
    let raw = serde_json::to_value(schemars::schema_for!(RawScalar)).unwrap();
    let types = serde_json::json!(["string", "integer", "boolean"]);
    assert_eq!(raw.get("type"), Some(&types));
}

const VALID: &str = "interval: 10s\nmode: off\nsysctls:\n  net.core.somaxconn: {min: 5, max: -7, value: 0200}\n  b:\n    max: ~\nnodes:\n- name: \"é\"\n  weight: 3\npair: [1, -2]\n";

/// What must hold for any document.
fn check(bytes: &[u8]) {
    let Some(root) = yaml::parse_partial(bytes).0 else {
        return;
    };
    let (config, problems) = from_node::<Config>(&root);
    assert!(config.is_some() || !problems.is_empty());
    assert!(problems.len() <= MAX_PROBLEMS + 1);
    let mut seen = HashSet::new();
    for problem in &problems {
        let shown = problem.to_string();
        assert!(!shown.contains(['\n', '\u{1b}']));
        assert!(seen.insert(shown), "twice: {problem}");
    }
    let _ = from_node::<serde_json::Value>(&root);
    let _ = from_node::<Node>(&root);
}

proptest! {
    #[test]
    fn any_bytes(bytes: Vec<u8>) {
        check(&bytes);
    }

    #[test]
    fn mutated_documents(edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4usize, "[ -~\n\té]{0,3}"), 1..6)) {
        let mut text: Vec<char> = VALID.chars().collect();
        for (at, removed, added) in edits {
            let start = at.index(text.len() + 1);
            let end = (start + removed).min(text.len());
            text.splice(start..end, added.chars());
        }
        check(text.iter().collect::<String>().as_bytes());
    }
}
