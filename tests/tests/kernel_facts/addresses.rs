//! The addresses of a namespace, as a pod's are looked up.

use std::fs;
use std::net::IpAddr;

use headroom::kernel::addresses::addresses;
use nix::sched::CloneFlags;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::{LinkUnspec, LinkVeth};

use super::support::{
    add_address, add_link, change_link, fresh, has_ipv6, index, netlink, on_host, unshared,
};

fn sorted() -> Vec<String> {
    let mut found = addresses().unwrap();
    found.sort();
    found.iter().map(ToString::to_string).collect()
}

fn up(name: &str) {
    change_link(LinkUnspec::new_with_index(index(name)).up().build());
}

fn down(name: &str) {
    change_link(LinkUnspec::new_with_index(index(name)).down().build());
}

#[test]
fn addresses_are_the_calling_threads_namespaces_without_loopback_ones() {
    fresh(|| {
        assert_eq!(sorted(), [""; 0]);
        up("lo");
        add_address("lo", "127.0.9.1", 32);
        assert_eq!(sorted(), [""; 0], "127.0.0.1, 127.0.9.1 and ::1 are there");
        // An address of another range on the loopback interface is one that others can name.
        add_address("lo", "192.0.2.7", 32);
        assert_eq!(sorted(), ["192.0.2.7"]);
        if !add_link("a0") {
            return;
        }
        // One that is up has a link-local address, and checks others for a duplicate.
        down("a0");
        add_address("a0", "10.9.0.2", 24);
        add_address("a0", "10.9.0.3", 24);
        assert_eq!(sorted(), ["10.9.0.2", "10.9.0.3", "192.0.2.7"]);
        if has_ipv6() {
            // It stays tentative while the interface is down.
            add_address("a0", "fd00::2", 64);
            let table = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
            let line = table.lines().find(|line| line.starts_with("fd00")).unwrap();
            let flags = line.split_whitespace().nth(4).unwrap();
            assert_ne!(u32::from_str_radix(flags, 16).unwrap() & 0x40, 0, "{line}");
            assert_eq!(sorted(), ["10.9.0.2", "10.9.0.3", "192.0.2.7", "fd00::2"]);
        }
        on_host(|| assert!(!sorted().contains(&"10.9.0.2".to_owned())));
    });
}

#[test]
fn of_a_point_to_point_link_it_is_the_own_address_not_the_peers() {
    fresh(|| {
        if !add_link("a0") {
            return;
        }
        // One that is up has a link-local address, and checks others for a duplicate.
        down("a0");
        add_pair("a0", "10.9.0.2", "10.9.0.1", 32);
        assert_eq!(sorted(), ["10.9.0.2"]);
        if has_ipv6() {
            add_pair("a0", "fd00::2", "fd00::1", 128);
            assert_eq!(sorted(), ["10.9.0.2", "fd00::2"]);
        }
    });
}

fn add_pair(name: &str, own: &str, peer: &str, length: u8) {
    let [own, peer] = [own, peer].map(|text| text.parse::<IpAddr>().unwrap());
    netlink(async |handle| {
        let mut request = handle.address().add(index(name), own, length);
        let attributes = &mut request.message_mut().attributes;
        attributes.retain(|one| !matches!(one, AddressAttribute::Address(_)));
        attributes.retain(|one| !matches!(one, AddressAttribute::Local(_)));
        attributes.push(AddressAttribute::Local(own));
        attributes.push(AddressAttribute::Address(peer));
        request.execute().await
    })
    .unwrap();
}

#[test]
fn both_ends_of_a_veth_have_their_own() {
    fresh(|| {
        let veth = LinkVeth::new("v0", "v1").build();
        if netlink(async |handle| handle.link().add(veth).execute().await).is_err() {
            return eprintln!("not tested: no veth");
        }
        add_address("v0", "10.9.0.1", 24);
        add_address("v1", "10.9.1.1", 24);
        up("v0");
        up("v1");
        let found = sorted();
        assert!(found.starts_with(&["10.9.0.1".to_owned(), "10.9.1.1".to_owned()]), "{found:?}");
        let link_local = |text: &&String| text.starts_with("fe80:");
        let others = found.iter().skip(2).filter(|text| !link_local(text)).count();
        assert_eq!(others, 0, "{found:?}");
    });
}

/// A socket that is open keeps a namespace alive.
#[test]
fn no_descriptor_is_left() {
    // The thread has a table of descriptors of its own, where no other test opens any.
    unshared(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_FILES, || {
        let count = || fs::read_dir("/proc/thread-self/fd").unwrap().count();
        let before = count();
        for _ in 0..20 {
            addresses().unwrap();
        }
        assert_eq!(count(), before);
    });
}
