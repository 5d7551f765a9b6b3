//! How a member comes from what it holds to what it is to hold (KIP-848): first it gives up what it is not to hold and says so, then
//! it comes to the epoch of the assignment and gets what is free, then it waits for the rest. Pure.
//!
//! What holds: **OneOwner**. A partition that a member holds, or has not yet said it gave up, is not given to another.

use ringlog_protocol::Uuid;

use super::Partitions;
use crate::group::SmallMap;

/// What a member holds: partitions, each with the epoch at which it got it.
pub(super) type Held = SmallMap<Uuid, SmallMap<i32, i32>>;

/// How far a member is. The numbers are those of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Progress {
    /// It holds what it was to hold at its epoch.
    #[default]
    Stable = 0,
    /// It is to give partitions up before it comes to a newer epoch.
    Revoking = 1,
    /// It waits for partitions that others are to give up.
    Waiting = 2,
}

impl Progress {
    pub(super) fn from_record(state: i8) -> Self {
        match state {
            1 => Self::Revoking,
            2 => Self::Waiting,
            // What a later version may know is begun anew.
            _ => Self::Stable,
        }
    }
}

/// Where a member is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) epoch: i32,
    /// The epoch before, for a member that did not hear of the last.
    pub(super) previous_epoch: i32,
    pub(super) progress: Progress,
    pub(super) assigned: Held,
    /// What it is to give up and has not said that it gave up.
    pub(super) revoking: Held,
}

impl Place {
    /// Whether it has come to an assignment.
    pub(super) fn is_at(&self, assignment_epoch: i32) -> bool {
        self.progress == Progress::Stable && self.epoch == assignment_epoch
    }

    /// The next place. `owned` is what the member says it holds, if it said so; `is_free` whether nobody else has a partition.
    pub(super) fn next(
        &self,
        assignment_epoch: i32,
        target: &Partitions,
        owned: Option<&Partitions>,
        is_free: impl Fn(Uuid, i32) -> bool,
    ) -> Self {
        match self.progress {
            Progress::Stable if self.epoch == assignment_epoch => self.clone(),
            Progress::Revoking if has_any(&self.revoking, owned) => self.clone(),
            Progress::Stable | Progress::Revoking | Progress::Waiting => self.advance(assignment_epoch, target, owned, is_free),
        }
    }

    fn advance(
        &self,
        assignment_epoch: i32,
        target: &Partitions,
        owned: Option<&Partitions>,
        is_free: impl Fn(Uuid, i32) -> bool,
    ) -> Self {
        let (mut assigned, mut revoking) = (Held::new(), Held::new());
        for (topic, partitions) in &self.assigned {
            for (partition, epoch) in partitions {
                let stays = target.get(topic).is_some_and(|target| target.contains(partition));
                let place = if stays { &mut assigned } else { &mut revoking };
                place.get_or_default(*topic).insert(*partition, *epoch);
            }
        }
        if has_any(&revoking, owned) {
            return Self { epoch: self.epoch, previous_epoch: self.epoch, progress: Progress::Revoking, assigned, revoking };
        }
        let mut waits = false;
        for (topic, partitions) in target {
            for partition in partitions {
                if assigned.get(topic).is_some_and(|held| held.contains_key(partition)) {
                    continue;
                }
                if is_free(*topic, *partition) {
                    assigned.get_or_default(*topic).insert(*partition, assignment_epoch);
                } else {
                    waits = true;
                }
            }
        }
        Self {
            epoch: assignment_epoch,
            previous_epoch: self.epoch,
            progress: if waits { Progress::Waiting } else { Progress::Stable },
            assigned,
            revoking: Held::new(),
        }
    }
}

/// Whether any of these is still held, by what the member says; unless it says what it holds, all of them.
fn has_any(held: &Held, owned: Option<&Partitions>) -> bool {
    let Some(owned) = owned else { return !held.is_empty() };
    held.iter().any(|(topic, partitions)| {
        owned.get(topic).is_some_and(|owned| partitions.keys().any(|partition| owned.contains(partition)))
    })
}
