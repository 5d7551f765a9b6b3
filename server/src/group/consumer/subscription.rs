//! What a group wants: topics by name and by pattern, and whether these have changed.

use std::collections::BTreeSet;
use std::time::Duration;

use ringlog_protocol::ErrorCode;

use super::pattern::Pattern;
use super::{CONSUMER_BYTES, Consumer, MATCH_BYTES, Resolved, records, refuse};
use crate::group::classic::Scope;
use crate::group::request::Refusal;
use crate::group::topics::TopicView;
use crate::group::{Name, SmallMap};

/// How often the patterns of a group are matched with all topics at most: there may be many of both.
const MATCHING_INTERVAL: Duration = Duration::from_secs(5);

impl Consumer {
    /// The topics that a member wants, whether there are such or not.
    pub(super) fn wanted_by(&self, id: &Name) -> impl Iterator<Item = &Name> {
        let member = self.seats.get(id).map(|seat| &seat.member);
        let pattern = member.and_then(|member| member.regex.as_ref()).and_then(|regex| self.patterns.get(regex));
        let matched = pattern.into_iter().flat_map(|resolved| &resolved.topics);
        member.into_iter().flat_map(|member| &*member.topics).chain(matched)
    }

    fn wanted(&self) -> BTreeSet<&Name> {
        self.seats.keys().flat_map(|id| self.wanted_by(id)).collect()
    }

    /// Whether a member wants this topic.
    pub(in crate::group) fn is_wanted(&self, topic: &str) -> bool {
        let by_pattern = || self.patterns.values().any(|resolved| resolved.topics.contains(topic));
        self.seats.values().any(|seat| seat.member.wants(topic)) || by_pattern()
    }

    /// The pattern, if it is one that the group does not know yet.
    pub(super) fn new_pattern(&self, regex: Option<&Name>) -> Result<Option<(Name, Pattern)>, Refusal> {
        let Some(regex) = regex.filter(|regex| !self.patterns.contains_key(*regex)) else { return Ok(None) };
        match Pattern::new(regex) {
            Ok(pattern) => Ok(Some((regex.clone(), pattern))),
            Err(error) => {
                let message = format!("SubscribedTopicRegex `{regex}` is not a valid regular expression: {error}.");
                refuse(ErrorCode::INVALID_REGULAR_EXPRESSION, message)
            }
        }
    }

    /// Lets go of patterns that nobody has any more, and finds the topics of a new one.
    pub(super) fn settle_patterns(&mut self, new: Option<(Name, Pattern)>, scope: &mut Scope<'_>) {
        self.drop_patterns(scope);
        if let Some((regex, pattern)) = new {
            self.resolve(&regex, &pattern, scope);
        }
    }

    pub(super) fn drop_patterns(&mut self, scope: &mut Scope<'_>) {
        if self.patterns.is_empty() {
            return;
        }
        let used: BTreeSet<&Name> = self.seats.values().filter_map(|seat| seat.member.regex.as_ref()).collect();
        let gone: Vec<Name> = self.patterns.keys().filter(|pattern| !used.contains(*pattern)).cloned().collect();
        for pattern in gone {
            self.patterns.remove(&pattern);
            scope.out.records.push(records::regex(scope.group, &pattern, None));
        }
        self.charge_patterns();
    }

    fn resolve(&mut self, regex: &Name, pattern: &Pattern, scope: &mut Scope<'_>) {
        let topics: BTreeSet<Name> = scope.topics.names().filter(|name| pattern.matches(name)).cloned().collect();
        if self.patterns.get(regex).is_some_and(|resolved| resolved.topics == topics) {
            return;
        }
        let version = i64::try_from(scope.topics_version).unwrap_or(i64::MAX);
        let resolved = Resolved { topics, version, at: scope.now.wall };
        scope.out.records.push(records::regex(scope.group, regex, Some(&resolved)));
        self.patterns.insert(regex.clone(), resolved);
        self.charge_patterns();
    }

    pub(super) fn charge_patterns(&mut self) {
        let matched: usize = self.patterns.values().map(|resolved| resolved.topics.len()).sum();
        let texts: usize = self.patterns.keys().map(|pattern| 2 * pattern.len() + MATCH_BYTES).sum();
        let targets = self.targets.values().flat_map(SmallMap::values).map(BTreeSet::len).sum::<usize>();
        self.charge.set(CONSUMER_BYTES + matched * MATCH_BYTES + texts + targets * 32);
    }

    /// Begins the next epoch if members want something else, or the topics that they want have become others.
    pub(super) fn follow_topics(&mut self, has_changed_wish: bool, scope: &mut Scope<'_>) {
        let has_patterns = !self.patterns.is_empty();
        if has_patterns && self.patterns_version != scope.topics_version && self.patterns_from <= scope.now.monotonic {
            self.patterns_version = scope.topics_version;
            self.patterns_from = scope.now.monotonic + MATCHING_INTERVAL;
            self.topics_version = 0;
            let known: Vec<Name> = self.patterns.keys().cloned().collect();
            for regex in known {
                // Those of another broker may be of another syntax.
                match Pattern::new(&regex) {
                    Ok(pattern) => self.resolve(&regex, &pattern, scope),
                    Err(error) => {
                        tracing::warn!(group = %scope.group, %regex, error, "a pattern of a group is not understood; its topics stay")
                    }
                }
            }
        }
        let is_due = has_changed_wish || self.epoch == 0;
        if !is_due && self.topics_version == scope.topics_version {
            return;
        }
        self.topics_version = scope.topics_version;
        let metadata_hash = self.hash_topics(scope.topics);
        if is_due || metadata_hash != self.metadata_hash {
            self.begin_epoch(metadata_hash, scope);
        }
    }

    /// A hash over the topics that the group wants and that there are: FNV-1a of name, id and number of partitions of each; 0 for
    /// none. Kafka's is another one, which costs a rebalance when a group changes the broker, and nothing else.
    pub(super) fn hash_topics(&self, topics: &dyn TopicView) -> i64 {
        let found = self.wanted().into_iter().filter_map(|name| Some((name, topics.by_name(name)?)));
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut is_any = false;
        let mut mix = |bytes: &[u8]| {
            hash = bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        };
        for (name, (id, count)) in found {
            is_any = true;
            mix(name.as_bytes());
            mix(&[0]);
            mix(&id);
            mix(&count.to_be_bytes());
        }
        if is_any { hash.cast_signed() } else { 0 }
    }
}
