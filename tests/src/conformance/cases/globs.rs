//! Patterns in keys, and keys that patterns are not to touch.
//!
//! A write to `default` reaches every interface whose own value was never written
//! (`devinet_copy_dflt_conf`), so that a case which leaves an interface out leaves `default` out.

use super::super::case::{Case, Ends, Want, file, sets};
use super::super::tool::Tool::Tuned;
use super::{SOMAXCONN, SYSCTL_D, TAG_ALL, TAG_DEFAULT, TAG_DOTTED, TAG_HR0, TAG_HR1};

const GLOB: &str = "a glob(7) pattern writes the same value to all matching keys";
const EXPLICIT: &str =
    "keys for which an explicit pattern exists are excluded from any glob matching";
const EXCLUDED: &str = "a key with - before it and no = behind it is excluded from globs";
const LATER: &str = "if the same option is set again, the later entry takes precedence";
const PAGE: &str = "sysctl.d(5)";
const NO_GLOBS: &str = "has no globs and no exclusions";

/// The tags of all, default, hr0, hr1 and hr0.100.
fn tags(values: [&'static str; 5]) -> Want {
    let paths = [TAG_ALL, TAG_DEFAULT, TAG_HR0, TAG_HR1, TAG_DOTTED];
    sets(&std::array::from_fn::<_, 5, _>(|at| (paths[at], values[at]))).and_ends(Ends::Well)
}

fn of_page(name: &'static str, text: &str) -> Case {
    file(name, text).rule(PAGE, GLOB).claimed_by(SYSCTL_D).without(Tuned, NO_GLOBS)
}

fn globbed(name: &'static str, text: &str, values: [&'static str; 5]) -> Case {
    of_page(name, text).wants(tags(values))
}

pub fn globs() -> Vec<Case> {
    let explicit = |name, text, values| globbed(name, text, values).rule(PAGE, EXPLICIT);
    vec![
        globbed("every interface", "net.ipv4.conf.*.tag = 7\n", ["7"; 5]),
        globbed("every interface, in slashes", "net/ipv4/conf/*/tag = 7\n", ["7"; 5]),
        globbed("a beginning", "net.ipv4.conf.hr*.tag = 7\n", ["0", "0", "7", "7", "7"]),
        globbed("one character", "net.ipv4.conf.hr?.tag = 7\n", ["0", "0", "7", "7", "0"]),
        globbed("a range", "net.ipv4.conf.hr[1-9].tag = 7\n", ["0", "0", "0", "7", "0"]),
        globbed(
            "a dot in the interface's pattern",
            "net/ipv4/conf/hr0.*/tag = 7\n",
            ["0", "0", "0", "0", "7"],
        ),
        globbed("two stars", "net.*.conf.hr*.tag = 7\n", ["0", "0", "7", "7", "7"]),
        globbed("two stars, one interface", "net.*.*.hr1.tag = 7\n", ["0", "0", "0", "7", "0"]),
        globbed("no match is no failure", "net.ipv4.conf.nosuch*.tag = 7\n", ["0"; 5]),
        globbed(
            "two globs: the later",
            "net.ipv4.conf.*.tag = 7\nnet.ipv4.conf.hr*.tag = 8\n",
            ["7", "7", "8", "8", "8"],
        )
        .rule(PAGE, LATER),
        explicit(
            "an explicit key after the glob",
            "net.ipv4.conf.*.tag = 7\nnet.ipv4.conf.hr0.tag = 8\n",
            ["7", "7", "8", "7", "7"],
        ),
        explicit(
            "an explicit key before the glob",
            "net.ipv4.conf.hr0.tag = 8\nnet.ipv4.conf.*.tag = 7\n",
            ["7", "7", "8", "7", "7"],
        ),
        explicit(
            "an explicit key in an earlier file",
            "net.ipv4.conf.*.tag = 7\n",
            ["7", "7", "8", "7", "7"],
        )
        .file("/usr/lib/sysctl.d/10-x.conf", "net.ipv4.conf.hr0.tag = 8\n"),
        explicit(
            "an explicit key in the other form",
            "net/ipv4/conf/hr0.100/tag = 8\nnet.ipv4.conf.*.tag = 7\n",
            ["7", "7", "7", "7", "8"],
        ),
    ]
}

pub fn exclusions() -> Vec<Case> {
    let excluded = |name, text, values| globbed(name, text, values).rule(PAGE, EXCLUDED);
    let not_all = ["0", "7", "7", "7", "7"];
    let later = |name, text, value| {
        of_page(name, text)
            .before(SOMAXCONN, "4096")
            .wants(sets(&[(SOMAXCONN, value)]).and_ends(Ends::Well))
            .rule(PAGE, LATER)
    };
    vec![
        excluded("after the glob", "net.ipv4.conf.*.tag = 7\n-net.ipv4.conf.all.tag\n", not_all),
        excluded("before the glob", "-net.ipv4.conf.all.tag\nnet.ipv4.conf.*.tag = 7\n", not_all),
        excluded("in an earlier file", "net.ipv4.conf.*.tag = 7\n", not_all)
            .file("/usr/lib/sysctl.d/10-x.conf", "-net.ipv4.conf.all.tag\n"),
        excluded("in a later file", "net.ipv4.conf.*.tag = 7\n", not_all)
            .file("/usr/lib/sysctl.d/90-x.conf", "-net.ipv4.conf.all.tag\n"),
        excluded(
            "in the other form",
            "net.ipv4.conf.hr*.tag = 7\n-net/ipv4/conf/hr0.100/tag\n",
            ["0", "0", "7", "7", "0"],
        ),
        excluded(
            "two keys",
            "net.ipv4.conf.*.tag = 7\n-net.ipv4.conf.all.tag\n-net.ipv4.conf.default.tag\n",
            ["0", "0", "7", "7", "7"],
        ),
        excluded(
            "a key that the glob does not match",
            "net.ipv4.conf.hr1.tag = 7\n-net.ipv4.conf.hr0.tag\n",
            ["0", "0", "0", "7", "0"],
        ),
        example(),
        later(
            "not from a later assignment",
            "-net.core.somaxconn\nnet.core.somaxconn = 5000\n",
            "5000",
        ),
        later(
            "but from an earlier one",
            "net.core.somaxconn = 5000\n-net.core.somaxconn\n",
            "4096",
        ),
    ]
}

fn example() -> Case {
    let text = "net.ipv4.conf.default.rp_filter = 2\nnet.ipv4.conf.*.rp_filter = 2\n\
                -net.ipv4.conf.all.rp_filter\nnet.ipv4.conf.hub0.rp_filter = 1\n";
    of_page("the page's example 4", text)
        .before("net/ipv4/conf/all/rp_filter", "0")
        .wants(
            sets(&[
                ("net/ipv4/conf/all/rp_filter", "0"),
                ("net/ipv4/conf/default/rp_filter", "2"),
                ("net/ipv4/conf/hr0/rp_filter", "2"),
                ("net/ipv4/conf/hr0.100/rp_filter", "2"),
                ("net/ipv4/conf/hub0/rp_filter", "1"),
            ])
            .and_ends(Ends::Well),
        )
        .rule(PAGE, "rp_filter is 2 for all interfaces except hub0, and that of all is not set")
}
