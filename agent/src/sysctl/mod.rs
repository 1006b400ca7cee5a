//! Keys, values, the catalogue, policies; planning, reconciling and the ledger.

pub mod catalogue;
pub mod disk;
pub mod effect;
pub mod engine;
pub mod fight;
pub mod glob;
pub mod inherit;
pub mod key;
pub mod ledger;
mod looking;
pub mod managed;
pub mod marks;
pub mod measure;
mod members;
pub mod place;
pub mod plan;
pub mod policy;
pub mod record;
pub mod restore;
mod siblings;
pub mod state;
pub mod value;
pub mod writers;
mod writing;
