//! How keys may be written.

use super::super::case::{Case, Ends, assignment, file, sets};
use super::super::tool::Tool::{Headroom, Systemd};
use super::{EVERYONE, FILES, SOMAXCONN, SYSCTL_D, TAG_DOTTED, TAG_HR0};

const SEPARATORS: &str = "if the first separator is a slash, remaining slashes and dots are left \
                          intact; if it is a dot, dots and slashes are interchanged";
const STRICT: &str = "one spelling a key: separators are not repeated and do not come first, no \
                      component is . or ..; all else is refused before anything is written";
const DECISION: &str = "docs/decisions/0006";

pub fn cases() -> Vec<Case> {
    let mut cases = separators();
    cases.extend(refused());
    cases
}

fn separators() -> Vec<Case> {
    vec![
        assignment("dots separate", "net.core.somaxconn", "5000")
            .wants(sets(&[(SOMAXCONN, "5000")]).and_ends(Ends::Well))
            .rule("sysctl.d(5)", SEPARATORS)
            .claimed_by(EVERYONE),
        assignment("slashes separate", "net/core/somaxconn", "5000")
            .wants(sets(&[(SOMAXCONN, "5000")]).and_ends(Ends::Well))
            .rule("sysctl.d(5)", SEPARATORS)
            .claimed_by(EVERYONE),
        assignment("an interface with a dot, slash form", "net/ipv4/conf/hr0.100/tag", "7")
            .wants(sets(&[(TAG_DOTTED, "7"), (TAG_HR0, "0")]).and_ends(Ends::Well))
            .rule("sysctl.d(5)", SEPARATORS)
            .claimed_by(SYSCTL_D),
        assignment("an interface with a dot, dot form", "net.ipv4.conf.hr0/100.tag", "7")
            .wants(sets(&[(TAG_DOTTED, "7"), (TAG_HR0, "0")]).and_ends(Ends::Well))
            .rule(
                "sysctl.d(5); TuneD's plugin documentation: “key is the same as the key name \
                 provided by the sysctl utility”, which prints this form",
                SEPARATORS,
            )
            .claimed_by(EVERYONE),
        file(
            "both forms of one key: the later line",
            "net.core.somaxconn = 5000\nnet/core/somaxconn = 6000\n",
        )
        .wants(sets(&[(SOMAXCONN, "6000")]))
        .rule("sysctl.d(5)", "the two forms are equivalent; the later entry takes precedence")
        .claimed_by(FILES),
        file(
            "both forms of one key, other way round",
            "net/core/somaxconn = 5000\nnet.core.somaxconn = 6000\n",
        )
        .wants(sets(&[(SOMAXCONN, "6000")]))
        .rule("sysctl.d(5)", "the two forms are equivalent; the later entry takes precedence")
        .claimed_by(FILES),
        file("upper case is another key", "NET.CORE.SOMAXCONN = 5000\n")
            .before(SOMAXCONN, "4096")
            .wants(sets(&[(SOMAXCONN, "4096")]))
            .rule("proc(5)", "the names below /proc/sys are file names, and case matters")
            .claimed_by(EVERYONE),
    ]
}

fn refused() -> Vec<Case> {
    let spellings = [
        ("a trailing separator", "net.core.somaxconn."),
        ("up and down again", "net/ipv4/../core/somaxconn"),
        ("out of /proc/sys and back", "net/../../../proc/sys/net/core/somaxconn"),
        ("a dot as a component", "net/./core/somaxconn"),
        ("up, in dots", "net.ipv4.//.core.somaxconn"),
    ];
    // What systemd's own test of sysctl_normalize asks for.
    let collapsed = [
        ("a leading dot", ".net.core.somaxconn"),
        ("a leading slash", "/net/core/somaxconn"),
        ("repeated dots", "net..core..somaxconn"),
        ("repeated slashes", "net//core//somaxconn"),
    ];
    let case = |(name, key)| {
        assignment(name, key, "5000")
            .before(SOMAXCONN, "4096")
            .wants(sets(&[(SOMAXCONN, "4096")]).and_ends(Ends::Badly))
            .rule(DECISION, STRICT)
            .claimed_by(&[Headroom])
    };
    let collapses = |case: Case| {
        let set = sets(&[(SOMAXCONN, "5000")]).and_ends(Ends::Well);
        case.other(Systemd, set, "systemd, src/test/test-sysctl-util.c: separators collapse")
    };
    // Below /proc/sys there is no proc.
    let missing = sets(&[(SOMAXCONN, "4096")]).and_ends(Ends::Well);
    let whole = case(("the whole path", "/proc/sys/net/core/somaxconn")).other(
        Systemd,
        missing,
        "sysctl.d(5): a key that does not exist does not cause failure",
    );
    let collapsed = collapsed.map(case).into_iter().map(collapses);
    spellings.map(case).into_iter().chain(collapsed).chain([whole]).collect()
}
