//! All that the tests' pods run, built by `rustc` alone into one static program, the only file of
//! the tests' image: its first argument says which.

use std::ffi::c_int;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::thread::{park, sleep};
use std::time::Duration;

unsafe extern "C" {
    fn listen(socket: c_int, backlog: c_int) -> c_int;
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["pause"] => wait_forever(),
        ["print", keys @ ..] => print(keys),
        ["serve", port, backlog] => serve(number(port), number(backlog), None),
        ["serve", port, backlog, seconds] => {
            serve(number(port), number(backlog), Some(Duration::from_secs(number(seconds))));
        }
        _ => panic!("pause | print KEY... | serve PORT BACKLOG [SECONDS], not {args:?}"),
    }
}

fn number<N: std::str::FromStr>(text: &str) -> N {
    text.parse().unwrap_or_else(|_| panic!("not a number that fits: {text}"))
}

fn wait_forever() -> ! {
    loop {
        park();
    }
}

/// What files below `/proc/sys` hold, a line each.
fn print(keys: &[&str]) {
    let values = keys.iter().map(|key| {
        let text = std::fs::read_to_string(format!("/proc/sys/{key}"));
        text.map_or_else(|error| format!("{error}\n"), |text| text)
    });
    std::io::stdout().write_all(values.collect::<String>().as_bytes()).unwrap();
}

/// Listens with this backlog and is too busy to accept anything, for so long or forever. Programs
/// ask for what their language's library asks for: Go for the system's somaxconn, Java for 50,
/// nginx and Node.js for 511; the kernel gives them somaxconn at most.
fn serve(port: u16, backlog: c_int, busy: Option<Duration>) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    // The library's own choice, unless it is made again.
    // SAFETY: it is given a descriptor and a number.
    assert_eq!(unsafe { listen(listener.as_raw_fd(), backlog) }, 0);
    println!("listening");
    let Some(busy) = busy else { wait_forever() };
    sleep(busy);
    for stream in listener.incoming() {
        drop(stream);
    }
}
