//! The proxies that are, or were lately, connected: found by who they are, not only by what they call themselves.
//!
//! A node id is chosen by the proxy. Alone it would let one member of the mesh keep another one out by being there
//! first, so a proxy is known by its proven identity *and* its node id, and no identity may take up more than its share
//! of the room.

use std::collections::HashMap;
use std::fmt;

use outrigger_plan::ProxyNode;

use super::proxy::Proxy;
use crate::clock::UnixMs;

/// Most proxies, those included that left lately.
pub const PROXIES_MAX: usize = 20_000;

/// Most proxies of one identity, those included that left lately.
pub const PROXIES_PER_IDENTITY_MAX: usize = 5_000;

/// Why a proxy was turned away.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConnectError {
    /// [`PROXIES_MAX`] reached.
    #[error("{PROXIES_MAX} proxies are connected, which is the limit")]
    Full,
    /// [`PROXIES_PER_IDENTITY_MAX`] reached.
    #[error("{PROXIES_PER_IDENTITY_MAX} proxies of this identity are connected, which is the limit")]
    IdentityFull,
}

/// Who a proxy is. Shown as `NAMESPACE/SERVICE-ACCOUNT/NODE-ID`; the first two cannot contain a slash.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ProxyKey {
    /// From its certificate.
    pub namespace: String,
    /// From its certificate.
    pub service_account: String,
    /// `node.id`, what it calls itself.
    pub id: String,
}

impl ProxyKey {
    /// Of a node, whose namespace and service account are those of its certificate.
    pub fn of(node: &ProxyNode) -> Self {
        Self {
            namespace: node.namespace.clone(),
            service_account: node.service_account.clone(),
            id: node.id.clone(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        Some(Self { namespace: parts.next()?, service_account: parts.next()?, id: parts.next()? })
    }

    fn identity(&self) -> Identity {
        (self.namespace.clone(), self.service_account.clone())
    }
}

impl fmt::Display for ProxyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.service_account, self.id)
    }
}

/// What an operator's word for a proxy was found to mean.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// This one.
    One(ProxyKey),
    /// None.
    None,
    /// Several identities use this node id.
    Several(Vec<ProxyKey>),
}

/// Namespace and service account.
type Identity = (String, String);

/// See the module.
#[derive(Default)]
pub(super) struct ProxyTable {
    proxies: HashMap<ProxyKey, Proxy>,
    /// How many entries each identity has; none that has none.
    held: HashMap<Identity, usize>,
}

impl ProxyTable {
    /// The entry of a proxy that connects, made when there is none. Where there is no room, the one of those who left
    /// that left first makes it.
    ///
    /// *Errors*: [`ConnectError`] when all that could make room are connected.
    pub(super) fn admit(&mut self, node: &ProxyNode, now: UnixMs) -> Result<&mut Proxy, ConnectError> {
        let key = ProxyKey::of(node);
        if !self.proxies.contains_key(&key) {
            let identity = key.identity();
            let of_identity = self.held.get(&identity).copied().unwrap_or(0);
            if of_identity >= PROXIES_PER_IDENTITY_MAX && !self.forget_one(Some(&identity)) {
                return Err(ConnectError::IdentityFull);
            }
            if self.proxies.len() >= PROXIES_MAX && !self.forget_one(None) {
                return Err(ConnectError::Full);
            }
            *self.held.entry(identity).or_default() += 1;
        }
        Ok(self.proxies.entry(key).or_insert_with(|| Proxy::new(node.clone(), String::new(), now)))
    }

    pub(super) fn find(&self, key: &ProxyKey) -> Option<&Proxy> {
        self.proxies.get(key)
    }

    pub(super) fn find_mut(&mut self, key: &ProxyKey) -> Option<&mut Proxy> {
        self.proxies.get_mut(key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Proxy> {
        self.proxies.values()
    }

    /// Those that have a stream.
    pub(super) fn connected(&self) -> impl Iterator<Item = &Proxy> {
        self.values().filter(|proxy| proxy.streams > 0)
    }

    /// Forgets those for which this does not hold.
    pub(super) fn retain(&mut self, keep: impl Fn(&Proxy) -> bool) {
        let gone: Vec<ProxyKey> =
            self.proxies.iter().filter(|(_, proxy)| !keep(proxy)).map(|(key, _)| key.clone()).collect();
        gone.iter().for_each(|key| self.forget(key));
    }

    /// What an operator means by a node id, or by the whole name that listings show. The whole name goes before an id
    /// that looks like one.
    pub(super) fn resolve(&self, text: &str) -> Found {
        if let Some(key) = ProxyKey::parse(text).filter(|key| self.proxies.contains_key(key)) {
            return Found::One(key);
        }
        let mut known: Vec<ProxyKey> = self.proxies.keys().filter(|key| key.id == text).cloned().collect();
        known.sort();
        match (known.pop(), known.is_empty()) {
            (None, _) => Found::None,
            (Some(one), true) => Found::One(one),
            (Some(last), false) => {
                known.push(last);
                Found::Several(known)
            }
        }
    }

    /// Makes room: forgets the proxy, of this identity or any, that left first. Returns whether there was one.
    fn forget_one(&mut self, identity: Option<&Identity>) -> bool {
        let left = self.proxies.iter().filter(|(key, proxy)| {
            proxy.streams == 0 && identity.is_none_or(|identity| key.identity() == *identity)
        });
        let first = left.min_by_key(|(_, proxy)| proxy.disconnected_at).map(|(key, _)| key.clone());
        first.is_some_and(|key| {
            self.forget(&key);
            true
        })
    }

    fn forget(&mut self, key: &ProxyKey) {
        if self.proxies.remove(key).is_none() {
            return;
        }
        let identity = key.identity();
        if let Some(count) = self.held.get_mut(&identity) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.held.remove(&identity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_plan::NodeKind;

    fn node(namespace: &str, id: &str) -> ProxyNode {
        ProxyNode::without_workload(id, NodeKind::Sidecar, namespace, "app")
    }

    fn key(namespace: &str, id: &str) -> ProxyKey {
        ProxyKey::of(&node(namespace, id))
    }

    #[test]
    fn node_id_means_a_proxy_as_long_as_one_identity_uses_it_and_the_whole_name_always() {
        let mut table = ProxyTable::default();
        for (namespace, id) in [("shop", "x"), ("shop", "y"), ("zoo", "x"), ("zoo", "shop/app/y")] {
            table.admit(&node(namespace, id), 0).unwrap();
        }
        assert_eq!(table.resolve("x"), Found::Several(vec![key("shop", "x"), key("zoo", "x")]));
        assert_eq!(table.resolve("zoo/app/x"), Found::One(key("zoo", "x")));
        assert_eq!(table.resolve("y"), Found::One(key("shop", "y")));
        assert_eq!(
            table.resolve("shop/app/y"),
            Found::One(key("shop", "y")),
            "not the one that calls itself so"
        );
        assert_eq!(table.resolve("zoo/app/shop/app/y"), Found::One(key("zoo", "shop/app/y")));
        assert_eq!(table.resolve("z"), Found::None);
    }

    #[test]
    fn identity_at_its_share_is_turned_away_and_others_are_not() {
        let mut table = ProxyTable::default();
        for i in 0..PROXIES_PER_IDENTITY_MAX {
            table.admit(&node("evil", &i.to_string()), 0).unwrap().streams = 1;
        }
        let refused = table.admit(&node("evil", "one more"), 0).err();
        assert_eq!(refused, Some(ConnectError::IdentityFull));
        table.admit(&node("evil", "7"), 0).unwrap();
        table.admit(&node("shop", "one more"), 0).unwrap();
        // One of its own that left makes room; another's does not.
        table.find_mut(&key("evil", "7")).unwrap().streams = 0;
        table.admit(&node("evil", "one more"), 0).unwrap().streams = 1;
        assert!(table.find(&key("evil", "7")).is_none());
        assert!(table.find(&key("shop", "one more")).is_some());
        assert_eq!(table.admit(&node("evil", "yet another"), 0).err(), Some(ConnectError::IdentityFull));
    }

    #[test]
    fn full_table_turns_away_until_somebody_has_left() {
        let mut table = ProxyTable::default();
        for i in 0..PROXIES_MAX {
            let namespace = format!("n{}", i / 1_000);
            table.admit(&node(&namespace, &i.to_string()), 0).unwrap().streams = 1;
        }
        assert_eq!(table.admit(&node("shop", "x"), 0).err(), Some(ConnectError::Full));
        table.find_mut(&key("n3", "3007")).unwrap().streams = 0;
        table.admit(&node("shop", "x"), 0).unwrap();
        assert_eq!(table.values().count(), PROXIES_MAX);
        table.retain(|proxy| proxy.node.namespace == "shop");
        assert_eq!((table.values().count(), table.held.len()), (1, 1));
    }
}
