//! `headroom health`: for exec probes, which no port clash, TLS setting or broken `lo` can
//! confuse.

use std::time::Duration;

use headroom::serve::client;

use super::{Common, Exit, Which, fail, out};

pub fn run(which: Which, patience: Duration, common: &Common) -> Exit {
    let path = match which {
        Which::Live => "/livez?verbose",
        Which::Ready => "/readyz?verbose",
    };
    let socket = match common.socket() {
        Ok(socket) => socket,
        Err(exit) => return exit,
    };
    match client::get(&socket, path, patience) {
        Ok(response) => {
            // Reasons are escaped by the agent; what is printed must be text all the same.
            let body = String::from_utf8_lossy(&response.body);
            out(&common.format).line(body.trim_end());
            if response.status == 200 { Exit::Ok } else { Exit::Failed }
        }
        Err(error) => fail(error),
    }
}
