//! What only some of them can say: bounds, alternatives, conflicts, refusals.

use super::super::case::{Case, Ends, policy, sets};
use super::super::tool::Tool::{Headroom, Tuned};
use super::{FIN_TIMEOUT, SOMAXCONN};

const DOCUMENT: &str = "docs/configuration.md";
const BOUND: &str = "a violated bound writes the bound; a value that meets it stays";
const ONCE: &str = "an error anywhere in the document: exit 2, and nothing is written";
const RMEM: &str = "net/ipv4/tcp_rmem";

pub fn cases() -> Vec<Case> {
    let mut cases = bounds();
    cases.extend(conflicts());
    cases.extend(refused());
    cases
}

fn bounds() -> Vec<Case> {
    let bound = |name, policy_text: &str, tuned: &str, before, after| {
        policy(name, format!("sysctls:\n  net.core.somaxconn: {policy_text}\n"))
            .profile(format!("net.core.somaxconn={tuned}\n"))
            .before(SOMAXCONN, before)
            .wants(sets(&[(SOMAXCONN, after)]).and_ends(Ends::Well))
            .rule(
                "docs/configuration.md; TuneD, tests/unit/plugins/test_base.py: modifiers > and <",
                BOUND,
            )
            .claimed_by(&[Headroom, Tuned])
    };
    vec![
        bound("only raise: below", "{ min: 10000 }", ">10000", "4096", "10000"),
        bound("only raise: above", "{ min: 10000 }", ">10000", "20000", "20000"),
        bound("only lower: above", "{ max: 10000 }", "<10000", "20000", "10000"),
        bound("only lower: below", "{ max: 10000 }", "<10000", "4096", "4096"),
        policy(
            "a bound for one field of three",
            "sysctls:\n  net.ipv4.tcp_rmem: { min: \"_ _ 33554432\" }\n",
        )
        .before(RMEM, "4096 131072 6291456")
        .wants(sets(&[(RMEM, "4096 131072 33554432")]).and_ends(Ends::Well))
        .rule(DOCUMENT, "bounds are compared and written field by field; _ is no bound"),
        policy(
            "one of several: a member stays",
            "sysctls:\n  net.core.somaxconn: { oneOf: [5000, 6000] }\n",
        )
        .before(SOMAXCONN, "6000")
        .wants(sets(&[(SOMAXCONN, "6000")]).and_ends(Ends::Well))
        .rule(DOCUMENT, "oneOf writes its first, where the value is none of them"),
        policy(
            "one of several: another becomes the first",
            "sysctls:\n  net.core.somaxconn: { oneOf: [5000, 6000] }\n",
        )
        .before(SOMAXCONN, "4096")
        .wants(sets(&[(SOMAXCONN, "5000")]).and_ends(Ends::Well))
        .rule(DOCUMENT, "oneOf writes its first, where the value is none of them"),
    ]
}

fn conflicts() -> Vec<Case> {
    vec![
        policy(
            "onConflict: report",
            "sysctls:\n  net.core.somaxconn: { value: 5000, onConflict: report }\n",
        )
        .before(SOMAXCONN, "4096")
        .wants(sets(&[(SOMAXCONN, "4096")]).and_ends(Ends::Well))
        .rule(DOCUMENT, "report never writes"),
        policy("mode: observe", "mode: observe\nsysctls:\n  net.core.somaxconn: 5000\n")
            .before(SOMAXCONN, "4096")
            .wants(sets(&[(SOMAXCONN, "4096")]).and_ends(Ends::Well))
            .rule(DOCUMENT, "observe never writes, and no key is required"),
    ]
}

fn refused() -> Vec<Case> {
    let refused = |name, text: &str| {
        policy(name, text)
            .before(FIN_TIMEOUT, "60")
            .wants(sets(&[(FIN_TIMEOUT, "60")]).and_ends(Ends::With(2)))
            .rule(DOCUMENT, ONCE)
    };
    vec![
        refused("an unknown field", "sysctls:\n  net.ipv4.tcp_fin_timeout: 33\nsysctl: {}\n"),
        refused(
            "the same key twice",
            "sysctls:\n  net.ipv4.tcp_fin_timeout: 33\n  net.ipv4.tcp_fin_timeout: 34\n",
        ),
        refused(
            "the same key in both forms",
            "sysctls:\n  net.ipv4.tcp_fin_timeout: 33\n  net/ipv4/tcp_fin_timeout: 34\n",
        ),
        refused(
            "a value and a bound",
            "sysctls:\n  net.ipv4.tcp_fin_timeout: { value: 33, min: 20 }\n",
        ),
        refused(
            "a bound below another",
            "sysctls:\n  net.ipv4.tcp_fin_timeout: { min: 33, max: 20 }\n",
        ),
        refused("two lines in a value", "sysctls:\n  net.ipv4.tcp_fin_timeout: \"33\\n34\"\n"),
        refused(
            "a key that acts instead of storing",
            "sysctls:\n  net.ipv4.tcp_fin_timeout: 33\n  net.ipv4.route.flush: 1\n",
        ),
        refused(
            "a key that can run code",
            "sysctls:\n  net.ipv4.tcp_fin_timeout: 33\n  kernel.core_pattern: core\n",
        ),
    ]
}
