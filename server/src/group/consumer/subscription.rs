//! What a group wants: topics by name and by pattern, and whether these have changed.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

use ringlog_protocol::ErrorCode;

use super::pattern::Pattern;
use super::{Consumer, MATCH_BYTES, MEMORY_IS_FULL, Member, Resolved, records, refuse};
use crate::group::classic::Scope;
use crate::group::request::Refusal;
use crate::group::{Name, TURN_WORK_MAX};

/// How often the patterns of a group are matched with all topics at most: there may be many of both.
const MATCHING_INTERVAL: Duration = Duration::from_secs(5);
/// So many bytes of names are matched while a member, a topic or a partition is looked at.
const MATCHED_BYTES_PER_WORK: usize = 64;
/// What it takes, in the same measure, to make a table of a pattern: the most.
const COMPILE_WORK: usize = 2_000;

impl Resolved {
    /// What it takes, without the table.
    fn bytes(&self, regex: &str) -> usize {
        self.topics.len() * MATCH_BYTES + 2 * regex.len() + MATCH_BYTES
    }

    pub(super) fn table_bytes(&self) -> usize {
        self.table.as_ref().map_or(0, Pattern::bytes)
    }
}

impl Consumer {
    /// The topics that a member wants, whether there are such or not.
    pub(super) fn wanted_by<'a>(&'a self, member: &'a Member) -> impl Iterator<Item = &'a Name> {
        let matched = member.regex.as_ref().and_then(|regex| self.patterns.get(regex));
        member.topics.iter().chain(matched.into_iter().flat_map(|resolved| &resolved.topics))
    }

    /// Whether a member wants this topic.
    pub(in crate::group) fn is_wanted(&self, topic: &str) -> bool {
        self.census.wants(topic)
    }

    /// The pattern, if it is one that the group does not know yet.
    pub(super) fn new_pattern(&self, regex: Option<&Name>, scope: &mut Scope<'_>) -> Result<Option<(Name, Pattern)>, Refusal> {
        let Some(regex) = regex.filter(|regex| !self.patterns.contains_key(*regex)) else { return Ok(None) };
        scope.out.work += COMPILE_WORK;
        let pattern = match Pattern::new(regex) {
            Ok(pattern) => pattern,
            Err(error) => {
                let message = format!("SubscribedTopicRegex `{regex}` is not a valid regular expression: {error}.");
                return refuse(ErrorCode::INVALID_REGULAR_EXPRESSION, message);
            }
        };
        if scope.usage.bytes() + pattern.bytes() > scope.settings.memory_bytes_max {
            return refuse(ErrorCode::GROUP_MAX_SIZE_REACHED, MEMORY_IS_FULL);
        }
        Ok(Some((regex.clone(), pattern)))
    }

    /// Finds the topics of a new pattern.
    pub(super) fn take_pattern(&mut self, regex: Name, pattern: Pattern, scope: &mut Scope<'_>) {
        let resolved = Resolved { table: Some(pattern), ..Resolved::new(scope.usage) };
        self.keep_pattern(regex.clone(), resolved);
        self.resolve(&regex, true, scope);
    }

    /// Has a pattern, with the topics that it matched.
    pub(super) fn keep_pattern(&mut self, regex: Name, mut resolved: Resolved) {
        let bytes = resolved.bytes(&regex) + resolved.table_bytes();
        resolved.charge.set(bytes);
        self.forget_pattern(&regex);
        if self.census.add_topics(resolved.topics.iter()) {
            self.hashed = None;
        }
        self.patterns.insert(regex, resolved);
    }

    /// False: there is no such pattern.
    pub(super) fn forget_pattern(&mut self, regex: &str) -> bool {
        let Some(resolved) = self.patterns.remove(regex) else { return false };
        if self.census.remove_topics(resolved.topics.iter()) {
            self.hashed = None;
        }
        true
    }

    /// Lets go of patterns, of these, that nobody has any more; those that were there.
    pub(super) fn drop_patterns(&mut self, regexes: impl Iterator<Item = Name>) -> Vec<Name> {
        let unused: Vec<Name> = regexes.filter(|regex| !self.census.has_pattern(regex)).collect();
        unused.into_iter().filter(|regex| self.forget_pattern(regex)).collect()
    }

    /// Matches a pattern with all topics, unless it was.
    fn resolve(&mut self, regex: &Name, is_new: bool, scope: &mut Scope<'_>) {
        let Some(resolved) = self.patterns.get_mut(regex) else { return };
        if std::mem::replace(&mut resolved.matched_version, scope.topics_version) == scope.topics_version {
            return;
        }
        let Some(table) = &resolved.table else { return };
        let mut matched_bytes = 0;
        let is_match = |name: &&Name| {
            matched_bytes += name.len() + 1;
            table.matches(name)
        };
        let topics: BTreeSet<Name> = scope.topics.names().filter(is_match).cloned().collect();
        scope.out.work += matched_bytes / MATCHED_BYTES_PER_WORK;
        if resolved.topics == topics && !is_new {
            return;
        }
        let before = std::mem::replace(&mut resolved.topics, topics);
        resolved.version = i64::try_from(scope.topics_version).unwrap_or(i64::MAX);
        resolved.at = scope.now.wall;
        let bytes = resolved.bytes(regex) + resolved.table_bytes();
        resolved.charge.set(bytes);
        scope.out.records.push(records::regex(scope.group, regex, Some(resolved)));
        // What comes is counted before what goes, which may be the same.
        let has_new = self.census.add_topics(resolved.topics.iter());
        if self.census.remove_topics(before.iter()) | has_new {
            self.hashed = None;
        }
    }

    /// Matches the patterns with the topics as they are now, if it is time, some of them with each heartbeat.
    fn match_patterns(&mut self, scope: &mut Scope<'_>) {
        let is_due = self.patterns_version != scope.topics_version && self.patterns_from <= scope.now.monotonic;
        if self.to_match.is_none() && is_due && !self.patterns.is_empty() {
            self.patterns_version = scope.topics_version;
            self.patterns_from = scope.now.monotonic + MATCHING_INTERVAL;
            self.to_match = self.patterns.keys().next().cloned();
        }
        let work_before = scope.out.work;
        while let Some(from) = self.to_match.take() {
            let mut patterns = self.patterns.range::<Name, _>((Bound::Included(&from), Bound::Unbounded)).map(|(regex, _)| regex);
            let Some(regex) = patterns.next().cloned() else { break };
            let next = patterns.next().cloned();
            if scope.out.work - work_before >= TURN_WORK_MAX {
                self.to_match = Some(regex);
                break;
            }
            scope.out.work += 1;
            self.make_table(&regex, scope);
            self.resolve(&regex, false, scope);
            self.to_match = next;
        }
    }

    /// Makes the table of a pattern that came out of the log.
    fn make_table(&mut self, regex: &Name, scope: &mut Scope<'_>) {
        let is_to_make = |resolved: &&mut Resolved| resolved.table.is_none() && !resolved.is_refused;
        let Some(resolved) = self.patterns.get_mut(regex).filter(is_to_make) else { return };
        scope.out.work += COMPILE_WORK;
        match Pattern::new(regex) {
            Ok(table) => {
                resolved.charge.add(table.bytes());
                resolved.table = Some(table);
            }
            // Those of another broker may be of another syntax, or larger.
            Err(error) => {
                resolved.is_refused = true;
                tracing::warn!(group = %scope.group, %regex, error, "a pattern of a group is not understood; its topics stay");
            }
        }
    }

    /// Begins the next epoch if members want something else, or the topics that they want have become others.
    pub(super) fn follow_topics(&mut self, has_changed_wish: bool, scope: &mut Scope<'_>) {
        self.match_patterns(scope);
        let is_due = has_changed_wish || self.epoch == 0;
        if !is_due && self.hashed.is_some_and(|(_, version)| version == scope.topics_version) {
            return;
        }
        let metadata_hash = self.hash_topics(scope);
        if is_due || metadata_hash != self.metadata_hash {
            self.begin_epoch(metadata_hash, scope);
        }
    }

    /// A hash over the topics that the group wants and that there are: FNV-1a of name, id and number of partitions of each; 0 for
    /// none. Kafka's is another one, which costs a rebalance when a group changes the broker, and nothing else. Made anew when it may
    /// be another.
    pub(super) fn hash_topics(&mut self, scope: &mut Scope<'_>) -> i64 {
        if let Some((hash, version)) = self.hashed
            && version == scope.topics_version
        {
            return hash;
        }
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut has_found = false;
        let mut mix = |bytes: &[u8]| {
            hash = bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        };
        for name in self.census.topics() {
            scope.out.work += 1;
            let Some((id, count)) = scope.topics.by_name(name) else { continue };
            has_found = true;
            mix(name.as_bytes());
            mix(&[0]);
            mix(&id);
            mix(&count.to_be_bytes());
        }
        let hash = if has_found { hash.cast_signed() } else { 0 };
        self.hashed = Some((hash, scope.topics_version));
        hash
    }
}
