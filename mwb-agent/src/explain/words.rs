//! A decision in words.

use mwb_common::maps::{FORWARD, Family, Flow, PortOwner, SLOTS, how, index, prefix_class};
use mwb_common::policy::selection_index;
use mwb_common::reason::{Reason, Verdict as Fate};

use super::{Decided, Facts, Packet, Picked, Placed, Policy, Standing, Verdict, decide};
use crate::api::explain::{Explanation, Outcome, Possibility, Step};
use crate::api::flows::FlowRow;
use crate::dataplane::Rulebook;

/// What the words need beside the decision.
pub struct Context<'a> {
    /// The settings of the kernel side.
    pub book: &'a Rulebook,
    /// Names of the WANs, by path id from 1.
    pub names: &'a [String],
    /// How flows are shared, in the word of the configuration.
    pub balance: &'a str,
    /// The flow for people, if there is one.
    pub flow: Option<FlowRow>,
    /// Policy rules, and which of them the packet meets.
    pub policy: Policy,
    /// The outlet that it leads to, 0: none.
    pub outlet: u8,
}

/// The whole answer.
#[must_use]
pub fn explain(context: Context<'_>, packet: &Packet, facts: &Facts) -> Explanation {
    let mut context = context;
    let decided = decide(context.book, packet, facts);
    if let Some((flow, Standing::Good)) = decided.flow {
        context.outlet = flow.choice.outlet();
    }
    let mut steps = Vec::new();
    context.flow_steps(packet, &decided, &mut steps);
    match decided.flow {
        Some((flow, Standing::Good)) => context.kept_steps(packet, &decided, &flow, &mut steps),
        _ => context.new_flow_steps(packet, &decided, facts, &mut steps),
    }
    Explanation {
        packet: packet.to_string(),
        outcome: context.outcome(&decided),
        would_change: context.would_change(packet, facts, &decided),
        steps,
        flow: context.flow,
    }
}

pub(super) fn step(steps: &mut Vec<Step>, what: &str, said: impl Into<String>) {
    steps.push(Step { what: what.to_owned(), said: said.into() });
}

/// What becomes of a packet that ends with a reason.
pub(super) fn outcome(said: String, reason: Reason, wan: Option<String>, certain: bool) -> Outcome {
    let verdict = match reason.verdict() {
        Fate::Forward => "forward",
        Fate::Kernel => "kernel",
        Fate::Drop => "drop",
    };
    Outcome {
        said,
        verdict: verdict.to_owned(),
        reason: reason.name().to_owned(),
        wan,
        certain,
        possible: Vec::new(),
    }
}

impl Context<'_> {
    fn name(&self, path: u8) -> String {
        let name = usize::from(path).checked_sub(1).and_then(|index| self.names.get(index));
        name.filter(|name| !name.is_empty()).cloned().unwrap_or_else(|| format!("path{path}"))
    }

    fn alive(&self, path: u8) -> bool {
        let until = self.book.liveness.alive_until.get(usize::from(path)).copied();
        until.unwrap_or(0) > self.book.now
    }

    fn flow_steps(&self, packet: &Packet, decided: &Decided, steps: &mut Vec<Step>) {
        let Some((flow, standing)) = decided.flow else {
            return step(steps, "flow", "there is none: the packet opens one");
        };
        let wan = self.name(flow.path);
        let slot = flow.choice.slot();
        let chosen = match flow.choice.how & !how::MAPPED {
            how::SLOT => format!("slot {slot} of the path choice led to {wan}"),
            how::RANKING => format!(
                "the WAN of slot {slot} was dead then, and {wan} the first living one of the \
                 ranking"
            ),
            how::NONE_ALIVE => format!("no WAN was alive then, and slot {slot} is of {wan}"),
            how::VIA => format!("the destination is on {wan}'s own subnet"),
            how::INBOUND => format!("it was opened from {wan}"),
            _ => format!("{wan} carries it"),
        };
        let mapped = if flow.choice.how & how::MAPPED != 0 {
            "; the inside endpoint had its outside port there already, which was chosen so"
        } else {
            ""
        };
        step(steps, "flow", format!("there is one, on {wan}: {chosen}{mapped}"));
        if let (Some(named), Some(now)) = (packet.outside, &self.flow)
            && named != now.outside
        {
            let said = format!("it is a later one than that with {named}: it has {}", now.outside);
            step(steps, "flow", said);
        }
        step(steps, "flow", self.standing("it", flow.path, standing));
    }

    /// What a flow that stands would be asked if it were made anew.
    fn kept_steps(&self, packet: &Packet, decided: &Decided, flow: &Flow, steps: &mut Vec<Step>) {
        step(steps, "rule", self.rule(packet, decided.destination.as_ref()));
        for said in self.policy.sentences() {
            step(steps, "policy", said);
        }
        if how::is_free(flow.choice.how) {
            let said = format!("{}: it is asked again when the flow is made anew", self.balance);
            step(steps, "mode", said);
            let said =
                format!("{}: it is asked when the WAN of a slot is dead", self.ranking(packet));
            step(steps, "ranking", said);
        }
    }

    fn standing(&self, what: &str, path: u8, standing: Standing) -> String {
        let wan = self.name(path);
        match standing {
            Standing::Good if self.alive(path) => format!("{what} stands: {wan} is alive"),
            Standing::Good => format!(
                "{what} stands, though {wan} is not alive: nothing else is, or it has no other way"
            ),
            Standing::PathGone => {
                format!("{what} is void: {wan} does not carry this address family now")
            }
            Standing::OtherGeneration => format!("{what} is void: {wan} has another address since"),
            Standing::OtherEpoch => {
                format!("{what} is made anew: flows on {wan} were asked to move")
            }
            Standing::Dead => format!("{what} is made anew: {wan} is dead and others live"),
            Standing::PortLost => format!("{what} is void: its outside port on {wan} has expired"),
        }
    }

    fn new_flow_steps(
        &self,
        packet: &Packet,
        decided: &Decided,
        facts: &Facts,
        steps: &mut Vec<Step>,
    ) {
        step(steps, "rule", self.rule(packet, decided.destination.as_ref()));
        match decided.verdict {
            Verdict::Hairpin(_) => return step(steps, "forward", hairpin(facts.forward)),
            Verdict::Kernel(_) => return,
            Verdict::Drop(Reason::ForeignSource) => {
                let said = match decided.source {
                    Some(Placed { net, .. }) => {
                        format!(
                            "{} lies in {net}, which no LAN host can have",
                            packet.source.address
                        )
                    }
                    None => format!("{} is outside the NPTv6 prefix", packet.source.address),
                };
                return step(steps, "source", said);
            }
            Verdict::Drop(Reason::SourceLimit) => {
                let limit = self.book.control.source_limit;
                let said = format!(
                    "{} has {} mappings of {limit} (nat.mappings_per_source)",
                    packet.source.address, facts.mappings
                );
                return step(steps, "limit", said);
            }
            _ => {}
        }
        for said in self.policy.sentences() {
            step(steps, "policy", said);
        }
        if let Verdict::Drop(Reason::PolicyBlocked) = decided.verdict {
            return;
        }
        match decided.mapping {
            Some((mapping, standing)) => {
                let port = u16::from_be_bytes(mapping.port);
                let wan = self.name(mapping.path);
                let has = format!("{} has outside port {port} on {wan}", packet.source);
                step(steps, "mapping", has);
                step(steps, "mapping", self.standing("it", mapping.path, standing));
            }
            None if packet.source.address.is_ipv4() => {
                step(steps, "mapping", format!("{} has no outside port yet", packet.source));
            }
            None => {}
        }
        if let Some(picked) = &decided.picked {
            self.choice_steps(packet, picked, steps);
        }
    }

    fn choice_steps(&self, packet: &Packet, picked: &Picked, steps: &mut Vec<Step>) {
        let by = if picked.index == index::FLOW_HASH {
            "by the hash of the flow: the same flow always gets the same slot"
        } else {
            "by a counter: each new flow gets the next slot"
        };
        step(steps, "mode", format!("{}: {SLOTS} slots, {by}", self.balance));
        let next = if picked.index == index::FLOW_HASH { "slot" } else { "the next slot is" };
        let own =
            if picked.slot_path == 0 { "nobody".to_owned() } else { self.name(picked.slot_path) };
        step(steps, "slot", format!("{next} {}, of {own}", picked.slot));
        match picked.how {
            how::SLOT => {
                step(steps, "liveness", format!("{own} is alive"));
                step(steps, "ranking", format!("{}: it is not asked", self.ranking(packet)));
            }
            how::RANKING => {
                step(steps, "liveness", format!("{own} is dead"));
                let said = format!(
                    "{}: the first living one is {}",
                    self.ranking(packet),
                    self.name(picked.path)
                );
                step(steps, "ranking", said);
            }
            _ => step(steps, "liveness", "no WAN is alive: liveness is ignored"),
        }
    }

    fn ranking(&self, packet: &Packet) -> String {
        let family = if packet.source.address.is_ipv4() { Family::V4 } else { Family::V6 };
        let entry = selection_index(self.outlet, family) as usize;
        let ranking = self.book.selections.get(entry).map(|selection| selection.ranking);
        let ranking = ranking.unwrap_or_default();
        let ranked = ranking.iter().take_while(|path| **path != 0);
        let state = |path: u8| if self.alive(path) { "alive" } else { "dead" };
        let names: Vec<String> =
            ranked.map(|&path| format!("{} ({})", self.name(path), state(path))).collect();
        names.join(", ")
    }

    fn rule(&self, packet: &Packet, placed: Option<&Placed>) -> String {
        let address = packet.destination.address;
        let Some(Placed { net, rule }) = placed else {
            return format!("none for {address}: it goes to a WAN of our choice");
        };
        let says = match rule.class {
            prefix_class::LOCAL if rule.path != 0 => {
                format!("the gateway's own address on {}", self.name(rule.path))
            }
            prefix_class::LOCAL => "the gateway's own address".to_owned(),
            prefix_class::MULTICAST => "multicast, broadcast or link-local".to_owned(),
            prefix_class::BYPASS => "bypass: the kernel routes it".to_owned(),
            prefix_class::LAN => "the LAN".to_owned(),
            _ => format!("{}'s own subnet: it has no other way", self.name(rule.path)),
        };
        format!("{net}: {says}")
    }

    fn outcome(&self, decided: &Decided) -> Outcome {
        let (said, reason, wan) = match decided.verdict {
            Verdict::Path(path) => {
                let wan = self.name(path);
                let said = if decided.certain {
                    format!("it leaves by {wan}")
                } else {
                    format!("it leaves by {wan} if no other new flow comes before it")
                };
                (said, Reason::Forwarded, Some(wan))
            }
            Verdict::Hairpin(path) => {
                let said = format!(
                    "it is turned round to the LAN: the port is ours on {}",
                    self.name(path)
                );
                (said, Reason::Hairpinned, None)
            }
            Verdict::Kernel(reason) => {
                (format!("it is left to the kernel: {}", reason.describe()), reason, None)
            }
            Verdict::Drop(reason) => {
                (format!("it is dropped: {}", reason.describe()), reason, None)
            }
        };
        let possible = match &decided.picked {
            Some(picked) if !decided.certain => picked
                .possible
                .iter()
                .map(|(path, slots)| Possibility {
                    wan: self.name(*path),
                    share: *slots as f64 / SLOTS as f64,
                })
                .collect(),
            _ => Vec::new(),
        };
        Outcome { possible, ..outcome(said, reason, wan, decided.certain) }
    }

    fn would_change(&self, packet: &Packet, facts: &Facts, decided: &Decided) -> Vec<String> {
        let mut list = Vec::new();
        let free = match (&decided.flow, &decided.mapping) {
            (Some((flow, Standing::Good)), _) => how::is_free(flow.choice.how),
            (_, Some((mapping, Standing::Good))) => how::is_free(mapping.choice.how),
            _ => decided.picked.is_some(),
        };
        if let Verdict::Path(path) = decided.verdict {
            let wan = self.name(path);
            if free {
                list.push(self.without(packet, facts, path));
                list.push(format!("`mwb failover WAN` to another WAN than {wan}"));
            }
            if !matches!(decided.flow, Some((_, Standing::Good))) {
                list.push(format!(
                    "a prefix in `bypass` that holds {}",
                    packet.destination.address
                ));
            }
            list.push(format!("another address of {wan}: every flow over it is void then"));
        }
        if matches!(decided.mapping, Some((_, Standing::Good))) {
            list.push(format!(
                "another source port: {} keeps its outside endpoint for all it talks to",
                packet.source
            ));
        } else if free && !decided.certain {
            list.push("another new flow that takes the next slot before it".to_owned());
        } else if free && decided.picked.is_some() {
            list.push("other weights or WANs: the slots would lead elsewhere".to_owned());
        }
        match decided.verdict {
            Verdict::Kernel(Reason::Bypass) => {
                list.push("removing the prefix from `bypass` in the configuration".to_owned());
            }
            Verdict::Drop(Reason::SourceLimit) => {
                list.push("a higher nat.mappings_per_source, or the end of other flows".to_owned());
            }
            Verdict::Drop(Reason::PolicyBlocked) => {
                list.push("a rule before the one that blocks it, with `use: default`".to_owned());
            }
            Verdict::Drop(Reason::NoPath) if self.outlet != 0 => {
                list.push(
                    "`fallback: prefer`, or a WAN of the rule with an address and a gateway of \
                     this family"
                        .to_owned(),
                );
            }
            Verdict::Drop(Reason::NoPath) => {
                list.push("a WAN with an address and a gateway of this family".to_owned());
            }
            _ => {}
        }
        list
    }

    /// Where it would go if the WAN died now.
    fn without(&self, packet: &Packet, facts: &Facts, path: u8) -> String {
        let mut book = self.book.clone();
        if let Some(until) = book.liveness.alive_until.get_mut(usize::from(path)) {
            *until = 0;
        }
        let wan = self.name(path);
        let then = decide(&book, packet, facts);
        let blind = then.picked.is_some_and(|picked| picked.how == how::NONE_ALIVE);
        match then.verdict {
            // A flow that was made anew goes back to its own WAN if none is alive.
            Verdict::Path(other) if blind || (other != path && !self.alive(other)) => format!(
                "the death of {wan}: no WAN would be alive, and it would go to {} as if it were",
                self.name(other)
            ),
            Verdict::Path(other) if other != path => {
                format!("the death of {wan}: it would go to {}", self.name(other))
            }
            _ => format!("the life of another WAN: without one it stays on {wan}, dead or alive"),
        }
    }
}

fn hairpin(owner: Option<PortOwner>) -> String {
    let Some(owner) = owner else { return "nobody has the port".to_owned() };
    let [a, b, c, d] = owner.inside.address;
    let port = u16::from_be_bytes(owner.inside.port);
    let kind = if owner.last_used == FORWARD { "a port forward" } else { "a mapping" };
    format!("{kind} gives the port to {a}.{b}.{c}.{d}:{port}")
}
