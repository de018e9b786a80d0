//! The agent.
pub mod api;
pub mod config;
pub mod dataplane;
pub mod events;
pub mod failover;
pub mod health;
pub mod net;
