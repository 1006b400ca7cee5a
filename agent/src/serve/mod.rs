//! Serving the picture: metrics, health, status.

pub mod bind;
pub mod client;
pub mod health;
pub mod http;
pub mod metrics;
pub mod router;
pub mod status;
