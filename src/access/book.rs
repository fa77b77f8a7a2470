//! The tokens that a server knows, and the listeners' check.

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use tokio::sync::watch;

use super::{Grant, MAX_TOKEN, Token, TokenEntry};

/// The most tokens that an [`Access`] knows: each is compared with whatever is presented.
pub const MAX_TOKENS: usize = 4_096;

/// The longest that an expired token goes unnoticed when the wall clock is set meanwhile: it is looked at
/// so often.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Why a list of tokens is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// Two entries have the same name.
    #[error("two tokens are named {name:?}; give each a name of its own")]
    SameName {
        /// The name.
        name: String,
    },
    /// Two entries are the same token.
    #[error("{name:?} and {other:?} are the same token; make another one for each")]
    SameToken {
        /// One of them.
        name: String,
        /// The other one.
        other: String,
    },
    /// A name that does not fit a line of a log.
    #[error("a token's name has 1 to 64 characters, none of them a control character")]
    BadName,
    /// There are more than [`MAX_TOKENS`].
    #[error("there are {count} tokens; give at most {MAX_TOKENS}")]
    TooMany {
        /// How many.
        count: usize,
    },
}

/// Tokens with rights, which can be exchanged while servers run. A clone is the same list: give one to
/// each listener.
///
/// ```
/// use psa::server::{Access, TokenEntry};
///
/// let token = "what psa token new has printed";
/// let mut entry = TokenEntry::new("billing", Access::sha256(token));
/// entry.subscribe = vec!["orders/*".parse()?];
/// let access = Access::new(vec![entry])?;
/// assert_eq!(access.tokens(), 1);
/// access.replace(Vec::new())?; // whoever came in with it is sent away
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    entries: watch::Sender<Arc<[Arc<TokenEntry>]>>,
    /// Moves on under the lock of `entries`, so that who is woken by them finds it moved.
    revision: AtomicU64,
}

impl Access {
    /// Knows these tokens. None at all is fine: then nobody is let in but with the shared token.
    ///
    /// # Errors
    ///
    /// [`AccessError`] says which entries do not go together.
    pub fn new(entries: Vec<TokenEntry>) -> Result<Self, AccessError> {
        let entries = watch::Sender::new(checked(entries)?);
        Ok(Self(Arc::new(Inner { entries, revision: AtomicU64::new(0) })))
    }

    /// Puts these in the place of those that were known. Who came in with a token that is not among them
    /// any more is sent away; what it was told before stands.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); then the old ones stay.
    pub fn replace(&self, entries: Vec<TokenEntry>) -> Result<(), AccessError> {
        let new = checked(entries)?;
        self.move_on(|entries| *entries = new);
        Ok(())
    }

    /// What an entry keeps of this token.
    #[must_use]
    pub fn sha256(token: &str) -> [u8; 32] {
        Sha256::digest(token).into()
    }

    /// How many tokens it knows, expired ones included.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.0.entries.borrow().len()
    }

    fn move_on(&self, change: impl FnOnce(&mut Arc<[Arc<TokenEntry>]>)) {
        self.0.entries.send_modify(|entries| {
            change(entries);
            // Release: who sees the new number finds the new entries behind their lock anyway; this
            // only keeps the number from being seen before the lock is taken.
            self.0.revision.fetch_add(1, Ordering::Release);
        });
    }

    /// Moves on whenever what some token may could have changed.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the TCP listener asks"))]
    fn revision(&self) -> u64 {
        self.0.revision.load(Ordering::Acquire)
    }

    fn entries(&self) -> Arc<[Arc<TokenEntry>]> {
        self.0.entries.borrow().clone()
    }

    fn find(&self, presented: &str) -> Option<Grant> {
        let entries = self.entries();
        let digest = Self::sha256(presented);
        let mut found = u32::MAX;
        // To the last one in any case, without a branch on what was found: see the module.
        for (at, entry) in (0..).zip(entries.iter()) {
            found.conditional_assign(&at, entry.sha256.ct_eq(&digest));
        }
        let entry = entries.get(found as usize)?;
        (!entry.is_expired(SystemTime::now())).then(|| Grant::of(entry.clone()))
    }

    /// The same token as it is known now.
    fn renew(&self, old: &TokenEntry) -> Option<Grant> {
        let entries = self.entries();
        // What is looked for is a known token's hash: there is nothing to find out by the time it takes.
        let entry = entries.iter().find(|entry| entry.sha256 == old.sha256)?;
        (!entry.is_expired(SystemTime::now())).then(|| Grant::of(entry.clone()))
    }

    /// Tells of tokens that expire. Never ends.
    async fn keep_time(&self) {
        let mut news = self.0.entries.subscribe();
        // What had expired by then has been told. Nothing, at first: who came in before may count on it.
        let mut told = SystemTime::UNIX_EPOCH;
        loop {
            // Before the list is taken: one that comes later is news itself, and who hears of that looks
            // later than this. And what is told is what lies between two such moments, so that nothing
            // expires between them unnoticed.
            let now = SystemTime::now();
            let entries = news.borrow_and_update().clone();
            let before = std::mem::replace(&mut told, now);
            if entries.iter().any(|entry| entry.is_expired(before) != entry.is_expired(now)) {
                self.move_on(|_| {});
                continue;
            }
            let left = entries.iter().filter_map(|entry| entry.left(now));
            // The sender is here: to wait for news cannot fail.
            if let Some(soonest) = left.filter(|left| !left.is_zero()).min() {
                let _ = tokio::time::timeout(soonest.min(LOOK_EVERY), news.changed()).await;
            } else {
                let _ = news.changed().await;
            }
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({} tokens)", self.tokens())
    }
}

fn checked(entries: Vec<TokenEntry>) -> Result<Arc<[Arc<TokenEntry>]>, AccessError> {
    let count = entries.len();
    if count > MAX_TOKENS {
        return Err(AccessError::TooMany { count });
    }
    let mut names = HashSet::new();
    let mut tokens = std::collections::HashMap::new();
    for entry in &entries {
        let name = &entry.name;
        if name.is_empty() || name.chars().count() > 64 || name.contains(char::is_control) {
            return Err(AccessError::BadName);
        }
        if !names.insert(name) {
            return Err(AccessError::SameName { name: name.clone() });
        }
        if let Some(other) = tokens.insert(entry.sha256, name) {
            return Err(AccessError::SameToken { name: name.clone(), other: other.clone() });
        }
    }
    Ok(entries.into_iter().map(Arc::new).collect())
}

/// What a listener asks for.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    token: Option<Token>,
    access: Option<Access>,
}

impl Gate {
    pub(crate) fn new(token: Option<Token>, access: Option<Access>) -> Self {
        Self { token, access }
    }

    /// Whether everybody may come in.
    pub(crate) fn is_open(&self) -> bool {
        self.token.is_none() && self.access.is_none()
    }

    /// What is wrong with it, if anything.
    pub(crate) fn fault(&self) -> Option<String> {
        self.token.as_ref().and_then(Token::fault).map(str::to_owned)
    }

    /// What `presented` is good for; `None` if for nothing.
    pub(crate) fn admit(&self, presented: &str) -> Option<Grant> {
        if self.is_open() {
            return Some(Grant::ALL);
        }
        let shared = self.token.as_ref().is_some_and(|token| token.matches(presented));
        if shared {
            return Some(Grant::ALL);
        }
        // A longer one is no token of ours, and not worth hashing.
        let access = self.access.as_ref().filter(|_| presented.len() <= MAX_TOKEN)?;
        access.find(presented)
    }

    /// What a grant has become; `None` if its token was taken back or has expired.
    pub(crate) fn renew(&self, grant: &Grant) -> Option<Grant> {
        match (grant.entry(), &self.access) {
            (None, _) => Some(Grant::ALL),
            (Some(entry), Some(access)) => access.renew(entry),
            (Some(_), None) => None,
        }
    }

    /// Moves on whenever a grant may have become another one.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the TCP listener asks"))]
    pub(crate) fn revision(&self) -> u64 {
        self.access.as_ref().map_or(0, Access::revision)
    }

    /// News of that. `None` if there will be none.
    pub(crate) fn news(&self) -> Option<News> {
        self.access.as_ref().map(|access| News(access.0.entries.subscribe()))
    }

    /// Keeps time for tokens that expire. Never ends. That two listeners do so is no harm.
    pub(crate) async fn keep_time(&self) {
        match &self.access {
            Some(access) => access.keep_time().await,
            None => std::future::pending().await,
        }
    }
}

/// Waits for a revision.
pub(crate) struct News(watch::Receiver<Arc<[Arc<TokenEntry>]>>);

impl News {
    /// Waits for the next one. Cancel safe.
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // Nobody is left who could change anything.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Right;

    fn entry(name: &str, token: &str) -> TokenEntry {
        TokenEntry::new(name, Access::sha256(token))
    }

    fn gate(entries: Vec<TokenEntry>) -> Gate {
        Gate::new(None, Some(Access::new(entries).unwrap()))
    }

    #[test]
    fn the_hash_is_sha_256() {
        let hex: String = Access::sha256("abc").iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn each_token_is_its_own_wherever_it_stands() {
        let all: Vec<_> = (0..50).map(|i| entry(&format!("n{i}"), &format!("t{i}"))).collect();
        let gate = gate(all);
        for i in 0..50 {
            assert_eq!(gate.admit(&format!("t{i}")).unwrap().name(), format!("n{i}"));
        }
        for wrong in ["", "t", "t50", "n1", "T1", "t1 ", &"x".repeat(100_000)] {
            assert!(gate.admit(wrong).is_none());
        }
        assert!(!gate.is_open() && gate_of_nobody().admit("").is_none());
    }

    fn gate_of_nobody() -> Gate {
        gate(Vec::new())
    }

    #[test]
    fn the_shared_token_stays_beside_the_others() {
        let access = Access::new(vec![entry("a", "one")]).unwrap();
        let gate = Gate::new(Some(Token::new("shared")), Some(access));
        assert!(!gate.admit("shared").unwrap().is_limited());
        assert!(gate.admit("one").unwrap().is_limited());
        assert!(gate.admit("").is_none());
        assert!(Gate::new(None, None).admit("anything").is_some());
    }

    #[test]
    fn an_expired_token_is_none() {
        let mut late = entry("late", "late");
        late.expires = Some(SystemTime::now() - Duration::from_secs(1));
        let mut soon = entry("soon", "soon");
        soon.expires = Some(SystemTime::now() + Duration::from_secs(3600));
        let gate = gate(vec![late, soon]);
        assert!(gate.admit("late").is_none() && gate.admit("soon").is_some());
    }

    #[test]
    fn a_new_list_changes_what_was_granted() {
        let mut first = entry("a", "a");
        first.publish = vec!["*".parse().unwrap()];
        let access = Access::new(vec![first, entry("b", "b")]).unwrap();
        let gate = Gate::new(None, Some(access.clone()));
        let (a, b) = (gate.admit("a").unwrap(), gate.admit("b").unwrap());
        assert!(a.check(Right::Publish, "t").is_ok());
        let before = gate.revision();
        access.replace(vec![entry("a", "a")]).unwrap();
        assert_ne!(gate.revision(), before);
        assert!(gate.renew(&a).unwrap().check(Right::Publish, "t").is_err());
        assert!(gate.renew(&b).is_none());
    }

    #[test]
    fn a_bad_list_changes_nothing() {
        let access = Access::new(vec![entry("a", "a")]).unwrap();
        let refused = |entries| access.replace(entries).unwrap_err();
        let same = refused(vec![entry("x", "1"), entry("x", "2")]);
        assert_eq!(same, AccessError::SameName { name: "x".into() });
        let same = refused(vec![entry("x", "1"), entry("y", "1")]);
        assert_eq!(same, AccessError::SameToken { name: "y".into(), other: "x".into() });
        for bad in ["", "a\nb", &"x".repeat(65)] {
            assert_eq!(refused(vec![entry(bad, "1")]), AccessError::BadName);
        }
        let many = (0..=MAX_TOKENS).map(|i| entry(&i.to_string(), &i.to_string())).collect();
        assert_eq!(refused(many), AccessError::TooMany { count: MAX_TOKENS + 1 });
        assert_eq!((access.tokens(), access.revision()), (1, 0));
    }

    #[test]
    fn nothing_shows_a_hash() {
        let all = format!("{:?}", Access::sha256("a"));
        let shown = format!("{:?} {:?}", entry("a", "a"), Access::new(vec![entry("a", "a")]));
        assert!(!shown.contains(&all) && shown.contains("Access(1 tokens)"), "{shown}");
    }

    /// A gate whose time is kept until the test ends, and news of it.
    fn kept(access: &Access) -> (Gate, News) {
        let gate = Gate::new(None, Some(access.clone()));
        let news = gate.news().unwrap();
        let keeper = gate.clone();
        tokio::spawn(async move { keeper.keep_time().await });
        (gate, news)
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_told_of_a_list_and_of_an_end() {
        let access = Access::new(vec![entry("soon", "soon")]).unwrap();
        let (gate, mut news) = kept(&access);
        let grant = gate.admit("soon").unwrap();
        let mut soon = entry("soon", "soon");
        // By the wall clock, which stands still for nobody: the tokio clock runs ahead in this test.
        soon.expires = Some(SystemTime::now() + Duration::from_millis(50));
        access.replace(vec![soon]).unwrap();
        news.next().await;
        while gate.renew(&grant).is_some() {
            news.next().await;
        }
        access.replace(vec![entry("a", "a")]).unwrap();
        news.next().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_expires_before_anybody_looks_is_told() {
        let mut gone = entry("gone", "gone");
        gone.expires = Some(SystemTime::now());
        let access = Access::new(vec![gone]).unwrap();
        // Whoever came in with it just before, and hears nothing now, would stay.
        let (_, mut news) = kept(&access);
        tokio::time::timeout(Duration::from_secs(3600), news.next()).await.unwrap();
    }
}
