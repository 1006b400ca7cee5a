#![allow(clippy::unwrap_used)]

use super::*;
use crate::sysctl::value::Shape;

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

#[test]
fn an_original_is_never_overwritten_by_our_own_value() {
    let directory = tempfile::tempdir().unwrap();
    let somaxconn = key("net.core.somaxconn");
    let (mut ledger, notice) = Ledger::open(directory.path(), "boot");
    assert_eq!(notice, None);
    ledger.intend(&somaxconn, "4096", "10000");
    ledger.save().unwrap();
    // Died here; the value is written, the read-back is not on record.
    let (mut ledger, _) = Ledger::open(directory.path(), "boot");
    assert!(ledger.get(&somaxconn).unwrap().still_ours(Shape::Ints(1), false, "10000"));
    ledger.intend(&somaxconn, "10000", "12000");
    ledger.stored(&somaxconn, "12000", "12000", false);
    ledger.save().unwrap();
    let (ledger, _) = Ledger::open(directory.path(), "boot");
    let record = ledger.get(&somaxconn).unwrap();
    assert_eq!(record.original, "4096");
    assert!(record.still_ours(Shape::Ints(1), false, "12000"));
    assert!(!record.still_ours(Shape::Ints(1), false, "10000"), "somebody else's now");
}

#[test]
fn another_boot_starts_anew() {
    let directory = tempfile::tempdir().unwrap();
    let (mut ledger, _) = Ledger::open(directory.path(), "one");
    ledger.intend(&key("vm.swappiness"), "60", "10");
    ledger.save().unwrap();
    let (ledger, notice) = Ledger::open(directory.path(), "two");
    assert!(ledger.is_empty() && notice.is_none());
}

/// Fault 40.
#[test]
fn fault_40_a_ledger_that_makes_no_sense_is_said_and_put_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.json");
    for content in [
        &b""[..],
        b"{",
        b"\xff\xff",
        b"{\"version\":1}",
        b"[]",
        b"{\"version\":1,\"bootId\":\"b\",\"keys\":{\"a.b\":7}}",
    ] {
        std::fs::write(&path, content).unwrap();
        let (mut ledger, notice) = Ledger::open(directory.path(), "b");
        assert!(matches!(notice, Some(Notice::Corrupt { .. })), "{content:?}");
        assert!(directory.path().join("ledger.unreadable").exists());
        ledger.intend(&key("vm.swappiness"), "60", "10");
        ledger.save().unwrap();
    }
    let future = br#"{"version":2,"bootId":"b","keys":{},"more":true}"#;
    std::fs::write(&path, future).unwrap();
    let (mut ledger, notice) = Ledger::open(directory.path(), "b");
    assert!(matches!(notice, Some(Notice::Future { version: 2, .. })));
    ledger.intend(&key("vm.swappiness"), "60", "10");
    ledger.save().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), future, "left alone");
}

#[test]
fn a_sibling_record_becomes_a_key_of_its_own_when_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let (mut ledger, _) = Ledger::open(directory.path(), "b");
    ledger.sibling(&key("vm.dirty_bytes"), "0", &key("vm.dirty_ratio"), None);
    ledger.intend(&key("vm.dirty_bytes"), "4096", "8192");
    let record = ledger.get(&key("vm.dirty_bytes")).unwrap();
    assert_eq!((record.original.as_str(), record.sibling_of.as_deref()), ("0", None));
}

/// Fault 39: a new target is on record, and the agent dies before it is written.
#[test]
fn fault_39_a_crash_after_a_change_of_policy_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let swappiness = key("vm.swappiness");
    let (mut ledger, _) = Ledger::open(directory.path(), "b");
    ledger.intend(&swappiness, "60", "50");
    ledger.stored(&swappiness, "50", "50", false);
    ledger.intend(&swappiness, "50", "40");
    ledger.save().unwrap();
    let (ledger, _) = Ledger::open(directory.path(), "b");
    let record = ledger.get(&swappiness).unwrap();
    for (now, ours) in [("50", true), ("40", true), ("30", false)] {
        assert_eq!(record.still_ours(Shape::Ints(1), false, now), ours, "{now}");
    }
}

#[test]
fn what_the_kernel_refused_is_not_ours() {
    let directory = tempfile::tempdir().unwrap();
    let (mut ledger, _) = Ledger::open(directory.path(), "b");
    let (forward, sibling) = (key("net.ipv4.ip_forward"), key("net.ipv4.conf.all.forwarding"));
    ledger.intend(&forward, "0", "1");
    ledger.sibling(&sibling, "0", &forward, Some("1"));
    ledger.refused(&forward);
    assert!(ledger.is_empty(), "never changed, so nothing is on record");
    ledger.intend(&forward, "0", "1");
    ledger.stored(&forward, "1", "1", false);
    ledger.intend(&forward, "1", "2");
    ledger.refused(&forward);
    let record = ledger.get(&forward).unwrap();
    assert!(record.still_ours(Shape::Ints(1), false, "1"));
    assert!(!record.still_ours(Shape::Ints(1), false, "2"));
}

#[test]
fn fault_40_a_ledger_that_cannot_be_read_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.json");
    std::fs::write(&path, vec![b' '; 17 << 20]).unwrap();
    let (mut ledger, notice) = Ledger::open(directory.path(), "b");
    assert!(matches!(notice, Some(Notice::File(_))));
    ledger.intend(&key("vm.swappiness"), "60", "10");
    ledger.save().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 17 << 20);
}

#[test]
fn what_another_writer_took_over_stays_theirs_and_keeps_its_original() {
    let directory = tempfile::tempdir().unwrap();
    let swappiness = key("vm.swappiness");
    let (mut ledger, _) = Ledger::open(directory.path(), "b");
    ledger.intend(&swappiness, "60", "10");
    ledger.stored(&swappiness, "10", "10", false);
    ledger.disown(&swappiness);
    let theirs = ledger.get(&swappiness).unwrap();
    assert!(!theirs.still_ours(Shape::Ints(1), false, "10"), "chosen by them now");
    ledger.intend(&swappiness, "10", "20");
    ledger.stored(&swappiness, "20", "20", false);
    let ours = ledger.get(&swappiness).unwrap();
    assert_eq!(ours.original, "60");
    assert!(ours.still_ours(Shape::Ints(1), false, "20"));
}

/// Fault 39: the agent dies after its write, and its successor, which wants something else, before.
#[test]
fn fault_39_two_crashes_in_a_row_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let swappiness = key("vm.swappiness");
    let open = || Ledger::open(directory.path(), "b").0;
    for (now, intended) in [("60", "50"), ("50", "40"), ("40", "30"), ("40", "20")] {
        let mut ledger = open();
        ledger.intend(&swappiness, now, intended);
        ledger.save().unwrap();
    }
    let ledger = open();
    let record = ledger.get(&swappiness).unwrap();
    assert_eq!(record.original, "60");
    for (now, ours) in [("40", true), ("20", true), ("50", false), ("30", false)] {
        assert_eq!(record.still_ours(Shape::Ints(1), false, now), ours, "{now}");
    }
    // What another writer has put there since is not made ours by the intention to overwrite it.
    let mut ledger = open();
    ledger.intend(&swappiness, "77", "10");
    assert!(!ledger.get(&swappiness).unwrap().still_ours(Shape::Ints(1), false, "77"));
}

/// A refusal may end one day, and the agent may die right then.
#[test]
fn fault_39_what_was_refused_once_is_ours_when_it_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let (mut ledger, _) = Ledger::open(directory.path(), "b");
    let swappiness = key("vm.swappiness");
    ledger.intend(&swappiness, "60", "10");
    ledger.stored(&swappiness, "10", "10", false);
    ledger.intend(&swappiness, "10", "20");
    ledger.refused(&swappiness);
    ledger.intend(&swappiness, "10", "20");
    let record = ledger.get(&swappiness).unwrap();
    for (now, ours) in [("10", true), ("20", true), ("30", false)] {
        assert_eq!(record.still_ours(Shape::Ints(1), false, now), ours, "{now}");
    }
}

/// What was on record of one interface does not go to another one that has its name by now.
#[test]
fn fault_11_a_record_goes_with_its_interface_whatever_has_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let (mut ledger, _) = Ledger::open(directory.path(), "b");
    let tag = |name: &str| key(&format!("net/ipv4/conf/{name}/tag"));
    for (name, original) in [("a", "1"), ("b.1", "2"), ("c", "3"), ("all", "4")] {
        ledger.intend(&tag(name), original, "7");
    }
    ledger.identify(|name| {
        ["", "", "a", "b.1", "c"].iter().position(|it| *it == name).map(|at| at as u32)
    });
    let gone = ledger.follow(|index| match index {
        2 => Some("b.1".to_owned()),
        3 => Some("a".to_owned()),
        _ => None,
    });
    let original = |name: &str| ledger.get(&tag(name)).map(|record| record.original.as_str());
    assert_eq!(["a", "b.1", "c", "all"].map(original), [Some("2"), Some("1"), None, Some("4")]);
    assert_eq!(gone.iter().map(|(key, _)| key).collect::<Vec<_>>(), [&tag("c")]);
}
