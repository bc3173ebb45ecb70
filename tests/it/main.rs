//! Integration tests: a file for each kind of promise, against real servers that the tests start and own.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod backup;
mod balancer;
mod browser;
mod cancelled_reports;
mod chaos;
mod cluster;
mod commands;
mod console;
mod declared_gateway;
mod declared_reports;
mod deployment;
mod documents;
mod embedded_log;
mod failover;
mod faults;
mod gateway;
mod learnt_sources;
mod ledger;
mod limits;
mod lists;
mod log_away;
mod log_contract;
mod monitoring;
mod openapi;
mod poison;
mod poolers;
mod privacy;
mod refused;
mod replay;
mod report_formats;
mod report_oracle;
mod reports;
mod restarts;
mod samples;
mod secured;
mod set_aside;
mod store;
mod streams;
mod summaries;
mod support;
mod terminal;
mod tracing;
mod watching;
mod wire;
