//! Engine of Shopkeeper.
