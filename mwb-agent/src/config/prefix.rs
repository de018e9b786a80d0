//! Reading of address prefixes.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};

use super::reader::{Cursor, Fault};
use super::schema;

/// An IPv6 prefix that NPTv6 can translate.
pub(super) fn read_ipv6_prefix(at: &Cursor<'_>) -> Result<Ipv6Net, Fault> {
    let example = "2001:db8:a::/48";
    let prefix: Ipv6Net = at.parsed("an IPv6 prefix", example, |text| text.parse().ok())?;
    let range = schema::IPV6_PREFIX;
    if !range.contains(&prefix.prefix_len()) {
        return Err(at.fault(
            format!("`{prefix}` is out of range"),
            format!("choose a length from /{} to /{}", range.start(), range.end()),
        ));
    }
    let address = prefix.addr();
    if address.is_multicast() || address.is_unicast_link_local() || address.is_unspecified() {
        return Err(at.fault(
            format!("hosts cannot have addresses from `{prefix}`"),
            format!("write a global or a unique local prefix, like {example}"),
        ));
    }
    check_host_bits(at, prefix.into())?;
    Ok(prefix)
}

/// The list of destinations that are left to the kernel.
pub(super) fn read_bypass(at: &Cursor<'_>) -> Result<Vec<IpNet>, Fault> {
    let items = at.items("[192.0.2.0/24]")?;
    if items.len() > schema::BYPASSES {
        return Err(at.fault(
            format!("{} prefixes", items.len()),
            format!("give at most {}", schema::BYPASSES),
        ));
    }
    let mut prefixes = Vec::with_capacity(items.len());
    for item in &items {
        let prefix = read_prefix(item)?;
        if prefixes.contains(&prefix) {
            return Err(item.fault(format!("`{prefix}` is given twice"), "remove one of the two"));
        }
        prefixes.push(prefix);
    }
    Ok(prefixes)
}

fn read_prefix(at: &Cursor<'_>) -> Result<IpNet, Fault> {
    let prefix = read_net(at, "a prefix", "192.0.2.0/24")?;
    check_host_bits(at, prefix)?;
    Ok(prefix)
}

/// An address with a length; `what` names it with its article.
pub(super) fn read_net(at: &Cursor<'_>, what: &str, example: &str) -> Result<IpNet, Fault> {
    let net = at.parsed(what, example, |text| text.parse::<IpNet>().ok());
    net.map_err(|fault| match at.text(example).map(str::parse::<IpAddr>) {
        Ok(Ok(address)) => {
            let length = IpNet::from(address).prefix_len();
            at.fault(
                format!("`{address}` is an address, expected {what}"),
                format!("write {address}/{length} for this one address"),
            )
        }
        _ => fault,
    })
}

/// No bits may be set behind the length.
pub(super) fn check_host_bits(at: &Cursor<'_>, prefix: IpNet) -> Result<(), Fault> {
    if prefix.trunc() == prefix {
        return Ok(());
    }
    Err(at.fault(
        format!("`{prefix}` has bits set behind its length"),
        format!("write {}", prefix.trunc()),
    ))
}
