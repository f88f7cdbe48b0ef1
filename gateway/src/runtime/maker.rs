//! Ways to the targets of a plan, as the process opens them: HTTP clients here, local models from whoever runs them.

use std::collections::HashMap;
use std::sync::Arc;

use routing::plan::{Plan, ProviderConfig, ProviderKind, SecretOrText, TargetConfig};

use super::secrets::Secrets;
use super::{Made, Make};
use crate::providers::Client;
use crate::providers::http::{ExtraHeader, HttpTarget, ProviderKey};
use crate::providers::pool::Tls;
use crate::providers::pool::{Endpoint, ProxyEnv};

/// Opens local targets.
pub trait Locals: Send + Sync {
    /// A way to a local target, or why there is none (yet).
    fn open(&self, target: &TargetConfig) -> Made;
    /// Measured ability of a target: by the artifact for local ones, by name for others.
    fn ability(&self, target: &TargetConfig) -> Option<routing::signals::Ability>;
}

/// The process's own maker.
pub struct Maker {
    locals: Arc<dyn Locals>,
}

impl Maker {
    /// With who runs the local models.
    pub fn new(locals: Arc<dyn Locals>) -> Self {
        Self { locals }
    }
}

/// A provider, opened once for all of its targets.
type Opened = Result<(Endpoint, Arc<ProviderKey>, Vec<ExtraHeader>), Arc<str>>;

impl Make for Maker {
    fn make(&self, plan: &Plan, secrets: &Secrets) -> Vec<Made> {
        let proxies = ProxyEnv::read(|name| secrets.var(name));
        let mut trusted: HashMap<Option<Arc<str>>, Result<Tls, String>> = HashMap::new();
        let providers: Vec<Opened> = plan
            .providers
            .iter()
            .map(|provider| match provider.kind {
                ProviderKind::Local => Err("local".into()),
                ProviderKind::Openai | ProviderKind::Anthropic => {
                    open(provider, secrets, &proxies, &mut trusted)
                }
            })
            .collect();
        plan.targets
            .iter()
            .map(|target| {
                let mut made = match (target.is_local(), providers.get(target.provider.index())) {
                    (true, _) => self.locals.open(target),
                    (false, Some(Ok((endpoint, key, headers)))) => {
                        match HttpTarget::new(target, endpoint.clone(), Arc::clone(key), headers) {
                            Ok(client) => Made::on(Client::Http(Arc::new(client))),
                            Err(why) => Made::off(why),
                        }
                    }
                    (false, Some(Err(why))) => Made::off(Arc::clone(why)),
                    (false, None) => Made::off("its provider is not in the plan"),
                };
                made.ability = self.locals.ability(target);
                made
            })
            .collect()
    }
}

fn open(
    provider: &ProviderConfig,
    secrets: &Secrets,
    proxies: &ProxyEnv,
    trusted: &mut HashMap<Option<Arc<str>>, Result<Tls, String>>,
) -> Opened {
    let key = provider
        .api_key
        .as_ref()
        .map(|secret| secrets.keep(secret))
        .transpose()?;
    let proxy = provider
        .proxy
        .as_ref()
        .map(|proxy| secrets.text(proxy))
        .transpose();
    // A proxy whose variable is not set is no proxy: `proxy = "env:HTTPS_PROXY"` is the same as what is heard anyway.
    let proxy = proxy.unwrap_or_default();
    let mut headers = Vec::new();
    for (name, value) in &provider.headers {
        headers.push(ExtraHeader {
            name: name.clone(),
            value: secrets.text(value)?,
            secret: matches!(value, SecretOrText::Secret(_)),
        });
    }
    let tls = if provider.base_url.starts_with("https:") {
        let made = trusted
            .entry(provider.ca_file.clone())
            .or_insert_with(|| Tls::new(provider.ca_file.as_deref()));
        Some(made.as_ref().map_err(|why| Arc::from(why.as_str()))?)
    } else {
        None
    };
    let endpoint = Endpoint::new(&provider.base_url, tls, proxy.as_deref(), proxies)?;
    Ok((endpoint, ProviderKey::new(key), headers))
}
