//! Keys of the kernel's key retention service, of each user.

use std::cmp::Reverse;

use super::{About, Cadence, Cost, Exactness, Limit, Reader, Roots};
use crate::kernel::counters::{self, KeyUser};
use crate::kernel::kept::Kept;

/// How many users are shown, those nearest to a maximum first.
const USERS: usize = 5;

/// Keys.
pub static ABOUT: About = About {
    name: "keys",
    title: "kernel keys of",
    unit: "keys",
    scope: "each user (uid); the five nearest to their maximum are shown",
    read: "/proc/key-users",
    raised_by: Some("kernel.keys.maxkeys"),
    cost: Cost::Learned { prior: 2.0, floor: 0.0 },
    cost_why: "runc makes a session keyring for each container, as root: two a pod, its sandbox and one \
               container, until more is known; other users have what pods with user namespaces make",
    when_hit: "containers do not start: `join session keyring: disk quota exceeded` (EDQUOT)",
    exactness: &[("all", Exactness::Exact, "`qnkeys`, which `key_alloc` compares")],
    cadence: Cadence::Scrape,
};

/// What keys hold.
pub static BYTES: About = About {
    name: "key_bytes",
    title: "bytes in kernel keys of",
    unit: "bytes",
    raised_by: Some("kernel.keys.maxbytes"),
    cost: Cost::Learned { prior: 140.0, floor: 0.0 },
    cost_why: "two keyrings a pod, each as long as its name: `_ses.`, 64 digits, and an end",
    exactness: &[(
        "all",
        Exactness::Exact,
        "`qnbytes`, which `key_alloc` compares; older kernels, such as 6.1, refuse the last byte",
    )],
    ..ABOUT
};

/// Reads both.
#[derive(Debug)]
pub struct Keys {
    file: Kept,
}

impl Keys {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        Self { file: Kept::new(roots.proc.join("key-users")) }
    }
}

impl Reader for Keys {
    fn name(&self) -> &'static str {
        "keys"
    }

    fn read(&mut self) -> Vec<Limit> {
        match self.file.parsed(counters::key_users) {
            Ok(users) => limits(users),
            Err(error) => {
                let unknown = Limit::read(&ABOUT, "every user", Err(error));
                unknown.into_iter().collect()
            }
        }
    }
}

/// The fullest users' keys and bytes.
#[must_use]
pub fn limits(mut users: Vec<KeyUser>) -> Vec<Limit> {
    // By the fuller of the two, in millionths; the uid keeps the order among equals.
    users.sort_by_key(|user| {
        let [keys, bytes] = [user.keys, user.bytes].map(fullness);
        (Reverse(keys.max(bytes)), user.uid)
    });
    users.truncate(USERS);
    users.sort_by_key(|user| user.uid);
    users.iter().flat_map(of_user).collect()
}

fn fullness([used, max]: [u64; 2]) -> u64 {
    used.saturating_mul(1_000_000).checked_div(max).unwrap_or(u64::MAX)
}

fn of_user(user: &KeyUser) -> [Limit; 2] {
    let root = user.uid == 0;
    let limit = |about: &'static About, [used, max]: [u64; 2], roots_key| {
        let mut limit = Limit::of(about, format!("uid {}", user.uid)).with(used, max);
        if root {
            limit.raised_by = Some(roots_key);
        } else {
            // What runc makes is root's.
            limit.cost = Cost::Learned { prior: 0.0, floor: 0.0 };
        }
        limit
    };
    [
        limit(&ABOUT, user.keys, "kernel.keys.root_maxkeys"),
        limit(&BYTES, user.bytes, "kernel.keys.root_maxbytes"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32, keys: u64, bytes: u64) -> KeyUser {
        KeyUser { uid, keys: [keys, 200], bytes: [bytes, 20_000] }
    }

    #[test]
    fn the_fullest_five_are_shown_by_keys_or_bytes() {
        let mut users: Vec<_> = (1..=9).map(|uid| user(uid, u64::from(uid), 0)).collect();
        users.push(user(2000, 0, 19_999));
        users.push(KeyUser { uid: 0, keys: [200, 1_000_000], bytes: [1, 25_000_000] });
        let shown = limits(users);
        let keys = shown.iter().filter(|limit| limit.about.name == "keys");
        let objects: Vec<_> = keys.map(|limit| limit.object.as_str()).collect();
        assert_eq!(objects, ["uid 6", "uid 7", "uid 8", "uid 9", "uid 2000"]);
        assert_eq!(shown.len(), 10);
    }

    #[test]
    fn roots_maxima_are_raised_by_keys_of_their_own() {
        let shown = limits(vec![
            user(0, 1, 1),
            user(7, 1, 1),
            KeyUser { uid: 8, keys: [0, 0], bytes: [0, 0] },
        ]);
        let raised: Vec<_> = shown.iter().take(4).filter_map(|limit| limit.raised_by).collect();
        assert_eq!(
            raised,
            [
                "kernel.keys.root_maxkeys",
                "kernel.keys.root_maxbytes",
                "kernel.keys.maxkeys",
                "kernel.keys.maxbytes"
            ]
        );
    }
}
