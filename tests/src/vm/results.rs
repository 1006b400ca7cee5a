//! What a console says: how the tests ended, and what they found out about the kernel.

use std::collections::BTreeMap;

/// How one test binary ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tests {
    /// Its name.
    pub name: String,
    /// Tests that passed, failed, and were left out.
    pub counts: [u32; 3],
    /// The names of those that failed.
    pub failed: Vec<String>,
    /// What else went wrong: it was killed, or never ended.
    pub fault: Option<String>,
}

/// What one kernel's console says.
#[derive(Debug, Default)]
pub struct Results {
    /// The test binaries, in the order in which they ran.
    pub tests: Vec<Tests>,
    /// `fact: NAME=VALUE`, as tests print them.
    pub facts: BTreeMap<String, String>,
}

impl Results {
    /// Reads a console.
    pub fn parse(console: &[String]) -> Self {
        let mut results = Self::default();
        let mut lines = Vec::new();
        for line in console {
            if let Some((name, value)) =
                line.strip_prefix("fact: ").and_then(|it| it.split_once('='))
            {
                results.facts.insert(name.to_owned(), value.to_owned());
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["@@", "begin", name] => {
                    let fault = Some("did not end".to_owned());
                    results.tests.push(Tests { name: name.to_owned(), fault, ..Tests::default() });
                    lines.clear();
                }
                ["@@", "end", _, code] => {
                    if let Some(tests) = results.tests.last_mut() {
                        tests.end(&lines, code);
                    }
                }
                _ => lines.push(line.as_str()),
            }
        }
        results
    }

    /// Adds what another console of the same kernel says about the test that ran on it.
    pub fn add(&mut self, name: &str, console: &[String]) {
        let more = Self::parse(console);
        if more.tests.is_empty() {
            let fault = Some("did not begin".to_owned());
            self.tests.push(Tests { name: name.to_owned(), fault, ..Tests::default() });
        }
        self.tests.extend(more.tests);
        self.facts.extend(more.facts);
    }

    /// Whether every test of every binary passed.
    pub fn is_good(&self) -> bool {
        let good = |tests: &Tests| tests.fault.is_none() && tests.counts[1] == 0;
        self.tests.iter().all(good)
    }
}

impl Tests {
    /// Reads the summary. A test may run another process of the same binary, with a summary of
    /// its own: the last one counts.
    fn end(&mut self, lines: &[&str], code: &str) {
        let summary = lines.iter().rposition(|line| line.starts_with("test result: "));
        let Some(summary) = summary else {
            self.fault = Some(format!("ended with {code} before its summary"));
            return;
        };
        let words: Vec<&str> = lines[summary].split_whitespace().collect();
        let count = |what: &str| {
            let at = words.iter().position(|word| word.trim_end_matches(';') == what)?;
            words.get(at.checked_sub(1)?)?.parse().ok()
        };
        self.counts = ["passed", "failed", "ignored"].map(|what| count(what).unwrap_or(0));
        self.fault = None;
        if self.counts[1] > 0 {
            let before = &lines[..summary];
            let start = before.iter().rposition(|line| *line == "failures:").unwrap_or(summary);
            let names = lines[start..summary].iter().filter_map(|line| line.strip_prefix("    "));
            self.failed = names.map(str::to_owned).collect();
        } else if code != "0" {
            self.fault = Some(format!("ended with {code}"));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::Results;

    const CONSOLE: &str = "\
noise
@@ kernel 6.1.0
@@ begin a
test one ... 
running 1 test
test helper ... ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out
ok
test two ... FAILED

failures:

---- two stdout ----
    not a name
fact: default of a.b=1 2=3

failures:
    two

test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out
@@ end a 101
@@ begin b
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out
@@ end b 0
@@ begin c
@@ end c 137
@@ begin d";

    #[test]
    fn a_console_is_read_whatever_children_print_into_it() {
        let lines: Vec<String> = CONSOLE.lines().map(str::to_owned).collect();
        let results = Results::parse(&lines);
        assert_eq!(results.facts["default of a.b"], "1 2=3");
        let [a, b, c, d] = &results.tests[..] else { panic!("{results:?}") };
        assert_eq!((a.counts, &a.failed[..]), ([1, 1, 2], &["two".to_owned()][..]));
        assert_eq!((b.counts, &b.fault), ([3, 0, 0], &None));
        assert_eq!(c.fault.as_deref(), Some("ended with 137 before its summary"));
        assert_eq!(d.fault.as_deref(), Some("did not end"));
        assert!(!results.is_good());

        let good = ["@@ begin b", "test result: ok. 1 passed; 0 failed;", "@@ end b 0"];
        let mut results = Results::parse(&good.map(str::to_owned));
        assert!(results.is_good());
        results.add("c", &["noise".to_owned()]);
        assert_eq!(results.tests[1].fault.as_deref(), Some("did not begin"));
        assert!(!results.is_good());
    }
}
