//! Policy rules of the control loop: they follow the configuration, the LAN ports that are
//! there and the time of day; their outlets follow health, as the choice for all other
//! flows does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use mwb_common::maps::{DEVICE_SLOTS, Family};
use mwb_common::policy::Rule;

use super::clock;
use super::control::Control;
use crate::api::policy::RuleStatus;
use crate::config::{Balance, Config, Domain, Fallback, Moment, PolicyAction, PolicyRule};
use crate::dataplane::Error;
use crate::events::EventKind;
use crate::explain::{Entry, Packet};
use crate::failover::{Member, Memory, Plan, Targets, decide_outlet};
use crate::net::{Device, Snapshot};
use crate::policy::{Facts, Key, Numbers, Slots, active, rules};

/// What is known of the rules.
#[derive(Debug, Default)]
pub(super) struct Policies {
    numbers: Numbers,
    slots: Slots,
    memories: BTreeMap<u8, Memory>,
    /// What each outlet was last decided to do.
    plans: BTreeMap<u8, [Plan; 2]>,
    /// What the kernel side has of each outlet.
    written: BTreeMap<u8, [Plan; 2]>,
    /// The minute that `facts` are of.
    moment: Option<Moment>,
    facts: Facts,
    /// Rules may have to be made anew.
    is_stale: bool,
    /// The rules that the kernel side was last given, or has refused.
    given: Option<Arc<Vec<Rule>>>,
    /// What the API shows, until something of it is otherwise.
    view: Option<Arc<PolicyView>>,
}

/// The rules as the API shows them and as questions about packets need them.
#[derive(Clone, Debug, Default)]
pub(super) struct PolicyView {
    /// Without hits: counters are read when somebody asks.
    pub(super) rules: Vec<RuleStatus>,
    /// Each rule's counter, and what it had counted for others.
    pub(super) slots: Vec<Option<(u16, u64)>>,
    /// The same rules as the kernel side has them.
    pub(super) given: Arc<Vec<Rule>>,
    /// Names that each rule asks for.
    pub(super) domains: Vec<Vec<Domain>>,
    /// How flows of each rule are shared, if it says so.
    pub(super) balances: Vec<Option<&'static str>>,
    /// Interface indexes of LAN ports.
    pub(super) ports: BTreeMap<String, u32>,
}

impl Policies {
    /// Another configuration is in force. `counted` has what each counter counts now.
    pub(super) fn follow(&mut self, config: &Config, counted: &[u64]) {
        let count = |index: u16| counted.get(usize::from(index)).copied().unwrap_or_default();
        self.numbers.follow(config);
        self.slots.follow(&config.policy, count);
        let ours: BTreeSet<u8> = self.numbers.iter().map(|(number, _)| number).collect();
        self.memories.retain(|number, _| ours.contains(number));
        self.plans.retain(|number, _| ours.contains(number));
        self.memories.values_mut().for_each(Memory::forget_shares);
        self.is_stale = true;
    }

    /// The LAN ports that are there. One with an index that the tables do not hold has no
    /// programs, and so no packets that a rule could be about.
    pub(super) fn see(&mut self, config: &Config, network: &Snapshot) {
        let lan = config.lan.iter().map(|lan| &lan.device);
        let ports: BTreeMap<String, u32> = lan
            .filter_map(|device| Some((device.clone(), network.device(device)?.ifindex)))
            .filter(|(_, ifindex)| (*ifindex as usize) < DEVICE_SLOTS)
            .collect();
        self.is_stale |= self.facts.ports != ports;
        self.facts.ports = ports;
    }

    /// Numbers of the names that rules ask for.
    pub(super) fn name(&mut self, names: BTreeMap<Domain, u16>) {
        self.is_stale |= self.facts.names != names;
        self.facts.names = names;
    }

    /// The LAN ports that are there, by index.
    pub(super) fn ports(&self) -> BTreeMap<u32, String> {
        self.facts.ports.iter().map(|(device, ifindex)| (*ifindex, device.clone())).collect()
    }

    /// Whether the rule of that place counts at this minute.
    pub(super) fn is_active(&self, index: usize) -> bool {
        self.facts.active.get(index).copied().unwrap_or(false)
    }

    /// Which rules count at this minute.
    fn look_at_clock(&mut self, rules: &[PolicyRule]) {
        let now = clock::moment();
        if !self.is_stale && self.moment == now {
            return;
        }
        // A machine that does not tell the time has no rule that depends on it.
        let active = match now {
            Some(now) => active(rules, now),
            None => rules.iter().map(|rule| rule.time.is_none()).collect(),
        };
        self.is_stale |= self.facts.active != active;
        (self.facts.active, self.moment) = (active, now);
        self.view = None;
    }
}

impl PolicyView {
    /// The LAN port that a packet comes in through: the one that is said, the only one, or
    /// the one whose subnet its source is in.
    pub(super) fn device(&self, packet: &Packet, entry: &Entry, network: &Snapshot) -> Option<u32> {
        if let Some(lan) = &entry.lan {
            return self.ports.get(lan).copied();
        }
        if self.ports.len() == 1 {
            return self.ports.values().next().copied();
        }
        let holds = |name: &&String| {
            let mut nets = network.device(name).into_iter().flat_map(Device::subnets);
            nets.any(|net| net.contains(&packet.source.address))
        };
        self.ports.keys().find(holds).and_then(|name| self.ports.get(name)).copied()
    }

    /// Name and words of each rule, and how flows of one of them are shared, which else is
    /// `balance`.
    pub(super) fn words<'a>(
        &'a self,
        rule: Option<usize>,
        balance: &'a str,
    ) -> (&'a str, Vec<(String, String)>) {
        let own = rule.and_then(|place| self.balances.get(place)).copied().flatten();
        let words = self.rules.iter().map(|rule| {
            let matches = if rule.matches.is_empty() { "everything" } else { &rule.matches };
            (rule.name.clone(), format!("{matches}; {}", rule.action))
        });
        (own.unwrap_or(balance), words.collect())
    }

    /// The rules with what each has counted; `counted` has all counters.
    pub(super) fn with_hits(&self, counted: &[u64]) -> Vec<RuleStatus> {
        let hits = |slot: &Option<(u16, u64)>| {
            let (index, before) = (*slot)?;
            Some(counted.get(usize::from(index))?.saturating_sub(before))
        };
        let slots = self.slots.iter().map(|slot| hits(slot).unwrap_or_default());
        self.rules
            .iter()
            .zip(slots)
            .map(|(rule, hits)| RuleStatus { hits, ..rule.clone() })
            .collect()
    }
}

impl Policies {
    /// What the API shows.
    pub(super) fn view(&self) -> Arc<PolicyView> {
        self.view.clone().unwrap_or_default()
    }
}

impl Control {
    /// Decides for each outlet, and writes what is new. Outlets come before the rules that
    /// name them.
    pub(super) fn decide_policy(&mut self, members: &[Member], now: Instant) -> Result<(), Error> {
        let main = self.decision.as_ref().map(|decision| [&decision.v4, &decision.v6]);
        let main = main.map(|plans| plans.map(Plan::clone)).unwrap_or_default();
        let numbers: Vec<(u8, Key)> =
            self.policies.numbers.iter().map(|(number, key)| (number, key.clone())).collect();
        for (number, key) in numbers {
            let targets = self.targets(&key);
            let memory = self.policies.memories.entry(number).or_default();
            let plans = decide_outlet(&targets, members, memory, now);
            self.write_outlet(number, &plans)?;
            if self.policies.plans.get(&number) != Some(&plans) {
                self.policies.plans.insert(number, plans);
                self.policies.view = None;
            }
        }
        self.write_policy()?;
        // Flows of an outlet that is none any more are as all others.
        let left: Vec<u8> = self.policies.numbers.left().collect();
        for number in left {
            self.write_outlet(number, &main)?;
        }
        Ok(())
    }

    fn write_outlet(&mut self, number: u8, plans: &[Plan; 2]) -> Result<(), Error> {
        let before = self.policies.written.get(&number);
        for (family, plan) in [Family::V4, Family::V6].into_iter().zip(plans) {
            if before.and_then(|before| before.get(family as usize)) != Some(plan) {
                let selection = plan.compile();
                self.plane.with(|plane| plane.set_outlet(number, family, &selection))?;
            }
        }
        self.policies.written.insert(number, plans.clone());
        Ok(())
    }

    /// The paths of an outlet.
    fn targets(&self, key: &Key) -> Targets {
        let path = |device: &String| {
            let mut wans = self.wans.iter();
            wans.find(|wan| wan.port.device == *device).map(|wan| wan.path)
        };
        Targets {
            paths: key.devices.iter().filter_map(path).collect(),
            balance: key.balance,
            strict: key.fallback == Fallback::Strict,
        }
    }

    /// Names that rules ask for have their numbers before the rules are written, and answers
    /// are heard where they may come.
    pub(super) fn follow_domains(&mut self) {
        let policy = &self.config.policy;
        match self.domains.follow(policy) {
            Ok(names) => self.policies.name(names),
            // The next look tries again.
            Err(error) => tracing::error!(%error, "names of policy rules are not followed"),
        }
        let asks = policy.rules.iter().any(|rule| !rule.matches.domains.is_empty());
        self.domains.listen(if asks { self.policies.ports() } else { BTreeMap::new() });
    }

    fn write_policy(&mut self) -> Result<(), Error> {
        self.policies.look_at_clock(&self.config.policy.rules);
        if !self.policies.is_stale && self.policies.given.is_some() {
            return Ok(());
        }
        self.policies.is_stale = false;
        self.policies.view = None;
        let Policies { facts, numbers, slots, given, .. } = &mut self.policies;
        let rules = rules(&self.config, facts, numbers, slots);
        if given.as_deref() == Some(&rules) {
            return Ok(());
        }
        // Some ten thousand writes at the most.
        let result = self.plane.with_slow(|plane| plane.set_policy(&rules)).and_then(|done| done);
        *given = Some(Arc::new(rules));
        match result {
            // What does not fit is not tried again until it is another.
            Err(Error::Policy(why)) => {
                let message = "the policy rules could not be taken; those before stay";
                self.bus.publish(EventKind::Config, None, message, why.to_string());
                Ok(())
            }
            Err(error) => {
                self.policies.given = None;
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// The rules as the API shows them. They may be a thousand: they are put in words when
    /// something is otherwise, and no more often.
    pub(super) fn view_policy(&mut self) {
        if self.policies.view.is_none() {
            self.policies.view = Some(Arc::new(self.policy_view()));
        }
    }

    fn policy_view(&self) -> PolicyView {
        let policy = &self.config.policy;
        let rules = policy.rules.iter().enumerate();
        let rules = rules.map(|(place, rule)| {
            let (wans, fallen_back) = self.leaves_by(rule);
            RuleStatus {
                name: policy.label(place),
                matches: rule.matches.to_string(),
                time: rule.time.map(|time| time.to_string()),
                action: rule.action.to_string(),
                active: self.policies.facts.active.get(place).copied().unwrap_or(false),
                changes_in_minutes: rule
                    .time
                    .zip(self.policies.moment)
                    .and_then(|(time, now)| time.next_change(now)),
                wans,
                fallen_back,
                hits: 0,
                addresses: None,
            }
        });
        PolicyView {
            rules: rules.collect(),
            slots: (0..policy.rules.len())
                .map(|place| self.policies.slots.of(policy, place))
                .collect(),
            given: self.policies.given.clone().unwrap_or_default(),
            domains: policy.rules.iter().map(|rule| rule.matches.domains.clone()).collect(),
            balances: policy.rules.iter().map(balance_of).collect(),
            ports: self.policies.facts.ports.clone(),
        }
    }

    /// Names of the WANs that a rule's new flows leave by now, and whether none of them is
    /// one of its own.
    fn leaves_by(&self, rule: &PolicyRule) -> (Vec<String>, bool) {
        let PolicyAction::Outlet(outlet) = &rule.action else { return (Vec::new(), false) };
        let key = Key::of(outlet, &self.config);
        let plans = self.policies.numbers.of(&key).and_then(|n| self.policies.plans.get(&n));
        let Some(plans) = plans else { return (Vec::new(), false) };
        let paths: BTreeSet<u8> =
            plans.iter().flat_map(|plan| plan.shares.keys().copied()).collect();
        let wans: Vec<String> = paths
            .into_iter()
            .filter_map(|path| self.wan(path))
            .map(|(_, configured)| configured.name.clone())
            .collect();
        let fallen_back = !wans.is_empty() && wans.iter().all(|wan| !outlet.wans.contains(wan));
        (wans, fallen_back)
    }
}

fn balance_of(rule: &PolicyRule) -> Option<&'static str> {
    match &rule.action {
        PolicyAction::Outlet(outlet) => outlet.balance.map(Balance::name),
        PolicyAction::Block | PolicyAction::Default => None,
    }
}
