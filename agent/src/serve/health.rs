//! `/livez`, `/readyz`, `/healthz`: in form and wording as the Kubernetes API server answers
//! (`staging/src/k8s.io/apiserver/pkg/server/healthz/healthz.go`).

use std::fmt::Write as _;

use crate::node::Check;

/// An answer: whether the checks passed, and the text.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200 or 500.
    pub status: u16,
    /// Plain text.
    pub body: String,
}

/// Answers for all checks of an endpoint.
///
/// `reveal`: reasons are told to those on the socket, and withheld from those on the network.
#[must_use]
pub fn answer(endpoint: &str, checks: &[Check], query: &Query, reveal: bool) -> Answer {
    let mut text = String::new();
    let mut failed = false;
    for Check { name, result } in checks {
        // Writing to a String cannot fail.
        let _ = match result {
            _ if query.excluded.iter().any(|excluded| excluded == name) => {
                writeln!(text, "[+]{name} excluded: ok")
            }
            Ok(()) => writeln!(text, "[+]{name} ok"),
            Err(reason) => {
                failed = true;
                let reason = if reveal { reason.as_str() } else { "reason withheld" };
                writeln!(text, "[-]{name} failed: {reason}")
            }
        };
    }
    let unknown: Vec<String> = query
        .excluded
        .iter()
        .filter(|excluded| !checks.iter().any(|check| check.name == excluded.as_str()))
        .map(|excluded| format!("{excluded:?}"))
        .collect();
    if !unknown.is_empty() {
        let names = unknown.join(",");
        let _ =
            writeln!(text, "warn: some health checks cannot be excluded: no matches for {names}");
    }
    if failed {
        return Answer { status: 500, body: format!("{text}{endpoint} check failed\n") };
    }
    let body =
        if query.verbose { format!("{text}{endpoint} check passed\n") } else { "ok".to_owned() };
    Answer { status: 200, body }
}

/// Answers for one check; `None` if there is none of that name.
#[must_use]
pub fn answer_one(checks: &[Check], name: &str, reveal: bool) -> Option<Answer> {
    let check = checks.iter().find(|check| check.name == name)?;
    Some(match &check.result {
        Ok(()) => Answer { status: 200, body: "ok".to_owned() },
        Err(reason) => {
            let reason = if reveal { reason.as_str() } else { "reason withheld" };
            Answer { status: 500, body: format!("internal server error: {reason}\n") }
        }
    })
}

/// What a query asks for: `verbose` and `exclude=NAME`, each as often as one likes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query {
    verbose: bool,
    excluded: Vec<String>,
}

impl Query {
    /// Reads a query string. Anything else in it is ignored, as there.
    #[must_use]
    pub fn parse(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut query = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                "verbose" => query.verbose = true,
                // A set, so that nothing is told twice.
                "exclude" if query.excluded.contains(&value) => {}
                "exclude" => query.excluded.push(value),
                _ => {}
            }
        }
        query
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks() -> Vec<Check> {
        vec![
            Check { name: "ping", result: Ok(()) },
            Check { name: "config", result: Err("no such file".to_owned()) },
        ]
    }

    fn query(text: &[(&str, &str)]) -> Query {
        Query::parse(text.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn ask(checks: &[Check], pairs: &[(&str, &str)], reveal: bool) -> (u16, String) {
        let Answer { status, body } = answer("readyz", checks, &query(pairs), reveal);
        (status, body)
    }

    #[test]
    fn the_api_servers_words() {
        let good = &checks()[..1];
        assert_eq!(ask(good, &[], false), (200, "ok".into()));
        assert_eq!(
            ask(good, &[("verbose", "")], false),
            (200, "[+]ping ok\nreadyz check passed\n".into())
        );
        assert_eq!(
            ask(&checks(), &[], false),
            (500, "[+]ping ok\n[-]config failed: reason withheld\nreadyz check failed\n".into())
        );
        assert_eq!(
            ask(&checks(), &[], true),
            (500, "[+]ping ok\n[-]config failed: no such file\nreadyz check failed\n".into())
        );
        assert_eq!(ask(&checks(), &[("exclude", "config")], false), (200, "ok".into()));
        assert_eq!(
            ask(&checks(), &[("verbose", "1"), ("exclude", "config"), ("exclude", "a\x1b\"b")], false),
            (200, "[+]ping ok\n[+]config excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"a\\u{1b}\\\"b\"\nreadyz check passed\n".into())
        );
    }

    /// Upstream holds the names in a set and joins them with a bare comma (`formatQuoted`).
    #[test]
    fn unknown_exclusions_are_named_once_each() {
        let pairs = [("verbose", ""), ("exclude", "b"), ("exclude", "a"), ("exclude", "b")];
        assert_eq!(
            ask(&checks()[..1], &pairs, false),
            (200, "[+]ping ok\nwarn: some health checks cannot be excluded: no matches for \"b\",\"a\"\nreadyz check passed\n".into())
        );
    }

    #[test]
    fn one_check_by_name() {
        assert_eq!(answer_one(&checks(), "ping", false).map(|a| a.status), Some(200));
        assert_eq!(
            answer_one(&checks(), "config", false).map(|a| a.body),
            Some("internal server error: reason withheld\n".into())
        );
        assert_eq!(answer_one(&checks(), "nothing", false), None);
    }
}
