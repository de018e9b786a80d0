//! The place of a server on the lab's Internet: one uplink, public addresses, and
//! a route to what its clients have of IPv6.

use anyhow::Result;

use super::{
    address::{INSIDE6, NET_SERVER4, NET_SERVER6, SERVER4, SERVER6},
    namespace::Namespace,
    settings::{be_plain, forward, keep_ports_free},
    topology::join,
};

/// The server's device towards the Internet.
pub(super) const UPLINK: &str = "eth0";
/// The Internet's device towards the server.
const NEAR: &str = "srv0";

/// Makes a router of the Internet, and a neighbour of it of `srv`.
pub(super) fn join_internet(srv: &Namespace, net: &Namespace) -> Result<()> {
    be_plain(srv)?;
    forward(srv)?;
    keep_ports_free(srv)?;
    forward(net)?;
    join((net, NEAR), (srv, UPLINK))?;
    srv.ip(&format!(
        "link set lo up\nlink set {UPLINK} up\n\
         addr add {SERVER4}/30 dev {UPLINK}\naddr add {SERVER6}/64 dev {UPLINK} nodad\n"
    ))?;
    net.ip(&format!(
        "link set {NEAR} up\n\
         addr add {NET_SERVER4}/30 dev {NEAR}\naddr add {NET_SERVER6}/64 dev {NEAR} nodad\n\
         route add {INSIDE6} via {SERVER6}\n"
    ))?;
    srv.ip(&format!("route add default via {NET_SERVER4}\nroute add default via {NET_SERVER6}\n"))?;
    // What reaches an XDP program must be whole packets with all their checksums, and
    // what it redirects is taken by a device with NAPI only.
    net.ethtool_features(NEAR, &["tx", "off", "gro", "on"])
}
