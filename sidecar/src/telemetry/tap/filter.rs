//! Which requests somebody wants to see.

use std::time::Duration;

use http::Method;

use crate::{
    model::{edge::Direction, flag::ResponseFlag},
    telemetry::trail::{Caller, Trail},
};

/// All of what is said must hold; the default is every request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Which way.
    pub direction: Option<Direction>,
    /// To this cluster.
    pub cluster: Option<String>,
    /// From this caller: `app`, `unverified`, a SPIFFE ID, or the end of one after a `/`.
    pub source: Option<String>,
    /// Of this route.
    pub route: Option<String>,
    /// By this method.
    pub method: Option<Method>,
    /// With a path that begins so, byte by byte.
    pub path: Option<String>,
    /// Answered so.
    pub status: Option<StatusFilter>,
    /// With this flag.
    pub flag: Option<ResponseFlag>,
    /// That took so long at least.
    pub min_duration: Duration,
    /// That failed, were refused, or were left by their callers.
    pub is_failed: bool,
}

/// A status, or a class of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusFilter {
    /// There was none: the caller went away before, or it was a stream.
    None,
    /// This one.
    Code(u16),
    /// Those of this hundred.
    Class(u16),
}

impl std::str::FromStr for StatusFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let no = || format!("`{text}` is no status: a code such as 503, a class such as 5xx, or none");
        if text == "none" {
            return Ok(Self::None);
        }
        let in_range = |number: &u16, range: std::ops::RangeInclusive<u16>| range.contains(number);
        if let Some(class) = text.strip_suffix("xx") {
            let class: Option<u16> = class.parse().ok();
            return class.filter(|class| in_range(class, 1..=5)).map(Self::Class).ok_or_else(no);
        }
        let code: Option<u16> = text.parse().ok();
        code.filter(|code| in_range(code, 100..=999)).map(Self::Code).ok_or_else(no)
    }
}

impl Filter {
    /// Whether it is one of those.
    #[must_use]
    pub fn matches(&self, trail: &Trail) -> bool {
        self.direction.is_none_or(|direction| direction == trail.direction)
            && self.of_place(trail)
            && self.of_request(trail)
            && self.status.is_none_or(|status| status.matches(trail.status))
            && self.flag.is_none_or(|flag| trail.flag == Some(flag))
            && trail.ended >= self.min_duration
            && (!self.is_failed || trail.is_error())
    }

    fn of_place(&self, trail: &Trail) -> bool {
        let cluster = trail.cluster.as_ref().map(|name| name.as_str());
        self.cluster.as_deref().is_none_or(|wanted| cluster == Some(wanted))
            && self.route.as_deref().is_none_or(|wanted| trail.route.as_deref() == Some(wanted))
            && self.source.as_deref().is_none_or(|wanted| is_caller(&trail.caller, wanted))
    }

    fn of_request(&self, trail: &Trail) -> bool {
        let asked = trail.asked.as_ref();
        let path = asked.and_then(|asked| asked.target.as_ref()).map(|target| target.path());
        self.method.as_ref().is_none_or(|method| asked.is_some_and(|asked| asked.method == method))
            && self
                .path
                .as_deref()
                .is_none_or(|prefix| path.is_some_and(|path| path.as_bytes().starts_with(prefix.as_bytes())))
    }
}

fn is_caller(caller: &Caller, wanted: &str) -> bool {
    match caller {
        Caller::App => wanted == "app",
        Caller::Unverified => wanted == "unverified",
        Caller::Peer(id) => {
            let rest = id.as_str().strip_suffix(wanted);
            rest.is_some_and(|rest| rest.is_empty() || (rest.ends_with('/') && !wanted.is_empty()))
        }
    }
}

impl StatusFilter {
    fn matches(self, status: Option<u16>) -> bool {
        match self {
            Self::None => status.is_none(),
            Self::Code(code) => status == Some(code),
            Self::Class(class) => status.is_some_and(|status| status / 100 == class),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fixture::{peer, trail};

    #[test]
    fn everything_that_is_said_must_hold() {
        let trail = trail();
        let good = Filter {
            direction: Some(Direction::Outbound),
            cluster: Some("orders".to_owned()),
            source: Some("app".to_owned()),
            method: Some(Method::GET),
            path: Some("/items".to_owned()),
            status: Some(StatusFilter::Class(5)),
            flag: Some(ResponseFlag::UH),
            min_duration: Duration::from_millis(5),
            is_failed: true,
            route: Some("reads".to_owned()),
        };
        assert!(Filter::default().matches(&trail));
        assert!(good.matches(&trail));
        let bad = [
            Filter { direction: Some(Direction::Inbound), ..good.clone() },
            Filter { cluster: Some("order".to_owned()), ..good.clone() },
            Filter { source: Some("unverified".to_owned()), ..good.clone() },
            Filter { method: Some(Method::POST), ..good.clone() },
            Filter { path: Some("/itemz".to_owned()), ..good.clone() },
            Filter { status: Some(StatusFilter::Code(500)), ..good.clone() },
            Filter { status: Some(StatusFilter::None), ..good.clone() },
            Filter { flag: Some(ResponseFlag::UF), ..good.clone() },
            Filter { min_duration: Duration::from_secs(5), ..good.clone() },
            Filter { route: Some("writes".to_owned()), ..good.clone() },
        ];
        for filter in bad {
            assert!(!filter.matches(&trail), "{filter:?}");
        }
        let mut fine = trail.clone();
        (fine.flag, fine.status) = (None, Some(200));
        assert!(!Filter { is_failed: true, ..Filter::default() }.matches(&fine));
    }

    #[test]
    fn a_peer_is_named_by_its_id_or_by_the_end_of_it() {
        let caller = peer("shop/web");
        for wanted in ["web", "shop/web", "demo.outrider/shop/web", "spiffe://demo.outrider/shop/web"] {
            assert!(is_caller(&caller, wanted), "{wanted}");
        }
        for wanted in ["", "eb", "op/web", "shop", "app", "unverified"] {
            assert!(!is_caller(&caller, wanted), "{wanted}");
        }
    }

    #[test]
    fn a_status_is_a_code_a_class_or_none() {
        assert_eq!("503".parse(), Ok(StatusFilter::Code(503)));
        assert_eq!("5xx".parse(), Ok(StatusFilter::Class(5)));
        assert_eq!("none".parse(), Ok(StatusFilter::None));
        for wrong in ["", "5", "6xx", "xx", "-1", "abc", "99", "1000"] {
            assert!(wrong.parse::<StatusFilter>().is_err(), "{wrong}");
        }
    }
}
