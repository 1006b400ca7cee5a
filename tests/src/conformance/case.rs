//! What a case is, and the words it is written in.

use super::tool::Tool;

/// One case of the table.
#[derive(Debug)]
pub struct Case {
    /// What is tried, in a few words.
    pub name: &'static str,
    /// The part of the table it stands in.
    pub group: &'static str,
    /// Files below the root, for every tool that reads `sysctl.d`.
    pub files: Vec<(&'static str, Content)>,
    /// TuneD's `[sysctl]` section, where it is not to read the files.
    pub profile: Option<String>,
    /// Headroom's policy, where it is not to import the files.
    pub policy: Option<String>,
    /// Values below `/proc/sys` before the tool runs.
    pub before: Vec<(&'static str, &'static str)>,
    /// More arguments for a tool.
    pub arguments: Vec<(Tool, &'static str)>,
    /// Whether `/proc/sys` is mounted read-only.
    pub read_only: bool,
    /// What the rule asks for.
    pub want: Want,
    /// The rule, in words.
    pub rule: &'static str,
    /// Where it is written.
    pub source: &'static str,
    /// Who says that it keeps this rule.
    pub claimed_by: Vec<Tool>,
    /// Other rules: who has them, what they ask for, where they are written.
    pub others: Vec<(Tool, Want, &'static str)>,
    /// Who takes no part, and why.
    pub absent: Vec<(Tool, &'static str)>,
}

/// What is at a path.
#[derive(Clone, Debug)]
pub enum Content {
    /// A file with this text.
    File(String),
    /// A symbolic link to there.
    Link(&'static str),
}

/// What a tool comes to.
#[derive(Clone, Debug, Default)]
pub struct Want {
    /// Paths below `/proc/sys` and what they hold. White space is compared as one space.
    pub values: Vec<(&'static str, &'static str)>,
    /// The exit code, if it matters.
    pub ends: Option<Ends>,
}

/// Kinds of exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// 0.
    Well,
    /// Anything else.
    Badly,
    /// Exactly this one.
    With(i32),
}

impl Ends {
    /// Whether this exit code is of this kind.
    #[must_use]
    pub fn fits(self, code: i32) -> bool {
        match self {
            Self::Well => code == 0,
            Self::Badly => code != 0,
            Self::With(wanted) => code == wanted,
        }
    }
}

/// The beginning of a [`Want`]: these values.
pub fn sets(values: &[(&'static str, &'static str)]) -> Want {
    Want { values: values.to_vec(), ends: None }
}

impl Want {
    /// And this exit code.
    pub fn and_ends(mut self, ends: Ends) -> Self {
        self.ends = Some(ends);
        self
    }
}

/// A case that is written to a file of `sysctl.d`, which everybody reads.
pub fn file(name: &'static str, text: impl Into<String>) -> Case {
    case(name).file("/etc/sysctl.d/50-case.conf", text)
}

/// A case that gives one value to one key, to each tool in its own words: a line in `sysctl.d`, a
/// line in TuneD's profile, an entry in Headroom's `sysctls`.
pub fn assignment(name: &'static str, key: &str, value: &str) -> Case {
    // A JSON string is a YAML string.
    let quoted = serde_json::Value::from(value).to_string();
    file(name, format!("{key} = {value}\n"))
        .profile(format!("{key}={value}\n"))
        .policy(format!("sysctls:\n  {}: {quoted}\n", serde_json::Value::from(key)))
}

/// A case that only Headroom's configuration can say.
pub fn policy(name: &'static str, text: impl Into<String>) -> Case {
    case(name).policy(text).claimed_by(&[Tool::Headroom])
}

/// An empty case.
pub fn case(name: &'static str) -> Case {
    Case {
        name,
        group: "",
        files: Vec::new(),
        profile: None,
        policy: None,
        before: Vec::new(),
        arguments: Vec::new(),
        read_only: false,
        want: Want::default(),
        rule: "",
        source: "",
        claimed_by: Vec::new(),
        others: Vec::new(),
        absent: Vec::new(),
    }
}

impl Case {
    /// A file below the root.
    pub fn file(mut self, path: &'static str, text: impl Into<String>) -> Self {
        self.files.push((path, Content::File(text.into())));
        self
    }

    /// A symbolic link below the root.
    pub fn link(mut self, path: &'static str, target: &'static str) -> Self {
        self.files.push((path, Content::Link(target)));
        self
    }

    /// TuneD's own way to say it.
    pub fn profile(mut self, text: impl Into<String>) -> Self {
        self.profile = Some(text.into());
        self
    }

    /// Headroom's own way to say it.
    pub fn policy(mut self, text: impl Into<String>) -> Self {
        self.policy = Some(text.into());
        self
    }

    /// A value that is there before.
    pub fn before(mut self, path: &'static str, value: &'static str) -> Self {
        self.before.push((path, value));
        self
    }

    /// One more argument for a tool.
    pub fn argument(mut self, tool: Tool, argument: &'static str) -> Self {
        self.arguments.push((tool, argument));
        self
    }

    /// `/proc/sys` is read-only.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// What must come of it.
    pub fn wants(mut self, want: Want) -> Self {
        self.want = want;
        self
    }

    /// The rule that says so, and where it is written.
    pub fn rule(mut self, source: &'static str, rule: &'static str) -> Self {
        (self.source, self.rule) = (source, rule);
        self
    }

    /// Who claims to keep it.
    pub fn claimed_by(mut self, tools: &[Tool]) -> Self {
        self.claimed_by = tools.to_vec();
        self
    }

    /// A tool that has another rule.
    pub fn other(mut self, tool: Tool, want: Want, says: &'static str) -> Self {
        self.others.push((tool, want, says));
        self
    }

    /// A tool for which this is no question.
    pub fn without(mut self, tool: Tool, why: &'static str) -> Self {
        self.absent.push((tool, why));
        self
    }

    /// All paths that some rule speaks of.
    pub(super) fn paths(&self) -> Vec<&'static str> {
        let wants = std::iter::once(&self.want).chain(self.others.iter().map(|(_, want, _)| want));
        let mut paths: Vec<_> =
            wants.flat_map(|want| &want.values).map(|(path, _)| *path).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }
}
