use super::*;

/// Removes interfaces, whatever becomes of the test.
struct Links(&'static [&'static str]);

impl Links {
    fn remove(&self) {
        for name in self.0 {
            let _ = try_ip(["link", "delete", name]);
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.remove();
    }
}

#[test]
fn a_dummy_interface_comes_goes_and_is_renamed() {
    let Some(_host) = virtual_machine() else { return };
    const KEY: &str = "net.ipv4.conf.hrvm0.rp_filter";
    const PATH: &str = "net/ipv4/conf/hrvm0/rp_filter";
    let links = Links(&["hrvm0", "hrvm1"]);
    let home = home(&[(KEY, "2")]);
    let agent = home.start();
    wait_for(&agent, KEY, "pending");
    for round in 0..2 {
        ip(["link", "add", "hrvm0", "type", "dummy"]);
        assert_eq!(wait_until_set(&agent, KEY, PATH, "2"), "0", "round {round}");
        links.remove();
        wait_for(&agent, KEY, "pending");
    }
    // The name is what the key is about: it comes with another interface's new name, and goes.
    ip(["link", "add", "hrvm1", "type", "dummy"]);
    ip(["link", "set", "hrvm1", "name", "hrvm0"]);
    wait_until_set(&agent, KEY, PATH, "2");
    ip(["link", "set", "hrvm0", "name", "hrvm1"]);
    wait_for(&agent, KEY, "pending");
    assert!(agent.is_ready());
}

#[test]
fn a_vlan_interface_with_a_dot_in_its_name() {
    let Some(_host) = virtual_machine() else { return };
    const KEY: &str = "net.ipv4.conf.hrvm0/100.rp_filter";
    const PATH: &str = "net/ipv4/conf/hrvm0.100/rp_filter";
    let _links = Links(&["hrvm0"]);
    let home = home(&[(PATH, "2")]);
    let agent = home.start();
    wait_for(&agent, KEY, "pending");
    ip(["link", "add", "hrvm0", "type", "dummy"]);
    for round in 0..2 {
        // ip has the kernel load 8021q.
        let vlan = ["name", "hrvm0.100", "type", "vlan", "id", "100"];
        ip(["link", "add", "link", "hrvm0"].into_iter().chain(vlan));
        assert_eq!(wait_until_set(&agent, KEY, PATH, "2"), "0", "round {round}");
        ip(["link", "delete", "hrvm0.100"]);
        wait_for(&agent, KEY, "pending");
    }
    // With the interface that it sits on it goes too, and the module with it.
    ip(["link", "add", "link", "hrvm0", "name", "hrvm0.100", "type", "vlan", "id", "100"]);
    wait_until_set(&agent, KEY, PATH, "2");
    ip(["link", "delete", "hrvm0"]);
    wait_for(&agent, KEY, "pending");
    unload(&["8021q"]);
}

#[test]
fn an_mtu_below_1280_takes_the_ipv6_keys_away_and_brings_fresh_ones_back() {
    let Some(_host) = virtual_machine() else { return };
    const KEY: &str = "net.ipv6.conf.hrvm0.accept_ra";
    const PATH: &str = "net/ipv6/conf/hrvm0/accept_ra";
    let _links = Links(&["hrvm0"]);
    let home = home(&[(KEY, "0"), ("net.ipv4.conf.hrvm0.rp_filter", "2")]);
    let agent = home.start();
    ip(["link", "add", "hrvm0", "type", "dummy"]);
    assert_eq!(wait_until_set(&agent, KEY, PATH, "0"), "1");
    for round in 0..2 {
        ip(["link", "set", "hrvm0", "mtu", "1279"]);
        assert_eq!(read(PATH), None, "round {round}");
        wait_for(&agent, KEY, "pending");
        // IPv4 does not mind.
        assert_eq!(agent.key("net.ipv4.conf.hrvm0.rp_filter")["state"], "in-sync");
        ip(["link", "set", "hrvm0", "mtu", "1500"]);
        assert_eq!(wait_until_set(&agent, KEY, PATH, "0"), "1", "round {round}");
    }
    // Down and up between two looks: the kernel begins with its defaults again.
    ip(["link", "set", "hrvm0", "mtu", "1279"]);
    ip(["link", "set", "hrvm0", "mtu", "1500"]);
    wait_until("set again", || read(PATH).as_deref() == Some("0"));
    wait_for(&agent, KEY, "in-sync");
    assert!(agent.is_ready());
}
