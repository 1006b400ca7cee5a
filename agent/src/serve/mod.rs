//! Serving the picture: metrics, health, status.

pub mod bind;
pub mod client;
pub mod http;
