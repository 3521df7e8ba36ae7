//! External text ids to dense `u32` and back. The number depends only on the order of first appearance.

use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};

/// Dense id of an item, category or brand that no table knows.
pub const NONE: u32 = u32::MAX;

/// Table of text ids, dense from 0 in order of first appearance.
#[derive(Default)]
pub struct Interner {
    names: Vec<Box<str>>,
    table: HashTable<u32>,
    hasher: RandomState,
}

impl Interner {
    /// Number of ids.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are no ids yet.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Dense id of `name`, if it has one.
    pub fn get(&self, name: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        self.table.find(hash, |&id| &*self.names[id as usize] == name).copied()
    }

    /// Dense id of `name`, given now if it has none.
    pub fn intern(&mut self, name: &str) -> u32 {
        if let Some(id) = self.get(name) {
            return id;
        }
        let id = self.names.len() as u32;
        self.names.push(name.into());
        let Self { names, table, hasher } = self;
        table.insert_unique(hasher.hash_one(name), id, |&other| hasher.hash_one(&*names[other as usize]));
        id
    }

    /// Text of a dense id; empty for [`NONE`] and ids never given.
    pub fn name(&self, id: u32) -> &str {
        self.names.get(id as usize).map_or("", |name| name)
    }

    /// All texts in the order of their ids.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// Bytes held, without the allocator's overhead.
    pub fn bytes(&self) -> usize {
        let text: usize = self.names.iter().map(|name| name.len() + size_of::<Box<str>>()).sum();
        text + self.table.capacity() * (size_of::<u32>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_dense_in_order_of_appearance() {
        let mut interner = Interner::default();
        let ids: Vec<u32> = ["b", "a", "b", "", "a"].iter().map(|name| interner.intern(name)).collect();
        assert_eq!(ids, [0, 1, 0, 2, 1]);
        assert_eq!(interner.name(1), "a");
        assert_eq!(interner.get("c"), None);
        assert_eq!(interner.name(NONE), "");
    }
}
