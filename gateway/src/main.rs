//! The `weir` command.

/// glibc's allocator keeps the high-water mark of a burst for good (docs/figures.md); this one gives it back.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static HEAP: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    // By default freed pages go back only while somebody allocates; an idle gateway would keep them.
    // One thread does that: by default they come with the load, one a core, and threads at rest would differ from those at
    // the start.
    #[cfg(not(target_env = "msvc"))]
    {
        let _ = tikv_jemalloc_ctl::max_background_threads::write(1);
        let _ = tikv_jemalloc_ctl::background_thread::write(true);
    }
    gateway::cli::main()
}
