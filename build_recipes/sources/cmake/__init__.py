"""vLLM's own CMake files, read without running CMake: which external trees they ask for."""
