"""Publishing a night: releases on GitHub, the catalogue of what is there, the package index, pull requests."""
