//! IPVS: virtual services and their destinations, as `/proc/net/ip_vs` lists them.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use super::super::errno::{Access, FileError, of_io};
use super::Family;

/// How many there are of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// Virtual services. One by firewall mark has no address and counts as IPv4's.
    pub services: u64,
    /// Their destinations.
    pub destinations: u64,
}

/// Those of the calling thread's network namespace, IPv4's first; `None` without the module.
pub fn read(proc_root: &Path) -> Result<Option<[(Family, Services); 2]>, FileError> {
    let path = proc_root.join("thread-self/net/ip_vs");
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| FileError::new(Access::Open, &path, of_io(&error)))?,
    };
    let counted = count(BufReader::new(file));
    counted.map(Some).map_err(|error| FileError::new(Access::Read, &path, of_io(&error)))
}

/// Counts the lines (`ip_vs_info_seq_show`): a service begins with its protocol, or `FWM`, a
/// destination with an arrow; an IPv6 address has brackets. Two such lines are headings.
pub fn count(mut list: impl BufRead) -> io::Result<[(Family, Services); 2]> {
    let mut found = [Services::default(); 2];
    let mut line = Vec::new();
    while list.read_until(b'\n', &mut line)? > 0 {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let (first, second) = (words.next(), words.next().unwrap_or_default());
        let of = usize::from(second.starts_with(b"["));
        if let Some(one) = found.get_mut(of) {
            match first {
                Some(b"TCP" | b"UDP" | b"SCTP" | b"FWM") => one.services += 1,
                Some(b"->") if second != b"RemoteAddress:Port" => one.destinations += 1,
                _ => {}
            }
        }
        line.clear();
    }
    let [ipv4, ipv6] = found;
    Ok([(Family::Ipv4, ipv4), (Family::Ipv6, ipv6)])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADINGS: &str = "IP Virtual Server version 1.2.1 (size=4096)\n\
                            Prot LocalAddress:Port Scheduler Flags\n\
                            \x20 -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";

    fn counted(text: &str) -> [(u64, u64); 2] {
        count(text.as_bytes()).unwrap().map(|(_, it)| (it.services, it.destinations))
    }

    #[test]
    fn services_and_destinations_by_family() {
        assert_eq!(counted(HEADINGS), [(0, 0); 2]);
        let list = format!(
            "{HEADINGS}\
             TCP  0A600001:01BB rr \n  -> 0A000001:1BC0      Masq    1      0          0         \n\
             UDP  0A60000A:0035 rr \n  -> 0A000002:0035      Masq    1      0          0         \n\
             \x20 -> 0A000003:0035      Masq    1      0          0         \n\
             FWM  00000001 rr persistent 360 FFFFFFFF\n\
             TCP  [fd00:0010:0096:0000:0000:0000:0000:0001]:01BB rr \n\
             \x20 -> [fd00:0000:0000:0000:0000:0000:0000:0001]:1BC0      Masq    1      0          0\n"
        );
        assert_eq!(counted(&list), [(3, 3), (1, 1)]);
    }

    proptest! {
        /// Whatever the kernel lists, in any order, is counted.
        #[test]
        fn every_line_is_counted_once(lines in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<u32>()), 0..50)) {
            let mut expected = [(0, 0); 2];
            let mut list = HEADINGS.to_owned();
            for (service, six, address) in lines {
                let address = if six { format!("[fd00::{address:x}]:0050") } else { format!("{address:08X}:0050") };
                let (services, destinations) = &mut expected[usize::from(six)];
                if service {
                    *services += 1;
                    list += &format!("TCP  {address} rr \n");
                } else {
                    *destinations += 1;
                    list += &format!("  -> {address}      Masq    1      0          0         \n");
                }
            }
            prop_assert_eq!(counted(&list), expected);
        }
    }
}
