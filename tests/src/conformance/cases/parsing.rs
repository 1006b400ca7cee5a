//! How a file of `sysctl.d` is read.

use super::super::case::{Case, Ends, file, sets};
use super::super::tool::Tool::{Headroom, Procps, Systemd};
use super::{EVERYONE, FILES, FIN_TIMEOUT, SOMAXCONN, SYSCTL_D};

const SPACE: &str = "white space before and after a token or value is ignored";
const COMMENTS: &str = "lines whose first non-white-space character is # or ; are ignored";
const CONF: &str = "sysctl.conf(5)";
const BOTH: &str = "sysctl.d(5), sysctl.conf(5)";
const RMEM: &str = "net/ipv4/tcp_rmem";

pub fn cases() -> Vec<Case> {
    let mut cases = white_space();
    cases.extend(lines());
    cases
}

fn white_space() -> Vec<Case> {
    let five = || sets(&[(SOMAXCONN, "5000")]).and_ends(Ends::Well);
    let vector = || sets(&[(RMEM, "4096 131072 7000000")]).and_ends(Ends::Well);
    vec![
        file("no spaces", "net.core.somaxconn=5000\n")
            .wants(five())
            .rule(CONF, SPACE)
            .claimed_by(EVERYONE),
        file("spaces around everything", "   net.core.somaxconn   =   5000   \n")
            .wants(five())
            .rule(CONF, SPACE)
            .claimed_by(EVERYONE),
        file("tabs around everything", "\tnet.core.somaxconn\t=\t5000\t\n")
            .wants(five())
            .rule(CONF, SPACE)
            .claimed_by(EVERYONE),
        file("CRLF line ends", "# windows\r\nnet.core.somaxconn = 5000\r\n")
            .wants(five())
            .rule(CONF, SPACE)
            .claimed_by(FILES),
        file("no line end after the last line", "net.core.somaxconn = 5000")
            .wants(five())
            .rule(BOTH, "assignments are separated by newlines: the last needs none")
            .claimed_by(EVERYONE),
        file(
            "4500 spaces before a value",
            format!("net.core.somaxconn = {}5000\n", " ".repeat(4500)),
        )
        .wants(five())
        .rule(CONF, "white space is ignored; a value may have 4096 characters")
        .claimed_by(FILES),
        file("a value with spaces", "net.ipv4.tcp_rmem = 4096 131072 7000000\n")
            .wants(vector())
            .rule(CONF, "a value can contain white space within")
            .claimed_by(EVERYONE),
        file("a value with tabs and many spaces", "net.ipv4.tcp_rmem = 4096\t131072    7000000\n")
            .wants(vector())
            .rule(CONF, "a value can contain white space within")
            .claimed_by(EVERYONE),
    ]
}

fn lines() -> Vec<Case> {
    let two = || sets(&[(SOMAXCONN, "5000"), (FIN_TIMEOUT, "33")]);
    let between =
        |line: &str| format!("net.core.somaxconn = 5000\n{line}\nnet.ipv4.tcp_fin_timeout = 33\n");
    vec![
        file("comments", "# net.core.somaxconn = 1\n; net.core.somaxconn = 2\nnet.core.somaxconn = 5000\n#net.core.somaxconn = 3\n;net.core.somaxconn = 4\n")
            .wants(sets(&[(SOMAXCONN, "5000")]).and_ends(Ends::Well))
            .rule(BOTH, COMMENTS)
            .claimed_by(EVERYONE),
        file("comments after white space", "net.core.somaxconn = 5000\n   # net.core.somaxconn = 1\n\t; net.core.somaxconn = 2\n")
            .wants(sets(&[(SOMAXCONN, "5000")]).and_ends(Ends::Well))
            .rule("sysctl.d(5)", COMMENTS)
            .claimed_by(SYSCTL_D),
        file("empty lines", "\n\n   \nnet.core.somaxconn = 5000\n\t\n\n")
            .wants(sets(&[(SOMAXCONN, "5000")]).and_ends(Ends::Well))
            .rule(BOTH, "empty lines are ignored")
            .claimed_by(EVERYONE),
        file("a comment of 6000 characters", between(&format!("# {}", "x".repeat(6000))))
            .wants(two().and_ends(Ends::Well))
            .rule(BOTH, COMMENTS)
            .claimed_by(FILES),
        file("a file without lines", "")
            .file("/etc/sysctl.d/60-case.conf", "net.core.somaxconn = 5000\n")
            .wants(sets(&[(SOMAXCONN, "5000")]).and_ends(Ends::Well))
            .rule(BOTH, "there is nothing in it to apply")
            .claimed_by(EVERYONE),
        file("the same key twice", "net.core.somaxconn = 5000\nnet.core.somaxconn = 6000\n")
            .wants(sets(&[(SOMAXCONN, "6000")]).and_ends(Ends::Well))
            .rule(BOTH, "assignments are made in the order they are read: the last is in force")
            .claimed_by(EVERYONE),
        file("a line that is no assignment", between("net.ipv4.tcp_keepalive_time 600"))
            .wants(two())
            .rule("sysctl.d(5)", "an error ends nothing: the other variables are processed")
            .claimed_by(SYSCTL_D),
        file("an assignment without a key", between("= 600"))
            .wants(two())
            .rule("sysctl.d(5)", "an error ends nothing: the other variables are processed")
            .claimed_by(SYSCTL_D),
        file("- before a key", "-net.core.somaxconn = 5000\n")
            .wants(sets(&[(SOMAXCONN, "5000")]).and_ends(Ends::Well))
            .rule(BOTH, "a line that begins with a single - is applied, and its failure ignored")
            .claimed_by(FILES),
        file("- before a key that does not exist", between("-net.ipv4.no_such_key = 1"))
            .wants(two().and_ends(Ends::Well))
            .rule(BOTH, "a line that begins with a single - is applied, and its failure ignored")
            .claimed_by(FILES),
        file("an empty value", "net.ipv4.ip_local_reserved_ports =\n")
            .before("net/ipv4/ip_local_reserved_ports", "8080")
            .wants(sets(&[("net/ipv4/ip_local_reserved_ports", "")]))
            .rule("kernel: networking/ip-sysctl, ip_local_reserved_ports", "the list may be empty, which is its default")
            .claimed_by(SYSCTL_D),
        file("a comment after a value", "net.core.somaxconn = 5000 # connections\n")
            .before(SOMAXCONN, "4096")
            .wants(sets(&[(SOMAXCONN, "4096")]))
            .rule("docs/configuration.md", "a number with trailing text is refused (import leaves it out and says so): the kernel would take the number and drop the text")
            .claimed_by(&[Headroom])
            .other(Systemd, sets(&[(SOMAXCONN, "5000")]), "sysctl.d(5): only whole lines are comments; the value is written as it stands")
            .other(Procps, sets(&[(SOMAXCONN, "5000")]), "sysctl.conf(5): only whole lines are comments; the value is written as it stands"),
    ]
}
