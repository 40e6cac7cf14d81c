//! `check`: what is loaded is what should be, and real connections arrive where they should.
//!
//! Every connection stays in the namespace, if the rules hold: one to an address that nobody has (those for documentation:
//! RFC 5737, RFC 3849, RFC 9637) must arrive at the outbound port, one of our own to ourselves at the inbound port, and
//! what is local must stay so. That connections from the network are brought to the inbound port cannot be tried from
//! within; their rules are compared, and share the last ones with those of self-calls.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use ipnet::IpNet;
use rustix::process::geteuid;

use super::{
    Error, Loaded, Plan,
    probe::{Caller, Door, arrives},
};
use crate::model::{
    exceptions::{Matched, Way},
    intercept::{Mode, Own},
};

/// Addresses that nobody has, of each version of IP.
const NOWHERE: [(&str, [&str; 2]); 2] =
    [("IPv4", ["192.0.2.1", "198.51.100.1"]), ("IPv6", ["2001:db8::1", "3fff::1"])];
/// A user to be where we are one that is left alone; `nobody`, or one that hardly any system has.
const USERS: [u32; 2] = [65534, 61_184];

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What was proved, in words.
    pub proved: Vec<String>,
    /// What could not be tried and need not hold, in words.
    pub notes: Vec<String>,
    /// What does not hold, in words. Interception works only if there is nothing here.
    pub faults: Vec<String>,
}

impl Plan {
    /// Proves that interception works as planned. Connections are only made if the right rules are loaded; without, they
    /// would leave.
    pub async fn check(&self) -> Findings {
        let mut findings = Findings::default();
        match self.loaded().await {
            Ok(Loaded::Same) => self.try_out(&mut findings).await,
            Ok(Loaded::Absent) => findings.faults.push("no rules are loaded".to_owned()),
            Ok(Loaded::Different(differences)) => findings.faults.extend(differences),
            Err(error) => findings.faults.push(unreadable(&error)),
        }
        findings
    }

    async fn try_out(&self, findings: &mut Findings) {
        let doors = Door::at(self.settings.outbound.port)
            .and_then(|outbound| Ok((outbound, Door::at(self.settings.inbound.port)?)));
        let (outbound, inbound) = match doors {
            Ok(doors) => doors,
            Err(error) => {
                findings.faults.push(format!("the ports of interception cannot be listened on: {error}"));
                return;
            }
        };
        let mut has_route = false;
        for (family, nowhere) in NOWHERE {
            let nowhere = nowhere.iter().filter_map(|address| address.parse().ok());
            let nowhere: Vec<IpAddr> =
                nowhere.filter(|address| !self.is_excepted(Way::Outbound, *address)).collect();
            let Some(nowhere) = nowhere.first().copied() else {
                findings.notes.push(format!("{family}: all that could be tried is excepted"));
                continue;
            };
            let Some(own) = source(nowhere) else {
                findings.notes.push(format!("{family}: there is no route out"));
                continue;
            };
            has_route = true;
            let trial = Trial { plan: self, family, nowhere, own };
            match trial.run(&outbound, &inbound, findings).await {
                Ok(()) => findings.proved.push(family.to_owned()),
                Err(fault) => findings.faults.push(fault),
            }
        }
        if !has_route {
            findings.faults.push("nothing could be tried: there is no way out of this namespace".to_owned());
        }
    }

    fn is_excepted(&self, way: Way, address: IpAddr) -> bool {
        let nets = self.exceptions.iter().filter(|exception| exception.way == way);
        nets.filter_map(|exception| match exception.matched {
            Matched::Cidr(net) => Some(net),
            Matched::Port(_) | Matched::Uid(_) | Matched::Listener(_) => None,
        })
        .any(|net: IpNet| net.contains(&address))
    }

    /// A port to which connections of one way are not left alone.
    fn port(&self, way: Way) -> u16 {
        let ours = [self.settings.outbound.port, self.settings.inbound.port];
        let is_excepted = |port: &u16| {
            ours.contains(port)
                || self.exceptions.iter().any(|exception| {
                    exception.way == way
                        && [Matched::Port(*port), Matched::Listener(*port)].contains(&exception.matched)
                })
        };
        let ports = [80].into_iter().chain(1..=u16::MAX);
        // Not every port can be excepted: the configuration's lists are shorter.
        ports.into_iter().find(|port| !is_excepted(port)).unwrap_or(80)
    }

    /// Somebody whose connections are brought to us.
    fn app(&self) -> Caller {
        let is_left_alone = |uid: u32| {
            self.settings.own == Own::Uid(uid) || self.settings.outbound.except_uids.contains(&uid)
        };
        let current = geteuid().as_raw();
        let uid = is_left_alone(current)
            .then(|| USERS.into_iter().find(|uid| !is_left_alone(*uid)).unwrap_or(current));
        Caller { uid, ..Caller::default() }
    }

    /// Ourselves.
    fn own(&self) -> Caller {
        match self.settings.own {
            Own::Mark(mark) => Caller { mark: Some(mark), ..Caller::default() },
            Own::Uid(uid) if uid == geteuid().as_raw() => Caller::default(),
            Own::Uid(uid) => Caller { uid: Some(uid), ..Caller::default() },
        }
    }
}

/// Connections of one version of IP.
struct Trial<'a> {
    plan: &'a Plan,
    family: &'static str,
    nowhere: IpAddr,
    own: IpAddr,
}

impl Trial<'_> {
    /// Tries everything, up to the first fault.
    async fn run(&self, outbound: &Door, inbound: &Door, findings: &mut Findings) -> Result<(), String> {
        let Self { plan, nowhere, own, .. } = *self;
        let outside = SocketAddr::new(nowhere, plan.port(Way::Outbound));
        let (port, inbound_port) = (plan.settings.outbound.port, plan.settings.inbound.port);
        let what = format!("an app's connection is redirected to port {port} (chain outbound)");
        self.one(&what, plan.app(), outside, outbound).await?;

        let ourselves = SocketAddr::new(own, plan.port(Way::Inbound));
        if plan.is_excepted(Way::Inbound, own) {
            findings.notes.push(format!("{}: the own address is excepted from what comes in", self.family));
        } else {
            let what = format!("a self-call is redirected to port {inbound_port} (chain own)");
            self.one(&what, plan.own(), ourselves, inbound).await?;
        }

        let (app, at) =
            Door::on(own).map_err(|error| format!("{}: listening on {own}: {error}", self.family))?;
        let what = "an app's connection to the namespace's own address stays as it is (chain outbound)";
        self.one(what, plan.app(), at, &app).await?;
        let to_app = Caller { is_to_app: true, ..plan.own() };
        self.one("our connection to the app stays as it is (chain own)", to_app, at, &app).await?;
        if plan.settings.mode == Mode::Tproxy {
            let as_client = Caller { from: Some(nowhere), ..to_app };
            let what = "the app's answers to a client's address come back to us (chain answers, routing)";
            self.one(what, as_client, at, &app).await?;
        }
        Ok(())
    }

    async fn one(&self, what: &str, caller: Caller, to: SocketAddr, door: &Door) -> Result<(), String> {
        let tried = arrives(caller, to, door).await;
        tried.map_err(|why| format!("{}: that {what} does not hold for one to {to}: {why}", self.family))
    }
}

/// The address that a connection to `destination` would have; `None` if none leads there. Sends nothing.
fn source(destination: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if destination.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((destination, 9)).ok()?;
    let own = socket.local_addr().ok()?.ip();
    (!own.is_loopback() && !own.is_unspecified()).then_some(own)
}

/// An error with what it was caused by.
fn unreadable(error: &Error) -> String {
    let mut text = format!("what is loaded cannot be read: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
