//! A map that takes as little memory as what is in it, as long as that is little: most groups have one member, one topic, a few
//! partitions, and a node of a B-tree has room for eleven of each. A few entries are in a vector of just that length, in order; more are
//! in a tree. For what a group keeps; pure.

use std::borrow::Borrow;
use std::collections::{BTreeMap, btree_map};
use std::{fmt, slice, vec};

/// How many entries are in a vector at the most.
const FEW_MAX: usize = 32;
/// With how many a tree becomes a vector again.
const FEW_AGAIN: usize = FEW_MAX / 2;

/// See the module. In the order of the keys, each once, as a [`BTreeMap`] is.
#[derive(Clone)]
pub struct SmallMap<K, V>(Inner<K, V>);

#[derive(Clone)]
enum Inner<K, V> {
    Few(Vec<(K, V)>),
    #[expect(clippy::box_collection, reason = "so that the vector's size is that of both")]
    Many(Box<BTreeMap<K, V>>),
}

impl<K, V> SmallMap<K, V> {
    /// Nothing in it, and nothing taken.
    #[must_use]
    pub const fn new() -> Self {
        Self(Inner::Few(Vec::new()))
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Inner::Few(few) => few.len(),
            Inner::Many(many) => many.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries, in order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        match &self.0 {
            Inner::Few(few) => Iter::Few(few.iter()),
            Inner::Many(many) => Iter::Many(many.iter()),
        }
    }

    /// The entries, in order, with values that can be changed.
    pub fn iter_mut(&mut self) -> IterMut<'_, K, V> {
        match &mut self.0 {
            Inner::Few(few) => IterMut::Few(few.iter_mut()),
            Inner::Many(many) => IterMut::Many(many.iter_mut()),
        }
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The values, in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The same, to change them.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.iter_mut().map(|(_, value)| value)
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    /// The entry of this key.
    #[must_use]
    pub fn get_key_value<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        match &self.0 {
            Inner::Few(few) => find(few, key).ok().map(|at| (&few[at].0, &few[at].1)),
            Inner::Many(many) => many.get_key_value(key),
        }
    }

    /// The value of this key.
    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// The value of this key, to change it.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        match &mut self.0 {
            Inner::Few(few) => find(few, key).ok().map(|at| &mut few[at].1),
            Inner::Many(many) => many.get_mut(key),
        }
    }

    /// Whether there is an entry of this key.
    #[must_use]
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get_key_value(key).is_some()
    }

    /// Puts a value in; returns the one that was in its place.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.get_mut(&key) {
            Some(before) => Some(std::mem::replace(before, value)),
            None => {
                self.get_or_insert_with(key, || value);
                None
            }
        }
    }

    /// The value of this key, which is made where there is none.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if let Inner::Few(few) = &mut self.0
            && few.len() == FEW_MAX
            && find(few, &key).is_err()
        {
            self.0 = Inner::Many(Box::new(few.drain(..).collect()));
        }
        match &mut self.0 {
            Inner::Few(few) => {
                let at = find(few, &key).unwrap_or_else(|at| {
                    few.reserve_exact(1);
                    few.insert(at, (key, make()));
                    at
                });
                &mut few[at].1
            }
            Inner::Many(many) => many.entry(key).or_insert_with(make),
        }
    }

    /// The value of this key, or a new one.
    pub fn get_or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.get_or_insert_with(key, V::default)
    }

    /// Takes the value of this key out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match &mut self.0 {
            Inner::Few(few) => {
                let (_, value) = few.remove(find(few, key).ok()?);
                few.shrink_to_fit();
                Some(value)
            }
            Inner::Many(many) => {
                let value = many.remove(key)?;
                if many.len() <= FEW_AGAIN {
                    let mut few = Vec::with_capacity(many.len());
                    few.extend(std::mem::take(&mut **many));
                    self.0 = Inner::Few(few);
                }
                Some(value)
            }
        }
    }
}

/// Where a key is, or would be.
fn find<K: Ord + Borrow<Q>, V, Q: Ord + ?Sized>(few: &[(K, V)], key: &Q) -> Result<usize, usize> {
    few.binary_search_by(|(own, _)| own.borrow().cmp(key))
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SmallMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for SmallMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other)
    }
}

impl<K: Eq, V: Eq> Eq for SmallMap<K, V> {}

impl<K: Ord, V> FromIterator<(K, V)> for SmallMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::new();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

/// See [`SmallMap::iter`].
pub enum Iter<'a, K, V> {
    #[doc(hidden)]
    Few(slice::Iter<'a, (K, V)>),
    #[doc(hidden)]
    Many(btree_map::Iter<'a, K, V>),
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(few) => few.next().map(|(key, value)| (key, value)),
            Self::Many(many) => many.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::Few(few) => few.size_hint(),
            Self::Many(many) => many.size_hint(),
        }
    }
}

impl<K, V> DoubleEndedIterator for Iter<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(few) => few.next_back().map(|(key, value)| (key, value)),
            Self::Many(many) => many.next_back(),
        }
    }
}

/// See [`SmallMap::iter_mut`].
pub enum IterMut<'a, K, V> {
    #[doc(hidden)]
    Few(slice::IterMut<'a, (K, V)>),
    #[doc(hidden)]
    Many(btree_map::IterMut<'a, K, V>),
}

impl<'a, K, V> Iterator for IterMut<'a, K, V> {
    type Item = (&'a K, &'a mut V);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(few) => few.next().map(|(key, value)| (&*key, value)),
            Self::Many(many) => many.next(),
        }
    }
}

/// The entries of a map that goes, in order.
pub enum IntoIter<K, V> {
    #[doc(hidden)]
    Few(vec::IntoIter<(K, V)>),
    #[doc(hidden)]
    Many(btree_map::IntoIter<K, V>),
}

impl<K, V> Iterator for IntoIter<K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(few) => few.next(),
            Self::Many(many) => many.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::Few(few) => few.size_hint(),
            Self::Many(many) => many.size_hint(),
        }
    }
}

impl<K, V> IntoIterator for SmallMap<K, V> {
    type Item = (K, V);
    type IntoIter = IntoIter<K, V>;

    fn into_iter(self) -> Self::IntoIter {
        match self.0 {
            Inner::Few(few) => IntoIter::Few(few.into_iter()),
            Inner::Many(many) => IntoIter::Many(many.into_iter()),
        }
    }
}

impl<'a, K, V> IntoIterator for &'a SmallMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, K, V> IntoIterator for &'a mut SmallMap<K, V> {
    type Item = (&'a K, &'a mut V);
    type IntoIter = IterMut<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8, u16),
        Default(u8, u16),
        Remove(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Few keys, so that some are there; enough for a tree.
        let key = 0..64_u8;
        prop_oneof![
            (key.clone(), any::<u16>()).prop_map(|(key, value)| Step::Insert(key, value)),
            (key.clone(), any::<u16>()).prop_map(|(key, value)| Step::Default(key, value)),
            key.prop_map(Step::Remove),
        ]
    }

    proptest! {
        #[test]
        fn it_is_what_a_tree_is(steps in proptest::collection::vec(step(), 0..200)) {
            let (mut map, mut tree) = (SmallMap::new(), BTreeMap::new());
            for step in steps {
                match step {
                    Step::Insert(key, value) => prop_assert_eq!(map.insert(key, value), tree.insert(key, value)),
                    Step::Default(key, value) => {
                        *map.get_or_default(key) ^= value;
                        *tree.entry(key).or_default() ^= value;
                    }
                    Step::Remove(key) => prop_assert_eq!(map.remove(&key), tree.remove(&key)),
                }
                prop_assert_eq!(map.len(), tree.len());
                prop_assert!(map.iter().eq(&tree) && map.iter().rev().eq(tree.iter().rev()));
                prop_assert!(map.clone().into_iter().eq(tree.clone()) && map.iter_mut().eq(&mut tree));
                prop_assert!(map.keys().eq(tree.keys()) && map.values().eq(tree.values()) && map.values_mut().eq(tree.values_mut()));
                for key in 0..64 {
                    prop_assert_eq!(map.get_key_value(&key), tree.get_key_value(&key));
                    prop_assert_eq!((map.get(&key), map.contains_key(&key)), (tree.get(&key), tree.contains_key(&key)));
                    prop_assert_eq!(map.get_mut(&key), tree.get_mut(&key));
                }
                if let Inner::Few(few) = &map.0 {
                    prop_assert_eq!(few.capacity(), few.len(), "no room is held that nobody is in");
                }
                // However it has come to be, as a vector or a tree.
                prop_assert_eq!(&tree.iter().map(|(key, value)| (*key, *value)).collect::<SmallMap<_, _>>(), &map);
            }
        }
    }

    #[test]
    fn few_are_in_a_vector_again_after_many() {
        let mut map: SmallMap<usize, usize> = (0..100).map(|at| (at, at)).collect();
        assert!(matches!(map.0, Inner::Many(_)));
        for at in FEW_AGAIN..100 {
            map.remove(&at);
        }
        assert!(matches!(&map.0, Inner::Few(few) if few.len() == FEW_AGAIN));
        assert_eq!(std::mem::size_of::<SmallMap<usize, usize>>(), 24, "and an empty one is no larger than a tree");
    }
}
