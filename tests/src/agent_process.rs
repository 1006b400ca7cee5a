//! The real binary: a home of its own on disk, one command in it, or an agent that runs there.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Namespace;
use crate::cri::Node;

/// Far above what anything here takes: only what will never come is given up.
pub const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// The `headroom` binary: `HEADROOM_BIN`, else the one beside the test executables.
///
/// # Panics
/// Where it is not built: Cargo does not build another package's binary for a test.
#[must_use]
pub fn binary() -> PathBuf {
    let path = match std::env::var_os("HEADROOM_BIN") {
        Some(path) => PathBuf::from(path),
        // target/debug/deps/TEST
        None => std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("headroom"),
    };
    assert!(
        path.is_file(),
        "{} does not exist: run make test, or set HEADROOM_BIN",
        path.display()
    );
    path
}

/// What a command came to.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None`: killed by a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Runs a command to its end, with `input` as its standard input.
    ///
    /// # Panics
    /// Where it does not end, or panics itself.
    pub fn of(command: &mut Command, input: &[u8]) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut stdin = child.stdin.take().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (status, stdout, stderr) = thread::scope(|scope| {
            // A command need not read what it is given.
            scope.spawn(move || stdin.write_all(input));
            let (stdout, stderr) = (scope.spawn(|| text(stdout)), scope.spawn(|| text(stderr)));
            let status = wait(&mut child);
            (status, stdout.join().unwrap(), stderr.join().unwrap())
        });
        let status = status.unwrap_or_else(|| panic!("{command:?} does not end\n{stderr}"));
        assert!(!stderr.contains("panicked"), "{command:?}\n{stderr}");
        Self { code: status.code(), stdout, stderr }
    }

    /// Standard output as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn text(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `None`: it did not end, and was killed.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        thread::sleep(PAUSE / 10);
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// A configuration, a state directory, a socket and a free port, for one agent and for commands.
#[derive(Debug)]
pub struct Home<'a> {
    directory: tempfile::TempDir,
    place: Place<'a>,
    address: SocketAddr,
}

/// Where a home's programs run.
#[derive(Clone, Copy, Debug)]
enum Place<'a> {
    Host,
    Namespace(&'a Namespace),
    Node(&'a Node),
}

impl Place<'_> {
    fn enter<T: Send>(self, work: impl FnOnce() -> T + Send) -> T {
        match self {
            Self::Host => work(),
            Self::Namespace(namespace) => namespace.run(work),
            Self::Node(node) => node.enter(work),
        }
    }
}

impl<'a> Home<'a> {
    /// One whose programs run in the host's network namespace.
    #[must_use]
    pub fn new() -> Self {
        Self::at(Place::Host)
    }

    /// One whose programs run in this network namespace, where `lo` is brought up.
    #[must_use]
    pub fn inside(namespace: &'a Namespace) -> Self {
        namespace.ip(["link", "set", "lo", "up"]);
        Self::at(Place::Namespace(namespace))
    }

    /// One whose programs run on this node.
    #[must_use]
    pub fn on(node: &'a Node) -> Self {
        Self::at(Place::Node(node))
    }

    fn at(place: Place<'a>) -> Self {
        let directory = tempfile::Builder::new().prefix("headroom-test-").tempdir().unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let address = place.enter(free);
        Self { directory, place, address }
    }

    /// A path in the home.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The configuration's path.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path("config.yaml")
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The agent's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("agent.sock")
    }

    /// Where the agent listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes the configuration: `document`, and what it does not say itself of apiVersion, kind,
    /// state and server.
    pub fn configure(&self, document: &str) {
        fs::write(self.config(), self.document(document)).unwrap();
    }

    /// What [`Home::configure`] writes.
    #[must_use]
    pub fn document(&self, document: &str) -> String {
        let server = format!(
            "server: {{ listen: [\"{}\"], socket: {} }}\n",
            self.address,
            self.socket().display()
        );
        let defaults = [
            "apiVersion: headroom/v1\n".to_owned(),
            "kind: AgentConfig\n".to_owned(),
            format!("state: {}\n", self.state().display()),
            server,
        ];
        let name = |line: &str| line.split_once(':').unwrap().0.to_owned() + ":";
        let given =
            |default: &String| document.lines().any(|line| line.starts_with(&name(default)));
        let missing: String = defaults.into_iter().filter(|default| !given(default)).collect();
        missing + document
    }

    /// The binary with these arguments and `--config`; to be started with [`Home::enter`].
    #[must_use]
    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        self.wrapped(&[], args)
    }

    /// The same, started through another program, such as `setpriv`.
    #[must_use]
    pub fn wrapped<A: AsRef<OsStr>>(
        &self,
        wrapper: &[&str],
        args: impl IntoIterator<Item = A>,
    ) -> Command {
        let binary = binary();
        let mut words = wrapper.iter().map(OsStr::new).chain([binary.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(args).arg("--config").arg(self.config());
        command
    }

    /// Runs `work` where the home's programs run. What is started there stays there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.place.enter(work)
    }

    /// Runs one command to its end.
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Finished {
        let mut command = self.command(args);
        self.enter(|| Finished::of(&mut command, b""))
    }

    /// Starts an agent and waits until it is ready.
    #[must_use]
    pub fn start(&self) -> Agent<'_> {
        let mut agent = self.launch(self.command(["run"]));
        agent.wait_until("ready", Agent::is_ready);
        agent
    }

    /// Starts an agent with a command of one's own and waits for nothing.
    #[must_use]
    pub fn launch(&self, mut command: Command) -> Agent<'_> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = self.enter(|| command.spawn());
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (stderr, kept) = (child.stderr.take().unwrap(), lines.clone());
        let reader = thread::spawn(move || {
            let mut stderr = BufReader::new(stderr);
            let mut line = Vec::new();
            while stderr.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                kept.lock().unwrap().push(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
        });
        let socket = self.socket();
        Agent { home: self, child, lines, reader: Some(reader), socket, ended: None }
    }
}

impl Default for Home<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// A running agent, killed when it is dropped. A test that fails prints its log.
#[derive(Debug)]
pub struct Agent<'a> {
    home: &'a Home<'a>,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    /// Where it answers, if not where the home's configuration says.
    pub socket: PathBuf,
    ended: Option<ExitStatus>,
}

impl Agent<'_> {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A connection over TCP.
    #[must_use]
    pub fn connect(&self) -> TcpStream {
        let address = self.home.address;
        let stream = self.home.enter(|| TcpStream::connect_timeout(&address, PATIENCE));
        let stream = stream.unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// GET over TCP.
    #[must_use]
    pub fn get(&self, path: &str) -> Response {
        Response::to(self.connect(), "GET", path)
    }

    /// GET over the socket.
    #[must_use]
    pub fn ask(&self, path: &str) -> Response {
        self.try_ask(path).unwrap_or_else(|error| panic!("{}: {error}", self.socket.display()))
    }

    /// GET over the socket, where it may not be there yet.
    pub fn try_ask(&self, path: &str) -> std::io::Result<Response> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Ok(Response::to(stream, "GET", path))
    }

    /// Whether it says so, over the socket.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.try_ask("/readyz").is_ok_and(|answer| answer.status == 200)
    }

    /// What `headroom status -o json` shows.
    #[must_use]
    pub fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.ask("/status.json").body).unwrap()
    }

    /// One key's part of [`Agent::status`].
    #[must_use]
    pub fn key(&self, name: &str) -> serde_json::Value {
        let status = self.status();
        // Not known before the first pass.
        let mut keys = status["keys"].as_array().into_iter().flatten();
        keys.find(|key| key["key"] == name).cloned().unwrap_or(serde_json::Value::Null)
    }

    /// A scrape over the socket.
    #[must_use]
    pub fn metrics(&self) -> Scrape {
        let answer = self.ask("/metrics");
        assert_eq!(answer.status, 200, "{answer:?}");
        Scrape::parse(&answer.body).unwrap_or_else(|error| panic!("{error}\n{}", answer.body))
    }

    /// The lines it has logged.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The lines that have all of these in them.
    #[must_use]
    pub fn log_with(&self, parts: &[&str]) -> Vec<String> {
        self.log().into_iter().filter(|line| parts.iter().all(|part| line.contains(part))).collect()
    }

    /// Waits until something holds.
    ///
    /// # Panics
    /// Where it does not within [`PATIENCE`], or the agent ends before.
    pub fn wait_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.ended = Some(status);
                panic!("the agent ended before it was {what}: {status}");
            }
            assert!(Instant::now() < deadline, "not {what} within {PATIENCE:?}");
            thread::sleep(PAUSE);
        }
    }

    /// Waits until its socket answers.
    pub fn wait_until_it_answers(&mut self) {
        self.wait_until("answering", |agent| agent.try_ask("/livez").is_ok());
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).unwrap();
    }

    /// Kills it with SIGKILL.
    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        self.end();
    }

    /// SIGTERM; its exit code.
    ///
    /// # Panics
    /// Where it does not end by itself.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        let status = self.end();
        assert_eq!(status.signal(), None, "it was to end by itself");
        status.code()
    }

    /// Waits for it to end; its exit code.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.end().code()
    }

    fn end(&mut self) -> ExitStatus {
        let ended = self.ended.or_else(|| wait(&mut self.child));
        self.ended = ended;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        ended.unwrap_or_else(|| panic!("the agent does not end"))
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log().join("\n"));
        }
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

impl Response {
    /// Asks over a fresh connection.
    ///
    /// # Panics
    /// Where what comes back is no complete answer.
    pub fn to(mut stream: impl Read + Write, method: &str, path: &str) -> Self {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let answer = Self::read(stream).unwrap_or_else(|error| panic!("{path}: {error}"));
        let length: Option<usize> =
            answer.headers.get("content-length").map(|length| length.parse().unwrap());
        let body = if method == "HEAD" { None } else { Some(answer.body.len()) };
        assert!(body.is_none() || body == length, "{answer:?}");
        answer
    }

    /// Reads an answer up to the end of the connection.
    pub fn read(mut stream: impl Read) -> Result<Self, String> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("cut: {text:?}"))?;
        let (first, headers) = head.split_once("\r\n").unwrap_or((head, ""));
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Ok(Self {
            status: status.ok_or_else(|| format!("no status: {first:?}"))?,
            headers: headers.split("\r\n").filter_map(header).collect(),
            body: body.to_owned(),
        })
    }
}

type Labels = BTreeMap<String, String>;

/// A scrape, read more strictly than Prometheus does.
#[derive(Debug, Default)]
pub struct Scrape {
    series: BTreeMap<(String, Labels), f64>,
    kinds: BTreeMap<String, String>,
}

impl Scrape {
    /// Reads Prometheus' text format. Refused: a family without HELP or TYPE, in two places or
    /// without series; a series twice; NaN; a counter not called `_total`, or anything else that
    /// is.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut scrape = Self::default();
        if !text.ends_with('\n') {
            return Err("the last line has no end".to_owned());
        }
        let (mut family, mut kind, mut empty) = (String::new(), None, false);
        for line in text.lines() {
            let bad = |why: &str| format!("{why}: {line}");
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').ok_or_else(|| bad("no help"))?;
                if scrape.kinds.contains_key(name) || help.is_empty() || empty {
                    return Err(bad("a family twice, without help, or after one without series"));
                }
                (family, kind, empty) = (name.to_owned(), None, true);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, is) = rest.split_once(' ').ok_or_else(|| bad("no type"))?;
                let counter = name.ends_with("_total");
                if name != family || kind.is_some() || (is == "counter") != counter {
                    return Err(bad("a type in the wrong place, or that its name denies"));
                }
                kind = Some(is.to_owned());
                scrape.kinds.insert(name.to_owned(), is.to_owned());
            } else {
                let (name, labels, value) = sample(line).ok_or_else(|| bad("no sample"))?;
                let base = match kind.as_deref() {
                    Some("histogram") => ["_bucket", "_sum", "_count"]
                        .iter()
                        .find_map(|end| name.strip_suffix(end))
                        .unwrap_or(&name),
                    _ => &name,
                };
                if base != family || kind.is_none() {
                    return Err(bad("a series outside of its family"));
                }
                if value.is_nan() || (kind.as_deref() == Some("counter") && value < 0.0) {
                    return Err(bad("no value for such a series"));
                }
                if scrape.series.insert((name, labels), value).is_some() {
                    return Err(bad("a series twice"));
                }
                empty = false;
            }
        }
        Ok(scrape)
    }

    /// The value of the series with exactly these labels.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.series.get(&(name.to_owned(), labels.collect())).copied()
    }

    /// The series of a family: their labels and values.
    pub fn family<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a Labels, f64)> {
        let mine = self.series.iter().filter(move |((family, _), _)| family == name);
        mine.map(|((_, labels), value)| (labels, *value))
    }

    /// The families there are.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(String::as_str)
    }

    /// How many series there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }
}

/// `name{label="value",…} number`
fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, quoted) = rest.split_once("=\"")?;
            let (value, after) = unquote(quoted)?;
            if labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let valid = !name.is_empty() && plain(name) && labels.keys().all(|label| plain(label));
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    valid.then(|| (name.to_owned(), labels, value))
}

/// A label's value up to its closing quote, and what comes after.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other @ ('\\' | '"') => other,
                _ => return None,
            }),
            other if other.is_control() => return None,
            other => value.push(other),
        }
    }
    None
}

/// The workspace's root.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

#[cfg(test)]
mod tests {
    use super::Scrape;

    #[test]
    fn the_parser_takes_what_is_right_and_nothing_else() {
        let good = "# HELP a_total Some a.\n# TYPE a_total counter\na_total{x=\"1\",y=\"q\\\"\\\\\\n\"} 3\n\
                    a_total{x=\"2\"} 1e3\n# HELP b Some b.\n# TYPE b gauge\nb -1.5\n";
        let scrape = Scrape::parse(good).unwrap();
        assert_eq!(scrape.value("a_total", &[("x", "1"), ("y", "q\"\\\n")]), Some(3.0));
        assert_eq!(scrape.value("b", &[]), Some(-1.5));
        assert_eq!((scrape.value("a_total", &[]), scrape.len()), (None, 3));

        for (what, from, to) in [
            ("no end", "-1.5\n", "-1.5"),
            ("no help", "# HELP b Some b.\n", ""),
            ("no type", "# TYPE b gauge\n", ""),
            ("series twice", "a_total{x=\"2\"}", "a_total{y=\"q\\\"\\\\\\n\",x=\"1\"}"),
            (
                "family twice",
                "# HELP b Some b.\n# TYPE b gauge\nb",
                "# HELP a_total A.\n# TYPE a_total counter\na_total",
            ),
            ("counter by another name", "b gauge", "b counter"),
            ("a gauge called _total", "a_total counter", "a_total gauge"),
            ("not a number", "b -1.5", "b NaN"),
            ("no value", "b -1.5", "b"),
            ("label twice", "{x=\"2\"}", "{x=\"2\",x=\"3\"}"),
            ("raw control character", "{x=\"2\"}", "{x=\"\x1b\"}"),
            ("open quote", "{x=\"2\"}", "{x=\"2}"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{what}");
            assert!(Scrape::parse(&bad).is_err(), "{what}: {bad}");
        }
    }
}
