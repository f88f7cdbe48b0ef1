//! Whose limits, which limit, and what somebody is told who is over it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Kind};

/// Who has a limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// `[[keys]]`, or a stored key.
    Key(Arc<str>),
    /// `[tenants.NAME]`.
    Tenant(Arc<str>),
    /// `[routes.NAME]`.
    Route(Arc<str>),
    /// `[targets.NAME]`: what its provider grants us.
    Target(Arc<str>),
    /// `[limits] total`.
    Total,
}

impl Owner {
    /// Its id: in the journal, and for a store that several processes share.
    pub fn id(&self) -> String {
        match self {
            Owner::Key(name) => format!("key:{name}"),
            Owner::Tenant(name) => format!("tenant:{name}"),
            Owner::Route(name) => format!("route:{name}"),
            Owner::Target(name) => format!("target:{name}"),
            Owner::Total => "total".to_owned(),
        }
    }

    /// What it is, for metrics: a bounded set.
    pub fn kind(&self) -> &'static str {
        match self {
            Owner::Key(_) => "key",
            Owner::Tenant(_) => "tenant",
            Owner::Route(_) => "route",
            Owner::Target(_) => "target",
            Owner::Total => "total",
        }
    }

    /// Where its limits stand.
    fn place(&self) -> String {
        match self {
            Owner::Key(name) => format!("limits of key {name}: [[keys]], or `weir keys list`"),
            Owner::Tenant(name) => format!("[tenants.{name}] limits"),
            Owner::Route(name) => format!("[routes.{name}] limits"),
            Owner::Target(name) => format!("[targets.{name}] limits"),
            Owner::Total => "[limits] total".to_owned(),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Key(name) => write!(f, "key {name}"),
            Owner::Tenant(name) => write!(f, "tenant {name}"),
            Owner::Route(name) => write!(f, "route {name}"),
            Owner::Target(name) => write!(f, "target {name}"),
            Owner::Total => f.write_str("this gateway"),
        }
    }
}

/// Which limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// `requests_per_minute`.
    Requests,
    /// `tokens_per_minute`.
    Tokens,
    /// `concurrency`.
    Concurrency,
    /// `usd_per_day`.
    Money,
}

impl What {
    /// All of them, for metrics.
    pub const ALL: [What; 4] = [What::Requests, What::Tokens, What::Concurrency, What::Money];

    /// Its key in the plan.
    pub fn key(self) -> &'static str {
        match self {
            What::Requests => "requests_per_minute",
            What::Tokens => "tokens_per_minute",
            What::Concurrency => "concurrency",
            What::Money => "usd_per_day",
        }
    }
}

/// Somebody is over a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over {
    /// Whose limit it is.
    pub owner: Owner,
    /// Which.
    pub what: What,
    /// The limit, in words.
    pub limit: String,
    /// When it is worth coming back, where that is known.
    pub wait: Option<Duration>,
}

impl Over {
    /// `error.code`: whose limit, and which.
    pub fn code(&self) -> &'static str {
        match (&self.owner, self.what) {
            (Owner::Key(_), What::Requests) => "key_requests_per_minute",
            (Owner::Key(_), What::Tokens) => "key_tokens_per_minute",
            (Owner::Key(_), What::Concurrency) => "key_concurrency",
            (Owner::Key(_), What::Money) => "key_usd_per_day",
            (Owner::Tenant(_), What::Requests) => "tenant_requests_per_minute",
            (Owner::Tenant(_), What::Tokens) => "tenant_tokens_per_minute",
            (Owner::Tenant(_), What::Concurrency) => "tenant_concurrency",
            (Owner::Tenant(_), What::Money) => "tenant_usd_per_day",
            (Owner::Route(_), What::Requests) => "route_requests_per_minute",
            (Owner::Route(_), What::Tokens) => "route_tokens_per_minute",
            (Owner::Route(_), What::Concurrency) => "route_concurrency",
            (Owner::Route(_), What::Money) => "route_usd_per_day",
            (Owner::Target(_), What::Requests) => "target_requests_per_minute",
            (Owner::Target(_), What::Tokens) => "target_tokens_per_minute",
            (Owner::Target(_), What::Concurrency) => "target_concurrency",
            (Owner::Target(_), What::Money) => "target_usd_per_day",
            (Owner::Total, What::Requests) => "total_requests_per_minute",
            (Owner::Total, What::Tokens) => "total_tokens_per_minute",
            (Owner::Total, What::Concurrency) => "total_concurrency",
            (Owner::Total, What::Money) => "total_usd_per_day",
        }
    }

    /// What the caller is told: the limit, where it stands in the plan, and when to come back.
    pub fn error(&self) -> Error {
        let (kind, what) = match (self.what, self.wait) {
            (What::Requests, _) => (Kind::OverLimit, "has used its requests of this minute"),
            (What::Tokens, _) => (Kind::OverLimit, "has used its tokens of this minute"),
            (What::Concurrency, _) => (Kind::OverLimit, "has as many requests running as it may"),
            (What::Money, Some(_)) => (Kind::OverBudget, "has no money left for this today (UTC)"),
            (What::Money, None) => (
                Kind::OverBudget,
                "has less money for a whole day than this may cost at most; ask for a shorter answer (max_tokens)",
            ),
        };
        let come_back = match self.wait {
            // Rounded up: who comes back then gets in.
            Some(wait) => format!(
                "; come back in {:.3} s",
                wait.as_micros().div_ceil(1_000) as f64 / 1e3
            ),
            None => String::new(),
        };
        let message = format!(
            "{} {what}: {} = {} ({}){come_back}",
            self.owner,
            self.what.key(),
            self.limit,
            self.owner.place()
        );
        let error = Error::new(kind, message).code(self.code());
        match self.wait {
            Some(wait) => error.retry_after(wait),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_limit_place_and_time() {
        let over = Over {
            owner: Owner::Total,
            what: What::Money,
            limit: "5".to_owned(),
            wait: Some(Duration::from_millis(1_500)),
        };
        let error = over.error();
        assert_eq!((error.status().as_u16(), error.should_retry()), (429, false));
        let json = String::from_utf8(error.json().to_vec()).unwrap();
        assert!(json.contains("\"code\":\"total_usd_per_day\""), "{json}");
        assert!(
            json.contains("[limits] total") && json.contains("usd_per_day = 5"),
            "{json}"
        );
        assert_eq!(error.retry_after_hint(), over.wait);
        let odd = Over {
            wait: Some(Duration::from_micros(1_500_001)),
            ..over.clone()
        };
        assert!(odd.error().message().contains("come back in 1.501 s"));
        let never = Over {
            wait: None,
            ..over.clone()
        };
        let error = never.error();
        assert_eq!((error.retry_after_hint(), error.should_retry()), (None, false));
        assert!(error.message().contains("max_tokens"), "{}", error.message());
        let key = Over {
            owner: Owner::Key("team-a".into()),
            what: What::Requests,
            ..over
        };
        assert!(key.error().should_retry() && key.error().message().contains("key team-a"));
    }
}
