//! One WAN of a lab: its link, and everything that can be done to it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};

use super::{
    address::{
        net_uplink4, net_uplink6, outside6, provider_uplink4, provider_uplink6, provider4,
        provider6, wan4, wan6,
    },
    capture::{Capture, Passing},
    link::{Direction, LinkSpec, LinkStats},
    namespace::Namespace,
    shaper::{self, Shaper},
    topology::{Shape, join},
    tun::TunLink,
};

/// A WAN: device `wan<index>` of the gateway, the link, and the provider.
#[derive(Debug)]
pub struct Wan {
    index: usize,
    gw: Namespace,
    isp: Namespace,
    shaper: Option<(Mutex<Box<dyn Shaper>>, Namespace)>,
    offloads: bool,
    // Held for as long as the link is to carry.
    _tun: Option<TunLink>,
}

impl Wan {
    /// Configures both ends and starts the relay, if the link has one.
    pub(super) fn build(
        index: usize,
        gw: &Namespace,
        isp: &Namespace,
        shape: Option<(&Shape, &Namespace)>,
        offloads: bool,
        tun: bool,
    ) -> Result<Self> {
        let device = format!("wan{index}");
        let carried = if tun { Some(TunLink::start((gw, &device), (isp, "gw0"))?) } else { None };
        let mut wan = Self {
            index,
            gw: gw.clone(),
            isp: isp.clone(),
            shaper: None,
            offloads: offloads || tun,
            _tun: carried,
        };
        isp.ip(&format!(
            "link set lo up\nlink set up0 up\n\
             addr add {}/30 dev up0\naddr add {}/64 dev up0 nodad\n\
             route add default via {}\nroute add default via {}\n",
            provider_uplink4(index),
            provider_uplink6(index),
            net_uplink4(index),
            net_uplink6(index),
        ))?;
        wan.configure()?;
        if let Some((shape, namespace)) = shape {
            // A relay sees frames as they are in memory: checksums must be
            // done and segments cut before they reach it.
            gw.ethtool_features(&device, &["tx", "off"])?;
            isp.ethtool_features("gw0", &["tx", "off", "gro", "on"])?;
            let shaper = shaper::start(namespace, index, shape)?;
            wan.shaper = Some((Mutex::new(shaper), namespace.clone()));
        }
        wan.isp.ip(&wan.return_route())?;
        Ok(wan)
    }

    /// Addresses, routes and offloads of both ends of the link.
    fn configure(&self) -> Result<()> {
        let (index, device) = (self.index, self.device());
        self.isp.ip(&format!(
            "link set gw0 up\naddr add {}/28 dev gw0\naddr add {}/64 dev gw0 nodad\n",
            provider4(index),
            provider6(index),
        ))?;
        let metric = 100 + index;
        self.gw.ip(&format!(
            "link set {device} up\n\
             addr add {}/28 dev {device}\naddr add {}/64 dev {device} nodad\n\
             route add default via {} metric {metric}\nroute add default via {} metric {metric}\n",
            wan4(index),
            wan6(index),
            provider4(index),
            provider6(index),
        ))?;
        if !self.offloads {
            self.isp.ethtool_features("gw0", &["tx", "off", "gro", "on"])?;
        }
        Ok(())
    }

    /// Removes the gateway's device, as when a modem is pulled out.
    ///
    /// # Errors
    /// When there is none.
    pub fn unplug(&self) -> Result<()> {
        self.gw.ip(&format!("link del {}\n", self.device()))
    }

    /// Makes it anew, under the same name and with the same addresses. Plain
    /// veth pairs only.
    ///
    /// # Errors
    /// When it is there, or the kernel refuses.
    pub fn plug_in(&self) -> Result<()> {
        ensure!(self.shaper.is_none(), "a shaped link cannot be plugged in");
        join((&self.gw, &self.device()), (&self.isp, "gw0"))?;
        self.configure()?;
        self.isp.ip(&self.return_route())
    }

    /// Number, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The gateway's device.
    #[must_use]
    pub fn device(&self) -> String {
        format!("wan{}", self.index)
    }

    /// Sets one direction of a relayed link.
    ///
    /// # Errors
    /// When the link is a plain veth pair, or its relay is gone.
    pub fn set(&self, direction: Direction, spec: LinkSpec) -> Result<()> {
        self.shaper()?.set(direction, spec)
    }

    /// Changes one direction of a relayed link, keeping the rest as it is.
    ///
    /// # Errors
    /// When the link is a plain veth pair, or its relay is gone.
    pub fn change(&self, direction: Direction, edit: impl FnOnce(&mut LinkSpec)) -> Result<()> {
        let mut shaper = self.shaper()?;
        let mut spec = shaper.spec(direction).clone();
        edit(&mut spec);
        shaper.set(direction, spec)
    }

    /// Lets everything vanish, or not, in these directions.
    ///
    /// # Errors
    /// When the link is a plain veth pair, or its relay is gone.
    pub fn blackhole(&self, directions: &[Direction], on: bool) -> Result<()> {
        directions
            .iter()
            .try_for_each(|&direction| self.change(direction, |spec| spec.blackhole = on))
    }

    /// Takes the carrier of the gateway's device away, or gives it back.
    ///
    /// # Errors
    /// When the far end cannot be set.
    pub fn carrier(&self, on: bool) -> Result<()> {
        let state = if on { "up" } else { "down" };
        match &self.shaper {
            Some((_, namespace)) => namespace.ip(&format!("link set a{} {state}\n", self.index)),
            None => {
                self.isp.ip(&format!("link set gw0 {state}\n"))?;
                if on { self.isp.ip(&self.return_route()) } else { Ok(()) }
            }
        }
    }

    /// Cuts the provider off from the Internet, or joins it again. The provider
    /// itself still answers.
    ///
    /// # Errors
    /// When nftables refuses.
    pub fn uplink(&self, on: bool) -> Result<()> {
        // Declared before it is deleted, so that deleting works whether or not
        // it is there.
        let cut = "table inet cut\ndelete table inet cut\n";
        if on {
            self.isp.nft(cut)
        } else {
            self.isp.nft(&format!(
                "{cut}table inet cut {{\n  chain forward {{\n    \
                 type filter hook forward priority 0; policy drop;\n  }}\n}}\n"
            ))
        }
    }

    /// What the relay has done with the frames it got.
    ///
    /// # Errors
    /// When the link is a plain veth pair, or its relay is gone.
    pub fn stats(&self) -> Result<LinkStats> {
        self.shaper()?.stats()
    }

    /// Captures what passes between the gateway and the relay, where nothing is
    /// merged; [`Passing::In`] is what the gateway sends.
    ///
    /// # Errors
    /// When the link is a plain veth pair, or tcpdump does not come up.
    pub fn capture(&self, passing: Passing, filter: &str) -> Result<Capture> {
        let (_, namespace) = self.shaper.as_ref().with_context(|| self.plain())?;
        Capture::start(namespace, &format!("a{}", self.index), passing, filter)
    }

    /// Process id of the relay, for tests that kill it; `None` where the kernel
    /// does its work.
    ///
    /// # Errors
    /// When the link is a plain veth pair.
    pub fn relay_id(&self) -> Result<Option<u32>> {
        Ok(self.shaper()?.process_id())
    }

    /// The gateway's namespace.
    #[must_use]
    pub fn gateway(&self) -> &Namespace {
        &self.gw
    }

    /// The route to the delegated prefix, which goes when the device goes down.
    fn return_route(&self) -> String {
        format!("route replace {} via {}\n", outside6(self.index), wan6(self.index))
    }

    fn plain(&self) -> String {
        format!("{} is a plain veth pair: give it a shape to control it", self.device())
    }

    fn shaper(&self) -> Result<MutexGuard<'_, Box<dyn Shaper>>> {
        let (shaper, _) = self.shaper.as_ref().with_context(|| self.plain())?;
        Ok(shaper.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
