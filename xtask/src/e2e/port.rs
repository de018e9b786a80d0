//! A station that speaks in packets of its own making, on the LAN or behind a
//! WAN. What it hears is audited: a wrong checksum is a failure wherever it
//! shows.

use std::{collections::VecDeque, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result};

use super::packets::Packet;
use crate::lab::{Lab, Namespace, address::HOST4, capture::Captured, raw::RawSocket, wait_for};

/// How long a packet may take through the lab.
const PATIENCE: Duration = Duration::from_secs(3);

/// One side of the gateway.
pub(super) struct Port {
    socket: RawSocket,
    own: [u8; 6],
    gateway: [u8; 6],
    heard: VecDeque<Vec<u8>>,
}

impl Port {
    /// On the LAN, in the place of the host, whose kernel no longer hears
    /// anything but neighbours: it would answer what it knows nothing of.
    pub(super) fn lan(lab: &Lab) -> Result<Self> {
        lab.host().nft(
            "table inet deaf {\n  chain input {\n    type filter hook input priority raw;\n    \
             icmpv6 type { 133-137 } accept\n    iifname \"lan0\" drop\n  }\n}\n",
        )?;
        Self::between((lab.host(), "lan0"), (lab.gw(), "lan0"))
    }

    /// Behind WAN `index`, in the place of all of the Internet: the provider
    /// itself goes on answering, but forwards nothing.
    pub(super) fn wan(lab: &Lab, index: usize) -> Result<Self> {
        lab.wan(index).uplink(false)?;
        Self::between((lab.isp(index), "gw0"), (lab.gw(), &format!("wan{index}")))
    }

    /// At one end of a cable.
    pub(super) fn between(near: (&Namespace, &str), far: (&Namespace, &str)) -> Result<Self> {
        Ok(Self {
            socket: near.0.enter(|| RawSocket::open(near.1))?,
            own: mac(near)?,
            gateway: mac(far)?,
            heard: VecDeque::new(),
        })
    }

    /// The frame that carries a packet to the gateway.
    pub(super) fn frame(&self, packet: &[u8]) -> Vec<u8> {
        let kind: [u8; 2] =
            if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
        [&self.gateway[..], &self.own, &kind, packet].concat()
    }

    /// Sends packets, in this order.
    pub(super) fn send(&self, packets: &[Vec<u8>]) -> Result<()> {
        let frames: Vec<Vec<u8>> = packets.iter().map(|packet| self.frame(packet)).collect();
        self.send_frames(&frames)
    }

    /// Sends frames as they are.
    pub(super) fn send_frames(&self, frames: &[Vec<u8>]) -> Result<()> {
        self.socket.send_all(frames, PATIENCE)
    }

    /// The first packet that `take` makes something of; others stay to be heard.
    pub(super) fn hear<T>(
        &mut self,
        what: &str,
        mut take: impl FnMut(&Packet, &[u8]) -> Option<T>,
    ) -> Result<T> {
        let ((value, frame), _) = wait_for(what, PATIENCE, || {
            self.listen()?;
            Ok(self.pick(&mut take))
        })
        .with_context(|| format!("heard meanwhile: {:#?}", self.packets()))?;
        audit(frame)?;
        Ok(value)
    }

    /// Everything that was heard and not taken yet, without waiting.
    pub(super) fn pending<T>(
        &mut self,
        mut take: impl FnMut(&Packet, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        self.listen()?;
        let mut found = Vec::new();
        while let Some((value, frame)) = self.pick(&mut take) {
            audit(frame)?;
            found.push(value);
        }
        Ok(found)
    }

    /// The same of what a kernel sends for a socket of its own: on a veth its checksum is
    /// left to a device that there is none of.
    pub(super) fn overheard<T>(
        &mut self,
        mut take: impl FnMut(&Packet, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        self.listen()?;
        Ok(std::iter::from_fn(|| self.pick(&mut take)).map(|(value, _)| value).collect())
    }

    fn pick<T>(
        &mut self,
        take: &mut impl FnMut(&Packet, &[u8]) -> Option<T>,
    ) -> Option<(T, Vec<u8>)> {
        let (place, value) = self.heard.iter().enumerate().find_map(|(place, frame)| {
            let bytes = frame.get(14..)?;
            Some((place, take(&Packet::read(bytes)?, bytes)?))
        })?;
        Some((value, self.heard.remove(place)?))
    }

    fn listen(&mut self) -> Result<()> {
        let Self { socket, heard, .. } = self;
        while socket.receive(|frame| heard.push_back(frame.to_vec()))? > 0 {}
        Ok(())
    }

    fn packets(&self) -> Vec<Packet> {
        self.heard.iter().filter_map(|frame| Packet::read(frame.get(14..)?)).collect()
    }
}

fn audit(frame: Vec<u8>) -> Result<()> {
    Captured { frames: vec![frame] }.audit_checksums().map(drop)
}

/// The MAC of a device.
pub(super) fn mac((namespace, device): (&Namespace, &str)) -> Result<[u8; 6]> {
    let link = namespace.link_json(device)?;
    let text = link["address"].as_str().context("a device has an address")?;
    let bytes: Vec<u8> =
        text.split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("no MAC: {text}"))
}

/// The host's address of the family of `far`.
pub(super) fn host_of(far: IpAddr) -> IpAddr {
    match far {
        IpAddr::V4(_) => HOST4.into(),
        IpAddr::V6(_) => crate::lab::address::HOST6.into(),
    }
}
