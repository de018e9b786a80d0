//! nptv6
