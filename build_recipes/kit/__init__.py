"""The ground: errors, processes, data files, paths, the host, the console, hashes. Imports nothing above."""
