//! How many files the process may open: a connection is one, and each request upstream is another.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files beside connections: records, journal, models, the admin plane, the runtimes' own.
const OWN: u64 = 256;

/// Raises the soft limit to the hard one, and says so when that is still less than the plan's connections may need.
pub fn raise(max_connections: u32) {
    let before = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    // Refused by some sandboxes; then the soft limit stays what it is.
    let _ = setrlimit(Resource::Nofile, wanted);
    // No limit at all reads as none.
    let Some(may) = getrlimit(Resource::Nofile).current else {
        return;
    };
    let needs = u64::from(max_connections).saturating_mul(2).saturating_add(OWN);
    if may < needs {
        tracing::warn!(
            may_open = may,
            "this process may open {may} files, and server.max_connections = {max_connections} may need {needs} (a connection of a \
             caller and one upstream each): raise the limit (ulimit -n, LimitNOFILE=) or lower max_connections"
        );
    }
}
