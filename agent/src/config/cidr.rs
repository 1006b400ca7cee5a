//! Ranges of addresses as they are written: `10.244.0.0/24`, `fd00:10:244::/64`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A network: all addresses with the same first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr(IpNet);

/// Why a text is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// It has another form.
    #[error("it is no range of addresses: write one like 10.244.0.0/24 or fd00:10:244::/64")]
    Syntax,
    /// There are bits behind the prefix.
    #[error("the address has bits beyond its prefix: the network is {0}")]
    HostBits(Cidr),
}

impl Cidr {
    /// Reads one. An IPv4 address in IPv6 clothes is an IPv4 address no prefix of which fits, and so
    /// refused.
    pub fn parse(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = text.split_once('/').ok_or(CidrError::Syntax)?;
        // Not by ipnet, which takes 010 for 10.
        let address: IpAddr = address.parse().map_err(|_| CidrError::Syntax)?;
        let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
        let plain = digits && address.to_canonical() == address;
        let prefix = prefix.parse().ok().filter(|_| plain).ok_or(CidrError::Syntax)?;
        let written = IpNet::new(address, prefix).map_err(|_| CidrError::Syntax)?;
        let network = Self(written.trunc());
        if network.0 == written { Ok(network) } else { Err(CidrError::HostBits(network)) }
    }

    /// Its first address.
    #[must_use]
    pub fn first(self) -> IpAddr {
        self.0.network()
    }

    /// Its last address.
    #[must_use]
    pub fn last(self) -> IpAddr {
        self.0.broadcast()
    }

    /// How many bits its addresses share.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.0.prefix_len()
    }

    /// How many bits they do not share.
    #[must_use]
    pub fn host_bits(self) -> u8 {
        self.0.max_prefix_len() - self.0.prefix_len()
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An address as a number.
#[must_use]
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address with that number, of the same family.
#[must_use]
pub fn like(address: IpAddr, number: u128) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::from_bits((number & u128::from(u32::MAX)) as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_a_range_and_what_is_not() {
        for good in ["10.244.0.0/24", "0.0.0.0/0", "1.2.3.4/32", "::/0", "fd00::/64", "::1/128"] {
            assert_eq!(Cidr::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "10.244.0.0",
            "10.244.0.0/",
            "10.244.0.0/33",
            "10.244.0.0/+8",
            "10.0.0.0/-1",
            "10.0/8",
            "010.0.0.0/8",
            "fd00::/129",
            "::ffff:10.0.0.0/104",
            "fd00::%eth0/64",
            " 10.0.0.0/8",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(Cidr::parse(bad), Err(CidrError::Syntax), "{bad}");
        }
        let error = Cidr::parse("10.244.3.7/24").unwrap_err().to_string();
        assert!(error.ends_with("the network is 10.244.3.0/24"), "{error}");
        let edges = |text| (Cidr::parse(text).unwrap().first(), Cidr::parse(text).unwrap().last());
        assert_eq!(
            edges("10.0.0.0/30"),
            ("10.0.0.0".parse().unwrap(), "10.0.0.3".parse().unwrap())
        );
        assert_eq!(edges("::/0").1, IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)));
        assert!(!Cidr::parse("0.0.0.0/0").unwrap().contains("::1".parse().unwrap()));
        assert!(!Cidr::parse("::/0").unwrap().contains("1.2.3.4".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn every_address_is_in_its_network(bits in any::<u128>(), v4 in any::<bool>(), prefix in 0..=128_u8) {
            let family = if v4 { IpAddr::from([0, 0, 0, 0]) } else { Ipv6Addr::UNSPECIFIED.into() };
            let address = like(family, bits);
            let prefix = if v4 { prefix % 33 } else { prefix };
            prop_assume!(address.to_canonical() == address);
            let network = match Cidr::parse(&format!("{address}/{prefix}")) {
                Ok(network) | Err(CidrError::HostBits(network)) => network,
                Err(CidrError::Syntax) => return Err(TestCaseError::fail("syntax")),
            };
            prop_assert!(network.contains(address));
            prop_assert_eq!(network.prefix(), prefix);
            prop_assert_eq!(Cidr::parse(&network.to_string()), Ok(network));
            let outside = number(network.last()).checked_add(1).map(|next| like(family, next));
            prop_assert!(outside.is_none_or(|next| next < address || !network.contains(next)));
        }
    }
}
