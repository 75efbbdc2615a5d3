"""Where sources come from: package indexes, git, archives, and what CMake files would fetch."""
