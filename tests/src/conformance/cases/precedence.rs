//! Which file and which line wins.

use super::super::case::{Case, Ends, case, file, sets};
use super::super::tool::Tool::{Procps, Tuned};
use super::{EVERYONE, FILES, FIN_TIMEOUT, SOMAXCONN, SYSCTL_D};

const DIRECTORIES: &str = "files in /etc override files of the same name in /run, /usr/local/lib \
                           and /usr/lib; those in /run override those under /usr";
const ORDER: &str = "files are sorted by name, whatever their directory; the entry in the last one \
                     takes precedence";
const PAGES: &str = "sysctl.d(5), sysctl(8)";
const REAPPLY: &str = "tuned-main.conf, reapply_sysctl: /run/sysctl.d, /etc/sysctl.d and \
                       /etc/sysctl.conf are read, in this order";

const A: &str = "net.core.somaxconn = 5001\n";
const B: &str = "net.core.somaxconn = 5002\n";

pub fn cases() -> Vec<Case> {
    let mut cases = directories();
    cases.extend(order());
    cases.extend(masks());
    cases.extend(which_files());
    cases
}

fn directories() -> Vec<Case> {
    let first = || sets(&[(SOMAXCONN, "5001")]).and_ends(Ends::Well);
    vec![
        case("/etc before /run, same name")
            .file("/etc/sysctl.d/50-x.conf", A)
            .file("/run/sysctl.d/50-x.conf", B)
            .wants(first())
            .rule(PAGES, DIRECTORIES)
            .claimed_by(FILES)
            .other(Tuned, sets(&[(SOMAXCONN, "5002")]), REAPPLY),
        case("/run before /usr/lib, same name")
            .file("/run/sysctl.d/50-x.conf", A)
            .file("/usr/lib/sysctl.d/50-x.conf", B)
            .wants(first())
            .rule(PAGES, DIRECTORIES)
            .claimed_by(FILES),
        case("/run before /usr/local/lib, same name")
            .file("/run/sysctl.d/50-x.conf", A)
            .file("/usr/local/lib/sysctl.d/50-x.conf", B)
            .wants(first())
            .rule(PAGES, DIRECTORIES)
            .claimed_by(FILES),
        case("/usr/local/lib before /usr/lib, same name")
            .file("/usr/local/lib/sysctl.d/50-x.conf", A)
            .file("/usr/lib/sysctl.d/50-x.conf", B)
            .wants(first())
            .rule(PAGES, DIRECTORIES)
            .claimed_by(FILES)
            .without(Tuned, "reads nothing under /usr"),
        case("the overridden file is not read at all")
            .before(FIN_TIMEOUT, "60")
            .file("/etc/sysctl.d/50-x.conf", A)
            .file("/usr/lib/sysctl.d/50-x.conf", "net.ipv4.tcp_fin_timeout = 33\n")
            .wants(sets(&[(SOMAXCONN, "5001"), (FIN_TIMEOUT, "60")]).and_ends(Ends::Well))
            .rule(PAGES, "a file of the same name replaces the other completely")
            .claimed_by(FILES),
    ]
}

fn order() -> Vec<Case> {
    let second = || sets(&[(SOMAXCONN, "5002")]).and_ends(Ends::Well);
    vec![
        case("a later name in the same directory")
            .file("/etc/sysctl.d/10-x.conf", A)
            .file("/etc/sysctl.d/20-x.conf", B)
            .wants(second())
            .rule(PAGES, ORDER)
            .claimed_by(EVERYONE),
        case("a later name in a directory that counts less")
            .file("/etc/sysctl.d/10-x.conf", A)
            .file("/usr/lib/sysctl.d/90-x.conf", B)
            .wants(second())
            .rule(PAGES, ORDER)
            .claimed_by(FILES)
            .without(Tuned, "reads nothing under /usr"),
        case("/run with a later name than /etc")
            .file("/etc/sysctl.d/10-x.conf", A)
            .file("/run/sysctl.d/90-x.conf", B)
            .wants(second())
            .rule(PAGES, ORDER)
            .claimed_by(FILES),
        case("/etc with a later name than /run")
            .file("/run/sysctl.d/10-x.conf", A)
            .file("/etc/sysctl.d/90-x.conf", B)
            .wants(second())
            .rule(PAGES, ORDER)
            .claimed_by(EVERYONE),
        case("by letters, not by numbers: 10 comes before 9")
            .file("/etc/sysctl.d/10-x.conf", A)
            .file("/etc/sysctl.d/9-x.conf", B)
            .wants(second())
            .rule(PAGES, ORDER)
            .claimed_by(FILES),
        case("upper case comes before lower case")
            .file("/etc/sysctl.d/Z.conf", A)
            .file("/etc/sysctl.d/a.conf", B)
            .wants(second())
            .rule(PAGES, ORDER)
            .claimed_by(FILES),
    ]
}

fn masks() -> Vec<Case> {
    let other =
        |case: Case| case.file("/usr/lib/sysctl.d/60-y.conf", "net.ipv4.tcp_fin_timeout = 33\n");
    let masked = || sets(&[(SOMAXCONN, "4096"), (FIN_TIMEOUT, "33")]).and_ends(Ends::Well);
    vec![
        other(case("a link to /dev/null masks"))
            .before(SOMAXCONN, "4096")
            .file("/usr/lib/sysctl.d/50-x.conf", A)
            .link("/etc/sysctl.d/50-x.conf", "/dev/null")
            .wants(masked())
            .rule(
                "sysctl.d(5)",
                "a link to /dev/null in /etc disables the vendor's file of that name",
            )
            .claimed_by(FILES)
            .without(Tuned, "reads nothing under /usr"),
        other(case("a link to /dev/null in /run masks"))
            .before(SOMAXCONN, "4096")
            .file("/usr/lib/sysctl.d/50-x.conf", A)
            .link("/run/sysctl.d/50-x.conf", "/dev/null")
            .wants(masked())
            .rule("sysctl.d(5)", "files in /run override files of the same name under /usr")
            .claimed_by(FILES)
            .without(Tuned, "reads nothing under /usr"),
        other(case("an empty file masks"))
            .before(SOMAXCONN, "4096")
            .file("/usr/lib/sysctl.d/50-x.conf", A)
            .file("/etc/sysctl.d/50-x.conf", "")
            .wants(masked())
            .rule(PAGES, "a file of the same name replaces the other completely")
            .claimed_by(FILES)
            .without(Tuned, "reads nothing under /usr"),
        case("a mask in /etc for a file in /run")
            .before(SOMAXCONN, "4096")
            .file("/run/sysctl.d/50-x.conf", A)
            .link("/etc/sysctl.d/50-x.conf", "/dev/null")
            .wants(sets(&[(SOMAXCONN, "4096")]).and_ends(Ends::Well))
            .rule(PAGES, DIRECTORIES)
            .claimed_by(FILES)
            .other(Tuned, sets(&[(SOMAXCONN, "5001")]), REAPPLY),
    ]
}

fn which_files() -> Vec<Case> {
    vec![
        case("/etc/sysctl.conf alone")
            .before(SOMAXCONN, "4096")
            .file("/etc/sysctl.conf", A)
            .wants(sets(&[(SOMAXCONN, "4096")]).and_ends(Ends::Well))
            .rule("sysctl.d(5)", "the directories sysctl.d are read, and nothing else")
            .claimed_by(SYSCTL_D)
            .other(
                Procps,
                sets(&[(SOMAXCONN, "5001")]),
                "sysctl(8), SYSTEM FILE PRECEDENCE: /etc/sysctl.conf is the last file read",
            )
            .other(Tuned, sets(&[(SOMAXCONN, "5001")]), REAPPLY),
        case("/etc/sysctl.conf against /etc/sysctl.d")
            .file("/etc/sysctl.conf", B)
            .file("/etc/sysctl.d/99-zz.conf", A)
            .wants(sets(&[(SOMAXCONN, "5001")]).and_ends(Ends::Well))
            .rule("sysctl.d(5)", "the directories sysctl.d are read, and nothing else")
            .claimed_by(SYSCTL_D)
            .other(
                Procps,
                sets(&[(SOMAXCONN, "5002")]),
                "sysctl(8), SYSTEM FILE PRECEDENCE: /etc/sysctl.conf is the last file read",
            )
            .other(Tuned, sets(&[(SOMAXCONN, "5002")]), REAPPLY),
        case("Debian's link 99-sysctl.conf to /etc/sysctl.conf")
            .file("/etc/sysctl.conf", B)
            .link("/etc/sysctl.d/99-sysctl.conf", "../sysctl.conf")
            .file("/etc/sysctl.d/50-x.conf", A)
            .wants(sets(&[(SOMAXCONN, "5002")]).and_ends(Ends::Well))
            .rule(PAGES, ORDER)
            .claimed_by(EVERYONE),
        file("only names that end in .conf", A)
            .file("/etc/sysctl.d/90-x", B)
            .file("/etc/sysctl.d/91-x.conf.bak", B)
            .file("/etc/sysctl.d/92-x.conf~", B)
            .file("/etc/sysctl.d/README.sysctl", B)
            .wants(sets(&[(SOMAXCONN, "5001")]).and_ends(Ends::Well))
            .rule(PAGES, "files must have the extension .conf")
            .claimed_by(EVERYONE),
        file("nothing below a directory in sysctl.d", A)
            .file("/etc/sysctl.d/60-x/60-x.conf", B)
            .wants(sets(&[(SOMAXCONN, "5001")]).and_ends(Ends::Well))
            .rule(PAGES, "/etc/sysctl.d/*.conf is read, and nothing deeper")
            .claimed_by(EVERYONE),
    ]
}
